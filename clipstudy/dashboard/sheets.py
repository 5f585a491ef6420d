"""Tables across tasks: the best layer of every model, one task layer by layer, the differences of two models. Pure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from clipstudy.dashboard import writers
from clipstudy.dashboard.tables import (
    Cell,
    Curve,
    View,
    Z,
    axis_title,
    better,
    layer_name,
    note_said,
    shown_value,
    standard_error,
    unit,
)
from clipstudy.spec import WHOLE_MODEL


class Entry(NamedTuple):
    """One cell of a table: what a person reads, and the number that it is sorted by, in the same unit."""

    text: str
    value: float | None = None
    bold: bool = False


NONE = Entry("—")


@dataclass(frozen=True)
class Sheet:
    title: str
    said: str  #: what the numbers are, and what bold means
    head: tuple[str, ...]  #: the first names the lines
    lines: tuple[tuple[str, tuple[Entry, ...]], ...]
    note: str = ""  #: what the study says of itself


def best(views: Sequence[View]) -> Sheet:
    """Tasks down, models across, each at its best layer; bold: the best model of the task."""
    titles = {(c.study, c.family): c.title for view in views for c in view.curves}
    lines = []
    for view in views:
        at = {(curve.study, curve.family): best_cell(curve) for curve in view.curves if curve.cells}
        top = _top(list(at.values()), view.metric)
        entries = [_entry(at[key], view.metric, at[key] is top) if key in at else NONE for key in titles]
        lines.append((f"{view.title}, {axis_title(view.metric)}", tuple(entries)))
    said = "each model at its best layer (in brackets), mean ± half of the 95% interval; bold: the best of the task"
    return Sheet("Best layers", said, ("task", *titles.values()), tuple(lines), note_said(views))


def by_layer(view: View) -> Sheet:
    """Layers down, models across; bold: the model's best layer."""
    found = [{cell.layer: cell for cell in curve.cells} for curve in view.curves]
    _, factor, _ = unit(view.metric)
    head, body = writers.grid(view)
    lines = []
    for name, texts in body:
        layer = next((k for k in view.layers if layer_name(k, view.modality) == name), None)
        cells = [at.get(layer) if layer is not None else None for at in found]
        entries = [
            Entry(text, cell.estimate.value * factor if cell else None, bold)
            for (text, bold), cell in zip(texts, cells, strict=True)
        ]
        lines.append((name, tuple(entries)))
    said = f"{axis_title(view.metric)}, mean ± half of the 95% interval; bold: the model's best layer"
    return Sheet(view.title, said, ("layer", *head), tuple(lines), view.note)


def differences(views: Sequence[View], first: str, second: str) -> Sheet:
    """Family ``first`` minus family ``second``, task by task, each at its best layer.

    The interval is that of two independent estimates, se² = se₁² + se₂². Both models saw the same test items and tend
    to fail on the same ones, so it is rather too wide: what it says differs would differ by a paired test as well.
    """
    lines, titles = [], {first: first, second: second}
    for view in views:
        curves = {curve.family: curve for curve in view.curves if curve.cells}
        titles |= {family: curve.title for family, curve in curves.items() if family in titles}
        if first not in curves or second not in curves:
            continue
        a, b = best_cell(curves[first]), best_cell(curves[second])
        lines.append((f"{view.title}, {axis_title(view.metric)}", _difference(a, b, view.metric)))
    said = (
        "each at its best layer (in brackets), mean ± half of the 95% interval, not paired and so rather too wide; "
        "bold: the interval leaves out 0"
    )
    head = ("task", titles[first], titles[second], "difference")
    return Sheet(f"{titles[first]} − {titles[second]}", said, head, tuple(lines), note_said(views))


def best_cell(curve: Curve) -> Cell:
    """Where there is only one layer, that one."""
    return next((cell for cell in curve.cells if cell.layer == curve.best), curve.cells[0])


def only(view: View, families: Iterable[str]) -> View:
    """``view`` of these models alone."""
    kept = frozenset(families)
    return replace(view, curves=tuple(curve for curve in view.curves if curve.family in kept))


def to_csv(sheet: Sheet) -> str:
    """As on the page: one number a cell would lose the intervals, and where they are from."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(writers.literal, sheet.head))
    for name, entries in sheet.lines:
        writer.writerow([writers.literal(name), *(entry.text.removeprefix("+") for entry in entries)])
    return text.getvalue()


def to_markdown(sheet: Sheet) -> str:
    return writers.markdown(sheet.title, sheet.said, sheet.head, _body(sheet), sheet.note)


def to_latex(sheet: Sheet) -> str:
    return writers.latex(sheet.title, f"{sheet.said}.", sheet.head, _body(sheet), sheet.note)


#: How a sheet is taken away: name, ending of the file, media type, writer.
DOWNLOADS: tuple[tuple[str, str, str, Callable[[Sheet], str]], ...] = (
    ("CSV", "csv", "text/csv", to_csv),
    ("LaTeX", "tex", "application/x-tex", to_latex),
    ("Markdown", "md", "text/markdown", to_markdown),
)


def _body(sheet: Sheet) -> writers.Body:
    return [(name, [(entry.text, entry.bold) for entry in entries]) for name, entries in sheet.lines]


def _entry(cell: Cell, metric: str, bold: bool) -> Entry:
    where = "" if cell.layer == WHOLE_MODEL else f" ({cell.layer})"
    text = f"{shown_value(cell.estimate, metric)}{'†' * cell.one_class}{where}"
    return Entry(text, cell.estimate.value * unit(metric)[1], bold)


def _difference(a: Cell, b: Cell, metric: str) -> tuple[Entry, Entry, Entry]:
    _, factor, decimals = unit(metric)
    value = (a.estimate.value - b.estimate.value) * factor
    first, second = standard_error(a.estimate), standard_error(b.estimate)
    text, apart = f"{value:+.{decimals}f}", False
    if first is not None and second is not None:
        half = Z * math.hypot(first, second) * factor
        text, apart = f"{text} ± {half:.{decimals}f}", abs(value) > half
    return _entry(a, metric, False), _entry(b, metric, False), Entry(text.replace("-", "−"), value, apart)


def _top(cells: Sequence[Cell], metric: str) -> Cell | None:
    """The best of several models' cells; None of one: nothing was chosen."""
    return max(cells, key=lambda cell: better(metric) * cell.estimate.value) if len(cells) > 1 else None
