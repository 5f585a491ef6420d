from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from clipstudy.dashboard.pages import queue
from clipstudy.errors import NoSuchJob
from clipstudy.job import FailureKind, Selection, Status
from clipstudy.queue import dialect, jobs, outbox
from tests.queue.samples import (
    ALL,
    LEASE,
    cells,
    claim,
    come_due,
    expire,
    fail,
    group,
    hand_over,
    one_of_each,
    record_all,
    statuses,
)

Q, R, D, F, C = Status.QUEUED, Status.RUNNING, Status.DONE, Status.FAILED, Status.CANCELLED


def test_cancel_takes_what_is_queued_and_what_runs(engine: Engine) -> None:
    found = one_of_each(engine)
    assert jobs.cancel(engine, ALL) == 2
    assert jobs.get(engine, found[Q].id).status is jobs.get(engine, found[R].id).status is C
    assert jobs.beat(engine, "ann", [found[R]], lease=LEASE) == set()
    assert hand_over(engine, found[R]) is False
    assert jobs.get(engine, found[R].id).ended_at is not None


def test_cancel_can_let_what_runs_finish(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    running = claim(engine, layers_per_batch=1)
    assert jobs.cancel(engine, ALL, running=False) == 3
    assert statuses(engine, *running.jobs) == [Status.RUNNING]


def test_cancel_reaches_what_runs_under_older_settings(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    claim(engine)
    jobs.enqueue(engine, [(group(epochs=9), (0,))])
    assert jobs.cancel(engine, ALL) == 2
    assert statuses(engine) == [C, C]


def test_of_a_selection_the_rows_that_are_named_alone(engine: Engine) -> None:
    """What is ticked on the queue's page: the same layer under other settings is another row."""
    jobs.enqueue(engine, [(group(), (0,))])
    (older,) = claim(engine).jobs
    jobs.enqueue(engine, [(group(epochs=9), (0, 1))])
    newer, other = (job for job in jobs.rows(engine, newest_only=False) if job.id != older.id)
    assert queue.act(engine, "cancel", [newer.id, "x", True, -1]) == "1 cell cancelled."
    assert statuses(engine, older, newer, other) == [R, C, Q]
    assert queue.act(engine, "retry", [newer.id, other.id]) == "1 cell queued again; 1 were in another state."
    assert statuses(engine, older, newer, other) == [R, Q, Q]
    assert queue.act(engine, "retry", ["x"]) == "No cell is chosen. Tick some in the table."
    assert jobs.cancel(engine, Selection(models=("nothing",)), ids=[newer.id]) == jobs.cancel(engine, ALL, ids=[]) == 0


def test_a_selection_takes_patterns_layers_and_a_study(engine: Engine) -> None:
    plan = cells(group("bert-base"), group("bert-large"), group("gpt2", "wc"), group("bert-base", study="other"))
    jobs.enqueue(engine, plan)

    def names(selection: Selection) -> set[tuple[str, str, int]]:
        return {(job.model, job.study, job.layer) for job in jobs.rows(engine, selection)}

    bert = Selection(models=("bert-*",), layers=(1, 9), study="probing")
    assert names(bert) == {("bert-base", "probing", 1), ("bert-large", "probing", 1)}
    assert jobs.cancel(engine, bert) == 2
    assert jobs.cancel(engine, Selection(tasks=("nothing",))) == 0
    assert jobs.cancel(engine, Selection(tasks=("w?",))) == 4
    assert statuses(engine).count(C) == 6


def test_retry_takes_what_was_asked_for_and_gives_all_tries(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group(blocks=4)), max_tries=1)
    failed, lost, done, cancelled, _ = claim(engine).jobs
    fail(engine, failed)
    expire(engine, [lost])
    jobs.requeue_expired(engine)
    hand_over(engine, done)
    record_all(engine)
    jobs.cancel(engine, Selection(layers=(cancelled.layer,)))
    assert statuses(engine) == [F, F, D, C, R]
    assert jobs.retry(engine, ALL, failed=False) == 0
    assert jobs.retry(engine, ALL) == 1
    assert statuses(engine) == [Q, F, D, C, R]
    assert jobs.retry(engine, ALL, lost=True) == 1
    assert jobs.retry(engine, Selection(models=("gpt2",)), cancelled=True) == 0
    assert jobs.retry(engine, ALL, failed=False, cancelled=True) == 1
    assert statuses(engine) == [Q, Q, D, Q, R]
    rows = jobs.rows(engine)
    assert [(job.tries, job.attempt, job.ended_at) for job in rows[:2]] == [(0, 1, None), (0, 1, None)]
    assert rows[1].failure is FailureKind.LOST and [claim(engine).layers for _ in range(2)] == [(0, 3), (1,)]


def test_retry_and_rerun_leave_older_settings_alone(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group(blocks=1)))
    done, failed = claim(engine).jobs
    hand_over(engine, done)
    record_all(engine)
    jobs.enqueue(engine, cells(group(blocks=1, epochs=9)))
    fail(engine, failed, retry=False)
    assert jobs.retry(engine, ALL, lost=True, cancelled=True) == jobs.rerun(engine, ALL) == 0
    assert statuses(engine)[:2] == [D, F]


def test_priority_moves_what_waits(engine: Engine) -> None:
    found = one_of_each(engine)
    assert jobs.set_priority(engine, ALL, -3) == 2
    changed = {status for status, job in found.items() if jobs.get(engine, job.id).priority == -3}
    assert changed == {Q, R}


def test_no_such_job_says_what_there_is(engine: Engine) -> None:
    with pytest.raises(NoSuchJob, match=r"no job 7\. The table is empty"):
        jobs.get(engine, 7)
    jobs.enqueue(engine, cells(group()))
    first, *_, last = jobs.rows(engine)
    with pytest.raises(NoSuchJob, match=rf"from {first.id} to {last.id}\. `clipstudy status --rows`"):
        jobs.get(engine, 99999)
    with pytest.raises(NoSuchJob, match="no group 0"):
        jobs.group_of(engine, 0)


def test_rows_can_be_narrowed(engine: Engine) -> None:
    one_of_each(engine)
    assert len(jobs.rows(engine)) == 6 and len(jobs.rows(engine, newest_only=False)) == 7
    assert {job.status for job in jobs.rows(engine, statuses=[Q, D])} == {Q, D}
    assert jobs.rows(engine, statuses=[]) == []
    ids = [job.id for job in jobs.rows(engine)]
    assert ids == sorted(ids) and [job.id for job in jobs.rows(engine, limit=2)] == ids[:2]


def test_counts(engine: Engine) -> None:
    one_of_each(engine)
    jobs.enqueue(engine, cells(group("gpt2")))
    ones = {status: 1 for status in Status if status is not Status.SUPERSEDED}
    assert jobs.counts(engine) == {("probing", "bert", "depth"): ones, ("probing", "gpt2", "depth"): {Q: 4}}
    assert jobs.counts(engine, Selection(models=("bert",)), newest_only=False) == {
        ("probing", "bert", "depth"): {**ones, Status.SUPERSEDED: 1}
    }
    assert jobs.totals(engine) == {**ones, Status.SUPERSEDED: 1, Q: 5}


def test_studies_are_counted_apart(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group(), group(study="other", blocks=1)))
    assert jobs.counts(engine) == {("probing", "bert", "depth"): {Q: 4}, ("other", "bert", "depth"): {Q: 2}}
    assert jobs.counts(engine, Selection(study="other")) == {("other", "bert", "depth"): {Q: 2}}
    assert jobs.names(engine) == {("probing", "bert", "depth"), ("other", "bert", "depth")}


def test_totals_of_nothing(engine: Engine) -> None:
    assert jobs.totals(engine) == dict.fromkeys(Status, 0)
    assert jobs.throughput(engine).per_hour == 0 and jobs.throughput(engine).time_left is None


def test_throughput_counts_what_was_computed_lately(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group(blocks=4)))
    first, second, *_ = claim(engine, layers_per_batch=3).jobs
    hand_over(engine, first)
    record_all(engine)
    hand_over(engine, second)
    now = jobs.throughput(engine)
    assert (now.done, now.left) == (2, 3) and 0 < now.seconds < 60
    assert now.time_left is not None
    assert now.time_left.total_seconds() == pytest.approx(1.5 * now.seconds, abs=1e-3)
    assert jobs.throughput(engine, window=timedelta(seconds=-1)).done == 0
    part = jobs.throughput(engine, Selection(layers=(1, 2, 3)))
    assert (part.done, part.left) == (1, 2)


def test_the_first_batch_pins_what_it_resolved(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    batch = claim(engine, layers_per_batch=1)
    assert jobs.pin(engine, batch.group_id, {"data": "1", "checkpoint": "a"}) == {"checkpoint": "a", "data": "1"}
    assert jobs.pin(engine, batch.group_id, {"data": "2"}) == {"checkpoint": "a", "data": "1"}
    assert claim(engine).resolved == '{"checkpoint": "a", "data": "1"}'


def test_an_attempt_that_is_no_longer_held_pins_nothing(engine: Engine) -> None:
    """It slept while its group was given up, the data changed, and the group was queued again."""
    jobs.enqueue(engine, cells(group()))
    sleeper = claim(engine, "ann")
    jobs.cancel(engine, Selection())
    jobs.retry(engine, Selection(), cancelled=True)
    assert jobs.pin(engine, sleeper.group_id, {"data": "old"}, sleeper.jobs) is None
    batch = claim(engine, "bob")
    assert jobs.pin(engine, batch.group_id, {"data": "new"}, batch.jobs) == {"data": "new"}
    assert jobs.pin(engine, sleeper.group_id, {"data": "old"}, sleeper.jobs) is None


PIN = {"data": "1"}


def test_a_group_that_has_nothing_to_show_begins_anew(engine: Engine) -> None:
    """Asked for once more, by whichever verb; but never while a row stands that reckons with what was resolved."""
    plan = cells(group(blocks=1))
    jobs.enqueue(engine, plan)
    first, second = claim(engine).jobs

    def pinned() -> bool:
        return jobs.group_of(engine, first.group_id)[1] is not None

    jobs.pin(engine, first.group_id, PIN)
    fail(engine, first, retry=False)
    jobs.enqueue(engine, plan)
    assert jobs.retry(engine, ALL) == 1 and pinned()  # the other one runs
    fail(engine, second, retry=False)
    assert jobs.retry(engine, Selection(models=("gpt2",))) == 0 and pinned()
    assert jobs.retry(engine, ALL) == 1 and not pinned()
    jobs.pin(engine, first.group_id, PIN)
    assert jobs.retry(engine, ALL) == 0 and pinned()  # nothing was asked for
    jobs.enqueue(engine, plan)
    assert not pinned()
    jobs.pin(engine, first.group_id, PIN)
    done, failed = claim(engine).jobs
    hand_over(engine, done)
    fail(engine, failed, retry=False)
    assert jobs.rerun(engine, ALL) == 1 and pinned()  # computed, and about to be recorded
    record_all(engine)
    jobs.enqueue(engine, plan)
    assert jobs.rerun(engine, Selection(layers=(1,))) == 0 and pinned()
    with outbox.parent(engine, first.group_id) as parent:
        parent.run_id = "above"
    assert jobs.rerun(engine, ALL) == 1 and not pinned()
    assert jobs.group_of(engine, first.group_id)[2] == "above"
    assert jobs.pin(engine, first.group_id, {"data": "2"}) == {"data": "2"}
    assert jobs.group_of(engine, first.group_id)[2] is None  # so that the parent run is told


def test_the_silent_are_taken_for_dead(engine: Engine) -> None:
    for name in ("ann", "bob"):
        jobs.register(engine, jobs.WorkerInfo(name, "host", 1, "cpu"))
    with dialect.writing(engine) as connection:
        connection.exec_driver_sql("UPDATE workers SET heartbeat = heartbeat - 500 WHERE name = 'bob'")
    jobs.forget_silent(engine, 600)
    assert len(jobs.workers(engine)) == 2
    jobs.forget_silent(engine, 400)
    assert [w.name for w in jobs.workers(engine)] == ["ann"]
    assert jobs.beat_worker(engine, "bob") is False


def test_workers_come_beat_and_go(engine: Engine) -> None:
    jobs.register(engine, jobs.WorkerInfo("ann", "host1", 1, "cuda:0"))
    jobs.register(engine, jobs.WorkerInfo("bob", "host2", 2, "cpu", batch="bert · depth"))
    jobs.register(engine, jobs.WorkerInfo("ann", "host3", 3, "cuda:1"))
    assert jobs.beat_worker(engine, "ann", "gpt2 · wc") is True
    assert jobs.beat_worker(engine, "nobody") is False
    ann, bob = jobs.workers(engine)
    assert (ann.host, ann.pid, ann.device, ann.batch) == ("host3", 3, "cuda:1", "gpt2 · wc")
    assert ann.started_at is not None and ann.heartbeat is not None and ann.heartbeat >= ann.started_at
    assert bob.age is not None and 0 <= bob.age < 60 and ann.heartbeat <= dialect.now(engine)
    jobs.forget(engine, "ann")
    assert [w.name for w in jobs.workers(engine)] == ["bob"]


def test_a_full_life(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group(blocks=1)))
    first, second = claim(engine).jobs
    fail(engine, first)
    hand_over(engine, second)
    record_all(engine)
    come_due(engine)
    hand_over(engine, claim(engine).jobs[0])
    record_all(engine)
    assert statuses(engine) == [D, D] and all(job.run_id for job in jobs.rows(engine))
    assert {(job.failure, job.error) for job in jobs.rows(engine)} == {(None, None)}
