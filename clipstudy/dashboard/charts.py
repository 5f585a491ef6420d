"""Views as charts: first what is to be drawn (``BarsInfo``, plain lists), then the figure, as Plotly's own JSON. Pure.

A model has one colour everywhere, and from the ninth model on a pattern over it; an untrained twin has its trained
model's hue, lighter and hatched. A hollow bar is a cell where a probe predicts one class only.

Figures are plain dictionaries: checking each of their values against Plotly's schema took most of a page's time, and
the tests do it.
"""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clipstudy.dashboard.tables import Board, family_of
from clipstudy.dashboard.units import axis_title, shown_value, unit
from clipstudy.dashboard.views import Cell, Curve, Mark, View
from clipstudy.outcome import Estimate
from clipstudy.spec import WHOLE_MODEL

#: ``data`` and ``layout`` as Plotly's JSON has them.
Figure = dict[str, Any]

#: Each at least 3 : 1 against a light page and a dark one, and apart from the others to every kind of colour vision.
PALETTE = ("#0072B2", "#A08010", "#C01080", "#20A0C0", "#F06080", "#9000FF", "#806010", "#A070FF")
#: What is laid over the colours when they come round again: on bars, on lines and as the marks of lines.
PATTERNS = ("", ".", "x", "-", "|")
DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "triangle-up", "cross", "star")
_INK, _PAPER = "#1B1F24", "#FFFFFF"
#: Of a baseline's line; the page gives it the colour of its text.
GREY = "#888"
FONT = {"family": "system-ui, sans-serif", "size": 12}
#: Baselines whose labels would lie closer than this share of the axis share one label.
LABEL_GAP = 0.05
#: Characters of a line under a title: what a chart of half the page's width has room for, and one of the whole, on a
#: laptop beside the dashboard's controls. Where a chart is narrower, page.css leaves the line out.
NOTE_WIDTH, WIDE_NOTE = 68, 135


class Ink(NamedTuple):
    """How a model is drawn."""

    color: str
    twin: bool = False
    turn: int = 0  #: how often the colours had come round before it: which of ``PATTERNS``

    @property
    def classes(self) -> str:
        """Of its swatch, as the pages' style sheet draws it."""
        return "swatch" + " twin" * self.twin + f" turn-{self.turn}" * bool(self.turn)

    @property
    def style(self) -> dict[str, str]:
        return {"--hue": self.color, "--light": lighter(self.color)}


class SeriesInfo(NamedTuple):
    """One model's bars (or its line)."""

    name: str
    ink: Ink
    x: list[float]
    y: list[float]
    above: list[float]  #: from the bar's end to the upper end of the interval; 0 where there is none
    below: list[float]
    hollow: list[bool]  #: a probe predicts one class only
    texts: list[str]  #: what hovering says
    points: list[tuple[float, float]] = []  #: x and y of each seed, where they were asked for


class MarksInfo(NamedTuple):
    """Published numbers of one model, as diamonds; hollow where they are from memory."""

    of: int  #: which of the series
    x: list[float]
    y: list[float]
    hollow: list[bool]
    texts: list[str]


class LineInfo(NamedTuple):
    """One line across the chart: a baseline, or what a model reaches as a whole. ``label`` is empty where a neighbour's
    label names it too."""

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


def inks(shown: Board) -> dict[str, Ink]:
    """One ink a family, the same in every chart made with it.

    The towers of one checkpoint are one model and have one ink. Of two families that read a checkpoint's same tower, in
    two ways say, each has its own: they stand beside each other.
    """
    twins = {family_of(r): r.tags["twin_of"] for r in shown.results if r.tags.get("twin_of")}
    towers = {family_of(r): (r.params.get("model.checkpoint"), r.tags.get("modality")) for r in shown.results}
    places: dict[str, int] = {}
    taken: dict[tuple[str, str | None], int] = {}
    for family in dict.fromkeys(twins.get(family, family) for family in shown.families):
        checkpoint, modality = towers.get(family, (None, None))
        others = [at for (known, other), at in taken.items() if known == checkpoint and other != modality]
        free = not checkpoint or (checkpoint, modality) in taken or not others
        places[family] = len(set(places.values())) if free else others[0]
        if checkpoint:
            taken.setdefault((checkpoint, modality), places[family])
    return {family: _ink(places[twins.get(family, family)], family in twins) for family in shown.families}


def bars_info(shown: View, colors: Mapping[str, Ink], x: str = "layer") -> BarsInfo:
    """What a chart of ``shown`` draws.

    Args:
        colors: family → ink (:func:`inks`).
        x: ``layer``: grouped bars over layer numbers; ``depth``: lines over the fraction of the model's blocks.
    """
    _, factor, _ = unit(shown.metric)
    joined = x == "depth" and any(cell.depth is not None for curve in shown.curves for cell in curve.cells)
    series = [_series(curve, colors[curve.family], joined, shown.metric) for curve in shown.curves]
    marks = _marks(shown, joined, factor)
    lines = _levels(shown, colors, factor)
    ends = [y + up for s in series for y, up in zip(s.y, s.above, strict=True)] + [y for m in marks for y in m.y]
    ends += [y for s in series for _, y in s.points] + [y for _, y, _ in lines]
    top = max([*ends, 0.0]) * 1.06 or 1.0
    x_title, ticks = _x_axis(shown, joined)
    return BarsInfo(
        title=shown.title,
        x_title=x_title,
        y_title=axis_title(shown.metric),
        ticks=ticks,
        series=series,
        lines=_lines(lines, top),
        top=top,
        joined=joined,
        note=shown.note,
        marks=marks,
    )


def bars_figure(info: BarsInfo, *, legend: bool = True, height: int = 320, wide: bool = False) -> Figure:
    """The figure; colours of text and grid are left to the page, so that it may be light or dark.

    Args:
        wide: it has the page's whole width.
    """
    data: list[dict[str, Any]] = []
    for number, series in enumerate(info.series):
        data += [_line(series)] if info.joined else _bars(series, str(number))
        if series.points:
            data.append(_points(series, str(number)))
    data += [_diamonds(mark) for mark in info.marks]
    title, top = heading(info.title, info.note, wide)
    widest = max((len(part) for line in info.lines for part in line.label.split("<br>")), default=0)
    layout = {
        "title": title,
        **_groups(info.joined),
        "height": height,
        "margin": {"l": 56, "r": 14 + 6 * widest, "t": top, "b": 44},
        "showlegend": legend,
        "legend": {"orientation": "h", "y": -0.22},
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": FONT,
        "shapes": [_across(line) for line in info.lines],
        "annotations": [_label(line) for line in info.lines if line.label],
        "xaxis": _across_axis(info),
        "yaxis": {
            "title": {"text": info.y_title, "standoff": 6},
            "range": [_bottom(info), info.top],
            "zeroline": True,
        },
    }
    return {"data": data, "layout": layout}


def signs(drawn: Sequence[View]) -> list[str]:
    """What the signs in these charts mean, besides the models' colours."""
    curves = [curve for view in drawn for curve in view.curves]
    levels = " or ".join(sorted({level.name for view in drawn for level in view.levels}))
    said = {
        "□ hollow: a probe predicts one class only": any(cell.one_class for c in curves for cell in c.cells),
        "◆ published elsewhere (◇ from memory)": any(view.marks for view in drawn),
        "○ one seed": any(cell.points for c in curves for cell in c.cells),
        f"⋯ dotted: {levels}, in the model's colour": bool(levels),
    }
    return [text for text, there in said.items() if there]


def heading(title: str, note: str, wide: bool = False) -> tuple[dict[str, Any], int]:
    """A figure's title, with what the study says of itself under it, and the pixels that this takes."""
    said = [html.escape(line, quote=False) for line in textwrap.wrap(note, WIDE_NOTE if wide else NOTE_WIDTH)]
    shown = {
        "text": html.escape(title, quote=False),
        "x": 0,
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"l": 10, "t": 12},
        "font": {"size": 15, "weight": 600},
        "subtitle": {"text": "<br>".join(said), "font": {"size": 11}},
    }
    return shown, 52 + 16 * len(said)


def bars(
    shown: View, colors: Mapping[str, Ink], x: str = "layer", *, legend: bool = True, wide: bool = False
) -> Figure:
    """Per-layer bars of one view, models side by side."""
    return bars_figure(bars_info(shown, colors, x), legend=legend, wide=wide)


def lighter(color: str, share: float = 0.55) -> str:
    """``color`` mixed with white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * share):02X}" for part in parts)


# -- inside ------------------------------------------------------------------------------------------------------


def _ink(place: int, twin: bool) -> Ink:
    turn, at = divmod(place, len(PALETTE))
    return Ink(PALETTE[at], twin, turn % len(PATTERNS))


def _series(curve: Curve, ink: Ink, joined: bool, metric: str) -> SeriesInfo:
    _, factor, _ = unit(metric)
    cells = [cell for cell in curve.cells if not joined or cell.depth is not None]
    return SeriesInfo(
        name=curve.title,
        ink=ink,
        x=[_place(cell, joined) for cell in cells],
        y=[cell.estimate.value * factor for cell in cells],
        above=[_reach(cell, 1) * factor for cell in cells],
        below=[_reach(cell, -1) * factor for cell in cells],
        hollow=[cell.one_class for cell in cells],
        texts=[_hover(curve.title, cell, metric) for cell in cells],
        points=[(_place(cell, joined), point * factor) for cell in cells for point in cell.points],
    )


def _levels(shown: View, colors: Mapping[str, Ink], factor: float) -> list[tuple[str, float, str]]:
    """Name, height and colour of each line across: baselines, then what models reach as a whole. Where two models share
    a colour, a line's name says whose it is."""
    lines = [(name, value * factor, "") for name, value in shown.baselines]
    hues = Counter(color for color, _ in {(colors[f].color, colors[f].turn) for f in shown.families})
    titles = {curve.family: curve.title for curve in shown.curves}
    for level in shown.levels:
        color = colors[level.family].color
        name = level.name if hues[color] == 1 else f"{level.name}, {titles[level.family]}"
        lines.append((name, level.estimate.value * factor, color))
    return lines


def _x_axis(shown: View, joined: bool) -> tuple[str, list[tuple[float, str]]]:
    """Its title, and its ticks; none: as the axis likes."""
    if shown.layers == (WHOLE_MODEL,):
        return "", [(float(WHOLE_MODEL), "whole model")]
    if joined:
        return "depth (fraction of the model's blocks)", []
    title = "layer" + f" (0 = {'embedding' if shown.modality == 'text' else 'stem'})" * (0 in shown.layers)
    return title, [(float(k), "whole model" if k == WHOLE_MODEL else str(k)) for k in shown.layers]


def _bars(series: SeriesInfo, group: str) -> list[dict[str, Any]]:
    """The series' bars and, where there are any, its hollow ones: two traces in one place of the group, because a
    hatched trace takes only one colour."""
    filled, hollow = _fill(series.ink), {"color": "rgba(0,0,0,0)", "line": {"color": series.ink.color, "width": 1.5}}
    traces: list[dict[str, Any]] = []
    for part, marker in ((False, filled), (True, hollow)):
        kept = [i for i, is_hollow in enumerate(series.hollow) if is_hollow is part]
        if not kept and (part or series.x):
            continue
        traces.append(
            {
                "type": "bar",
                "name": html.escape(series.name, quote=False),
                "x": [series.x[i] for i in kept],
                "y": [series.y[i] for i in kept],
                "error_y": _errors(series, kept),
                "marker": marker,
                "offsetgroup": group,
                "showlegend": not part or len(traces) == 0,
                "hovertext": [html.escape(series.texts[i], quote=False) for i in kept],
                "hoverinfo": "text",
            }
        )
    return traces


def _fill(ink: Ink) -> dict[str, Any]:
    """A twin's bar has an outline: its light fill alone would be lost on a light page."""
    shape = PATTERNS[ink.turn] or "/" * ink.twin
    ground = lighter(ink.color) if ink.twin else ink.color
    fill: dict[str, Any] = {"color": ground, "line": {"width": float(ink.twin), "color": ink.color}}
    if shape:
        drawn = ink.color if ink.twin else _PAPER
        pattern = {"shape": shape, "fillmode": "overlay", "fgcolor": drawn, "fgopacity": 0.9}
        fill["pattern"] = pattern | {"size": 5, "solidity": 0.3}
    return fill


def _line(series: SeriesInfo) -> dict[str, Any]:
    ink, symbol = series.ink, SYMBOLS[series.ink.turn]
    return {
        "type": "scatter",
        "name": html.escape(series.name, quote=False),
        "x": series.x,
        "y": series.y,
        "error_y": _errors(series, range(len(series.x))),
        "mode": "lines+markers",
        "line": {"color": ink.color, "dash": "dot" if ink.twin else DASHES[ink.turn], "width": 2},
        "marker": {
            "color": lighter(ink.color) if ink.twin else ink.color,
            "symbol": [f"{symbol}-open" if hollow else symbol for hollow in series.hollow],
            "size": 7,
            "line": {"color": ink.color, "width": 1},
        },
        "hovertext": [html.escape(text, quote=False) for text in series.texts],
        "hoverinfo": "text",
    }


def _points(series: SeriesInfo, group: str) -> dict[str, Any]:
    """Each seed over its own model's bar, or on its line."""
    return {
        "type": "scatter",
        "name": f"{html.escape(series.name, quote=False)}, each seed",
        "x": [x for x, _ in series.points],
        "y": [y for _, y in series.points],
        "mode": "markers",
        # White with a dark rim: seen on a bar of any hue and off it, on a light page and a dark one.
        "marker": {"size": 6, "color": _PAPER, "line": {"width": 1.3, "color": _INK}},
        "offsetgroup": group,
        "showlegend": False,
        "hovertemplate": "%{y:.4~g}<extra>a seed</extra>",
    }


def _groups(joined: bool) -> dict[str, Any]:
    """Bars side by side; a mark stands over its own model's bar."""
    bars = {"barmode": "group", "bargap": 0.18, "bargroupgap": 0.04}
    return bars | {"scattermode": "overlay" if joined else "group", "scattergap": 0.18}


def _across_axis(info: BarsInfo) -> dict[str, Any]:
    axis = {"title": {"text": info.x_title, "standoff": 6}, "showgrid": False, "zeroline": False}
    if info.ticks:
        axis |= {"tickvals": [at for at, _ in info.ticks], "ticktext": [text for _, text in info.ticks]}
    return axis


def _across(line: LineInfo) -> dict[str, Any]:
    stroke = {"width": 2 if line.color else 1.2, "dash": "dot" if line.color else "dash", "color": line.color or GREY}
    ends = {"xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": line.y, "y1": line.y}
    return {"type": "line", **ends, "line": stroke, "layer": "above"}


def _label(line: LineInfo) -> dict[str, Any]:
    at = {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 4, "y": line.y, "yref": "y"}
    return {"text": line.label, **at, "showarrow": False, "align": "left", "font": {"size": 10}}


def _bottom(info: BarsInfo) -> float:
    """Bars begin at zero, lines a little below the lowest."""
    lowest = min([y - low for s in info.series for y, low in zip(s.y, s.below, strict=True)], default=0.0)
    if not info.joined:
        return min(lowest * 1.06, 0.0)
    return min(lowest * 0.94, *(line.y * 0.94 for line in info.lines), info.top)


def _marks(shown: View, joined: bool, factor: float) -> tuple[MarksInfo, ...]:
    """Those of each curve; a mark where no layer was measured has no place in a chart of depths."""
    found = []
    for number, curve in enumerate(shown.curves):
        depths = {cell.layer: _place(cell, joined) for cell in curve.cells}
        marks = [m for m in shown.marks if m.family == curve.family and m.layer in depths]
        if marks:
            found.append(
                MarksInfo(
                    of=number,
                    x=[depths[m.layer] for m in marks],
                    y=[m.value * factor for m in marks],
                    hollow=[m.from_memory for m in marks],
                    texts=[_published(m, shown.metric) for m in marks],
                )
            )
    return tuple(found)


def _published(mark: Mark, metric: str) -> str:
    memory = " (from memory)" if mark.from_memory else ""
    return f"published{memory}: {shown_value(Estimate(mark.value), metric)}, {mark.source}"


def _diamonds(marks: MarksInfo) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": "published",
        "x": marks.x,
        "y": marks.y,
        "mode": "markers",
        "marker": {
            # Dark on white or white on dark: seen on the bar and off it, on a light page and a dark one.
            "symbol": "diamond",
            "size": 8,
            "color": [_PAPER if hollow else _INK for hollow in marks.hollow],
            "line": {"width": 1.4, "color": [_INK if hollow else _PAPER for hollow in marks.hollow]},
        },
        "offsetgroup": str(marks.of),
        "showlegend": False,
        "hovertext": [html.escape(text, quote=False) for text in marks.texts],
        "hoverinfo": "text",
    }


def _errors(series: SeriesInfo, kept: Sequence[int]) -> dict[str, Any]:
    above, below = [series.above[i] for i in kept], [series.below[i] for i in kept]
    return {
        "type": "data",
        "symmetric": False,
        "array": above,
        "arrayminus": below,
        "thickness": 1.3,
        "width": 2,
        "color": "#666",
        "visible": any(above) or any(below),
    }


def _place(cell: Cell, joined: bool) -> float:
    return cell.depth if joined and cell.depth is not None else float(cell.layer)


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
        parts.append("a probe predicts one class only")
    return ", ".join(parts)


def _lines(named: Sequence[tuple[str, float, str]], top: float) -> list[LineInfo]:
    """Lines (name, height, colour) from the lowest up; labels that would overlap are put together on the lowest of
    them, one under the other as their lines are."""
    lines: list[LineInfo] = []
    last = -1
    for name, y, color in sorted(named, key=lambda line: (line[1], line[0])):
        label = html.escape(name, quote=False)
        if last >= 0 and y - lines[last].y < LABEL_GAP * top:
            known = lines[last].label.split(",<br>")
            together = ",<br>".join(known if label in known else [label, *known])
            lines[last] = lines[last]._replace(label=together)
            lines.append(LineInfo("", y, color))
        else:
            last = len(lines)
            lines.append(LineInfo(label, y, color))
    return lines
