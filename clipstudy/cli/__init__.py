"""The command line: parse, call one function, print. Heavy imports are inside the commands that need them.

``demo``, ``work``, ``fetch``, ``fleet``, ``jobs``, ``doctor``, ``results``, ``claims``, ``dashboard`` and ``pocket``
hold the commands. What they share: ``options`` (the types of their options), ``selecting`` (words → the cells meant),
``stores`` (what settings point to), ``screen`` (tables, the log), ``status`` (the job table on a terminal).
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Annotated, TextIO

import typer

from clipstudy import __version__
from clipstudy.cli import claims, dashboard, demo, doctor, fetch, fleet, jobs, pocket, results, work
from clipstudy.errors import AWAY, BUG, ClipstudyError, printable
from clipstudy.redaction import redact

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
    demo.demo,
    work.init,
    fetch.fetch,
    fetch.cache,
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
    doctor.doctor,
    results.report,
    results.results,
    claims.claims,
    claims.published,
    dashboard.dashboard,
    results.ui,
)
for command in COMMANDS:
    # A priority may be below zero: -5 is none of its options.
    app.command(context_settings={"ignore_unknown_options": True} if command is jobs.prioritise else None)(command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"clipstudy {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What stands before a command."""


app.add_typer(fleet.group)
app.add_typer(pocket.group)


def main() -> None:
    """The entry point: an error that the user can mend prints without a traceback, and exits with 2, or with 69 where
    trying again later may do; any other is a bug, prints one without credentials, and exits with 70: to whoever started
    a worker that is a crash, and none of the ends that a worker has of its own."""
    # What is started from here (workers, MLflow's pages) imports nothing from the current folder: that may be a
    # stranger's study, with a file beside it that is called as a module is.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    # Neither this process nor any that it starts tells a library's makers that it was used.
    os.environ.setdefault("DO_NOT_TRACK", "true")
    for stream in (sys.stdout, sys.stderr):
        _take_any_letter(stream)
    with _ended_by_signals():
        try:
            app()
        except ClipstudyError as error:
            typer.echo(f"clipstudy: {redact(error.message)}", err=True)
            sys.exit(AWAY if error.transient else 2)
        except Exception:
            typer.echo(printable(redact(traceback.format_exc())), err=True, nl=False)
            sys.exit(BUG)


def _take_any_letter(stream: TextIO) -> None:
    """A letter that the terminal's encoding lacks is shown as ``?``: it is no reason for a command to fail."""
    reconfigure = getattr(stream, "reconfigure", None)  # a stream of somebody else's may have none
    if reconfigure is not None and codecs.lookup(stream.encoding).name != "utf-8":
        reconfigure(errors="replace")


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that nothing half-written and no process stays behind, unless a command
    handles it in its own way. The end of a terminal (SIGHUP) is handled as SIGTERM is then, unless the user said that
    it does not matter (nohup)."""

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    def pass_on(number: int, frame: object) -> None:
        # Shell and kernel both tell of it, and a worker that is told twice waits for nobody.
        signal.signal(number, signal.SIG_IGN)
        signal.raise_signal(signal.SIGTERM)

    handlers = {signal.SIGTERM: end}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = pass_on
    if threading.current_thread() is not threading.main_thread():  # no other may have handlers
        handlers = {}
    free = [number for number in handlers if signal.getsignal(number) == signal.SIG_DFL]
    for number in free:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number in free:
            signal.signal(number, signal.SIG_DFL)
