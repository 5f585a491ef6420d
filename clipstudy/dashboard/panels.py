"""A dashboard's TOML file → Dashboard: which panels a page shows, in which order. Pure but for reading the file."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from clipstudy.errors import StudyError, did_you_mean, nearest
from clipstudy.results.boards import Board, called, matches, view
from clipstudy.results.pooling import average
from clipstudy.results.views import View, best_layer

Axis = Literal["layer", "stage", "depth"]
Kind = Literal["bars", "heatmap", "best", "published", "pictures"]
AXES: tuple[str, ...] = get_args(Axis)
KINDS: tuple[str, ...] = get_args(Kind)
#: Two depths nearer than this are one: tags hold three decimals.
NEAR = 0.01


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
    draw: Kind = "bars"
    models: tuple[str, ...] = ()  #: patterns of models, families or roles; empty: all
    depths: tuple[float, ...] = ()  #: fractions of a model's blocks: only layers there; empty: all
    seeds: bool = False  #: each seed's own value, as points
    source: tuple[str, ...] = ()  #: of ``published``: patterns of the papers; empty: all
    picture: tuple[str, ...] = ()  #: of ``pictures``: patterns of files; empty: all
    others: tuple[Panel, ...] | None = None  #: shows what none of these does; None: what its tasks and categories say

    def takes(self, task: str, category: str) -> bool:
        """Whether the panel shows the task; one that names neither tasks nor categories shows all."""
        if self.others is not None:
            return not any(panel.takes(task, category) for panel in self.others)
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
    folders = tuple(dict.fromkeys((home / "dashboards", default().parent)))  # a checkout's are the same
    # Of what is there, so that a name cannot lead out of the folders.
    there = {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob("*.toml"))}
    if name not in there:
        raise StudyError(
            f'no dashboard "{name}" in {" or ".join(map(str, folders))}. {did_you_mean(name, there)} '
            "Name one of them, or a TOML file: ./mine.toml"
        )
    return load(there[name])


def load(path: Path) -> Dashboard:
    """
    Raises:
        StudyError: the file is missing or says something that cannot be shown.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or "").lower() if isinstance(error, OSError) else "it is not UTF-8 text"
        beside = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise StudyError(f"{path}: cannot be read: {why}. {did_you_mean(path.name, beside)}") from error
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
    except (ValueError, RecursionError) as error:  # a syntax error, a number of too many digits, too deep a list
        raise StudyError(f"{where}: not TOML ({error}). Fix that line.") from error
    tables = values.pop("panel", [])
    _check(values, _DASHBOARD, where)
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise StudyError(f"{where}: no panel. Add a table [[panel]] with a title and tasks or a category.")
    panels = tuple(_panel(table, f"{where}: panel {number}") for number, table in enumerate(tables, 1))
    charts = tuple(panel for panel in panels if panel.others is None and panel.draw in ("bars", "heatmap"))
    panels = tuple(panel if panel.others is None else replace(panel, others=charts) for panel in panels)
    title = values.get("title") or Path(where).stem
    return Dashboard(title, panels, values.get("description", ""), tuple(values.get("order", ())))


def narrowed(panel: Panel, shown: Board) -> Board:
    """``shown`` of the panel's models alone."""
    if not panel.models:
        return shown
    return replace(shown, results=tuple(r for r in shown.results if matches(r, panel.models)))


def views(panel: Panel, shown: Board) -> list[View]:
    """The panel's tasks that have results, in the order in which the panel names them."""
    shown = narrowed(panel, shown)
    category = {task: rows[-1].tags.get("category", "") for task, rows in shown.by_task.items()}
    taken = [task for task in shown.tasks if task in category and panel.takes(task, category[task])]
    taken.sort(key=lambda task: next((i for i, p in enumerate(panel.tasks) if fnmatch.fnmatchcase(task, p)), 0))
    found = [found for task in taken if (found := view(shown, task, panel.metric)) is not None]
    return [seen for one in found if (seen := _at(one, panel.depths)).curves]


def misspelt(dashboard: Dashboard, shown: Board) -> list[str]:
    """A sentence for each name of a task or model that nothing has which is shown, and that is like one that it has.
    (Others may be recorded another day.)"""
    tasks = {result.task for result in shown.results}
    models = {name for result in shown.results for name in called(result)}
    found = []
    for panel in dashboard.panels:
        for what, names, known in (("task", panel.tasks, tasks), ("model", panel.models, models)):
            for name in names:
                near = nearest(name, known).strip()
                if near and not fnmatch.filter(known, name):
                    found.append(f'panel "{panel.title}": no result has the {what} "{name}". {near}')
    return found


def averaged(panel: Panel, found: list[View]) -> tuple[View | None, tuple[str, ...]]:
    """The mean of the panel's tasks where it asks for one, and notes on what could not be averaged."""
    return average(found, f"{panel.title}: average") if panel.average else (None, ())


def first_is_wide(charts: int, average: bool) -> bool:
    """Two charts a row; what would leave a gap in the last one, a lone chart or the average, gets a row of its own."""
    return charts % 2 == 1 and (average or charts == 1)


def _at(one: View, depths: tuple[float, ...]) -> View:
    """``one`` at these fractions of the models' blocks alone; none given: as it is."""
    if not depths:
        return one
    curves = []
    for curve in one.curves:
        cells = [c for c in curve.cells if c.depth is not None and any(abs(c.depth - d) < NEAR for d in depths)]
        if cells:
            curves.append(replace(curve, cells=tuple(cells), best=best_layer(cells, one.metric, curve.dev)))
    return replace(one, curves=tuple(curves))


#: What each key of a panel may be.
_TEXTS, _TEXT_OR_TEXTS = "a list of texts", "a text or a list of texts"
_PANEL = {
    "title": "a text",
    "tasks": _TEXTS,
    "category": _TEXT_OR_TEXTS,
    "metric": "a text",
    "x": "a text",
    "average": "true or false",
    "caption": "a text",
    "draw": "a text",
    "models": _TEXTS,
    "depths": "a list of numbers",
    "seeds": "true or false",
    "source": _TEXT_OR_TEXTS,
    "picture": _TEXT_OR_TEXTS,
    "rest": "true or false",
}
_DASHBOARD = {"title": "a text", "description": "a text", "order": _TEXTS}
_FITS: Mapping[str, Callable[[Any], bool]] = {
    "a text": lambda value: isinstance(value, str),
    "true or false": lambda value: isinstance(value, bool),
    _TEXTS: lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
    _TEXT_OR_TEXTS: lambda value: isinstance(value, str) or _FITS[_TEXTS](value),
    "a list of numbers": lambda value: (
        isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    ),
}


def _panel(table: Mapping[str, Any], where: str) -> Panel:
    _check(table, _PANEL, where)
    if not table.get("title"):
        raise StudyError(f'{where}: has no title. Add one: title = "Syntactic".')
    for key, known in (("x", AXES), ("draw", KINDS)):
        if (said := table.get(key, known[0])) not in known:
            raise StudyError(f"{where}: {key} = {said!r}. {did_you_mean(said, known)} Use one of them.")
    values: dict[str, Any] = {}
    for key, value in table.items():
        alone = _PANEL[key] == _TEXT_OR_TEXTS and isinstance(value, str)
        values[key] = (value,) if alone else tuple(value) if isinstance(value, list) else value
    if values.get("metric") == "headline":
        del values["metric"]
    if not values.pop("rest", False):
        return Panel(**values)
    if "tasks" in values or "category" in values:
        raise StudyError(f"{where}: rest = true cannot be combined with tasks or a category. Remove one of the two.")
    return Panel(**values, others=())


def _check(table: Mapping[str, Any], kinds: Mapping[str, str], where: str) -> None:
    for key, value in table.items():
        if key not in kinds:
            raise StudyError(f"{where}: unknown key {key!r}. {did_you_mean(key, kinds)} Fix or remove it.")
        if not _FITS[kinds[key]](value):
            raise StudyError(f"{where}: {key} = {value!r} is not {kinds[key]}. Fix it.")
