"""Random verbs in random order by several workers and recorders, zombies among them; the table's invariants hold."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import Engine, delete, select

from clipstudy.job import MOVES, Failure, FailureKind, Job, Selection, Status
from clipstudy.queue import jobs, outbox
from clipstudy.queue.dialect import reading, writing
from clipstudy.queue.schema import groups, metadata
from clipstudy.queue.schema import jobs as table
from tests.queue.samples import EXPIRED, LEASE, come_due, group, hand_over

WORKERS = st.sampled_from(["ann", "bob"])
LAYERS = st.sets(st.integers(0, 3), min_size=1).map(lambda layers: tuple(sorted(layers)))
SELECTIONS = st.builds(
    Selection,
    models=st.sampled_from([(), ("bert",), ("gpt*",)]),
    layers=st.sampled_from([(), (0,), (1, 2)]),
)


class Walk(RuleBasedStateMachine):
    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        with writing(self.engine) as connection:
            for each in reversed(metadata.sorted_tables):
                connection.execute(delete(each))
        self.before: dict[int, Any] = {}
        self.held: list[Job] = []  # every claim ever made: most are stale, as a zombie's are
        self.taken: list[outbox.Record] = []
        self.done: Counter[tuple[int, int]] = Counter()

    @rule(
        model=st.sampled_from(["bert", "gpt2"]),
        epochs=st.sampled_from([4, 9]),
        layers=LAYERS,
        priority=st.integers(0, 2),
    )
    def enqueue(self, model: str, epochs: int, layers: tuple[int, ...], priority: int) -> None:
        plan = [(group(model, epochs=epochs), layers)]
        foretold = jobs.enqueue(self.engine, plan, priority=priority, max_tries=2, dry_run=True)
        told = jobs.enqueue(self.engine, plan, priority=priority, max_tries=2)
        assert told == foretold
        assert told.new + told.revived + sum(told.present.values()) == len(layers)

    @rule(worker=WORKERS, cap=st.sampled_from([None, 1, 2]), model=st.sampled_from([None, "gpt2"]))
    def claim(self, worker: str, cap: int | None, model: str | None) -> None:
        ready = [job for job in jobs.rows(self.engine, statuses=[Status.QUEUED]) if job.run_after is None]
        batch = jobs.claim(self.engine, worker, lease=LEASE, layers_per_batch=cap, prefer_model=model)
        assert (batch is None) == (not ready)
        if batch is None:
            return
        self.held.extend(batch.jobs)
        lost = [job for job in batch.jobs if job.failure is FailureKind.LOST]
        siblings = {job.id for job in ready if job.group_id == batch.group_id and job.failure is not FailureKind.LOST}
        taken = {job.id for job in batch.jobs}
        assert len(batch.jobs) == 1 if lost else taken == siblings if cap is None else taken <= siblings
        assert max(job.priority for job in ready) == max(
            job.priority for job in ready if job.group_id == batch.group_id
        )
        assert cap is None or len(batch.jobs) <= cap

    @precondition(lambda self: self.held)
    @rule(data=st.data(), worker=WORKERS)
    def beat(self, data: st.DataObject, worker: str) -> None:
        some = data.draw(st.lists(st.sampled_from(self.held), max_size=4))
        running = {(j.id, j.attempt) for j in jobs.rows(self.engine, newest_only=False, statuses=[Status.RUNNING])}
        ours = {job.id for job in some if (job.id, job.attempt) in running and job.worker == worker}
        assert jobs.beat(self.engine, worker, some, lease=LEASE) == ours

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def hand_over(self, data: st.DataObject) -> None:
        hand_over(self.engine, data.draw(st.sampled_from(self.held)))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), kind=st.sampled_from(FailureKind), retry=st.booleans())
    def fail(self, data: st.DataObject, kind: FailureKind, retry: bool) -> None:
        job = data.draw(st.sampled_from(self.held))
        told = jobs.fail(self.engine, job, Failure(kind, "broke", "log", retry))
        assert told is None or jobs.get(self.engine, job.id).status is told

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        jobs.release(self.engine, data.draw(st.lists(st.sampled_from(self.held), max_size=3)))

    @rule(worker=WORKERS)
    def disown(self, worker: str) -> None:
        jobs.disown(self.engine, worker)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.held))
        gone = jobs.beat(self.engine, str(job.worker), [job], lease=EXPIRED)
        assert {taken.id for taken in jobs.requeue_expired(self.engine)} == gone

    @rule()
    def wait(self) -> None:
        come_due(self.engine)

    @rule(selection=SELECTIONS)
    def cancel(self, selection: Selection) -> None:
        jobs.cancel(self.engine, selection)

    @rule(selection=SELECTIONS, lost=st.booleans(), cancelled=st.booleans())
    def retry(self, selection: Selection, lost: bool, cancelled: bool) -> None:
        jobs.retry(self.engine, selection, lost=lost, cancelled=cancelled)

    @rule(selection=SELECTIONS)
    def rerun(self, selection: Selection) -> None:
        jobs.rerun(self.engine, selection)

    @rule(selection=SELECTIONS, priority=st.integers(0, 2))
    def set_priority(self, selection: Selection, priority: int) -> None:
        jobs.set_priority(self.engine, selection, priority)

    @rule(asleep=st.booleans(), limit=st.integers(1, 3))
    def take(self, asleep: bool, limit: int) -> None:
        self.taken.extend(outbox.take(self.engine, "rec", lease=EXPIRED if asleep else LEASE, limit=limit))

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), works=st.booleans())
    def record(self, data: st.DataObject, works: bool) -> None:
        record = data.draw(st.sampled_from(self.taken))
        if not works:
            outbox.give_back(self.engine, record, "away")
        elif outbox.recorded(self.engine, record, f"run-{record.job.id}-{record.attempt}"):
            self.done[record.job.id, record.attempt] += 1

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), how=st.sampled_from(["put off", "let go", "renew"]))
    def hold_back(self, data: st.DataObject, how: str) -> None:
        record = data.draw(st.sampled_from(self.taken))
        match how:
            case "put off":
                outbox.put_off(self.engine, [record])
            case "let go":
                outbox.let_go(self.engine, record.token)
            case _:
                outbox.renew(self.engine, record.token, lease=LEASE)

    @rule(worker=WORKERS)
    def bury(self, worker: str) -> None:
        running = jobs.rows(self.engine, newest_only=False, statuses=[Status.RUNNING])
        held = {job.id for job in running if job.worker == worker}
        assert {job.id for job in jobs.bury(self.engine, worker)} == held

    @precondition(lambda self: self.held)
    @rule(data=st.data(), found=st.sampled_from(["one", "other"]))
    def pin(self, data: st.DataObject, found: str) -> None:
        job = data.draw(st.sampled_from(self.held))
        running = {(j.id, j.attempt) for j in jobs.rows(self.engine, newest_only=False, statuses=[Status.RUNNING])}
        known = jobs.group_of(self.engine, job.group_id)[1]
        pinned = jobs.pin(self.engine, job.group_id, {"data": found}, [job])
        if (job.id, job.attempt) not in running:
            assert pinned is None and jobs.group_of(self.engine, job.group_id)[1] == known
        else:
            assert pinned == ({"data": found} if known is None else json.loads(known))

    @invariant()
    def holds(self) -> None:
        with reading(self.engine) as connection:
            rows = {r.id: r for r in connection.execute(select(table, groups.c.newest).join_from(table, groups))}
            waiting = {(r.job_id, r.attempt): r for r in connection.execute(select(outbox.table))}
        for row in rows.values():
            old, status = self.before.get(row.id), Status(row.status)
            if old is not None:
                assert row.attempt >= old.attempt
                assert reachable(Status(old.status), status), (old.status, status)
                assert row.run_id or not old.run_id
            assert (status is Status.RUNNING) == (row.lease_until is not None)
            assert row.run_id or status is not Status.DONE
            assert row.newest or status is not Status.QUEUED
            assert row.tries <= row.attempt and row.tries < row.max_tries + (status is not Status.QUEUED)
            record = waiting.get((row.id, row.attempt))
            assert (status is Status.COMPUTED) == (record is not None and record.kind == "finished")
            assert status is not Status.DONE or row.run_id == f"run-{row.id}-{row.attempt}"
        assert all(attempt <= rows[job_id].attempt for job_id, attempt in waiting)
        assert all(times == 1 for times in self.done.values())
        self.before = rows


def reachable(old: Status, new: Status) -> bool:
    """One legal move, or back to the queue of older settings and out of it in the same breath."""
    through = old in (Status.RUNNING,) and new is Status.SUPERSEDED
    return old is new or new in MOVES[old] or through


def test_random_verbs_keep_the_invariants(engine: Engine, backend: str) -> None:
    walk = type("Walk", (Walk,), {"engine": engine})
    run_state_machine_as_test(
        walk,
        settings=settings(
            max_examples=40 if backend == "sqlite" else 12,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
