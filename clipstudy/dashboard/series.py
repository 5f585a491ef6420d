"""What a chart of a view draws, as plain lists: series, lines across, marks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from clipstudy.dashboard.inks import Ink, floors_of
from clipstudy.outcome import Estimate
from clipstudy.results.units import ONE_CLASS, axis_title, layers_title, shown_value, unit
from clipstudy.results.views import Cell, Curve, Mark, View
from clipstudy.spec import WHOLE_MODEL

#: Parts of a model that tasks on ``stages`` have a layer of: of a residual network its stages, of others quarters.
STAGES = 4
#: Where a cell stands on the x axis; None: nowhere.
Place = Callable[[Cell], float | None]


class FloorInfo(NamedTuple):
    """What needs no model at one layer of one model."""

    x: float
    y: float
    text: str  #: what hovering says
    symbol: str  #: Plotly's, the same for all of one name


class SeriesInfo(NamedTuple):
    """One model's bars (or its line)."""

    name: str
    ink: Ink
    x: list[float]
    y: list[float]
    above: list[float]  #: from the bar's end to the upper end of the interval; 0 where there is none
    below: list[float]
    hollow: list[bool]  #: see units.ONE_CLASS
    texts: list[str]  #: what hovering says
    points: tuple[tuple[float, float], ...] = ()  #: x and y of each seed, where they were asked for
    floors: tuple[FloorInfo, ...] = ()


class MarksInfo(NamedTuple):
    """Published numbers of one model, as diamonds; hollow where they are from memory."""

    of: int  #: which of the series
    x: list[float]
    y: list[float]
    hollow: list[bool]
    texts: list[str]


class LineInfo(NamedTuple):
    """One line across the chart: a baseline, or what a model reaches as a whole."""

    label: str
    y: float
    color: str = ""  #: a model's; empty: a baseline's grey


class BarsInfo(NamedTuple):
    title: str
    x_title: str
    y_title: str
    ticks: list[tuple[float, str]]  #: empty: as the axis likes
    series: list[SeriesInfo]
    lines: list[LineInfo]
    top: float  #: upper end of the y axis
    joined: bool = False  #: lines over depth instead of bars over layers
    note: str = ""  #: under the title: what the numbers are not to be taken for
    marks: tuple[MarksInfo, ...] = ()


def axes(shown: View) -> list[str]:
    """What may lie along a chart of ``shown``. ``layer``: grouped bars over layer numbers; ``stage``: the same over
    quarters of a model's blocks, where each model has one layer in each; ``depth``: lines over the fraction of its
    blocks."""
    cells = [curve.cells for curve in shown.curves]
    stages = [[_by_stage(cell) for cell in own] for own in cells]
    staged = all(len(set(own)) == len(own) and set(own) <= set(range(1, STAGES + 1)) for own in stages)
    deep = any(cell.depth is not None for own in cells for cell in own)
    return ["layer", *["stage"] * staged, *["depth"] * deep]


def bars_info(shown: View, colors: Mapping[str, Ink], x: str = "layer") -> BarsInfo:
    """What a chart of ``shown`` draws.

    Args:
        colors: family → ink (:func:`clipstudy.dashboard.inks.inks_of`).
        x: one of :func:`axes`, and otherwise ``layer``.
    """
    factor = unit(shown.metric).factor
    place = _PLACES[x if x in axes(shown) else "layer"]
    symbols = {name: symbol for name, (symbol, _) in floors_of(shown.floors).items()}
    series = [_series(curve, colors[curve.family], place, shown.metric, symbols) for curve in shown.curves]
    marks = _marks(shown, place, factor)
    lines = _levels(shown, colors, factor)
    ends = [y + up for s in series for y, up in zip(s.y, s.above, strict=True)] + [y for m in marks for y in m.y]
    ends += [y for s in series for _, y in s.points] + [floor.y for s in series for floor in s.floors]
    ends += [line.y for line in lines]
    top = max([*ends, 0.0]) * 1.06 or 1.0
    x_title, ticks = _x_axis(shown, place)
    return BarsInfo(
        title=shown.title,
        x_title=x_title,
        y_title=axis_title(shown.metric),
        ticks=ticks,
        series=series,
        lines=lines,
        top=top,
        joined=place is _by_depth,
        note=shown.note,
        marks=marks,
    )


# -- inside ------------------------------------------------------------------------------------------------------


def _by_layer(cell: Cell) -> float | None:
    return float(cell.layer)


def _by_depth(cell: Cell) -> float | None:
    return cell.depth


def _by_stage(cell: Cell) -> float | None:
    # A stage's layer lies at its end or, where blocks do not divide by four, a little behind. Tags hold three decimals.
    return None if cell.depth is None else float(int(STAGES * cell.depth + 0.01))


#: What lies along a chart → where it puts a layer.
_PLACES: Mapping[str, Place] = {"layer": _by_layer, "stage": _by_stage, "depth": _by_depth}


def _series(curve: Curve, ink: Ink, place: Place, metric: str, symbols: Mapping[str, str]) -> SeriesInfo:
    factor = unit(metric).factor
    placed = [(x, cell) for cell in curve.cells if (x := place(cell)) is not None]
    cells = [cell for _, cell in placed]
    return SeriesInfo(
        name=curve.title,
        ink=ink,
        x=[x for x, _ in placed],
        y=[cell.estimate.value * factor for cell in cells],
        above=[_reach(cell, 1) * factor for cell in cells],
        below=[_reach(cell, -1) * factor for cell in cells],
        hollow=[cell.one_class for cell in cells],
        texts=[_hover(curve.title, cell, metric) for cell in cells],
        points=tuple((x, point * factor) for x, cell in placed for point in cell.points),
        floors=tuple(
            FloorInfo(x, value * factor, _floor(curve.title, cell, name, value, metric), symbols[name])
            for x, cell in placed
            for name, value in cell.baselines
        ),
    )


def _floor(title: str, cell: Cell, name: str, value: float, metric: str) -> str:
    return f"{title}, {cell.label}, {name}: {shown_value(Estimate(value), metric)}"


def _levels(shown: View, colors: Mapping[str, Ink], factor: float) -> list[LineInfo]:
    """The lines across, from the lowest up: baselines, and what models reach as a whole, whose name says whose it is
    where there are several."""
    lines = [LineInfo(name, value * factor) for name, value in shown.baselines]
    titles = {(curve.study, curve.family): curve.title for curve in shown.curves}
    for level in shown.levels:
        color = colors[level.family].color
        name = level.name if len(shown.curves) == 1 else f"{level.name}, {titles[level.study, level.family]}"
        lines.append(LineInfo(name, level.estimate.value * factor, color))
    return sorted(lines, key=lambda line: (line.y, line.label))


def _x_axis(shown: View, place: Place) -> tuple[str, list[tuple[float, str]]]:
    """Its title, and its ticks; none: as the axis likes."""
    if shown.layers == (WHOLE_MODEL,):
        return "", [(float(WHOLE_MODEL), "whole model")]
    if place is _by_depth:
        return "depth (fraction of the model's blocks)", []
    if place is _by_stage:
        return "stage (quarter of the model's blocks)", [(float(k), str(k)) for k in range(1, STAGES + 1)]
    ticks = [(float(k), "whole model" if k == WHOLE_MODEL else str(k)) for k in shown.layers]
    return layers_title(shown.layers, shown.modality), ticks


def _marks(shown: View, place: Place, factor: float) -> tuple[MarksInfo, ...]:
    """Those of each curve; a mark where no layer was measured has no place in a chart of depths."""
    found = []
    for number, curve in enumerate(shown.curves):
        places = {cell.layer: x for cell in curve.cells if (x := place(cell)) is not None}
        marks = [m for m in shown.marks if m.family == curve.family and m.layer in places]
        if marks:
            found.append(
                MarksInfo(
                    of=number,
                    x=[places[m.layer] for m in marks],
                    y=[m.value * factor for m in marks],
                    hollow=[m.from_memory for m in marks],
                    texts=[_published(m, shown.metric) for m in marks],
                )
            )
    return tuple(found)


def _published(mark: Mark, metric: str) -> str:
    memory = " (from memory)" if mark.from_memory else ""
    return f"published{memory}: {shown_value(Estimate(mark.value), metric)}, {mark.source}"


def _reach(cell: Cell, side: int) -> float:
    end = cell.estimate.high if side > 0 else cell.estimate.low
    # A bootstrap interval need not contain the estimate; a negative error bar would be drawn on the other side.
    return 0.0 if end is None else max(0.0, side * (end - cell.estimate.value))


def _hover(title: str, cell: Cell, metric: str) -> str:
    parts = [f"{title}, {cell.label}: {shown_value(cell.estimate, metric)}"]
    if cell.n is not None:
        parts.append(f"{cell.n:,} test items")
    if cell.inits > 1:
        parts.append(f"{cell.inits} initialisations")
    if cell.one_class:
        parts.append(ONE_CLASS)
    return ", ".join(parts)
