from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import IntegrityError

from clipstudy.errors import DatabaseBusy, DatabaseUnreachable
from clipstudy.job import Status
from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.queue import dialect, jobs, outbox
from clipstudy.queue.dialect import reading, writing
from clipstudy.queue.schema import outbox_files
from tests.queue.samples import (
    ALL,
    END,
    EXPIRED,
    LEASE,
    START,
    cells,
    claim,
    come_due,
    expire,
    fail,
    group,
    hand_over,
    outcome,
    record_all,
)


def files(engine: Engine) -> int:
    with reading(engine) as connection:
        return connection.scalar(select(func.count()).select_from(outbox_files)) or 0


def test_an_outcome_arrives_as_it_left(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    batch = claim(engine)
    jobs.pin(engine, batch.group_id, {"checkpoint": "abc"})
    plot, log = Artifact("plot.png", bytes(range(256))), Artifact("log.txt", b"")
    found = Outcome(
        2,
        {"accuracy": Estimate(0.1, 0.05, 0.2), "loss": Estimate(1e-17)},
        {"n": "1"},
        {"a": "1", "c": "ü\0"},
        (plot, log),
    )
    assert outbox.hand_over(engine, batch.jobs[2], found, started=START, ended=END)
    row = jobs.get(engine, batch.jobs[2].id)
    assert (row.status, row.worker, row.lease_until, row.run_id) == (Status.COMPUTED, "ann", None, None)
    (record,) = outbox.take(engine, "rec", lease=LEASE)
    assert record == outbox.Record(
        id=record.id,
        token=record.token,
        job=row,
        group=group(),
        resolved='{"checkpoint": "abc"}',
        parent_run_id=None,
        attempt=1,
        kind="finished",
        worker="ann",
        metrics=found.metrics,
        params={"n": "1"},
        tags={"a": "1", "c": "ü\0"},
        artifacts=(log, plot),
        started=START,
        ended=END,
        error=None,
        log=None,
        tries=0,
    )


def test_a_computed_row_becomes_done_with_its_run_once(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    (job,) = claim(engine).jobs
    outbox.hand_over(engine, job, outcome(0, Artifact("a", b"1")), started=START, ended=END)
    assert outbox.pending(engine) == files(engine) == 1
    (record,) = outbox.take(engine, "rec", lease=LEASE)
    assert outbox.recorded(engine, record, "run-1") is True
    assert outbox.recorded(engine, record, "run-2") is False
    row = jobs.get(engine, job.id)
    assert (row.status, row.run_id) == (Status.DONE, "run-1")
    assert outbox.pending(engine) == files(engine) == 0


def test_a_hand_over_told_twice_is_written_once(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    (job,) = claim(engine).jobs
    assert hand_over(engine, job) is hand_over(engine, job) is True
    assert fail(engine, job) is None
    assert len(record_all(engine)) == 1
    assert hand_over(engine, job) is True and outbox.pending(engine) == 0


def test_a_hand_over_is_all_or_nothing(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    (job,) = claim(engine).jobs
    twice = outcome(0, Artifact("a", b"1"), Artifact("a", b"2"))
    with pytest.raises(IntegrityError):
        outbox.hand_over(engine, job, twice, started=START, ended=END)
    assert jobs.get(engine, job.id).status is Status.RUNNING
    assert outbox.pending(engine) == files(engine) == 0


@pytest.mark.parametrize("bad", [outcome(1), Outcome(0, {"accuracy": Estimate(float("nan"))})])
def test_what_cannot_be_an_outcome_is_refused(engine: Engine, bad: Outcome) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    (job,) = claim(engine).jobs
    with pytest.raises(ValueError):
        outbox.hand_over(engine, job, bad, started=START, ended=END)
    assert jobs.get(engine, job.id).status is Status.RUNNING


def test_an_expired_lease_that_nobody_took_back_still_hands_over(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    (job,) = claim(engine, lease=EXPIRED).jobs
    assert hand_over(engine, job) is True
    assert jobs.requeue_expired(engine) == []


def test_records_are_taken_oldest_first_each_by_one(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b")))
    held = [*claim(engine).jobs, *claim(engine).jobs]
    for job in held:
        hand_over(engine, job)
    first, second = (outbox.take(engine, name, lease=LEASE, limit=3) for name in ("ann", "bob"))
    assert [record.job.id for record in (*first, *second)] == [job.id for job in held[:6]]
    of_b = outbox.take(engine, "cid", lease=LEASE, group_id=held[-1].group_id)
    assert [record.job.id for record in of_b] == [job.id for job in held[6:]]
    assert outbox.take(engine, "dan", lease=LEASE) == []


def test_a_recorder_that_slept_past_its_lease_can_end_nothing(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    (job,) = claim(engine).jobs
    hand_over(engine, job)
    (slept,) = outbox.take(engine, "rec", lease=EXPIRED)
    (awake,) = outbox.take(engine, "rec", lease=LEASE)  # even under the same name
    assert outbox.recorded(engine, slept, "run-s") is False
    outbox.give_back(engine, slept, "late")
    assert outbox.take(engine, "bob", lease=LEASE) == []
    assert outbox.recorded(engine, awake, "run-a") is True
    assert jobs.get(engine, job.id).run_id == "run-a"


def test_a_record_given_back_rests_and_returns(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    hand_over(engine, claim(engine).jobs[0])
    for tries in range(3):
        (record,) = outbox.take(engine, "rec", lease=LEASE)
        assert record.tries == tries
        outbox.give_back(engine, record, "MLflow is away \0")
        assert outbox.take(engine, "rec", lease=LEASE) == []
        come_due(engine)
    assert outbox.pending(engine) == 1 and jobs.rows(engine)[0].status is Status.COMPUTED
    assert (outbox.last_error(engine) or "").startswith("MLflow is away")


def test_a_lease_is_renewed_for_what_is_left_of_it(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group(blocks=1)))
    for job in claim(engine).jobs:
        hand_over(engine, job)
    assert outbox.last_error(engine) is None
    given_back, left = outbox.take(engine, "rec", lease=EXPIRED)
    outbox.give_back(engine, given_back, "refused")
    outbox.renew(engine, left.token, lease=LEASE)
    assert outbox.take(engine, "bob", lease=LEASE) == []
    come_due(engine)
    assert [record.id for record in outbox.take(engine, "bob", lease=LEASE)] == [given_back.id]
    assert outbox.recorded(engine, left, "run") is True


def test_what_is_put_off_rests_a_moment_and_was_not_tried(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    for job in claim(engine).jobs:
        hand_over(engine, job)
    records = outbox.take(engine, "ann", lease=LEASE)
    outbox.put_off(engine, records[:2])
    assert outbox.take(engine, "bob", lease=LEASE) == []
    come_due(engine)
    again = outbox.take(engine, "bob", lease=LEASE)
    assert [(record.id, record.tries, record.error) for record in again] == [(one.id, 0, None) for one in records[:2]]
    outbox.put_off(engine, records)  # ann's: bob has them now, and nobody took the others from her
    assert len(outbox.take(engine, "cid", lease=LEASE)) == 0
    come_due(engine)
    assert [record.id for record in outbox.take(engine, "cid", lease=LEASE)] == [one.id for one in records[2:]]


def test_what_is_let_go_is_anybodys_at_once(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    for job in claim(engine).jobs:
        hand_over(engine, job)
    ours, others = outbox.take(engine, "rec", lease=LEASE, limit=3), outbox.take(engine, "other", lease=LEASE)
    assert outbox.recorded(engine, ours[0], "run-1")
    outbox.let_go(engine, ours[0].token)
    again = outbox.take(engine, "next", lease=LEASE)
    assert [record.job.layer for record in again] == [1, 2]
    assert {record.tries for record in again} == {0}
    assert not outbox.recorded(engine, ours[1], "run-2")
    assert outbox.recorded(engine, others[0], "run-4")


def test_a_failed_run_marks_the_row_only_while_it_is_its_last_word(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group(blocks=2)))
    settled, waiting, gone_on = claim(engine).jobs
    fail(engine, gone_on)
    come_due(engine)
    (again,) = claim(engine).jobs
    fail(engine, settled, retry=False)
    fail(engine, waiting)
    fail(engine, again, retry=False)
    records = outbox.take(engine, "rec", lease=LEASE)
    assert [(record.kind, record.job.layer, record.attempt) for record in records] == [
        ("failed", 2, 1),
        ("failed", 0, 1),
        ("failed", 1, 1),
        ("failed", 2, 2),
    ]
    assert outbox.recorded(engine, records[0], "earlier") and jobs.get(engine, again.id).run_id is None
    for record in records[1:]:
        assert outbox.recorded(engine, record, f"run-{record.job.layer}-{record.attempt}")
    # The one that is tried again points to its failed run meanwhile: that is where its log is.
    assert [job.run_id for job in jobs.rows(engine)] == ["run-0-1", "run-1-1", "run-2-2"]
    assert [job.status for job in jobs.rows(engine)] == [Status.FAILED, Status.QUEUED, Status.FAILED]


def test_a_rerun_keeps_the_old_run_until_the_new_one_is_there(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    hand_over(engine, claim(engine).jobs[0])
    record_all(engine)
    (old,) = (job.run_id for job in jobs.rows(engine))
    assert jobs.rerun(engine, ALL) == 1
    (job,) = claim(engine).jobs
    assert (job.run_id, job.attempt) == (old, 2)
    hand_over(engine, job)
    (record,) = outbox.take(engine, "rec", lease=LEASE)
    assert record.job.run_id == old
    outbox.recorded(engine, record, "new")
    assert jobs.get(engine, job.id).run_id == "new"


def test_the_log_is_at_hand_until_it_is_recorded(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group(blocks=2)))
    failed, finished, running = claim(engine).jobs
    fail(engine, failed)
    outbox.hand_over(engine, finished, outcome(1, Artifact("log.txt", "läuft".encode())), started=START, ended=END)
    assert [outbox.log_of(engine, job) for job in (failed, finished, running)] == ["Traceback …", "läuft", None]
    assert outbox.log_of(engine, replace(failed, attempt=2)) is None
    record_all(engine)
    assert outbox.log_of(engine, finished) is None


def test_the_parent_run_is_set_at_the_end_or_not_at_all(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    group_id = jobs.rows(engine)[0].group_id
    with pytest.raises(RuntimeError), outbox.parent(engine, group_id) as held:
        held.run_id = "half"
        raise RuntimeError
    with outbox.parent(engine, group_id) as held:
        assert held.run_id is None
        held.run_id = "whole"
    assert jobs.group_of(engine, group_id) == (group(), None, "whole")


def test_a_parent_run_without_what_was_resolved_meanwhile_is_not_the_groups(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    group_id = jobs.rows(engine)[0].group_id
    with outbox.parent(engine, group_id) as held:
        assert held.resolved is None
        jobs.pin(engine, group_id, {"checkpoint": "abc"})
        held.run_id = "of a batch that failed before it resolved anything"
    with outbox.parent(engine, group_id) as held:
        assert (held.run_id, held.resolved) == (None, '{"checkpoint": "abc"}')
        held.run_id = "whole"
    assert jobs.group_of(engine, group_id)[2] == "whole"


def test_of_many_recorders_one_makes_the_parent_run(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    group_id = jobs.rows(engine)[0].group_id
    start, made = Barrier(6), itertools.count()

    def find_or_create(_: int) -> str:
        start.wait()
        with outbox.parent(engine, group_id) as held:
            if held.run_id is None:
                held.run_id = f"parent-{next(made)}"
            return str(held.run_id)

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(find_or_create, range(6))) == {"parent-0"}


def test_a_parent_run_that_is_held_is_nobody_elses(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "_ALONE_WAIT_S", 0.05)
    jobs.enqueue(engine, cells(group("a"), group("b")))
    one, other = sorted({job.group_id for job in jobs.rows(engine)})
    with outbox.parent(engine, one):
        with pytest.raises(DatabaseBusy, match="is busy"), outbox.parent(engine, one):
            pass
        if engine.dialect.name == "postgresql":
            with outbox.parent(engine, other) as held:
                assert held.run_id is None


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgres"])
def test_a_parent_run_is_held_while_a_tracking_server_takes_its_time(
    engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than the server lets a transaction be idle that holds rows."""
    monkeypatch.setattr(dialect, "_IDLE_IN_TRANSACTION_S", 1)
    monkeypatch.setattr(dialect, "_ALONE_WAIT_S", 0.05)
    slow = dialect.connect(url)
    jobs.enqueue(engine, cells(group()))
    group_id = jobs.rows(engine)[0].group_id
    with outbox.parent(slow, group_id) as held:
        with pytest.raises(DatabaseUnreachable), writing(slow) as other:  # one that is idle for as long is ended
            process, until = other.scalar(text("SELECT pg_backend_pid()")), time.monotonic() + 60
            while time.monotonic() < until:
                with reading(engine) as connection:
                    if (
                        connection.scalar(text("SELECT pid FROM pg_stat_activity WHERE pid = :p"), {"p": process})
                        is None
                    ):
                        break
                time.sleep(0.1)
        with pytest.raises(DatabaseBusy, match="is busy"), outbox.parent(slow, group_id):
            pass
        held.run_id = "parent"
    assert jobs.group_of(engine, group_id)[2] == "parent"
    slow.dispose()


def test_a_slow_tracking_server_holds_up_no_worker(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    batch = claim(engine)
    hand_over(engine, batch.jobs[0])
    with outbox.parent(engine, batch.group_id):
        assert jobs.beat(engine, "ann", batch.jobs, lease=LEASE) == {job.id for job in batch.jobs[1:]}
        assert hand_over(engine, batch.jobs[1])
        assert fail(engine, batch.jobs[2]) is Status.QUEUED
        assert jobs.release(engine, [batch.jobs[3]]) == 1
        assert claim(engine, "bob").layers == (3,)
        assert len(record_all(engine)) == 3


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgres"])
def test_taking_records_waits_for_nobody(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    for job in claim(engine).jobs:
        hand_over(engine, job)
    with writing(engine) as stopped:
        stopped.execute(select(outbox.table.c.id).order_by(outbox.table.c.id).limit(2).with_for_update())
        assert [record.job.layer for record in outbox.take(engine, "rec", lease=LEASE)] == [2, 3]


def test_times_of_a_failed_attempt_are_the_databases(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    before = dialect.now(engine)
    (job,) = claim(engine).jobs
    expire(engine, [job])
    fail(engine, job)
    (record,) = record_all(engine)
    assert before <= record.started <= record.ended <= dialect.now(engine)
