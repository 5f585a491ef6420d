"""What pages are made of: controls, notes, tables, grids. Every name goes in as text; none is taken for HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote

from dash import dcc, html
from dash.development.base_component import Component
from dash_ag_grid import AgGrid
from sqlalchemy import Engine

from clipstudy.dashboard.address import Place
from clipstudy.dashboard.inks import Ink
from clipstudy.dashboard.markup import EACH, SHORT
from clipstudy.dashboard.panels import Dashboard
from clipstudy.dashboard.records import Records
from clipstudy.errors import did_you_mean
from clipstudy.outcome import Result
from clipstudy.results import planned
from clipstudy.results.boards import Board
from clipstudy.results.run_files import RunFiles
from clipstudy.results.sheets import Sheet
from clipstudy.results.writers import Download
from clipstudy.wording import counted

Option = Mapping[str, Any]  #: value, label, perhaps search

#: A grid's colours are the page's, so that it is light or dark with it.
THEME = {
    "backgroundColor": "var(--page)",
    "foregroundColor": "var(--text)",
    "headerBackgroundColor": "var(--raised)",
    "borderColor": "var(--line)",
    "accentColor": "var(--accent)",
    "fontFamily": "inherit",
    "fontSize": 13,
    "cellHorizontalPaddingScale": 0.7,
}


#: Pixels of a grid's column: beside the text of a header with its button, beside that of a cell, and the most of the
#: column that names the lines, beside which a phone still shows another.
HEADER, CELL, FIRST = 54, 36, 210


@dataclass(frozen=True)
class Desk:
    """What every page reads from."""

    records: Records
    dashboard: Dashboard
    mlflow: str  #: address of MLflow's own pages
    engine: Engine | None = None  #: the job table; None: there is none
    allow_actions: bool = False

    @cached_property
    def files(self) -> RunFiles:
        """Those that runs keep."""
        return RunFiles(self.records.tracking)

    def study(self, place: Place) -> str:
        """The study that a place is about: the one it names if there is such, else the first."""
        studies = self.records.now().studies
        return place.study if place.study in studies else next(iter(studies), "")

    def board(self, place: Place) -> Board:
        return self.records.board(self.study(place))


@dataclass(frozen=True)
class Control:
    """One thing to choose. ``key`` is the field of the place that it sets."""

    key: str
    label: str
    options: Sequence[Option]
    value: Any
    kind: str = "pick"  #: pick (one of many), picks (several of many), radio, ticks
    hint: str = ""  #: what an empty choice means


@dataclass(frozen=True)
class Shown:
    """A page's body, and a sentence that says what is there to those who do not see it change."""

    said: str
    body: list[Component] = field(default_factory=list)
    again: int = 0  #: milliseconds after which there is more to show; 0: nothing is being made


def drawn(control: Control) -> Component:
    name = {"type": "control", "key": control.key}
    options = [dict(option) for option in control.options]
    chooser: Component
    match control.kind:
        case "radio":
            chooser = dcc.RadioItems(options=options, value=control.value, id=name)
        case "ticks":
            chooser = dcc.Checklist(options=options, value=control.value, id=name)
        case kind:
            chooser = dcc.Dropdown(
                options=options,
                value=control.value,
                id=name,
                multi=kind == "picks",
                placeholder=control.hint,
                searchable=len(options) > 8,
                clearable=bool(control.hint),
            )
    return html.Fieldset([html.Legend(control.label), chooser], className=f"control {control.kind}")


def options(names: Iterable[str], titles: Mapping[str, str] | None = None) -> list[Option]:
    return [{"value": name, "label": (titles or {}).get(name, name)} for name in names]


def one(key: str, label: str, names: Sequence[str], chosen: str, hint: str) -> Control:
    """One name of several, or none. What is not among them is not chosen: a list would drop it, and the address too,
    before anyone has read that there is no such name."""
    return Control(key, label, options(names), chosen if chosen in names else None, hint=hint)


def studies(place: Place, desk: Desk) -> list[Control]:
    """The choice of a study, where there are several."""
    there = desk.records.now().studies
    return [Control("study", "Study", options(there), desk.study(place))] if len(there) > 1 else []


def models(place: Any, shown: Board, inks: Mapping[str, Ink], families: Iterable[str]) -> Control:
    """Which models, each with its colour: the legend of the page."""
    titles = titled(shown)
    there = [family for family in shown.families if family in set(families)]
    legend = [{"value": f, "label": html.Span([swatch(inks[f]), titles[f]]), "search": titles[f]} for f in there]
    chosen = [family for family in there if not place.model or family in place.model]
    return Control("model", "Models", legend, chosen or there, "ticks")


def titled(shown: Board) -> dict[str, str]:
    """Family → how figures call it."""
    return {r.family: r.tags.get("model_title") or r.family for r in shown.results}


def labelled(text: str) -> dict[str, Any]:
    """What a screen reader calls an element: an attribute whose name no keyword can have."""
    return {"aria-label": text}


def swatch(ink: Ink) -> Component:
    return html.Span(className=ink.classes, style=ink.style)


def unknown(what: str, asked: Iterable[str], known: Iterable[str]) -> list[str]:
    """What to say of names that an address has and the results have not."""
    there = list(known)
    return [f'no {what} "{name}". {did_you_mean(name, there)}' for name in asked if name and name not in there]


def complaints(said: Sequence[str]) -> list[Component]:
    """What of the address was not understood. The page shows the rest."""
    if not said:
        return []
    return [html.Div([html.P(f"This link: {text}") for text in said], className="callout", role="alert")]


def notes(place: Place, desk: Desk) -> list[Component]:
    """What is older, missing or left out: a few at once, many folded."""
    study, board, known = desk.study(place), desk.board(place), desk.records.now().planned
    left = planned.left_out(known, study, board)
    said = [*filter(None, [left]), *board.notes, *planned.gaps(known, study, board)]
    if not said:
        return []
    head = f"{counted(len(said), 'note')} on missing cells and older settings"
    return [html.Details([html.Summary(head), html.Ul([html.Li(text) for text in said])], open=len(said) <= 3)]


def callout(text: str) -> list[Component]:
    return [html.P(text, className="callout", role="note")] if text else []


def nothing(title: str, said: str, commands: str = "") -> list[Component]:
    """An empty page says why, and what to type."""
    return [html.H2(title), html.P(said), *([html.Pre(commands)] if commands else [])]


def picture(run: Result, name: str, title: str) -> Component:
    """A picture that a run keeps; it opens in its full size."""
    source = f"/picture/{quote(run.run_id, safe='')}/{quote(name)}"
    image = html.Img(src=source, alt=f"{title}, {run.tags.get('layer_label', run.layer)}: {name}")
    return html.A(image, href=source, target="_blank")


def explained(title: str, captions: str) -> list[Component]:
    """What a picture's file says of it, under it: drawn into it, words are too small to be read before it is opened."""
    said = html.Figcaption(title) if title else None
    if len(captions) <= SHORT:
        more: Component | None = html.Figcaption(captions) if captions else None
    else:
        more = html.Figcaption(html.Details([html.Summary(EACH), captions]))
    return [part for part in (said, more) if part is not None]


def table(
    caption: str, head: Sequence[str], lines: Sequence[tuple[Any, Sequence[tuple[Any, bool]]]], *, numbers: bool = True
) -> Component:
    """A small table; the first column names the lines. Numbers stand right, texts left."""
    side = "number" if numbers else "text"
    names = [html.Th(head[0]), *(html.Th(name, className=side) for name in head[1:])]
    body = [
        html.Tr([html.Th(name, scope="row"), *(html.Td(cell, className=side + " best" * bold) for cell, bold in cells)])
        for name, cells in lines
    ]
    whole = [html.Caption(caption)] if caption else []
    return html.Div(html.Table([*whole, html.Thead(html.Tr(names)), html.Tbody(body)]), className="wide")


def sheet(shown: Sheet, name: str) -> Component:
    """A sheet as a grid: sorted by number, filtered by text. Fields are numbered, since a name may hold anything."""
    right = "ag-right-aligned-cell"
    first = max(len(text) for text in (shown.head[0], *(line for line, _ in shown.lines)))
    folded = {"wrapText": True, "autoHeight": True} if wide(first) > FIRST else {}
    columns: list[dict[str, Any]] = [
        {"field": "c0", "headerName": shown.head[0], "pinned": "left", "width": min(wide(first), FIRST), **folded}
    ]
    for at, (title, numbers) in enumerate(zip(shown.head[1:], shown.numbers, strict=True), 1):
        longest = max(len(entries[at - 1].text) for _, entries in shown.lines)
        words = max(map(len, title.split()), default=0)
        width = max(wide(words), wide(longest, CELL))
        column = {"headerName": title, "headerTooltip": title, "width": width, "wrapHeaderText": True}
        column |= {"autoHeaderHeight": True}
        if not numbers:
            columns.append(column | {"field": f"t{at}", "tooltipField": f"t{at}"})
            continue
        columns.append(
            column
            | {
                "field": f"c{at}",
                "type": "numericColumn",
                "filter": "agNumberColumnFilter",
                "valueFormatter": {"function": f"params.data.t{at}"},
                "cellClass": {"function": f"params.data.b{at} ? '{right} best' : '{right}'"},
            }
        )
    rows = []
    for line, entries in shown.lines:
        row: dict[str, Any] = {"c0": line}
        for at, entry in enumerate(entries, 1):
            row |= {f"c{at}": entry.value, f"t{at}": entry.text, f"b{at}": entry.bold}
        rows.append(row)
    return grid(name, shown.title, columns, rows)


def taken(path: str, title: str, query: str, ways: Iterable[Download[Any]]) -> Component:
    """Links that take a table away."""
    links: list[Component | str] = []
    for way in ways:
        link = html.A(way.name, href=f"{path}.{way.ending}?{query}", **labelled(f"{title} as {way.name}"))
        links += [" · ", link] if links else [link]
    return html.P(links, className="downloads")


def wide(characters: int, beside: int = HEADER) -> int:
    """Pixels of a grid's column for so many characters and what is beside them, within what a screen holds."""
    return min(beside + round(7.2 * characters), 380)


def grid(
    name: str,
    label: str,
    columns: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Component:
    """An AG Grid with sorting and filters; as high as its rows while they are few.

    Args:
        options: of AG Grid itself; ``more`` of its Dash component.
    """
    few = len(rows) <= 25
    asked: dict[str, Any] = {
        "theme": {"function": f"themeQuartz.withParams({json.dumps(THEME)})"},
        "domLayout": "autoHeight" if few else "normal",
        "rowHeight": 30,
        "headerHeight": 36,
        "animateRows": False,
        "enableCellTextSelection": True,
        "enableBrowserTooltips": True,
    }
    made = AgGrid(
        id=name,
        columnDefs=[dict(column) for column in columns],
        rowData=[dict(row) for row in rows],
        defaultColDef={"sortable": True, "filter": True, "resizable": True},
        dashGridOptions=asked | dict(options or {}),
        style={"height": None if few else "70vh", "width": "100%"},
        **more,
    )
    return html.Div(made, role="region", className="grid", **labelled(label))
