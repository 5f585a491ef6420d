"""Layers: panel by panel, one chart a task, or the mean of its tasks; bars over layers or lines over depth. Or whatever
else the panel draws: heat maps, a table, pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from dash import dcc, html
from dash.development.base_component import Component

from clipstudy.dashboard import address, charts, heat, panels, series
from clipstudy.dashboard.address import Layers
from clipstudy.dashboard.charts import Figure
from clipstudy.dashboard.pages import components
from clipstudy.dashboard.pages.components import Control, Desk, Shown
from clipstudy.dashboard.panels import Panel
from clipstudy.results import boards, comparisons, sheets, units, writers
from clipstudy.results.boards import Board
from clipstudy.results.likeness import Likeness, likenesses
from clipstudy.results.run_files import seeded
from clipstudy.results.sheets import Sheet
from clipstudy.results.views import View, models_of
from clipstudy.wording import counted

KIND = Layers
TITLE = "Layers"
EVERYTHING = Panel("All tasks")
AXES = {"layer": "layer (bars)", "stage": "stage (bars)", "depth": "depth (lines)"}
DRAWN = {"tasks": "each task", "average": "only their average"}
SEEDS = {"hidden": "hidden", "points": "as points"}
#: Plotly's tools of a chart: as few as have room beside the axis's title. The report's page.js has the same.
TOOLS = [["toImage", "zoom2d", "pan2d", "resetScale2d"]]
#: Metrics that say how a run was made, not what it found.
ASIDE = ("items/", boards.BASELINE)


class Chosen(NamedTuple):
    """What a place comes to, given the results."""

    panel: Panel
    there: list[View]  #: of every task of the panel
    shown: list[View]  #: of the tasks and models chosen
    mean: View | None
    notes: tuple[str, ...]  #: on what could not be averaged


def controls(place: Layers, desk: Desk) -> list[Control]:
    board = desk.board(place)
    offered = _panels(desk, board)
    if not offered:
        return components.studies(place, desk)
    found = chosen(place, desk)
    tasks = {view.task: view.title for view in found.there}
    families = {family for view in found.there for family in view.families}
    asked = [task for task in place.task if task in tasks]
    bars = [
        Control("x", "Horizontal axis", components.options(_axes(found), AXES), _x(place, found), "radio"),
        Control("draw", "Draw", components.options(DRAWN, DRAWN), place.draw, "radio"),
        Control("seeds", "Seeds", components.options(SEEDS, SEEDS), _seeds(place, found), "radio"),
    ]
    return [
        *components.studies(place, desk),
        Control("panel", "Panel", components.options(p.title for p in offered), found.panel.title, "radio"),
        Control("task", "Tasks", components.options(tasks, tasks), asked, "picks", "all in the panel"),
        components.one("metric", "Metric", metrics(board, tasks), place.metric, "headline"),
        *(bars if found.panel.draw == "bars" else []),
        components.models(place, board, desk.records.inks(), families),
    ]


def body(place: Layers, desk: Desk) -> Shown:
    board = desk.board(place)
    if not _panels(desk, board):
        return Shown("Nothing is recorded yet", empty())
    found = chosen(place, desk)
    draw = {"heatmap": _heatmaps, "best": _table, "published": _table, "pictures": _pictures}.get(
        found.panel.draw, _bars
    )
    said, shown = draw(place, desk, found)
    return Shown(
        f"{found.panel.title}: {said}",
        [
            *components.complaints(_unknown(place, desk, board, found)),
            *components.callout(boards.note_of(board.results)),
            html.H2(found.panel.title),
            *([html.P(found.panel.caption)] if found.panel.caption else []),
            *shown,
            *components.notes(place, desk),
        ],
    )


def empty() -> list[Component]:
    return components.nothing(
        "Nothing is recorded yet",
        "This page shows what MLflow holds, and it holds no finished result of this study yet. Type:",
        "clipstudy enqueue --all\nclipstudy worker --drain",
    )


def chosen(place: Layers, desk: Desk) -> Chosen:
    board = desk.board(place)
    offered = _panels(desk, board)
    panel = next((p for p in offered if p.title == place.panel), offered[0])
    there = panels.views(panel, board)
    if place.metric in metrics(board, {view.task for view in there}):
        panel = replace(panel, metric=place.metric)
        there = panels.views(panel, board)
    families = {family for view in there for family in view.families}
    wanted = families & set(place.model) or families
    tasks = {view.task for view in there} & set(place.task)
    shown = [sheets.only(view, wanted) for view in there if not tasks or view.task in tasks]
    shown = [comparisons.levelled(comparisons.marked(view), board) for view in shown if view.curves]
    if panel.draw == "bars" and (panel.seeds if place.seeds == "panel" else place.seeds == "points"):
        shown = [seeded(view, desk.files) for view in shown]
    averaged = replace(panel, average=panel.average or place.draw == "average")
    mean, notes = panels.averaged(averaged, shown) if len(shown) > 1 else (None, ())
    return Chosen(panel, there, shown, mean, notes)


def file(place: Layers, desk: Desk, ending: str) -> tuple[str, str, str] | None:
    """The table of what ``place`` draws first, as a file: its name, its media type, its text."""
    if not _panels(desk, desk.board(place)):
        return None
    found = chosen(place, desk)
    study = desk.study(place)
    if sheet := _sheet(place, desk, found):
        way = writers.by_ending(sheets.DOWNLOADS, ending)
        return (f"{writers.file_name(study, sheet.title)}.{ending}", way.mime, way.write(sheet)) if way else None
    download = writers.by_ending(writers.DOWNLOADS, ending)
    view = found.mean if place.draw == "average" else next(iter(found.shown), None)
    if view is None or download is None:
        return None
    named = writers.file_name(study, view.task or view.title, view.metric)
    return f"{named}.{ending}", download.mime, download.write(view)


def metrics(board: Board, tasks: Iterable[str]) -> list[str]:
    """What the runs of these tasks measured, the arms of a task after its headline."""
    names = {name for task in tasks for name in board.metrics.get(task, ()) if not name.startswith(ASIDE)}
    return sorted((n for n in names if "/baseline/" not in n), key=lambda name: (name.count("/"), name))


# -- inside ------------------------------------------------------------------------------------------------------


def _panels(desk: Desk, board: Board) -> list[Panel]:
    """The dashboard's panels that have results, and last one with all tasks."""
    offered = [panel for panel in desk.dashboard.panels if panels.views(panel, board)]
    everything = [EVERYTHING] if board.tasks and len(offered) != 1 else []
    return offered + everything


def _x(place: Layers, found: Chosen) -> panels.Axis:
    asked = found.panel.x if place.x == "panel" else place.x
    return asked if asked in _axes(found) else "layer"


def _axes(found: Chosen) -> list[str]:
    """Those by which a chart here would be drawn."""
    able = {axis for view in found.shown for axis in series.axes(view)}
    return [axis for axis in AXES if axis == "layer" or axis in able]


def _seeds(place: Layers, found: Chosen) -> str:
    return place.seeds if place.seeds != "panel" else "points" if found.panel.seeds else "hidden"


def _unknown(place: Layers, desk: Desk, board: Board, found: Chosen) -> list[str]:
    families = {family for view in found.there for family in view.families}
    tasks = [view.task for view in found.there]
    return [
        *components.unknown("study", [place.study], desk.records.now().studies),
        *components.unknown("panel", [place.panel], [p.title for p in _panels(desk, board)]),
        *components.unknown(f"task of {found.panel.title}", place.task, tasks),
        *components.unknown("model here", place.model, families),
        *components.unknown("metric", [place.metric], metrics(board, board.tasks)),
    ]


def _bars(place: Layers, desk: Desk, found: Chosen) -> tuple[str, list[Component]]:
    drawn = ([found.mean] if found.mean else []) + (found.shown if place.draw == "tasks" else [])
    remarks = [*found.notes]
    if place.draw == "average" and not found.mean:
        remarks.append("There is no average: that needs two tasks with the same metric that every model has.")
    if not drawn and not remarks:
        remarks.append("No result matches the chosen tasks, models and metric.")
    if _seeds(place, found) == "points":
        cells = [cell for view in found.shown for curve in view.curves for cell in curve.cells]
        if not all(cell.points for cell in cells):
            remarks.append("Some runs kept no values per seed, so their bars have no points.")
    wide = panels.first_is_wide(len(drawn), found.mean is not None)
    inks = desk.records.inks()
    legend = [html.Li([components.swatch(inks[curve.family]), curve.title]) for curve in models_of(drawn)]
    legend += [html.Li(text) for text in charts.signs(drawn)]
    return counted(len(drawn), "chart"), [
        *([html.Ul(legend, className="legend")] if legend else []),
        *([html.Ul([html.Li(text) for text in remarks], className="notes")] if remarks else []),
        html.Div([_figure(v, place, desk, found, wide and v is drawn[0]) for v in drawn], className="figures"),
    ]


def _heatmaps(place: Layers, desk: Desk, found: Chosen) -> tuple[str, list[Component]]:
    maps = [one for view in found.shown for one in likenesses(view, desk.board(place))]
    if not maps:
        return "no map", [html.P("No run of these tasks compared layers one by one.")]
    drawn = [_heatmap(one, replace(place, task=(one.task,), model=(one.family,))) for one in maps]
    signs, figures = html.P(heat.SIGNS), html.Div(drawn, className="figures maps")
    return counted(len(maps), "map"), [signs, figures]


def _heatmap(one: Likeness, at: Layers) -> Component:
    sheet = sheets.likeness(one)
    lines = [(name, [(entry.text, entry.bold) for entry in entries]) for name, entries in sheet.lines]
    table = html.Details([html.Summary("Table"), components.table(f"{sheet.title}, {sheet.said}", sheet.head, lines)])
    return html.Figure([_graph(heat.figure(heat.info(one)), heat.spoken(one)), table, _taken(sheet, at)])


def _table(place: Layers, desk: Desk, found: Chosen) -> tuple[str, list[Component]]:
    sheet = _sheet(place, desk, found)
    if sheet is None or not sheet.lines:
        return "no line", [html.P(units.sentence((sheet or Sheet).empty))]
    shown = [html.P(units.sentence(sheet.said)), _taken(sheet, place), components.sheet(sheet, "sheet")]
    return counted(len(sheet.lines), "line"), shown


def _pictures(place: Layers, desk: Desk, found: Chosen) -> tuple[str, list[Component]]:
    figures = []
    for view in found.shown:
        for curve, layer, run, name in desk.files.album(view, found.panel.picture):
            swatch = components.swatch(desk.records.inks()[curve.family])
            image = components.picture(run, name, curve.title)
            said = components.explained(*desk.files.explained(run.run_id, name))
            figures.append(html.Figure([html.Figcaption([swatch, f"{curve.title}, layer {layer}"]), image, *said]))
    if not figures:
        return "no picture", [html.P("No run of these tasks keeps such a picture.")]
    album = html.Div(figures, className="album")
    return counted(len(figures), "picture"), [html.P("Click a picture to open it at full size."), album]


def _sheet(place: Layers, desk: Desk, found: Chosen) -> Sheet | None:
    """The table that the panel draws, or that its first heat map holds; None: it draws another thing."""
    board = desk.board(place)
    match found.panel.draw:
        case "best":
            return sheets.best(found.shown)
        case "published":
            tasks = {view.task for view in found.shown}
            families = {curve.family for view in found.shown for curve in view.curves}
            numbers = [number for number in comparisons.numbers(found.panel.source) if number.task in tasks]
            kept = tuple(result for result in board.results if result.family in families)
            return sheets.beside_published(found.shown, replace(board, results=kept), numbers)
        case "heatmap":
            maps = (one for view in found.shown for one in likenesses(view, board))
            return next((sheets.likeness(one) for one in maps), None)
    return None


def _figure(view: View, place: Layers, desk: Desk, found: Chosen, full: bool) -> Component:
    figure = charts.bars(view, desk.records.inks(), _x(place, found), wide=full)
    said = writers.caption(view)
    head, lines = writers.grid(view)
    at = replace(place, panel=found.panel.title, task=(view.task,)) if view.task else replace(place, draw="average")
    table = components.table(writers.over(view), ["layer", *head], lines)
    return html.Figure(
        [
            _graph(figure, writers.spoken(view)),
            *([html.P(said)] if said else []),
            html.Details([html.Summary("Table"), table]),
            components.taken("/take/layers", view.title, address.href(at).partition("?")[2], writers.DOWNLOADS),
        ],
        className="full" * full,
    )


def _graph(figure: Figure, what: str) -> Component:
    graph = dcc.Graph(
        figure=figure,
        config={"displaylogo": False, "responsive": True, "modeBarButtons": TOOLS},
        className="chart",
    )
    return html.Div(graph, role="img", **components.labelled(what))


def _taken(sheet: Sheet, at: Layers) -> Component:
    return components.taken("/take/layers", sheet.title, address.href(at).partition("?")[2], sheets.DOWNLOADS)
