"""The command that looks whether all is well: doctor."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from clipstudy.cli import screen
from clipstudy.cli.options import Json
from clipstudy.errors import ClipstudyError
from clipstudy.settings import Settings

if TYPE_CHECKING:
    from clipstudy.doctor import Finding


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Make the job table, outbox and MLflow agree.")] = False,
    as_json: Json = False,
) -> None:
    """Check this machine, and that the job table, outbox and MLflow agree. The exit code is 1 if something is wrong.

    Nothing is changed without --fix, and even then nothing that a live worker holds.
    """
    from clipstudy import doctor as doctors

    found = []
    for finding in _findings(fix):
        found.append(finding)
        if not as_json:
            _print(finding)
    well = all(finding.level is not doctors.Level.WRONG for finding in found)
    if as_json:
        typer.echo(json.dumps({"well": well, "findings": [asdict(finding) for finding in found]}))
    else:
        counts = [f"{sum(f.level is level for f in found)} {level}" for level in doctors.Level]
        typer.echo("\n" + ", ".join(counts))
    if not well:
        raise typer.Exit(1)


def _findings(fix: bool) -> Iterator[Finding]:
    from clipstudy import doctor as doctors

    try:
        settings = Settings.read()
    except ClipstudyError as error:  # where things are is not known, so nothing else can be looked at
        yield doctors.Finding(doctors.Level.WRONG, "settings", error.message)
        return
    yield from doctors.examine(settings, fix=fix)


def _print(finding: Finding) -> None:
    colour = {"ok": "green", "warning": "yellow", "wrong": "red", "mended": "cyan"}[finding.level]
    head, margin = f"{finding.level:<8} {finding.what:<10} ", " " * 20
    typer.echo(
        typer.style(head[:9], fg=colour, bold=finding.level != "ok")
        + head[9:]
        + screen.paragraph(finding.says, len(margin))
    )
    if finding.do:
        typer.echo(f"{margin}→ {finding.do}")  # one line, to be copied
    sys.stdout.flush()
