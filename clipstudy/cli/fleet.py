"""The group `clipstudy fleet`: draining workers on a SLURM cluster."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import Annotated

import typer

from clipstudy.cli import screen, selecting, stores
from clipstudy.cli.options import Json, LayersPerBatch, Study
from clipstudy.errors import FleetError
from clipstudy.settings import Settings

group = typer.Typer(
    name="fleet",
    help="Workers on a SLURM cluster: each drains the queue and exits.",
    no_args_is_help=True,
)


@group.command()
def submit(
    workers: Annotated[int, typer.Option(min=1, help="How many members the job array has.")] = 1,
    gpus_per_worker: Annotated[int, typer.Option(min=0, help="GPUs of each worker's job; 0 computes on the CPU.")] = 1,
    cpus_per_worker: Annotated[int | None, typer.Option(min=1, help="CPUs of each. [default: the cluster's]")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of each worker: 32G. [default: the cluster's]")] = None,
    time: Annotated[
        str | None, typer.Option(help="Time limit of each worker: 4:00:00 or 1-12. [default: the partition's]")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="SLURM's partition. [default: the cluster's]")] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option("--sbatch", help="Any option of sbatch: account=vision, hold; may be repeated.")
    ] = None,
    study: Study = None,
    layers_per_batch: LayersPerBatch = None,
    as_json: Json = False,
) -> None:
    """Start workers through SLURM. Each works until nothing is queued; one that is preempted gives back what it holds,
    uses up no try, and is queued again."""
    from clipstudy import fleet
    from clipstudy.job import Selection
    from clipstudy.queue import jobs
    from clipstudy.wording import counted

    settings = Settings.read()
    fleet.check()
    engine = stores.engine(settings)
    only = selecting.study_name(study)
    selecting.existing(engine, Selection(study=only))
    if not jobs.any_queued(engine, only):
        of, what = (f" of {only}", shlex.join(["status", "--study", only])) if only else ("", "enqueue --all")
        raise FleetError(f"Nothing{of} is queued: workers would leave at once. Type: clipstudy {what}")
    words = ["--study", only] if only else []
    if layers_per_batch:
        words += ["--layers-per-batch", str(layers_per_batch)]
    wanted = fleet.Wanted(
        workers, gpus_per_worker, cpus_per_worker, memory, time, partition, _options(sbatch), tuple(words)
    )
    submitted = fleet.submit(settings, wanted)
    if as_json:
        typer.echo(json.dumps(asdict(submitted), default=str))
        return
    typer.echo(
        f"job {submitted.job}: {counted(submitted.workers, 'worker')}\n"
        f"script  {submitted.script}\nlogs    {submitted.logs}"
    )
    typer.echo("next: clipstudy fleet status")


@group.command()
def status(as_json: Json = False) -> None:
    """Show what SLURM does with this job table's workers, and what they do."""
    from clipstudy import fleet
    from clipstudy.queue import jobs
    from clipstudy.wording import duration

    settings = Settings.read()
    engine = stores.engine(settings)
    members = fleet.members(settings, engine)
    totals = {str(status): number for status, number in jobs.totals(engine).items() if number}
    if as_json:
        typer.echo(json.dumps({"jobs": [asdict(m) for m in members], "totals": totals}, default=str))
        return
    rows = []
    for member in members:
        does = ", ".join(f"{w.batch or 'idle'}, last seen {duration(w.age or 0)} ago" for w in member.workers)
        rows.append([member.job, member.state.lower(), member.where, member.ran, does or "–"])
    if rows:
        screen.table(["job", "state", "node", "for", "does"], rows)
    else:
        typer.echo("SLURM lists no worker of this job table. Type: clipstudy fleet submit --workers 8")
    typer.echo(", ".join(f"{number:,} {status}" for status, number in totals.items()) or "nothing is enqueued")
    if broken := [m for m in members if m.state not in fleet.LIVE and m.state not in ("COMPLETED", "CANCELLED")]:
        typer.echo(f"{broken[0].job} is {broken[0].state.lower()}; see {broken[0].log}, and: clipstudy status")


@group.command()
def cancel(
    job: Annotated[
        list[str] | None, typer.Argument(help="Jobs (1234) or members (1234_5), from `fleet status`.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every worker of this job table.")] = False,
    as_json: Json = False,
) -> None:
    """End workers. What they hold is queued again and uses up no try; what is queued stays queued."""
    from clipstudy import fleet
    from clipstudy.wording import counted

    if everything and job:
        raise typer.BadParameter("name jobs or type --all, not both")
    if not (everything or job):
        raise FleetError("No job named. Name one, or type: clipstudy fleet cancel --all")
    settings = Settings.read()
    ended = fleet.cancel(settings, stores.engine(settings), [] if everything else job or [])
    typer.echo(json.dumps({"cancelled": ended}) if as_json else f"{counted(len(ended), 'worker')} cancelled")


def _options(given: list[str] | None) -> dict[str, str | bool]:
    """``account=vision`` → account: vision; ``hold`` → hold: True."""
    found: dict[str, str | bool] = {}
    for text in given or ():
        key, equals, value = text.removeprefix("--").partition("=")
        if not key or (equals and not value):
            raise FleetError(f'--sbatch "{text}": expected KEY=VALUE or KEY, as in --sbatch account=vision')
        found[key] = value if equals else True
    return found
