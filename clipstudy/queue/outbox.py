"""What was computed and is not recorded yet: written in the same transaction that ends the attempt, taken by any
recorder under a short lease, deleted when the run is there (a transactional outbox)."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, and_, delete, exists, func, insert, literal_column, or_, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import ColumnElement

from clipstudy.errors import Unreadable, said
from clipstudy.job import Group, Job, Status
from clipstudy.outcome import LOG, Artifact, End, Estimate, Outcome, metrics_from_json, metrics_to_json
from clipstudy.queue.cells import JOBS, AnyRow, among, group_from, held, job_from
from clipstudy.queue.dialect import advisory_lock, clock, instant, is_, reading, writing
from clipstudy.queue.retries import delay
from clipstudy.queue.schema import groups, jobs, outbox_files
from clipstudy.queue.schema import outbox as table

log = logging.getLogger(__name__)

#: A tracking server that is back should not have to wait long for what is waiting for it.
_LONGEST_DELAY_S = 60.0
#: How long what is put off rests.
_MOMENT_S = 2.0
#: How reading what is no result fails.
_UNREAD = (Unreadable, ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError, RecursionError)
#: How long that rests: another version may read it.
_UNREADABLE_S = 300.0


@dataclass(frozen=True)
class Record:
    """One attempt to be recorded. Its instants never change, so that each step can be repeated."""

    id: int
    token: str  #: of the call that took it; a recorder that slept past its lease holds one that opens nothing
    job: Job  #: the row as it is now; its attempt may be a later one, its run_id an earlier result's
    group: Group
    resolved: str | None  #: JSON, as in a Batch
    parent_run_id: str | None
    attempt: int
    kind: End
    worker: str | None
    metrics: Mapping[str, Estimate]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    artifacts: tuple[Artifact, ...]
    started: datetime
    ended: datetime
    error: str | None
    log: str | None
    tries: int  #: how often recording it has failed


def hand_over(engine: Engine, job: Job, outcome: Outcome, *, started: datetime, ended: datetime) -> bool:
    """``running`` → ``computed`` and the outcome into the outbox, in one fenced transaction.

    False: the lease was lost, and nothing was written; drop the outcome and go on. True once more where this attempt
    had been handed over before (a commit whose answer got lost).

    Raises ValueError for a metric that is not finite or another layer's outcome, DatabaseUnreachable.
    """
    if outcome.layer != job.layer:
        raise ValueError(f"the outcome of layer {outcome.layer} is not job {job.id}'s, which is layer {job.layer}")
    metrics = metrics_to_json(outcome.metrics)
    with writing(engine) as connection:
        moved = connection.execute(
            update(jobs)
            .where(*held(job.worker, [job]))
            .values(status=Status.COMPUTED, lease_until=None, failure=None, error=None, ended_at=clock())
        )
        if moved.rowcount == 0:
            return already(connection, job, "finished") is not None
        outbox_id = put(
            connection,
            job.id,
            job.attempt,
            "finished",
            job.worker,
            started.timestamp(),
            ended.timestamp(),
            metrics=metrics,
            params=json.dumps(dict(outcome.params)),
            tags=json.dumps(dict(outcome.tags)),
        )
        if outcome.artifacts:
            connection.execute(
                insert(outbox_files),
                [
                    {"outbox_id": outbox_id, "name": artifact.name, "content": artifact.content}
                    for artifact in outcome.artifacts
                ],
            )
    return True


def already(connection: Connection, job: Job, kind: End) -> Status | None:
    """Where the row is, if this very attempt has ended in this ``kind`` of way already; None if the lease was lost.

    The question of a writer whose fence did not let it pass: was it I, in a commit whose answer got lost?
    """
    waiting = and_(table.c.job_id == jobs.c.id, table.c.attempt == jobs.c.attempt, is_(table.c.kind, kind))
    ended: ColumnElement[bool] = table.c.id.is_not(None)
    if kind == "finished":
        ended = or_(ended, is_(jobs.c.status, Status.DONE))
    query = select(jobs.c.status).outerjoin_from(jobs, table, waiting)
    status = connection.scalar(query.where(jobs.c.id == job.id, jobs.c.attempt == job.attempt, ended))
    return None if status is None else Status(status)


def put(
    connection: Connection,
    job_id: int,
    attempt: int,
    kind: End,
    worker: str | None,
    started_at: float,
    ended_at: float,
    *,
    metrics: str = "{}",
    params: str = "{}",
    tags: str = "{}",
    error: str | None = None,
    log: str | None = None,
) -> int:
    """Write one attempt's end into the outbox, inside the transaction that ends it. Returns the outbox row's id."""
    outbox_id = connection.scalar(
        insert(table)
        .values(
            job_id=job_id,
            attempt=attempt,
            kind=kind,
            worker=worker,
            metrics=metrics,
            params=params,
            tags=tags,
            error=error,
            log=log,
            started_at=started_at,
            ended_at=ended_at,
            tries=0,
        )
        .returning(table.c.id)
    )
    return int(outbox_id)


def storable(text: str) -> str:
    """``text`` as both databases can keep it: Postgres has no NUL in texts, neither has lone surrogates."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode("utf-8")


def take(
    engine: Engine, recorder: str, *, lease: timedelta, limit: int = 8, group_id: int | None = None
) -> list[Record]:
    """Lease up to ``limit`` records, oldest first, that nobody holds and whose time has come. Never waits for locks."""
    due = [
        or_(table.c.lease_until.is_(None), table.c.lease_until <= clock()),
        or_(table.c.run_after.is_(None), table.c.run_after <= clock()),
    ]
    if group_id is not None:
        due.append(table.c.job_id.in_(select(jobs.c.id).where(jobs.c.group_id == group_id)))
    with reading(engine) as connection:  # polls must not take SQLite's write lock
        if connection.scalar(select(table.c.id).where(*due).limit(literal_column("1"))) is None:
            return []
    with writing(engine) as connection:
        free = (
            select(table.c.id)
            .where(*due)
            .order_by(table.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("free")
        )
        rows = connection.execute(
            update(table)
            .where(table.c.id == free.c.id)
            .values(token=uuid.uuid4().hex, recorder=recorder, lease_until=clock() + lease.total_seconds())
            .returning(*table.c)
        ).all()
        return _records(connection, sorted(rows, key=lambda row: row.id))


def _records(connection: Connection, rows: list[AnyRow]) -> list[Record]:
    found = connection.execute(JOBS.where(among(jobs.c.id, {row.job_id for row in rows})))
    job_of = {job.id: job for job in map(job_from, found)}
    wanted = among(groups.c.id, {job.group_id for job in job_of.values()})
    group_of = {row.id: row for row in connection.execute(select(groups).where(wanted))}
    files: dict[int, list[Artifact]] = {row.id: [] for row in rows}
    query = select(outbox_files).where(among(outbox_files.c.outbox_id, files)).order_by(outbox_files.c.name)
    for file in connection.execute(query):
        files[file.outbox_id].append(Artifact(file.name, file.content))
    records = []
    for row in rows:
        job = job_of[row.job_id]
        try:
            records.append(_record(row, job, group_of[job.group_id], tuple(files[row.id])))
        except _UNREAD as error:  # those beside it are none the worse for it
            why = f"the job table holds what this version cannot read ({type(error).__name__}: {said(error)})"
            log.error("%s · %s · %s, attempt %d: %s", job.model, job.task, job.label, row.attempt, why)
            _rest(connection, [table.c.id == row.id], _UNREADABLE_S, why)
    return records


def _record(row: AnyRow, job: Job, group: AnyRow, artifacts: tuple[Artifact, ...]) -> Record:
    started, ended = instant(row.started_at), instant(row.ended_at)
    assert started is not None and ended is not None
    return Record(
        id=row.id,
        token=row.token,
        job=job,
        group=group_from(group),
        resolved=group.resolved,
        parent_run_id=group.parent_run_id,
        attempt=row.attempt,
        kind=row.kind,
        worker=row.worker,
        metrics=metrics_from_json(row.metrics),
        params=json.loads(row.params),
        tags=json.loads(row.tags),
        artifacts=artifacts,
        started=started,
        ended=ended,
        error=row.error,
        log=row.log,
        tries=row.tries,
    )


def recorded(engine: Engine, record: Record, run_id: str) -> bool:
    """The run is there: ``computed`` → ``done`` with its id (or a row whose attempt failed gets its FAILED run's id, if
    that attempt still is its last), and the record is deleted. One transaction, fenced by the record's lease.

    False: the lease ran out and another recorder has it; what was logged is found again by its tag.
    """
    with writing(engine) as connection:
        if connection.execute(delete(table).where(*_held(record))).rowcount == 0:
            return False
        this = [jobs.c.id == record.job.id, jobs.c.attempt == record.attempt]
        if record.kind == "finished":
            moved = connection.execute(
                update(jobs).where(*this, is_(jobs.c.status, Status.COMPUTED)).values(status=Status.DONE, run_id=run_id)
            )
            return moved.rowcount == 1
        connection.execute(update(jobs).where(*this).values(run_id=run_id))  # queued once more, or failed for good
    return True


def run_named(engine: Engine, record: Record) -> str | None:
    """The run of the record's result, where the table names one; None: it does not yet, or the attempt failed."""
    if record.kind != "finished":
        return None
    this = [jobs.c.id == record.job.id, jobs.c.attempt == record.attempt, is_(jobs.c.status, Status.DONE)]
    with reading(engine) as connection:
        return connection.scalar(select(jobs.c.run_id).where(*this))


def renew(engine: Engine, token: str, *, lease: timedelta) -> None:
    """Hold what one :func:`take` gave, and what is left of it, for longer."""
    with writing(engine) as connection:
        connection.execute(
            update(table).where(table.c.token == token).values(lease_until=clock() + lease.total_seconds())
        )


def let_go(engine: Engine, token: str) -> None:
    """What is left of what one :func:`take` gave is anybody's again, at once."""
    with writing(engine) as connection:
        connection.execute(
            update(table).where(table.c.token == token).values(token=None, recorder=None, lease_until=None)
        )


def give_back(engine: Engine, record: Record, error: str) -> None:
    """Recording did not work: end the lease, and let the record rest for a while that doubles up to a minute."""
    rest = min(delay(record.tries + 1, record.id), _LONGEST_DELAY_S)
    with writing(engine) as connection:
        _rest(connection, _held(record), rest, error)


def _rest(connection: Connection, where: Sequence[ColumnElement[bool]], seconds: float, error: str) -> None:
    connection.execute(
        update(table)
        .where(*where)
        .values(
            token=None,
            recorder=None,
            lease_until=None,
            tries=table.c.tries + 1,
            run_after=clock() + seconds,
            last_error=storable(error),
        )
    )


def put_off(engine: Engine, records: Sequence[Record]) -> None:
    """They cannot be recorded just now, through no fault of theirs or of MLflow's: anybody's again in a moment."""
    with writing(engine) as connection:
        for record in records:
            connection.execute(
                update(table)
                .where(*_held(record))
                .values(token=None, recorder=None, lease_until=None, run_after=clock() + _MOMENT_S)
            )


def _held(record: Record) -> list[Any]:
    return [table.c.id == record.id, table.c.token == record.token]


def log_of(engine: Engine, job: Job) -> str | None:
    """The log of the row's last attempt, while it waits to be recorded; None if it does not (or has none)."""
    with reading(engine) as connection:
        row = connection.execute(
            select(table.c.id, table.c.log).where(table.c.job_id == job.id, table.c.attempt == job.attempt)
        ).one_or_none()
        if row is None or row.log is not None:
            return row and row.log
        content = connection.scalar(
            select(outbox_files.c.content).where(outbox_files.c.outbox_id == row.id, outbox_files.c.name == LOG)
        )
    return None if content is None else content.decode("utf-8", "replace")


def pending(engine: Engine, study: str | None = None) -> int:
    """How many records wait, of all or of one study."""
    query = select(func.count()).select_from(table)
    if study is not None:
        query = query.where(exists().where(jobs.c.id == table.c.job_id, jobs.c.study == study))
    with reading(engine) as connection:
        return connection.scalar(query) or 0


def last_error(engine: Engine) -> str | None:
    """Why the oldest record that was refused waits; None: none was."""
    with reading(engine) as connection:
        query = select(table.c.last_error).where(table.c.last_error.is_not(None)).order_by(table.c.id).limit(1)
        return connection.scalar(query)


@dataclass
class Parent:
    """A group's parent run, while nobody else can set it."""

    run_id: str | None
    resolved: str | None  #: JSON of what the group's first batch resolved, as it is now; None: not yet


@contextmanager
def parent(engine: Engine, group_id: int) -> Iterator[Parent]:
    """Hold the group's parent run, so that of several recorders one at a time finds or creates it. What is set is
    written when the block ends well.

    The block may wait for a tracking server: whoever claims, hands over or gives back does not wait with it.
    """
    with advisory_lock(engine, "parent", group_id):
        with reading(engine) as connection:
            query = select(groups.c.parent_run_id, groups.c.resolved).where(groups.c.id == group_id)
            found = connection.execute(query).one()
        held = Parent(*found)
        yield held
        if held.run_id != found.parent_run_id:
            with writing(engine) as connection:
                # Where something was resolved meanwhile, the parent does not hold it: the next recorder tells it.
                as_read = [
                    column.is_not_distinct_from(getattr(found, column.name)) for column in query.selected_columns
                ]
                connection.execute(
                    update(groups).where(groups.c.id == group_id, *as_read).values(parent_run_id=held.run_id)
                )
