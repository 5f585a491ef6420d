"""Views as charts: first what is to be drawn (``BarsInfo``, plain lists), then the figure. Pure.

A model has one colour everywhere, of the Okabe–Ito palette; an untrained twin has its trained model's hue, lighter and
hatched. A hollow bar is a cell where a probe predicts one class only.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from clipstudy.dashboard.tables import Board, Cell, Mark, View, axis_title, family_of, shown_value, unit
from clipstudy.outcome import Estimate
from clipstudy.spec import WHOLE_MODEL

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: Okabe–Ito, the readable ones on white and on black first; grey in the place of black.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C8C8C", "#C9B800")
_INK, _PAPER = "#1B1F24", "#FFFFFF"
#: Of a baseline's line; the page gives it the colour of its text.
GREY = "#888"
FONT = {"family": "system-ui, sans-serif", "size": 12}
#: Baselines whose labels would lie closer than this share of the axis share one label.
LABEL_GAP = 0.05
#: Characters of a line under a title: what the narrowest chart has room for.
NOTE_WIDTH = 72


class Ink(NamedTuple):
    """How a model is drawn."""

    color: str
    twin: bool = False


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
    """One ink a family, the same in every chart made with it."""
    twins = {family_of(r): r.tags["twin_of"] for r in shown.results if r.tags.get("twin_of")}
    trained = list(dict.fromkeys(twins.get(family, family) for family in shown.families))
    hues = {family: PALETTE[i % len(PALETTE)] for i, family in enumerate(trained)}
    return {family: Ink(hues[twins.get(family, family)], family in twins) for family in shown.families}


def bars_info(shown: View, colors: Mapping[str, Ink], x: str = "layer") -> BarsInfo:
    """What a chart of ``shown`` draws.

    Args:
        colors: family → ink (:func:`inks`).
        x: ``layer``: grouped bars over layer numbers; ``depth``: lines over the fraction of the model's blocks.
    """
    _, factor, _ = unit(shown.metric)
    joined = x == "depth" and any(cell.depth is not None for curve in shown.curves for cell in curve.cells)
    series = []
    for curve in shown.curves:
        cells = [cell for cell in curve.cells if not joined or cell.depth is not None]
        series.append(
            SeriesInfo(
                name=curve.title,
                ink=colors[curve.family],
                x=[_place(cell, joined) for cell in cells],
                y=[cell.estimate.value * factor for cell in cells],
                above=[_reach(cell, 1) * factor for cell in cells],
                below=[_reach(cell, -1) * factor for cell in cells],
                hollow=[cell.one_class for cell in cells],
                texts=[_hover(curve.title, cell, shown.metric) for cell in cells],
                points=[(_place(cell, joined), point * factor) for cell in cells for point in cell.points],
            )
        )
    marks = _marks(shown, joined, factor)
    ends = [y + up for s in series for y, up in zip(s.y, s.above, strict=True)] + [y for m in marks for y in m.y]
    ends += [y for s in series for _, y in s.points]
    lines = [(name, value * factor, "") for name, value in shown.baselines]
    lines += [(level.name, level.estimate.value * factor, colors[level.family].color) for level in shown.levels]
    top = max([*ends, *(y for _, y, _ in lines), 0.0]) * 1.06 or 1.0
    if shown.layers == (WHOLE_MODEL,):
        x_title, ticks = "", [(float(WHOLE_MODEL), "whole model")]
    elif joined:
        x_title, ticks = "depth (fraction of the model's blocks)", []
    else:
        x_title = f"layer (0 = {'embedding' if shown.modality == 'text' else 'stem'})"
        ticks = [(float(k), "whole model" if k == WHOLE_MODEL else str(k)) for k in shown.layers]
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


def bars_figure(info: BarsInfo, *, legend: bool = True, height: int = 320) -> Figure:
    """The figure; colours of text and grid are left to the page, so that it may be light or dark."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, series in enumerate(info.series):
        figure.add_traces([_line(series)] if info.joined else _bars(series, str(number)))
        if series.points:
            figure.add_trace(_points(series, str(number)))
    for mark in info.marks:
        figure.add_trace(_diamonds(mark))
    for line in info.lines:
        figure.add_hline(
            y=line.y,
            line_width=2 if line.color else 1.2,
            line_dash="dot" if line.color else "dash",
            line_color=line.color or GREY,
            layer="above",
        )
        if line.label:
            figure.add_annotation(
                x=1,
                xref="paper",
                xanchor="left",
                xshift=4,
                y=line.y,
                text=line.label,
                showarrow=False,
                align="left",
                font_size=10,
            )
    title, noted = heading(info.title, info.note)
    widest = max((len(part) for line in info.lines for part in line.label.split("<br>")), default=0)
    figure.update_layout(
        template="none",
        title=title,
        barmode="group",
        bargap=0.18,
        bargroupgap=0.04,
        scattermode="overlay" if info.joined else "group",  # a mark stands over its own model's bar
        scattergap=0.18,
        height=height,
        margin={"l": 56, "r": 14 + 6 * widest, "t": 56 + 17 * noted, "b": 44},
        showlegend=legend,
        legend={"orientation": "h", "y": -0.22, "title": None},
        hovermode="closest",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font=FONT,
    )
    figure.update_xaxes(title={"text": info.x_title, "standoff": 6}, showgrid=False, zeroline=False)
    if info.ticks:
        figure.update_xaxes(tickvals=[at for at, _ in info.ticks], ticktext=[text for _, text in info.ticks])
    lowest = min([y - low for s in info.series for y, low in zip(s.y, s.below, strict=True)], default=0.0)
    bottom = (
        min(lowest * 1.06, 0.0)
        if not info.joined
        else min(lowest * 0.94, *(line.y * 0.94 for line in info.lines), info.top)
    )
    figure.update_yaxes(title={"text": info.y_title, "standoff": 6}, range=[bottom, info.top], zeroline=True)
    return figure


def signs(drawn: Sequence[View]) -> list[str]:
    """What the signs in these charts mean, besides the models' colours."""
    curves = [curve for view in drawn for curve in view.curves]
    said = {
        "□ hollow: a probe predicts one class only": any(cell.one_class for c in curves for cell in c.cells),
        "◆ published elsewhere (◇ from memory)": any(view.marks for view in drawn),
        "○ one seed": any(cell.points for c in curves for cell in c.cells),
        "⋯ dotted: the model's zero-shot accuracy": any(view.levels for view in drawn),
    }
    return [text for text, there in said.items() if there]


def heading(title: str, note: str) -> tuple[dict[str, Any], int]:
    """A figure's title, with what the study says of itself under it, and the lines that this takes."""
    said = [html.escape(line, quote=False) for line in textwrap.wrap(note, NOTE_WIDTH)]
    shown = {
        "text": html.escape(title, quote=False),
        "x": 0,
        "pad": {"l": 10},
        "font": {"size": 15, "weight": 600},
        "subtitle": {"text": "<br>".join(said), "font": {"size": 11}},
    }
    return shown, len(said)


def bars(shown: View, colors: Mapping[str, Ink], x: str = "layer", *, legend: bool = True) -> Figure:
    """Per-layer bars of one view, models side by side."""
    return bars_figure(bars_info(shown, colors, x), legend=legend)


def lighter(color: str, share: float = 0.55) -> str:
    """``color`` mixed with white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * share):02X}" for part in parts)


# -- inside ------------------------------------------------------------------------------------------------------


def _bars(series: SeriesInfo, group: str) -> list[Any]:
    """The series' bars and, where there are any, its hollow ones: two traces in one place of the group, because a
    hatched trace takes only one colour."""
    import plotly.graph_objects as go

    color = series.ink.color
    filled: dict[str, Any] = {"color": color, "line": {"width": 0}}
    if series.ink.twin:
        hatching = {"shape": "/", "fillmode": "overlay", "fgcolor": color, "fgopacity": 0.9, "size": 5, "solidity": 0.3}
        filled |= {"color": lighter(color), "pattern": hatching}
    hollow = {"color": "rgba(0,0,0,0)", "line": {"color": color, "width": 1.5}}
    traces: list[Any] = []
    for part, marker in ((False, filled), (True, hollow)):
        kept = [i for i, is_hollow in enumerate(series.hollow) if is_hollow is part]
        if not kept and (part or series.x):
            continue
        traces.append(
            go.Bar(
                name=html.escape(series.name, quote=False),
                x=[series.x[i] for i in kept],
                y=[series.y[i] for i in kept],
                error_y=_errors(series, kept),
                marker=marker,
                offsetgroup=group,
                showlegend=not part or len(traces) == 0,
                hovertext=[html.escape(series.texts[i], quote=False) for i in kept],
                hoverinfo="text",
            )
        )
    return traces


def _line(series: SeriesInfo) -> Any:
    import plotly.graph_objects as go

    color = series.ink.color
    return go.Scatter(
        name=html.escape(series.name, quote=False),
        x=series.x,
        y=series.y,
        error_y=_errors(series, range(len(series.x))),
        mode="lines+markers",
        line={"color": color, "dash": "dot" if series.ink.twin else "solid", "width": 2},
        marker={
            "color": lighter(color) if series.ink.twin else color,
            "symbol": ["circle-open" if hollow else "circle" for hollow in series.hollow],
            "size": 7,
        },
        hovertext=[html.escape(text, quote=False) for text in series.texts],
        hoverinfo="text",
    )


def _points(series: SeriesInfo, group: str) -> Any:
    """Each seed over its own model's bar, or on its line."""
    import plotly.graph_objects as go

    return go.Scatter(
        name=f"{html.escape(series.name, quote=False)}, each seed",
        x=[x for x, _ in series.points],
        y=[y for _, y in series.points],
        mode="markers",
        marker={"size": 4, "color": _PAPER, "line": {"width": 1, "color": _INK}, "opacity": 0.85},
        offsetgroup=group,
        showlegend=False,
        hovertemplate="%{y:.4~g}<extra>a seed</extra>",
    )


def _marks(shown: View, joined: bool, factor: float) -> tuple[MarksInfo, ...]:
    """Those of each curve; a mark where no layer was measured has no place in a chart of depths."""
    found = []
    for number, curve in enumerate(shown.curves):
        depths = {cell.layer: _place(cell, joined) for cell in curve.cells}
        marks = [m for m in shown.marks if m.family == curve.family and m.layer in depths]
        if marks and not curve.stands_in:
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


def _diamonds(marks: MarksInfo) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        name="published",
        x=marks.x,
        y=marks.y,
        mode="markers",
        marker={
            # Dark on white or white on dark: seen on the bar and off it, on a light page and a dark one.
            "symbol": "diamond",
            "size": 8,
            "color": [_PAPER if hollow else _INK for hollow in marks.hollow],
            "line": {"width": 1.4, "color": [_INK if hollow else _PAPER for hollow in marks.hollow]},
        },
        offsetgroup=str(marks.of),
        showlegend=False,
        hovertext=[html.escape(text, quote=False) for text in marks.texts],
        hoverinfo="text",
    )


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
    them."""
    lines: list[LineInfo] = []
    last = -1
    for name, y, color in sorted(named, key=lambda line: (line[1], line[0])):
        label = html.escape(name, quote=False)
        if last >= 0 and y - lines[last].y < LABEL_GAP * top:
            known = lines[last].label.split(",<br>")
            together = ",<br>".join(known if label in known else [*known, label])
            lines[last] = lines[last]._replace(label=together)
            lines.append(LineInfo("", y, color))
        else:
            last = len(lines)
            lines.append(LineInfo(label, y, color))
    return lines
