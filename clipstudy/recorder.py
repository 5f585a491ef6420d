"""Outbox → MLflow. Any worker's loop does it, on any host; every step may be repeated, so a crash is only a delay."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from clipstudy.errors import TrackingUnreachable
from clipstudy.queue import outbox
from clipstudy.tracking import Entry, Tracking

if TYPE_CHECKING:
    from sqlalchemy import Engine

log = logging.getLogger(__name__)

#: How long a recorder holds what it took. It is renewed by nothing, so it is longer than MLflow's own time-outs.
LEASE = timedelta(minutes=3)


def drain(engine: Engine, tracking: Tracking, name: str, *, limit: int = 16, most: int | None = None) -> int:
    """Record what waits in the outbox, oldest first, and return how many attempts were recorded.

    Raises:
        TrackingUnreachable: MLflow does not answer; what was taken is given back and waits.
    """
    recorded = 0
    while most is None or recorded < most:
        records = outbox.take(engine, name, lease=LEASE, limit=limit)
        if not records:
            break
        groups: dict[int, list[outbox.Record]] = {}
        for record in records:
            groups.setdefault(record.job.group_id, []).append(record)
        while groups:
            of_group = groups.pop(next(iter(groups)))
            try:
                record_group(engine, tracking, of_group)
            except Exception as error:
                unreachable = isinstance(error, TrackingUnreachable)
                waiting = [*of_group, *(r for rest in groups.values() for r in rest)] if unreachable else of_group
                for one in waiting:
                    outbox.give_back(engine, one, str(error))
                if unreachable:
                    raise
                # What MLflow refuses must not hold up those behind it; it backs off and stays visible.
                log.exception("job %d attempt %d could not be recorded", of_group[0].job.id, of_group[0].attempt)
                continue
            recorded += len(of_group)
    return recorded


def record_group(engine: Engine, tracking: Tracking, records: Sequence[outbox.Record]) -> None:
    """Attempts of one group into MLflow: the parent, a run each, the parent's per-layer metrics, then ``computed`` →
    ``done``.

    The projection comes before ``done``: a computed row can only become done, and a crash in between repeats it.
    """
    parent = parent_of(engine, tracking, records[0])
    runs = [(record, tracking.record(entry_of(record), parent)) for record in records]
    finished = [entry_of(record).result(run_id) for record, run_id in runs if record.kind == "finished"]
    if finished:
        tracking.project(parent, finished)
    for record, run_id in runs:
        outbox.recorded(engine, record, run_id)


def parent_of(engine: Engine, tracking: Tracking, record: outbox.Record) -> str:
    """The group's parent run. Made under the group's lock, which is held only where it is not known yet: on SQLite the
    lock stops every other writer for as long as MLflow takes to answer."""
    if record.parent_run_id is not None:
        known = tracking.parent(record.group, record.resolved, record.parent_run_id)
        if known == record.parent_run_id:
            return known
    with outbox.parent(engine, record.job.group_id) as held:
        parent = tracking.parent(record.group, record.resolved, held.run_id, record.started)
        if parent != held.run_id:
            held.set(parent)
    return parent


def entry_of(record: outbox.Record) -> Entry:
    return Entry(
        group=record.group,
        job=record.job.id,
        attempt=record.attempt,
        layer=record.job.layer,
        label=record.job.label,
        kind=record.kind,
        started=record.started,
        ended=record.ended,
        metrics=record.metrics,
        params=record.params,
        tags=record.tags,
        artifacts=record.artifacts,
        error=record.error,
        log=record.log or "",
    )
