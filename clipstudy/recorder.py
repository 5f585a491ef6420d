"""Outbox → MLflow. Any worker's loop does it, on any host; every step may be repeated, so a crash is only a delay."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING

from clipstudy.errors import DatabaseBusy, DatabaseUnreachable, TrackingUnreachable
from clipstudy.job import Job, Status
from clipstudy.outcome import LOG
from clipstudy.queue import outbox
from clipstudy.redaction import redact
from clipstudy.tracking import Entry, Tracking

if TYPE_CHECKING:
    from sqlalchemy import Engine

log = logging.getLogger(__name__)

#: How long a recorder holds what it took. Renewed between records, so longer than MLflow's time-outs for one.
LEASE = timedelta(minutes=3)
#: Seconds for which one that slept past its lease waits for what the other one makes of the same results, and between
#: two looks.
SETTLING, LOOK = 10.0, 0.2


def drain(
    engine: Engine, tracking: Tracking, name: str, *, limit: int = 16, enough: Callable[[], bool] = lambda: False
) -> Iterator[int]:
    """Record what waits in the outbox, oldest first; how many attempts were recorded, group by group.

    ``enough`` is asked after each attempt, recorded or refused: once it says so, what is left is let go. What was
    refused here is not tried again in the same call, however short its rest.

    Raises:
        TrackingUnreachable: MLflow does not answer; what was taken is given back and waits.
        DatabaseUnreachable: what was taken waits until its lease is over.
    """
    tried = set[int]()
    while not (tried and enough()):
        records = outbox.take(engine, name, lease=LEASE, limit=limit)
        if not records:
            break
        if tried.issuperset(record.id for record in records):
            outbox.let_go(engine, records[0].token)
            break
        of_group: dict[int, list[outbox.Record]] = {}
        for record in records:
            of_group.setdefault(record.job.group_id, []).append(record)
        parts = list(of_group.values())
        renew = renewing(engine, records[0].token)
        while parts and not (tried and enough()):
            part = parts.pop(0)
            tried |= {record.id for record in part}
            try:
                yield record_group(engine, tracking, part, renew, enough)
            except DatabaseBusy:  # another recorder is making the parent run, and MLflow may take its time with it
                outbox.put_off(engine, part)
            except DatabaseUnreachable:
                raise
            except Exception as error:  # MLflow and its stores raise of every kind; one record must not stop the others
                away = isinstance(error, TrackingUnreachable)
                if away and not tracking.answers():
                    for record in chain(part, *parts):
                        outbox.give_back(engine, record, redact(str(error)))
                    raise
                if len(part) > 1:
                    parts[:0] = [[record] for record in part]  # which of them is it?
                    continue
                # What MLflow refuses must not hold up those behind it; it backs off and stays visible.
                outbox.give_back(engine, part[0], redact(f"{type(error).__name__}: {error}"))
                log.error(
                    "job %d attempt %d could not be recorded: %s", part[0].job.id, part[0].attempt, error,
                    exc_info=not away,
                )  # fmt: skip
        if enough():
            outbox.let_go(engine, records[0].token)


def renewing(engine: Engine, token: str) -> Callable[[], None]:
    """What to call before each record: it renews the lease where a third of it has gone by."""
    since = time.monotonic()

    def renew() -> None:
        nonlocal since
        if time.monotonic() - since > LEASE.total_seconds() / 3:
            outbox.renew(engine, token, lease=LEASE)
            since = time.monotonic()

    return renew


def record_group(
    engine: Engine,
    tracking: Tracking,
    records: Sequence[outbox.Record],
    renew: Callable[[], None],
    enough: Callable[[], bool] = lambda: False,
) -> int:
    """Attempts of one group into MLflow: the parent, a run each, the parent's per-layer metrics, then ``computed`` →
    ``done``. At least one, and no more of them once it is ``enough``. How many were recorded.

    The projection comes before ``done``: a computed row can only become done, and a crash in between repeats it. It
    closes the parent, so it is made where nothing finished, too.
    """
    parent = parent_of(engine, tracking, records[0])
    runs: list[tuple[outbox.Record, str]] = []
    for record in records:
        if runs and enough():
            break
        renew()
        runs.append((record, tracking.record(entry_of(record), parent)))
    tracking.project(parent, [entry_of(record).result(run_id) for record, run_id in runs if record.kind == "finished"])
    late = [(record, run_id) for record, run_id in runs if not outbox.recorded(engine, record, run_id)]
    settle(engine, tracking, late)
    return len(runs) - len(late)


def settle(engine: Engine, tracking: Tracking, late: Sequence[tuple[outbox.Record, str]]) -> None:
    """Results whose lease ran out while this recorder slept: another one is at them, or was. Its run, once the table
    names it, is the one that stays; where it takes ours instead, that does."""
    until = time.monotonic() + SETTLING
    for record, run_id in late:
        while (named := outbox.run_named(engine, record)) is None and time.monotonic() < until:
            time.sleep(LOOK)
        if named not in (None, run_id):
            tracking.settle(named, run_id)


def parent_of(engine: Engine, tracking: Tracking, record: outbox.Record) -> str:
    """The group's parent run, made by one recorder at a time."""
    if record.parent_run_id is not None and tracking.active(record.parent_run_id):
        return record.parent_run_id
    with outbox.parent(engine, record.job.group_id) as held:
        held.run_id = tracking.parent(record.group, held.resolved, held.run_id, record.started)
        return held.run_id


def entry_of(record: outbox.Record) -> Entry:
    """What MLflow shall hold of a record of the outbox: the same values under the names of runs."""
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


def log_of(engine: Engine, tracking: Tracking, job: Job) -> str | None:
    """The log of the row's last attempt, from the outbox while it waits there, else from MLflow; None: it has none yet.

    Raises:
        TrackingUnreachable: MLflow does not answer.
        ClipstudyError: the run kept no log.
    """
    text = outbox.log_of(engine, job)
    if text is not None or not job.attempt:
        return text
    run = job.run_id if job.status is Status.DONE else tracking.run_of(job) or job.run_id
    return tracking.artifact(run, LOG).decode(errors="replace") if run else None
