"""One way to put right each kind of disagreement. Each may be repeated, and each leaves alone what has moved on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from clipstudy import recorder
from clipstudy.doctor import comparison
from clipstudy.doctor.comparison import Disagreement, Kind, State
from clipstudy.errors import TrackingUnreachable
from clipstudy.queue import audit, jobs, outbox
from clipstudy.tracking import Tracking
from clipstudy.tracking import audit as records
from clipstudy.tracking.entry import group_key

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: How the doctor is called where a recorder is named.
NAME = "doctor"


@dataclass(frozen=True)
class Stores:
    """What the mends work on: job table and MLflow, and what was read from them."""

    engine: Engine
    tracking: Tracking
    state: State


def mend(engine: Engine, tracking: Tracking, state: State, found: Sequence[Disagreement]) -> None:
    """Put ``found`` right, kind by kind, and bring to MLflow (where it answered) what waits for it."""
    stores = Stores(engine, tracking, state)
    for kind, act in MENDS.items():
        if of_kind := [one for one in found if one.kind is kind]:
            with contextlib.suppress(TrackingUnreachable):  # looking again will say so
                act(stores, of_kind)
    if state.runs is not None:
        with contextlib.suppress(TrackingUnreachable):
            for _ in recorder.drain(engine, tracking, NAME):
                pass


def _take_back(stores: Stores, found: Sequence[Disagreement]) -> None:
    while jobs.requeue_expired(stores.engine):
        pass


def _wake(stores: Stores, found: Sequence[Disagreement]) -> None:
    audit.wake(stores.engine)


def _finish(stores: Stores, found: Sequence[Disagreement]) -> None:
    for one in found:
        assert one.run is not None  # a row is done only when its run was FINISHED: nothing is missing in it
        records.close(stores.tracking, one.run, "FINISHED")


def _restore(stores: Stores, found: Sequence[Disagreement]) -> None:
    for one in found:
        assert one.job is not None and one.job.run_id is not None
        records.restore(stores.tracking, one.job.run_id)


def _adopt(stores: Stores, found: Sequence[Disagreement]) -> None:
    for one in found:
        assert one.job is not None and one.run is not None
        audit.adopt(stores.engine, one.job, one.run.id)


def _recompute(stores: Stores, found: Sequence[Disagreement]) -> None:
    audit.recompute(stores.engine, [one.job for one in found if one.job is not None])


def _tell(stores: Stores, found: Sequence[Disagreement]) -> None:
    for one in found:
        assert one.job is not None
        audit.tell_again(stores.engine, one.job)


def _delete(stores: Stores, found: Sequence[Disagreement]) -> None:
    # Not closed as KILLED: its recorder, if there is one still (another table's), would take that for its own record.
    for one in found:
        assert one.run is not None
        records.delete(stores.tracking, one.run.id)


def _gather(stores: Stores, found: Sequence[Disagreement]) -> None:
    children = comparison.children_of(stores.state)
    for one in found:
        assert one.run is not None
        records.gather(stores.tracking, one.run.id, children[one.run.group])


def _one_parent(stores: Stores, found: Sequence[Disagreement]) -> None:
    children = comparison.children_of(stores.state)
    for one in found:
        assert one.run is not None
        records.gather(stores.tracking, one.other, children[one.run.group])
        records.delete(stores.tracking, one.run.id)


def _new_parent(stores: Stores, found: Sequence[Disagreement]) -> None:
    children = comparison.children_of(stores.state)
    for one in found:
        assert one.group is not None
        row = one.group
        with outbox.parent(stores.engine, row.id) as held:
            parent = held.run_id = stores.tracking.parent(row.group, held.resolved, held.run_id)
        records.gather(stores.tracking, parent, children[group_key(row.group)])


#: Mended when nothing else is left: which children a parent has follows from all the rest.
LAST = frozenset({Kind.PARENTS, Kind.PARENT, Kind.ORPHANED})
#: In the order in which they are done.
MENDS: Mapping[Kind, Callable[[Stores, Sequence[Disagreement]], None]] = MappingProxyType({
    Kind.EXPIRED: _take_back,
    Kind.REFUSED: _wake,
    Kind.STUCK: _wake,
    Kind.UNFINISHED: _finish,
    Kind.TRASHED: _restore,
    Kind.MISSED: _adopt,
    Kind.GONE: _recompute,
    Kind.UNSENT: _recompute,
    Kind.UNTOLD: _tell,
    Kind.OPEN: _delete,
    Kind.TWICE: _delete,
    Kind.PARENTS: _one_parent,
    Kind.PARENT: _gather,
    Kind.ORPHANED: _new_parent,
})  # fmt: skip
