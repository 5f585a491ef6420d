"""Many real processes on one table."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import Engine, select, text

from clipstudy.job import Status
from clipstudy.queue import jobs, outbox
from clipstudy.queue.dialect import connect, writing
from clipstudy.queue.migration import check
from clipstudy.queue.schema import jobs as table
from tests.queue import processes
from tests.queue.samples import cells, claim, come_due, group, hand_over, record_all, statuses


@pytest.mark.parametrize("cap", [None, 2])
def test_every_row_is_done_once_and_no_group_is_split(engine: Engine, url: str, cap: int | None) -> None:
    plan = cells(*(group(f"m{i}", f"t{j}", blocks=4) for i in range(5) for j in range(8)))
    jobs.enqueue(engine, plan)
    told = processes.run_together(6, processes.work, url, cap)
    claimed = [row for rows in told for row in rows]
    assert len(claimed) == 200 and len({job for _, _, job, _ in claimed}) == 200
    assert {attempt for *_, attempt in claimed} == {1}
    batches = Counter(group_id for group_id, _ in {(group_id, batch) for group_id, batch, *_ in claimed})
    assert set(batches.values()) == {1 if cap is None else 3}
    rows = jobs.rows(engine)
    assert {(job.status, job.attempt, job.run_id == f"run-{job.id}-1") for job in rows} == {(Status.DONE, 1, True)}
    assert outbox.pending(engine) == 0
    assert sum(bool(rows) for rows in told) > 1  # or this tested nothing


def test_of_many_enqueuers_each_row_comes_from_one(engine: Engine, url: str) -> None:
    told = processes.run_together(3, processes.enqueue, url)
    assert sorted(told) == [(0, 400), (0, 400), (400, 0)]
    rows = jobs.rows(engine, newest_only=False)
    assert len(rows) == 400 and len({(job.model, job.task, job.layer) for job in rows}) == 400


def test_many_migrations_at_once(empty_url: str) -> None:
    processes.run_together(4, processes.migrate, empty_url)
    engine = connect(empty_url)
    check(engine)
    assert jobs.enqueue(engine, cells(group())).new == 4
    engine.dispose()


def test_what_a_killed_worker_held_is_done_by_others(engine: Engine, url: str) -> None:
    jobs.enqueue(engine, cells(group()))
    with processes.another(processes.claim_and_hang, url) as (process, pipe):
        held = pipe.recv()
        process.kill()
        process.join()
    assert len(held) == 4 and [job.id for job in jobs.requeue_expired(engine)] == held
    come_due(engine)
    for _ in held:
        (job,) = claim(engine, "ann").jobs
        assert hand_over(engine, job)
    record_all(engine)
    assert statuses(engine) == [Status.DONE] * 4


def test_a_kill_in_the_middle_of_a_claim_leaves_the_rows_queued(engine: Engine, url: str) -> None:
    jobs.enqueue(engine, cells(group()))
    with processes.another(processes.hang_in_a_claim, url) as (process, pipe):
        assert len(pipe.recv()) == 4
        assert statuses(engine) == [Status.QUEUED] * 4
        process.kill()
        process.join()
    with writing(engine) as connection:  # waits until the server has noticed
        connection.execute(select(table.c.id).order_by(table.c.id).with_for_update())
    assert claim(engine, "ann").layers == (0, 1, 2, 3)
    assert {job.attempt for job in jobs.rows(engine)} == {1}


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgres"])
def test_a_process_stopped_in_the_middle_of_a_claim_is_ended_by_the_server(engine: Engine, url: str) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b")))
    with processes.another(processes.hang_in_a_claim, url) as (_, pipe):
        held = pipe.recv()
        assert claim(engine, "ann").group.model.name == "b"
        with writing(engine) as connection:
            hung = text("SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'")
            pid = connection.execute(hung).scalar_one()
            timeout = text("SELECT setting FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'")
            assert 0 < int(connection.execute(timeout).scalar_one()) <= 60_000
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})  # as the server will
        with writing(engine) as connection:
            connection.execute(select(table.c.id).where(table.c.id.in_(held)).with_for_update())
        assert [job.id for job in claim(engine, "bob").jobs] == held
