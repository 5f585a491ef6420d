"""tasks.toml → Study. Every message about a study file is written in this room; all problems are told at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipstudy.errors import StudyError, did_you_mean
from clipstudy.spec import Study
from clipstudy.tasksfile import datasets, models, tasks
from clipstudy.tasksfile.models import DEEPEST
from clipstudy.tasksfile.tables import good_seeds, section
from clipstudy.wording import counted

__all__ = ["DEEPEST", "find", "load", "parse", "shipped"]

#: Studies that come with the package: a folder each with a file of this name, called by the folder's name.
SHIPPED = "tasks.toml"


def find(name: str | None, home: Path) -> Path:
    """The study file that ``--study`` means: a path, from the current folder or from ``home``, a study that comes with
    the package, by name, or (None) ``tasks.toml`` in ``home``.

    Raises:
        StudyError: there is no such file, or none that may be looked at.
    """
    if name is not None and _is_file(here := _place(Path(), name).absolute()):
        return here
    path = _place(home, name or "tasks.toml")
    if _is_file(path):
        return path
    known = shipped()
    if name in known:
        return known[name]
    there = [*known, *(p.name for p in home.glob("*.toml") if p.name != "pyproject.toml")]
    raise StudyError(
        f"no study file {path}. {did_you_mean(name or 'tasks.toml', there)} Name one with --study FILE. "
        "To see a study at work first, with nothing declared: clipstudy demo"
    )


def _place(folder: Path, name: str) -> Path:
    try:
        return folder / Path(name).expanduser()
    except RuntimeError:  # ~NAME of nobody, or a user without a home
        raise StudyError(
            f'--study "{name}": no home folder is known for that. Type the whole path: --study /FOLDER/tasks.toml'
        ) from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a folder above it may not be entered
        raise StudyError(
            f"{path} cannot be looked at ({error.strerror}). Name a study file that can be: --study FILE"
        ) from error


def shipped() -> dict[str, Path]:
    """Studies that come with the package, by the name that ``--study`` takes."""
    return {file.parent.name: file for file in Path(__file__).parents[1].glob(f"*/{SHIPPED}")}


def load(path: Path) -> Study:
    """Read and check a whole study file.

    Raises:
        StudyError: with every problem found, each naming table and key, what was found, and what exists.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read: {error}. Check the file.") from None
    return parse(text, path)


def _twice(text: str, error: str) -> str:
    """What to do about a table that is there twice; empty where ``error``, tomllib's, is about something else."""
    if not (found := re.match(r"Cannot declare \((.+?),?\) twice \(at line (\d+)", error)):
        return ""
    name = ".".join(part.strip("' ") for part in found[1].split(","))
    lines = text.splitlines()[: int(found[2]) - 1]
    before = [at for at, line in enumerate(lines, 1) if re.match(rf"\s*\[\s*{re.escape(name)}\s*\]", line)]
    first = f" in line {before[0]}, and again" if before else " once more"
    return f"[{name}] is there{first} in line {found[2]}. Give one of them another name, or remove it."


def parse(text: str, path: Path) -> Study:
    """As :func:`load`, from text; relative paths in it start from ``path``'s folder."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a syntax error, a number of too many digits, too deep a list
        if twice := _twice(text, str(error)):
            raise StudyError(f"{path}: {twice}") from None
        raise StudyError(f"{path} is not TOML: {error}. Fix that line.") from None
    problems: list[str] = []
    study = _study(tables, path, problems)
    if problems:
        listed = "\n".join(f"  {p}" for p in problems)
        raise StudyError(f"{path}: {counted(len(problems), 'problem')}\n{listed}\nFix the file, then retry.")
    return study


def _study(tables: Mapping[str, Any], path: Path, problems: list[str]) -> Study:
    base = str(path.resolve().parent)
    top = {"study", "models", "datasets", "tasks"}
    problems.extend(f"[{key}]: unknown table. {did_you_mean(key, top)}" for key in tables if key not in top)
    head = section(tables, "study", problems)
    name = head.pop("name", path.stem)
    description, note = head.pop("description", ""), head.pop("note", "")
    shared = head.pop("seeds", None)
    if shared is not None and not good_seeds("[study] seeds", shared, problems):
        shared = None
    keys = ["name", "description", "note", "seeds"]
    problems.extend(f"[study] {key}: unknown key. {did_you_mean(key, keys)}" for key in head)
    for key, value in (("name", name), ("description", description), ("note", note)):
        if not isinstance(value, str):
            problems.append(f"[study] {key}: found {value!r}, expected a text")
    if isinstance(name, str):
        if not name.strip() or not name.isprintable():
            problems.append(f"[study] name: found {name!r}, expected letters on one line")
        if name.endswith(".toml"):  # which --study takes for a file's
            problems.append(f'[study] name: found "{name}". Write it without .toml')
    found_models = models.read(section(tables, "models", problems), base, problems)
    found_datasets = datasets.read(section(tables, "datasets", problems), base, problems)
    known = tasks.Known(tables, found_models, found_datasets, shared)
    found_tasks = tasks.read(section(tables, "tasks", problems), known, problems)
    for what, there in (("models", found_models), ("datasets", found_datasets), ("tasks", found_tasks)):
        if not there and not problems:
            problems.append(f"[{what}.NAME]: none. A study needs one or more {what}.")
    unable = {name: lacking for name, task in found_tasks.items() if (lacking := tasks.unable(task, found_models))}
    return Study(str(name), found_models, found_datasets, found_tasks, str(description), str(note), str(path), unable)
