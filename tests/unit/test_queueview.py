"""The job table in words: summary, workers, failures."""

from __future__ import annotations

from dataclasses import replace

from clipstudy import queueview
from clipstudy.job import FailureKind, Job, Status
from clipstudy.queue.jobs import Throughput, WorkerInfo

STILL = Throughput(0, 0.0, 0)
JOB = Job(1, 1, "s", "bert", "depth", "d", 3, "block 3", Status.FAILED, 1, 1, 3)


def test_what_was_left_out_is_said() -> None:
    assert queueview.summary({Status.DONE: 3}, STILL) == "3 of 3 cells done"
    some = {Status.DONE: 3, Status.QUEUED: 1, Status.CANCELLED: 1200, Status.SUPERSEDED: 9}
    assert queueview.summary(some, STILL) == "3 of 4 cells done, 1 queued, 1,200 more cancelled"


def test_pace_and_what_mlflow_lacks() -> None:
    said = queueview.summary({Status.DONE: 6, Status.RUNNING: 3, Status.COMPUTED: 1}, Throughput(6, 60.0, 3))
    assert said == (
        "6 of 10 cells done, 3 running; lately 6.0 cells per minute, 30 s left at that pace; 1 result not in MLflow yet"
    )
    assert "left" not in queueview.summary({Status.DONE: 6}, Throughput(6, 60.0, 0))


def test_no_time_is_foretold_where_nobody_works() -> None:
    for status in (Status.QUEUED, Status.RUNNING):
        said = queueview.summary({Status.DONE: 6, status: 3}, Throughput(6, 60.0, 3), anybody=False)
        assert said == f"6 of 9 cells done, 3 {status}; no worker is at work"
    assert queueview.summary({Status.DONE: 6}, Throughput(6, 60.0, 0), anybody=False) == "6 of 6 cells done"
    killed = WorkerInfo("a:1", "a", 1, "cpu", age=queueview.UNHEARD)
    assert not queueview.at_work([]) and not queueview.at_work([killed])
    assert queueview.at_work([killed, replace(killed, name="b:1", age=3.0)])


def test_a_worker_that_has_not_said_yet_what_it_computes() -> None:
    silent = WorkerInfo("a:1", "a", 1, "cpu", age=3.2)
    running = replace(JOB, status=Status.RUNNING, worker="a:1")
    told = replace(silent, name="b:1", batch="gpt2 · tense")
    rows = queueview.worker_rows([silent, told, replace(silent, name="c:1")], [running])
    assert [row.computes for row in rows] == ["bert · depth", "gpt2 · tense", "idle"]
    assert rows[0].seen == "3 s ago"


def test_failures_of_one_kind_are_one_row() -> None:
    failed = [
        replace(JOB, id=7, error="broke", failure=FailureKind.CODE),
        replace(JOB, id=8, error="broke", failure=FailureKind.CODE, label="block 4"),
        replace(JOB, id=9, error="gone", failure=FailureKind.LOST),
        replace(JOB, id=10, task="tense", error=None),
        replace(JOB, id=11, model="clip", error="no such file"),
        replace(JOB, id=12, model="clip", task="tense", error="no such file"),
    ]
    rows = queueview.failure_rows(failed)
    assert [(row.cells, row.layers, row.message, row.job) for row in rows] == [
        ("bert · depth", "2 layers", "broke", 7),
        ("bert · depth", "block 3", "gone", 9),
        ("bert · tense", "block 3", "", 10),
        ("clip · 2 tasks", "2 cells", "no such file", 11),
    ]
    assert [row.reason for row in rows] == [
        "code: its data, model or code is at fault",
        "lost: its worker vanished",
        "",
        "",
    ]


def test_what_to_type_depends_on_why_cells_failed() -> None:
    """`retry --failed` leaves cells out whose worker vanished, and these have no log."""
    lost = replace(JOB, id=9, error="gone", failure=FailureKind.LOST)
    broke = replace(JOB, id=10, error="broke", failure=FailureKind.CODE)
    of_lost = "see: clipstudy show 9 (its worker vanished); then: clipstudy retry --lost"
    assert queueview.advice(()) == ()
    assert queueview.advice(queueview.failure_rows([lost])) == (of_lost,)
    first, second, *_ = queueview.advice(queueview.failure_rows([lost, broke]))
    assert (first, second) == ("see: clipstudy logs 10; fix it, then: clipstudy retry --failed", of_lost)
    assert queueview.no_log(lost) == "has no log: its worker vanished. See: clipstudy show 9"
