"""What is missing is what was planned: a cell that cannot exist is not missed."""

from __future__ import annotations

from dataclasses import replace

from clipstudy.job import Status
from clipstudy.results.boards import board
from clipstudy.results.planned import gaps, left_out, unfinished
from tests.made_up import BERT, MODELS, SHIFT, Task, result

DEPTH = Task("tree_depth", "Tree depth", "syntactic")
SHOWN = board([result(), result(MODELS[1], DEPTH)])
STUDY = SHOWN.results[0].study
PLANNED = {
    (STUDY, "bert", "bigram_shift"): {Status.DONE: 1, Status.CANCELLED: 1},
    (STUDY, "gpt2", "tree_depth"): {Status.DONE: 1},
    (STUDY, "gpt2", "bigram_shift"): {Status.CANCELLED: 2000},
    (STUDY, "gpt2", "never_ran"): {Status.QUEUED: 2},
    ("another", "bert", "tree_depth"): {Status.CANCELLED: 7},
}


def test_only_what_was_planned_is_missing() -> None:
    assert gaps(PLANNED, STUDY, SHOWN) == ["gpt2: no result yet on bigram_shift, never_ran"]
    assert gaps({}, STUDY, SHOWN) == [] and SHOWN.notes == board(SHOWN.results).notes
    assert not any("tree_depth" in note for note in SHOWN.notes if note.startswith("bert")), "no job of that is known"


def test_what_is_yet_to_come_is_said() -> None:
    assert unfinished(PLANNED) == "Not all cells are done: 2 queued (for more: clipstudy status)."
    failed = {(STUDY, "bert", "tree_depth"): {Status.FAILED: 1, Status.QUEUED: 1200, Status.COMPUTED: 5}}
    assert "done: 1,202 queued, 5 not in MLflow yet, 1 failed (" in unfinished({**PLANNED, **failed})
    assert unfinished({}) == unfinished({(STUDY, "bert", "x"): {Status.DONE: 1, Status.CANCELLED: 1}}) == ""


def test_cancelled_cells_are_counted_by_kind() -> None:
    assert left_out(PLANNED, STUDY, SHOWN) == (
        "2,001 cells were cancelled (Bigram shift: 2,001). "
        f"To run them, type: clipstudy retry --study {STUDY} --cancelled; clipstudy worker --drain --study {STUDY}"
    )
    waiting = {key: statuses for key, statuses in PLANNED.items() if key[2] == "never_ran"}
    assert left_out({}, STUDY, SHOWN) == left_out(waiting, STUDY, SHOWN) == ""


def test_what_the_demo_left_out_is_run_by_retry() -> None:
    pocket = replace(result(BERT, SHIFT), study="pocket", params={"model.checkpoint": "package:clipstudy/pocket/x"})
    planned = {("pocket", "bert", "bigram_shift"): {Status.CANCELLED: 1}}
    said = left_out(planned, "pocket", board([pocket]))
    assert said == (
        "1 cell was left out by the demo's time budget (Bigram shift: 1). "
        "To run them, type: clipstudy retry --study pocket --cancelled; clipstudy worker --drain --study pocket"
    )
