"""Tables: models × tasks at their best layers, one task layer by layer, the differences of two models."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html

from clipstudy.dashboard import address, panels
from clipstudy.dashboard.address import Tables
from clipstudy.dashboard.pages import components, layers
from clipstudy.dashboard.pages.components import Control, Desk, Shown
from clipstudy.published import Published
from clipstudy.results import boards, comparisons, sheets, units, writers
from clipstudy.results.sheets import Sheet
from clipstudy.results.views import View

KIND = Tables
TITLE = "Tables"
KINDS = {
    "best": "best layers",
    "layers": "one task, layer by layer",
    "differences": "difference between two models",
    "published": "compared with published numbers",
}


def controls(place: Tables, desk: Desk) -> list[Control]:
    board = desk.board(place)
    titles, families = {v.task: v.title for v in _views(place, desk)}, components.titled(board)
    several = place.table != "layers"
    asked = [task for task in place.task if task in titles]
    chosen = [
        *components.studies(place, desk),
        Control("table", "Table", components.options(KINDS, KINDS), place.table, "radio"),
        Control("task", "Tasks", components.options(titles, titles), asked, "picks", "all")
        if several
        else Control("task", "Task", components.options(titles, titles), _task(place, titles)),
        components.one("metric", "Metric", layers.metrics(board, titles), place.metric, "headline"),
    ]
    if place.table == "differences":
        first, second = pair(place, desk)
        there = [family for family in board.families if family in families]
        return [
            *chosen,
            Control("first", "Model", components.options(there, families), first),
            Control("second", "minus", components.options(there, families), second),
        ]
    if place.table == "published":
        papers = list(dict.fromkeys(number.paper for number in _numbers(place, desk)))
        asked = [paper for paper in place.source if paper in papers]
        return [
            *(control for control in chosen if control.key != "metric"),
            Control("source", "Sources", components.options(papers), asked, "picks", "all"),
        ]
    if not titles:
        return chosen
    return [*chosen, components.models(place, board, desk.records.inks(), _families(place, _views(place, desk)))]


def body(place: Tables, desk: Desk) -> Shown:
    board = desk.board(place)
    if not board.results:
        return Shown("Nothing is recorded yet", layers.empty())
    families = components.titled(board)
    one = place.table == "layers"
    here = " with results of this task" if one else ""
    known = _families(place, _views(place, desk)) if one else set(families)
    wrong = [
        *components.unknown("study", [place.study], desk.records.now().studies),
        *components.unknown("task", place.task, board.tasks),
        *components.unknown("model", [place.first, place.second], families),
        *components.unknown(f"model{here}", place.model, known),
        *components.unknown("metric", [place.metric], layers.metrics(board, board.tasks)),
        *components.unknown("source", place.source, {number.paper for number in _numbers(place, desk)}),
    ]
    sheet = chosen(place, desk)
    if sheet is None or not sheet.lines:
        said = units.sentence((sheet or Sheet).empty)
        note, title = (sheet.note, sheet.title) if sheet else ("", TITLE)
        return Shown(said, [*components.complaints(wrong), *components.callout(note), *components.nothing(title, said)])
    return Shown(
        f"{sheet.title}: {len(sheet.lines)} lines",
        [
            *components.complaints(wrong),
            *components.callout(sheet.note),
            html.H2(sheet.title),
            html.P(units.sentence(sheet.said)),
            components.taken(
                "/take/tables",
                "this table",
                address.href(place).partition("?")[2],
                sheets.DOWNLOADS,
            ),
            components.sheet(sheet, "sheet"),
            *components.notes(place, desk),
        ],
    )


def chosen(place: Tables, desk: Desk) -> Sheet | None:
    """The table of ``place``; None: there is no such result."""
    views = _views(place, desk)
    tasks = {view.task for view in views} & set(place.task)
    if place.table == "differences":
        first, second = pair(place, desk)
        return sheets.differences([v for v in views if not tasks or v.task in tasks], first, second, desk.files.tested)
    if place.table == "published":
        numbers = [n for n in _numbers(place, desk) if not place.source or n.paper in place.source]
        return sheets.published(desk.board(place), [n for n in numbers if not tasks or n.task in tasks])
    families = _families(place, views)
    kept = families & set(place.model) or families
    if place.table == "layers":
        wanted = _task(place, {view.task: view.title for view in views})
        view = next((view for view in views if view.task == wanted), None)
        return sheets.by_layer(sheets.only(comparisons.levelled(view, desk.board(place)), kept)) if view else None
    return sheets.best([sheets.only(view, kept) for view in views if not tasks or view.task in tasks])


def pair(place: Tables, desk: Desk) -> tuple[str, str]:
    """The two models that are compared: those named, else the first trained ones that have a task in common."""
    board = desk.board(place)
    tasks: dict[str, set[str]] = {family: set() for family in board.families}
    twins = set()
    for result in board.results:
        tasks[result.family].add(result.task)
        if result.tags.get("twin_of"):
            twins.add(result.family)
    ranked = sorted(tasks, key=twins.__contains__)  # twins last; the rest as it is
    first = place.first if place.first in tasks else next(iter(ranked), "")
    others = sorted((f for f in ranked if f != first), key=lambda family: not tasks[family] & tasks[first])
    return first, place.second if place.second in others else next(iter(others), first)


def file(place: Tables, desk: Desk, ending: str) -> tuple[str, str, str] | None:
    """The table of ``place`` as a file: its name, its media type, its text."""
    way = writers.by_ending(sheets.DOWNLOADS, ending)
    sheet = chosen(place, desk) if way else None
    if way is None or sheet is None:
        return None
    return f"{writers.file_name(desk.study(place), sheet.title)}.{ending}", way.mime, way.write(sheet)


def _numbers(place: Tables, desk: Desk) -> list[Published]:
    """Published numbers of tasks that are recorded and of roles that some model of them plays."""
    board = desk.board(place)
    roles = {role for result in board.results for role in result.tags.get("role", "").split()}
    return [number for number in comparisons.numbers() if number.role in roles and number.task in board.tasks]


# -- inside ------------------------------------------------------------------------------------------------------


def _views(place: Tables, desk: Desk) -> list[View]:
    """Every task, panel by panel as the dashboard orders them, then those that are on no panel."""
    board = desk.board(place)
    ordered = dict.fromkeys(v.task for panel in desk.dashboard.panels for v in panels.views(panel, board))
    names = [*ordered, *(task for task in board.tasks if task not in ordered)]
    metric = place.metric if place.metric in layers.metrics(board, board.tasks) else None
    return [found for task in names if (found := boards.view(board, task, metric)) is not None]


def _families(place: Tables, views: Sequence[View]) -> set[str]:
    """Models that the table can show: of one task those that have results of it."""
    wanted = _task(place, {view.task: view.title for view in views})
    kept = [view for view in views if place.table != "layers" or view.task == wanted]
    return {family for view in kept for family in view.families}


def _task(place: Tables, titles: dict[str, str]) -> str | None:
    return next((task for task in place.task if task in titles), next(iter(titles), None))
