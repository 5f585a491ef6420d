"""The command line: parse, call one function, print. Heavy imports are inside the commands that need them."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipstudy.errors import ClipstudyError, QueueError, StudyError
from clipstudy.job import Selection, Status
from clipstudy.settings import Settings, redact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine

    from clipstudy.outcome import Result

app = typer.Typer(
    name="clipstudy",
    help="What does image–text training do to a model's single-modality representations? Declare a study in "
    "tasks.toml, enqueue its cells, let workers run them, and read the results in MLflow and in a report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Study = Annotated[str | None, typer.Option("--study", help="Only this study, by name or file.")]
StudyOption = Annotated[str | None, typer.Option("--study", help="A study file. [default: tasks.toml]")]
Models = Annotated[list[str] | None, typer.Option("--model", "-m", help="Models, by shell pattern; may be repeated.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", "-t", help="Tasks, by shell pattern; may be repeated.")]
Layers = Annotated[list[str] | None, typer.Option("--layer", "-l", help="Layers: 7 or 0-3; may be repeated.")]
All = Annotated[bool, typer.Option("--all", help="Every cell.")]
Json = Annotated[bool, typer.Option("--json", help="For a script to read.")]


def main() -> None:
    """The entry point: an error that the user can mend prints without a traceback, and exits with 2."""
    try:
        app()
    except ClipstudyError as error:
        typer.echo(f"clipstudy: {redact(error.message)}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)


@app.command()
def init() -> None:
    """Create (or migrate) the job table and the MLflow store."""
    from clipstudy.queue import dialect, migration
    from clipstudy.tracking import open as open_tracking

    settings = Settings.read()
    migration.migrate(dialect.connect(settings.database))
    open_tracking(settings).prepare()
    typer.echo(f"job table  {redact(settings.database)}\nMLflow     {redact(settings.tracking)}\nready")


@app.command()
def enqueue(
    study: StudyOption = None,
    everything: All = False,
    model: Models = None,
    task: Tasks = None,
    layer: Layers = None,
    priority: Annotated[int, typer.Option(help="Higher runs first.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Put a study's cells into the job table. Doing it twice gives nothing new; a changed table gives new cells."""
    from clipstudy import tasksfile
    from clipstudy.job import keys, plan
    from clipstudy.queue import jobs

    settings = Settings.read()
    found = tasksfile.load(tasksfile.find(study, settings.home))
    selection = _selection(model, task, layer, everything, "enqueue")
    groups = plan(found, selection)
    if wrong := _wrong(found, selection, groups):
        raise StudyError(wrong)
    told = jobs.enqueue(_engine(settings, create=not dry_run), groups, priority=priority, dry_run=dry_run)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "study": found.name,
                    "cells": len(keys(groups)),
                    "new": told.new,
                    "revived": told.revived,
                    "superseded": told.superseded,
                    "present": dict(told.present),
                    "dry_run": dry_run,
                }
            )
        )
        return
    present = ", ".join(f"{n:,} {status}" for status, n in told.present.items() if n)
    verb = "would be new" if dry_run else "new"
    typer.echo(
        f"{found.name}: {len(keys(groups)):,} cells in {len(groups)} groups: {told.new:,} {verb}"
        + (f", {told.revived:,} revived" if told.revived else "")
        + (f", {told.superseded:,} older ones superseded" if told.superseded else "")
        + (f"; already here: {present}" if present else "")
    )
    for name, kind, differences in told.changed:
        for key, (old, new) in differences.items():
            typer.echo(f"  {name} · {kind}: {key} was {old}, is {new}")
    if told.new and not dry_run:
        typer.echo("next: clipstudy worker --drain")


@app.command()
def worker(
    gpu: Annotated[str | None, typer.Option("--gpu", help="The GPU's number: 0 is cuda:0.")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda:N or mps. [default: CLIPSTUDY_DEVICE, auto]")
    ] = None,
    drain: Annotated[bool, typer.Option("--drain", help="Stop when nothing is queued.")] = False,
    layers_per_batch: Annotated[int | None, typer.Option(min=1, help="At most this many layers in one claim.")] = None,
    lease: Annotated[
        float, typer.Option(min=1, help="Seconds after which a silent worker's cells are taken over.")
    ] = 120,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: torch's]")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False,
) -> None:
    """Claim cells, compute them, record them in MLflow; until stopped, or (--drain) until nothing is queued.

    With --drain the exit code is 1 where cells failed, or where MLflow did not take what was computed.
    """
    from clipstudy import device as devices
    from clipstudy import progress as progresses
    from clipstudy import worker as workers
    from clipstudy.tracking import open as open_tracking

    if gpu is not None and device is not None:
        raise typer.BadParameter("name --gpu or --device, not both")
    settings = Settings.read()
    engine = _engine(settings)
    place = devices.find(f"cuda:{gpu}" if gpu is not None else device or settings.device)
    _threads(threads)
    progress = progresses.for_stream()
    _log(verbose, progress)
    habits = workers.Habits(drain=drain, layers_per_batch=layers_per_batch, lease=lease)
    one = workers.Worker(engine, open_tracking(settings), _store(settings), place, habits, progress)
    workers.obey_signals(one)
    typer.echo(f"{one.name} on {devices.described(place)}, {redact(settings.database)}", err=True)
    did = one.work()
    share = f"; {did.keeping / did.busy:.1%} of the time went to the queue and MLflow" if did.computed else ""
    again = f", {did.again} attempts failed and are tried again" if did.again else ""
    failed = f"{did.failed} failed (see: clipstudy status)" if did.failed else "0 failed"
    typer.echo(f"{did.computed} cells computed, {failed}{again}, {did.recorded} recorded{share}", err=True)
    if drain and (did.failed or did.waiting):
        raise typer.Exit(1)


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="A model of the study.")],
    task: Annotated[str, typer.Argument(help="A task of the study.")],
    study: StudyOption = None,
    layer: Layers = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda:N or mps.")] = None,
    save: Annotated[Path | None, typer.Option(help="A folder for the artifacts: predictions, confusion.")] = None,
    as_json: Json = False,
) -> None:
    """Compute one cell, or all layers of one (model, task), with no queue and no MLflow, and print what was found."""
    from clipstudy import device as devices
    from clipstudy import progress as progresses
    from clipstudy import run as hallway
    from clipstudy import tasksfile
    from clipstudy.job import Failure, plan
    from clipstudy.outcome import flat
    from clipstudy.tasks.task import Bench

    settings = Settings.read()
    found = tasksfile.load(tasksfile.find(study, settings.home))
    selection = Selection((model,), (task,), _layers(layer))
    groups = plan(found, selection)
    if wrong := _wrong(found, selection, groups):
        raise StudyError(wrong)
    if len(groups) > 1:
        raise StudyError(f'"{model}" and "{task}" name several; name one.')
    progress = progresses.for_stream()
    _log(False, progress)
    bench = Bench(devices.find(device or settings.device), progress)
    group, layers = groups[0]
    progress.batch(f"{group.model.name} · {group.task.name}")
    shelf = hallway.Shelf(bench.device)
    outcomes: list[Any] = []
    failed: dict[int, str] = {}
    try:
        for k, one in hallway.run(group, layers, shelf=shelf, store=_store(settings), bench=bench):
            if isinstance(one, Failure):
                failed[k] = one.error
                continue
            outcomes.append(one)
            if save:
                folder = save / f"layer_{k:02d}"
                folder.mkdir(parents=True, exist_ok=True)
                for artifact in one.artifacts:
                    (folder / artifact.name).write_bytes(artifact.content)
    finally:
        progress.close()
    if as_json:
        shown = [{"layer": o.layer, "metrics": flat(o.metrics), "params": dict(o.params)} for o in outcomes]
        whole = {"model": group.model.name, "task": group.task.name, "layers": shown, "failed": failed}
        typer.echo(json.dumps(whole))
    elif outcomes:
        _table(
            ["layer", *outcomes[0].metrics],
            [[str(o.layer), *(_estimate(o.metrics.get(name)) for name in outcomes[0].metrics)] for o in outcomes],
            transpose=True,
        )
    if failed:
        raise ClipstudyError("\n".join(f"layer {k} failed: {error}" for k, error in failed.items()))


@app.command()
def status(
    study: Study = None,
    model: Models = None,
    task: Tasks = None,
    layer: Layers = None,
    rows: Annotated[bool, typer.Option("--rows", help="Every cell, not counts.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show again every two seconds.")] = False,
    as_json: Json = False,
) -> None:
    """What is queued, running, done and failed; who works; how fast; how long it will take."""
    from clipstudy import queueview

    settings = Settings.read()
    engine = _engine(settings)
    selection = _there(engine, Selection(tuple(model or ()), tuple(task or ()), _layers(layer), _study(study)))
    if as_json:
        typer.echo(json.dumps(queueview.as_json(engine, selection, rows=rows), default=str))
    elif watch:
        queueview.watch(engine, selection, rows=rows)
    else:
        from rich.console import Console

        Console().print(queueview.page(engine, selection, rows=rows))


@app.command()
def show(
    job: Annotated[int, typer.Argument(help="A job's number, from `status --rows`.")], as_json: Json = False
) -> None:
    """Everything that is known of one job."""
    from clipstudy.queue import jobs

    engine = _engine(Settings.read())
    one = jobs.get(engine, job)
    group, resolved, _ = jobs.group_of(engine, one.group_id)
    facts = {name: value for name, value in vars(one).items() if value is not None}
    if as_json:
        known = {**facts, "specification": json.loads(group.to_json()), "resolved": json.loads(resolved or "{}")}
        typer.echo(json.dumps(known, default=str))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {redact(str(value))}")
    typer.echo(f"{'options':<{width}}  {json.dumps(dict(group.task.options))}")
    typer.echo(f"{'resolved':<{width}}  {resolved or 'not yet'}")


@app.command()
def logs(job: Annotated[int, typer.Argument(help="A job's number, from `status --rows`.")]) -> None:
    """The log of a job's last attempt."""
    from clipstudy.queue import jobs, outbox
    from clipstudy.tracking import open as open_tracking

    settings = Settings.read()
    engine = _engine(settings)
    one = jobs.get(engine, job)
    text = outbox.log_of(engine, one)
    if text is None and one.run_id:
        text = open_tracking(settings).artifact(one.run_id, "log.txt").decode(errors="replace")
    if text is None:
        raise ClipstudyError(f"job {job} is {one.status} and has no log yet. See: clipstudy show {job}")
    typer.echo(text, nl=False)


@app.command()
def cancel(
    everything: All = False, study: Study = None, model: Models = None, task: Tasks = None, layer: Layers = None
) -> None:
    """Cancel queued and running cells. Enqueueing them again revives them."""
    from clipstudy.queue import jobs

    selection = _selection(model, task, layer, everything, "cancel", study)
    engine = _engine(Settings.read())
    typer.echo(f"{jobs.cancel(engine, _there(engine, selection))} cells cancelled")


@app.command()
def retry(
    failed: Annotated[bool, typer.Option("--failed", help="Cells that failed (the default).")] = False,
    lost: Annotated[bool, typer.Option("--lost", help="Only cells whose worker vanished.")] = False,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Cells that were cancelled.")] = False,
    everything: All = False,
    study: Study = None,
    model: Models = None,
    task: Tasks = None,
    layer: Layers = None,
) -> None:
    """Queue failed cells again, their tries given back."""
    from clipstudy.queue import jobs

    selection = _selection(model, task, layer, True, "retry", study)
    failed = failed or everything or not (lost or cancelled)
    engine = _engine(Settings.read())
    number = jobs.retry(engine, _there(engine, selection), failed=failed, lost=lost, cancelled=cancelled)
    typer.echo(f"{number} cells queued again")


@app.command()
def rerun(
    everything: All = False, study: Study = None, model: Models = None, task: Tasks = None, layer: Layers = None
) -> None:
    """Compute done and failed cells once more. Results stay until the new ones are recorded.

    The way on where a checkpoint or a data file changed: a (model, task) that is run again whole takes the new one.
    """
    from clipstudy.queue import jobs

    selection = _selection(model, task, layer, everything, "rerun", study)
    engine = _engine(Settings.read())
    number = jobs.rerun(engine, _there(engine, selection))
    left = len(jobs.rows(engine, selection, [Status.RUNNING, Status.COMPUTED]))
    typer.echo(f"{number} cells queued again" + (f"; {left} are not done yet: later, type it once more" * bool(left)))


@app.command()
def prioritise(
    priority: Annotated[int, typer.Argument(help="Higher runs first; 0 is the default.")],
    everything: All = False,
    study: Study = None,
    model: Models = None,
    task: Tasks = None,
) -> None:
    """Change which groups run first."""
    from clipstudy.queue import jobs

    selection = _selection(model, task, None, everything, "prioritise", study)
    engine = _engine(Settings.read())
    typer.echo(f"{jobs.set_priority(engine, _there(engine, selection), priority)} cells changed")


@app.command()
def report(
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
    study: Study = None,
    dashboard: Annotated[str, typer.Option(help="What to show: a name in dashboards/, or a TOML file.")] = "layers",
    note: Annotated[str, typer.Option(help="A sentence to put at the head of the page.")] = "",
) -> None:
    """Write one self-contained HTML page: per-layer charts, averages by category, result tables."""
    from clipstudy.dashboard import panels
    from clipstudy.dashboard import report as reports

    found = _results(study)
    reports.write(found, out, dashboard=panels.find(dashboard, Settings.read().home), study_note=note)
    typer.echo(f"{len(found)} results → {out.resolve()}")


@app.command()
def results(
    study: Study = None,
    model: Models = None,
    task: Tasks = None,
    metric: Annotated[str | None, typer.Option(help="Another metric than the task's headline.")] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="text, markdown, csv, latex or json.")] = "text",
) -> None:
    """Tables of what is recorded: a task each, models by layer, mean ± half of the 95% interval."""
    from clipstudy.dashboard import tables, writers
    from clipstudy.errors import NoResults, did_you_mean
    from clipstudy.outcome import flat

    formats = {"markdown": writers.to_markdown, "csv": writers.to_csv, "latex": writers.to_latex}
    if format not in (*formats, "text", "json"):
        raise ClipstudyError(f'--format "{format}": {did_you_mean(format, [*formats, "text", "json"])}')
    selection = Selection(tuple(model or ()), tuple(task or ()))
    found = _results(study)
    if unknown := _unknown(selection, model={r.model for r in found}, task={r.task for r in found}):
        raise NoResults(f"The results have {unknown}")
    shown = tables.board(r for r in found if selection.takes(r.model, r.task))
    if not shown.results:
        raise NoResults("No result is of a model and a task chosen both. Mend --model or --task.")
    metrics = {name for r in shown.results for name in r.metrics}
    if metric is not None and metric not in metrics:
        raise NoResults(f'The results have no metric "{metric}". {did_you_mean(metric, metrics)}')
    if format == "json":
        typer.echo(json.dumps([{**_keyed(r), "metrics": flat(r.metrics)} for r in shown.results]))
        return
    for name in shown.tasks:
        view = tables.view(shown, name, metric)
        if view is None:
            continue
        if writer := formats.get(format):
            typer.echo(writer(view))
            continue
        head, body = writers.grid(view)
        typer.echo(f"\n{view.title}: {tables.axis_title(view.metric)}")
        _table(
            ["layer", *head], [[row, *(text + (" *" if best else "") for text, best in cells)] for row, cells in body]
        )
    if format == "text":
        typer.echo("\n* the best layer, chosen on dev where there is one; – ± half of the 95% interval")
        for line in shown.notes:
            typer.echo(line)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open MLflow's own pages on the right store."""
    import os

    from clipstudy.tracking import open as open_tracking

    settings = Settings.read()
    if settings.tracking.startswith("http"):
        typer.echo(f"the MLflow server is at {redact(settings.tracking)}")
        return
    open_tracking(settings).prepare()
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.environ["MLFLOW_BACKEND_STORE_URI"] = settings.tracking  # not a word of the command: it may hold a password
    command = ["server", "--workers", "1"]
    typer.echo(f"MLflow on http://127.0.0.1:{port} (Ctrl-C stops it)", err=True)
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port)])


def _engine(settings: Settings, create: bool = False) -> Engine:
    """The job table. Where it is the embedded file and not there yet, the first enqueue creates it."""
    from clipstudy.queue import dialect, migration

    engine = dialect.connect(settings.database)
    if create and engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        migration.migrate(engine)
    migration.check(engine)
    return engine


def _results(study: str | None) -> list[Result]:
    """What MLflow has of the study named (or of all)."""
    from clipstudy.errors import NoResults
    from clipstudy.tracking import open as open_tracking

    tracking, name = open_tracking(Settings.read()), _study(study)
    found = tracking.results(name)
    if not found and name is not None and (others := {r.study for r in tracking.results()}):
        raise NoResults(f"The results have {_unknown(Selection(study=name), study=others)}")
    if not found:
        raise NoResults
    return found


def _study(given: str | None) -> str | None:
    """A study's name, as it is or out of its file."""
    from clipstudy import tasksfile

    if given is None or not given.endswith(".toml"):
        return given
    return tasksfile.load(tasksfile.find(given, Settings.read().home)).name


def _keyed(result: Result) -> dict[str, Any]:
    names = ("run_id", "study", "model", "task", "layer")
    return {name: getattr(result, name) for name in names}


def _store(settings: Settings) -> Any:
    from clipstudy.features.cache import Store

    return Store(settings.cache / "features", budget_bytes=int(settings.cache_gb * 2**30))


def _selection(
    model: list[str] | None,
    task: list[str] | None,
    layer: list[str] | None,
    everything: bool,
    verb: str,
    study: str | None = None,
) -> Selection:
    if not (everything or model or task or layer or study):
        raise ClipstudyError(f"{verb} what? Name cells with --model, --task or --layer, or say: clipstudy {verb} --all")
    return Selection(tuple(model or ()), tuple(task or ()), _layers(layer), _study(study))


def _there(engine: Engine, selection: Selection) -> Selection:
    """``selection``, if there are such cells in the table.

    Raises QueueError, which says what there is.
    """
    from clipstudy.queue import jobs

    if selection == Selection():
        return selection
    names = jobs.names(engine)
    if not names:
        raise QueueError("Nothing is enqueued. Type: clipstudy enqueue --all")
    studies, models, tasks = (set(column) for column in zip(*names, strict=True))
    if unknown := _unknown(selection, study=studies, model=models, task=tasks):
        raise QueueError(f"The job table has {unknown}")
    if not jobs.rows(engine, selection, limit=1, newest_only=False):
        raise QueueError(
            "The job table has each of these names, and no cell that has them all"
            + (f" at layer {', '.join(map(str, selection.layers))}" if selection.layers else "")
            + ". `clipstudy status --rows` lists what there is."
        )
    return selection


def _unknown(selection: Selection, **there: Iterable[str]) -> str | None:
    """The first name or pattern of ``selection`` that takes none of those ``there``: no model "brt". Did you mean …"""
    from clipstudy.errors import did_you_mean

    study = () if selection.study is None else (selection.study,)
    asked = {"study": study, "model": selection.models, "task": selection.tasks}
    for what, names in there.items():
        for pattern in asked[what]:
            if pattern not in names and (what == "study" or not any(Selection((pattern,)).takes(n, "") for n in names)):
                return f'no {what} "{pattern}". {did_you_mean(pattern, names)}'
    return None


def _layers(given: list[str] | None) -> tuple[int, ...]:
    """``7`` and ``0-3`` as numbers."""
    found: set[int] = set()
    for text in given or ():
        first, dash, last = text.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ClipstudyError(f'--layer "{text}": want a number or a range, as in --layer 7 or --layer 0-3')
        found.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(found))


def _wrong(study: Any, selection: Selection, groups: Any) -> str | None:
    """What is wrong with a selection of the study's cells that came to ``groups``."""
    if unknown := _unknown(selection, model=study.models, task=study.tasks):
        return f"{study.path}: {unknown}"
    if groups:
        return None
    if selection.layers:
        deepest = max(m.layers for m in study.models.values())
        listed = ", ".join(map(str, selection.layers))
        return f"{study.path}: no cell at layer {listed}; the models chosen have layers 0 to {deepest}. Mend --layer."
    return (
        f"{study.path}: nothing matches; models and tasks chosen are of different modalities. Mend --model or --task."
    )


def _threads(number: int | None) -> None:
    if number is not None:
        import torch

        torch.set_num_threads(number)


def _log(verbose: bool, progress: Any) -> None:
    """clipstudy's own log, above the bars of a terminal or as plain lines."""

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            progress.rich.console.print(self.format(record), markup=False, highlight=False)

    bars = hasattr(progress, "rich")
    handler: logging.Handler = Said() if bars else logging.StreamHandler()
    handler.setLevel(logging.DEBUG if verbose else logging.WARNING if bars else logging.INFO)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("clipstudy")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False


def _estimate(estimate: Any) -> str:
    if estimate is None:
        return "–"
    if float(estimate.value).is_integer() and estimate.low is None and abs(estimate.value) >= 2:
        return f"{estimate.value:,.0f}"
    interval = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{interval}"


def _table(head: list[str], rows: list[list[str]], transpose: bool = False) -> None:
    from rich.console import Console
    from rich.table import Table

    if transpose:
        head, *rows = [list(column) for column in zip(head, *rows, strict=True)]
    table = Table(box=None, header_style="bold")
    for at, name in enumerate(head):
        table.add_column(name, justify="left" if at == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
