"""The job table as a person looks at it: counts, pace, workers, failures. Values, for a terminal and a page to draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clipstudy.job import SETTLED, FailureKind, Job, Selection, Status
from clipstudy.queue import jobs, outbox
from clipstudy.wording import counted, duration

if TYPE_CHECKING:
    from sqlalchemy import Engine

Counts = Mapping[tuple[str, str, str], Mapping[Status, int]]  #: (study, model, task) -> how many in each status

#: Seconds after its last heartbeat from which a worker is no longer counted as at work: more than two leases, as they
#: are by default.
UNHEARD = 300
#: What ended an attempt: the word that verbs and scripts know, and what it means.
REASONS: Mapping[FailureKind, str] = MappingProxyType({
    FailureKind.CODE: "code: its data, model or code is at fault",
    FailureKind.INFRA: "infra: a server, the network or memory failed",
    FailureKind.LOST: "lost: its worker vanished",
})  # fmt: skip


@dataclass(frozen=True)
class WorkerRow:
    """A worker in words."""

    name: str
    host: str
    device: str
    computes: str  #: ``bert · depth``, or ``idle``
    seen: str  #: when it gave its last sign of life: ``3 s ago``


@dataclass(frozen=True)
class FailureRow:
    """Failed cells with one message."""

    cells: str  #: ``bert · depth``, or ``bert · 14 tasks``
    layers: str  #: ``block 3``, ``7 layers``, or of several models or tasks ``90 cells``
    reason: str  #: of REASONS, or empty
    message: str
    job: int  #: the first one's number: its log says more

    @property
    def lost(self) -> bool:
        """Their workers vanished, and left no log."""
        return self.reason == REASONS[FailureKind.LOST]


@dataclass(frozen=True)
class QueueView:
    """The chosen cells of the table, as they stood when they were read."""

    counts: Counts  #: in the order of enqueueing
    totals: Mapping[Status, int]  #: of all of them; a status that does not occur is not there
    summary: str  #: ``12 of 56 cells done, 44 queued; lately 9.5 cells per minute, 4 min 38 s left at that pace``
    workers: tuple[WorkerRow, ...]  #: all that are registered, whatever was chosen
    failures: tuple[FailureRow, ...]

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen by itself."""
        return SETTLED.issuperset(self.totals)

    @property
    def failed(self) -> int:
        """How many cells have failed."""
        return self.totals.get(Status.FAILED, 0)


def read(engine: Engine, selection: Selection) -> QueueView:
    """What the table says of the cells chosen, by their newest settings.

    Raises:
        DatabaseUnreachable: the job table does not answer.
    """
    counts = jobs.counts(engine, selection)
    totals, workers = totals_of(counts), jobs.workers(engine)
    return QueueView(
        counts=counts,
        totals=totals,
        summary=summary(totals, jobs.throughput(engine, selection), at_work(workers)),
        workers=worker_rows(workers, jobs.rows(engine, None, [Status.RUNNING], newest_only=False)),
        failures=failure_rows(jobs.rows(engine, selection, [Status.FAILED])),
    )


def as_json(engine: Engine, selection: Selection, *, rows: bool = False) -> dict[str, Any]:
    """The same for a script, as plain values: numbers instead of sentences; ``rows`` adds every cell. Of the whole
    table are ``workers``, and ``outbox``: records that wait for MLflow, those of failed attempts included.
    """
    counts = jobs.counts(engine, selection)
    pace, workers = jobs.throughput(engine, selection), jobs.workers(engine)
    values: dict[str, Any] = {
        "totals": {str(status): number for status, number in totals_of(counts).items()},
        "groups": [
            {"study": study, "model": model, "task": task, **{str(s): n for s, n in by_status.items()}}
            for (study, model, task), by_status in counts.items()
        ],
        "workers": [vars(worker) for worker in workers],
        "cells_per_minute": round(pace.per_hour / 60, 2),
        "seconds_left": round(pace.time_left.total_seconds()) if pace.time_left and at_work(workers) else None,
        "outbox": outbox.pending(engine),
    }
    if rows:
        values["rows"] = [vars(job) for job in jobs.rows(engine, selection)]
    return values


def totals_of(counts: Counts) -> dict[Status, int]:
    """How many cells are in each status that occurs."""
    totals: Counter[Status] = Counter()
    for by_status in counts.values():
        totals.update(by_status)
    return dict(totals)


def at_work(workers: Iterable[jobs.WorkerInfo]) -> bool:
    """Has one of ``workers`` been heard of lately? One that was killed stays in the table until another looks."""
    return any((worker.age or 0) < UNHEARD for worker in workers)


def summary(totals: Mapping[Status, int], pace: jobs.Throughput, anybody: bool = True) -> str:
    """How far the cells are, in a sentence; ``anybody``: is there a worker at work?"""
    live = sum(number for status, number in totals.items() if status not in (Status.CANCELLED, Status.SUPERSEDED))
    text = f"{totals.get(Status.DONE, 0):,} of {live:,} cells done"
    for status in (Status.RUNNING, Status.QUEUED, Status.FAILED):
        if number := totals.get(status, 0):
            text += f", {number:,} {status}"
    if cancelled := totals.get(Status.CANCELLED, 0):
        text += f", {cancelled:,} more cancelled"
    if pace.left and not anybody:
        text += "; no worker is at work"
    elif pace.left and pace.time_left:
        left = duration(pace.time_left.total_seconds())
        text += f"; lately {pace.per_hour / 60:,.1f} cells per minute, {left} left at that pace"
    if waiting := totals.get(Status.COMPUTED, 0):
        text += f"; {counted(waiting, 'result')} not in MLflow yet"
    return text


def worker_rows(workers: Iterable[jobs.WorkerInfo], running: Iterable[Job]) -> tuple[WorkerRow, ...]:
    """``workers`` in words. One says at its next sign of life what it computes; its ``running`` rows know at once."""
    at = {job.worker: f"{job.model} · {job.task}" for job in running}
    return tuple(
        WorkerRow(w.name, w.host, w.device, w.batch or at.get(w.name, "idle"), f"{duration(w.age or 0)} ago")
        for w in workers
    )


def failure_rows(failed: Iterable[Job]) -> tuple[FailureRow, ...]:
    """The jobs that ``failed``, those with one message together: one missing file may fail every task of a model."""
    alike: dict[tuple[str | None, FailureKind | None], list[Job]] = {}
    for job in failed:
        alike.setdefault((job.error, job.failure), []).append(job)
    return tuple(
        FailureRow(
            cells=f"{_named((job.model for job in same), 'model')} · {_named((job.task for job in same), 'task')}",
            layers=_layers(same),
            reason="" if kind is None else REASONS[kind],
            message=error or "",
            job=same[0].id,
        )
        for (error, kind), same in alike.items()
    )


def _named(names: Iterable[str], what: str) -> str:
    first, *others = dict.fromkeys(names)
    return counted(1 + len(others), what) if others else first


def _layers(cells: Sequence[Job]) -> str:
    if len(cells) == 1:
        return cells[0].label
    return counted(len(cells), "layer" if len({(job.model, job.task) for job in cells}) == 1 else "cell")


def advice(failures: Sequence[FailureRow]) -> tuple[str, ...]:
    """What to type where there are ``failures``."""
    errors, lost = ([f for f in failures if f.lost is vanished] for vanished in (False, True))
    lines = []
    if errors:
        lines.append(f"see: clipstudy logs {errors[0].job}; fix it, then: clipstudy retry --failed")
    if lost:
        lines.append(f"see: clipstudy show {lost[0].job} (its worker vanished); then: clipstudy retry --lost")
    if errors:
        mended = "if you fixed the study file: clipstudy enqueue --all; a queued cell keeps the settings it came with"
        lines.append(f"({mended})")
    return tuple(lines)


def no_log(job: Job) -> str:
    """Why ``job`` has no log, and what to type, behind "it is …, and"."""
    if job.status is Status.CANCELLED:
        return "has no log; a log is kept when an attempt ends. To run it: clipstudy retry --cancelled"
    if job.status is Status.SUPERSEDED:
        return "has no log: its settings were changed before it ran. See: clipstudy status"
    if job.failure is FailureKind.LOST and job.status is Status.FAILED:
        return f"has no log: its worker vanished. See: clipstudy show {job.id}"
    return f"has no log yet. See: clipstudy show {job.id}"
