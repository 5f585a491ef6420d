"""Layers: one chart a task, or the mean of a panel's tasks; bars over layers or lines over depth."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import NamedTuple

from dash import dcc, html
from dash.development.base_component import Component

from clipstudy.dashboard import address, beside, charts, panels, sheets, tables, writers
from clipstudy.dashboard.address import Layers
from clipstudy.dashboard.pages import parts
from clipstudy.dashboard.pages.parts import Control, Desk, Shown
from clipstudy.dashboard.panels import Panel
from clipstudy.dashboard.report import DOWNLOADS
from clipstudy.dashboard.tables import Board, View

KIND = Layers
TITLE = "Layers"
EVERYTHING = Panel("All tasks")
AXES = {"layer": "layer (bars)", "depth": "depth (lines)"}
DRAWN = {"tasks": "each task", "average": "their average alone"}
#: Metrics that say how a run was made, not what it found.
ASIDE = ("items/", tables.BASELINE)


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
        return parts.studies(place, desk)
    found = chosen(place, desk)
    tasks = {view.task: view.title for view in found.there}
    families = {curve.family for view in found.there for curve in view.curves}
    asked = [task for task in place.task if task in tasks]
    return [
        *parts.studies(place, desk),
        Control("panel", "Panel", parts.options(p.title for p in offered), found.panel.title, "radio"),
        Control("task", "Tasks", parts.options(tasks, tasks), asked, "picks", "all of the panel"),
        Control("metric", "Metric", parts.options(metrics(board, tasks)), place.metric or None, hint="headline"),
        Control("x", "Horizontal axis", parts.options(AXES, AXES), _x(place, found), "radio"),
        Control("draw", "Draw", parts.options(DRAWN, DRAWN), place.draw, "radio"),
        parts.models(place, board, desk.records.inks(), families),
    ]


def body(place: Layers, desk: Desk) -> Shown:
    board = desk.board(place)
    if not _panels(desk, board):
        return Shown("Nothing is recorded yet", empty())
    found = chosen(place, desk)
    wrong = _unknown(place, desk, board, found)
    drawn = ([found.mean] if found.mean else []) + (found.shown if place.draw == "tasks" else [])
    remarks = [*found.notes]
    if place.draw == "average" and not found.mean:
        remarks.append("There is no average: it takes two tasks of one metric that every model has.")
    if not drawn and not remarks:
        remarks.append("No result is of a task, a model and a metric chosen all three.")
    # Two charts a row; what would leave a gap in the last one, a lone chart or the average, gets a row of its own.
    wide = len(drawn) % 2 == 1 and (found.mean is not None or len(drawn) == 1)
    hollow = any(cell.one_class for view in drawn for curve in view.curves for cell in curve.cells)
    legend = [html.Li([html.Span(className="swatch hollow"), "a probe predicts one class only"])] * hollow
    legend += [html.Li("◆ published elsewhere (◇ from memory)")] * any(view.marks for view in drawn)
    return Shown(
        f"{found.panel.title}: {len(drawn)} chart{'s' * (len(drawn) != 1)}",
        [
            *parts.complaints(wrong),
            *parts.callout(tables.note_of(board.results)),
            html.H2(found.panel.title),
            *([html.P(found.panel.caption)] if found.panel.caption else []),
            *([html.Ul(legend, className="legend")] if legend else []),
            *([html.Ul([html.Li(text) for text in remarks], className="notes")] if remarks else []),
            html.Div([_figure(v, place, desk, found, wide and v is drawn[0]) for v in drawn], className="figures"),
            *parts.notes(board.notes),
        ],
    )


def empty() -> list[Component]:
    return parts.nothing(
        "Nothing is recorded yet",
        "This page shows what MLflow holds, and it holds no finished result of this study. Type:",
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
    families = {curve.family for view in there for curve in view.curves}
    wanted = families & set(place.model) or families
    tasks = {view.task for view in there} & set(place.task)
    shown = [beside.marked(sheets.only(view, wanted)) for view in there if not tasks or view.task in tasks]
    shown = [view for view in shown if view.curves]
    averaged = replace(panel, average=panel.average or place.draw == "average")
    mean, notes = panels.averaged(averaged, shown) if len(shown) > 1 else (None, ())
    return Chosen(panel, there, shown, mean, notes)


def file(place: Layers, desk: Desk, ending: str) -> tuple[str, str, str] | None:
    """The table of the first chart of ``place`` as a file: its name, its media type, its text."""
    writer = next((download for download in DOWNLOADS if download.ending == ending), None)
    if writer is None or not _panels(desk, desk.board(place)):
        return None
    found = chosen(place, desk)
    view = found.mean if place.draw == "average" else next(iter(found.shown), None)
    if view is None:
        return None
    return writers.file_name(f"{view.task or view.title}-{view.metric}", ending), writer.mime, writer.write(view)


def metrics(board: Board, tasks: Container[str]) -> list[str]:
    """What the runs of these tasks measured, the arms of a task after its headline."""
    names = {name for r in board.results if r.task in tasks for name in r.metrics if not name.startswith(ASIDE)}
    return sorted((n for n in names if "/baseline/" not in n), key=lambda name: (name.count("/"), name))


# -- inside ------------------------------------------------------------------------------------------------------


def _panels(desk: Desk, board: Board) -> list[Panel]:
    """The dashboard's panels that have results, and last one with all tasks."""
    offered = [panel for panel in desk.dashboard.panels if panels.views(panel, board)]
    everything = [EVERYTHING] if board.tasks and len(offered) != 1 else []
    return offered + everything


def _x(place: Layers, found: Chosen) -> panels.Axis:
    return found.panel.x if place.x == "panel" else place.x


def _unknown(place: Layers, desk: Desk, board: Board, found: Chosen) -> list[str]:
    families = {curve.family for view in found.there for curve in view.curves}
    tasks = [view.task for view in found.there]
    return [
        *parts.unknown("study", [place.study], desk.records.now().studies),
        *parts.unknown("panel", [place.panel], [p.title for p in _panels(desk, board)]),
        *parts.unknown(f"task of {found.panel.title}", place.task, tasks),
        *parts.unknown("model here", place.model, families),
        *parts.unknown("metric", [place.metric], metrics(board, board.tasks)),
    ]


def _figure(view: View, place: Layers, desk: Desk, found: Chosen, full: bool) -> Component:
    figure = charts.bars(view, desk.records.inks(), _x(place, found), legend=False)
    what = f"{view.title}: {tables.axis_title(view.metric)} by layer. The table below holds the same numbers."
    missing = [f"{curve.title} {tables.ranges(curve.missing)}" for curve in view.curves if curve.missing]
    said = f"Not there yet: {'; '.join(missing)}. " * bool(missing) + view.caption
    sources = "; ".join(dict.fromkeys(mark.source for mark in view.marks))
    said += f" ◆ ◇ {sources}." * bool(sources)
    head, lines = writers.grid(view)
    at = replace(place, panel=found.panel.title, task=(view.task,)) if view.task else replace(place, draw="average")
    _, _, query = address.href(at).partition("?")
    links: list[Component | str] = []
    for download in DOWNLOADS:
        name = f"{view.title} as {download.name}"
        link = html.A(download.name, href=f"/take/layers.{download.ending}?{query}", **parts.labelled(name))
        links += [" · ", link] if links else [link]
    graph = dcc.Graph(figure=figure, config={"displaylogo": False, "responsive": True}, className="chart")
    return html.Figure(
        [
            html.Div(graph, role="img", **parts.labelled(what)),
            *([html.P(said)] if said else []),
            html.Details(
                [
                    html.Summary("Table"),
                    parts.table(f"{view.title}, {tables.axis_title(view.metric)}", ["layer", *head], lines),
                ]
            ),
            html.P(links, className="downloads"),
        ],
        className="full" * full,
    )
