from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import Engine, select, text, update
from sqlalchemy.engine import Connection

from clipstudy.job import Failure, FailureKind, Selection, Status
from clipstudy.queue import claims, dialect, jobs, outbox, retries
from clipstudy.queue.dialect import writing
from clipstudy.queue.schema import jobs as table
from tests.queue.samples import (
    ALL,
    EXPIRED,
    LEASE,
    cells,
    claim,
    come_due,
    expire,
    fail,
    group,
    hand_over,
    queued_in_older_groups,
    record_all,
    statuses,
)

INFRA, CODE, LOST = FailureKind.INFRA, FailureKind.CODE, FailureKind.LOST


def test_one_claim_takes_all_siblings(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    before = dialect.now(engine)
    batch = claim(engine, "ann")
    assert batch.layers == (0, 1, 2, 3) and batch.group == group("bert") and batch.resolved is None
    for job in batch.jobs:
        assert (job.status, job.worker, job.attempt, job.tries) == (Status.RUNNING, "ann", 1, 1)
        assert job.lease_until is not None and before + LEASE <= job.lease_until
        assert job.lease_until <= dialect.now(engine) + LEASE and job.started_at == job.lease_until - LEASE
        assert jobs.get(engine, job.id) == job
    assert claim(engine, "bob").group.model.name == "gpt2"
    assert jobs.claim(engine, "cid", lease=LEASE) is None


def test_the_oldest_first_the_higher_priority_before(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b"), group("c")))
    jobs.set_priority(engine, Selection(models=("c",)), 1)
    assert [claim(engine).group.model.name for _ in range(3)] == ["c", "a", "b"]


def test_a_group_ranks_by_its_highest_ready_row_and_stays_whole(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b")))
    jobs.set_priority(engine, Selection(models=("b",), layers=(2,)), 9)
    batch = claim(engine)
    assert batch.group.model.name == "b" and len(batch.jobs) == 4


def test_the_model_in_memory_breaks_ties_only(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b", "wc"), group("b", "tense"), group("c")))
    assert claim(engine, prefer_model="b").group.task.name == "wc"
    jobs.set_priority(engine, Selection(models=("c",)), 1)
    assert claim(engine, prefer_model="b").group.model.name == "c"
    assert claim(engine, prefer_model="b").group.task.name == "tense"
    assert claim(engine, prefer_model="b").group.model.name == "a"


def test_a_worker_of_one_study_leaves_the_others_alone(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a", study="one"), group("b", study="two"), group("a", "wc", study="two")))
    jobs.set_priority(engine, Selection(study="one"), 9)
    assert claim(engine, study="two", prefer_model="a").group.task.name == "wc"
    assert claim(engine, study="two").group.model.name == "b"
    assert jobs.claim(engine, "bob", lease=LEASE, study="two") is None
    assert jobs.totals(engine, "two")[Status.QUEUED] == 0 and jobs.totals(engine)[Status.QUEUED] == 4
    assert claim(engine).group.study == "one"


def test_a_cap_takes_the_lowest_layers_and_leaves_the_rest(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(blocks=4), (3, 4))])
    jobs.enqueue(engine, cells(group(blocks=4)))
    got = [claim(engine, worker, layers_per_batch=2).layers for worker in ("ann", "bob", "cid")]
    assert got == [(0, 1), (2, 3), (4,)]


def test_a_sibling_that_backs_off_does_not_hold_its_group(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    first, *others = claim(engine).jobs
    fail(engine, first)
    jobs.release(engine, others)
    assert claim(engine).layers == (1, 2, 3)
    assert jobs.claim(engine, "bob", lease=LEASE) is None
    come_due(engine)
    assert claim(engine, "bob").layers == (0,)


def test_a_row_that_was_lost_is_claimed_alone(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    batch = claim(engine, layers_per_batch=2)
    expire(engine, batch.jobs)
    jobs.requeue_expired(engine)
    come_due(engine)
    alone = [claim(engine).layers for _ in range(3)]
    assert sorted(alone) == [(0,), (1,), (2, 3)]
    assert jobs.claim(engine, "bob", lease=LEASE) is None


def test_a_lost_row_that_is_given_back_is_still_claimed_alone(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    expire(engine, claim(engine, layers_per_batch=1).jobs)
    jobs.requeue_expired(engine)
    come_due(engine)
    jobs.release(engine, claim(engine).jobs)
    assert claim(engine).layers == (0,)


def test_a_claim_that_is_rolled_back_claims_nothing(engine: Engine) -> None:
    # pysqlite by itself opens no transaction for a statement that begins with WITH, and commits it at once.
    jobs.enqueue(engine, cells(group()))
    with pytest.raises(RuntimeError), writing(engine) as connection:
        rows = connection.execute(claims.claim_statement("ann", LEASE)).all()
        assert len(rows) == 4
        raise RuntimeError
    assert {(job.status, job.attempt) for job in jobs.rows(engine)} == {(Status.QUEUED, 0)}


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgres"])
def test_a_claim_waits_for_nobody(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b")))
    with writing(engine) as stopped:
        stopped.execute(claims.claim_statement("stopped", LEASE))
        assert claim(engine, "ann").group.model.name == "b"
        assert jobs.claim(engine, "bob", lease=LEASE) is None  # not a part of the group that is being claimed
        stopped.rollback()
        assert claim(engine, "bob").group.model.name == "a"


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgres"])
def test_a_sibling_that_somebody_holds_is_left_out(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    with writing(engine) as stopped:
        stopped.execute(select(table.c.id).where(table.c.layer == 2).with_for_update())
        assert claim(engine).layers == (0, 1, 3)


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgres"])
def test_siblings_need_not_wait_for_the_claim_of_a_lost_row(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    expire(engine, claim(engine, layers_per_batch=1).jobs)
    jobs.requeue_expired(engine)
    come_due(engine)
    with writing(engine) as stopped:
        assert [row.layer for row in stopped.execute(claims.claim_statement("stopped", LEASE))] == [0]
        assert claim(engine, "ann").layers == (1, 2, 3)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_reading_and_idle_polls_take_no_write_lock(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with writing(engine):  # holds the write lock; whoever wants it would wait for half a minute, then raise
        assert jobs.claim(engine, "ann", lease=LEASE) is None
        assert jobs.requeue_expired(engine) == []
        assert outbox.take(engine, "rec", lease=LEASE) == []
        assert jobs.enqueue(engine, cells(group()), dry_run=True).new == 4
        assert jobs.rows(engine) == [] and jobs.counts(engine) == {} and outbox.pending(engine) == 0


def test_a_beat_renews_what_is_ours_and_says_what_is_not(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    kept, cancelled, failed, lost = claim(engine, lease=timedelta(seconds=30)).jobs
    jobs.cancel(engine, Selection(layers=(cancelled.layer,)))
    fail(engine, failed)
    expire(engine, [lost])
    jobs.requeue_expired(engine)
    assert jobs.beat(engine, "ann", (kept, cancelled, failed, lost), lease=LEASE) == {kept.id}
    until = jobs.get(engine, kept.id).lease_until
    assert until is not None and until > dialect.now(engine) + LEASE - timedelta(seconds=20)
    assert jobs.beat(engine, "bob", (kept,), lease=LEASE) == set()
    assert jobs.beat(engine, "ann", (), lease=LEASE) == set()


def test_a_failure_is_tried_again_later_until_its_tries_are_spent(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))], max_tries=3)
    for attempt, then in ((1, Status.QUEUED), (2, Status.QUEUED), (3, Status.FAILED)):
        come_due(engine)
        job = claim(engine).jobs[0]
        assert fail(engine, job) is then
        row = jobs.get(engine, job.id)
        assert (row.attempt, row.tries, row.failure, row.error) == (attempt, attempt, CODE, "broke")
        assert (row.run_after is not None and row.run_after > dialect.now(engine)) is (then is Status.QUEUED)
    assert row.ended_at is not None and row.worker == "ann"
    records = record_all(engine)
    assert [(r.attempt, r.kind, r.error, r.log) for r in records] == [
        (n, "failed", "broke", "Traceback …") for n in (1, 2, 3)
    ]
    assert all(r.started <= r.ended for r in records)
    assert jobs.get(engine, job.id).run_id == f"run-{job.id}-3"


def test_a_failure_that_no_retry_can_help_fails_at_once(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    assert fail(engine, claim(engine).jobs[0], INFRA, retry=False) is Status.FAILED


def test_what_was_not_the_jobs_fault_costs_no_try_up_to_a_bound(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FREE_SETBACKS", 4)
    jobs.enqueue(engine, [(group(), (0,))], max_tries=2)
    seen = []
    while not seen or seen[-1][0] is Status.QUEUED:
        come_due(engine)
        job = claim(engine).jobs[0]
        seen.append((fail(engine, job, INFRA), jobs.get(engine, job.id).tries))
    assert seen == [*[(Status.QUEUED, 0)] * 4, (Status.QUEUED, 1), (Status.FAILED, 2)]
    assert jobs.retry(engine, ALL) == 1
    assert fail(engine, claim(engine).jobs[0], INFRA) is Status.QUEUED
    assert jobs.rows(engine)[0].tries == 0


def test_siblings_that_fail_together_come_back_together(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group(blocks=7)))
    for job in claim(engine).jobs:
        fail(engine, job, INFRA)
    due = {job.run_after for job in jobs.rows(engine)}
    assert len(due) <= 2  # two only if a stroke fell between the first and the last


def test_a_failure_told_twice_is_written_once(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    job = claim(engine).jobs[0]
    assert fail(engine, job) is Status.QUEUED
    assert fail(engine, job) is Status.QUEUED
    assert outbox.pending(engine) == 1
    assert hand_over(engine, job) is False


def test_any_text_can_be_an_error(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    jobs.fail(engine, claim(engine).jobs[0], Failure(CODE, "nul \0", "lone \ud800 \0"))
    (record,) = record_all(engine)
    assert record.error == "nul ␀" and record.log == "lone ? ␀"


def test_a_release_gives_the_try_back_and_keeps_the_attempt(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    batch = claim(engine)
    jobs.cancel(engine, Selection(layers=(3,)))
    assert jobs.release(engine, batch.jobs) == 3
    assert jobs.release(engine, batch.jobs) == 0
    row = jobs.get(engine, batch.jobs[0].id)
    assert (row.status, row.attempt, row.tries, row.worker, row.run_after) == (Status.QUEUED, 1, 0, None, None)
    assert claim(engine, "bob").jobs[0].attempt == 2
    assert jobs.release(engine, ()) == 0


def test_claims_whose_answer_never_came_are_disowned(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b"), group("c")))
    known, _unknown, others = claim(engine, "ann"), claim(engine, "ann"), claim(engine, "bob")
    assert jobs.disown(engine, "ann", keep=known.jobs) == 4
    assert [job.status for job in jobs.rows(engine, Selection(models=("b",)))] == [Status.QUEUED] * 4
    assert jobs.disown(engine, "ann") == 4
    assert statuses(engine, *others.jobs) == [Status.RUNNING] * 4


def test_rows_of_vanished_workers_go_back(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b")))
    gone, alive = claim(engine, "gone"), claim(engine, "alive")
    expire(engine, gone.jobs)
    taken = jobs.requeue_expired(engine)
    assert [(job.id, job.status, job.attempt, job.worker) for job in taken] == [
        (job.id, Status.QUEUED, 1, "gone") for job in gone.jobs
    ]
    row = jobs.get(engine, gone.jobs[0].id)
    assert (row.failure, row.tries, row.worker) == (LOST, 1, None) and "gone vanished" in str(row.error)
    assert row.run_after is not None and row.run_after > dialect.now(engine)
    assert statuses(engine, *alive.jobs) == [Status.RUNNING] * 4
    assert jobs.requeue_expired(engine) == [] and outbox.pending(engine) == 0


def test_a_row_lost_too_often_fails_and_is_recorded(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))], max_tries=2)
    for then in (Status.QUEUED, Status.FAILED):
        come_due(engine)
        expire(engine, claim(engine, "gone").jobs)
        (job,) = jobs.requeue_expired(engine)
        assert job.status is then
    (record,) = record_all(engine)
    assert (record.kind, record.attempt, record.worker) == ("failed", 2, "gone")
    assert jobs.get(engine, job.id).run_id == f"run-{job.id}-2"


def test_many_take_back_the_same_rows_once(engine: Engine) -> None:
    jobs.enqueue(engine, cells(*(group(f"m{i}") for i in range(5))))
    for _ in range(5):
        claim(engine, "gone", lease=EXPIRED)
    start = Barrier(4)

    def take_back(_: int) -> list[int]:
        start.wait()
        return [job.id for job in jobs.requeue_expired(engine)]

    with ThreadPoolExecutor(4) as pool:
        taken = [job_id for ids in pool.map(take_back, range(4)) for job_id in ids]
    taken += [job.id for job in jobs.requeue_expired(engine)]
    assert sorted(taken) == [job.id for job in jobs.rows(engine)]


def amid(monkeypatch: pytest.MonkeyPatch, act: Callable[[Connection], object]) -> None:
    """``act`` happens between the look for groups whose rows go back to the queue and the look for those rows."""
    asked = claims.older_among

    def then_act(connection: Connection, group_ids: Iterable[int]) -> set[int]:
        found = asked(connection, group_ids)
        act(connection)
        return found

    monkeypatch.setattr(claims, "older_among", then_act)


def test_a_lease_that_ends_while_others_are_taken_back_is_the_next_calls(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b")))
    gone, late = claim(engine, "gone", lease=EXPIRED), claim(engine, "late")
    with monkeypatch.context() as patch:
        patch.setattr(claims, "_LOST_AT_ONCE", 6)
        amid(patch, lambda c: c.execute(update(table).where(table.c.worker == "late").values(lease_until=0)))
        assert [(job.id, job.status) for job in jobs.requeue_expired(engine)] == [
            (job.id, Status.QUEUED) for job in gone.jobs
        ]
    assert [job.status for job in jobs.requeue_expired(engine)] == [Status.QUEUED] * 4
    assert statuses(engine, *gone.jobs, *late.jobs) == [Status.QUEUED] * 8


def test_a_claim_that_arrives_while_others_are_disowned_is_not_touched(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b")))
    early = claim(engine, "ann")
    amid(monkeypatch, lambda c: c.execute(claims.claim_statement("ann", LEASE)).all())
    assert jobs.disown(engine, "ann") == 4
    assert statuses(engine, *early.jobs) == [Status.QUEUED] * 4
    assert [job.status for job in jobs.rows(engine, Selection(models=("b",)))] == [Status.RUNNING] * 4


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgres"])
def test_rows_that_another_is_taking_back_are_passed_by(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """More leases ended than one call takes, and two call."""
    monkeypatch.setattr(claims, "_LOST_AT_ONCE", 4)
    jobs.enqueue(engine, cells(group("a"), group("b")))
    first, second = claim(engine, "gone", lease=EXPIRED), claim(engine, "gone", lease=EXPIRED)
    with writing(engine) as another:
        another.execute(select(table.c.id).where(table.c.group_id == first.group_id).with_for_update())
        jobs.requeue_expired(engine)
    jobs.requeue_expired(engine)
    jobs.requeue_expired(engine)
    assert statuses(engine, *first.jobs, *second.jobs) == [Status.QUEUED] * 8


def test_of_a_dead_worker_all_is_taken_back_and_of_others_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many leases ended before its own."""
    monkeypatch.setattr(claims, "_LOST_AT_ONCE", 3)
    jobs.enqueue(engine, cells(group("a"), group("b"), group("c")))
    silent, dead, alive = claim(engine, "silent", lease=EXPIRED), claim(engine, "dead"), claim(engine, "alive")
    assert [(job.id, job.worker, job.failure) for job in jobs.bury(engine, "dead")] == [
        (job.id, "dead", LOST) for job in dead.jobs
    ]
    assert statuses(engine, *dead.jobs) == [Status.QUEUED] * 4
    assert statuses(engine, *silent.jobs, *alive.jobs) == [Status.RUNNING] * 8
    assert jobs.bury(engine, "dead") == []


def test_how_what_a_worker_had_ended(engine: Engine) -> None:
    hour = timedelta(hours=1)
    jobs.enqueue(engine, cells(group()), max_tries=1)
    done, failed, *_ = claim(engine, "ann").jobs
    assert jobs.ended_by(engine, "ann", hour) == set()
    fail(engine, failed, retry=False)
    assert jobs.ended_by(engine, "ann", hour) == {Status.FAILED}
    hand_over(engine, done)
    assert jobs.ended_by(engine, "ann", hour) == {Status.FAILED, Status.COMPUTED}
    assert jobs.ended_by(engine, "bob", LEASE) == set()
    record_all(engine)
    assert jobs.ended_by(engine, "ann", hour) == {Status.FAILED, Status.DONE}


def test_what_a_worker_lost_for_good_ended_with_it(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()), max_tries=1)
    claim(engine, "ann")
    jobs.bury(engine, "ann")
    assert jobs.ended_by(engine, "ann", LEASE) == {Status.FAILED}


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgres"])
def test_a_server_that_was_down_leaves_time_to_renew(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    (job,) = claim(engine, lease=EXPIRED).jobs
    with writing(engine) as connection:  # as if the server had restarted since
        connection.execute(update(table).values(leased_at=text("extract(epoch FROM pg_postmaster_start_time()) - 1")))
    assert jobs.requeue_expired(engine, grace=timedelta(days=1)) == []
    assert jobs.beat(engine, "ann", [job], lease=EXPIRED) == {job.id}
    assert len(jobs.requeue_expired(engine, grace=timedelta(days=1))) == 1


def test_nothing_of_a_lost_lease_is_written(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    (zombie,) = claim(engine, "zombie", lease=EXPIRED).jobs
    jobs.requeue_expired(engine)
    for stage in ("queued", "running again", "computed", "done"):
        assert jobs.beat(engine, "zombie", [zombie], lease=LEASE) == set(), stage
        assert hand_over(engine, zombie) is False, stage
        assert fail(engine, zombie) is None, stage
        assert jobs.release(engine, [zombie]) == 0, stage
        match stage:
            case "queued":
                come_due(engine)
                assert outbox.pending(engine) == 0
                (job,) = claim(engine, "zombie").jobs  # even under the same name
            case "running again":
                assert outbox.pending(engine) == 0
                assert hand_over(engine, job)
            case "computed":
                assert [(r.attempt, r.kind) for r in record_all(engine)] == [(2, "finished")]
    assert jobs.get(engine, job.id).run_id == f"run-{job.id}-2"


@pytest.mark.parametrize("way", ["release", "disown", "fail", "expire"])
def test_what_goes_back_after_its_settings_changed_is_superseded(engine: Engine, way: str) -> None:
    jobs.enqueue(engine, [(group(), (0,))])
    (job,) = claim(engine).jobs
    jobs.enqueue(engine, [(group(epochs=9), (0,))])
    match way:
        case "release":
            assert jobs.release(engine, [job]) == 1
        case "disown":
            assert jobs.disown(engine, "ann") == 1
        case "fail":
            assert fail(engine, job) is Status.SUPERSEDED
        case "expire":
            expire(engine, [job])
            assert [j.status for j in jobs.requeue_expired(engine)] == [Status.SUPERSEDED]
    assert jobs.get(engine, job.id).status is Status.SUPERSEDED and queued_in_older_groups(engine) == 0


def test_enqueueing_and_giving_back_at_once_leaves_no_row_of_older_settings_queued(engine: Engine) -> None:
    versions = [cells(group("a", epochs=n), group("b", epochs=n)) for n in (4, 9)]
    jobs.enqueue(engine, versions[0])
    with ThreadPoolExecutor(3) as pool:
        for turn in range(1, 9):
            start = Barrier(3)
            held = [batch for batch in (jobs.claim(engine, "ann", lease=LEASE) for _ in range(2)) if batch]

            def give_back(batch: object, start: Barrier = start) -> None:
                start.wait()
                if batch is not None:
                    jobs.release(engine, batch.jobs)  # type: ignore[attr-defined]

            def enqueue(turn: int = turn, start: Barrier = start) -> None:
                start.wait()
                jobs.enqueue(engine, versions[turn % 2])

            work = [pool.submit(give_back, batch) for batch in [*held, None, None][:2]]
            for done in [*work, pool.submit(enqueue)]:
                done.result()
            assert queued_in_older_groups(engine) == 0
            assert {s for s in statuses(engine) if s is not Status.SUPERSEDED} == {Status.QUEUED}
