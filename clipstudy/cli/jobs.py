"""Commands about the rows of the job table: status, show, logs, cancel, retry, rerun, prioritise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from clipstudy.cli import selecting, stores
from clipstudy.cli.options import All, JobNumber, Json, Layers, Models, Study, Tasks
from clipstudy.errors import ClipstudyError, printable
from clipstudy.job import LARGEST, FailureKind, Selection, Status
from clipstudy.redaction import redact
from clipstudy.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine


def status(
    study: Study = None,
    model: Models = None,
    task: Tasks = None,
    layer: Layers = None,
    rows: Annotated[bool, typer.Option("--rows", help="List every cell instead of counts.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every two seconds.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is queued, running, done and failed, which workers are at work, their pace and the time left."""
    from rich.console import Console

    from clipstudy import queueview
    from clipstudy.cli import status as terminal

    if watch and as_json:
        raise typer.BadParameter("type --watch or --json, not both")
    engine = stores.engine(Settings.read())
    chosen = Selection(tuple(model or ()), tuple(task or ()), selecting.layers(layer), selecting.study_name(study))
    selection = selecting.existing(engine, chosen)
    if as_json:
        typer.echo(json.dumps(queueview.as_json(engine, selection, rows=rows), default=str))
    elif watch:
        terminal.watch(engine, selection, rows=rows)
    else:
        Console().print(terminal.page(engine, selection, rows=rows))


def show(job: JobNumber, as_json: Json = False) -> None:
    """Show everything known about one job."""
    from clipstudy.queue import jobs

    engine = stores.engine(Settings.read())
    row = jobs.get(engine, job)
    group, resolved, _ = jobs.group_of(engine, row.group_id)
    facts = {name: value for name, value in vars(row).items() if value is not None}
    if as_json:
        known = {**facts, "specification": json.loads(group.to_json()), "resolved": _read(resolved)}
        typer.echo(json.dumps(known, default=str))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {printable(redact(str(value)))}")
    typer.echo(f"{'options':<{width}}  {json.dumps(dict(group.task.options))}")
    typer.echo(f"{'resolved':<{width}}  {printable(redact(resolved or 'not yet'))}")


def _read(resolved: str | None) -> object:
    """As the table has it, where somebody wrote something else than JSON there."""
    try:
        return json.loads(resolved or "{}")
    except ValueError:
        return resolved


def logs(job: JobNumber) -> None:
    """Print the log of a job's last attempt."""
    from clipstudy import queueview, recorder
    from clipstudy.queue import jobs
    from clipstudy.tracking import open as open_tracking

    settings = Settings.read()
    engine = stores.engine(settings)
    row = jobs.get(engine, job)
    text = recorder.log_of(engine, open_tracking(settings), row)
    if text is None:
        raise ClipstudyError(f"job {job} is {row.status} and {queueview.no_log(row)}")
    typer.echo(printable(text), nl=False)


def cancel(
    everything: All = False, study: Study = None, model: Models = None, task: Tasks = None, layer: Layers = None
) -> None:
    """Cancel queued and running cells. Enqueueing them again revives them."""
    from clipstudy.queue import jobs

    selection = selecting.selection(model, task, layer, everything, "cancel", study)
    engine = stores.engine(Settings.read())
    _changed(
        engine, selection, jobs.cancel(engine, selecting.existing(engine, selection)), "cancelled", "queued or running"
    )


def retry(
    failed: Annotated[bool, typer.Option("--failed", help="Cells that failed (the default).")] = False,
    lost: Annotated[bool, typer.Option("--lost", help="Cells whose worker vanished.")] = False,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Cells that were cancelled.")] = False,
    everything: All = False,
    study: Study = None,
    model: Models = None,
    task: Tasks = None,
    layer: Layers = None,
) -> None:
    """Queue failed cells again with a fresh count of tries."""
    from clipstudy.queue import jobs
    from clipstudy.wording import counted

    selection = selecting.selection(model, task, layer, True, "retry", study)
    failed = failed or not (lost or cancelled)
    engine = stores.engine(Settings.read())
    number = jobs.retry(engine, selecting.existing(engine, selection), failed=failed, lost=lost, cancelled=cancelled)
    left = _lost(engine, selection) if failed and not lost else 0
    of_errors = "failed by an error" if left else "failed"
    meant = [of_errors] if failed else ["failed as lost (its worker vanished)"] if lost else []
    if cancelled:
        meant.append("cancelled")
    more = f"; {counted(left, 'cell')} failed because a worker vanished: clipstudy retry --lost" if left else ""
    _changed(engine, selection, number, "queued again", " or ".join(meant), more, newest_only=True)


def _lost(engine: Engine, selection: Selection) -> int:
    """How many of the cells failed because their workers vanished."""
    from clipstudy.queue import jobs

    return sum(job.failure is FailureKind.LOST for job in jobs.rows(engine, selection, [Status.FAILED]))


def rerun(
    everything: All = False, study: Study = None, model: Models = None, task: Tasks = None, layer: Layers = None
) -> None:
    """Compute done and failed cells again. Results stay until the new ones are recorded.

    Use it when a checkpoint or a data file has changed: a (model, task) that is rerun as a whole takes the new one.
    """
    from clipstudy.queue import jobs

    selection = selecting.selection(model, task, layer, everything, "rerun", study)
    engine = stores.engine(Settings.read())
    number = jobs.rerun(engine, selecting.existing(engine, selection))
    left = len(jobs.rows(engine, selection, [Status.RUNNING, Status.COMPUTED]))
    later = f"; {left} not done yet: type it again later" if left else ""
    _changed(engine, selection, number, "queued again", "done or failed", later, newest_only=True)


def prioritise(
    priority: Annotated[int, typer.Argument(min=-LARGEST, max=LARGEST, help="Higher runs first; 0 is the default.")],
    everything: All = False,
    study: Study = None,
    model: Models = None,
    task: Tasks = None,
    layer: Layers = None,
) -> None:
    """Change which groups run first; a group ranks by its highest-priority cell."""
    from clipstudy.queue import jobs

    selection = selecting.selection(model, task, layer, everything, f"prioritise {priority}", study)
    engine = stores.engine(Settings.read())
    number = jobs.set_priority(engine, selecting.existing(engine, selection), priority)
    _changed(engine, selection, number, "changed", "queued or running")


def _changed(
    engine: Engine, selection: Selection, number: int, done: str, of: str, more: str = "", *, newest_only: bool = False
) -> None:
    """How many cells a verb changed; where none, why: it is about cells that are ``of``, and those meant are not.

    Args:
        newest_only: it is about cells of the newest settings alone.
    """
    from clipstudy import queueview
    from clipstudy.queue import jobs
    from clipstudy.wording import counted

    why = ""
    if not number:
        totals = queueview.totals_of(jobs.counts(engine, selection, newest_only=newest_only))
        there = ", ".join(f"{count:,} {status}" for status, count in totals.items()) or "none"
        why = f": none is {of}. What is there: {there}"
    typer.echo(f"{counted(number, 'cell')} {done}{why}{more}")
