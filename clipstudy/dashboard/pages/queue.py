"""Queue: cells by status, workers, pace, failures with their logs; and where it is allowed, retry and cancel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component
from sqlalchemy import Engine

from clipstudy import recorder
from clipstudy.dashboard import address, tables
from clipstudy.dashboard.address import Queue
from clipstudy.dashboard.pages import parts
from clipstudy.dashboard.pages.parts import Control, Desk, Shown
from clipstudy.errors import ClipstudyError
from clipstudy.job import Job, Selection, Status
from clipstudy.progress import duration
from clipstudy.queue import jobs, outbox
from clipstudy.settings import redact

KIND = Queue
TITLE = "Queue"
#: Cells and kinds of failure that one page shows.
MOST, MOST_FAILURES = 2000, 20
#: Statuses that are shown where none is chosen: what still happens, and what went wrong.
LIVE = (Status.RUNNING, Status.QUEUED, Status.COMPUTED, Status.FAILED)


def controls(place: Queue, desk: Desk) -> list[Control]:
    if desk.engine is None:
        return []
    studies = _studies(desk, desk.engine)
    several = [parts.one("study", "Study", studies, place.study, "all")]
    statuses = [str(status) for status in Status]
    chosen = [status for status in statuses if status in _statuses(place)]
    return [
        *(several if len(studies) > 1 else []),
        Control("status", "Cells", parts.options(statuses), chosen, "ticks"),
    ]


def body(place: Queue, desk: Desk) -> Shown:
    if desk.engine is None:
        return Shown("No job table", parts.nothing(TITLE, "There is no job table here. Type:", "clipstudy init"))
    try:
        return _body(place, desk, desk.engine)
    except ClipstudyError as error:
        return Shown("The job table does not answer", parts.nothing(TITLE, redact(error.message)))


def act(engine: Engine, verb: str, ids: Iterable[object]) -> str:
    """Retry or cancel these rows, whatever a browser sent for their numbers; says what came of it."""
    numbers = sorted({n for n in ids if isinstance(n, int) and not isinstance(n, bool) and 0 < n < 2**63})
    if not numbers:
        return "No cell is chosen. Tick some in the table."
    # By their numbers: the same layer of older settings is another row, which nobody ticked.
    if verb == "cancel":
        count = jobs.cancel(engine, Selection(), ids=numbers)
    else:
        count = jobs.retry(engine, Selection(), failed=True, lost=True, cancelled=True, ids=numbers)
    done = "cancelled" if verb == "cancel" else "queued again"
    left = f"; {len(numbers) - count} were in another state" * (count < len(numbers))
    return f"{count} cell{'s' * (count != 1)} {done}{left}."


# -- inside ------------------------------------------------------------------------------------------------------


def _body(place: Queue, desk: Desk, engine: Engine) -> Shown:
    selection = Selection(study=desk.records.study or place.study or None)
    counts = jobs.counts(engine, selection)
    wrong = [
        *parts.unknown("study", [place.study], _studies(desk, engine)),
        *parts.unknown("status", place.status, map(str, Status)),
    ]
    if not counts:
        said = "Nothing is enqueued."
        return Shown(said, [*parts.complaints(wrong), *parts.nothing(TITLE, said, "clipstudy enqueue --all")])
    totals: Counter[Status] = Counter()
    for by_status in counts.values():
        totals.update(by_status)
    rows = jobs.rows(engine, selection, _statuses(place), limit=MOST + 1)
    said = _summary(totals, jobs.throughput(engine, selection), outbox.pending(engine, selection.study))
    return Shown(
        said,
        [
            *parts.complaints(wrong),
            *parts.callout(tables.note_of(r for r in desk.records.now().results if place.study in ("", r.study))),
            html.H2("Queue"),
            html.P(said, className="summary"),
            *_log(place, desk, engine),
            *_failures(place, jobs.rows(engine, selection, [Status.FAILED])),
            html.H3("Workers"),
            _workers(engine, jobs.rows(engine, selection, [Status.RUNNING])),
            html.H3("Cells"),
            *([html.P(f"The first {MOST:,}.")] if len(rows) > MOST else []),
            *(_cells(rows[:MOST], desk.allow_actions) if rows else [html.P(f"None is {_listed(_statuses(place))}.")]),
            html.H3("By model and task"),
            _counts(counts, totals),
        ],
    )


def _statuses(place: Queue) -> list[Status]:
    return [status for status in Status if status in place.status] or list(LIVE)


def _studies(desk: Desk, engine: Engine) -> list[str]:
    """The studies that have cells; of a dashboard on one study only this."""
    return sorted({study for study, _, _ in jobs.names(engine) if desk.records.study in (None, study)})


def _listed(statuses: list[Status]) -> str:
    *others, last = map(str, statuses)
    return f"{', '.join(others)} or {last}" if others else last


def _summary(totals: Counter[Status], pace: jobs.Throughput, waiting: int) -> str:
    live = sum(n for status, n in totals.items() if status not in (Status.CANCELLED, Status.SUPERSEDED))
    text = f"{totals[Status.DONE]:,} of {live:,} cells done"
    text += f", {totals[Status.RUNNING]:,} running, {totals[Status.QUEUED]:,} queued, {totals[Status.FAILED]:,} failed"
    if cancelled := totals[Status.CANCELLED]:
        text += f", {cancelled:,} more cancelled"
    if pace.time_left and pace.left:
        text += f"; {pace.per_hour / 60:,.1f} cells a minute, {duration(pace.time_left.total_seconds())} left"
    return text + (f"; {waiting} attempts wait for MLflow" if waiting else "")


def _workers(engine: Engine, running: Iterable[Job]) -> Component:
    found = jobs.workers(engine)
    # A worker says at its next beat what it is at; its rows know at once.
    at = {job.worker: f"{job.model} · {job.task}" for job in running}
    if not found:
        return html.P(["No worker is at work. Type: ", html.Code("clipstudy worker")])
    lines = [
        (
            w.name,
            [
                (w.host, False),
                (w.device, False),
                (w.batch or at.get(w.name, "idle"), False),
                (f"{duration(w.age or 0)} ago", False),
            ],
        )
        for w in found
    ]
    return parts.table("", ["worker", "host", "device", "at work on", "last seen"], lines, numbers=False)


def _failures(place: Queue, failed: list[Job]) -> list[Component]:
    """The failures, those of one kind in one line."""
    if not failed:
        return []
    alike: dict[tuple[str, str, str | None], list[Job]] = {}
    for job in failed:
        alike.setdefault((job.model, job.task, job.error), []).append(job)
    lines: list[tuple[Any, list[tuple[Any, bool]]]] = []
    for (model, task, error), some in list(alike.items())[:MOST_FAILURES]:
        which = some[0].label if len(some) == 1 else f"{len(some)} layers"
        log = dcc.Link(f"log of {some[0].id}", href=address.href(Queue(place.study, place.status, some[0].id)))
        kind = str(some[0].failure or "")
        said = html.Span(redact(error or ""), className="error")
        lines.append((f"{model} · {task}", [(which, False), (kind, False), (said, False), (log, False)]))
    head = f"{len(failed)} failed"
    more = [html.P(f"… and {len(alike) - MOST_FAILURES} more kinds.")] if len(alike) > MOST_FAILURES else []
    return [html.H3(head), parts.table("", ["cells", "which", "failure", "message", ""], lines, numbers=False), *more]


def _log(place: Queue, desk: Desk, engine: Engine) -> list[Component]:
    if place.job is None:
        return []
    try:
        job = jobs.get(engine, place.job)
        text = recorder.log_of(engine, desk.records.tracking, job)
    except ClipstudyError as error:
        return [html.P(redact(error.message), className="callout", role="alert")]
    close = dcc.Link("close", href=address.href(Queue(place.study, place.status)))
    said = redact(text) if text else f"It is {job.status} and has no log yet."
    title = f"Log of job {job.id}: {job.model} · {job.task} · {job.label}"
    return [html.H3(title), html.P(close), html.Pre(said, className="log", tabIndex="0")]


def _cells(rows: list[Job], choose: bool) -> list[Component]:
    """The cells, and what may be done to them."""
    return [*(_buttons() if choose else []), _grid(rows, choose)]


def _buttons() -> list[Component]:
    return [
        html.Div(
            [
                html.Button("Retry the ticked", id={"type": "act", "verb": "retry"}, n_clicks=0),
                html.Button("Cancel the ticked", id={"type": "act", "verb": "cancel"}, n_clicks=0),
            ],
            className="buttons",
        )
    ]


def _grid(rows: list[Job], choose: bool) -> Component:
    several = len({job.study for job in rows}) > 1
    names = ("id", *(["study"] * several), "model", "task", "layer", "status", "attempt", "worker", "error")
    shown = [
        {
            "key": str(job.id),
            "id": job.id,
            "study": job.study,
            "model": job.model,
            "task": job.task,
            "layer": job.label,
            "status": str(job.status),
            "attempt": job.attempt,
            "worker": job.worker or "",
            "error": redact(job.error or ""),
        }
        for job in rows
    ]
    columns = [
        {
            "field": name,
            "headerName": "job" if name == "id" else name,
            "tooltipField": name,
            "filter": "agNumberColumnFilter" if name in ("id", "attempt") else True,
            "width": parts.wide(max([len(name), *(len(str(row[name])) for row in shown)])),
        }
        for name in names
    ]
    ticks = {"rowSelection": {"mode": "multiRow"}} if choose else {}
    return parts.grid("cells", "cells of the queue", columns, shown, ticks, getRowId="params.data.key")


def _counts(counts: dict[tuple[str, str, str], dict[Status, int]], totals: Counter[Status]) -> Component:
    there = [status for status in Status if totals[status]]
    several = len({study for study, _, _ in counts}) > 1
    lines = [
        (
            f"{study}: {model} · {task}" if several else f"{model} · {task}",
            [(f"{by_status[s]:,}" if by_status.get(s) else "·", False) for s in there],
        )
        for (study, model, task), by_status in counts.items()
    ]
    return parts.table("", ["cells", *map(str, there)], lines)
