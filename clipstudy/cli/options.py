"""The types of the options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from clipstudy.cli import selecting
from clipstudy.errors import NoSuchJob


def job_number(text: str) -> int:
    """Raises NoSuchJob where ``text`` is no number."""
    if not text.isdecimal():
        raise NoSuchJob(f'"{text}" is not a job number. {selecting.where_numbers_are(text)}')
    return int(text)


Study = Annotated[str | None, typer.Option("--study", help="Only this study, by name or file.")]
StudyFile = Annotated[str | None, typer.Option("--study", help="A study file. [default: tasks.toml]")]
Models = Annotated[list[str] | None, typer.Option("--model", "-m", help="Models, by shell pattern; may be repeated.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", "-t", help="Tasks, by shell pattern; may be repeated.")]
Layers = Annotated[list[str] | None, typer.Option("--layer", "-l", help="Layers: 7 or 0-3; may be repeated.")]
Device = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda:N or mps. [default: CLIPSTUDY_DEVICE, auto]")
]
LayersPerBatch = Annotated[int | None, typer.Option(min=1, help="At most this many layers in one claim.")]
DashboardName = Annotated[str, typer.Option("--dashboard", help="What to show: a name in dashboards/, or a TOML file.")]
JobNumber = Annotated[
    int, typer.Argument(metavar="JOB", parser=job_number, help="A job's number, from `status --rows`.")
]
All = Annotated[bool, typer.Option("--all", help="Every cell.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")]
