"""Tables across tasks hold the numbers of the charts."""

from __future__ import annotations

import csv
import io
import math

import pytest

from clipstudy.dashboard import sheets
from clipstudy.dashboard.tables import View, board, view
from clipstudy.outcome import Estimate
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
        "Bigram shift, accuracy (%)": (("75.0 ± 5.0 (3)", 75.0, False), ("80.0 ± 2.0 (1)", 80.0, True)),
        "Tree depth, accuracy (%)": (("25.0 (2)", 25.0, False), ("—", None, False)),
    }


def test_less_is_better_where_it_is() -> None:
    loss = Task("loss", "Loss", "surface", "mse")
    (line,) = sheets.best(seen((BERT, loss, 1, Estimate(0.2)), (GPT2, loss, 1, Estimate(0.1)))).lines
    assert [entry.bold for entry in line[1]] == [False, True]


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
    (_, (*_, near)), (_, (*_, far)) = sheet.lines
    assert near.value == pytest.approx(4.0) and near.text == f"+4.0 ± {100 * math.hypot(0.03, 0.04):.1f}"
    assert not near.bold and far.text == "+6.0 ± 5.0" and far.bold
    assert sheets.differences(views, "gpt2", "bert").lines[0][1][2].text == "−4.0 ± 5.0"
    assert sheets.differences(views, "bert", "bert").lines[0][1][2].text == "+0.0 ± 4.2"
    assert sheets.differences(views, "bert", "nobody").lines == ()


def test_one_task_layer_by_layer() -> None:
    found = view(board(results([BERT, GPT2], [SHIFT])), "bigram_shift")
    assert found
    sheet = sheets.by_layer(found)
    assert [name for name, _ in sheet.lines] == ["0 (embedding)", *map(str, range(1, 13)), "test items"]
    for at, curve in enumerate(found.curves):
        column = [entries[at] for _, entries in sheet.lines[:-1]]
        assert [entry.value for entry in column] == [100 * cell.estimate.value for cell in curve.cells]
        assert [k for k, entry in enumerate(column) if entry.bold] == [curve.best]


def test_a_sheet_is_taken_away() -> None:
    nasty = Model("bert", "=cmd()|x & y_z")
    views = seen((nasty, SHIFT, 3, Estimate(0.75, 0.72, 0.78)), (GPT2, SHIFT, 1, Estimate(0.70, 0.66, 0.74)))
    sheet = sheets.differences(views, "bert", "gpt2")
    rows = list(csv.reader(io.StringIO(sheets.to_csv(sheet))))
    assert rows == [
        ["task", "'=cmd()|x & y_z", "GPT-2", "difference"],
        ["Bigram shift, accuracy (%)", "75.0 ± 3.0 (3)", "70.0 ± 4.0 (1)", "5.0 ± 5.0"],
    ]
    assert r"=cmd()|x \& y\_z" in sheets.to_latex(sheet) and r"75.0 $\pm$ 3.0 (3)" in sheets.to_latex(sheet)
    assert r"=cmd()\|x & y\_z" in sheets.to_markdown(sheet)
