"""The dashboard as a visitor meets it: each page in a browser, with nothing asked of any other machine."""

from __future__ import annotations

import csv
import io
import random
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipstudy.claims import CLAIMS
from clipstudy.dashboard import app, records
from clipstudy.dashboard.address import Runs
from clipstudy.dashboard.pages import queue, runs
from clipstudy.dashboard.pages.components import Desk
from clipstudy.dashboard.panels import Dashboard, Panel
from clipstudy.dashboard.records import Records
from clipstudy.errors import ClipstudyError, TrackingUnreachable
from clipstudy.job import Failure, FailureKind, Group, Selection, Status, layer_label
from clipstudy.outcome import Artifact, Estimate
from clipstudy.queue import dialect, jobs, migration
from clipstudy.results import evidence, sheets, verdicts, writers
from clipstudy.results.boards import board, view
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tasks.parts.files import parquet
from clipstudy.tasks.parts.sheet import contact_sheet
from clipstudy.tracking import Entry, Tracking
from tests.browser.served import Held, desk, picture
from tests.browser.visiting import NASTY, Open, cells, choose, drawn, go, said
from tests.made_up import BERT, MODELS, SHIFT, TASKS, Model, Task, result, results
from tests.queue import samples

PAGES = ("/", "/tables", "/claims", "/gallery", "/runs", "/queue")


def test_bars_are_the_numbers(visit: Open) -> None:
    found = results()
    page = visit(desk(found), "/?panel=Surface")
    expected = view(board(found, ("bert", "gpt2", "clip*")), "sentence_length")
    assert expected
    shown = drawn(page, "Sentence length")
    assert [trace["name"] for trace in shown] == [curve.title for curve in expected.curves]
    for trace, curve in zip(shown, expected.curves, strict=True):
        assert trace["x"] == [cell.layer for cell in curve.cells]
        assert trace["y"] == pytest.approx([100 * cell.estimate.value for cell in curve.cells])
    assert page.title() == "Surface: 3 charts · clipstudy"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_choosing_writes_the_address_and_the_address_reopens_the_view(visit: Open) -> None:
    page = visit(desk(results(MODELS[:3])))
    choose(page, "Syntactic")
    said(page, "Syntactic: 4 charts")
    assert page.get_by_text("stage (bars)").count() == 0, "these models have more than a layer in each"
    choose(page, "GPT-2")
    page.wait_for_url("**/?panel=Syntactic&model=bert&model=clip-text")
    choose(page, "depth (lines)")
    choose(page, "only their average")
    said(page, "Syntactic: 1 chart")
    first = drawn(page, "Syntactic: average")
    assert [trace["name"] for trace in first] == ["BERT", "CLIP text"]
    assert first[0]["x"][-1] == 1
    address = page.url
    go(page, "/tables")
    page.goto(address)
    said(page, "Syntactic: 1 chart")
    assert drawn(page, "Syntactic: average") == first
    ticked = page.locator("#controls input[type=checkbox]:checked")
    assert ticked.count() == 2
    page.go_back()
    page.wait_for_function("() => location.pathname === '/tables'")


def test_with_the_keyboard_alone(visit: Open) -> None:
    page = visit(desk(results(MODELS[:2])))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.get_by_role("radio", name="Phrases").focus()
    page.keyboard.press("ArrowDown")
    said(page, "Surface: 3 charts")
    # The choices are drawn anew after the address has changed, and their labels a moment after them.
    focus = "name => document.activeElement.closest('label')?.textContent.trim() === name"
    page.wait_for_function(focus, arg="Surface")
    page.keyboard.press("ArrowDown")
    said(page, "Syntactic: 4 charts")
    page.get_by_role("checkbox", name="GPT-2").focus()
    page.keyboard.press("Space")
    page.wait_for_url("**model=bert")
    page.wait_for_function(focus, arg="GPT-2")
    page.wait_for_function("() => document.querySelector('.js-plotly-plot').data.length === 1")
    summary = page.locator("figure summary").first
    summary.focus()
    page.keyboard.press("Enter")
    page.locator("figure details[open] table").wait_for()


def test_the_table_of_best_layers(visit: Open) -> None:
    found = results()
    page = visit(desk(found), "/tables?task=bigram_shift&task=phrases&model=bert&model=gpt2")
    ranked = board(found, ("bert", "gpt2", "clip*"))
    views = [v for task in ("phrases", "bigram_shift") if (v := view(ranked, task))]
    sheet = sheets.best([sheets.only(v, ("bert", "gpt2")) for v in views])
    assert cells(page, "sheet") == [[name, *(entry.text for entry in entries)] for name, entries in sheet.lines]
    bold = page.locator("#sheet .ag-cell.best").all_inner_texts()
    assert bold == [entry.text for _, entries in sheet.lines for entry in entries if entry.bold]
    page.locator("#sheet .ag-header-cell", has_text="BERT").click()
    order = sorted(sheet.lines, key=lambda line: line[1][0].value or 0)
    page.wait_for_function(
        "t => document.querySelector('#sheet [row-index=\"0\"] .ag-cell').textContent === t", arg=order[0][0]
    )
    for way in sheets.DOWNLOADS:
        with page.expect_download() as caught:
            page.get_by_role("link", name=f"this table as {way.name}").click()
        assert caught.value.suggested_filename == f"paper-Best-layers.{way.ending}"
        assert Path(caught.value.path()).read_text(encoding="utf-8") == way.write(sheet)


def test_two_models_are_compared(visit: Open) -> None:
    found = results(MODELS[:3])
    page = visit(desk(found), "/runs?first=bert&second=gpt2")
    ranked = board(found, ("bert", "gpt2", "clip*"))
    sheet = sheets.differences([v for t in ranked.tasks if (v := view(ranked, t))], "bert", "gpt2")
    expected = [[name, *(entry.text for entry in entries)] for name, entries in sheet.lines]
    assert cells(page, "comparison") == expected
    page.get_by_role("link", name="this table with its downloads").click()
    said(page, "BERT − GPT-2: 10 lines")
    assert sorted(cells(page, "sheet")) == sorted(expected)


def guesses(run: str) -> bytes:
    """What a classifier said of 40 sentences, in three of four cases right."""
    draw = random.Random(run)
    return parquet({"label": ["yes"] * 40, "mean/mlp/seed_0": [draw.choice(["yes"] * 3 + ["no"]) for _ in range(40)]})


def test_claims_are_those_of_the_command(visit: Open) -> None:
    """Each claim once, with its quote and its verdict; a choice of verdicts is an address."""
    roles = {"bert": "bert", "gpt2": "gpt2", "clip-text": "clip_text"}
    found = [replace(r, tags=r.tags | {"role": roles[r.model], "kind": "classify"}) for r in results(MODELS[:3])]
    syntactic = [r for r in found if r.task in ("bigram_shift", "tree_depth", "top_constituents")]
    shown = desk(found, files={r.run_id: {"predictions.parquet": guesses(r.run_id)} for r in syntactic})
    rows = verdicts.rows(evidence.judged(syntactic, shown.records.tracking.artifact)["paper"])
    page = visit(shown, "/claims")
    said(page, f"{len(rows)} verdicts on {len({row.claim for row in rows})} claims")
    text = page.locator("#body").inner_text()
    assert all(row.quote in text and row.verdict in text for row in rows)
    verdict = next(row.verdict for row in rows if row.statistic)
    go(page, f"/claims?verdict={verdict.replace(' ', '+')}")
    alike = [row for row in rows if row.verdict == verdict]
    assert page.locator("#judged tbody tr, #silent tbody tr").count() == len(alike) <= len(rows)
    assert page.locator("#controls input:checked").count() == 1


def test_all_columns_of_claims_are_seen_on_a_laptop(visit: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long models' names, intervals and numbers of items are."""
    apart = "syntactic(clip_text) at blocks 7–12 < syntactic(gpt2) at blocks 7–12"
    row = verdicts.Row(
        claim="C35", quote=CLAIMS[0].quote, verdict="not testable", models="clip_text = clip-pocket", compared=apart,
        statistic=apart, conditions=f"1 of 2 conditions fails: {apart}", value="-12.3 [-15.5, -10.1] points",
        p="< 0.001", n="10,000, 10,000, 10,000", why="", todo="",
    )  # fmt: skip
    monkeypatch.setattr(verdicts, "rows", lambda judgements: [row])
    page = visit(desk(results(MODELS[:1], TASKS[:1])), "/claims")
    said(page, "1 verdicts on 1 claims")
    assert page.evaluate("[...document.querySelectorAll('.wide')].every(e => e.scrollWidth <= e.clientWidth)")


def test_a_chart_is_taken_away(visit: Open) -> None:
    found = results()
    page = visit(desk(found), "/?panel=Syntactic&model=bert&model=gpt2")
    shown = view(board(found, ("bert", "gpt2", "clip*")), "bigram_shift")
    assert shown
    with page.expect_download() as caught:
        page.get_by_role("link", name="Bigram shift as CSV").click()
    text = Path(caught.value.path()).read_text(encoding="utf-8")
    assert text == writers.to_csv(sheets.only(shown, ("bert", "gpt2")))
    kinds = [row["what"] for row in csv.DictReader(io.StringIO(text))]
    assert kinds == ["layer"] * 26 + ["majority class"]
    with page.expect_download() as caught:
        page.get_by_role("link", name="Syntactic: average as Markdown").click()
    assert "Syntactic: average" in Path(caught.value.path()).read_text(encoding="utf-8")


def test_from_mlflow_to_the_screen(visit: Open, tmp_path: Path) -> None:
    """Runs as a worker records them: their numbers are the bars, their pictures in the gallery, their links lead on."""
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "artifacts"))
    began = datetime(2026, 11, 1, 12, tzinfo=UTC)
    task = TaskSpec("maps", "classify", "d", "accuracy", category="vision", label="Maps")
    value = {("vit", 0): 0.25, ("vit", 1): 0.5, ("rn", 0): 0.75, ("rn", 1): 1.0}
    for model in ("vit", "rn"):
        group = Group("s", ModelSpec(model, "timm", model, 1), DatasetSpec("d", "images"), task)
        parent = tracking.parent(group, {}, None)
        for layer in (0, 1):
            kept = (Artifact("maps/head 1.png", picture("red", 40 + layer)), Artifact("notes.txt", b"no picture"))
            measured = {"accuracy": Estimate(value[model, layer])}
            entry = Entry(
                group, layer + 1, 1, layer, layer_label(group.model, layer), "finished", began,
                began + timedelta(seconds=1), measured, artifacts=kept,
            )  # fmt: skip
            tracking.record(entry, parent)
    shown = Desk(Records(tracking), Dashboard("D", (Panel("P"),)), "http://127.0.0.1:5000")
    page = visit(shown)
    bars = {trace["name"]: trace["y"] for trace in drawn(page, "Maps")}
    assert bars == {m: [100 * value[m, 0], 100 * value[m, 1]] for m in ("rn", "vit")}
    page.get_by_role("link", name="Gallery").click()
    said(page, "Maps: 4 pictures")
    page.wait_for_function("() => [...document.querySelectorAll('.gallery img')].every(i => i.naturalWidth)")
    sizes = page.eval_on_selector_all(".gallery img", "all => all.map(i => [i.alt, i.naturalWidth])")
    label = {k: layer_label(ModelSpec("m", "timm", "m", 1, modality="image"), k) for k in (0, 1)}
    assert sorted(width for _, width in sizes) == [40, 40, 41, 41]
    assert all("head 1.png" in alt and any(m in alt for m in ("rn", "vit")) for alt, _ in sizes), label
    page.get_by_role("link", name="Runs").click()
    said(page, "4 runs")
    page.locator("#runs a").first.wait_for()
    links = page.locator("#runs a").evaluate_all("all => all.map(a => a.href)")
    there = f"http://127.0.0.1:5000/#/experiments/{tracking.experiment()}/runs/"
    assert set(links) == {f"{there}{r.run_id}?workflowType=machine_learning" for r in tracking.results()}


def test_nothing_of_a_chart_is_cut_or_covered_on_a_laptop(visit: Open) -> None:
    """A long note under the title of a chart on the right, and Plotly's tools, which come with the mouse."""
    note = "Pocket models in a made-up language, thinned to run in minutes: their numbers say nothing of other models."
    found = [replace(r, tags=r.tags | {"note": note}) for r in results(MODELS[:2], TASKS[-4:])]
    page = visit(desk(found, Dashboard("D", (Panel("P", average=True),))))
    page.locator(".chart .xtitle").nth(4).wait_for(state="attached")
    for at in (0, 2):  # the wide one, and one on the right
        chart = page.locator(".js-plotly-plot").nth(at)
        chart.hover()
        script = """(chart, parts) => [chart, ...parts.map(name => chart.querySelector(name))].map(e => {
          const box = e.getBoundingClientRect();
          return [box.left, box.top, box.right, box.bottom];
        })"""
        frame, tools, title, said, axis = chart.evaluate(script, [".modebar", ".gtitle", ".gtitle-subtitle", ".xtitle"])
        assert said[2] < frame[2] and tools[2] <= frame[2] and tools[3] <= frame[3] + 1
        for text in (title, said, axis):
            assert not (text[0] < tools[2] and tools[0] < text[2] and text[1] < tools[3] and tools[1] < text[3])


def test_what_is_on_a_contact_sheet_stands_under_it(visit: Open) -> None:
    run = result(BERT, SHIFT, 1, layers="1")
    files = {run.run_id: {"a.png": contact_sheet([np.zeros((9, 9, 3))] * 2, [NASTY, "channel 7: 1.5"], "What excites")}}
    page = visit(desk([run], Dashboard("D", (Panel("P", draw="pictures"),)), files), "/gallery")
    said(page, "1 pictures")
    told = ["What excites", f"{NASTY} · channel 7: 1.5"]
    assert page.locator(".gallery figcaption").all_inner_texts() == told
    go(page, "/")
    assert page.locator(".album figcaption").all_inner_texts() == ["BERT, layer 1", *told]


@pytest.mark.parametrize(("size", "rows"), [((90, 60), 2), ((300, 60), 4)])
def test_wide_pictures_get_a_line_of_their_own(visit: Open, size: tuple[int, int], rows: int) -> None:
    """Two layers of two models: beside each other, or where nothing could be made out then, under each other."""
    found = [result(m, SHIFT, k) for m in (BERT, MODELS[1]) for k in (1, 2)]
    page = visit(desk(found, files={r.run_id: {"sheet.png": picture("red", *size)} for r in found}), "/gallery")
    said(page, "Bigram shift: 4 pictures")
    assert page.locator(".gallery tbody tr").count() == rows
    assert page.locator("figcaption").count() == 0, "one kind of picture is named once"
    assert page.get_by_text("sheet.png of every run.").count() == 1


def test_files_that_stayed_on_another_machine_are_said(visit: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = desk(results(MODELS[:1], TASKS[:1]))
    monkeypatch.setattr(shown.records.tracking, "gone", lambda: "The runs' files are not here: see /another/machine")
    assert "see /another/machine." in visit(shown, "/gallery").inner_text("#body")
    assert "see /another/machine. Without them no claim" in visit(shown, "/claims").inner_text("#body")


def test_files_that_cannot_be_read_are_said(visit: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(run_id: str) -> list[str]:
        raise ClipstudyError("MLflow says that the files are in a folder of this machine, which it may not choose.")

    shown = desk(results(MODELS[:1], TASKS[:1]))
    monkeypatch.setattr(shown.records.tracking, "files", refused)
    assert "a folder of this machine, which it may not choose." in visit(shown, "/gallery").inner_text("#body")


def test_a_page_that_takes_long_says_so(visit: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = desk(results(MODELS[:1]))
    page = visit(shown)
    assert page.locator("#working").is_hidden()
    ready = threading.Event()
    judged = shown.records.judged
    monkeypatch.setattr(shown.records, "judged", lambda study: ready.wait(20) and judged(study))
    page.get_by_role("link", name="Claims").click()
    page.get_by_text("Working …").wait_for(state="visible")
    ready.set()
    said(page, "claims")
    page.get_by_text("Working …").wait_for(state="hidden")


def test_the_page_says_what_is_older_or_missing(visit: Open) -> None:
    gone = [r for r in results(MODELS[:1]) if (r.task, r.layer) != ("tree_depth", 5)]
    old = [
        replace(result(layer=k, digest="d0", ended="2026-10-01T00:00:00+00:00"), run_id=f"old-{k}") for k in range(3)
    ]
    page = visit(desk([*gone, *old]), "/?panel=Syntactic")
    text = page.inner_text("body")
    assert "bert · tree_depth: no result yet for layer 5" in text
    assert "bert · bigram_shift: 3 results of older settings (d0) not shown" in text
    assert "No result yet: BERT 5." in text


def test_a_link_that_names_what_is_not_there(visit: Open) -> None:
    page = visit(desk(results(MODELS[:2], TASKS[:3])), "/?panel=Surface&model=brt&x=up&metric=nope&colour=red")
    text = page.inner_text("[role=alert] >> nth=0") + page.inner_text("#body")
    assert 'x = "up". What exists: depth, layer, panel, stage.' in text
    assert 'no model here "brt". Did you mean "bert"?' in text
    assert 'no metric "nope"' in text, text
    assert 'This link: no setting "colour". What exists: draw, metric, model' in text, text
    go(page, "/nowhere")
    assert 'There is no page "/nowhere"' in page.inner_text("#body")


@pytest.mark.parametrize("path", PAGES)
def test_before_anything_is_recorded(visit: Open, path: str) -> None:
    told = {"/gallery": "No run of this study", "/queue": "There is no job table"}.get(path, "Nothing is recorded yet")
    assert told in visit(desk([]), path).inner_text("#body")


@pytest.mark.parametrize("path", PAGES)
def test_hostile_names_stay_text(visit: Open, tmp_path: Path, path: str) -> None:
    """An alert, a request or an element that a name makes would be complained about."""
    models = (Model(NASTY, NASTY), Model(f"{NASTY}2", f"{NASTY}2"))
    task = Task(NASTY, NASTY, "syntactic")
    found = [
        replace(result(m, task, k, study=NASTY, layer_label=NASTY, note=NASTY, layers="0,2,9"), run_id=f"{at}{k}")
        for at, m in enumerate(models)
        for k in (0, 2)
    ]
    files = {r.run_id: {f"{NASTY.replace('/', '')}.png": picture("red")} for r in found}
    engine = dialect.connect(f"sqlite:///{tmp_path / 'q.db'}")
    migration.migrate(engine)
    jobs.enqueue(engine, samples.cells(samples.group(NASTY, NASTY, study=NASTY)))
    for job in samples.claim(engine).jobs:
        jobs.fail(engine, job, samples.Failure(samples.FailureKind.CODE, NASTY, NASTY, False))
    shown = desk(found, Dashboard(NASTY, (Panel(NASTY, average=True, caption=NASTY),)), files, engine)
    page = visit(shown, path + "?job=1" * (path == "/queue"))
    assert NASTY in page.inner_text("#body")
    assert page.locator("h1").inner_text() == NASTY
    assert page.locator("b, img:not(.gallery img), h1 *").count() == 0
    if path == "/":
        page.locator(".js-plotly-plot .gtitle").first.wait_for(state="attached")
        assert page.locator(".gtitle").first.inner_html().count("<b") == 0
    if path == "/gallery":
        page.wait_for_function("() => [...document.querySelectorAll('.gallery img')].every(i => i.naturalWidth)")


def test_the_queue_and_its_actions(visit: Open, tmp_path: Path) -> None:
    engine = dialect.connect(f"sqlite:///{tmp_path / 'q.db'}")
    migration.migrate(engine)
    there = samples.one_of_each(engine)
    jobs.register(engine, jobs.WorkerInfo("gpu-7:1", "gpu-7", 1, "cuda:0", batch="bert · depth"))
    page = visit(desk([], engine=engine), "/queue")
    text = page.inner_text("#body")
    for part in ("1 of 5 cells done, 1 running, 1 queued, 1 failed", "gpu-7:1", "cuda:0", "bert · depth", "broke"):
        assert part in text, part
    assert page.locator("button", has_text="ticked").count() == 0, "read-only unless it is allowed"
    page.get_by_role("link", name=f"log of {there[Status.FAILED].id}").click()
    page.locator("pre.log", has_text="Traceback …").wait_for()

    page = visit(desk([], engine=engine, allow_actions=True), "/queue?status=failed&status=queued")
    assert [row[-5] for row in cells(page, "cells")] == [there[s].label for s in (Status.FAILED, Status.QUEUED)]
    page.get_by_role("button", name="Retry ticked cells").click()
    page.locator("#did", has_text="No cell is chosen").wait_for()
    tick = page.locator("#cells .ag-body input[type=checkbox]")
    tick.nth(0).check()
    page.get_by_role("button", name="Retry ticked cells").click()
    page.locator("#did", has_text="1 cell queued again.").wait_for()
    assert jobs.get(engine, there[Status.FAILED].id).status is Status.QUEUED
    assert jobs.get(engine, there[Status.CANCELLED].id).status is Status.CANCELLED
    page.locator("#cells .ag-body [col-id=status]", has_text="failed").wait_for(state="detached")
    page.locator("#cells .ag-body input[type=checkbox]").nth(1).check()
    page.get_by_role("button", name="Cancel ticked cells").click()
    page.locator("#did", has_text="cancelled.").wait_for()
    assert jobs.get(engine, there[Status.QUEUED].id).status is Status.CANCELLED


def test_what_is_long_of_the_queue_is_folded_and_stays_as_it_is_left(
    visit: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = dialect.connect(f"sqlite:///{tmp_path / 'q.db'}")
    migration.migrate(engine)
    jobs.enqueue(engine, samples.cells(*(samples.group(f"model-{k}") for k in range(queue.MOST_PAIRS + 1))))
    for k in range(queue.MOST_FAILURES + 1):
        job = samples.claim(engine).jobs[0]
        jobs.fail(engine, job, Failure(FailureKind.CODE, f"broke {k}", retry=False))
    monkeypatch.setattr(app, "TICK", 300)
    page = visit(desk([], engine=engine), "/queue")
    assert page.locator("#body summary").all_inner_texts() == ["1 more kind", "Progress of each of 13 pairs"]
    last = page.get_by_text(f"broke {queue.MOST_FAILURES}", exact=True).first
    assert not last.is_visible() and not page.get_by_text("model-12 · depth").first.is_visible()
    page.get_by_text("1 more kind").click()
    last.wait_for()
    marked = page.evaluate_handle("document.querySelector('#body .summary')")
    for _ in range(3):  # it looks again, and what is the same is left as it stands, with whatever a person marked there
        page.wait_for_event("response", lambda answer: "/_dash-update-component" in answer.url)
    assert marked.evaluate("node => node.isConnected")
    jobs.cancel(engine, Selection())
    page.locator(".summary", has_text="cancelled").wait_for()
    assert not marked.evaluate("node => node.isConnected")  # it has been drawn anew
    last.wait_for()


def test_what_is_ticked_stays_ticked(visit: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page looks again every few seconds, and a person needs more to choose cells."""
    engine = dialect.connect(f"sqlite:///{tmp_path / 'q.db'}")
    migration.migrate(engine)
    there = samples.one_of_each(engine)
    monkeypatch.setattr(app, "TICK", 1500)
    page = visit(desk([], engine=engine, allow_actions=True), "/queue?status=failed")
    with page.expect_response(lambda response: "_dash-update-component" in response.url):  # it looks again
        pass
    page.locator("#cells .ag-body input[type=checkbox]").check()
    page.wait_for_timeout(4000)  # and would have twice by now
    page.get_by_role("button", name="Retry ticked cells").click()
    page.locator("#did", has_text="1 cell queued again.").wait_for()
    assert jobs.get(engine, there[Status.FAILED].id).status is Status.QUEUED
    jobs.cancel(engine, Selection())
    page.locator(".summary", has_text="queued").wait_for(state="detached")  # it looks again


def test_a_worker_is_asked_for_only_where_something_waits_for_one() -> None:
    assert "clipstudy worker" in str(queue._workers([], waits=True))
    assert "clipstudy worker" not in str(queue._workers([], waits=False))


def test_the_queue_of_one_study(visit: Open, tmp_path: Path) -> None:
    """`dashboard --study`: no other study's cells are shown or can be chosen, and an empty table is a sentence."""
    engine = dialect.connect(f"sqlite:///{tmp_path / 'q.db'}")
    migration.migrate(engine)
    samples.one_of_each(engine)
    study = next(iter(jobs.names(engine)))[0]
    mine, other = desk([], engine=engine, study=study), desk([], engine=engine, study="another")
    assert "1 of 5 cells done" in visit(mine, "/queue?status=done").inner_text("#body")
    text = visit(other, f"/queue?study={study}").inner_text("#body")
    assert "Nothing is enqueued." in text and f'no study "{study}"' in text
    cell = jobs.rows(engine, Selection(study=study))[0].id
    assert "is of another study" not in visit(mine, f"/queue?job={cell}").inner_text("#body")
    jobs.enqueue(engine, [(samples.group("bert", study="another"), (0,))])
    assert "is of another study than another" in visit(other, f"/queue?job={cell}").inner_text("#body")
    every = [job.id for job in jobs.rows(engine)]
    assert queue.act(engine, "cancel", every, "another").startswith("1 cell cancelled"), "its own"
    jobs.cancel(engine, Selection(study=study))
    text = visit(mine, "/queue?status=queued&status=running").inner_text("#body")
    assert "None is queued or running." in text


def test_on_a_phone(visit: Open) -> None:
    """Nothing but tables is wider than the screen, and the results are not below a screen of choices."""
    page = visit(desk(results()), viewport={"width": 390, "height": 844})
    for path in PAGES:
        go(page, path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert page.locator("nav a").last.is_visible()
    go(page, "/tables")
    assert page.locator("#controls").is_hidden()
    cells(page, "sheet")
    assert page.locator("#sheet").bounding_box()["y"] < 844
    page.locator(".grid.more").wait_for()
    page.get_by_text("What to show").click()
    choose(page, "difference between two models")
    said(page, "BERT − GPT-2: 10 lines")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.locator("#controls").wait_for(state="visible")
    assert page.locator("#choices summary").is_hidden()


def test_all_columns_of_runs_are_seen_on_a_laptop(visit: Open) -> None:
    page = visit(desk(results(MODELS[:1], TASKS[:1])), "/runs")
    page.locator("#runs .ag-header-cell").nth(9).wait_for()
    right = "e => e.getBoundingClientRect().right"
    page.wait_for_function(  # widths that grow are known once the grid is
        f"() => ({right})(document.querySelector('#runs .ag-header-cell[col-id=run]')) <= ({right})"
        "(document.querySelector('#runs'))"
    )
    page.locator(".grid:not(.more)").wait_for()


def test_the_order_of_runs_is_in_the_address(visit: Open) -> None:
    found = results(MODELS[:2], TASKS[:1])
    page = visit(desk(found), "/runs")
    cells(page, "runs")
    page.locator("#runs .ag-header-cell[col-id=value] .ag-header-cell-label").click()
    page.wait_for_url("**/runs?sort=value")
    page.locator("#runs .ag-header-cell[col-id=value] .ag-header-cell-label").click()
    page.wait_for_url("**/runs?sort=-value")
    best = max(found, key=lambda r: r.metrics["nmi"].value)
    top = "id => document.querySelector('#runs [row-index=\"0\"] [col-id=run]')?.textContent === id"
    page.wait_for_function(top, arg=best.run_id)
    page.reload()
    page.wait_for_function(top, arg=best.run_id)
    go(page, "/runs?sort=run&sort=nonsense")
    page.wait_for_function(top, arg=min(r.run_id for r in found))
    assert 'no column "nonsense"' in page.inner_text("[role=alert]")
    page.get_by_role("link", name="Runs").click()
    page.wait_for_function(top, arg=next(r.run_id for r in found))
    assert page.url.endswith("/runs")


@pytest.mark.parametrize(
    "state", [None, 7, [7, None], [{"colId": []}], [{"colId": "x", "sort": "asc", "sortIndex": 0}]]
)
def test_whatever_a_browser_says_of_columns(state: object) -> None:
    assert runs.sorted_by(Runs(), state) == Runs()


def test_one_task_offers_only_models_that_have_it(visit: Open) -> None:
    found = [*results(MODELS[:2], TASKS[:1]), *results(MODELS[:1], [SHIFT])]
    page = visit(desk(found), "/tables?table=layers&task=bigram_shift&model=gpt2")
    assert page.locator("#controls .ticks label").all_inner_texts() == ["BERT"]
    assert 'no model with results of this task "gpt2"' in page.inner_text("[role=alert]")
    assert len(cells(page, "sheet")) > 13
    go(page, "/tables?table=layers&task=phrases")
    assert page.locator("#controls .ticks label").all_inner_texts() == ["BERT", "GPT-2"]


def test_claims_are_tested_beside_the_page(visit: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what is being tested, and shows the verdicts once they are there, without being asked."""
    ready, judged = threading.Event(), evidence.judged
    monkeypatch.setattr(evidence, "judged", lambda *given: ready.wait(60) and judged(*given))
    page = visit(desk(results(MODELS[:1], TASKS[:1])), "/claims")
    said(page, f"{len(CLAIMS)} claims are being tested")
    assert CLAIMS[0].quote in page.inner_text("#body")
    ready.set()
    said(page, f"verdicts on {len(CLAIMS)} claims")


def test_claims_look_again_when_mlflow_is_back(visit: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no verdicts at all, because MLflow was away from the beginning."""
    back, judged = threading.Event(), evidence.judged

    def away(*given: Any) -> Any:
        if not back.is_set():
            raise TrackingUnreachable
        return judged(*given)

    monkeypatch.setattr(evidence, "judged", away)
    monkeypatch.setattr(records, "LOOK", 0.3)
    page = visit(desk(results(MODELS[:1], TASKS[:1])), "/claims")
    said(page, "No verdicts")
    back.set()
    said(page, f"verdicts on {len(CLAIMS)} claims")


@pytest.mark.parametrize("path", ["/", "/claims"])
def test_a_page_with_nothing_looks_again_when_mlflow_is_back(
    visit: Open, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    back, read = threading.Event(), Held.results

    def away(*given: Any, **more: Any) -> Any:
        if not back.is_set():
            raise TrackingUnreachable
        return read(*given, **more)

    monkeypatch.setattr(Held, "results", away)
    monkeypatch.setattr(records, "LOOK", 0.1)
    monkeypatch.setattr(app, "TICK", 300)
    page = visit(desk(results(MODELS[:1], TASKS[:1])), path)
    said(page, "Nothing is recorded yet")
    back.set()
    page.wait_for_function("() => !document.querySelector('#said').textContent.includes('Nothing')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(visit: Open, scheme: str) -> None:
    """Text of charts and of grids follows the page: it must differ from its ground."""
    script = "e => [getComputedStyle(e).fill, getComputedStyle(e).color]"
    page = visit(desk(results([BERT], [SHIFT])), color_scheme=scheme)
    page.locator(".chart .xtitle").first.wait_for(state="attached")
    ground = page.eval_on_selector("body", "e => getComputedStyle(e).backgroundColor")
    fill, _ = page.eval_on_selector(".chart .xtitle", script)
    page.get_by_role("link", name="Tables").click()
    cells(page, "sheet")
    _, color = page.eval_on_selector("#sheet .ag-cell", script)
    below = page.eval_on_selector("#sheet .ag-root-wrapper", "e => getComputedStyle(e).backgroundColor")
    channel = [int(re.findall(r"\d+", text)[0]) for text in (fill, color, ground, below)]
    assert min(abs(a - b) for a in channel[:2] for b in channel[2:]) > 150, channel
