"""Gallery: the pictures that runs keep, layers down and models across."""

from __future__ import annotations

from dash import html
from dash.development.base_component import Component

from clipstudy.dashboard.address import Gallery
from clipstudy.dashboard.pages import parts
from clipstudy.dashboard.pages.parts import Control, Desk, Shown
from clipstudy.dashboard.tables import family_of, layer_name
from clipstudy.errors import ClipstudyError
from clipstudy.outcome import Result

KIND = Gallery
TITLE = "Gallery"


def controls(place: Gallery, desk: Desk) -> list[Control]:
    board = desk.board(place)
    tasks = _tasks(place, desk)
    runs = _runs(place, desk, tasks)
    if not runs:
        return parts.studies(place, desk)
    first = {run.layer: run for run in reversed(runs)}
    layers = {str(k): layer_name(k, first[k].tags.get("modality", "image")) for k in sorted(first)}
    asked = [layer for layer in place.layer if layer in layers]
    names = _names(runs, desk)
    return [
        *parts.studies(place, desk),
        Control("task", "Task", parts.options(tasks, tasks), runs[0].task, "radio"),
        Control("picture", "Picture", parts.options(names), _name(place, names), hint="all"),
        Control("layer", "Layers", parts.options(layers, layers), asked, "picks", "all"),
        parts.models(place, board, desk.records.inks(), {family_of(run) for run in runs}),
    ]


def body(place: Gallery, desk: Desk) -> Shown:
    board = desk.board(place)
    try:
        tasks = _tasks(place, desk)
        runs = _runs(place, desk, tasks)
        names = _names(runs, desk)
    except ClipstudyError as error:
        return Shown("MLflow does not answer", parts.nothing(TITLE, error.message))
    if not runs:
        said = "No run of this study keeps a picture. Feature visualisations, attention maps and reconstructions do."
        return Shown("No pictures", parts.nothing(TITLE, said))
    there = {family_of(run) for run in runs}
    wanted = there & set(place.model) or there
    families = [family for family in board.families if family in wanted]
    depths = sorted({run.layer for run in runs})
    kept = [k for k in depths if str(k) in place.layer] or depths
    wrong = [
        *parts.unknown("study", [place.study], desk.records.now().studies),
        *parts.unknown("task with pictures", [place.task], tasks),
        *parts.unknown("model here", place.model, there),
        *parts.unknown("layer", place.layer, map(str, depths)),
        *parts.unknown("picture", [place.picture], names),
    ]
    titles, inks = parts.titled(board), desk.records.inks()
    head = [html.Th("layer"), *(html.Th([parts.swatch(inks[f]), titles[f]]) for f in families)]
    lines, count = [], 0
    for layer in kept:
        cells = []
        for family in families:
            here = [run for run in runs if run.layer == layer and family_of(run) == family]
            shown = [_picture(run, name, titles[family]) for run in here for name in _of(run, place, names, desk)]
            count += len(shown)
            cells.append(html.Td(shown or "—"))
        label = layer_name(layer, runs[0].tags.get("modality", "image"))
        lines.append(html.Tr([html.Th(label, scope="row"), *cells]))
    table = html.Table([html.Thead(html.Tr(head)), html.Tbody(lines)])
    title = tasks[runs[0].task]
    return Shown(
        f"{title}: {count} pictures",
        [
            *parts.complaints(wrong),
            *parts.callout(runs[0].tags.get("note", "")),
            html.H2(title),
            html.P("A picture opens in its full size."),
            html.Div(table, className="wide gallery"),
        ],
    )


# -- inside ------------------------------------------------------------------------------------------------------


def _tasks(place: Gallery, desk: Desk) -> dict[str, str]:
    """Tasks whose runs keep pictures, by their titles. One run tells: all of a task keep files alike."""
    first: dict[str, Result] = {}
    for result in desk.board(place).results:
        first.setdefault(result.task, result)
    return {t: r.tags.get("task_title", t) for t, r in first.items() if desk.records.pictures(r.run_id)}


def _runs(place: Gallery, desk: Desk, tasks: dict[str, str]) -> list[Result]:
    task = place.task if place.task in tasks else next(iter(tasks), None)
    return [result for result in desk.board(place).results if result.task == task]


def _names(runs: list[Result], desk: Desk) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in desk.records.pictures(run.run_id)))


def _name(place: Gallery, names: list[str]) -> str | None:
    """The one picture chosen; None: all of them."""
    return place.picture if place.picture in names else None


def _of(run: Result, place: Gallery, names: list[str], desk: Desk) -> list[str]:
    return [name for name in desk.records.pictures(run.run_id) if _name(place, names) in (None, name)]


def _picture(run: Result, name: str, title: str) -> Component:
    return html.Figure([parts.picture(run, name, title), html.Figcaption(name)])
