"""Gallery: the pictures that runs keep, layers down and models across; wide ones under each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from dash import html
from dash.development.base_component import Component

from clipstudy.dashboard.address import Gallery
from clipstudy.dashboard.inks import Ink
from clipstudy.dashboard.pages import components
from clipstudy.dashboard.pages.components import Control, Desk, Shown
from clipstudy.outcome import Result
from clipstudy.results.boards import Board
from clipstudy.results.units import layer_name

KIND = Gallery
TITLE = "Gallery"
#: How many times as wide as high a picture is that gets a line of its own.
STRIP = 2.0
#: The most pictures whose own texts are shown: each file is read for them before the page is there.
FEW = 100
#: (layer, family) → the pictures of its runs.
Cells = Mapping[tuple[int, str], Sequence[tuple[Result, str]]]
#: The same, drawn.
Drawn = Mapping[tuple[int, str], list[Component]]


def controls(place: Gallery, desk: Desk) -> list[Control]:
    board = desk.board(place)
    tasks = _tasks(place, desk)
    runs = _runs(place, desk, tasks)
    if not runs:
        return components.studies(place, desk)
    first = {run.layer: run for run in reversed(runs)}
    layers = {str(k): layer_name(k, first[k].tags.get("modality", "image")) for k in sorted(first)}
    asked = [layer for layer in place.layer if layer in layers]
    names = _names(runs, desk)
    return [
        *components.studies(place, desk),
        Control("task", "Task", components.options(tasks, tasks), runs[0].task, "radio"),
        Control("picture", "Picture", components.options(names), _name(place, names), hint="all"),
        Control("layer", "Layers", components.options(layers, layers), asked, "picks", "all"),
        components.models(place, board, desk.records.inks(), {run.family for run in runs}),
    ]


def body(place: Gallery, desk: Desk) -> Shown:
    board = desk.board(place)
    tasks = _tasks(place, desk)
    runs = _runs(place, desk, tasks)
    names = _names(runs, desk)
    if not runs:
        said = "No run of this study keeps a picture. Runs of feature visualisation, attention and reconstruction do."
        said = f"{gone}." if (gone := desk.records.tracking.gone()) else said
        return Shown("No pictures", components.nothing(TITLE, said))
    there = {run.family for run in runs}
    wanted = there & set(place.model) or there
    families = [family for family in board.families if family in wanted]
    depths = sorted({run.layer for run in runs})
    kept = [k for k in depths if str(k) in place.layer] or depths
    wrong = [
        *components.unknown("study", [place.study], desk.records.now().studies),
        *components.unknown("task with pictures", [place.task], tasks),
        *components.unknown("model here", place.model, there),
        *components.unknown("layer", place.layer, map(str, depths)),
        *components.unknown("picture", [place.picture], names),
    ]
    name = _name(place, names)
    kinds = [name] if name else names
    here: dict[tuple[int, str], list[tuple[Result, str]]] = defaultdict(list)
    for run in runs:
        here[run.layer, run.family] += [(run, n) for n in desk.files.pictures(run.run_id) if n in kinds]
    shown = {(layer, family): here[layer, family] for layer in kept for family in families}
    count = sum(map(len, shown.values()))
    draw = _strips if _are_strips(shown, desk) else _grid
    title = tasks[runs[0].task]
    what = f"{kinds[0]} of every run. " if len(kinds) == 1 else ""
    return Shown(
        f"{title}: {count} pictures",
        [
            *components.complaints(wrong),
            *components.callout(runs[0].tags.get("note", "")),
            html.H2(title),
            html.P(f"{what}Click a picture to open it at full size."),
            html.Div(
                draw(_pictures(shown, desk, components.titled(board), len(kinds) > 1), board, desk.records.inks()),
                className="wide gallery",
            ),
        ],
    )


# -- inside ------------------------------------------------------------------------------------------------------


def _tasks(place: Gallery, desk: Desk) -> dict[str, str]:
    """Tasks whose runs keep pictures, by their titles. One run tells: all of a task keep files alike."""
    first: dict[str, Result] = {}
    for result in desk.board(place).results:
        first.setdefault(result.task, result)
    return {t: r.tags.get("task_title", t) for t, r in first.items() if desk.files.pictures(r.run_id)}


def _runs(place: Gallery, desk: Desk, tasks: dict[str, str]) -> list[Result]:
    task = place.task if place.task in tasks else next(iter(tasks), None)
    return [result for result in desk.board(place).results if result.task == task]


def _names(runs: list[Result], desk: Desk) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in desk.files.pictures(run.run_id)))


def _name(place: Gallery, names: list[str]) -> str | None:
    """The one picture chosen; None: all of them."""
    return place.picture if place.picture in names else None


def _are_strips(shown: Cells, desk: Desk) -> bool:
    """Are the pictures so much wider than high that beside each other nothing could be made out on them? Pictures of
    one task are alike, so the first one tells."""
    first = next((pair for pairs in shown.values() for pair in pairs), None)
    size = desk.files.size(first[0].run_id, first[1]) if first else None
    return size is not None and size[0] > STRIP * size[1]


def _grid(shown: Drawn, board: Board, inks: Mapping[str, Ink]) -> Component:
    """Layers down, models across."""
    layers, families = (list(dict.fromkeys(keys)) for keys in zip(*shown, strict=True))
    titles = components.titled(board)
    head = [html.Th("layer"), *(html.Th([components.swatch(inks[f]), titles[f]]) for f in families)]
    lines = [
        html.Tr(
            [
                html.Th(_layer(layer, board), scope="row"),
                *(html.Td(shown[layer, f] or "—") for f in families),
            ]
        )
        for layer in layers
    ]
    return html.Table([html.Thead(html.Tr(head)), html.Tbody(lines)])


def _strips(shown: Drawn, board: Board, inks: Mapping[str, Ink]) -> Component:
    """Layers down, and in each of them the models down: every picture has the whole width."""
    titles = components.titled(board)
    lines = []
    for layer in dict.fromkeys(layer for layer, _ in shown):
        there = [(family, pairs) for (k, family), pairs in shown.items() if k == layer and pairs]
        for at, (family, pairs) in enumerate(there):
            first = [html.Th(_layer(layer, board), scope="rowgroup", rowSpan=len(there))] if at == 0 else []
            name = html.Th([components.swatch(inks[family]), titles[family]], scope="row")
            lines.append(html.Tr([*first, name, html.Td(pairs)]))
    head = html.Tr([html.Th("layer"), html.Th("model"), html.Th()])
    return html.Table([html.Thead(head), html.Tbody(lines)], className="strips")


def _layer(layer: int, board: Board) -> str:
    return layer_name(layer, next(r.tags.get("modality", "image") for r in board.results if r.layer == layer))


def _pictures(shown: Cells, desk: Desk, titles: Mapping[str, str], named: bool) -> Drawn:
    """Each with its name, where there are several, and with what its file says of it."""
    few = sum(map(len, shown.values())) <= FEW

    def drawn(run: Result, name: str, title: str) -> Component:
        captions = [html.Figcaption(name)] if named else []
        said = components.explained(*desk.files.explained(run.run_id, name)) if few else []
        return html.Figure([components.picture(run, name, title), *captions, *said])

    return {at: [drawn(run, name, titles[at[1]]) for run, name in pairs] for at, pairs in shown.items()}
