"""What a worker does with rows: claim, beat, fail, release; and what any worker does for one that vanished.

Every write after the claim is fenced: it names the attempt, and counts only while that attempt runs under that worker.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    Engine,
    Select,
    Update,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import ColumnElement, FromClause

from clipstudy.errors import Unreadable
from clipstudy.job import Batch, Failure, FailureKind, Job, Status
from clipstudy.queue import outbox
from clipstudy.queue.cells import JOBS, AnyRow, among, group_from, held, job_from, move, older_among, supersede
from clipstudy.queue.dialect import clock, is_, reading, up_since, writing
from clipstudy.queue.retries import Verdict, together, verdict
from clipstudy.queue.schema import groups, jobs

log = logging.getLogger(__name__)

#: Rows that one call takes back from vanished workers: a short transaction, and the next call goes on.
_LOST_AT_ONCE = 500

_ONE: ColumnElement[int] = literal_column("1")
head, sibling, first = jobs.alias("head"), jobs.alias("sibling"), jobs.alias("first")


def claim(
    engine: Engine,
    worker: str,
    *,
    lease: timedelta,
    layers_per_batch: int | None = None,
    prefer_model: str | None = None,
    study: str | None = None,
) -> Batch | None:
    """Take the queued siblings of one (model, task): at most ``layers_per_batch`` of them, lowest layers first; of
    ``study`` alone, where it is named.

    First the highest priority, among equals ``prefer_model`` (what the worker holds in memory), then the oldest. A
    row whose last attempt was lost is taken alone. Takes a try and a new attempt number from each row. Never waits
    for another process's locks (on Postgres), and never splits what is ready unless capped.

    None: nothing can be taken at this moment. The queue need not be empty: rows may wait for their time, or be in
    another worker's hands just now; `totals` says.

    Raises DatabaseUnreachable. If it does, the claim may or may not have happened: `disown` what is not known.
    """
    with reading(engine) as connection:  # an idle worker's poll must not take SQLite's write lock
        if connection.scalar(_first("id", study)) is None:
            return None
    with writing(engine) as connection:
        for model in dict.fromkeys((prefer_model, None)):
            statement = claim_statement(worker, lease, layers_per_batch, model, study)
            while rows := connection.execute(statement).all():
                group = connection.execute(select(groups).where(groups.c.id == rows[0].group_id)).one()
                try:
                    spec = group_from(group)
                except Unreadable as error:  # whoever claims it next could not, either
                    _give_up(connection, rows, str(error))
                    log.error("%s · %s: %s", group.model, group.task, error)
                    continue
                claimed = sorted((job_from(row, group) for row in rows), key=lambda job: job.layer)
                return Batch(group.id, spec, tuple(claimed), group.resolved)
    return None


def _give_up(connection: Connection, rows: Sequence[AnyRow], error: str) -> None:
    """Claimed rows → ``failed``. MLflow cannot be told: what a run is called is in what could not be read."""
    connection.execute(
        update(jobs)
        .where(among(jobs.c.id, [row.id for row in rows]))
        .values(
            status=Status.FAILED,
            failure=FailureKind.CODE,
            error=outbox.storable(error),
            lease_until=None,
            ended_at=clock(),
        )
    )


def claim_statement(
    worker: str,
    lease: timedelta,
    layers_per_batch: int | None = None,
    prefer_model: str | None = None,
    study: str | None = None,
) -> Update:
    """The claim, one statement. ``prefer_model`` limits it to that model, where that costs nobody its priority.

    The lock on the leader (the first ready row of its group) is the group's: whoever else meets it goes to the next
    group. CTEs, not IN (… LIMIT …): Postgres may run such a subquery twice. Nothing that decides the plan is a bound
    parameter, since Postgres plans a prepared statement once for all values.
    """
    leader = _leader(prefer_model, study).cte("leader")
    cap: ColumnElement[int] | None = None if layers_per_batch is None else literal_column(str(int(layers_per_batch)))
    taken = (
        select(sibling.c.id)
        .where(
            _ready(sibling),
            sibling.c.group_id == leader.c.group_id,
            or_(sibling.c.id == leader.c.id, and_(~_lost(leader), ~_lost(sibling))),
        )
        .order_by(sibling.c.layer)
        .limit(cap)
        .with_for_update(of=sibling, skip_locked=True)
        .cte("taken")
    )
    return (
        update(jobs)
        .where(jobs.c.id == taken.c.id)
        .values(
            status=Status.RUNNING,
            worker=worker,
            attempt=jobs.c.attempt + 1,
            tries=jobs.c.tries + 1,
            run_after=None,
            leased_at=clock(),
            lease_until=clock() + lease.total_seconds(),
            started_at=clock(),
            ended_at=None,
        )
        .returning(*jobs.c)
    )


def _leader(prefer_model: str | None, study: str | None) -> Select[Any]:
    foremost = (
        select(sibling.c.id)
        .where(_ready(sibling), sibling.c.group_id == head.c.group_id, ~_lost(sibling))
        .order_by(sibling.c.priority.desc(), sibling.c.id)
        .limit(_ONE)
        .scalar_subquery()
    )
    query = (
        select(head.c.id, head.c.group_id, head.c.failure)
        .where(_ready(head), *_of(head, study), or_(_lost(head), head.c.id == foremost))
        .order_by(*_in_turn(head, study))
        .limit(_ONE)
        .with_for_update(of=head, skip_locked=True)
    )
    if prefer_model is not None:
        highest = _first("priority", study).scalar_subquery()
        query = query.where(head.c.model == prefer_model, head.c.priority >= highest)
    return query


def _first(column: str, study: str | None) -> Select[Any]:
    """``column`` of the first ready row. In the claim's order, although any row would tell whether there is one: so
    that it is found by the claim's index."""
    query = select(first.c[column]).where(_ready(first), *_of(first, study))
    return query.order_by(*_in_turn(first, study)).limit(_ONE)


def any_queued(engine: Engine, study: str | None = None) -> bool:
    """Whether anything is queued (of one study), ready or not."""
    query = select(first.c.id).where(is_(first.c.status, Status.QUEUED), *_of(first, study))
    with reading(engine) as connection:
        return connection.scalar(query.order_by(*_in_turn(first, study)).limit(_ONE)) is not None


def _of(row: FromClause, study: str | None) -> list[ColumnElement[bool]]:
    """Of that study, where one is named. A range, ordered by (see _in_turn), which only the study's own index can
    serve: told that they are equal, Postgres may walk all studies' rows in the hope to meet one of this soon."""
    return [] if study is None else [row.c.study.between(study, study)]


def _in_turn(row: FromClause, study: str | None) -> list[ColumnElement[Any]]:
    return [*([] if study is None else [row.c.study]), row.c.priority.desc(), row.c.id]


def _ready(row: FromClause) -> ColumnElement[bool]:
    due = or_(row.c.run_after.is_(None), row.c.run_after <= clock())
    return and_(is_(row.c.status, Status.QUEUED), due)


def _lost(row: FromClause) -> ColumnElement[bool]:
    return is_(func.coalesce(row.c.failure, literal_column("''")), FailureKind.LOST)


def beat(engine: Engine, worker: str, jobs_held: Sequence[Job], *, lease: timedelta) -> set[int]:
    """Renew the leases of ``jobs_held``. Returns the ids that still are this worker's; drop the others.

    Raises DatabaseUnreachable; try again until the lease has surely run out.
    """
    if not jobs_held:
        return set()
    with writing(engine) as connection:
        renewed = {"leased_at": clock(), "lease_until": clock() + lease.total_seconds()}
        return {row.id for row in move(connection, held(worker, jobs_held), renewed)}


def fail(engine: Engine, job: Job, failure: Failure) -> Status | None:
    """End an attempt without an outcome, and put its failure into the outbox to be recorded.

    Returns where the row went: queued, to be tried again after a pause that doubles; failed, where trying again is
    no use or the tries are spent; superseded, where its settings have changed. None: the lease was lost, and nothing
    was written. A failure that is not the job's own (infra) gives its try back, up to a bound.
    """
    error, log = outbox.storable(failure.error), outbox.storable(failure.log)
    with writing(engine) as connection:
        older = older_among(connection, [job.group_id])
        row = connection.execute(
            select(jobs, clock().label("now")).where(*held(job.worker, [job])).with_for_update()
        ).one_or_none()
        if row is None:
            return outbox.already(connection, job, "failed")
        then = verdict(failure.kind, failure.retry, row.tries, row.max_tries, row.infra, row.group_id)
        _end_attempt(connection, row, then, failure.kind, error)
        outbox.put(connection, row.id, row.attempt, "failed", row.worker, row.started_at, row.now, error=error, log=log)
        return Status.SUPERSEDED if supersede(connection, [job.id], older) else then.status


def release(engine: Engine, jobs_held: Sequence[Job]) -> int:
    """Put rows back at once and give their tries back: the worker was told to stop. Returns how many were its own."""
    return _put_back(engine, [held(worker, mine) for worker, mine in _by_worker(jobs_held).items()])


def disown(engine: Engine, worker: str, keep: Sequence[Job] = ()) -> int:
    """Release what runs under ``worker``'s name and is not in ``keep``: the claims whose answer never arrived.

    A connection that breaks during a commit leaves it open whether the claim happened. Returns how many there were.
    """
    others = _running(worker)
    if keep:
        others.append(~tuple_(jobs.c.id, jobs.c.attempt).in_([(job.id, job.attempt) for job in keep]))
    return _put_back(engine, [others])


def bury(engine: Engine, worker: str) -> list[Job]:
    """``worker`` is known to be dead: what it held is lost now, not when its lease runs out. Returns those rows, as
    :func:`requeue_expired` does.

    Only for whoever saw it end (its parent process); a worker that is merely silent keeps its lease.
    """
    lost: list[Job] = []
    while taken := _take_back(engine, _running(worker), "its process ended amid attempt {}"):
        lost += taken
    return lost


def ended_by(engine: Engine, worker: str, within: timedelta) -> set[Status]:
    """The statuses of the rows that came to an end with ``worker``, at most so long ago: what ended before is not
    looked at."""
    ended_here = [jobs.c.worker == worker, jobs.c.ended_at >= clock() - within.total_seconds()]
    with reading(engine) as connection:
        return {Status(found) for found in connection.scalars(select(jobs.c.status).distinct().where(*ended_here))}


def _running(worker: str) -> list[ColumnElement[bool]]:
    return [is_(jobs.c.status, Status.RUNNING), jobs.c.worker == worker]


def _put_back(engine: Engine, selections: Sequence[list[ColumnElement[bool]]]) -> int:
    count = 0
    for where in selections:
        with writing(engine) as connection:
            of = connection.scalars(select(jobs.c.group_id).distinct().where(*where)).all()
            older = older_among(connection, of)
            moved = move(
                connection,
                [*where, among(jobs.c.group_id, of)],
                {
                    "status": Status.QUEUED,
                    "tries": case((jobs.c.tries > 0, jobs.c.tries - 1), else_=0),
                    "run_after": None,
                    "lease_until": None,
                    "worker": None,
                },
            )
            supersede(connection, [row.id for row in moved], older)
            count += len(moved)
    return count


def requeue_expired(engine: Engine, *, grace: timedelta = timedelta(seconds=60)) -> list[Job]:
    """Take back the rows whose lease has run out: their worker vanished. Any worker calls it, any number at once.

    Each is queued again after a pause, to be claimed alone; or, its tries spent, failed, and its failure put into the
    outbox. Returns them as they are now, except that ``worker`` is the one that vanished; ``attempt`` still is the one
    that was lost.

    A lease that ran out while the database server itself was down was nobody's fault: its holder has ``grace`` after
    the server's start to renew it.
    """
    expired = [
        is_(jobs.c.status, Status.RUNNING),
        jobs.c.lease_until <= clock(),
        or_(jobs.c.leased_at > up_since(), clock() > up_since() + grace.total_seconds()),
    ]
    return _take_back(engine, expired, "the lease of attempt {} ran out")


def _take_back(engine: Engine, lost: Sequence[ColumnElement[bool]], how: str) -> list[Job]:
    """End the attempts of rows that are ``lost``, at most so many that the transaction stays short."""
    with reading(engine) as connection:
        if connection.scalar(select(jobs.c.id).where(*lost).limit(_ONE)) is None:
            return []
    with writing(engine) as connection:
        candidates = select(jobs.c.group_id).where(*lost).order_by(jobs.c.id).limit(_LOST_AT_ONCE)
        of = set(connection.scalars(candidates))
        older = older_among(connection, of)
        # Of these groups alone: meanwhile more leases may have run out, and others may hold some of the rows.
        rows = connection.execute(
            select(jobs, clock().label("now"))
            .where(*lost, among(jobs.c.group_id, of))
            .order_by(jobs.c.id)
            .limit(_LOST_AT_ONCE)
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            then = verdict(FailureKind.LOST, True, row.tries, row.max_tries, row.infra, row.group_id)
            error = f"{row.worker} vanished: {how.format(row.attempt)}"
            _end_attempt(connection, row, then, FailureKind.LOST, error)
            if then.status is Status.FAILED:
                outbox.put(connection, row.id, row.attempt, "failed", row.worker, row.started_at, row.now, error=error)
        lost_by = {row.id: row.worker for row in rows}
        supersede(connection, lost_by, older)
        after = connection.execute(JOBS.where(among(jobs.c.id, lost_by)).order_by(jobs.c.id)).all()
        return [replace(job_from(row), worker=lost_by[row.id]) for row in after]


def _end_attempt(connection: Connection, row: AnyRow, then: Verdict, kind: FailureKind, error: str) -> None:
    again = then.status is Status.QUEUED
    connection.execute(
        update(jobs)
        .where(jobs.c.id == row.id)
        .values(
            status=then.status,
            tries=then.tries,
            infra=then.infra,
            run_after=together(row.now + then.delay, then.delay) if again else None,
            worker=None if again else row.worker,
            lease_until=None,
            failure=kind,
            error=error,
            ended_at=None if again else row.now,
        )
    )


def _by_worker(jobs_held: Sequence[Job]) -> dict[str | None, list[Job]]:
    mine: dict[str | None, list[Job]] = {}
    for job in jobs_held:
        mine.setdefault(job.worker, []).append(job)
    return mine
