"""The command `clipstudy demo`, and the group `clipstudy pocket` that makes what it needs."""

from __future__ import annotations

import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipstudy.cli import results, screen, stores
from clipstudy.cli.options import Device
from clipstudy.errors import ClipstudyError
from clipstudy.job import Selection
from clipstudy.settings import Settings

if TYPE_CHECKING:
    from clipstudy.demo import Ended

group = typer.Typer(
    name="pocket",
    help="The miniature world behind `clipstudy demo`: its texts, pictures and models.",
    no_args_is_help=True,
)


def demo(
    full: Annotated[bool, typer.Option("--full", help="Run the whole pocket study, with no time budget.")] = False,
    device: Device = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
) -> None:
    """Run the whole study in minutes, with no network, on miniature models: see what you will get."""
    from clipstudy import demo as demonstration
    from clipstudy import progress as progresses
    from clipstudy.wording import counted

    settings = Settings.read()
    progress = progresses.for_stderr()
    screen.log(False, progress)
    ended = demonstration.run(settings, full=full, device=device or settings.device, progress=progress)
    typer.echo(f"writing {out}: testing its claims on what the runs kept")
    _report(settings, out)
    _print_ended(ended)
    typer.echo(f"\n{_reached()}next:  open {out}                   the figures, layer by layer")
    typer.echo("       clipstudy dashboard                the same with controls, and the runs' pictures")
    typer.echo("       clipstudy ui                       every run in MLflow")
    typer.echo("       clipstudy enqueue --all --dry-run  the real study, as tasks.toml declares it")
    if ended.failed:
        raise ClipstudyError(
            f"{counted(ended.failed, 'cell')} failed. See: clipstudy status --study {demonstration.STUDY}"
        )


def _reached() -> str:
    """A line on how to have the command ``clipstudy``, where a shell does not find it: `make demo` calls it by its
    path. Empty where it does."""
    if shutil.which("clipstudy"):
        return ""
    home = Path(sys.prefix)
    here = home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home
    if (home / "bin" / "activate").is_file():
        return f"first: source {shlex.quote(str(here / 'bin' / 'activate'))}    so that `clipstudy` is found\n"
    return f"first: export PATH={shlex.quote(sysconfig.get_path('scripts'))}:$PATH    so that `clipstudy` is found\n"


def _report(settings: Settings, out: Path) -> None:
    """Write the pocket study's page, and print its summary. Only when it has ended: the libraries of pages are memory
    that the workers may need."""
    from clipstudy import demo as demonstration
    from clipstudy.dashboard import panels, report
    from clipstudy.results import boards, evidence, sheets
    from clipstudy.results.run_files import RunFiles
    from clipstudy.results.units import INTERVAL
    from clipstudy.tracking import open as open_tracking

    tracking = open_tracking(settings)
    recorded = tracking.results(demonstration.STUDY)
    if not recorded:
        raise ClipstudyError(f"Nothing was recorded. See {demonstration.log_file(settings, 0)}, and: clipstudy status")
    planned = stores.planned(settings, Selection(study=demonstration.STUDY))
    report.write(
        recorded,
        out,
        dashboard=panels.find("layers", settings.home),
        judged=evidence.judged(recorded, tracking.artifact, planned),
        files=RunFiles(tracking),
        planned=planned,
    )
    shown = results.board(recorded)
    for head, rows in sheets.glance(shown):
        screen.table(head, rows)
        typer.echo()
    typer.echo(
        f"Value {INTERVAL}; in parentheses, the layer: the best one, {sheets.CHOSEN}. "
        'Under "no model": the best baseline, which needs none.'
    )
    typer.echo(f"{boards.note_of(shown.results)}\n")


def _print_ended(ended: Ended) -> None:
    from clipstudy import demo as demonstration
    from clipstudy.results.planned import again
    from clipstudy.wording import counted, duration

    if ended.computed:
        typer.echo(f"{counted(ended.computed, 'cell')} computed in {duration(ended.seconds)}; {ended.done:,} are done.")
    else:
        typer.echo(f"Nothing to do: {ended.done:,} cells are already done.")
    if ended.left_out:
        typer.echo(
            f"{counted(ended.left_out, 'cell')} did not fit in the time budget. To run them too: "
            f"{again(demonstration.STUDY)}; clipstudy report --study {demonstration.STUDY}\n"
            "To run the whole study again, with all its rows, seeds and arms: clipstudy demo --full"
        )


@group.command()
def data(
    out: Annotated[Path | None, typer.Option(help="A folder of your own. [default: in the cache]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
) -> None:
    """Make the pocket study's texts and pictures, in the layouts of the real data sets."""
    from clipstudy import demo as demonstration
    from clipstudy.pocket import corpora

    folder = out or Settings.read().cache / demonstration.STUDY
    made = corpora.prepare(folder, seed)
    typer.echo(f"{folder}: {'made' if made else 'already there'}")


@group.command()
def baselines() -> None:
    """Show what texts and pictures reveal without a model: majority, length, bags of words; colours, pixels, shapes."""
    from clipstudy import demo as demonstration
    from clipstudy.pocket import baselines as floors
    from clipstudy.pocket import corpora, pictures

    folder = Settings.read().cache / demonstration.STUDY
    corpora.prepare(folder)
    rows = [
        [f.name, str(f.classes), *(f"{100 * share:.1f}" for share in (f.majority, f.length, f.bag, f.rough))]
        for f in floors.report(folder)
    ]
    screen.table(["accuracy (%)", "classes", "majority", "length", "bag of words", "bags of halves, overlap"], rows)
    typer.echo()
    seen = pictures.baselines(train=1_500, test=800)
    labels = list(next(iter(seen.values())))
    rows = [[name, *(f"{100 * found[label]:.1f}" for label in labels)] for name, found in seen.items()]
    screen.table(["of pictures, accuracy (%)", *labels], rows)


@group.command()
def twins() -> None:
    """Print what the pocket models share, and what sets them apart (Markdown)."""
    from clipstudy.pocket import twins as aspects

    typer.echo(aspects.as_markdown())


@group.command()
def pretrain(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="[default: all seven]")] = None,
    folder: Annotated[Path, typer.Option(help="Where the checkpoints go.")] = Path("pocket-checkpoints"),
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Fewer steps than the recipes', to try it out.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes at once, one thread each. [default: cores]")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Train existing models again.")] = False,
) -> None:
    """Train the pocket models from a seed, record their losses and figures in MLflow, and write their card."""
    from clipstudy import progress as progresses
    from clipstudy.errors import did_you_mean
    from clipstudy.pocket import card, workshop
    from clipstudy.pocket.models import MODELS
    from clipstudy.tracking import entry, pretraining
    from clipstudy.tracking import open as open_tracking
    from clipstudy.wording import duration

    chosen = names or list(MODELS)
    if unknown := [name for name in chosen if name not in MODELS]:
        raise ClipstudyError(f'no pocket model "{unknown[0]}". {did_you_mean(unknown[0], MODELS)}')
    settings = Settings.read()
    open_tracking(settings).prepare()  # what is wrong with it is told before the hours of training
    progress = progresses.for_stderr()
    screen.log(False, progress)
    progress.batch("pretraining")

    def done(model: workshop.Ready) -> None:
        here = {} if model.seconds is None else entry.environment()  # what was there was made who knows where
        try:
            pretraining.record(settings, model.record, seconds=model.seconds, params=here)
        except ClipstudyError as error:  # the others train on; typed again, the command records what is there
            progress.say(f"{model.name} is not in MLflow yet: {error.message}")
        figures = ", ".join(f"{key} {value:.3g}" for key, value in model.record["figures"].items())
        took = "already there" if model.seconds is None else duration(model.seconds)
        progress.say(f"{model.name}: {figures} ({took})")

    try:
        workshop.pretrain_all(
            chosen, folder, seed=seed, steps=steps, jobs=jobs, again=again, progress=progress, on_done=done
        )
    finally:
        progress.close()
    typer.echo(f"{card.write(folder)}: figures and losses; `clipstudy ui` has the curves")
    problems = card.problems(folder)
    for problem in problems:
        typer.echo(f"  {problem}")
    if problems and steps is None and set(chosen) == set(MODELS):
        raise ClipstudyError(
            "These models are not what the study needs. Fix their recipes, then type: clipstudy pocket pretrain --again"
        )
