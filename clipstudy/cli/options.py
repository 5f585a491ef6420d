"""The types of the options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Study = Annotated[str | None, typer.Option("--study", help="Only this study, by name or file.")]
StudyOption = Annotated[str | None, typer.Option("--study", help="A study file. [default: tasks.toml]")]
Models = Annotated[list[str] | None, typer.Option("--model", "-m", help="Models, by shell pattern; may be repeated.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", "-t", help="Tasks, by shell pattern; may be repeated.")]
Layers = Annotated[list[str] | None, typer.Option("--layer", "-l", help="Layers: 7 or 0-3; may be repeated.")]
All = Annotated[bool, typer.Option("--all", help="Every cell.")]
Json = Annotated[bool, typer.Option("--json", help="For a script to read.")]
