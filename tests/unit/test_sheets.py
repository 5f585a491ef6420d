"""Tables across tasks hold the numbers of the charts."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from typing import Any

import pytest

from clipstudy.cli.results import results as recorded_results
from clipstudy.errors import ClipstudyError, NoResults
from clipstudy.outcome import Estimate, Result
from clipstudy.published import Published
from clipstudy.results import sheets, units
from clipstudy.results.boards import board, view
from clipstudy.results.views import View, is_near
from clipstudy.spec import WHOLE_MODEL
from tests.made_up import BERT, MODELS, SHIFT, TASKS, Model, Task, result, results

GPT2 = MODELS[1]


def seen(*found: tuple[Model, Task, int, Estimate]) -> list[View]:
    shown = board(
        [result(m, t, k, {t.metric: e, "dev_accuracy": Estimate(e.value)}) for m, t, k, e in found], ("bert", "gpt2")
    )
    return [v for task in shown.tasks if (v := view(shown, task)) is not None]


def test_each_model_at_its_best_layer() -> None:
    views = seen(
        (BERT, SHIFT, 0, Estimate(0.5, 0.4, 0.6)),
        (BERT, SHIFT, 3, Estimate(0.75, 0.70, 0.80)),
        (GPT2, SHIFT, 1, Estimate(0.8, 0.78, 0.82)),
        (BERT, TASKS[3], 2, Estimate(0.25)),
    )
    sheet = sheets.best(views)
    assert sheet.head == ("task", "BERT", "GPT-2")
    assert dict(sheet.lines) == {
        "Bigram shift, accuracy (%)": (("75.0 ± 5.0 (3)", 75.0, True), ("80.0 ± 2.0 (1)", 80.0, True)),
        "Tree depth, accuracy (%)": (("25.0 (2)", 25.0, False), ("—", None, False)),
    }


def test_less_is_better_where_it_is() -> None:
    loss = Task("loss", "Loss", "surface", "mse")
    (line,) = sheets.best(seen((BERT, loss, 1, Estimate(0.2)), (GPT2, loss, 1, Estimate(0.1)))).lines
    assert [entry.bold for entry in line[1]] == [False, True]


def test_bold_is_all_that_the_intervals_cannot_tell_from_the_best() -> None:
    best = (BERT, SHIFT, 1, Estimate(0.80, 0.77, 0.83))
    for value, bold in ((0.77, True), (0.75, False)):  # 3 and 5 points below, where √(3² + 3²) = 4.2
        (line,) = sheets.best(seen(best, (GPT2, SHIFT, 1, Estimate(value, value - 0.03, value + 0.03)))).lines
        assert [entry.bold for entry in line[1]] == [True, bold]


def test_beside_the_best_layers_stands_the_best_of_what_needs_no_model() -> None:
    """And what cannot be told from it is not bold, though it is the best."""

    def line(task: Task, *values: Estimate, **more: Estimate) -> tuple[tuple[str, ...], tuple[sheets.Entry, ...]]:
        baselines = {"baseline/majority": Estimate(0.5), "baseline/random": Estimate(0.2)} | more
        found = [
            result(model, task, 1, {task.metric: value, **baselines}, layers="1")
            for model, value in zip(MODELS, values, strict=False)
        ]
        shown = view(board(found, ("bert", "gpt2")), task.name)
        assert shown
        sheet = sheets.best([shown])
        assert (units.ONE_CLASS in sheet.said) == ("one_class" in more)
        return sheet.head, sheet.lines[0][1]

    head, (first, second, baseline) = line(SHIFT, Estimate(0.53, 0.49, 0.57), Estimate(0.56, 0.51, 0.61))
    assert head == ("task", "BERT", "GPT-2", "best baseline")
    assert (first.bold, second.bold) == (False, True) and baseline == ("50.0 (majority class)", 50.0, False)
    _, (first, second, _) = line(SHIFT, Estimate(0.5, 0.46, 0.54), Estimate(0.49, 0.45, 0.53))
    assert not first.bold and not second.bold
    loss = Task("loss", "Loss", "surface", "mse")
    _, (first, second, baseline) = line(loss, Estimate(0.1, 0.05, 0.15), Estimate(0.2, 0.15, 0.25))
    assert (first.bold, second.bold, baseline.text) == (True, False, "0.2000 (random clusters)")
    _, (first, *_) = line(SHIFT, Estimate(0.9), Estimate(0.8), one_class=Estimate(1.0))
    assert not first.bold, "a probe of one class says nothing"


def test_no_best_where_neither_more_nor_less_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("looks", "Looks", "visualisation", "edges")
    assert sheets.best(seen((BERT, task, 1, Estimate(0.2)), (GPT2, task, 1, Estimate(0.1)))).lines == ()
    found = [result(BERT, task, 1, {"edges": Estimate(0.2)})]
    monkeypatch.setattr("clipstudy.cli.results.recorded", lambda study: found)
    with pytest.raises(NoResults, match=r"has a best layer.*without --best"):
        recorded_results(best=True)


def test_best_layers_of_two_studies_are_not_held_against_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's name may mean other data there, and a baseline of one study is none of the other's."""
    found = [result(BERT, SHIFT, 1, study=study) for study in ("paper", "pocket")]
    monkeypatch.setattr("clipstudy.cli.results.recorded", lambda study: found)
    with pytest.raises(ClipstudyError, match=r"are of paper, pocket\. Type: clipstudy results --best --study paper$"):
        recorded_results(best=True)


def test_a_difference_and_its_interval() -> None:
    depth = TASKS[3]
    views = seen(
        (BERT, SHIFT, 3, Estimate(0.74, 0.71, 0.77)),
        (GPT2, SHIFT, 1, Estimate(0.70, 0.66, 0.74)),
        (BERT, depth, 3, Estimate(0.76, 0.73, 0.79)),
        (GPT2, depth, 1, Estimate(0.70, 0.66, 0.74)),
    )
    sheet = sheets.differences(views, "bert", "gpt2")
    assert sheet.title == "BERT − GPT-2"
    (_, (near, p, on, *_)), (_, (far, q, *_)) = sheet.lines
    assert near.value == pytest.approx(4.0) and near.text == f"+4.0 ± {100 * math.hypot(0.03, 0.04):.1f}"
    assert not near.bold and far.text == "+6.0 ± 5.0" and far.bold
    # Two normal p (z = 1.568 and 2.352), the smaller one doubled by Holm.
    assert (p.value, q.value) == (pytest.approx(0.1169, abs=1e-4), pytest.approx(0.0374, abs=1e-4))
    assert (p.text, q.text, on.text) == ("0.117", "0.037", "not paired")
    assert sheets.differences(views, "gpt2", "bert").lines[0][1][0].text == "−4.0 ± 5.0"
    assert sheets.differences(views, "bert", "bert").lines[0][1][0].text == "+0.0 ± 4.2"
    assert sheets.differences(views, "bert", "nobody").lines == ()


def test_one_task_layer_by_layer() -> None:
    found = view(board(results([BERT, GPT2], [SHIFT])), "bigram_shift")
    assert found
    sheet = sheets.by_layer(found)
    *layers, (majority, values), (items, _) = sheet.lines
    assert [name for name, _ in layers] == ["0 (embedding)", *map(str, range(1, 13))]
    assert (majority, items) == ("majority class", "test items")
    assert {(entry.text, entry.bold) for entry in values} == {("50.0", False)}
    for at, curve in enumerate(found.curves):
        column = [entries[at] for _, entries in layers]
        assert [entry.value for entry in column] == [100 * cell.estimate.value for cell in curve.cells]
        near = [k for k, cell in enumerate(curve.cells) if is_near(curve.chosen, cell, found.metric)]
        assert [k for k, entry in enumerate(column) if entry.bold] == near and curve.best in near


def test_a_sheet_is_taken_away() -> None:
    nasty = Model("bert", "=cmd()|x & y_z")
    views = seen((nasty, SHIFT, 3, Estimate(0.75, 0.72, 0.78)), (GPT2, SHIFT, 1, Estimate(0.70, 0.66, 0.74)))
    sheet = sheets.differences(views, "bert", "gpt2")
    rows = list(csv.reader(io.StringIO(sheets.to_csv(sheet))))
    assert rows == [
        ["task", "difference", "p", "paired on", "'=cmd()|x & y_z", "GPT-2"],
        ["Bigram shift, accuracy (%)", "5.0 ± 5.0", "0.050", "not paired", "75.0 ± 3.0 (3)", "70.0 ± 4.0 (1)"],
    ]
    assert r"=cmd()|x \& y\_z" in sheets.to_latex(sheet) and r"75.0 $\pm$ 3.0 (3)" in sheets.to_latex(sheet)
    assert r"=cmd()\|x & y\_z" in sheets.to_markdown(sheet)


BOOLQ = Task("boolq", "Questions", "pairs")


def number(**changed: Any) -> Published:
    known: dict[str, Any] = {
        "paper": "A", "where": "Table 1", "model": "BERT", "task": "boolq", "metric": "accuracy", "unit": "percent",
        "value": 70.0, "read": "source", "data": "same", "method": "near", "role": "bert",
    }  # fmt: skip
    return Published(**known | changed)


def played(role: str, value: float, model: Model = BERT, **tags: str) -> Result:
    measured = {"accuracy": Estimate(value, value - 0.01, value + 0.01)}
    return result(
        model, BOOLQ, WHOLE_MODEL, measured, role=role, layers="-1", layer_label="whole model", depth="", **tags
    )


def test_published_numbers_beside_measured_ones() -> None:
    found = [played("bert other", 0.71), played("gpt2", 0.6, GPT2), played("bert", 0.5, MODELS[3])]
    numbers = [number(), number(role="gpt2", value=65.0), number(task="wic"), number(role="nobody")]
    sheet = sheets.published(board(found), numbers)
    assert [(name, [e.text for e in entries]) for name, entries in sheet.lines] == [
        ("Questions, BERT", ["71.0 ± 1.0", "70.0", "+1.0", "same", "near"]),
        ("Questions, GPT-2", ["60.0 ± 1.0", "65.0", "−5.0", "same", "near"]),
    ], "no untrained twin, no role that nobody plays"
    assert [entries[2].bold for _, entries in sheet.lines] == [False, True], "five points are beyond two"
    assert "A, Table 1" in sheet.said and "source" not in sheet.head, "one source is said once"
    two = sheets.published(board(found), [number(), number(paper="B", read="memory")])
    assert [entries[-1].text for _, entries in two.lines] == ["A, Table 1", "B, Table 1"]
    assert [e.text for e in two.lines[1][1][1:3]] == ["70.0 (from memory)", "—"]


def test_a_number_of_a_view_is_beside_the_headline_where_that_is_the_view() -> None:
    alone = replace(played("bert", 0.71), params={"option.views": '["native"]'})
    sheet = sheets.published(board([alone]), [number(metric="native/accuracy")])
    assert [(name, entries[0].text) for name, entries in sheet.lines] == [("Questions, BERT", "71.0 ± 1.0")]


POCKET = {"model.checkpoint": "package:clipstudy/pocket/checkpoints/bert"}


@pytest.mark.parametrize(
    "other",
    [
        played("bert", 0.5, note="Not the real one."),
        replace(played("bert", 0.5), params=POCKET),
        replace(played("bert", 0.5), tags=played("bert", 0.5).tags | {"init": "random"}),
    ],
    ids=["of a study with a note", "pocket", "untrained"],
)
def test_a_stand_in_is_left_out_and_the_table_says_so(other: Result) -> None:
    alone = sheets.published(board([other]), [number()])
    assert alone.lines == () and alone.empty.startswith("BERT only stands in for the model that others measured")
    beside = sheets.published(board([other, played("gpt2", 0.6, GPT2)]), [number(), number(role="gpt2")])
    assert [name for name, _ in beside.lines] == ["Questions, GPT-2"]
    assert "left out: BERT only stands in" in beside.said


def test_where_all_stand_in_a_panel_has_what_was_measured_alone() -> None:
    def drawn(one: Result) -> sheets.Sheet:
        found = view(board([one]), "boolq")
        assert found is not None
        return sheets.beside_published([found], board([one]), [number()])

    alone = drawn(played("bert", 0.5, note="Not the real one."))
    assert [(name, [e.text for e in entries]) for name, entries in alone.lines] == [
        ("Questions, accuracy (%)", ["50.0 ± 1.0"])
    ]
    assert alone.said.startswith("BERT only stands in") and "published" not in alone.head
    assert "published" in drawn(played("bert", 0.5)).head
    assert drawn(played("nobody", 0.5)).lines == ()


def test_what_is_compared_is_said() -> None:
    found = [result(model, layer=1, layers="1") for model in (BERT, GPT2, MODELS[3])]
    shown = view(board(found), "bigram_shift")
    assert shown is not None
    assert sheets.differences([shown], "bert", "gpt2").said.startswith("BERT minus GPT-2, task by task")
    twins = sheets.differences([shown], "bert", "bert-untrained")
    assert twins.said.startswith("BERT minus BERT, untrained (its untrained twin: what training gave)")
    nothing = sheets.differences([], "bert", "gpt2")
    assert nothing.lines == () and nothing.empty.startswith("bert and gpt2 have no task in common")


def test_texts_and_numbers_are_told_apart() -> None:
    sheet = sheets.published(board([played("bert", 0.71)]), [number()])
    assert sheet.numbers == (True, True, True, False, False)
