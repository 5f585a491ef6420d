"""Runs: every result with its way into MLflow, and two models side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

from dash import dcc, html
from dash.development.base_component import Component

from clipstudy.dashboard import address
from clipstudy.dashboard.address import Layers, Runs, Tables
from clipstudy.dashboard.pages import components, layers
from clipstudy.dashboard.pages.components import Control, Desk, Shown
from clipstudy.outcome import Result
from clipstudy.results import boards, sheets, units

KIND = Runs
TITLE = "Runs"
COLUMNS = {
    "model": "model",
    "task": "task",
    "layer": "layer",
    "metric": "metric",
    "value": "value",
    "low": "low",
    "high": "high",
    "device": "device",
    "ended": "computed (UTC)",
    "run": "run",
}
NUMBERS = ("layer", "value", "low", "high")
#: MLflow shows runs and models then; else its GenAI pages.
TRAINING = "?workflowType=machine_learning"
#: As many places as other pages give; MLflow has the others.
PLACES = "params.value == null ? '—' : d3.format('.' + params.data.places + 'f')(params.value)"
WHOLE = "params.value < 0 ? 'whole' : params.value"
#: Pixels, so that all columns are seen on a laptop: model and task share what the others leave. What is cut short is
#: told in full by its tooltip.
WIDTHS = {"layer": 78, "metric": 108, "value": 78, "low": 62, "high": 62, "device": 66, "ended": 140, "run": 84}
GROWING = {"model": 118, "task": 132}
#: Columns by which nobody chooses: without a filter's button, which would take half of the room.
PLAIN = ("low", "high", "device", "ended")
LINK = {"cellRenderer": "RunLink"}


def controls(place: Runs, desk: Desk) -> list[Control]:
    board = desk.board(place)
    titles = components.titled(board)
    there = components.options(board.families, titles)
    first, second = (family if family in titles else None for family in (place.first, place.second))
    return [
        *components.studies(place, desk),
        Control("first", "Compare", there, first, hint="a model"),
        Control("second", "with", there, second, hint="another"),
    ]


def body(place: Runs, desk: Desk) -> Shown:
    board = desk.board(place)
    if not board.results:
        return Shown("Nothing is recorded yet", layers.empty())
    wrong = [
        *components.unknown("study", [place.study], desk.records.now().studies),
        *components.unknown("model", [place.first, place.second], components.titled(board)),
        *components.unknown("column", [name.removeprefix("-") for name in place.sort], COLUMNS),
    ]
    order = sorting(place)
    experiment = quote(desk.records.tracking.experiment())
    place_of = {family: at for at, family in enumerate(board.families)}
    ordered = sorted(board.results, key=lambda r: (place_of[r.family], r.model, r.task, r.layer))
    rows = [_row(result, desk, experiment) for result in ordered]
    columns: list[dict[str, Any]] = [
        {
            "field": name,
            "headerName": title,
            "tooltipField": name,
            **({"flex": 1, "minWidth": GROWING[name]} if name in GROWING else {"width": WIDTHS[name]}),
            **({"filter": False} if name in PLAIN else {}),
            **({"type": "numericColumn"} if name in NUMBERS else {}),
            **({"filter": "agNumberColumnFilter"} if name in ("layer", "value") else {}),
            **({"valueFormatter": {"function": PLACES if name != "layer" else WHOLE}} if name in NUMBERS else {}),
            **(LINK if name == "run" else {}),
            # None is said too: a grid that is drawn anew would keep the order that it had.
            "sort": None,
            "sortIndex": None,
            **order.get(name, {}),
        }
        for name, title in COLUMNS.items()
    ]
    return Shown(
        f"{len(rows):,} runs",
        [
            *components.complaints(wrong),
            *components.callout(boards.note_of(board.results)),
            *_comparison(place, desk),
            html.H2(f"{len(rows):,} runs"),
            html.P(
                [
                    "The newest run of each cell, with the newest settings. The last column is the run's id "
                    "(hover to see all of it), and links to ",
                    html.A(
                        "MLflow's own pages",
                        href=f"{desk.mlflow}/#/experiments/{experiment}/runs{TRAINING}",
                        target="_blank",
                        rel="noreferrer",
                    ),
                    "; if nothing answers there, type ",
                    html.Code("clipstudy ui"),
                    ".",
                ]
            ),
            components.grid("runs", "runs", columns, rows),
            *components.notes(place, desk),
        ],
    )


def sorting(place: Runs) -> dict[str, dict[str, Any]]:
    """Column → how the grid sorts by it. A column that there is not is left out."""
    named = [(name.removeprefix("-"), name.startswith("-")) for name in place.sort]
    known = [(name, down) for name, down in named if name in COLUMNS]
    return {name: {"sort": "desc" if down else "asc", "sortIndex": at} for at, (name, down) in enumerate(known)}


def sorted_by(place: Runs, state: object) -> Runs:
    """``place`` as a person sorted the grid.

    Args:
        state: what the grid says of its columns: whatever a browser sent.
    """
    columns = [c for c in state if isinstance(c, dict)] if isinstance(state, list) else []
    said = [(c.get("sortIndex"), c.get("colId"), c.get("sort")) for c in columns]
    kept = {n: (at, way) for at, n, way in said if isinstance(at, int) and isinstance(n, str) and n in COLUMNS and way}
    names = tuple("-" * (kept[name][1] == "desc") + name for name in sorted(kept, key=lambda name: kept[name][0]))
    # An address that names a column that there is not is left as it is: the page says so.
    return place if sorting(replace(place, sort=names)) == sorting(place) else replace(place, sort=names)


# -- inside ------------------------------------------------------------------------------------------------------


def _row(result: Result, desk: Desk, experiment: str) -> dict[str, Any]:
    metric = result.tags.get("metric", "")
    estimate = boards.estimate(result.metrics, metric) if metric in result.metrics else None
    unit = units.unit(metric)
    numbers = {name: getattr(estimate, name, None) for name in ("value", "low", "high")}
    title = result.tags.get("model_title") or result.model
    return {
        "model": title if result.family == result.model else f"{title} ({result.model})",
        "task": result.tags.get("task_title", result.task),
        "layer": result.layer,
        "metric": units.axis_title(metric),
        **{name: None if value is None else value * unit.factor for name, value in numbers.items()},
        "places": unit.decimals,
        "device": result.params.get("device", ""),
        "ended": result.tags.get("ended", "")[:16].replace("T", " "),
        "run": result.run_id,
        "at": f"{desk.mlflow}/#/experiments/{experiment}/runs/{quote(result.run_id)}{TRAINING}",
    }


def _comparison(place: Runs, desk: Desk) -> list[Component]:
    """The two models chosen, task by task; nothing before both are."""
    board = desk.board(place)
    first, second = place.first, place.second
    if first == second or not {first, second} <= set(board.families):
        return []
    views = [found for task in board.tasks if (found := boards.view(board, task)) is not None]
    sheet = sheets.differences(views, first, second, desk.files.tested)
    if not sheet.lines:
        return [html.H2(sheet.title), html.P("They have no task in common.")]
    study = desk.study(place)
    return [
        html.H2(sheet.title),
        html.P(units.sentence(sheet.said)),
        html.P(
            [
                dcc.Link("their charts", href=address.href(Layers(study=study, model=(first, second)))),
                " · ",
                dcc.Link(
                    "this table with its downloads",
                    href=address.href(Tables(study=study, table="differences", first=first, second=second)),
                ),
            ]
        ),
        components.sheet(sheet, "comparison"),
    ]
