"""Outbox → MLflow. Any worker's loop does it, on any host; every step may be repeated, so a crash is only a delay."""

from __future__ import annotations

import logging
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
        for at, record in enumerate(records):
            try:
                record_one(engine, tracking, record)
            except Exception as error:
                for waiting in records[at:]:
                    outbox.give_back(engine, waiting, str(error))
                if isinstance(error, TrackingUnreachable):
                    raise
                # A record that MLflow refuses must not hold up those behind it; it backs off and stays visible.
                log.exception("job %d attempt %d could not be recorded", record.job.id, record.attempt)
                break
            recorded += 1
        if not records:
            break
    return recorded


def record_one(engine: Engine, tracking: Tracking, record: outbox.Record) -> None:
    """One attempt into MLflow: parent, run, the parent's per-layer metrics, then ``computed`` → ``done``.

    The projection comes before ``done``: a computed row can only become done, and a crash in between repeats it.
    """
    parent = parent_of(engine, tracking, record)
    entry = entry_of(record)
    run_id = tracking.record(entry, parent)
    if record.kind == "finished":
        tracking.project(parent, [entry.result(run_id)])
    outbox.recorded(engine, record, run_id)


def parent_of(engine: Engine, tracking: Tracking, record: outbox.Record) -> str:
    """The group's parent run. Made under the group's lock, which is held only where it is not known yet: on SQLite the
    lock stops every other writer for as long as MLflow takes to answer."""
    if record.parent_run_id is not None:
        known = tracking.parent(record.group, record.resolved, record.parent_run_id)
        if known == record.parent_run_id:
            return known
    with outbox.parent(engine, record.job.group_id) as held:
        parent = tracking.parent(record.group, record.resolved, held.run_id)
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
        log=record.log,
    )
