"""What a person does with rows: cancel, retry, rerun, rank. One transaction each, in turn with enqueueing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Engine, and_, false, or_, select, true
from sqlalchemy.sql.expression import ColumnElement

from clipstudy.job import FailureKind, Selection, Status
from clipstudy.queue.cells import among, chosen, hold, move, unpin
from clipstudy.queue.dialect import clock, is_, serialise, writing
from clipstudy.queue.enqueue import ASKED_AFRESH
from clipstudy.queue.schema import groups, jobs


def cancel(engine: Engine, selection: Selection, *, running: bool = True, ids: Collection[int] | None = None) -> int:
    """Queued and (unless told otherwise) running rows → cancelled, older settings included. A running row's worker
    learns it by its next beat, and its outcome is refused. What is computed is kept. Returns how many.

    Args:
        ids: of the selection these rows alone.
    """
    statuses = (Status.QUEUED, Status.RUNNING) if running else (Status.QUEUED,)
    where = and_(is_(jobs.c.status, *statuses), _among(ids))
    gone = {"status": Status.CANCELLED, "run_after": None, "lease_until": None, "ended_at": clock()}
    return _apply(engine, selection, where, gone)


def retry(
    engine: Engine,
    selection: Selection,
    *,
    failed: bool = True,
    lost: bool = False,
    cancelled: bool = False,
    ids: Collection[int] | None = None,
) -> int:
    """Queue again, with all tries anew: rows that failed by an error (``failed``), that failed because their workers
    vanished (``lost``), that were cancelled (``cancelled``). Only of the newest settings. Returns how many.

    A row that was lost last is claimed alone still.

    Args:
        ids: of the selection these rows alone.
    """
    was_lost = is_(jobs.c.failure, FailureKind.LOST)
    which = [
        (failed, and_(is_(jobs.c.status, Status.FAILED), or_(jobs.c.failure.is_(None), ~was_lost))),
        (lost, and_(is_(jobs.c.status, Status.FAILED), was_lost)),
        (cancelled, is_(jobs.c.status, Status.CANCELLED)),
    ]
    where = or_(false(), *(condition for asked, condition in which if asked))
    return again(engine, selection, and_(where, _among(ids)))


def rerun(engine: Engine, selection: Selection) -> int:
    """Done and failed rows of the newest settings → queued. Each keeps its run's id until another attempt is recorded.
    Returns how many.

    A group of which nothing is left that is done, computed or running begins anew, with the checkpoint and the data of
    today: the way on where they changed.
    """
    return again(engine, selection, is_(jobs.c.status, Status.DONE, Status.FAILED))


def set_priority(engine: Engine, selection: Selection, priority: int) -> int:
    """Rank what is queued or runs. Higher is claimed first. Returns how many rows were ranked.

    Siblings share one pass, so a group ranks by its highest row that is ready.
    """
    where = is_(jobs.c.status, Status.QUEUED, Status.RUNNING)
    return _apply(engine, selection, where, {"priority": priority})


def _among(ids: Collection[int] | None) -> ColumnElement[bool]:
    return true() if ids is None else among(jobs.c.id, ids)


def _apply(engine: Engine, selection: Selection, where: ColumnElement[bool], values: Mapping[str, Any]) -> int:
    """Whatever settings the rows are of."""
    with writing(engine) as connection:
        serialise(connection, "enqueue")
        return len(move(connection, [where, *chosen(connection, selection, newest_only=False)], values))


def again(engine: Engine, selection: Selection, where: ColumnElement[bool]) -> int:
    """Queue rows of the newest settings; a group of theirs that has nothing to show begins anew."""
    with writing(engine) as connection:
        serialise(connection, "enqueue")
        conditions = [where, *chosen(connection, selection, newest_only=True)]
        of_them = groups.c.id.in_(select(jobs.c.group_id).where(*conditions))
        pinned = connection.scalars(select(groups.c.id).where(of_them, groups.c.resolved.is_not(None))).all()
        hold(connection, pinned)
        moved = move(connection, conditions, ASKED_AFRESH)
        unpin(connection, pinned)
        return len(moved)
