"""The report as a reader meets it: in a browser, from a file, with no network."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipstudy.dashboard import panels, report
from clipstudy.dashboard.panels import Dashboard, Panel
from clipstudy.errors import ClipstudyError
from clipstudy.outcome import Estimate, Result
from clipstudy.results import writers
from clipstudy.results.boards import board, view
from clipstudy.results.run_files import RunFiles
from clipstudy.spec import WHOLE_MODEL
from tests.browser import exhibits
from tests.browser.served import Held
from tests.made_up import BERT, MODELS, SHIFT, TASKS, Model, Task, result, results

ROOT = Path(__file__).parents[2]
NOTE = "Pocket results say nothing about the real CLIP."
Open = Callable[..., Any]


@pytest.fixture
def reader(chromium: Any, tmp_path: Path) -> Iterator[Open]:
    """Writes a report and opens it. After the test: nothing was asked of any network and the console is empty."""
    pages, complaints = [], []

    def open_report(
        found: Sequence[Result],
        dashboard: Dashboard | None = None,
        *,
        note: str = NOTE,
        files: RunFiles | None = None,
        **context: Any,
    ) -> Any:
        path = tmp_path / "report.html"
        report.write(found, path, dashboard=dashboard or panels.load(panels.default()), study_note=note, files=files)
        page = chromium.new_page(viewport={"width": 1280, "height": 900}, **context)
        page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or complaints.append(r.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-drawn=yes]", state="attached")
        pages.append(page)
        return page

    yield open_report
    for page in pages:
        page.close()
    assert complaints == []


def drawn(page: Any, anchor: str) -> list[dict[str, Any]]:
    """What Plotly drew: name, x and y of every trace."""
    script = "e => e.querySelector('.chart').data.map(t => ({name: t.name, x: [...t.x], y: [...t.y]}))"
    found: list[dict[str, Any]] = page.eval_on_selector(f"#{anchor}", script)
    return found


def test_the_legend_is_in_sight_of_every_chart(reader: Open) -> None:
    page = reader(results(MODELS, TASKS), Dashboard("D", (Panel("P"),)))
    page.locator(".figures figure").last.evaluate("e => e.scrollIntoView()")
    assert page.evaluate("scrollY") > 900, "the page is longer than the window"
    legend = page.locator(".legend").bounding_box()
    assert legend and 0 <= legend["y"] < 900
    assert page.locator(".legend .swatch").count() == len(MODELS)


def test_bars_are_the_numbers(reader: Open) -> None:
    found = results()
    page = reader(found)
    expected = view(board(found, panels.load(panels.default()).order), "sentence_length")
    assert expected
    assert page.locator(".chart .bars .point").count() > 0
    shown = drawn(page, "panel-2-1")
    assert [trace["name"] for trace in shown] == [curve.title for curve in expected.curves]
    for trace, curve in zip(shown, expected.curves, strict=True):
        assert trace["x"] == [cell.layer for cell in curve.cells]
        assert trace["y"] == pytest.approx([100 * cell.estimate.value for cell in curve.cells])
    # … and the bars on the screen have those heights: layer 12 of BERT against layer 0.
    heights = page.eval_on_selector_all(
        "#panel-2-1 .trace.bars:first-child .point path", "bars => bars.map(b => b.getBBox().height)"
    )
    values = [cell.estimate.value for cell in expected.curves[0].cells]
    assert heights[12] / heights[0] == pytest.approx(values[12] / values[0], rel=0.02)
    # Ten charts, and an average for each category of more than one task.
    assert page.locator(".chart.js-plotly-plot").count() == 13


def test_the_page_says_what_it_is(reader: Open) -> None:
    gone = [r for r in results() if (r.model, r.task, r.layer) != ("bert", "tree_depth", 5)]
    old = [result(layer=k, digest="d0", ended="2026-10-01T00:00:00+00:00") for k in range(3)]
    page = reader([*gone, *old])
    text = page.inner_text("body")
    for said in (
        NOTE,
        "1,559 results: 6 models (12 counting each initialisation), 10 tasks. Measured 2026-11-24 (UTC).",
        "bert · tree_depth: no result yet for layer 5",
        "bert · bigram_shift: 3 results of older settings (d0) not shown",
        "No result yet: BERT 5.",
        "org/bert",
        "0123abcd",
        "untrained, 3 initialisations",
        "10,002",
        "with at least one seed, a single class is predicted",
    ):
        assert said in text, said


def test_each_study_has_its_own_sections(reader: Open) -> None:
    """Two studies with a model and a task of the same names: nothing of one is in the other's charts."""
    low, high = ({"accuracy": Estimate(v), "baseline/majority": Estimate(v / 2)} for v in (0.25, 0.75))
    depth = TASKS[3]
    found = [
        result(task=task, layer=layer, study=study, metrics=metrics, layers="0,1")
        for study, metrics in (("paper", high), ("pocket", low))
        for task in (SHIFT, depth)
        for layer in (0, 1)
        if (study, task, layer) != ("pocket", depth, 1)
    ]
    page = reader(found, Dashboard("D", (Panel("Syntactic", average=True),)))
    assert page.locator("h2").all_inner_texts()[:6] == [
        "paper: What this is",
        "paper: Syntactic",
        "paper: Models and data",
        "pocket: What this is",
        "pocket: Syntactic",
        "pocket: Models and data",
    ]
    for number, height in ((1, 75.0), (2, 25.0)):
        average, shift = drawn(page, f"study-{number}-panel-1-0"), drawn(page, f"study-{number}-panel-1-1")
        assert [t["name"] for t in (*average, *shift)] == ["BERT", "BERT"]
        assert {y for t in (*average, *shift) for y in t["y"]} == {height}
        lines = page.eval_on_selector(f"#study-{number}-panel-1-0 .chart", "e => e.layout.shapes.map(s => s.y0)")
        assert lines == [height / 2]
    assert "bert · tree_depth: no result yet for layer 1" in page.inner_text("#study-2-about")
    assert "no result yet" not in page.inner_text("#study-1-about")
    targets = page.eval_on_selector_all("nav a", "links => links.map(a => document.querySelectorAll(a.hash).length)")
    assert targets == [1] * 7


def test_a_study_says_once_what_it_is_and_what_it_is_not(reader: Open) -> None:
    found = [result(layer=k, note="Made up.", description="A study of words.") for k in (0, 1)]
    dashboard = Dashboard("D", (Panel("P"), Panel("Empty", ("nowhere",))))
    page = reader(found, dashboard, note="")
    assert page.locator(".callout").all_inner_texts() == ["Made up."]
    assert "A study of words." in page.inner_text("#about")
    assert "no result of this study belongs on these panels: Empty" in page.inner_text("#about")
    page = reader(found, dashboard, note="Made up. Do not quote.")
    assert page.locator(".callout").all_inner_texts() == ["Made up. Do not quote."]


def test_whatever_a_panel_draws(reader: Open) -> None:
    """Heat maps, both kinds of table, pictures, points and zero-shot lines: the numbers of the runs."""
    page = reader(exhibits.RESULTS, exhibits.DASHBOARD, note="", files=RunFiles(exhibits.store()))
    heat = page.eval_on_selector("#panel-1-0 .chart", "e => e.data[0].z.map(row => [...row])")
    assert heat == exhibits.LIKENESS
    assert page.locator("#panel-1 .shapelayer path").count() == 2
    texts = page.locator("#panel-2 tbody tr").all_inner_texts()
    assert texts == ["Questions, BERT\t71.0 ± 1.0\t69.2\t+1.8\tunknown\tunknown"]
    assert page.locator("#panel-3 tbody tr").count() == 2
    page.wait_for_function("() => [...document.querySelectorAll('.album img')].every(i => i.naturalWidth)")
    assert page.eval_on_selector_all("#panel-4 img", "all => all.map(i => i.naturalWidth)") == [41]
    bars, points = drawn(page, "panel-5-0")
    assert bars["y"] == [50.0] and points["y"] == [25.0, 75.0]
    lines = page.eval_on_selector_all("#panel-5-0 .shapelayer path", "all => all.map(e => getComputedStyle(e).stroke)")
    assert len(lines) == 1 and lines[0] != page.eval_on_selector("body", "e => getComputedStyle(e).color")
    with page.expect_download() as caught:
        page.locator("#panel-2").get_by_role("link", name="CSV").click()
    assert caught.value.suggested_filename == "paper-Published-numbers-beside-measured-ones.csv"


def test_downloads_of_several_studies_have_names_of_their_own(reader: Open) -> None:
    found = [result(layer=k, study=study) for study in ("one", "two") for k in (0, 1)]
    page = reader(found, Dashboard("D", (Panel("P"),)))
    names = page.locator(".downloads a").evaluate_all("all => all.map(a => a.download)")
    assert len(set(names)) == len(names) == 8 and "two-bigram_shift-accuracy.csv" in names


def test_downloads(reader: Open) -> None:
    found = results()
    page = reader(found)
    shown = view(board(found, panels.load(panels.default()).order), "bigram_shift")
    assert shown
    figure = page.locator("figure", has=page.get_by_label("Bigram shift: accuracy"))
    got = {}
    for name in ("CSV", "LaTeX", "Markdown", "JSON"):
        with page.expect_download() as caught:
            figure.get_by_role("link", name=f"Bigram shift as {name}").click()
        got[caught.value.suggested_filename] = Path(caught.value.path()).read_text(encoding="utf-8")
    assert got == {
        "paper-bigram_shift-accuracy.csv": writers.to_csv(shown),
        "paper-bigram_shift-accuracy.tex": writers.to_latex(shown),
        "paper-bigram_shift-accuracy.md": writers.to_markdown(shown),
        "paper-bigram_shift-accuracy.json": writers.to_json(shown),
    }
    rows = list(csv.DictReader(io.StringIO(got["paper-bigram_shift-accuracy.csv"])))
    assert len(rows) == 6 * 13 + 1 == len(json.loads(got["paper-bigram_shift-accuracy.json"]))
    assert [row["what"] for row in rows].count("layer") == 6 * 13 and rows[-1]["what"] == "majority class"


def test_the_table_beside_the_chart(reader: Open) -> None:
    found = results([BERT], [SHIFT])
    page = reader(found, Dashboard("D", (Panel("P"),)))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    summary = page.locator("figure summary")
    summary.focus()
    page.keyboard.press("Enter")
    shown = view(board(found), "bigram_shift")
    assert shown
    cells = page.locator("figure tbody tr").all_inner_texts()
    _, body = writers.grid(shown)
    assert [text.split("\t") for text in cells] == [[name, *(text for text, _ in row)] for name, row in body]
    assert page.locator("figure td.best").all_inner_texts() == [t for _, row in body for t, best in row if best]


def test_a_task_of_the_whole_model_beside_an_unfinished_one(reader: Open) -> None:
    task = Task("boolq", "BoolQ", "downstream")
    whole = [result(model, task, WHOLE_MODEL, layers="-1", layer_label="whole model", depth="") for model in MODELS[:3]]
    page = reader([*whole, result(layer=3)], Dashboard("D", (Panel("Downstream", category=("downstream",)),)))
    assert [trace["y"] for trace in drawn(page, "panel-1-0")] == [[75.0]] * 3
    assert "recorded, but not shown on any panel of this dashboard: bigram_shift" in page.inner_text("body")


def test_depth_draws_lines(reader: Open) -> None:
    page = reader(results(MODELS[:2], [SHIFT]), Dashboard("D", (Panel("P", x="depth"),)))
    [first, _] = drawn(page, "panel-1-0")
    assert first["x"][0] == 0 and first["x"][-1] == 1
    assert page.locator(".chart .scatterlayer .trace").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(reader: Open, scheme: str) -> None:
    """Text of the charts follows the page: it must differ from the page's ground."""
    page = reader(results([BERT], [SHIFT]), color_scheme=scheme)
    color = page.eval_on_selector(".chart .gtitle, .chart .xtitle", "e => getComputedStyle(e).fill")
    ground = page.eval_on_selector("body", "e => getComputedStyle(e).backgroundColor")
    channel = [int(text.split("(")[1].split(",")[0]) for text in (color, ground)]
    assert abs(channel[0] - channel[1]) > 150, (color, ground)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_error_bars_and_baselines_stand_out(reader: Open, scheme: str) -> None:
    """They cross the bars, so they have the text's colour, whatever the page's ground."""
    page = reader(results([BERT], [SHIFT]), color_scheme=scheme)
    text = page.eval_on_selector("body", "e => getComputedStyle(e).color")
    for mark in (".errorbar path", ".shapelayer path"):
        assert page.eval_on_selector(f".chart {mark}", "e => getComputedStyle(e).stroke") == text


@pytest.mark.parametrize(("tasks", "rows"), [(1, 1), (2, 2), (3, 2), (4, 3)])
def test_an_average_leaves_no_hole(reader: Open, tasks: int, rows: int) -> None:
    """Two charts a row; with two tasks the average has a row of its own, with three it is beside the first."""
    page = reader(results([BERT], TASKS[-tasks:]), Dashboard("D", (Panel("P", average=True),)))
    boxes = page.eval_on_selector_all(
        "figure", "all => all.map(e => e.getBoundingClientRect()).map(b => [Math.round(b.top), Math.round(b.right)])"
    )
    ends = {top: max(right for other, right in boxes if other == top) for top, _ in boxes}
    assert len(ends) == rows and len(set(ends.values())) == 1, boxes


def test_nothing_overlaps_at_1280(reader: Open) -> None:
    """Six models, thirteen layers, ten tasks: no chart wider than its cell, no label on another, no sideways scroll."""
    near = Estimate(0.51)  # a baseline right beside another, and what each model reaches with the first text alone
    beside = {"baseline/human_like": near, "question_only/accuracy": near}
    page = reader([replace(r, metrics=beside | r.metrics) for r in results()])
    assert page.locator("#panel-2-1 .annotation-text").count() == 2 + len(MODELS)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    overlaps = page.evaluate(
        """() => {
          const boxes = (e, s) => [...e.querySelectorAll(s)].map(x => x.getBoundingClientRect());
          const clash = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
          let found = 0;
          for (const chart of document.querySelectorAll(".chart")) {
            const frame = chart.getBoundingClientRect();
            const labels = boxes(chart, ".xtick text, .ytick text, .annotation-text, .gtitle, .xtitle, .ytitle");
            labels.forEach((a, i) => {
              if (a.right > frame.right + 1 || a.left < frame.left - 1) found++;
              labels.slice(i + 1).forEach(b => { if (clash(a, b)) found++; });
            });
          }
          return found;
        }"""
    )
    assert overlaps == 0


def test_hostile_names_stay_text(reader: Open) -> None:
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&<b>bold</b>"
    model = Model(nasty, nasty)
    task = Task(nasty, nasty, "syntactic")
    found = [result(model, task, k, study=nasty, dataset=nasty, layer_label=nasty, role=nasty) for k in (0, 2)]
    dashboard = Dashboard(nasty, (Panel(nasty, average=True, caption=nasty),), description=nasty)
    page = reader(found, dashboard, note=nasty)  # an alert or a request would be complained about
    assert page.locator("h1").inner_text() == f"{nasty}: {nasty}"
    assert page.locator(".callout").inner_text() == nasty
    assert page.locator("img, b b, h1 *").count() == 0
    assert page.locator(".chart .gtitle").inner_html().count("<b") == 0
    assert page.locator("script").count() == 3, "plotly, ours, and one figure"


def test_hostile_names_stay_text_in_whatever_a_panel_draws(reader: Open) -> None:
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&<b>bold</b>"
    found, dashboard, files = exhibits.hostile(nasty)
    page = reader(found, dashboard, note="", files=RunFiles(Held(found, files)))
    assert page.locator(".panel").count() == len(dashboard.panels)
    assert page.locator("img:not(.album img), b b, h2 *, h3 *").count() == 0


def test_the_page_may_fetch_nothing(chromium: Any, tmp_path: Path) -> None:
    """Not even what a script in it asked for: its policy forbids."""
    path = tmp_path / "report.html"
    report.write(results([BERT], [SHIFT]), path, dashboard=Dashboard("D", (Panel("P"),)))
    page = chromium.new_page()
    page.goto(path.as_uri())
    answer = page.evaluate("fetch('data:text/plain,x').then(() => 'fetched', () => 'blocked')")
    page.close()
    assert answer == "blocked"


def test_the_readmes_picture(chromium: Any, tmp_path: Path) -> None:
    report.write(results(), tmp_path / "r.html", dashboard=panels.load(panels.default()), study_note=NOTE)
    specification = importlib.util.spec_from_file_location("picture", ROOT / "tests" / "real" / "picture.py")
    assert specification and specification.loader
    picture = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(picture)
    picture.draw(chromium, tmp_path / "r.html", tmp_path / "images" / "p.png")
    with Image.open(tmp_path / "images" / "p.png") as made:
        assert made.size == (1800, 1050)
        right, lower = made.crop((1000, 0, 1800, 1050)), made.crop((0, 930, 1800, 1050))
        assert len(right.convert("RGB").getcolors(1 << 24)) > 20 < len(lower.convert("RGB").getcolors(1 << 24))
    with pytest.raises(Exception, match="no chart called Nonesuch"):
        picture.draw(chromium, tmp_path / "r.html", tmp_path / "q.png", ["Nonesuch"])


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClipstudyError, match="cannot be written"):
        report.write([], tmp_path / "file" / "report.html", dashboard=Dashboard("D", ()), study_note="")


def test_a_report_is_small_beside_plotly(tmp_path: Path) -> None:
    """The library is in it once, whatever the number of charts."""
    path = tmp_path / "report.html"
    report.write(results(MODELS, TASKS), path, dashboard=panels.load(panels.default()))
    assert path.read_text(encoding="utf-8").count("* plotly.js v") == 1
