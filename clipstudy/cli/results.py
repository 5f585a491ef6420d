"""Commands that show what MLflow has: report, results, ui."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipstudy.cli import ports, screen, selecting, stores
from clipstudy.cli.options import DashboardName, Models, Study, Tasks
from clipstudy.errors import ClipstudyError
from clipstudy.job import Selection, Status
from clipstudy.redaction import redact
from clipstudy.settings import Settings

if TYPE_CHECKING:
    from clipstudy.outcome import Result
    from clipstudy.results.boards import Board
    from clipstudy.results.planned import Planned
    from clipstudy.results.views import View

FORMATS = ("text", "markdown", "csv", "latex", "json")
#: What to type where nothing is recorded yet, by the first of these statuses that a cell is in.
NEXT = {
    Status.RUNNING: "clipstudy status --watch",
    Status.QUEUED: "clipstudy worker --drain",
    Status.FAILED: "clipstudy status",
    Status.CANCELLED: "clipstudy retry --cancelled",
    Status.COMPUTED: "clipstudy doctor",
    Status.DONE: "clipstudy doctor",
}


def report(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The page to write: report.html, or report-NAME.html of a study or dashboard named.",
        ),
    ] = None,
    study: Study = None,
    model: Models = None,
    task: Tasks = None,
    dashboard: DashboardName = "layers",
    note: Annotated[str, typer.Option(help="A sentence to put at the top of the page.")] = "",
) -> None:
    """Write one self-contained HTML page: per-layer charts, averages by category, result tables and claims."""
    from clipstudy.dashboard import panels
    from clipstudy.dashboard import report as reports
    from clipstudy.results import evidence, writers
    from clipstudy.results.run_files import RunFiles
    from clipstudy.tracking import open as open_tracking

    settings = Settings.read()
    selection = Selection(tuple(model or ()), tuple(task or ()))
    whole = recorded(study)
    found = _chosen(whole, selection)
    panel = panels.find(dashboard, settings.home)
    tracking = open_tracking(settings)
    name = selecting.study_name(study)
    planned = stores.planned(settings, replace(selection, study=name))
    # Claims are about what is there, not about what of it a page shows.
    everything = stores.planned(settings, Selection(study=name)) if selection != Selection() else planned
    judged = evidence.judged(whole, tracking.artifact, everything, tracking.gone())
    shown = {result.study for result in found}
    judged = {of: verdicts for of, verdicts in judged.items() if of in shown}
    # Another dashboard's or study's page beside the first, not over it.
    parts = [name or "", "" if dashboard == "layers" else Path(dashboard).stem]
    out = out or Path(f"{writers.file_name('report', *dict.fromkeys(parts))}.html")
    reports.write(
        found, out, dashboard=panel, study_note=note, judged=judged, files=RunFiles(tracking), planned=planned
    )
    for said in panels.misspelt(panel, board(found)):
        typer.echo(said, err=True)
    typer.echo(f"{len(found)} results → {out.resolve()}")
    _say_unfinished(planned)


def results(
    study: Study = None,
    model: Models = None,
    task: Tasks = None,
    metric: Annotated[str | None, typer.Option(help="A metric other than the task's headline.")] = None,
    best: Annotated[bool, typer.Option("--best", help="One table: tasks by models, each at its best layer.")] = False,
    format: Annotated[str, typer.Option("--format", "-f", help="text, markdown, csv, latex or json.")] = "text",
) -> None:
    """Print the recorded results: one table per task, models by layer, mean ± half of the 95% interval."""
    from clipstudy.errors import NoResults, did_you_mean, nearest
    from clipstudy.outcome import flat
    from clipstudy.results import boards

    if format not in FORMATS:
        raise ClipstudyError(f'--format "{format}". {did_you_mean(format, FORMATS)}')
    selection = Selection(tuple(model or ()), tuple(task or ()))
    shown = board(_chosen(recorded(study), selection))
    metrics = {name for r in shown.results for name in r.metrics}
    if metric is not None and metric not in metrics:
        named = {name for name in metrics if "/" not in name}  # others are arms and single places: a hundred
        raise NoResults(f'The results have no metric "{metric}". {nearest(metric, metrics)}{did_you_mean("", named)}')
    if best:
        _best(shown, metric, format)
    elif format == "json":
        found = [(r, boards.estimates(r.metrics)) for r in shown.results if metric is None or metric in r.metrics]
        chosen = [(r, {k: v for k, v in of.items() if metric in (None, k)}) for r, of in found]
        typer.echo(json.dumps([{**_keyed(r), "metrics": flat(of)} for r, of in chosen]))
    else:
        _by_layer(shown, metric, format)
    _say_unfinished(stores.planned(Settings.read(), replace(selection, study=selecting.study_name(study))))


def _say_unfinished(planned: Planned) -> None:
    """On stderr, so that a table in a file stays a table."""
    from clipstudy.results.planned import unfinished

    if said := unfinished(planned):
        typer.echo(said, err=True)


def _by_layer(shown: Board, metric: str | None, format: str) -> None:
    """A table a task of what is ``shown``, models by layer."""
    from clipstudy.results import boards, comparisons, units, writers

    if format == "csv":  # one table, whose lines name their task
        views = [view for name in shown.tasks if (view := boards.view(shown, name, metric))]
        typer.echo(writers.to_csv(*(comparisons.levelled(view, shown) for view in views)), nl=False)
        return
    formats = {"markdown": writers.to_markdown, "latex": writers.to_latex}
    # What a study says of itself is said once, above its tables, where a person reads them one after another.
    once = boards.note_of(shown.results) if format in ("text", "markdown") else ""
    if once:
        typer.echo(f"*{once}*\n" if format == "markdown" else once)
    one_class = False
    for name in shown.tasks:
        view = boards.view(shown, name, metric)
        if view is None:
            continue
        one_class |= any(cell.one_class for curve in view.curves for cell in curve.cells)
        view = comparisons.levelled(view, shown)
        if once:
            view = replace(view, note="")
        if writer := formats.get(format):
            typer.echo(writer(view))
            continue
        head, body = writers.grid(view)
        typer.echo(f"\n{view.title}: {units.axis_title(view.metric)}")
        called = _modules(view)
        rows = [[called.get(row, row), *(text + (" *" if best else "") for text, best in cells)] for row, cells in body]
        screen.table(["layer", *head], rows)
    if format == "text":
        typer.echo(f"\nValue {units.INTERVAL}.")
        typer.echo("* the best layer, chosen on dev where there is one,")
        typer.echo("  and those that the intervals cannot tell from it")
        if one_class:
            typer.echo(f"†: {units.ONE_CLASS}")
        for line in shown.notes:
            typer.echo(line)


def _best(shown: Board, metric: str | None, format: str) -> None:
    """The table of best layers of what is ``shown``.

    Raises:
        ClipstudyError: it is of several studies, where a task of one name may be of other data.
        NoResults: nothing of it has a best layer.
    """
    from clipstudy.errors import NoResults
    from clipstudy.results import boards, sheets

    studies = sorted({result.study for result in shown.results})
    if len(studies) > 1:
        again = f"clipstudy results --best --study {shlex.quote(studies[0])}"
        raise ClipstudyError(
            f"--best compares the models of one study, and these results are of {', '.join(studies)}. Type: {again}"
        )
    sheet = sheets.best([view for name in shown.tasks if (view := boards.view(shown, name, metric))])
    if not sheet.lines:
        raise NoResults(
            "Nothing chosen has a best layer: for what was measured, neither higher nor lower is better. To see all "
            "layers, type it again without --best, or name another --metric."
        )
    writers = {"markdown": sheets.to_markdown, "csv": sheets.to_csv, "latex": sheets.to_latex, "json": sheets.to_json}
    if writer := writers.get(format):
        typer.echo(writer(sheet))
        return
    if sheet.note:
        typer.echo(sheet.note)
    rows = [[name, *(entry.text + " *" * entry.bold for entry in entries)] for name, entries in sheet.lines]
    screen.table(list(sheet.head), rows)
    typer.echo(f"\n{sheet.said.replace('bold:', '*')}.")


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Serve MLflow's own pages on the right store."""
    import os

    from clipstudy.tracking import open as open_tracking

    settings = Settings.read()
    if settings.tracking.startswith("http"):
        typer.echo(f"the MLflow server is at {redact(settings.tracking)}")
        return
    open_tracking(settings).prepare()
    ports.check("ui", port)
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.environ["MLFLOW_BACKEND_STORE_URI"] = settings.tracking  # not a word of the command: it may hold a password
    typer.echo(f"MLflow on http://127.0.0.1:{port} (Ctrl-C stops it)", err=True)
    typer.echo("Its pages may say that MLflow collects usage data: here, that is off.", err=True)
    command = ["-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *command])


def board(found: list[Result]) -> Board:
    """The results that count, their models and tasks in the order in which the page `layers` has them."""
    from clipstudy.dashboard import panels
    from clipstudy.results import boards

    page = panels.find("layers", Settings.read().home)
    shown = boards.board(found, page.order)

    def place(task: str) -> int:
        category = shown.by_task[task][-1].tags.get("category", "")
        return next((at for at, panel in enumerate(page.panels) if panel.takes(task, category)), len(page.panels))

    return replace(shown, tasks=tuple(sorted(shown.tasks, key=place)))


def _modules(view: View) -> dict[str, str]:
    """Of layers that are named modules of a model: the row's name → the same with theirs."""
    from clipstudy.results import units

    found: dict[str, set[str]] = {}
    for cell in (cell for curve in view.curves for cell in curve.cells):
        if cell.layer > 0 and cell.label not in ("", f"block {cell.layer}"):
            found.setdefault(units.layer_name(cell.layer, view.modality), set()).add(cell.label)
    return {row: f"{row} ({', '.join(sorted(names))})" for row, names in found.items()}


def recorded(study: str | None) -> list[Result]:
    """What MLflow has of the study named (or of all), called as the job table calls it now."""
    from clipstudy.errors import NoResults
    from clipstudy.results.presented import presented
    from clipstudy.tracking import open as open_tracking

    settings = Settings.read()
    tracking, name = open_tracking(settings), selecting.study_name(study)
    found = tracking.results(name)
    if not found:
        others = {r.study for r in tracking.results()} if name is not None else set()
        raise NoResults(_nothing(settings, name, others))
    with contextlib.suppress(ClipstudyError):  # without a job table, as they were called when they were measured
        found = presented(found, stores.groups(stores.engine(settings)))
    return found


def _nothing(settings: Settings, study: str | None, others: set[str]) -> str:
    """That nothing is recorded of ``study`` (or at all), why, as the job table tells it, and what to type.

    Args:
        others: studies of which something is recorded.
    """
    from clipstudy import queueview
    from clipstudy.errors import NotMigrated
    from clipstudy.queue import jobs

    text = f"Nothing{f' of {study}' * bool(others)} is recorded yet in {redact(settings.tracking)}"
    try:
        planned = jobs.counts(stores.engine(settings))
    except NotMigrated:
        planned = {}
    except ClipstudyError:
        return f"{text}. To see what is queued, running or failed, type: clipstudy status"
    studies = {of for of, _, _ in planned}
    if others and study not in studies:
        return f"The results have {selecting.unknown_name(Selection(study=study), study=others)}"
    if study is not None and studies and study not in studies:
        return f"{text}, and the job table has {selecting.unknown_name(Selection(study=study), study=studies)}"
    totals = queueview.totals_of({cell: numbers for cell, numbers in planned.items() if study in (None, cell[0])})
    for status, command in NEXT.items():
        if totals.get(status):
            there = ", ".join(f"{number:,} {status}" for status, number in totals.items())
            return f"{text}. What is enqueued: {there}. Type: {command}"
    return (
        f"{text}, and nothing is enqueued. If your study is in another folder, go there or type: export "
        "CLIPSTUDY_HOME=FOLDER. To see a study at work first: clipstudy demo. To start your own: clipstudy init, "
        "clipstudy enqueue --all, clipstudy worker --drain"
    )


def _chosen(found: list[Result], selection: Selection) -> list[Result]:
    """Those of ``found`` that are selected. Raises NoResults, which says what there is."""
    from clipstudy.errors import NoResults

    if unknown := selecting.unknown_name(selection, model={r.model for r in found}, task={r.task for r in found}):
        raise NoResults(f"The results have {unknown}")
    kept = [r for r in found if selection.takes(r.model, r.task)]
    if not kept:
        raise NoResults("No result matches both --model and --task. Fix --model or --task.")
    return kept


def _keyed(result: Result) -> dict[str, Any]:
    names = ("run_id", "study", "model", "task", "layer")
    return {name: getattr(result, name) for name in names}
