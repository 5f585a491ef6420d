"""One way to put right each kind of disagreement. Each may be repeated, and each leaves alone what has moved on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from clipstudy import recorder
from clipstudy.doctor import ledger
from clipstudy.doctor.ledger import Disagreement, Kind, State
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
class Ward:
    """What the mends work on."""

    engine: Engine
    tracking: Tracking
    state: State


def mend(engine: Engine, tracking: Tracking, state: State, found: Sequence[Disagreement]) -> None:
    """Put ``found`` right, kind by kind, and bring to MLflow (where it answered) what waits for it."""
    ward = Ward(engine, tracking, state)
    for kind, act in MENDS.items():
        if of_kind := [one for one in found if one.kind is kind]:
            with contextlib.suppress(TrackingUnreachable):  # looking again will say so
                act(ward, of_kind)
    if state.runs is not None:
        with contextlib.suppress(TrackingUnreachable):
            for _ in recorder.drain(engine, tracking, NAME):
                pass


def _take_back(ward: Ward, found: Sequence[Disagreement]) -> None:
    while jobs.requeue_expired(ward.engine):
        pass


def _wake(ward: Ward, found: Sequence[Disagreement]) -> None:
    audit.wake(ward.engine)


def _finish(ward: Ward, found: Sequence[Disagreement]) -> None:
    for one in found:
        assert one.run is not None  # a row is done only when its run was FINISHED: nothing is missing in it
        records.close(ward.tracking, one.run, "FINISHED")


def _restore(ward: Ward, found: Sequence[Disagreement]) -> None:
    for one in found:
        assert one.job is not None and one.job.run_id is not None
        records.restore(ward.tracking, one.job.run_id)


def _adopt(ward: Ward, found: Sequence[Disagreement]) -> None:
    for one in found:
        assert one.job is not None and one.run is not None
        audit.adopt(ward.engine, one.job, one.run.id)


def _recompute(ward: Ward, found: Sequence[Disagreement]) -> None:
    audit.recompute(ward.engine, [one.job for one in found if one.job is not None])


def _tell(ward: Ward, found: Sequence[Disagreement]) -> None:
    for one in found:
        assert one.job is not None
        audit.tell_again(ward.engine, one.job)


def _delete(ward: Ward, found: Sequence[Disagreement]) -> None:
    # Not closed as KILLED: its recorder, if there is one still (another table's), would take that for its own record.
    for one in found:
        assert one.run is not None
        records.delete(ward.tracking, one.run.id)


def _gather(ward: Ward, found: Sequence[Disagreement]) -> None:
    children = ledger.children_of(ward.state)
    for one in found:
        assert one.run is not None
        records.gather(ward.tracking, one.run.id, children[one.run.group])


def _one_parent(ward: Ward, found: Sequence[Disagreement]) -> None:
    children = ledger.children_of(ward.state)
    for one in found:
        assert one.run is not None
        records.gather(ward.tracking, one.other, children[one.run.group])
        records.delete(ward.tracking, one.run.id)


def _new_parent(ward: Ward, found: Sequence[Disagreement]) -> None:
    children = ledger.children_of(ward.state)
    for one in found:
        assert one.group is not None
        row = one.group
        with outbox.parent(ward.engine, row.id) as held:
            parent = held.run_id = ward.tracking.parent(row.group, row.resolved, held.run_id)
        records.gather(ward.tracking, parent, children[group_key(row.group)])


#: Mended when nothing else is left: which children a parent has follows from all the rest.
LAST = frozenset({Kind.PARENTS, Kind.PARENT, Kind.ORPHANED})
#: In the order in which they are done.
MENDS: Mapping[Kind, Callable[[Ward, Sequence[Disagreement]], None]] = MappingProxyType({
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
