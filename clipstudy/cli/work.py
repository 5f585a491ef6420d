"""Commands that do the work: init, enqueue, worker, run."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipstudy.cli import screen, selecting, stores
from clipstudy.cli.options import All, Device, Json, Layers, LayersPerBatch, Models, Study, StudyFile, Tasks
from clipstudy.errors import ClipstudyError, StudyError, printable, writing
from clipstudy.job import LARGEST, Selection, Status
from clipstudy.redaction import redact
from clipstudy.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from clipstudy.attempt import Tally
    from clipstudy.job import Group
    from clipstudy.outcome import Outcome
    from clipstudy.queue.jobs import Enqueued
    from clipstudy.supervisor import Post
    from clipstudy.worker import Habits

#: What stands before the slash of a metric's name, where it is neither a view nor a probe.
ARMS = {
    "baseline": "what can be reached without the model",
    "control": "one random label per type of first (or marked) word",
    "items": "how many rows",
}
#: Of a folder that cannot be written to.
REMEDY = "Name another one: --save FOLDER"


def init() -> None:
    """Create (or migrate) the job table and the MLflow store."""
    from clipstudy.queue import dialect, migration
    from clipstudy.tracking import open as open_tracking

    settings = Settings.read()
    migration.migrate(dialect.connect(settings.database))
    open_tracking(settings).prepare()
    typer.echo(f"job table  {redact(settings.database)}\nMLflow     {redact(settings.tracking)}\nready")


def enqueue(
    study: StudyFile = None,
    everything: All = False,
    model: Models = None,
    task: Tasks = None,
    layer: Layers = None,
    priority: Annotated[int, typer.Option(min=-LARGEST, max=LARGEST, help="Higher runs first.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be added; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Add a study's cells to the job table. Repeating it adds nothing; a changed table adds new cells."""
    from clipstudy import tasksfile
    from clipstudy.job import keys, plan
    from clipstudy.queue import jobs

    settings = Settings.read()
    whole = tasksfile.load(tasksfile.find(study, settings.home))
    typed = selecting.command("enqueue", study, Selection()).removeprefix("clipstudy ")
    selection = selecting.selection(model, task, layer, everything, typed)
    groups = plan(whole, selection)
    if wrong := selecting.wrong(whole, selection, groups):
        raise StudyError(wrong)
    _warn([group for group, _ in groups], selecting.command("fetch", study, selection))
    with stores.table(settings, dry_run) as engine:
        enqueued = jobs.enqueue(engine, groups, priority=priority, dry_run=dry_run)
    if not as_json:
        _print_enqueued(whole.name, len(keys(groups)), len(groups), enqueued, dry_run)
        return
    values = {
        "study": whole.name,
        "cells": len(keys(groups)),
        "new": enqueued.new,
        "revived": enqueued.revived,
        "superseded": enqueued.superseded,
        "present": dict(enqueued.present),
        "changed": [
            {
                "model": model,
                "task": task,
                "settings": {key: {"was": old, "is": new} for key, (old, new) in both.items()},
            }
            for model, task, both in enqueued.changed
        ],
        "returned": [{"model": model, "task": task} for model, task in enqueued.returned],
        "dry_run": dry_run,
    }
    typer.echo(json.dumps(values))


def _warn(groups: Sequence[Group], fetch: str) -> None:
    """Say why a worker on this machine would refuse a model or a data set of ``groups``; ``fetch`` is the command that
    brings what is released elsewhere. No error: a worker elsewhere may have other files, packages and settings."""
    from clipstudy import backbones, data
    from clipstudy.wording import counted

    # By table: the models that one makes by `init_seeds` are refused for one reason.
    models = {group.model.family: replace(group.model, name=group.model.family) for group in groups}
    datasets = {group.dataset.name: group.dataset for group in groups}
    doubts = [*map(backbones.doubt, models.values()), *map(data.doubt, datasets.values())]
    for why in filter(None, doubts):
        typer.echo(f"warning: a worker here would refuse this: {why}", err=True)
    if absent := [name for name, dataset in datasets.items() if data.to_fetch(dataset)]:
        typer.echo(
            f"warning: {counted(len(absent), 'data set')} not downloaded yet, and no worker downloads any: "
            f"{', '.join(absent)}. Type: {fetch}",
            err=True,
        )


def _print_enqueued(study: str, cells: int, groups: int, enqueued: Enqueued, dry_run: bool) -> None:
    from clipstudy.wording import counted

    text = f"{study}: {counted(cells, 'cell')} in {counted(groups, 'group')}: {enqueued.new:,} "
    text += "would be new" if dry_run else "new"
    if enqueued.revived:
        text += f", {enqueued.revived:,} revived"
    if enqueued.superseded:
        text += f", {enqueued.superseded:,} older ones superseded"
    if present := ", ".join(f"{number:,} {status}" for status, number in enqueued.present.items() if number):
        text += f"; already here: {present}"
    typer.echo(text)
    for model, task, differences in enqueued.changed:
        for key, (old, new) in differences.items():
            typer.echo(printable(f"  {model} · {task}: {key} was {old}, is {new}"))
    if enqueued.returned and not dry_run:
        again = [selecting.command("rerun", study, Selection((model,), (task,))) for model, task in enqueued.returned]
        typer.echo(
            f"{counted(len(again), 'group')} had these settings before, with all results. Figures show what ran last; "
            f"to show these settings instead: {'; '.join(again[:3])}{'; …' if again[3:] else ''}"
        )
    if enqueued.present.get(Status.FAILED):
        typer.echo("To queue failed cells again: clipstudy retry --failed (--lost: those whose worker vanished)")
    if enqueued.new and not dry_run:
        typer.echo("next: clipstudy worker --drain")


def worker(
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="A GPU by number (0 is cuda:0), several (0,1) or all: one worker each.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many workers share the device, one process each.")
    ] = None,
    min_memory: Annotated[
        float | None, typer.Option(min=0, help="GiB that must be free on a GPU. [default: 2, if several are named]")
    ] = None,
    device: Device = None,
    drain: Annotated[bool, typer.Option("--drain", help="Stop when nothing is queued.")] = False,
    layers_per_batch: LayersPerBatch = None,
    lease: Annotated[
        float, typer.Option(min=1, help="Seconds after which a silent worker's cells are taken over.")
    ] = 120,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: torch's]")] = None,
    study: Study = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every step.")] = False,
) -> None:
    """Claim cells, compute them and record them in MLflow, until stopped or (--drain) until nothing is queued.

    --gpu 0,1 (or all) and --workers start one process per worker, keep them at work, and stop them all when told to.
    With --drain, the exit code is 1 if cells failed, or if MLflow did not take what was computed; 75 if a signal
    stopped it before the queue was empty: then start it again.
    """
    from clipstudy import device as devices
    from clipstudy import supervisor
    from clipstudy.worker import Habits

    if gpu is not None and (device is not None or workers is not None):
        raise typer.BadParameter("name --gpu alone, or --device and --workers")
    if min_memory is not None and gpu is None:
        raise typer.BadParameter("--min-memory applies to GPUs: name them with --gpu")
    _leave_when_told(drain)
    settings = Settings.read()
    engine = stores.engine(settings)
    name = selecting.study_name(study)
    _look_for_study(engine, name, drain)
    if workers is None and (gpu is None or gpu.isdecimal()):
        if gpu is not None and min_memory is not None:
            _gpu_posts(gpu, min_memory)  # refuses one that has less free
        place = devices.find(f"cuda:{gpu}" if gpu is not None else device or settings.device)
        devices.prepare(threads)
        raise typer.Exit(_work(settings, engine, place, Habits(drain, name, layers_per_batch, lease), verbose))
    words = _words(drain, study, layers_per_batch, lease, verbose, threads)
    if workers is not None:
        posts = supervisor.alike(workers, devices.find(device or settings.device), threads)
    else:
        posts = _gpu_posts(str(gpu), 2 if min_memory is None else min_memory)
    raise typer.Exit(_supervise(engine, posts, words))


def _leave_when_told(drain: bool) -> None:
    """SIGTERM ends the command as it ends a worker, until that listens itself: nothing is held yet, and whoever started
    it goes by the exit code."""
    from clipstudy.supervisor import STOPPED

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED if drain else 0))


def _words(
    drain: bool, study: str | None, layers_per_batch: int | None, lease: float, verbose: bool, threads: int | None
) -> list[str]:
    """What each of several workers is told, as it would be typed."""
    words = ["--lease", str(lease)]
    if drain:
        words.append("--drain")
    if verbose:
        words.append("--verbose")
    if study:
        words += ["--study", study]
    if layers_per_batch:
        words += ["--layers-per-batch", str(layers_per_batch)]
    if threads:
        words += ["--threads", str(threads)]
    return words


def _look_for_study(engine: Engine, name: str | None, drain: bool) -> None:
    """Say that nothing of the study is enqueued, which is an error where nobody will wait for it."""
    from clipstudy.queue import jobs

    if name is None:
        return
    missing = selecting.unknown_name(Selection(study=name), study={study for study, _, _ in jobs.names(engine)})
    if missing and drain:
        raise ClipstudyError(f"The job table has {missing}")
    if missing:
        typer.echo(f"the job table has {missing}", err=True)


def _work(settings: Settings, engine: Engine, place: str, habits: Habits, verbose: bool) -> int:
    """One worker in this process, until it ends; its exit code."""
    from clipstudy import device as devices
    from clipstudy import progress as progresses
    from clipstudy import supervisor
    from clipstudy import worker as one_worker
    from clipstudy.queue import jobs
    from clipstudy.tracking import open as open_tracking

    progress = progresses.for_stderr()
    screen.log(verbose, progress)
    one = one_worker.Worker(engine, open_tracking(settings), stores.features(settings), place, habits, progress)
    one_worker.obey_signals(one)
    typer.echo(f"{one.name} on {devices.described(place)}, {redact(settings.database)}", err=True)
    tally = one.work()
    typer.echo(_tallied(tally), err=True)
    if one.stop.is_set():
        own = shlex.join(["clipstudy", "worker", *(("--study", habits.study) if habits.study else ())])
        typer.echo(f"what was not done is queued again; to continue, type: {own}", err=True)
    elif not jobs.names(engine):
        typer.echo("nothing is enqueued. Type: clipstudy enqueue --all", err=True)
    if not habits.drain:
        return 0
    if one.stop.is_set():
        return supervisor.STOPPED  # whatever failed before: there is work left
    return 1 if tally.failed or tally.waiting else 0


def _tallied(tally: Tally) -> str:
    """What a worker did, in a line."""
    from clipstudy.wording import counted

    text = f"{counted(tally.computed, 'cell')} computed, {tally.failed} failed"
    if tally.failed:
        text += " (see: clipstudy status)"
    if tally.again:
        text += f", {counted(tally.again, 'attempt')} failed and will be tried again"
    text += f", {tally.recorded} recorded"
    if tally.recorded + tally.waiting != tally.computed:
        text += " (workers record each other's results, too)"
    if tally.computed and tally.busy:
        text += f"; {tally.keeping / tally.busy:.1%} of the time went to the queue and MLflow"
    return text


def _gpu_posts(asked: str, min_memory: float) -> list[Post]:
    """A post on each GPU that has so many GiB free; of the others it is said why not."""
    from clipstudy import device as devices
    from clipstudy import supervisor
    from clipstudy.errors import DeviceError

    posts, left_out = supervisor.on_gpus(supervisor.chosen(asked, devices.gpus()), int(min_memory * 2**30))
    for line in left_out:
        typer.echo(line, err=True)
    if not posts:
        raise DeviceError("No GPU has enough free memory. Free some, or type how little is enough: --min-memory 0.5")
    return posts


def _supervise(engine: Engine, posts: list[Post], words: list[str]) -> int:
    """A worker on each post, in processes of their own, until all have ended; their exit code."""
    from clipstudy import supervisor

    # As a block: whatever ends it, no worker is left without one who tends it.
    with supervisor.Crew(posts, engine, words, lambda post, line: typer.echo(f"[{post}] {line}", err=True)) as crew:
        supervisor.obey_signals(crew)
        return crew.work()


def run(
    model: Annotated[str, typer.Argument(help="A model of the study.")],
    task: Annotated[str, typer.Argument(help="A task of the study.")],
    study: StudyFile = None,
    layer: Layers = None,
    device: Device = None,
    save: Annotated[
        Path | None, typer.Option(help="Folder for each layer's files: predictions, confusion matrix, pictures.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute one cell, or all layers of one (model, task), without queue and MLflow, and print what was found."""
    from clipstudy import device as devices
    from clipstudy import progress as progresses
    from clipstudy import run as runner
    from clipstudy import tasksfile
    from clipstudy.job import Failure, plan
    from clipstudy.tasks.task import Bench

    settings = Settings.read()
    whole = tasksfile.load(tasksfile.find(study, settings.home))
    selection = Selection((model,), (task,), selecting.layers(layer))
    groups = plan(whole, selection)
    if wrong := selecting.wrong(whole, selection, groups):
        raise StudyError(wrong)
    if len(groups) > 1:
        several = ", ".join(f"{group.model.name} {group.task.name}" for group, _ in groups[:5])
        raise StudyError(
            f'"{model}" and "{task}" name {len(groups)} pairs ({several}{" …" * (len(groups) > 5)}). Name one.'
        )
    group, layers = groups[0]
    progress = progresses.for_stderr()
    screen.log(False, progress)
    devices.prepare()
    bench = Bench(devices.find(device or settings.device), progress)
    progress.batch(f"{group.model.name} · {group.task.name}")
    outcomes: list[Outcome] = []
    failed: dict[int, str] = {}
    unsaved: ClipstudyError | None = None
    if save:
        with writing(save, REMEDY):
            save.mkdir(parents=True, exist_ok=True)
    measured = runner.run(group, layers, shelf=runner.Shelf(bench.device), store=stores.features(settings), bench=bench)
    try:
        for number, result in measured:
            if isinstance(result, Failure):
                failed[number] = result.error
                continue
            outcomes.append(result)
            if save and not unsaved:
                unsaved = _unsaved(result, save / f"layer_{number:02d}")
    finally:
        progress.close()
    _print_outcomes(group, outcomes, failed, as_json)
    if failed:
        raise ClipstudyError("\n".join(f"layer {k} failed: {error}" for k, error in failed.items()))
    if unsaved:
        raise unsaved


def _unsaved(outcome: Outcome, folder: Path) -> ClipstudyError | None:
    """Why its files cannot be kept in ``folder``; None: they are. What was measured is shown all the same."""
    try:
        with writing(folder, REMEDY):
            folder.mkdir(parents=True, exist_ok=True)
            for artifact in outcome.artifacts:
                (folder / artifact.name).write_bytes(artifact.content)
    except ClipstudyError as error:
        return error
    return None


def _print_outcomes(group: Group, outcomes: list[Outcome], failed: Mapping[int, str], as_json: bool) -> None:
    from clipstudy.outcome import flat
    from clipstudy.results import boards, units

    shown = {o.layer: boards.estimates(o.metrics) for o in outcomes}
    if as_json:
        layers = [{"layer": o.layer, "metrics": flat(shown[o.layer]), "params": dict(o.params)} for o in outcomes]
        whole = {"model": group.model.name, "task": group.task.name, "layers": layers, "failed": dict(failed)}
        typer.echo(json.dumps(whole))
    elif outcomes:
        # The headline first; baselines in the unit of what they are measured in.
        names = sorted(outcomes[0].metrics, key=lambda name: name != group.task.metric)
        measured = units.of_baselines(group.task.kind, group.task.metric)
        called = {name: f"{name}/{measured}" if boards.BASELINE in f"{name}/" else name for name in names}
        rows = [
            [str(o.layer), *(screen.number(as_what, shown[o.layer].get(name)) for name, as_what in called.items())]
            for o in outcomes
        ]
        screen.table(["layer", *map(units.axis_title, called.values())], rows, transpose=True)
        arms = {part for name in names for part in name.split("/")[:-1]}
        meant = [f"{arm}: {meaning}" for arm, meaning in ARMS.items() if arm in arms]
        typer.echo("\n" + "; ".join([f"Value {units.INTERVAL}", *meant]))
