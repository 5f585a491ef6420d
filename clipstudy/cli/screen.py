"""What a command prints: a table, a paragraph, an estimate, the log."""

from __future__ import annotations

import logging
import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipstudy.progress import Bars, Progress
from clipstudy.redaction import RedactedFormatter

if TYPE_CHECKING:
    from clipstudy.outcome import Estimate

#: Characters of a cell that stays in one line: a value beside its interval.
WHOLE = 24
#: Blanks of a column, one on each side.
PADDING = 2


def table(head: list[str], rows: list[list[str]], transpose: bool = False) -> None:
    """Print ``rows`` under ``head``; with ``transpose``, what were columns are rows.

    No word is broken that has the room: what is wider than the screen goes on in further tables, each with the first
    column again.
    """
    from rich.console import Console
    from rich.table import Table

    if transpose:
        head, *rows = [list(column) for column in zip(head, *rows, strict=True)]
    console = Console(markup=False)  # cells are names and numbers, whatever brackets are in them
    columns = list(zip(head, *rows, strict=True))
    # A word of more than half the screen (a path) is the one that is broken.
    least = [min(_least(column), console.width // 2) for column in columns]
    for number, part in enumerate(_parts(least, console.width)):
        if number:
            console.print()
        widths = _widths([columns[at] for at in part], console.width)
        table = Table(box=None, header_style="bold")
        for at, width in zip(part, widths, strict=True):
            table.add_column(head[at], justify="right" if at else "left", overflow="fold", width=width)
        for row in rows:
            table.add_row(*(row[at] for at in part))
        console.print(table)


def _least(column: Sequence[str]) -> int:
    """The width in which no word of a column, and none of its short cells, is broken."""
    head, *cells = column
    whole = [piece for cell in cells for piece in ([cell] if len(cell) <= WHOLE else cell.split())]
    return max(map(len, [*head.split(), *whole]), default=0)


def _parts(least: Sequence[int], room: int) -> list[list[int]]:
    """The columns that go side by side, by number, in as few tables of about as many columns as have the room."""
    others = range(1, len(least))
    parts = [[0]]
    for number in others:
        size = -(-len(others) // number)
        parts = [[0, *others[at : at + size]] for at in range(0, len(others), size)]
        if all(sum(least[at] + PADDING for at in part) <= room for part in parts):
            break
    return parts


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """As wide as their cells, or less in the widest ones, where that is more than there is room for."""
    least = [_least(column) for column in columns]
    widths = [max(map(len, column)) for column in columns]
    room -= PADDING * len(columns)
    while sum(widths) > max(room, len(widths)):
        wide = [at for at, width in enumerate(widths) if width > least[at]] or range(len(widths))
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def paragraph(text: str, margin: int) -> str:
    """``text`` in lines of the screen's width, those after the first ``margin`` characters in; no word is broken."""
    width = max(_width() - margin, 30)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * margin).join(lines)


def shortened(text: str, margin: int) -> str:
    """``text`` in what a line has beside ``margin`` characters, ``…`` for words that are too many."""
    return textwrap.shorten(text, max(_width() - margin, 30), placeholder=" …")


def _width() -> int:
    return shutil.get_terminal_size().columns


def number(metric: str, estimate: Estimate | None) -> str:
    """An estimate of ``metric`` as tables of results have it, a count as a whole number, a dash for none."""
    from clipstudy.results import units

    if estimate is None:
        return "–"
    count = float(estimate.value).is_integer() and estimate.low is None and abs(estimate.value) >= 2
    if count and units.base(metric) not in units.known():
        return f"{estimate.value:,.0f}"
    return units.shown_value(estimate, metric)


def size(number: int) -> str:
    """Bytes as ``440.4 MB``; a dash for none."""
    if not number:
        return "–"
    if number < 1000:
        return f"{number} B"
    amount, unit = number / 1000, "kB"
    for larger in ("MB", "GB"):
        if amount >= 1000:
            amount, unit = amount / 1000, larger
    return f"{amount:,.1f} {unit}"


class AboveBars(logging.Handler):
    """Log lines above the bars of a terminal."""

    def __init__(self, bars: Bars) -> None:
        super().__init__()
        self.bars = bars

    def emit(self, record: logging.LogRecord) -> None:
        self.bars.say(self.format(record))


def log(verbose: bool, progress: Progress) -> None:
    """clipstudy's own log, above the bars of a terminal or as plain lines."""
    bars = progress if isinstance(progress, Bars) else None
    handler: logging.Handler = AboveBars(bars) if bars else logging.StreamHandler()
    if verbose:
        handler.setLevel(logging.DEBUG)
    else:
        handler.setLevel(logging.WARNING if bars else logging.INFO)
    handler.setFormatter(RedactedFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("clipstudy")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False
