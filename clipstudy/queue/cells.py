"""How rows become values, selections become conditions, and rows are moved: fenced, and in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import Row, Select, bindparam, exists, select, tuple_, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import ColumnElement

from clipstudy.errors import Unreadable
from clipstudy.job import FailureKind, Group, Job, Selection, Status
from clipstudy.queue.dialect import instant, is_
from clipstudy.queue.schema import groups, jobs

#: A row whose columns the query decides.
AnyRow: TypeAlias = Row[*tuple[Any, ...]]

#: A row of `jobs` with what its group says about it: what :func:`job_from` reads.
JOBS: Select[Any] = select(jobs, groups.c.study, groups.c.task, groups.c.digest).join_from(jobs, groups)

_KINDS = {str(kind): kind for kind in FailureKind}

#: A group of which this is true has rows that reckon with what it resolved at run time.
STANDS: ColumnElement[bool] = exists().where(
    jobs.c.group_id == groups.c.id, is_(jobs.c.status, Status.RUNNING, Status.COMPUTED, Status.DONE)
)


def job_from(row: AnyRow, group: AnyRow | None = None) -> Job:
    """A Job from a row of ``JOBS``, or from a bare row of `jobs` and its group's. What is no instant or no kind of
    failure, of another version or a hand, is left out: such a row must not stop those beside it."""
    named = group or row
    return Job(
        id=row.id,
        group_id=row.group_id,
        study=named.study,
        model=row.model,
        task=named.task,
        digest=named.digest,
        layer=row.layer,
        label=row.label,
        status=Status(row.status),
        attempt=row.attempt,
        tries=row.tries,
        max_tries=row.max_tries,
        priority=row.priority,
        run_after=_when(row.run_after),
        worker=row.worker,
        lease_until=_when(row.lease_until),
        failure=_KINDS.get(row.failure),
        error=row.error,
        run_id=row.run_id,
        created_at=_when(row.created_at),
        started_at=_when(row.started_at),
        ended_at=_when(row.ended_at),
    )


def group_from(row: AnyRow) -> Group:
    """The Group of a row of `groups`.

    Raises:
        Unreadable: what this version makes of the settings is not what was enqueued: it knows other keys.
    """
    group = Group.from_json(row.spec)
    if group.digest != row.digest:
        raise Unreadable(
            "These settings were enqueued by another version, and this one would compute something else. Update "
            "clipstudy, or type: clipstudy enqueue --all; then: clipstudy retry --all"
        )
    return group


def _when(seconds: float | None) -> datetime | None:
    try:
        return instant(seconds)
    except (ValueError, OverflowError, OSError):
        return None


def among(column: ColumnElement[int], ids: Iterable[int]) -> ColumnElement[bool]:
    """``column`` IN ``ids``, however many: written out, since databases limit the number of parameters."""
    return column.in_(bindparam(None, list(ids), expanding=True, literal_execute=True))


def chosen(connection: Connection, selection: Selection | None, *, newest_only: bool) -> list[ColumnElement[bool]]:
    """The conditions on `jobs` that ``selection`` means. Patterns are matched here: SQL has its own idea of them."""
    conditions: list[ColumnElement[bool]] = []
    selection = selection or Selection()
    if newest_only or selection.models or selection.tasks or selection.study is not None:
        of: list[ColumnElement[bool]] = [groups.c.newest] if newest_only else []
        if selection.study is not None:
            of.append(groups.c.study == selection.study)
        if selection.models or selection.tasks:
            query = select(groups.c.id, groups.c.model, groups.c.task).where(*of)
            found = [row.id for row in connection.execute(query) if selection.takes(row.model, row.task)]
            conditions.append(among(jobs.c.group_id, found))
        else:
            conditions.append(jobs.c.group_id.in_(select(groups.c.id).where(*of)))
    if selection.layers:
        conditions.append(jobs.c.layer.in_(selection.layers))
    return conditions


def held(worker: str | None, jobs_held: Sequence[Job]) -> list[ColumnElement[bool]]:
    """The fence: these very attempts, still running, still of this worker."""
    pairs = [(job.id, job.attempt) for job in jobs_held]
    return [is_(jobs.c.status, Status.RUNNING), jobs.c.worker == worker, tuple_(jobs.c.id, jobs.c.attempt).in_(pairs)]


def move(connection: Connection, where: Sequence[ColumnElement[bool]], values: Mapping[str, Any]) -> Sequence[AnyRow]:
    """UPDATE the rows that satisfy ``where``; returns them (id, group_id, status) as they are now.

    They are locked in the order of their ids first: two verbs that meet on the same rows wait for one another and
    cannot deadlock.
    """
    locked = select(jobs.c.id).where(*where).order_by(jobs.c.id).with_for_update().cte("locked")
    return connection.execute(
        update(jobs)
        .where(jobs.c.id == locked.c.id)
        .values(**values)
        .returning(jobs.c.id, jobs.c.group_id, jobs.c.status)
    ).all()


def hold(connection: Connection, group_ids: Iterable[int], *, shared: bool = False) -> Sequence[AnyRow]:
    """Lock groups until the transaction ends; their ids and whether each is the newest of its kind.

    Always before jobs are locked, and in the order of their ids.
    """
    query = select(groups.c.id, groups.c.newest).where(among(groups.c.id, set(group_ids))).order_by(groups.c.id)
    return connection.execute(query.with_for_update(read=shared, key_share=not shared)).all()


def unpin(connection: Connection, group_ids: Iterable[int]) -> None:
    """Forget what groups resolved at run time, where no row of theirs stands: what comes next resolves it anew.

    The groups are held already, and so that a claim at this moment cannot be overlooked: its worker pins only when the
    group is let go, and finds nothing there.
    """
    connection.execute(update(groups).where(among(groups.c.id, group_ids), ~STANDS).values(resolved=None))


def older_among(connection: Connection, group_ids: Iterable[int]) -> set[int]:
    """Which of these groups have newer settings beside them; the others stay the newest until the transaction ends.

    Asked before a row goes back to the queue: an enqueue with changed settings at the same moment either has been
    seen here, or waits and then finds the row queued. Only rows of groups that were asked for may go back.
    """
    return {row.id for row in hold(connection, group_ids, shared=True) if not row.newest}


def supersede(connection: Connection, job_ids: Iterable[int], older: set[int]) -> set[int]:
    """Rows that just went back to the queue of a group whose settings have changed since: superseded. Their ids."""
    moved = move(
        connection,
        [among(jobs.c.id, job_ids), is_(jobs.c.status, Status.QUEUED), among(jobs.c.group_id, older)],
        {"status": Status.SUPERSEDED},
    )
    return {row.id for row in moved}
