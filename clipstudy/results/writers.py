"""A view's table as CSV, JSON, Markdown, LaTeX, and as the grid that a page shows. Pure."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Generic, TypeVar

from clipstudy.outcome import Estimate
from clipstudy.results.units import INTERVAL, ONE_CLASS, axis_title, half_width, layer_name, ranges, shown_value
from clipstudy.results.views import Curve, View, is_near

#: Lines of a table: a name, and a cell a column with whether it is the best.
Body = list[tuple[str, list[tuple[str, bool]]]]
#: How is said that models were measured with other settings.
UNLIKE = "Not measured alike, so not to be compared"
#: A number of others, beside those of a layer.
PUBLISHED = "published"
#: What is written: a view or a sheet.
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One number as a line of CSV or JSON: raw, not scaled to the axis."""

    study: str  #: empty: what it says is of several, or of no model
    task: str
    metric: str
    what: str  #: layer, or what else stands beside the layers: zero-shot, majority class
    family: str  #: empty: it is of no model
    model: str
    layer: int | None
    label: str
    depth: float | None
    value: float
    low: float | None
    high: float | None
    half_width: float | None
    n: int | None
    initialisations: int
    one_class: bool
    best: bool
    note: str = ""  #: what the study says of itself
    mixed: str = ""  #: in which settings the task's models were not measured alike


@dataclass(frozen=True)
class Download(Generic[T]):
    """A way to take a table away."""

    name: str
    ending: str  #: of the file, without a dot
    mime: str
    write: Callable[[T], str]


def by_ending(ways: Iterable[Download[T]], ending: str) -> Download[T] | None:
    """The one of ``ways`` whose files end so."""
    return next((way for way in ways if way.ending == ending), None)


def rows(shown: View) -> list[Row]:
    """All that :func:`grid` shows: layers first, then what needs no layer, then what needs no model."""

    def row(what: str, estimate: Estimate, curve: Curve | None = None, **more: Any) -> Row:
        empty = {"layer": None, "label": "", "depth": None, "n": None, "initialisations": 0, "one_class": False}
        return Row(
            study=curve.study if curve else "",
            task=shown.task or shown.title,
            metric=shown.metric,
            what=what,
            family=curve.family if curve else "",
            model=curve.title if curve else "",
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            half_width=half_width(estimate),
            note=shown.note,
            mixed=shown.mixed,
            **{"best": False, **empty, **more},
        )

    found = [
        row(
            "layer",
            cell.estimate,
            curve,
            layer=cell.layer,
            label=cell.label,
            depth=cell.depth,
            n=cell.n,
            initialisations=cell.inits,
            one_class=cell.one_class,
            best=cell.layer == curve.best,
        )
        for curve in shown.curves
        for cell in curve.cells
    ]
    curves = {(curve.study, curve.family): curve for curve in shown.curves}
    found += [row(level.name, level.estimate, curves.get((level.study, level.family))) for level in shown.levels]
    found += [
        row(name, Estimate(value), curve, layer=cell.layer, label=cell.label, depth=cell.depth)
        for curve in shown.curves
        for cell in curve.cells
        for name, value in cell.baselines
    ]
    found += [
        row(PUBLISHED, Estimate(mark.value), curve, layer=mark.layer, label=mark.source)
        for mark in shown.marks
        for curve in shown.curves
        if curve.family == mark.family
    ]
    return found + [row(name, Estimate(value)) for name, value in shown.baselines]


def to_csv(*shown: View) -> str:
    """All rows of several views, under one header."""
    text = io.StringIO()
    names = list(Row.__dataclass_fields__)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in chain.from_iterable(map(rows, shown)):
        values = asdict(row)
        writer.writerow({k: literal(v) if isinstance(v, str) else v for k, v in values.items()})
    return text.getvalue()


def file_name(*parts: str) -> str:
    """``parts`` as the name of a file without its ending, in letters that any file system and any header takes."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "-" for c in "-".join(filter(None, parts)))[
        :120
    ]


def literal(text: str) -> str:
    """``text`` as a cell of CSV. A spreadsheet runs what begins like a formula; a leading apostrophe makes it text."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def to_json(shown: View) -> str:
    return json.dumps([asdict(row) for row in rows(shown)], indent=1, allow_nan=False)


def to_markdown(shown: View) -> str:
    """Layers down, models across; in bold each model's best layer, and what cannot be told from it."""
    header, body = grid(shown)
    return markdown(shown.title, said(shown), ["layer", *header], body, shown.note)


def markdown(title: str, said: str, head: Sequence[str], body: Body, note: str = "") -> str:
    """A table under its title; ``said`` stands beside it."""

    def escaped(text: str) -> str:
        return re.sub(r"([\\`*_\[\]|<>])", r"\\\1", " ".join(text.split()))

    lines = [[escaped(name) for name in head]]
    lines += [[escaped(name), *(f"**{text}**" if best else text for text, best in cells)] for name, cells in body]
    table = ["| " + " | ".join(line) + " |" for line in lines]
    table.insert(1, "|" + " --- |" * len(lines[0]))
    noted = [f"*{escaped(note)}*", ""] if note else []
    return "\n".join([f"**{escaped(title)}**, {said}", "", *noted, *table, ""])


def to_latex(shown: View) -> str:
    """A booktabs table of the same."""
    header, body = grid(shown)
    return latex(shown.title, f"{said(shown)}.", ["layer", *header], body, shown.note)


def latex(title: str, said: str, head: Sequence[str], body: Body, note: str = "") -> str:
    """A booktabs table; ``said`` goes on after its title in the caption."""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(f'{title}, {said} {note}')}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(_tex(name) for name in head) + r" \\",
        r"\midrule",
    ]
    for name, cells in body:
        texts = [_tex(text) for text, _ in cells]
        bold = [rf"\textbf{{{text}}}" if best else text for text, (_, best) in zip(texts, cells, strict=True)]
        lines.append(" & ".join([_tex(name), *bold]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def grid(shown: View) -> tuple[list[str], Body]:
    """The table that a person reads: model titles, and per layer (name, one (text, is it the model's best or near that)
    a model); last what needs no layer, what needs no model, and the number of test items."""
    found = [{cell.layer: cell for cell in curve.cells} for curve in shown.curves]
    body = []
    for layer in shown.layers:
        cells = []
        for curve, at in zip(shown.curves, found, strict=True):
            cell = at.get(layer)
            flag = "†" if cell and cell.one_class else ""
            text = "—" if cell is None else shown_value(cell.estimate, shown.metric) + flag
            near = cell is not None and curve.best is not None and is_near(curve.chosen, cell, shown.metric)
            cells.append((text, near))
        body.append((layer_name(layer, shown.modality), cells))
    for layer in sorted({mark.layer for mark in shown.marks}):
        marks = {
            mark.family: shown_value(Estimate(mark.value), shown.metric) for mark in shown.marks if mark.layer == layer
        }
        cells = [(marks.get(curve.family, "—"), False) for curve in shown.curves]
        body.append((f"{PUBLISHED}, {layer_name(layer, shown.modality)}", cells))
    for name in dict.fromkeys(level.name for level in shown.levels):
        levels = {
            (lv.study, lv.family): shown_value(lv.estimate, shown.metric) for lv in shown.levels if lv.name == name
        }
        body.append((name, [(levels.get((curve.study, curve.family), "—"), False) for curve in shown.curves]))
    for name in dict.fromkeys(name for curve in shown.curves for cell in curve.cells for name, _ in cell.baselines):
        own = [[v for cell in curve.cells for of, v in cell.baselines if of == name] for curve in shown.curves]
        body.append((name, [(_from_to(values, shown.metric), False) for values in own]))
    for name, value in shown.baselines:
        body.append((name, [(shown_value(Estimate(value), shown.metric), False) for _ in shown.curves]))
    counts = [sorted({cell.n for cell in curve.cells if cell.n is not None}) for curve in shown.curves]
    if any(counts):
        texts = [f"{c[0]:,}" + (f"–{c[-1]:,}" if len(c) > 1 else "") if c else "—" for c in counts]
        body.append(("test items", [(text, False) for text in texts]))
    return [curve.title for curve in shown.curves], body


def _from_to(values: Sequence[float], metric: str) -> str:
    ends = [shown_value(Estimate(end(values)), metric) for end in (min, max)] if values else ["—"]
    return "–".join(dict.fromkeys(ends))


def caption(shown: View) -> str:
    """Under a chart: what is not there yet, what is compared and what not, where its marks are from."""
    missing = "; ".join(f"{curve.title} {ranges(curve.missing)}" for curve in shown.curves if curve.missing)
    sources = "; ".join(dict.fromkeys(mark.source for mark in shown.marks))
    signs = " ".join(dict.fromkeys("◇" if mark.from_memory else "◆" for mark in shown.marks))
    parts = [
        f"No result yet: {missing}." * bool(missing),
        _compared(shown.reference),
        shown.caption,
        f"{UNLIKE}: {shown.mixed}." * bool(shown.mixed),
        f"{signs} {sources}." * bool(sources),
    ]
    return " ".join(filter(None, parts))


def _compared(reference: Sequence[Curve]) -> str:
    named = " and ".join(curve.title for curve in reference)
    return f"Each is compared with {named}, which is left out: any model's similarity to itself is 1." if named else ""


def spoken(shown: View) -> str:
    """A chart to those who do not see it."""
    return f"{shown.title}: {axis_title(shown.metric)} by layer. The table below holds the same numbers."


def over(shown: View) -> str:
    """Over the table of a chart."""
    return f"{shown.title}, {axis_title(shown.metric)}{_signs(shown)}"


def said(shown: View) -> str:
    """What the numbers of :func:`grid` are, and what is to be known of them where no caption says it."""
    unlike = f"; {UNLIKE[0].lower()}{UNLIKE[1:]}: {shown.mixed}" * bool(shown.mixed)
    return f"{axis_title(shown.metric)}, mean {INTERVAL}{_signs(shown)}{unlike}"


def _signs(shown: View) -> str:
    """What bold and † mean in :func:`grid`, to go on a sentence; empty where there is neither."""
    text = ""
    if any(curve.best is not None for curve in shown.curves):
        text += "; bold: the model's best layer and what the intervals cannot tell from it"
    if any(cell.one_class for curve in shown.curves for cell in curve.cells):
        text += f"; †: {ONE_CLASS}"
    return text


#: How a view is taken away.
DOWNLOADS: tuple[Download[View], ...] = (
    Download("CSV", "csv", "text/csv", to_csv),
    Download("LaTeX", "tex", "application/x-tex", to_latex),
    Download("Markdown", "md", "text/markdown", to_markdown),
    Download("JSON", "json", "application/json", to_json),
)


def _tex(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "†": r"$\dagger$",
        "‡": r"$\ddagger$",
        "−": "$-$",
        "±": r"$\pm$",
        "–": "--",
        "—": "---",
    }
    return "".join(special.get(c, c) for c in " ".join(text.split()))
