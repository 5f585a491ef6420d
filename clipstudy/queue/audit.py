"""The table looked at against what MLflow has, and what is put right in it. Every write is fenced: a row that has
moved on since it was read is left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, and_, exists, func, or_, select, tuple_, update
from sqlalchemy.sql.expression import ColumnElement

from clipstudy.errors import Unreadable
from clipstudy.job import Group, Job, Selection, Status
from clipstudy.queue import outbox
from clipstudy.queue.cells import group_from
from clipstudy.queue.dialect import clock, is_, reading, writing
from clipstudy.queue.schema import groups, jobs
from clipstudy.queue.schema import outbox as waiting_table
from clipstudy.queue.verbs import again

#: Rows that one statement names: databases limit the number of parameters.
_AT_ONCE = 1000
#: What still waits to be recorded of a row's last attempt.
_WAITS: ColumnElement[bool] = exists().where(
    waiting_table.c.job_id == jobs.c.id, waiting_table.c.attempt == jobs.c.attempt
)


@dataclass(frozen=True)
class GroupRow:
    """A group with what is said of it in MLflow."""

    id: int
    group: Group
    newest: bool
    resolved: str | None
    parent_run_id: str | None


@dataclass(frozen=True)
class Waiting:
    """One attempt in the outbox."""

    job: int
    attempt: int
    held: bool  #: a recorder has it, and its lease runs
    tries: int  #: how often MLflow refused it
    error: str | None  #: why, the last time
    age: timedelta  #: since the attempt ended, on the database's clock


@dataclass(frozen=True)
class Unread:
    """A group whose settings this version cannot read."""

    id: int
    title: str  #: what a person calls it


def group_rows(engine: Engine) -> tuple[list[GroupRow], list[Unread]]:
    """Every group, older settings included; and those that cannot be read."""
    found: list[GroupRow] = []
    unread: list[Unread] = []
    with reading(engine) as connection:
        for row in connection.execute(select(groups).order_by(groups.c.id)):
            try:
                group = group_from(row)
            except Unreadable:
                unread.append(Unread(row.id, f"{row.model} · {row.task} (group {row.id})"))
            else:
                found.append(GroupRow(row.id, group, row.newest, row.resolved, row.parent_run_id))
    return found, unread


def waiting(engine: Engine) -> list[Waiting]:
    """The outbox, oldest first."""
    table = waiting_table.c
    held = func.coalesce(table.lease_until > clock(), False)
    query = select(
        table.job_id, table.attempt, held.label("held"), table.tries, table.last_error, table.ended_at, clock()
    )
    with reading(engine) as connection:
        return [
            Waiting(job, attempt, bool(is_held), tries, error, timedelta(seconds=max(now - ended, 0.0)))
            for job, attempt, is_held, tries, error, ended, now in connection.execute(query.order_by(table.id))
        ]


def wake(engine: Engine) -> None:
    """What rests in the outbox because it was refused may be tried at once; what a recorder holds is not touched."""
    free = or_(waiting_table.c.lease_until.is_(None), waiting_table.c.lease_until <= clock())
    with writing(engine) as connection:
        connection.execute(update(waiting_table).where(free).values(run_after=None))


def adopt(engine: Engine, job: Job, run_id: str) -> bool:
    """A FINISHED run of this very attempt is there: the row is done, with the run's id. False: it has moved on."""
    done = {"status": Status.DONE, "run_id": run_id, "failure": None, "error": None, "run_after": None}
    return _set(engine, job, {**done, "ended_at": func.coalesce(jobs.c.ended_at, clock())})


def tell_again(engine: Engine, job: Job) -> bool:
    """Put a failed row's failure into the outbox once more. False: it waits there, or the row has moved on."""
    with writing(engine) as connection:
        row = connection.execute(
            select(jobs, clock().label("now")).where(*_as_read(job), ~_WAITS).with_for_update()
        ).one_or_none()
        if row is None:
            return False
        ended = row.ended_at or row.now
        began = min(row.started_at or ended, ended)
        error = job.error or "it failed; its log was not kept"
        outbox.put(connection, job.id, job.attempt, "failed", row.worker, began, ended, error=error)
    return True


def recompute(engine: Engine, of: Sequence[Job]) -> int:
    """Rows that are done or computed, and of which no record is to be had, → queued. How many.

    Only of the newest settings, and only where they are as they were read.
    """
    unrecorded = and_(is_(jobs.c.status, Status.DONE, Status.COMPUTED), ~_WAITS)
    queued = 0
    for start in range(0, len(of), _AT_ONCE):
        pairs = [(job.id, job.attempt) for job in of[start : start + _AT_ONCE]]
        queued += again(engine, Selection(), and_(tuple_(jobs.c.id, jobs.c.attempt).in_(pairs), unrecorded))
    return queued


def _set(engine: Engine, job: Job, values: Mapping[str, Any]) -> bool:
    with writing(engine) as connection:
        return connection.execute(update(jobs).where(*_as_read(job), ~_WAITS).values(**values)).rowcount == 1


def _as_read(job: Job) -> list[ColumnElement[bool]]:
    same = jobs.c.run_id.is_(None) if job.run_id is None else jobs.c.run_id == job.run_id
    return [jobs.c.id == job.id, jobs.c.attempt == job.attempt, jobs.c.status == str(job.status), same]
