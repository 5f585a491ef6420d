"""The command line: parse, call one function, print. Heavy imports are inside the commands that need them.

``work``, ``fetching``, ``fleet``, ``jobs``, ``health``, ``results``, ``judging``, ``dashboard`` and ``pocket`` hold
the commands. What they share: ``options`` (the types of their options), ``selecting`` (words → the cells meant),
``stores`` (what settings point to), ``screen`` (tables, the log), ``status`` (the job table on a terminal).
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from clipstudy import __version__
from clipstudy.cli import dashboard, fetching, fleet, health, jobs, judging, pocket, results, work
from clipstudy.errors import ClipstudyError, printable
from clipstudy.settings import redact

__all__ = ["app", "main"]

app = typer.Typer(
    name="clipstudy",
    help="What does image–text training do to a model's single-modality representations? Declare a study in "
    "tasks.toml, enqueue its cells, let workers run them, and read the results in MLflow and in a report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: In the order in which `clipstudy --help` lists them.
COMMANDS = (
    pocket.demo,
    work.init,
    fetching.fetch,
    fetching.cache,
    work.enqueue,
    work.worker,
    work.run,
    jobs.status,
    jobs.show,
    jobs.logs,
    jobs.cancel,
    jobs.retry,
    jobs.rerun,
    jobs.prioritise,
    health.doctor,
    results.report,
    results.results,
    judging.claims,
    judging.published,
    dashboard.dashboard,
    results.ui,
)
for command in COMMANDS:
    app.command()(command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"clipstudy {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version, and nothing else.")
    ] = False,
) -> None:
    """What stands before a command."""


app.add_typer(fleet.group)
app.add_typer(pocket.group)


def main() -> None:
    """The entry point: an error that the user can mend prints without a traceback, and exits with 2; any other is a
    bug, and prints one without credentials."""
    # What is started from here (workers, MLflow's pages) imports nothing from the current folder: that may be a
    # stranger's study, with a file beside it that is called as a module is.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    # Neither this process nor any that it starts tells a library's makers that it was used.
    os.environ.setdefault("DO_NOT_TRACK", "true")
    try:
        app()
    except ClipstudyError as error:
        typer.echo(f"clipstudy: {redact(error.message)}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
    except Exception:
        typer.echo(printable(redact(traceback.format_exc())), err=True, nl=False)
        sys.exit(1)
