"""The figure of a likeness: every layer of a model beside every layer of the reference. Pure."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

from clipstudy.dashboard.charts import FONT, HEIGHT, Figure, heading
from clipstudy.results import units
from clipstudy.results.likeness import Likeness

#: From unlike to alike: light to dark in the lightness that every eye and every printer sees.
SCALE = "Cividis"
OUTLINE = "#D55E00"
#: What the figure's signs are.
SIGNS = "Linear CKA on one scale for all maps, 0 to 1; outlined: the most similar layer of the reference."
#: Up to so many columns a cell has room for its number.
ROOMY = 8


class HeatInfo(NamedTuple):
    """What a heat map draws."""

    title: str
    x_title: str
    y_title: str
    x: list[str]
    y: list[str]  #: from the bottom up
    z: list[list[float | None]]  #: ``[y][x]``
    texts: list[list[str]]  #: what hovering says
    nearest: list[tuple[int, int]]  #: places in ``x`` and ``y`` of the outlined cells
    note: str = ""


def spoken(found: Likeness) -> str:
    """A map to those who do not see it."""
    what = f"{found.title}: {found.model}: CKA of each layer with each of {found.reference}"
    return f"{what}. The table below holds the same numbers."


def info(found: Likeness) -> HeatInfo:
    """The bottom row is the model's first layer, the left column the reference's, so that alike depths lie on a rising
    diagonal."""
    names, rows = [str(j) for j in found.others], [str(k) for k in found.layers]
    nearest = [
        (max((cell.value, -j) for j, cell in enumerate(row) if cell)[1] * -1, k)
        for k, row in enumerate(found.cells)
        if any(row)
    ]
    texts = [
        [
            f"{found.model}, layer {rows[k]} · {found.reference}, layer {names[j]}: "
            + (units.shown_value(cell, found.metric) if cell else "not measured")
            for j, cell in enumerate(row)
        ]
        for k, row in enumerate(found.cells)
    ]
    return HeatInfo(
        title=f"{found.title}: {found.model}",
        x_title=units.layers_title(found.others, of=found.reference),
        y_title=units.layers_title(found.layers),
        x=names,
        y=rows,
        z=[[cell.value if cell else None for cell in row] for row in found.cells],
        texts=texts,
        nearest=nearest,
        note=found.note,
    )


def figure(drawn: HeatInfo) -> Figure:
    """The figure, every map on one scale from 0 to 1; colours of text are left to the page."""
    title, top = heading(drawn.title, drawn.note)
    cells = {
        "type": "heatmap",
        "x": drawn.x,
        "y": drawn.y,
        "z": drawn.z,
        "zmin": 0,
        "zmax": 1,
        "colorscale": SCALE,
        "xgap": 1,
        "ygap": 1,
        "hovertext": [[html.escape(text, quote=False) for text in row] for row in drawn.texts],
        "hoverinfo": "text",
        "texttemplate": "%{z:.2f}" if len(drawn.x) <= ROOMY else "",
        "textfont": {"size": 10},
        "colorbar": {"title": {"text": "CKA", "side": "right"}, "thickness": 12, "outlinewidth": 0},
    }
    layout = {
        "title": title,
        "height": HEIGHT,
        "margin": {"l": 56, "r": 14, "t": top, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": FONT,
        "shapes": [_outline(j, k) for j, k in drawn.nearest],
        "xaxis": _axis(drawn.x_title, drawn.x),
        "yaxis": _axis(drawn.y_title, drawn.y),
    }
    return {"data": [cells], "layout": layout}


# -- inside ------------------------------------------------------------------------------------------------------


def _outline(j: int, k: int) -> dict[str, Any]:
    ends = {"x0": j - 0.5, "x1": j + 0.5, "y0": k - 0.5, "y1": k + 0.5}
    return {"type": "rect", **ends, "line": {"color": OUTLINE, "width": 2}}


def _axis(said: str, names: Sequence[str]) -> dict[str, Any]:
    """Of categories: "1" is a layer's name here, not a number to be placed."""
    title = {"text": html.escape(said, quote=False), "standoff": 6}
    shown = {"type": "category", "range": [-0.5, len(names) - 0.5], "showgrid": False, "zeroline": False}
    return {"title": title, **shown}
