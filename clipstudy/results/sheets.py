"""Tables across tasks: each model's best layer, one task layer by layer, two models' differences, published numbers
beside measured ones, one model's layers beside another's. Pure."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from clipstudy.claims import ALPHA
from clipstudy.metrics import Difference, holm
from clipstudy.outcome import Estimate
from clipstudy.published import Published
from clipstudy.results import alike, boards, writers
from clipstudy.results.boards import Board, note_of
from clipstudy.results.comparisons import Comparison
from clipstudy.results.likeness import Likeness
from clipstudy.results.pooling import note_said
from clipstudy.results.run_files import DRAWS, Tested
from clipstudy.results.units import (
    INTERVAL,
    ONE_CLASS,
    Z,
    axis_title,
    better,
    layer_name,
    shown_p,
    shown_value,
    standard_error,
    unit,
)
from clipstudy.results.views import Cell, View, floor_of, is_near, models_of
from clipstudy.results.writers import Download
from clipstudy.spec import WHOLE_MODEL

#: How a layer was chosen, for captions.
CHOSEN = "chosen on dev where there is one"


class Entry(NamedTuple):
    """One cell of a table: what a person reads, and the number that it is sorted by, in the same unit."""

    text: str
    value: float | None = None
    bold: bool = False


NONE = Entry("—")
#: Of what was measured with other settings, there is no difference.
UNLIKE = Tested(None, "not measured alike")
#: Two cells and their metric → first minus second, paired; None: they cannot be.
Test = Callable[[Cell, Cell, str], Tested | None]


@dataclass(frozen=True)
class Sheet:
    title: str
    said: str  #: what the numbers are, and what bold means
    head: tuple[str, ...]  #: the first names the lines
    lines: tuple[tuple[str, tuple[Entry, ...]], ...]
    note: str = ""  #: what the study says of itself
    empty: str = "no result matches the task, the models and the metric chosen"  #: what to say where there is no line

    @property
    def numbers(self) -> tuple[bool, ...]:
        """For each column but the first: does it hold numbers, or texts alone?"""
        columns = range(len(self.head) - 1)
        return tuple(any(es[at].value is not None for _, es in self.lines) or not self.lines for at in columns)


def best(views: Sequence[View]) -> Sheet:
    """Tasks down, models across, each at its best layer, and last the best of what needs no model; bold: the best model
    of the task, and what the intervals cannot tell from it, of those above that baseline. Without what has no best
    layer."""
    judged = [view for view in views if better(view.metric)]
    titles = {(c.study, c.family): c.title for c in models_of(judged)}
    based = any(_floor(view) for view in judged)
    lines = []
    for view in judged:
        at = {(curve.study, curve.family): cell for curve in view.curves if (cell := curve.chosen)}
        if not at:
            continue
        top = _top(list(at.values()), view.metric)
        bold = {
            k for k, cell in at.items() if not view.mixed and is_near(top, cell, view.metric) and _above(cell, view)
        }
        entries = [_entry(at[key], view.metric, key in bold) if key in at else NONE for key in titles]
        name = f"{view.title}, {axis_title(view.metric)}{' ‡' * bool(view.mixed)}"
        lines.append((name, (*entries, *([_baseline(view)] if based else []))))
    said = f"at its best layer (in brackets; {CHOSEN}), mean {INTERVAL}"
    if len(titles) == 1:
        said = f"the model {said}"
    else:
        said = f"{len(titles)} models across, each {said}; bold: the best of the task and what the intervals cannot "
        said += "tell from it"
        said += ", where the interval lies beyond the best baseline, which needs no model" if based else ""
    if any("†" in entry.text for _, entries in lines for entry in entries):
        said += f"; †: {ONE_CLASS}"
    if any(view.mixed for view in judged):
        said += "; ‡: its models were not measured alike (see the notes), and are not to be compared"
    head = ("task", *titles.values(), *(["best baseline"] if based else []))
    return Sheet("Best layers", said + _descriptive(views), head, tuple(lines), note_said(views))


def glance(shown: Board) -> list[tuple[list[str], list[list[str]]]]:
    """Everything at a glance, a table (head and rows) for texts and one for images: tasks down, trained models across,
    each at its best layer (``85.3 ± 0.7 (4)``), and last the best of what needs no model."""
    views = [found for task in shown.tasks if (found := boards.view(shown, task)) is not None and better(found.metric)]
    by = {modality: [found for found in views if found.modality == modality] for modality in ("text", "image")}
    return [_glance(some) for some in by.values() if some]


def _glance(views: Sequence[View]) -> tuple[list[str], list[list[str]]]:
    titles = {curve.family: curve.title for curve in models_of(views) if not curve.twin_of}
    rows = []
    for view in views:
        at = {curve.family: cell for curve in view.curves if (cell := curve.chosen)}
        cells = [_entry(at[family], view.metric, False) if family in at else NONE for family in titles]
        floor = _floor(view)
        without = floor[0] if floor else NONE.text
        rows.append([f"{view.title}, {axis_title(view.metric)}", *(cell.text for cell in cells), without])
    return ["task", *titles.values(), "no model"], rows


def by_layer(view: View) -> Sheet:
    """Layers down, models across; bold: the model's best layer, and what cannot be told from it."""
    found = [{cell.layer: cell for cell in curve.cells} for curve in view.curves]
    factor = unit(view.metric).factor
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
    return Sheet(view.title, writers.said(view), ("layer", *head), tuple(lines), view.note)


def differences(views: Sequence[View], first: str, second: str, test: Test | None = None) -> Sheet:
    """Family ``first`` minus family ``second``, task by task, each at its best layer.

    Where ``test`` pairs the two on the same items, the interval and p are its own. Elsewhere they are those of two
    independent estimates, se² = se₁² + se₂²: rather too wide, as models tend to fail on the same items. The p are
    two-sided, Holm's for the number of lines (Holm 1979).
    """
    found, titles, trained = [], {first: first, second: second}, ""
    for view in views:
        curves = {curve.family: curve for curve in view.curves if curve.cells}
        titles |= {family: curve.title for family, curve in curves.items() if family in titles}
        if first not in curves or second not in curves:
            continue
        if curves[second].twin_of == first:
            trained = " (its untrained twin: what training gave)"
        a, b = curves[first].chosen, curves[second].chosen
        if a is None or b is None:
            continue
        if alike.unlike([*a.runs, *b.runs]):
            found.append((view, a, b, UNLIKE))
            continue
        found.append((view, a, b, _apart(a, b, test(a, b, view.metric) if test else None)))
    known = [tested.difference.p for *_, tested in found if tested.difference]
    adjusted = iter(holm(known).tolist())
    lines = []
    for view, a, b, tested in found:
        p = next(adjusted) if tested.difference else None
        both = (_entry(a, view.metric, False), _entry(b, view.metric, False))
        entries = (*_tested(a, b, view.metric, tested, p), *both)
        lines.append((f"{view.title}, {axis_title(view.metric)}", entries))
    said = (
        f"{titles[first]} minus {titles[second]}{trained}, task by task: above 0 where {titles[first]} is higher. Each "
        f"at its best layer (in brackets; {CHOSEN}), mean {INTERVAL}. p is two-sided, with Holm's correction for "
        f"the number of lines. Paired: a bootstrap of {DRAWS:,} draws over the same test items and each model's seeds, "
        "widened because seeds are few (clusterings: Student's t over samples, of where one more would land). Not "
        "paired: the two are treated as independent, which makes the interval too wide rather than too narrow. "
        f"Bold: p < {ALPHA}"
        f"{_descriptive(views)}"
    )
    head = ("task", "difference", "p", "paired on", titles[first], titles[second])
    empty = f"{titles[first]} and {titles[second]} have no task in common where higher or lower is better"
    return Sheet(f"{titles[first]} − {titles[second]}", said, head, tuple(lines), note_said(views), empty)


def published(shown: Board, numbers: Iterable[Published]) -> Sheet:
    """A line for each published number of a role that a model plays, task by task in the order of ``shown``.

    None for a model that stands in for the one that its role is named after; the sentence says which these are.
    """
    return _published(shown, numbers)[0]


def _published(shown: Board, numbers: Iterable[Published]) -> tuple[Sheet, bool]:
    """:func:`published`, and whether it is empty because all models that play the roles only stand in."""
    lines: list[tuple[str, tuple[Entry, ...]]] = []
    sources: list[str] = []
    others: dict[str, None] = {}
    for number in sorted(numbers, key=lambda n: shown.tasks.index(n.task) if n.task in shown.tasks else -1):
        found = _view_of(number, shown) if number.role and number.task in shown.tasks else None
        for curve in found.curves if found else ():
            cell = next((cell for cell in curve.cells if cell.layer == number.layer), None)
            if not found or not cell or number.role not in curve.role.split():
                continue
            if curve.stands_in:
                others[curve.title] = None
                continue
            at = "" if number.layer == WHOLE_MODEL else f", layer {number.layer}"
            compared = Comparison(number, curve.family, curve.study, cell.estimate)
            lines.append((f"{found.title}, {curve.title}{at}", _beside(compared)))
            sources.append(number.place)
    said = (
        f"measured {INTERVAL}; bold: a difference beyond the tolerance (two standard deviations of the "
        "paper's own runs, else two points of accuracy or 0.05 of NMI); no difference where the number is from memory"
    )
    if others:
        said += f"; left out: {_standing_in(others)}"
    head = ["what", "measured", "published", "difference", "data", "method"]
    if len(set(sources)) == 1:
        said += f"; published: {sources[0]}"
    else:
        head.append("source")
        lines = [(name, (*entries, Entry(source))) for (name, entries), source in zip(lines, sources, strict=True)]
    alone = 'To see what was published, type "clipstudy published"'
    empty = f"{_standing_in(others)}. {alone}" if others else Sheet.empty
    title = "Published numbers beside measured ones"
    sheet = Sheet(title, said, tuple(head), tuple(lines), note_of(shown.results), empty)
    return sheet, bool(others) and not lines


def _view_of(number: Published, shown: Board) -> View | None:
    """The number's metric, by the name under which the models of its role have it."""
    own = [run for run in shown.by_task[number.task] if number.role in run.tags.get("role", "").split()]
    return boards.view(shown, number.task, boards.recorded_as(number.metric, own))


def beside_published(views: Sequence[View], shown: Board, numbers: Iterable[Published]) -> Sheet:
    """:func:`published`; where every model only stands in, what was measured alone, and why."""
    found, all_stand_in = _published(shown, numbers)
    alone = best(views)
    if not all_stand_in or not alone.lines:
        return found
    return replace(alone, title="Measured, without published numbers", said=f"{found.empty}. Here: {alone.said}")


def likeness(found: Likeness) -> Sheet:
    """Layers of a model down, of the reference across; bold: the most similar one."""
    lines = []
    for layer, row in zip(found.layers, found.cells, strict=True):
        top = max((cell.value for cell in row if cell), default=None)
        entries = [
            Entry(shown_value(cell, found.metric), cell.value, cell.value == top) if cell else NONE for cell in row
        ]
        lines.append((layer_name(layer), tuple(entries)))
    said = f"CKA of each layer (down) with each of {found.reference} (across); bold: the most similar one"
    head = ("layer", *(layer_name(j) for j in found.others))
    return Sheet(f"{found.title}: {found.model}", said, head, tuple(lines), found.note)


def only(view: View, families: Iterable[str]) -> View:
    """``view`` of these models alone, with what stands beside these."""
    kept = frozenset(families)
    curves, reference = (tuple(c for c in some if c.family in kept) for some in (view.curves, view.reference))
    marks = tuple(mark for mark in view.marks if mark.family in kept)
    levels = tuple(level for level in view.levels if level.family in kept)
    if mixed := view.mixed:  # perhaps only those were not measured alike that are left out
        mixed = boards.mixed(run for curve in (*curves, *reference) for cell in curve.cells for run in cell.runs)
    curves, reference = (curves, reference) if curves else (reference, ())
    return replace(view, curves=curves, reference=reference, marks=marks, levels=levels, mixed=mixed)


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


def to_json(sheet: Sheet) -> str:
    """Texts and the numbers behind them, in the units of the table; ``null`` where a cell is empty or a text alone."""
    lines = [{"name": name, "cells": [entry._asdict() for entry in entries]} for name, entries in sheet.lines]
    return json.dumps(
        {"title": sheet.title, "said": sheet.said, "head": sheet.head, "lines": lines, "note": sheet.note}
    )


#: How a sheet is taken away.
DOWNLOADS: tuple[Download[Sheet], ...] = (
    Download("CSV", "csv", "text/csv", to_csv),
    Download("LaTeX", "tex", "application/x-tex", to_latex),
    Download("Markdown", "md", "text/markdown", to_markdown),
)


def _body(sheet: Sheet) -> writers.Body:
    return [(name, [(entry.text, entry.bold) for entry in entries]) for name, entries in sheet.lines]


def _entry(cell: Cell, metric: str, bold: bool) -> Entry:
    where = "" if cell.layer == WHOLE_MODEL else f" ({cell.layer})"
    text = f"{shown_value(cell.estimate, metric)}{'†' * cell.one_class}{where}"
    return Entry(text, cell.estimate.value * unit(metric).factor, bold)


def _apart(a: Cell, b: Cell, tested: Tested | None) -> Tested:
    """First minus second as it was tested; else as of two independent estimates, where their intervals are known."""
    if tested is not None:
        return tested
    first, second = standard_error(a.estimate), standard_error(b.estimate)
    if first is None or second is None:
        return Tested(None, "not paired")
    value, error = a.estimate.value - b.estimate.value, math.hypot(first, second)
    p = math.erfc(abs(value) / error / math.sqrt(2)) if error else float(value == 0)
    return Tested(Difference(value, value - Z * error, value + Z * error, p, error), "not paired")


def _tested(a: Cell, b: Cell, metric: str, tested: Tested, p: float | None) -> tuple[Entry, Entry, Entry]:
    """The difference, its p and what the two were paired on."""
    found = tested.difference
    if tested is UNLIKE:
        return NONE, NONE, Entry(tested.on)
    estimate = Estimate(found.value, found.low, found.high) if found else Estimate(a.estimate.value - b.estimate.value)
    text = f"{'+' * (estimate.value >= 0)}{shown_value(estimate, metric)}".replace("-", "−")
    apart = p is not None and p < ALPHA
    known = NONE if p is None else Entry(shown_p(p), p, apart)
    return Entry(text, estimate.value * unit(metric).factor, apart), known, Entry(tested.on)


def _beside(compared: Comparison) -> tuple[Entry, ...]:
    number, measured = compared.number, compared.measured
    metric = unit(number.metric)
    shown, apart = "–".join(dict.fromkeys(map(metric.text, number.ends))), NONE
    if (by := compared.difference) is not None:
        apart = Entry(metric.text(by, "+").replace("-", "−"), by * metric.factor, not compared.inside)
    return (
        Entry(shown_value(measured, number.metric), measured.value * metric.factor),
        Entry(f"{shown}{'' if number.verified else ' (from memory)'}", number.share * metric.factor),
        apart,
        Entry(number.data),
        Entry(number.method),
    )


def _standing_in(titles: Collection[str]) -> str:
    """Why models have no line beside published numbers."""
    stand, model = ("stands", "model") if len(titles) == 1 else ("stand", "models")
    return (
        f"{', '.join(titles)} only {stand} in for the {model} that others measured (pocket, untrained, or of a study "
        "whose note says what it is not), and a stand-in is not compared with numbers published for another model"
    )


def _floor(view: View) -> tuple[str, str, float] | None:
    """The best of what needs no model: as it is shown, its name, its value. From lowest to highest where models' best
    layers have their own."""
    found = [floor for curve in view.curves if (floor := floor_of(view, curve.chosen))]
    if not found:
        return None
    name, value = max(found, key=lambda named: better(view.metric) * named[1])
    ends = [shown_value(Estimate(end(number for _, number in found)), view.metric) for end in (min, max)]
    return "–".join(dict.fromkeys(ends)), name, value


def _baseline(view: View) -> Entry:
    if (floor := _floor(view)) is None:
        return NONE
    text, name, value = floor
    return Entry(f"{text} ({name})", value * unit(view.metric).factor)


def _above(cell: Cell, view: View) -> bool:
    """Is ``cell`` better than all that needs no model, its whole interval too? A probe of one class never is."""
    if cell.one_class:
        return False
    sign, found = better(view.metric), cell.estimate
    nearest = found.low if sign > 0 else found.high
    floor = floor_of(view, cell)
    return floor is None or sign * ((found.value if nearest is None else nearest) - floor[1]) > 0


def _descriptive(views: Sequence[View]) -> str:
    """Which tasks are left out, as they have no best layer."""
    titles = dict.fromkeys(view.title for view in views if not better(view.metric))
    return f"; left out, as neither higher nor lower is better: {', '.join(titles)}" if titles else ""


def _top(cells: Sequence[Cell], metric: str) -> Cell | None:
    """The best of several models' cells; None of one: nothing was chosen."""
    return max(cells, key=lambda cell: better(metric) * cell.estimate.value) if len(cells) > 1 else None
