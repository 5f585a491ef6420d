"""The group `clipstudy pocket`, which makes what the pocket study needs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from clipstudy.cli import screen
from clipstudy.errors import ClipstudyError
from clipstudy.settings import Settings

group = typer.Typer(
    name="pocket",
    help="The miniature world behind `clipstudy demo`: its texts, pictures and models.",
    no_args_is_help=True,
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
    from clipstudy.pocket import corpora
    from clipstudy.pocket.images import pictures

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
    from clipstudy.pocket.training import twins as aspects

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
    from clipstudy.pocket.training import card, workshop
    from clipstudy.pocket.training.models import MODELS
    from clipstudy.tracking import entry, pretraining
    from clipstudy.tracking import open as open_tracking
    from clipstudy.wording import duration

    chosen = names or list(MODELS)
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
            "These models are not what the study needs. Fix their recipes, then type: clipstudy pocket pretrain "
            f"--again --folder {shlex.quote(str(folder))}"
        )
