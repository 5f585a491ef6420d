"""Queue: cells by status, workers, pace, failures with their logs; and where it is allowed, retry and cancel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component
from sqlalchemy import Engine

from clipstudy import queueview, recorder
from clipstudy.dashboard import address
from clipstudy.dashboard.address import Queue
from clipstudy.dashboard.pages import components
from clipstudy.dashboard.pages.components import Control, Desk, Shown
from clipstudy.errors import ClipstudyError, NoSuchJob
from clipstudy.job import Job, Selection, Status
from clipstudy.queue import jobs
from clipstudy.queueview import FailureRow, QueueView, WorkerRow
from clipstudy.redaction import redact
from clipstudy.results import boards
from clipstudy.wording import counted

KIND = Queue
TITLE = "Queue"
#: Cells that one page shows; and kinds of failure, and (model, task) pairs, of which more are folded.
MOST, MOST_FAILURES, MOST_PAIRS = 2000, 8, 12
#: Statuses that are shown where none is chosen: what still happens, and what went wrong.
LIVE = (Status.RUNNING, Status.QUEUED, Status.COMPUTED, Status.FAILED)
#: What a status means, where the word alone does not say it.
MEANINGS: Mapping[str, str] = MappingProxyType({
    Status.COMPUTED: "computed (not in MLflow yet)",
    Status.SUPERSEDED: "superseded (its settings changed)",
})  # fmt: skip
#: How columns of the cells are called, where not as a job's own field.
HEADERS: Mapping[str, str] = MappingProxyType({"id": "job"})


def controls(place: Queue, desk: Desk) -> list[Control]:
    """Which study, where there are several, and cells of which statuses."""
    if desk.engine is None:
        return []
    studies = _studies(desk, desk.engine)
    several = [components.one("study", "Study", studies, place.study, "all")]
    statuses = [str(status) for status in Status]
    chosen = [status for status in statuses if status in _statuses(place)]
    return [
        *(several if len(studies) > 1 else []),
        Control("status", "Cells", components.options(statuses, MEANINGS), chosen, "ticks"),
    ]


def body(place: Queue, desk: Desk) -> Shown:
    """The page; where the job table does not answer, what is wrong with it."""
    if desk.engine is None:
        return Shown("No job table", components.nothing(TITLE, "There is no job table here. Type:", "clipstudy init"))
    try:
        return _body(place, desk, desk.engine)
    except ClipstudyError as error:
        return Shown("The job table does not answer", components.nothing(TITLE, redact(error.message)))


def act(engine: Engine, verb: str, ids: Iterable[object], study: str | None = None) -> str:
    """Retry or cancel these rows, whatever a browser sent for their numbers; says what came of it.

    Args:
        study: the only one whose rows may be changed; None: any.

    Raises:
        ClipstudyError: the job table does not answer.
    """
    numbers = sorted({n for n in ids if isinstance(n, int) and not isinstance(n, bool) and 0 < n < 2**63})
    if not numbers:
        return "No cell is chosen. Tick some in the table."
    # By their numbers: the same layer of older settings is another row, which nobody ticked.
    if verb == "cancel":
        count = jobs.cancel(engine, Selection(study=study), ids=numbers)
    else:
        count = jobs.retry(engine, Selection(study=study), failed=True, lost=True, cancelled=True, ids=numbers)
    done = "cancelled" if verb == "cancel" else "queued again"
    left = f"; {len(numbers) - count} were in another state" if count < len(numbers) else ""
    return f"{counted(count, 'cell')} {done}{left}."


# -- inside ------------------------------------------------------------------------------------------------------


def _body(place: Queue, desk: Desk, engine: Engine) -> Shown:
    selection = Selection(study=desk.records.study or place.study or None)
    wrong = [
        *components.unknown("study", [place.study], _studies(desk, engine)),
        *components.unknown("status", place.status, map(str, Status)),
    ]
    view = queueview.read(engine, selection)
    if not view.counts:
        nothing = "Nothing is enqueued."
        said = components.nothing(TITLE, nothing, "clipstudy enqueue --all")
        return Shown(nothing, [*components.complaints(wrong), *said])
    cells = jobs.rows(engine, selection, _statuses(place), limit=MOST + 1)
    return Shown(
        view.summary,
        [
            *components.complaints(wrong),
            *components.callout(boards.note_of(r for r in desk.records.now().results if place.study in ("", r.study))),
            html.H2("Queue"),
            html.P(view.summary, className="summary"),
            *_log(place, desk, engine),
            *_failures(place, view),
            html.H3("Workers"),
            _workers(view.workers, not view.settled),
            html.H3("By model and task"),
            _by_model_and_task(view),
            html.H3("Cells"),
            *_cells(place, cells, desk.allow_actions),
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


def _workers(workers: Sequence[WorkerRow], waits: bool) -> Component:
    if not workers and not waits:
        return html.P("No worker is at work, and nothing waits for one.")
    if not workers:
        return html.P(["No worker is at work. Type: ", html.Code("clipstudy worker")])
    return _texts(
        ["worker", "host", "device", "computes", "last seen"],
        [(worker.name, [worker.host, worker.device, worker.computes, worker.seen]) for worker in workers],
    )


def _failures(place: Queue, view: QueueView) -> list[Component]:
    """The failures, those of one kind in one line; more kinds than a person reads at once are folded."""
    if not view.failures:
        return []
    first, more = view.failures[:MOST_FAILURES], view.failures[MOST_FAILURES:]
    folded = [_folded("fold-failures", counted(len(more), "more kind"), _failure_table(place, more))] if more else []
    advice = [html.P(said) for said in queueview.advice(view.failures)]
    return [html.H3(f"{view.failed:,} failed"), _failure_table(place, first), *folded, *advice]


def _failure_table(place: Queue, failures: Sequence[FailureRow]) -> Component:
    def log(failure: FailureRow) -> Component:
        return dcc.Link(f"log of {failure.job}", href=address.href(Queue(place.study, place.status, failure.job)))

    def message(failure: FailureRow) -> Component:
        return html.Span(redact(failure.message), className="error")

    lines = [(f.cells, [f.layers, f.reason, message(f), log(f)]) for f in failures]
    return _texts(["model and task", "layers", "reason", "message", ""], lines)


def _by_model_and_task(view: QueueView) -> Component:
    there = [status for status in Status if view.totals.get(status)]
    several = len({study for study, _, _ in view.counts}) > 1
    lines = [
        (
            f"{study}: {model} · {task}" if several else f"{model} · {task}",
            [(f"{by_status[s]:,}" if by_status.get(s) else "·", False) for s in there],
        )
        for (study, model, task), by_status in view.counts.items()
    ]
    table = components.table("", ["model and task", *map(str, there)], lines)
    few = len(lines) <= MOST_PAIRS
    return table if few else _folded("fold-pairs", f"Progress of each of {len(lines):,} pairs", table)


def _texts(head: Sequence[str], lines: Sequence[tuple[str, Sequence[Any]]]) -> Component:
    """A table of texts, none of them better than the others."""
    plain = [(name, [(cell, False) for cell in cells]) for name, cells in lines]
    return components.table("", head, plain, numbers=False)


def _folded(name: str, title: str, content: Component) -> Component:
    """What is shown when it is asked for; by its name the browser knows it again when the page looks anew."""
    return html.Details([html.Summary(title), content], id=name)


def _log(place: Queue, desk: Desk, engine: Engine) -> list[Component]:
    if place.job is None:
        return []
    try:
        job = jobs.get(engine, place.job)
        if desk.records.study not in (None, job.study):
            raise NoSuchJob(f"Job {job.id} is of another study than {desk.records.study}, which is shown here.")
        text = recorder.log_of(engine, desk.records.tracking, job)
    except ClipstudyError as error:
        return [html.P(redact(error.message), className="callout", role="alert")]
    close = dcc.Link("close", href=address.href(Queue(place.study, place.status)))
    shown = redact(text) if text else f"It is {job.status} and {queueview.no_log(job)}"
    title = f"Log of job {job.id}: {job.model} · {job.task} · {job.label}"
    return [html.H3(title), html.P(close), html.Pre(shown, className="log", tabIndex="0")]


def _cells(place: Queue, cells: list[Job], choose: bool) -> list[Component]:
    """The cells, and what may be done to them."""
    if not cells:
        return [html.P(f"None is {_listed(_statuses(place))}.")]
    cut = [html.P(f"Only the first {MOST:,} are shown.")] if len(cells) > MOST else []
    return [*cut, *(_buttons() if choose else []), _grid(cells[:MOST], choose)]


def _buttons() -> list[Component]:
    return [
        html.Div(
            [
                html.Button("Retry ticked cells", id={"type": "act", "verb": "retry"}, n_clicks=0),
                html.Button("Cancel ticked cells", id={"type": "act", "verb": "cancel"}, n_clicks=0),
            ],
            className="buttons",
        )
    ]


def _grid(rows: list[Job], choose: bool) -> Component:
    studies = ["study"] if len({job.study for job in rows}) > 1 else []
    names = ("id", *studies, "model", "task", "layer", "status", "attempt", "worker", "error")
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
            "headerName": HEADERS.get(name, name),
            "tooltipField": name,
            "filter": "agNumberColumnFilter" if name in ("id", "attempt") else True,
            "width": components.wide(max([len(name), *(len(str(row[name])) for row in shown)])),
        }
        for name in names
    ]
    ticks = {"rowSelection": {"mode": "multiRow"}} if choose else {}
    return components.grid("cells", "cells of the queue", columns, shown, ticks, getRowId="params.data.key")
