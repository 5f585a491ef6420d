"""The command `clipstudy demo`."""

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
    _print_ended(ended, out)
    typer.echo(f"\n{_reached()}next:  open {shlex.quote(str(out))}                   the figures, layer by layer")
    typer.echo("       clipstudy dashboard                the same with controls, and the runs' pictures")
    typer.echo("       clipstudy ui                       every run in MLflow")
    if (settings.home / "tasks.toml").is_file():
        typer.echo("       clipstudy enqueue --all --dry-run  the real study, as tasks.toml declares it")
    if ended.unfinished:
        raise ClipstudyError(
            f"{counted(ended.unfinished, 'cell')} of the study "
            f"{'is' if ended.unfinished == 1 else 'are'} not finished, and its workers have left: see "
            f"{demonstration.log_file(settings, 0)}. To go on, type: clipstudy worker --drain --study "
            f"{demonstration.STUDY}"
        )
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
        judged=evidence.judged(recorded, tracking.artifact, planned, tracking.gone()),
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


def _print_ended(ended: Ended, out: Path) -> None:
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
            f"{again(demonstration.STUDY)}; clipstudy report --study {demonstration.STUDY} --out "
            f"{shlex.quote(str(out))}\n"
            "To run the whole study again, with all its rows, seeds and arms: clipstudy demo --full"
        )
