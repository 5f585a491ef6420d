"""A dashboard's TOML file → Dashboard: which panels a page shows, in which order. Pure but for reading the file."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from clipstudy.dashboard.tables import Board, View, average, view
from clipstudy.errors import StudyError, did_you_mean

Axis = Literal["layer", "depth"]


@dataclass(frozen=True)
class Panel:
    """One table ``[[panel]]``: tasks by name or category, each drawn, and perhaps their average."""

    title: str
    tasks: tuple[str, ...] = ()  #: patterns of task names; empty: every task of the categories
    category: tuple[str, ...] = ()  #: patterns of categories
    metric: str | None = None  #: None: each task's own headline metric
    x: Axis = "layer"
    average: bool = False  #: also the mean of the panel's tasks
    caption: str = ""

    def takes(self, task: str, category: str) -> bool:
        """Whether the panel shows the task; one that names neither tasks nor categories shows all."""
        named = any(fnmatch.fnmatchcase(task, pattern) for pattern in self.tasks)
        sorted_in = any(fnmatch.fnmatchcase(category, pattern) for pattern in self.category)
        return named or sorted_in or not (self.tasks or self.category)


@dataclass(frozen=True)
class Dashboard:
    """One file under ``dashboards/``."""

    title: str
    panels: tuple[Panel, ...]
    description: str = ""
    order: tuple[str, ...] = ()  #: patterns of models, families or roles: which are drawn first


def default() -> Path:
    """The dashboard that ships with the program, from a checkout or from an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    places = (package.parent / "dashboards", package / "_top" / "dashboards")
    return next((p for p in places if p.is_dir()), places[0]) / "layers.toml"


def find(name: str, home: Path) -> Dashboard:
    """The dashboard called ``name``: a TOML file, or a name in ``dashboards/`` under ``home``, or one that ships.

    Raises:
        StudyError: there is none, or it says something that cannot be shown.
    """
    if name.endswith(".toml"):
        return load(Path(name))
    own = home / "dashboards" / f"{name}.toml"
    return load(own if own.exists() else default().with_name(f"{name}.toml"))


def load(path: Path) -> Dashboard:
    """
    Raises:
        StudyError: the file is missing or says something that cannot be shown.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        beside = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise StudyError(f"{path}: cannot be read ({error}). {did_you_mean(path.name, beside)}") from error
    return parse(text, str(path))


def parse(text: str, where: str) -> Dashboard:
    """
    Args:
        where: what a message calls the text: its file.

    Raises:
        StudyError: names the file, the panel by number, the key, and what exists.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{where}: not TOML ({error}). Mend that line.") from error
    tables = values.pop("panel", [])
    _check(values, {"title": str, "description": str, "order": list}, where)
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise StudyError(f"{where}: no panel. Add a table [[panel]] with a title and tasks or a category.")
    panels = tuple(_panel(table, f"{where}: panel {number}") for number, table in enumerate(tables, 1))
    title = values.get("title") or Path(where).stem
    return Dashboard(title, panels, values.get("description", ""), tuple(values.get("order", ())))


def views(panel: Panel, shown: Board) -> list[View]:
    """The panel's tasks that have results, in the order in which the panel names them."""
    category = {r.task: r.tags.get("category", "") for r in shown.results}
    taken = [task for task in shown.tasks if panel.takes(task, category[task])]
    taken.sort(key=lambda task: next((i for i, p in enumerate(panel.tasks) if fnmatch.fnmatchcase(task, p)), 0))
    return [found for task in taken if (found := view(shown, task, panel.metric)) is not None]


def averaged(panel: Panel, found: list[View]) -> tuple[View | None, tuple[str, ...]]:
    """The mean of the panel's tasks where it asks for one, and notes on what could not be averaged."""
    return average(found, f"{panel.title}: average") if panel.average else (None, ())


def _panel(table: Mapping[str, Any], where: str) -> Panel:
    kinds = {"title": str, "tasks": list, "category": (str, list), "metric": str, "x": str, "average": bool}
    _check(table, kinds | {"caption": str}, where)
    if not table.get("title"):
        raise StudyError(f'{where}: has no title. Add one: title = "Syntactic".')
    x = table.get("x", "layer")
    if x not in ("layer", "depth"):
        raise StudyError(f"{where}: x = {x!r}; {did_you_mean(x, ('layer', 'depth'))} Say one of them.")
    category = table.get("category", [])
    known = {field.name for field in fields(Panel)}
    plain = {k: v for k, v in table.items() if k in known - {"tasks", "category", "metric"}}
    return Panel(
        **plain,
        tasks=tuple(table.get("tasks", ())),
        category=(category,) if isinstance(category, str) else tuple(category),
        metric=table.get("metric") if table.get("metric") != "headline" else None,
    )


def _check(table: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    for key, value in table.items():
        if key not in kinds:
            raise StudyError(f"{where}: unknown key {key!r}; {did_you_mean(key, kinds)} Mend or remove it.")
        kind = kinds[key]
        if not isinstance(value, kind) or (isinstance(value, list) and not all(isinstance(v, str) for v in value)):
            wanted = {str: "a text", bool: "true or false", list: "a list of texts"}.get(
                kind, "a text or a list of texts"
            )
            raise StudyError(f"{where}: {key} = {value!r} is not {wanted}. Mend it.")
