"""Reading the table: rows, groups, counts. Nothing here takes a lock."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine, func, select, update

from clipstudy.errors import NoSuchJob, Unreadable
from clipstudy.job import LARGEST, Group, Job, Selection, Status
from clipstudy.queue.cells import JOBS, chosen, held, hold, job_from
from clipstudy.queue.dialect import clock, is_, reading, writing
from clipstudy.queue.schema import groups, jobs


def get(engine: Engine, job_id: int) -> Job:
    """One row. Raises NoSuchJob, which says what numbers there are."""
    with reading(engine) as connection:
        query = JOBS.where(jobs.c.id == job_id)
        row = connection.execute(query).one_or_none() if 0 <= job_id <= LARGEST else None
        if row is not None:
            return job_from(row)
        low, high = connection.execute(select(func.min(jobs.c.id), func.max(jobs.c.id))).one()
    there = "The table is empty: clipstudy enqueue fills it." if low is None else f"Numbers go from {low} to {high}."
    raise NoSuchJob(f"There is no job {job_id}. {there} `clipstudy status --rows` lists them.")


def rows(
    engine: Engine,
    selection: Selection | None = None,
    statuses: Collection[Status] | None = None,
    limit: int | None = None,
    newest_only: bool = True,
) -> list[Job]:
    """Rows in the order in which they were enqueued; by default only those of each (model, task)'s newest settings."""
    with reading(engine) as connection:
        query = JOBS.where(*chosen(connection, selection, newest_only=newest_only))
        if statuses is not None:
            query = query.where(is_(jobs.c.status, *statuses))
        return [job_from(row) for row in connection.execute(query.order_by(jobs.c.id).limit(limit))]


def names(engine: Engine) -> set[tuple[str, str, str]]:
    """Every (study, model, task) of the table."""
    with reading(engine) as connection:
        query = select(groups.c.study, groups.c.model, groups.c.task).distinct()
        return {(row.study, row.model, row.task) for row in connection.execute(query)}


def kinds(engine: Engine) -> dict[tuple[str, str], str]:
    """(study, task) → the task's kind, by its newest settings; without those that this version cannot read."""
    newest = select(func.max(groups.c.id)).group_by(groups.c.study, groups.c.task)
    query = select(groups.c.study, groups.c.task, groups.c.spec).where(groups.c.id.in_(newest))
    with reading(engine) as connection:
        found = {(row.study, row.task): row.spec for row in connection.execute(query)}
    kinds = {}
    for key, spec in found.items():
        with suppress(Unreadable):
            kinds[key] = Group.from_json(spec).task.kind
    return kinds


def group_of(engine: Engine, group_id: int) -> tuple[Group, str | None, str | None]:
    """A group's specification, what was resolved at run time (JSON), and its parent run's id."""
    query = select(groups.c.spec, groups.c.resolved, groups.c.parent_run_id).where(groups.c.id == group_id)
    with reading(engine) as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise NoSuchJob(f"There is no group {group_id}. `clipstudy status --rows` lists what there is.")
    return Group.from_json(row.spec), row.resolved, row.parent_run_id


def counts(
    engine: Engine, selection: Selection | None = None, newest_only: bool = True
) -> dict[tuple[str, str, str], dict[Status, int]]:
    """For each (study, model, task), in the order of enqueueing: how many rows are in each status that occurs."""
    with reading(engine) as connection:
        where = chosen(connection, selection, newest_only=newest_only)
        tally = (
            select(jobs.c.group_id, jobs.c.status, func.count().label("rows"))
            .where(*where)
            .group_by(jobs.c.group_id, jobs.c.status)
            .subquery()
        )
        query = select(groups.c.study, groups.c.model, groups.c.task, tally.c.status, tally.c.rows).join_from(
            groups, tally, groups.c.id == tally.c.group_id
        )
        found: dict[tuple[str, str, str], dict[Status, int]] = {}
        for study, model, task, status, number in connection.execute(query.order_by(groups.c.id, tally.c.status)):
            cell = found.setdefault((study, model, task), {})
            cell[Status(status)] = cell.get(Status(status), 0) + number
    return found


def totals(engine: Engine, study: str | None = None) -> dict[Status, int]:
    """How many rows of the whole table (or of one study) are in each status, those at zero included."""
    with reading(engine) as connection:
        # Not GROUP BY: at a million rows SQLite would sort them.
        tally = [func.count().filter(is_(jobs.c.status, status)) for status in Status]
        query = select(*tally).select_from(jobs)
        if study is not None:
            query = query.where(jobs.c.study == study)
        return dict(zip(Status, connection.execute(query).one(), strict=True))


@dataclass(frozen=True)
class Throughput:
    """How fast rows were computed lately, and how many are left."""

    done: int
    seconds: float  #: the time they took: the window, or less where the work began within it
    left: int

    @property
    def per_hour(self) -> float:
        """Rows an hour; 0 where nothing was done lately."""
        return 3600 * self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def time_left(self) -> timedelta | None:
        """At this rate; None where nothing was done lately."""
        return timedelta(hours=self.left / self.per_hour) if self.per_hour else None


def throughput(
    engine: Engine, selection: Selection | None = None, window: timedelta = timedelta(minutes=10)
) -> Throughput:
    """Rows of ``selection`` computed within the last ``window``, on the database's clock."""
    seconds = window.total_seconds()
    with reading(engine) as connection:
        where = chosen(connection, selection, newest_only=False)
        done, first, now = connection.execute(
            select(func.count(), func.min(jobs.c.started_at), clock()).where(
                is_(jobs.c.status, Status.COMPUTED, Status.DONE), jobs.c.ended_at > clock() - seconds, *where
            )
        ).one()
        # Each by its partial index: no database puts two together for an IN.
        alive = (is_(jobs.c.status, status) for status in (Status.QUEUED, Status.RUNNING))
        left = sum(connection.scalar(select(func.count()).where(status, *where)) or 0 for status in alive)
    return Throughput(done, min(seconds, now - first) if done else seconds, left)


def pin(engine: Engine, group_id: int, resolved: Mapping[str, str], by: Sequence[Job] = ()) -> dict[str, str] | None:
    """Write what the group's first batch resolved at run time; returns what is stored, which for a later batch is what
    the first one wrote. None: of the attempts ``by`` which it was resolved none is held any more; nothing was written.
    """
    with writing(engine) as connection:
        hold(connection, [group_id])  # whoever is about to unpin it comes before or after, never between
        if by and connection.scalar(select(jobs.c.id).where(*held(by[0].worker, by)).limit(1)) is None:
            return None
        stored = connection.execute(select(groups.c.resolved).where(groups.c.id == group_id)).scalar_one()
        if stored is None:
            stored = json.dumps(dict(resolved), sort_keys=True)
            # A parent run that is there already is looked for again, and told.
            anew = {"resolved": stored, "parent_run_id": None}
            connection.execute(update(groups).where(groups.c.id == group_id).values(**anew))
    result: dict[str, str] = json.loads(stored)
    return result
