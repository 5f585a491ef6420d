"""Job table, outbox and MLflow side by side: where they disagree. Reading is one function, comparing is pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from clipstudy import recorder
from clipstudy.errors import TrackingUnreachable
from clipstudy.job import Job, Status
from clipstudy.queue import audit, dialect, jobs
from clipstudy.tracking import Tracking
from clipstudy.tracking import audit as records
from clipstudy.tracking.audit import Recorded
from clipstudy.tracking.entry import group_key

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: What nobody has taken from the outbox for so long is not being recorded by anybody.
STUCK = timedelta(minutes=5)
#: A run may be open for as long as a recorder holds what it records; of another job table's we see no more than that.
BEING_RECORDED = recorder.LEASE
#: So many runs of the table that are nowhere, and none that is there, tell that this is another store.
STRANGE = 50
#: The job table's clock and the recorder's differ by a little, and MLflow keeps milliseconds.
SLACK = timedelta(seconds=2)


class Kind(StrEnum):
    """How table, outbox and MLflow can disagree. Each has its own way to be mended, or none."""

    UNREAD = "unread"  #: a group whose settings cannot be read
    EXPIRED = "expired"  #: running under a lease that ran out
    REFUSED = "refused"  #: in the outbox, and MLflow would not take it
    STUCK = "stuck"  #: in the outbox, and nobody records it
    ELSEWHERE = "elsewhere"  #: MLflow has none of the table's runs: it is another store
    UNFINISHED = "unfinished"  #: done; its run is there and is not FINISHED
    TRASHED = "trashed"  #: done; its run was deleted
    GONE = "gone"  #: done; its run is nowhere
    MISSED = "missed"  #: a FINISHED run of its last attempt is there; the row is not done, or names another
    UNSENT = "unsent"  #: computed; neither in the outbox nor in MLflow
    UNTOLD = "untold"  #: failed, and MLflow has not heard of it
    OPEN = "open"  #: a run that nobody will close
    TWICE = "twice"  #: a second run of one and the same attempt
    NEWER = "newer"  #: reports show another run than the row's
    PARENT = "parent"  #: a parent run whose status is not its children's
    PARENTS = "parents"  #: a second parent run of one group
    ORPHANED = "orphaned"  #: the group's parent run is gone


@dataclass(frozen=True)
class Disagreement:
    """One thing that table, outbox and MLflow say differently."""

    kind: Kind
    title: str  #: what a person calls it
    job: Job | None = None
    run: Recorded | None = None
    other: str = ""  #: the id of the run that counts instead, the last error, …
    group: audit.GroupRow | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The same before and after an attempt to mend it."""
        return (
            self.kind,
            self.title if self.kind is Kind.UNREAD else "",
            str(self.job and self.job.id),
            str(self.run and self.run.id),
            str(self.group and self.group.id),
        )


@dataclass(frozen=True)
class State:
    """All three, as they were read one after another."""

    now: datetime  #: the database's clock
    jobs: tuple[Job, ...]
    groups: tuple[audit.GroupRow, ...]
    unread: tuple[audit.Unread, ...]  #: groups of which nothing else is known: their rows are not compared
    waiting: tuple[audit.Waiting, ...]
    runs: tuple[Recorded, ...] | None  #: None: MLflow does not answer
    #: Of runs that done rows name and that are not active: whether MLflow's trash has them.
    trashed: Mapping[str, bool] = field(default_factory=dict)


def look(engine: Engine, tracking: Tracking | None) -> State:
    """Read all three, the table before MLflow: what a row says was there already when it said so. Without
    ``tracking``, the table and the outbox alone.

    Raises:
        DatabaseUnreachable, NotMigrated: the job table cannot be read.
    """
    groups, unread = audit.group_rows(engine)
    state = State(
        now=dialect.now(engine),
        jobs=tuple(jobs.rows(engine, newest_only=False)),
        groups=tuple(groups),
        unread=tuple(unread),
        waiting=tuple(audit.waiting(engine)),
        runs=None,
    )
    if tracking is None:
        return state
    try:
        runs = tuple(records.runs(tracking))
        active = {run.id for run in runs}
        named = {job.run_id for job in state.jobs if job.run_id and job.status is Status.DONE}
        there: dict[str, tuple[str, bool] | None] = {}
        for run_id in named - active:
            there[run_id] = records.state(tracking, run_id)
            if len(there) >= STRANGE and not named & active and not any(there.values()):
                break  # another store: to ask for each of a large study's runs would take hours
    except TrackingUnreachable:
        return state
    return replace(
        state, runs=runs, trashed={run_id: found is not None and not found[1] for run_id, found in there.items()}
    )


def compare(state: State) -> list[Disagreement]:
    """Every disagreement, those first that must be put right first."""
    return list(_compare(state))


def _compare(state: State) -> Iterator[Disagreement]:
    yield from (Disagreement(Kind.UNREAD, one.title) for one in state.unread)
    for job in state.jobs:
        if job.status is Status.RUNNING and job.lease_until is not None and job.lease_until <= state.now:
            yield Disagreement(Kind.EXPIRED, _name(job), job)
    rows = {job.id: job for job in state.jobs}
    for one in state.waiting:
        if one.job not in rows or one.held:
            continue
        job = replace(rows[one.job], attempt=one.attempt)
        if one.tries:
            yield Disagreement(Kind.REFUSED, _name(job), job, other=one.error or "")
        elif one.age > STUCK:
            yield Disagreement(Kind.STUCK, _name(job), job)
    if state.runs is None:
        return
    done = [job for job in state.jobs if job.status is Status.DONE]
    active = {run.id: run for run in state.runs}
    if done and not any(job.run_id in active or state.trashed.get(job.run_id or "") for job in done):
        yield from (Disagreement(Kind.ELSEWHERE, _name(job), job) for job in done)
        return
    yield from _rows(state, active)
    yield from _runs(state, active)
    yield from _parents(state)


def _rows(state: State, active: Mapping[str, Recorded]) -> Iterator[Disagreement]:
    """What rows say that MLflow does not."""
    group_of = {row.id: row for row in state.groups}
    key_of = {row.id: group_key(row.group) for row in state.groups}
    attempts: dict[tuple[str, int, int, int], list[Recorded]] = defaultdict(list)
    cells: dict[tuple[str, int], list[Recorded]] = defaultdict(list)
    for run in active.values():
        if run.level == "job":
            attempts[run.group, run.layer, run.job, run.attempt].append(run)
            if run.status == "FINISHED":
                cells[run.group, run.layer].append(run)
    waits = {(one.job, one.attempt) for one in state.waiting}
    for job in state.jobs:
        if job.group_id not in group_of:
            continue
        newest = group_of[job.group_id].newest
        key = key_of[job.group_id]
        if not job.attempt or (job.id, job.attempt) in waits:
            continue
        # Job numbers start anew with a new table: an older one's run of the same number began before this row did.
        since = job.started_at or job.created_at or state.now
        its = [
            run
            for run in attempts[key, job.layer, job.id, job.attempt]
            if run.started is None or run.started >= since - SLACK
        ]
        finished = [run for run in its if run.status == "FINISHED" and run.id != job.run_id]
        if job.status is Status.DONE:
            own = active.get(job.run_id or "")
            if own is not None and own.status != "FINISHED":
                yield Disagreement(Kind.UNFINISHED, _name(job), job, own)
            elif own is None and finished:
                yield Disagreement(Kind.MISSED, _name(job), job, finished[0])
            elif own is None and state.trashed.get(job.run_id or ""):
                yield Disagreement(Kind.TRASHED, _name(job), job)
            elif own is None and newest:  # of older settings nobody reads it
                yield Disagreement(Kind.GONE, _name(job), job)
            elif own is not None and newest:
                shown = max(cells[key, job.layer], key=_shown, default=own)
                if _shown(shown) > _shown(own) and shown.entry != own.entry:
                    yield Disagreement(Kind.NEWER, _name(job), job, shown)
        elif job.status in (Status.QUEUED, Status.FAILED, Status.COMPUTED) and finished:
            yield Disagreement(Kind.MISSED, _name(job), job, finished[0])
        elif job.status is Status.COMPUTED and newest:
            yield Disagreement(Kind.UNSENT, _name(job), job)
        elif job.status is Status.FAILED and newest and not any(run.status == "FAILED" for run in its):
            yield Disagreement(Kind.UNTOLD, _name(job), job)


def _runs(state: State, active: Mapping[str, Recorded]) -> Iterator[Disagreement]:
    """What MLflow has that nobody will finish, or has twice."""
    waits = {(one.job, one.attempt) for one in state.waiting}
    kept = {job.run_id for job in state.jobs}
    alike: dict[str, list[Recorded]] = defaultdict(list)
    for run in active.values():
        if run.level == "parent":
            continue
        if not run.open:
            alike[run.entry].append(run)
        elif run.id not in kept and (run.job, run.attempt) not in waits and _old(state, run):
            yield Disagreement(Kind.OPEN, run.title, run=run)
    for entry, same in alike.items():
        first, *more = sorted(same, key=lambda run: (run.id not in kept, run.status != "FINISHED", run.made, run.id))
        if entry:
            yield from (Disagreement(Kind.TWICE, run.title, run=run, other=first.id) for run in more)


def _parents(state: State) -> Iterator[Disagreement]:
    assert state.runs is not None
    of_group: dict[str, list[Recorded]] = defaultdict(list)
    children = children_of(state)
    for run in state.runs:
        if run.level == "parent":
            of_group[run.group].append(run)
    named = {row.parent_run_id for row in state.groups}
    row_of = {group_key(row.group): row for row in state.groups}
    group_of_job = {job.id: job.group_id for job in state.jobs}
    busy = {group_of_job.get(one.job) for one in state.waiting}
    for key, parents in of_group.items():
        row = row_of.get(key)
        if row is not None and row.id in busy:
            continue
        first, *more = sorted(parents, key=lambda run: (run.id not in named, run.open, run.made, run.id))
        yield from (Disagreement(Kind.PARENTS, run.title, run=run, other=first.id) for run in more)
        astray = any(child.parent != first.id for child in children[key])
        if (first.status != records.expected(children[key]) or astray) and not more and _old(state, first):
            yield Disagreement(Kind.PARENT, first.title, run=first)
    for key, row in row_of.items():
        if row.parent_run_id and row.id not in busy and not of_group[key] and children[key]:
            yield Disagreement(Kind.ORPHANED, f"{row.group.model.name} · {row.group.task.name}", group=row)


def children_of(state: State) -> dict[str, list[Recorded]]:
    """The jobs' runs of each group, whichever parent they are nested under."""
    children: dict[str, list[Recorded]] = defaultdict(list)
    for run in state.runs or ():
        if run.level == "job":
            children[run.group].append(run)
    return children


def _old(state: State, run: Recorded) -> bool:
    """Not one that some recorder may be busy with, if only another job table's."""
    return not run.open or state.now - run.made > BEING_RECORDED


def _shown(run: Recorded) -> tuple[str, int, str]:
    """Of several runs of a cell the reports take the highest, as `tracking.newest_runs` says."""
    return run.ended.isoformat() if run.ended else "", run.attempt, run.id


def _name(job: Job) -> str:
    return f"{job.model} · {job.task} · {job.label} (job {job.id})"
