"""Commands that do the work: init, enqueue, worker, run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipstudy.cli import screen, selecting, stores
from clipstudy.cli.options import All, Json, Layers, Models, Study, StudyOption, Tasks
from clipstudy.errors import ClipstudyError, StudyError
from clipstudy.job import LARGEST, Selection, Status
from clipstudy.settings import Settings, redact

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from clipstudy.supervisor import Post


def init() -> None:
    """Create (or migrate) the job table and the MLflow store."""
    from clipstudy.queue import dialect, migration
    from clipstudy.tracking import open as open_tracking

    settings = Settings.read()
    migration.migrate(dialect.connect(settings.database))
    open_tracking(settings).prepare()
    typer.echo(f"job table  {redact(settings.database)}\nMLflow     {redact(settings.tracking)}\nready")


def enqueue(
    study: StudyOption = None,
    everything: All = False,
    model: Models = None,
    task: Tasks = None,
    layer: Layers = None,
    priority: Annotated[int, typer.Option(min=-LARGEST, max=LARGEST, help="Higher runs first.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Put a study's cells into the job table. Doing it twice gives nothing new; a changed table gives new cells."""
    from clipstudy import backbones, data, tasksfile
    from clipstudy.job import keys, plan
    from clipstudy.progress import counted
    from clipstudy.queue import jobs

    settings = Settings.read()
    found = tasksfile.load(tasksfile.find(study, settings.home))
    selection = selecting.selection(model, task, layer, everything, "enqueue")
    groups = plan(found, selection)
    if wrong := selecting.wrong(found, selection, groups):
        raise StudyError(wrong)
    doubts = [backbones.doubt(one) for one in {group.model.name: group.model for group, _ in groups}.values()]
    doubts += [data.doubt(one) for one in {group.dataset.name: group.dataset for group, _ in groups}.values()]
    for why in filter(None, doubts):  # no error: a worker elsewhere may have other files, packages and settings
        typer.echo(f"warning: a worker here would refuse this: {why}", err=True)
    with stores.table(settings, dry_run) as engine:
        told = jobs.enqueue(engine, groups, priority=priority, dry_run=dry_run)
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
        f"{found.name}: {counted(len(keys(groups)), 'cell')} in {counted(len(groups), 'group')}: {told.new:,} {verb}"
        + (f", {told.revived:,} revived" if told.revived else "")
        + (f", {told.superseded:,} older ones superseded" if told.superseded else "")
        + (f"; already here: {present}" if present else "")
    )
    for name, kind, differences in told.changed:
        for key, (old, new) in differences.items():
            typer.echo(f"  {name} · {kind}: {key} was {old}, is {new}")
    if told.present.get(Status.FAILED):
        typer.echo("To queue failed cells again: clipstudy retry --failed")
    if told.new and not dry_run:
        typer.echo("next: clipstudy worker --drain")


def worker(
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="A GPU's number: 0 is cuda:0. Of 0,1 or all: one worker each.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="So many workers on the device, a process each.")] = None,
    min_memory: Annotated[float, typer.Option(min=0, help="GB that must be free on each of several GPUs.")] = 2,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda:N or mps. [default: CLIPSTUDY_DEVICE, auto]")
    ] = None,
    drain: Annotated[bool, typer.Option("--drain", help="Stop when nothing is queued.")] = False,
    layers_per_batch: Annotated[int | None, typer.Option(min=1, help="At most this many layers in one claim.")] = None,
    lease: Annotated[
        float, typer.Option(min=1, help="Seconds after which a silent worker's cells are taken over.")
    ] = 120,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: torch's]")] = None,
    study: Study = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False,
) -> None:
    """Claim cells, compute them, record them in MLflow; until stopped, or (--drain) until nothing is queued.

    --gpu 0,1 (or all) and --workers start a process each, keep them at work, and pass a word to stop on to all of them.
    With --drain the exit code is 1 where cells failed, or where MLflow did not take what was computed; 75 where a
    signal stopped it before the queue was empty: start it again.
    """
    from clipstudy import device as devices
    from clipstudy import progress as progresses
    from clipstudy import supervisor
    from clipstudy import worker as one_worker
    from clipstudy.queue import jobs
    from clipstudy.tracking import open as open_tracking

    if gpu is not None and (device is not None or workers is not None):
        raise typer.BadParameter("name --gpu alone, or --device and --workers")
    settings = Settings.read()
    engine = stores.engine(settings)
    only = selecting.study_name(study)
    if only and (missing := selecting.unknown_name(Selection(study=only), study={s for s, _, _ in jobs.names(engine)})):
        if drain:
            raise ClipstudyError(f"The job table has {missing}")
        typer.echo(f"the job table has {missing}", err=True)  # it may come while the worker waits
    if workers is not None or (gpu is not None and not gpu.isdecimal()):
        words = [*["--drain"] * drain, *["--verbose"] * verbose, "--lease", str(lease)]
        words += ["--study", study] if study else []
        words += ["--layers-per-batch", str(layers_per_batch)] if layers_per_batch else []
        if workers is not None:
            posts = supervisor.alike(workers, devices.find(device or settings.device), threads)
        else:
            posts = _gpu_posts(str(gpu), min_memory)
            words += ["--threads", str(threads)] if threads else []
        raise typer.Exit(_supervise(engine, posts, words))
    place = devices.find(f"cuda:{gpu}" if gpu is not None else device or settings.device)
    _threads(threads)
    progress = progresses.for_stream()
    screen.log(verbose, progress)
    habits = one_worker.Habits(drain, only, layers_per_batch, lease)
    one = one_worker.Worker(engine, open_tracking(settings), stores.features(settings), place, habits, progress)
    one_worker.obey_signals(one)
    typer.echo(f"{one.name} on {devices.described(place)}, {redact(settings.database)}", err=True)
    did = one.work()
    share = f"; {did.keeping / did.busy:.1%} of the time went to the queue and MLflow" if did.computed else ""
    again = f", {progresses.counted(did.again, 'attempt')} failed, to be tried again" if did.again else ""
    failed = f"{did.failed} failed (see: clipstudy status)" if did.failed else "0 failed"
    typer.echo(
        f"{progresses.counted(did.computed, 'cell')} computed, {failed}{again}, {did.recorded} recorded{share}",
        err=True,
    )
    if one.stop.is_set():
        typer.echo("what was not done is queued again; to go on: clipstudy worker", err=True)
    elif not jobs.names(engine):
        typer.echo("nothing is enqueued. Type: clipstudy enqueue --all", err=True)
    if drain and one.stop.is_set():
        raise typer.Exit(supervisor.STOPPED)  # whatever failed before: there is work left
    if drain and (did.failed or did.waiting):
        raise typer.Exit(1)


def _gpu_posts(asked: str, min_memory: float) -> list[Post]:
    from clipstudy import device as devices
    from clipstudy import supervisor
    from clipstudy.errors import DeviceError

    posts, left_out = supervisor.on_gpus(supervisor.chosen(asked, devices.gpus()), int(min_memory * 2**30))
    for line in left_out:
        typer.echo(line, err=True)
    if not posts:
        raise DeviceError("No GPU has enough memory free. Free some, or say how little will do: --min-memory 0.5")
    return posts


def _supervise(engine: Engine, posts: list[Post], words: list[str]) -> int:
    from clipstudy import supervisor

    crew = supervisor.Crew(posts, engine, words, lambda post, line: typer.echo(f"[{post}] {line}", err=True))
    supervisor.obey_signals(crew)
    return crew.work()


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
    selection = Selection((model,), (task,), selecting.layers(layer))
    groups = plan(found, selection)
    if wrong := selecting.wrong(found, selection, groups):
        raise StudyError(wrong)
    if len(groups) > 1:
        raise StudyError(f'"{model}" and "{task}" name several; name one.')
    progress = progresses.for_stream()
    screen.log(False, progress)
    bench = Bench(devices.find(device or settings.device), progress)
    group, layers = groups[0]
    progress.batch(f"{group.model.name} · {group.task.name}")
    shelf = hallway.Shelf(bench.device)
    outcomes: list[Any] = []
    failed: dict[int, str] = {}
    try:
        for k, one in hallway.run(group, layers, shelf=shelf, store=stores.features(settings), bench=bench):
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
        screen.table(
            ["layer", *outcomes[0].metrics],
            [[str(o.layer), *(screen.number(o.metrics.get(name)) for name in outcomes[0].metrics)] for o in outcomes],
            transpose=True,
        )
    if failed:
        raise ClipstudyError("\n".join(f"layer {k} failed: {error}" for k, error in failed.items()))


def _threads(number: int | None) -> None:
    if number is not None:
        import torch

        torch.set_num_threads(number)
