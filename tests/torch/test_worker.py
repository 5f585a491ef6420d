"""The worker in this process, on a real job table: what is handed over, what is dropped, what waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from clipstudy import attempt, run
from clipstudy.errors import DataError, TrackingUnreachable
from clipstudy.job import Failure, FailureKind, Selection, Status
from clipstudy.outcome import Estimate, Outcome
from clipstudy.progress import Lines
from clipstudy.queue import dialect, jobs, migration, outbox
from clipstudy.worker import Habits, Worker
from tests.queue.samples import cells, group


class Book:
    """Stands for MLflow: keeps what is recorded; may be away."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.projected: list[Any] = []
        self.away = False

    def prepare(self) -> None:
        if self.away:
            raise TrackingUnreachable

    def parent(self, of: Any, resolved: Any, run_id: str | None, started: Any = None) -> str:
        self.prepare()
        return run_id or f"parent of {of.model.name} · {of.task.name}"

    def record(self, entry: Any, parent: str) -> str:
        self.runs[entry.key] = entry
        return f"run {entry.job}.{entry.attempt}"

    def project(self, parent: str, results: Any) -> None:
        self.projected.extend(results)


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


def test_every_cell_is_recorded_once(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    tally = worker.work()
    assert (tally.computed, tally.recorded, tally.failed) == (8, 8, 0)
    assert 0 < tally.keeping <= tally.busy + 5
    assert {job.status for job in jobs.rows(engine)} == {Status.DONE}
    assert {job.run_id for job in jobs.rows(engine)} == {f"run {i}.1" for i in range(1, 9)}
    assert len(book.projected) == 8 and outbox.pending(engine) == 0
    entry = next(iter(book.runs.values()))
    assert {a.name for a in entry.artifacts} == {"log.txt"} and entry.params["version.python"]
    assert jobs.workers(engine) == []


def test_one_bad_layer_does_not_sink_its_siblings(
    engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Failure(FailureKind.CODE, "layer 2 has NaN", retry=False)
    measuring(monkeypatch, lambda bench, layer: bad if layer == 2 else outcome(bench, layer))
    jobs.enqueue(engine, cells(group()))
    tally = worker.work()
    assert (tally.computed, tally.failed) == (3, 1)
    assert statuses(engine) == {0: Status.DONE, 1: Status.DONE, 2: Status.FAILED, 3: Status.DONE}


def test_what_a_user_must_mend_is_not_tried_again(
    engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: Any, layer: int) -> Outcome:
        raise DataError("rows.txt:3: found 1 columns. Mend the line.")

    measuring(monkeypatch, broken)
    jobs.enqueue(engine, cells(group()))
    worker.work()
    assert {(j.status, j.attempt, j.error) for j in jobs.rows(engine)} == {
        (Status.FAILED, 1, "rows.txt:3: found 1 columns. Mend the line.")
    }
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
    assert all("Traceback" in e.log and "ZeroDivisionError" in e.log for e in book.runs.values())


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
    assert found[0][0] in (Status.COMPUTED, Status.DONE)


def test_mlflow_away(engine: Engine, worker: Worker, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    book.away = True
    assert worker.step() and worker.step()
    assert {j.status for j in jobs.rows(engine)} == {Status.COMPUTED} and book.runs == {}
    book.away, worker._mlflow_after = False, 0.0
    assert worker.record() == 0
    assert {(j.status, j.attempt) for j in jobs.rows(engine)} == {(Status.DONE, 1)}


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


def test_a_group_that_changed(engine: Engine, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, outcome)
    jobs.enqueue(engine, cells(group()))
    jobs.pin(engine, 1, {"checkpoint": "sha256:1", "data": "sha256:another"})
    worker.work()
    assert {j.status for j in jobs.rows(engine)} == {Status.FAILED}
    assert all("the data changed since this group began" in (j.error or "") for j in jobs.rows(engine))


def test_heartbeat_keeps_leases(engine: Engine) -> None:
    """A batch that takes longer than its lease stays with its worker."""
    from clipstudy.heartbeat import Heartbeat
    from tests.queue.samples import claim

    jobs.enqueue(engine, cells(group()))
    batch = claim(engine, "ann")
    before = jobs.get(engine, 1).lease_until
    beats = threading.Event()
    heart = Heartbeat(engine, "ann", lease=0.2)
    real = jobs.beat
    assert before is not None

    def counted(*words: Any, **named: Any) -> set[int]:
        found = real(*words, **{**named, "lease": worker_like()})
        beats.set()
        return found

    def worker_like() -> Any:
        from datetime import timedelta

        return timedelta(hours=1)

    from clipstudy import heartbeat

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


def test_an_attempts_log_is_its_own() -> None:
    import logging

    logger = logging.getLogger("clipstudy.something")
    logger.setLevel("INFO")
    with attempt.captured() as text:
        logger.info("inside")
    logger.info("outside")
    assert "inside" in text.getvalue() and "outside" not in text.getvalue()
