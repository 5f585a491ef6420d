"""Names of the lines across a chart, in the margin beside them: none over another, each led to from its line. Pure."""

from __future__ import annotations

import html
import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

from clipstudy.dashboard.series import LineInfo

#: Of a line of a name: the longest, in characters, and its height and the width of a character, in pixels.
LONGEST, LINE, LETTER = 22, 13, 6
LEADER, APART = 12, 3  #: pixels from the end of a line to its name, and between names
GREY = "#888"  #: of a baseline's line; the page gives it the colour of its text


def margin(lines: Sequence[LineInfo]) -> int:
    """The pixels that the names take beside the chart."""
    widest = max((len(part) for line in lines for part in _broken(line)), default=0)
    return LEADER + LETTER * widest if widest else 0


def drawn(lines: Sequence[LineInfo], ends: tuple[float, float], height: float) -> list[dict[str, Any]]:
    """A name for each of ``lines``, in the order of their heights, as near to its own as the others let it.

    Args:
        ends: of the y axis.
        height: of the y axis, in pixels.
    """
    low, high = ends
    down = sorted(lines, key=lambda line: -line.y)
    wanted = [height * (high - line.y) / (high - low) for line in down]
    sizes = [float(LINE * len(_broken(line)) + APART) for line in down]
    # Half of a name may stand out over an end of the axis, where the line is at its end.
    over = (LINE + APART) / 2
    found = apart([y + over for y in wanted], sizes, height + 2 * over)
    return [_led(line, at - over - y) for line, y, at in zip(down, wanted, found, strict=True)]


def apart(wanted: Sequence[float], sizes: Sequence[float], room: float) -> list[float]:
    """Centres of things that are ``sizes`` long, none over another, within 0 and ``room``: the nearest, by squares, to
    those ``wanted``, and in their order. Where there is too little room, the last ones lie beyond it.

    Things lie apart if, with the lengths of those before it taken off, none comes before its neighbour: what is sought
    is an isotonic regression, and neighbours that would not keep the order share their mean.
    """
    before = [end - size / 2 for end, size in zip(itertools.accumulate(sizes), sizes, strict=True)]
    blocks: list[tuple[float, int]] = []
    for place, gone in zip(wanted, before, strict=True):
        total, count = place - gone, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            more, others = blocks.pop()
            total, count = total + more, count + others
        blocks.append((total, count))
    starts = [total / count for total, count in blocks for _ in range(count)]
    last = max(room - sum(sizes), 0.0)
    return [min(max(start, 0.0), last) + gone for start, gone in zip(starts, before, strict=True)]


# -- inside ------------------------------------------------------------------------------------------------------


def _broken(line: LineInfo) -> list[str]:
    """Its name in lines: what it is, then whose."""
    what, comma, whose = line.label.partition(", ")
    if len(line.label) <= LONGEST or not comma:
        return textwrap.wrap(line.label, LONGEST)
    return [*textwrap.wrap(f"{what},", LONGEST), *textwrap.wrap(whose, LONGEST)]


def _led(line: LineInfo, shift: float) -> dict[str, Any]:
    """The name ``shift`` pixels below its line, with a stroke from the line's end to it."""
    text = "<br>".join(html.escape(part, quote=False) for part in _broken(line))
    stroke = {"showarrow": True, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": line.color or GREY}
    at = {"x": 1, "xref": "paper", "y": line.y, "yref": "y", "ax": LEADER, "ay": round(shift, 1)}
    return {"text": text, **at, **stroke, "xanchor": "left", "align": "left", "borderpad": 0, "font": {"size": 10}}
