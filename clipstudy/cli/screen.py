"""What a command prints besides lines: a table, an estimate, the log."""

from __future__ import annotations

import logging
from typing import Any

from clipstudy.settings import RedactedFormatter


def table(head: list[str], rows: list[list[str]], transpose: bool = False) -> None:
    """Print ``rows`` under ``head``; with ``transpose``, what were columns are rows."""
    from rich.console import Console
    from rich.table import Table

    if transpose:
        head, *rows = [list(column) for column in zip(head, *rows, strict=True)]
    table = Table(box=None, header_style="bold")
    for at, name in enumerate(head):
        table.add_column(name, justify="left" if at == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def number(estimate: Any) -> str:
    """An estimate with its interval, a count as a whole number, a dash for none."""
    if estimate is None:
        return "–"
    if float(estimate.value).is_integer() and estimate.low is None and abs(estimate.value) >= 2:
        return f"{estimate.value:,.0f}"
    interval = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{interval}"


def size(number: int) -> str:
    """Bytes as ``440.4 MB``; a dash for none."""
    amount, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return "–" if not number else f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"


def log(verbose: bool, progress: Any) -> None:
    """clipstudy's own log, above the bars of a terminal or as plain lines."""

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            progress.rich.console.print(self.format(record), markup=False, highlight=False)

    bars = hasattr(progress, "rich")
    handler: logging.Handler = Said() if bars else logging.StreamHandler()
    handler.setLevel(logging.DEBUG if verbose else logging.WARNING if bars else logging.INFO)
    handler.setFormatter(RedactedFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("clipstudy")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False
