"""The worker in this process, on a real job table: what is handed over, what is dropped, what waits."""

from __future__ import annotations

import inspect
import io
import itertools
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from clipstudy import attempt, heartbeat, recorder, run, tasks
from clipstudy import worker as workers
from clipstudy.errors import DatabaseUnreachable, DataError, Outdated, TrackingUnreachable
from clipstudy.heartbeat import Heartbeat
from clipstudy.job import Failure, FailureKind, Selection, Status
from clipstudy.outcome import Estimate, Outcome
from clipstudy.progress import Lines
from clipstudy.queue import dialect, jobs, migration, outbox, patience
from clipstudy.tracking import Tracking
from clipstudy.worker import Habits, Worker, obey_signals
from tests.queue.samples import cells, group
from tests.queue.samples import claim as queue_claim

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Book:
    """Stands for MLflow: keeps what is recorded; may be away."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.projected: list[Any] = []
        self.away = False
        self.refuses: set[int] = set()  #: jobs
        self.closed: set[str] = set()
        self.settled: list[tuple[str, str]] = []
        self.swept = 0

    def prepare(self) -> None:
        if self.away:
            raise TrackingUnreachable

    def parent(self, group: Any, resolved: Any, run_id: str | None, started: Any = None) -> str:
        self.prepare()
        return run_id or f"parent of {group.model.name} · {group.task.name}"

    def active(self, run_id: str) -> bool:
        self.prepare()
        return True

    def record(self, entry: Any, parent_run_id: str) -> str:
        if entry.job in self.refuses:
            raise ValueError("a name that MLflow does not take")
        self.runs[entry.key] = entry
        return f"run {entry.job}.{entry.attempt}"

    def answers(self) -> bool:
        return not self.away

    def settle(self, named: str, other: str) -> None:
        self.settled.append((named, other))

    def sweep(self, enough: Any) -> int:
        self.prepare()
        self.swept += 1
        return 0

    def project(self, parent_run_id: str, results: Any) -> None:
        self.projected.extend(results)
        self.closed.add(parent_run_id)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = dialect.connect(f"sqlite:///{tmp_path}/jobs.db")
    migration.migrate(made)
    yield made
    made.dispose()


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def worker(engine: Engine, book: Book) -> Worker:
    return Worker(engine, book, None, "cpu", Habits(drain=True, poll=0.01), Lines())  # type: ignore[arg-type]


def measuring(monkeypatch: pytest.MonkeyPatch, found: Callable[[Any, int], Any]) -> None:
    """Instead of a model: ``found(bench, layer)`` for each layer."""

    def stand_in(of: Any, layers: Any, *, bench: Any, pin: Any, **rest: Any) -> Iterator[tuple[int, Any]]:
        pin({"checkpoint": "sha256:1", "data": "sha256:2"})
        for layer in layers:
            yield layer, found(bench, layer)

    monkeypatch.setattr(run, "run", stand_in)


def outcome(bench: Any, layer: int) -> Outcome:
    return Outcome(layer, {"accuracy": Estimate(layer / 10)})


def statuses(engine: Engine) -> dict[int, Status]:
    return {job.layer: job.status for job in jobs.rows(engine)}


def test_what_stands_for_mlflow_is_asked_as_it_is() -> None:
    for name in [name for name, act in vars(Book).items() if inspect.isfunction(act) and name[0] != "_"]:
        asked, real = (inspect.signature(getattr(of, name)).parameters for of in (Book, Tracking))
        assert [*asked] == [*real], name


def test_every_cell_is_recorded_once(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    tally = worker.work()
    assert (tally.computed, tally.recorded, tally.failed) == (8, 8, 0)
    assert 0 < tally.keeping <= tally.busy
    assert {job.status for job in jobs.rows(engine)} == {Status.DONE}
    assert {job.run_id for job in jobs.rows(engine)} == {f"run {i}.1" for i in range(1, 9)}
    assert len(book.projected) == 8 and outbox.pending(engine) == 0
    entry = next(iter(book.runs.values()))
    assert {a.name for a in entry.artifacts} == {"log.txt"} and entry.params["version.python"]
    assert jobs.workers(engine) == []


def test_what_mlflow_refuses_is_tried_once_at_a_time(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short its rest: who records goes back to work, and hears what it is told."""
    measuring(monkeypatch, outcome)
    monkeypatch.setattr(outbox, "delay", lambda *_: 0.0)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    book.refuses = set(range(1, 9))
    assert worker.step() and worker.step()
    assert (worker.record(), len(book.runs)) == (8, 0)
    book.refuses = {1, 2}
    assert worker.record() == 2
    asked: list[bool] = []

    def enough() -> bool:
        asked.append(True)
        return True

    sum(recorder.drain(engine, book, "ann", enough=enough))  # type: ignore[arg-type]
    assert asked, "asked after what was refused, too"


def test_a_sweep_that_fails_ends_no_worker(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measuring(monkeypatch, outcome)
    monkeypatch.setattr(book, "sweep", lambda enough: {}["entry"])
    jobs.enqueue(engine, cells(group("bert")))
    assert worker.work().recorded == 4 and "could not be looked for" in caplog.text


def test_one_worker_at_a_time_sweeps(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert")))
    assert worker.step()
    with dialect.advisory_lock(engine, "sweep", 0):
        worker._sweep()
        assert book.swept == 0
    worker._sweep()
    assert book.swept == 1


def test_cells_that_were_enqueued_for_another_method_are_not_measured(
    engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert")))
    monkeypatch.setattr(tasks.load("classify"), "METHOD", 99)
    assert worker.work().failed == 4
    assert {job.status for job in jobs.rows(engine)} == {Status.FAILED}
    assert "enqueued for method" in str(jobs.rows(engine)[0].error)


def test_a_worker_older_than_what_it_is_to_measure_leaves(
    engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And spoils no cell: the others may be newer."""
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert")))
    monkeypatch.setattr(tasks.load("classify"), "METHOD", 0)
    with pytest.raises(Outdated, match=r"this version has method 0\. Update clipstudy"):
        worker.work()
    assert {(job.status, job.tries) for job in jobs.rows(engine)} == {(Status.QUEUED, 0)}


def test_progress_is_a_sign_that_computing_goes_on(worker: Worker) -> None:
    worker.heartbeat._stirred = 0.0
    worker.bench.progress("encode", 1, 2)
    assert time.monotonic() - worker.heartbeat._stirred < 60


@pytest.mark.parametrize("stirs", [True, False])
def test_a_worker_whose_computing_is_stuck_ends_itself(
    engine: Engine, stirs: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its leases must not be renewed for ever; one that goes on, however slowly, keeps them."""

    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        assert code == 70
        raise Ended

    jobs.enqueue(engine, cells(group()))
    batch = queue_claim(engine, "ann")
    heart = Heartbeat(engine, jobs.WorkerInfo("ann", "host", 1, "cpu"), lease=0.2)
    monkeypatch.setattr(heartbeat.os, "_exit", end)
    clock = [time.monotonic()]
    monkeypatch.setattr(heartbeat, "SILENCE", 0.5)
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: clock[0])
    heart.hold(batch.jobs, "bert · depth")
    real, beats = heartbeat.jobs.beat, itertools.count(1)

    def beat(*words: Any, **named: Any) -> set[int]:
        clock[0] += 0.1
        if stirs:
            heart.stir()
        if next(beats) == 30:
            heart.done.set()
        return real(*words, **named)

    monkeypatch.setattr(heartbeat.jobs, "beat", beat)
    if stirs:
        heart.run()
    else:
        with pytest.raises(Ended):
            heart.run()
    assert ("no progress for" in caplog.text) is not stirs
    ended = {(job.status, "no progress for" in str(job.error)) for job in jobs.rows(engine)}
    assert ended == {(Status.RUNNING, False) if stirs else (Status.QUEUED, True)}


def test_a_worker_that_slept_is_not_taken_for_stuck(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended job, a stopped process: the clock ran on, and nobody could make progress."""
    jobs.enqueue(engine, cells(group()))
    heart = Heartbeat(engine, jobs.WorkerInfo("ann", "host", 1, "cpu"), lease=0.2)
    heart.hold(queue_claim(engine, "ann").jobs, "bert · depth")
    clock, real, beats = [time.monotonic()], heartbeat.jobs.beat, itertools.count(1)
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(heartbeat.os, "_exit", lambda code: pytest.fail("it ended itself"))

    def beat(*words: Any, **named: Any) -> set[int]:
        if next(beats) == 3:
            heart.done.set()
        clock[0] += heartbeat.SILENCE + 1  # until the next one
        return real(*words, **named)

    monkeypatch.setattr(heartbeat.jobs, "beat", beat)
    heart._stirred = clock[0]
    heart.run()


def test_after_an_outage_others_have_a_while_to_renew_their_leases(engine: Engine, worker: Worker) -> None:
    jobs.enqueue(engine, cells(group("bert")))
    jobs.claim(engine, "another", lease=timedelta(seconds=-1))
    worker.heartbeat.away = time.monotonic()
    worker._mend()
    assert {job.status for job in jobs.rows(engine)} == {Status.RUNNING}
    worker.heartbeat.away -= worker.habits.lease
    worker._mend()
    assert {job.status for job in jobs.rows(engine)} == {Status.QUEUED}


def test_one_bad_layer_does_not_sink_its_siblings(
    engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Failure(FailureKind.CODE, "layer 2 has NaN", retry=False)
    measuring(monkeypatch, lambda bench, layer: bad if layer == 2 else outcome(bench, layer))
    jobs.enqueue(engine, cells(group()))
    tally = worker.work()
    assert (tally.computed, tally.failed) == (3, 1)
    assert statuses(engine) == {0: Status.DONE, 1: Status.DONE, 2: Status.FAILED, 3: Status.DONE}


def test_a_number_that_is_none_does_not_sink_its_siblings(
    engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = Outcome(1, {"accuracy": Estimate(float("nan"))})
    measuring(monkeypatch, lambda bench, layer: none if layer == 1 else outcome(bench, layer))
    jobs.enqueue(engine, cells(group()))
    assert worker.step()
    assert statuses(engine) == {0: Status.DONE, 1: Status.QUEUED, 2: Status.DONE, 3: Status.DONE}
    assert "not finite: accuracy" in str(jobs.rows(engine)[1].error)


def test_what_a_user_must_mend_is_not_tried_again(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: Any, layer: int) -> Outcome:
        raise DataError("rows.txt:3: found 1 columns. Fix the line.")

    measuring(monkeypatch, broken)
    jobs.enqueue(engine, cells(group()))
    worker.work()
    assert {(j.status, j.attempt, j.error) for j in jobs.rows(engine)} == {
        (Status.FAILED, 1, "rows.txt:3: found 1 columns. Fix the line.")
    }
    assert book.closed == {"parent of bert · depth"}
    assert {entry.kind for entry in book.runs.values()} == {"failed"}  # the failure is in MLflow, with its log
    assert all("rows.txt:3" in entry.log for entry in book.runs.values())


def test_a_bug_is_tried_again_and_keeps_its_traceback(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: Any, layer: int) -> Outcome:
        raise ZeroDivisionError("in the probe")

    measuring(monkeypatch, broken)
    jobs.enqueue(engine, cells(group()))
    assert worker.step()
    worker.record()
    assert {(j.status, j.tries) for j in jobs.rows(engine)} == {(Status.QUEUED, 1)}
    assert all(j.run_after is not None for j in jobs.rows(engine))
    assert book.runs and all("Traceback" in e.log and "ZeroDivisionError" in e.log for e in book.runs.values())


def test_cancelled_while_running(engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat learns of it, the next word of progress stops the work, and nothing of it is recorded."""

    def cancelled(bench: Any, layer: int) -> Outcome:
        jobs.cancel(engine, Selection())
        beaten = jobs.beat(engine, worker.name, worker.heartbeat._held, lease=worker_lease(worker))
        worker.heartbeat._ours &= beaten
        bench.progress("probes", 1, 2)
        raise AssertionError("the work went on")

    measuring(monkeypatch, cancelled)
    jobs.enqueue(engine, cells(group()))
    worker.work()
    assert set(statuses(engine).values()) == {Status.CANCELLED}
    assert book.runs == {}


def worker_lease(worker: Worker) -> Any:
    from datetime import timedelta

    return timedelta(seconds=worker.habits.lease)


def test_a_lost_lease_is_dropped(engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zombie: its rows were taken over meanwhile. What it computed is dropped, and the other's result stands."""
    first = []

    def slept(bench: Any, layer: int) -> Outcome:
        if not first:
            first.append(layer)
            with dialect.writing(engine) as connection:
                connection.exec_driver_sql("UPDATE jobs SET lease_until = 1, leased_at = 0")
            assert len(jobs.requeue_expired(engine)) == 4
        return outcome(bench, layer)

    measuring(monkeypatch, slept)
    jobs.enqueue(engine, cells(group()))
    assert worker.step()
    assert worker.tally.computed == 0 and book.runs == {}
    assert set(statuses(engine).values()) == {Status.QUEUED}


def test_told_to_stop(engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that are done stay; the others are given back at once, and no try is spent."""

    def stopping(bench: Any, layer: int) -> Outcome:
        if layer == 2:
            worker.stop.set()
        bench.progress("probes", 1, 2)
        return outcome(bench, layer)

    measuring(monkeypatch, stopping)
    jobs.enqueue(engine, cells(group()))
    worker.work()
    found = {j.layer: (j.status, j.tries) for j in jobs.rows(engine)}
    assert found[2] == found[3] == (Status.QUEUED, 0)
    assert {found[0][0], found[1][0]} <= {Status.COMPUTED, Status.DONE}


def test_mlflow_away(engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    book.away = True
    assert worker.step() and worker.step()
    assert {j.status for j in jobs.rows(engine)} == {Status.COMPUTED} and book.runs == {}
    book.away, worker._mlflow_after = False, 0.0
    assert worker.record() == 0
    assert {(j.status, j.attempt) for j in jobs.rows(engine)} == {(Status.DONE, 1)}


def test_after_an_outage_stragglers_are_swept(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, outcome)
    worker._sweep_until = 0.0
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    assert worker.step()
    worker._mend()
    assert book.swept == 0  # nothing has gone wrong for long
    book.away = True
    assert worker.step()
    book.away, worker._mlflow_after = False, 0.0
    worker.work()
    assert book.swept >= 1 and {j.status for j in jobs.rows(engine)} == {Status.DONE}


def test_no_more_work_while_too_much_waits(
    engine: Engine, book: Book, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    book.away = True
    bounded = Worker(engine, book, None, "cpu", Habits(outbox_bound=4), Lines())  # type: ignore[arg-type]
    assert bounded.step()
    assert not bounded.step()
    assert "4 results wait for MLflow" in caplog.text


def slowly(worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """MLflow takes ``seconds`` for a run, on a clock that only it moves."""
    clock, real = [1000.0], book.record

    def slow(entry: Any, parent: str) -> str:
        clock[0] += seconds
        return real(entry, parent)

    monkeypatch.setattr(book, "record", slow)
    monkeypatch.setattr("clipstudy.worker.time.monotonic", lambda: clock[0])
    worker._progressed = clock[0]


def test_a_slow_mlflow_does_not_keep_from_computing(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measuring(monkeypatch, outcome)
    slowly(worker, book, monkeypatch, worker.habits.recording * 0.6)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    assert worker.step()
    assert (
        sorted(j.status for j in jobs.rows(engine)) == [Status.COMPUTED] * 2 + [Status.DONE] * 2 + [Status.QUEUED] * 4
    )
    assert "MLflow is slow: 2 results wait for it" in caplog.text
    assert worker.step()  # the next batch, although the first is not recorded
    assert [j.status for j in jobs.rows(engine)][4:] == [Status.COMPUTED] * 4
    while worker.record():
        worker.step()  # nothing to compute: MLflow gets all the time
    assert {j.status for j in jobs.rows(engine)} == {Status.DONE}
    assert len(book.runs) == 8 and {j.attempt for j in jobs.rows(engine)} == {1}


def test_whose_parent_run_another_recorder_makes_is_computed_meanwhile(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a group whose parent is being made nothing can be recorded; it may take as long as MLflow takes."""
    monkeypatch.setattr(dialect, "_ALONE_WAIT_S", 0.05)
    monkeypatch.setattr(outbox, "_MOMENT_S", 0.2)
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    with outbox.parent(engine, jobs.rows(engine)[0].group_id):
        while worker.step():
            pass
        assert {job.status for job in jobs.rows(engine)} == {Status.COMPUTED}
        assert not book.runs
    tally = worker.work()
    assert (tally.computed, tally.recorded) == (8, 8)
    assert {job.status for job in jobs.rows(engine)} == {Status.DONE}


def test_a_log_that_no_database_can_keep_costs_no_result(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    def telling(bench: Any, layer: int) -> Outcome:
        logging.getLogger("clipstudy.told").error("a name of half a character: \udcff")
        return outcome(bench, layer)

    measuring(monkeypatch, telling)
    monkeypatch.setattr(logging.getLogger("clipstudy"), "propagate", False)  # nor can a test's report
    jobs.enqueue(engine, cells(group()))
    assert worker.work().computed == 4
    assert {job.status for job in jobs.rows(engine)} == {Status.DONE}
    (log,) = {a.content.decode() for entry in book.runs.values() for a in entry.artifacts if entry.layer == 0}
    assert "half a character: \N{REPLACEMENT CHARACTER}" in log


def test_told_to_stop_it_does_not_wait_for_a_slow_mlflow(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, outcome)
    slowly(worker, book, monkeypatch, 2.0)
    jobs.enqueue(engine, cells(group()))
    worker.stop.set()
    assert worker.step()
    assert [j.status for j in jobs.rows(engine)] == [Status.DONE] * 2 + [Status.COMPUTED] * 2
    assert len(outbox.take(engine, "another", lease=recorder.LEASE)) == 2  # nobody need wait for its lease


def test_a_group_that_changed(engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group()))
    jobs.pin(engine, 1, {"checkpoint": "sha256:1", "data": "sha256:another"})
    worker.work()
    assert {j.status for j in jobs.rows(engine)} == {Status.FAILED}
    assert all("the data changed since this group began" in (j.error or "") for j in jobs.rows(engine))
    assert jobs.retry(engine, Selection()) == 4  # nothing had been computed: it begins anew
    assert worker.step()
    assert {j.status for j in jobs.rows(engine)} == {Status.DONE}


def test_a_group_with_results_that_changed_is_run_again_whole(
    engine: Engine, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way that the message names, to the end: every cell of the one new file."""
    of_today = ["sha256:2"]

    def stand_in(of: Any, layers: Any, *, bench: Any, pin: Any, **rest: Any) -> Iterator[tuple[int, Any]]:
        pin({"checkpoint": "sha256:1", "data": of_today[0]})
        for layer in layers:
            yield layer, Outcome(layer, {"accuracy": Estimate(0.5)}, {"resolved.data": of_today[0]})

    monkeypatch.setattr(run, "run", stand_in)

    def work() -> tuple[list[Status], Any]:
        habits = Habits(drain=True, poll=0.01, layers_per_batch=2)
        tally = Worker(engine, book, None, "cpu", habits, Lines()).work()  # type: ignore[arg-type]
        return [j.status for j in jobs.rows(engine)], tally

    jobs.enqueue(engine, [(group(), (0, 1))])
    assert work()[0] == [Status.DONE] * 2
    of_today[0] = "sha256:3"
    jobs.enqueue(engine, cells(group()))
    found, tally = work()
    assert found == [Status.DONE] * 2 + [Status.FAILED] * 2 and tally.failed == 2
    message = jobs.rows(engine)[2].error or ""
    assert message.endswith("clipstudy rerun --study probing --model bert --task depth")
    assert jobs.retry(engine, Selection()) == 2
    assert work()[0] == found  # what is done stands in the way, and stays
    words = dict(zip(*[iter(message.split("rerun ")[1].split())] * 2, strict=True))
    named = Selection((words["--model"],), (words["--task"],), study=words["--study"])
    assert jobs.rerun(engine, named) == 4
    assert work()[0] == [Status.DONE] * 4
    last = {entry.layer: entry.params["resolved.data"] for entry in book.runs.values() if entry.kind == "finished"}
    assert last == dict.fromkeys(range(4), "sha256:3")
    assert jobs.group_of(engine, 1)[1] == '{"checkpoint": "sha256:1", "data": "sha256:3"}'


class Away:
    """A function of the queue, while the database is away for so many calls of it."""

    def __init__(self, real: Any, calls: int) -> None:
        self.real, self.left = real, calls

    def __call__(self, *words: Any, **named: Any) -> Any:
        if self.left:
            self.left -= 1
            raise DatabaseUnreachable
        return self.real(*words, **named)


def test_what_is_computed_outlives_the_lease(engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is away for longer than the worker waits for it otherwise: nothing is thrown away."""
    measuring(monkeypatch, outcome)
    monkeypatch.setattr(worker.enough, "wait", lambda seconds: None)
    worker.patience.seconds = 0.0
    away = Away(outbox.hand_over, 5)
    monkeypatch.setattr(outbox, "hand_over", away)
    jobs.enqueue(engine, cells(group()))
    assert worker.step()
    assert worker.tally.computed == 4 and away.left == 0
    assert {j.attempt for j in jobs.rows(engine)} == {1}


def test_what_it_may_have_claimed_is_given_back_by_a_worker_that_leaves(
    engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim arrived, its answer did not, and then the worker is told to stop."""
    jobs.enqueue(engine, cells(group()))
    real = jobs.claim

    def claim(*words: Any, **named: Any) -> None:
        assert real(*words, **named)
        worker.stop.set()
        raise DatabaseUnreachable

    monkeypatch.setattr(jobs, "claim", claim)
    worker.work()
    assert {(j.status, j.tries) for j in jobs.rows(engine)} == {(Status.QUEUED, 0)}


def test_asked_twice_to_stop_it_waits_for_nobody(
    engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice within a second is once: SLURM tells a worker, and so does its supervisor, whom SLURM told, too."""
    measuring(monkeypatch, outcome)
    away = Away(outbox.hand_over, 1000)
    monkeypatch.setattr(outbox, "hand_over", away)
    jobs.enqueue(engine, cells(group()))
    clock, echo = 0.0, workers.ECHO
    heard: list[tuple[float, bool]] = []

    def now() -> float:
        heard.append((clock, worker.enough.is_set()))
        return clock

    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(workers, "time", SimpleNamespace(monotonic=now))
            obey_signals(worker)
            told = signal.getsignal(signal.SIGTERM)
            assert callable(told)
            told(signal.SIGTERM, None)
            told(signal.SIGTERM, None)
            until = time.monotonic() + 60
            while len(heard) < 3 and time.monotonic() < until:  # when it began to listen, and at each word
                time.sleep(0.01)
            clock = 2 * echo
            told(signal.SIGTERM, None)
            assert worker.enough.wait(60)
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
    assert heard == [(0.0, False)] * 3 + [(2 * echo, False)]
    with pytest.raises(DatabaseUnreachable):
        worker.step()
    assert away.left == 999


def test_a_signal_handler_waits_for_no_lock(worker: Worker) -> None:
    """It runs amid whatever the main thread does: that may hold the lock of an event or of a log, and cannot let it go
    before the handler is over."""
    before = [signal.getsignal(number) for number in SIGNALS]
    line = logging.StreamHandler(io.StringIO())
    log = logging.getLogger("clipstudy")
    log.addHandler(line)
    try:
        obey_signals(worker)
        told = signal.getsignal(signal.SIGTERM)
        assert callable(told)
        line.acquire()
        with worker.stop._cond:  # type: ignore[attr-defined]
            handler = threading.Thread(target=told, args=(signal.SIGTERM, None), daemon=True)
            handler.start()
            handler.join(10)
            assert not handler.is_alive()
        line.release()
        assert worker.stop.wait(60)
    finally:
        log.removeHandler(line)
        for number, handler_before in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler_before)


def test_one_outage_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many questions meet it; and anew when it was over in between."""
    clock, enough = [0.0], threading.Event()
    monkeypatch.setattr(patience.time, "monotonic", lambda: clock[0])

    def wait(seconds: float) -> bool:
        clock[0] += seconds
        return False

    monkeypatch.setattr(enough, "wait", wait)
    patient = patience.Patience(100.0, enough)
    away = Away(lambda: "answer", 10_000)
    for _ in range(3):
        with pytest.raises(DatabaseUnreachable):
            patient(away)
    assert 100 < clock[0] < 115
    away.left = 50
    assert patient(away, forever=True) == "answer" and clock[0] > 200
    away.left, since = 10_000, clock[0]
    with pytest.raises(DatabaseUnreachable):
        patient(away)
    assert clock[0] - since > 100


def test_a_draining_worker_does_not_wait_for_mlflow_for_ever(
    engine: Engine, book: Book, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group()))
    book.away = True
    habits = Habits(drain=True, poll=0.01, mlflow=0.2)
    tally = Worker(engine, book, None, "cpu", habits, Lines()).work()  # type: ignore[arg-type]
    assert (tally.computed, tally.waiting) == (4, 4)
    assert "4 results are kept in the outbox" in caplog.text and "MLflow does not answer" in caplog.text
    assert {j.status for j in jobs.rows(engine)} == {Status.COMPUTED}


def test_a_draining_worker_ends_where_too_much_waits(
    engine: Engine, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    book.away = True
    habits = Habits(drain=True, poll=0.01, mlflow=0.2, outbox_bound=4)
    tally = Worker(engine, book, None, "cpu", habits, Lines()).work()  # type: ignore[arg-type]
    assert (tally.computed, tally.waiting) == (4, 4) and jobs.totals(engine)[Status.QUEUED] == 4


def test_a_draining_worker_of_one_study_ends_where_too_much_of_another_waits(
    engine: Engine, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert", study="other"), group("gpt2")))
    book.away = True

    def worker(study: str, **more: Any) -> Worker:
        habits = Habits(drain=True, poll=0.01, mlflow=0.2, study=study, **more)
        return Worker(engine, book, None, "cpu", habits, Lines())  # type: ignore[arg-type]

    assert worker("other").work().waiting == 4
    tally = worker(group().study, outbox_bound=4).work()
    assert (tally.computed, tally.waiting) == (0, 4) and jobs.totals(engine)[Status.QUEUED] == 4


def test_a_database_that_goes_away_amid_the_only_batch(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was computed counts, and the time that it took."""
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group()))
    real, asked = worker.record, itertools.count()
    monkeypatch.setattr(worker, "record", lambda: Away(real, int(next(asked) == 1))())
    tally = worker.work()
    assert (tally.computed, tally.recorded) == (4, 4) and 0 < tally.keeping <= tally.busy


def test_what_is_recorded_before_mlflow_goes_away_counts(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    book.away = True
    assert worker.step() and worker.step()
    book.away, worker._mlflow_after = False, 0.0
    real = book.project

    def once(parent: str, results: Any) -> None:
        if book.projected:
            raise TrackingUnreachable
        real(parent, results)

    monkeypatch.setattr(book, "project", once)
    assert worker.record() == 4 == worker.tally.recorded


def cuda_said(error: BaseException) -> bool:
    """`device.broken`, without a GPU to ask."""
    return "CUDA error" in str(error)


@pytest.mark.parametrize("alone", [False, True])
def test_a_device_that_broke_ends_the_worker(
    engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, alone: bool
) -> None:
    """CUDA answers nothing in a process any more whose kernel failed: to try its siblings, or other cells, would fail
    them all. They are lost as a killed worker's are, and say why."""

    def breaks(bench: Any, layer: int) -> Outcome:
        if layer == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return outcome(bench, layer)

    measuring(monkeypatch, breaks)
    monkeypatch.setattr(attempt, "broken", cuda_said)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    if alone:
        worker.habits = replace(worker.habits, layers_per_batch=3)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        worker.work()
    lost = [job for job in jobs.rows(engine) if job.failure is FailureKind.LOST]
    assert [(job.model, job.layer) for job in lost] == [("bert", k) for k in ([2] if alone else [2, 3])]
    assert {(job.status, job.tries, job.error) for job in lost} == {
        (Status.QUEUED, 1, "RuntimeError: CUDA error: an illegal memory access was encountered")
    }
    assert "of no use to this process any more" in caplog.text and worker.tally.again == len(lost)
    assert not [job for job in jobs.rows(engine) if job.status is Status.RUNNING]


def test_layers_are_not_tried_one_by_one_on_a_device_that_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(run, "broken", cuda_said)

    def measure(layers: Any) -> Iterator[Outcome]:
        asked.append(tuple(layers))
        yield Outcome(0, {})
        raise RuntimeError("CUDA error: device-side assert triggered")

    found = []
    with pytest.raises(RuntimeError, match="device-side"):
        found.extend(run._each_once([0, 1, 2], measure, "classify"))
    assert asked == [(0, 1, 2)]


def test_what_mlflow_refuses_holds_up_nobody(
    engine: Engine, book: Book, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even its siblings; and a draining worker ends."""
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group()))
    book.refuses = {2}
    habits = Habits(drain=True, poll=0.01, mlflow=0.2)
    tally = Worker(engine, book, None, "cpu", habits, Lines()).work()  # type: ignore[arg-type]
    assert (tally.recorded, tally.waiting) == (3, 1)
    assert [j.status for j in jobs.rows(engine)] == [Status.DONE, Status.COMPUTED, Status.DONE, Status.DONE]
    assert "a name that MLflow does not take" in caplog.text.split("kept in the outbox")[1]


def test_one_result_that_mlflow_answers_with_500_holds_up_nobody(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a store of files does that cannot keep one of them; what is asked beside it is answered."""
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    book.away = True
    worker.step(), worker.step()
    book.away = False
    first, real = jobs.rows(engine)[0].id, book.record

    def record(entry: Any, parent: str) -> str:
        if entry.job == first:
            raise TrackingUnreachable("MLflow does not answer (HTTP 500)")
        return real(entry, parent)

    monkeypatch.setattr(book, "record", record)
    assert sum(recorder.drain(engine, book, "rec")) == 7  # type: ignore[arg-type]
    assert outbox.pending(engine) == 1 and "HTTP 500" in str(outbox.last_error(engine))


def test_a_recorder_that_slept_leaves_the_run_that_the_table_names(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, [(group(), (0,))])
    book.away = True
    worker.step()
    book.away = False
    slow = outbox.take(engine, "slow", lease=timedelta(seconds=-1))
    (quick,) = outbox.take(engine, "quick", lease=recorder.LEASE)
    assert outbox.recorded(engine, quick, "the run of the quick one")
    assert recorder.record_group(engine, book, slow, lambda: None) == 0  # type: ignore[arg-type]
    assert book.settled == [("the run of the quick one", "run 1.1")]


def test_a_recorder_that_slept_waits_for_what_the_table_names(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one closed its run, and has not told the table yet."""
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, [(group(), (0, 1))])
    book.away = True
    worker.step()
    book.away = False
    slow = outbox.take(engine, "slow", lease=timedelta(seconds=-1))
    quick = outbox.take(engine, "quick", lease=recorder.LEASE)
    ours = f"run {slow[1].job.id}.1"

    def look(seconds: float) -> None:
        for record, run_id in zip(quick, ("the run of the quick one", ours), strict=True):
            outbox.recorded(engine, record, run_id)

    monkeypatch.setattr(recorder.time, "sleep", look)
    assert recorder.record_group(engine, book, slow, lambda: None) == 0  # type: ignore[arg-type]
    assert book.settled == [("the run of the quick one", f"run {slow[0].job.id}.1")]


def test_a_recorder_keeps_its_lease_while_it_works(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow takes its time for each of many records: no other recorder begins them meanwhile."""
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group()))
    book.away = True
    worker.step()
    book.away = False
    clock = [0.0]
    monkeypatch.setattr(recorder.time, "monotonic", lambda: clock[0])
    real = book.record

    def slow(entry: Any, parent: str) -> str:
        assert outbox.take(engine, "another", lease=recorder.LEASE) == []
        clock[0] += 100  # two thirds of the lease go by
        with dialect.writing(engine) as connection:
            connection.exec_driver_sql("UPDATE outbox SET lease_until = lease_until - 100")
        return real(entry, parent)

    monkeypatch.setattr(book, "record", slow)
    assert sum(recorder.drain(engine, book, "rec")) == 4  # type: ignore[arg-type]


def test_the_silent_leave_the_list(engine: Engine, worker: Worker) -> None:
    jobs.register(engine, jobs.WorkerInfo("dead", "host", 1, "cpu"))
    with dialect.writing(engine) as connection:
        connection.exec_driver_sql("UPDATE workers SET heartbeat = heartbeat - 3600")
    worker.work()
    assert jobs.workers(engine) == []


def test_heartbeat_keeps_leases(engine: Engine) -> None:
    """A batch that takes longer than its lease stays with its worker."""
    jobs.enqueue(engine, cells(group()))
    batch = queue_claim(engine, "ann")
    before = jobs.get(engine, 1).lease_until
    beats = threading.Event()
    heart = Heartbeat(engine, jobs.WorkerInfo("ann", "host", 1, "cpu"), lease=0.2)
    real = jobs.beat
    assert before is not None

    def counted(*words: Any, **named: Any) -> set[int]:
        found = real(*words, **{**named, "lease": worker_like()})
        beats.set()
        return found

    def worker_like() -> Any:
        from datetime import timedelta

        return timedelta(hours=1)

    original, heartbeat.jobs.beat = heartbeat.jobs.beat, counted
    try:
        heart.hold(batch.jobs, "batch")
        heart.start()
        assert beats.wait(20)
    finally:
        heartbeat.jobs.beat = original
        heart.done.set()
        heart.join()
    after = jobs.get(engine, 1).lease_until
    assert after is not None and after > before
    assert not heart.lost()
    assert [w.name for w in jobs.workers(engine)] == ["ann"]  # was not registered: somebody took it for dead


def test_an_attempts_log_is_its_own() -> None:
    import logging

    logger = logging.getLogger("clipstudy.something")
    logger.setLevel("INFO")
    with attempt.captured() as text:
        logger.info("inside")
    logger.info("outside")
    assert "inside" in text.getvalue() and "outside" not in text.getvalue()
