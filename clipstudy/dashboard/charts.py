"""Views as charts: what is to be drawn (:mod:`clipstudy.dashboard.series`) as a figure, in Plotly's own JSON. Pure.

A hollow bar is a cell where, with at least one seed, a single class is predicted.

Figures are plain dictionaries: checking each of their values against Plotly's schema took most of a page's time, and
the tests do it.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from clipstudy.dashboard import labels
from clipstudy.dashboard.inks import DASHES, FLOORS, PATTERNS, SYMBOLS, Ink, floors_of, lighter
from clipstudy.dashboard.labels import GREY
from clipstudy.dashboard.series import BarsInfo, LineInfo, MarksInfo, SeriesInfo, bars_info
from clipstudy.results.units import ONE_CLASS
from clipstudy.results.views import View

#: ``data`` and ``layout`` as Plotly's JSON has them.
Figure = dict[str, Any]

_INK, _PAPER = "#1B1F24", "#FFFFFF"
FONT = {"family": "system-ui, sans-serif", "size": 12}
HEIGHT, BELOW = 320, 44  #: pixels: of a figure, and of what is under its x axis
#: Characters of a line under a title: what a chart of half the page's width has room for, and one of the whole, on a
#: laptop beside the dashboard's controls. Where a chart is narrower, page.css leaves the line out.
NOTE_WIDTH, TITLE_WIDTH = 58, 40


def bars(shown: View, colors: Mapping[str, Ink], x: str = "layer", *, wide: bool = False) -> Figure:
    """Per-layer bars of one view, models side by side."""
    return bars_figure(bars_info(shown, colors, x), wide=wide)


def bars_figure(info: BarsInfo, *, wide: bool = False) -> Figure:
    """The figure; colours of text and grid are left to the page, so that it may be light or dark, and so is the legend:
    one is for all charts of a section.

    Args:
        wide: it has the page's whole width.
    """
    data: list[dict[str, Any]] = []
    for number, series in enumerate(info.series):
        data += [_line(series)] if info.joined else _bars(series, str(number))
        if series.floors:
            data += _floors(series, str(number))
        if series.points:
            data.append(_points(series, str(number)))
    data += [_diamonds(mark) for mark in info.marks]
    title, top = heading(info.title, info.note)
    ends = (_bottom(info), info.top)
    layout = {
        "title": title,
        **_groups(info.joined),
        "height": HEIGHT,
        "margin": {"l": 56, "r": 14 + labels.margin(info.lines), "t": top, "b": BELOW},
        "showlegend": False,
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": FONT,
        "shapes": [_across(line) for line in info.lines],
        "annotations": labels.drawn(info.lines, ends, HEIGHT - top - BELOW),
        "xaxis": _across_axis(info),
        "yaxis": {
            "title": {"text": info.y_title, "standoff": 6},
            "range": [*ends],
            "zeroline": True,
        },
    }
    return {"data": data, "layout": layout}


def signs(drawn: Sequence[View]) -> list[str]:
    """What the signs in these charts mean, besides the models' colours."""
    curves = [curve for view in drawn for curve in view.curves]
    levels = " or ".join(sorted({level.name for view in drawn for level in view.levels}))
    own: dict[str, set[str]] = {sign: set() for _, sign in FLOORS}
    for view in drawn:
        for name, (_, sign) in floors_of(view.floors).items():
            own[sign].add(name)
    said = {
        f"□ hollow: {ONE_CLASS}": any(cell.one_class for c in curves for cell in c.cells),
        "◆ published elsewhere (◇ from memory)": any(view.marks for view in drawn),
        "○ one seed": any(cell.points for c in curves for cell in c.cells),
        f"⋯ dotted: {levels}, in the model's colour": bool(levels),
        **{f"{sign} {' or '.join(sorted(names))}, each layer's own": bool(names) for sign, names in own.items()},
    }
    return [text for text, there in said.items() if there]


def heading(title: str, note: str) -> tuple[dict[str, Any], int]:
    """A figure's title, with what the study says of itself under it, and the pixels that this takes."""
    lines, said = (
        [html.escape(line, quote=False) for line in textwrap.wrap(text, width, break_on_hyphens=False)]
        for text, width in ((title, TITLE_WIDTH), (note, NOTE_WIDTH))
    )
    shown = {
        "text": "<br>".join(lines),
        "x": 0,
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"l": 10, "t": 12},
        "font": {"size": 15, "weight": 600},
        "subtitle": {"text": "<br>".join(said), "font": {"size": 11}},
    }
    return shown, 52 + 20 * (len(lines) - 1) + 16 * len(said)


# -- inside ------------------------------------------------------------------------------------------------------


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
        "hovertemplate": "%{y:.4~g}<extra>a seed</extra>",
    }


def _floors(series: SeriesInfo, group: str) -> list[dict[str, Any]]:
    """What needs no model, where each layer has its own: a sign over its bar, dark with a white rim, so that it is seen
    on a bar of any hue and off it, on a light page and a dark one."""
    sign = {
        "type": "scatter",
        "name": f"{html.escape(series.name, quote=False)}, without the model",
        "x": [floor.x for floor in series.floors],
        "y": [floor.y for floor in series.floors],
        "mode": "markers",
        "offsetgroup": group,
        "hovertext": [html.escape(floor.text, quote=False) for floor in series.floors],
        "hoverinfo": "text",
    }
    strokes = (_PAPER, 9, 4.5), (_INK, 8, 2)
    symbols = [floor.symbol for floor in series.floors]
    return [
        sign | {"marker": {"symbol": symbols, "size": size, "line": {"width": width, "color": color}}}
        for color, size, width in strokes
    ]


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


def _bottom(info: BarsInfo) -> float:
    """Bars begin at zero, lines a little below the lowest of what is drawn."""
    ends = [y - low for s in info.series for y, low in zip(s.y, s.below, strict=True)]
    ends += [y for s in info.series for _, y in s.points] + [y for m in info.marks for y in m.y]
    ends += [floor.y for s in info.series for floor in s.floors] + [line.y for line in info.lines]
    lowest = min(ends, default=0.0)
    room = 0.06 * (info.top - lowest)
    if lowest < 0:
        return lowest - room
    return max(lowest - room, 0.0) if info.joined else 0.0


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
