"""Numbers that others published, beside which the study's own can be drawn. Pure, but for reading ``published.toml``.

Each says how it is known and how far it compares, so that nobody takes a number of other rows, or of another way of
measuring, for the one that a rerun should give.
"""

from __future__ import annotations

import tomllib
import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clipstudy.errors import DataError, did_you_mean
from clipstudy.spec import WHOLE_MODEL
from clipstudy.wording import counted

#: The numbers that come with the package.
SHIPPED = Path(__file__).with_suffix(".toml")

Unit = Literal["percent", "share"]
Read = Literal["source", "figure", "memory"]
#: What turns a value into a share, and how far a rerun may land where nothing better is known.
_SHARE = {"percent": 0.01, "share": 1.0}
TOLERANCE = {"percent": 0.02, "share": 0.05}

SameData = Literal["same", "split", "unknown"]
SameMethod = Literal["same", "near", "other", "unknown", "none"]


@dataclass(frozen=True)
class Published:
    """One number. What the words of ``read``, ``data`` and ``method`` mean stands at the top of ``published.toml``."""

    paper: str  #: as cited
    model: str  #: as the paper calls it
    task: str  #: as ``tasks.toml`` calls it
    metric: str
    unit: Unit
    value: float  #: in ``unit``
    read: Read
    data: SameData
    method: SameMethod
    layer: int = WHOLE_MODEL  #: k: block k; WHOLE_MODEL: a fine-tuned model, or no model of layers
    where: str = ""  #: the paper's table; empty where that is not known
    role: str = ""  #: the part of the study that it is a number of; empty: none
    split: str = ""  #: empty where the paper does not say
    spread: float | None = None  #: standard deviation over the paper's own runs, in ``unit``
    upper: float | None = None  #: the upper end, where a range was published
    note: str = ""

    @property
    def share(self) -> float:
        """The value from 0 to 1, as the study's own metrics are."""
        return self.value * _SHARE[self.unit]

    @property
    def ends(self) -> tuple[float, float]:
        """From where to where it was published, as shares: twice the same, where it is one number."""
        return self.share, self.share if self.upper is None else self.upper * _SHARE[self.unit]

    @property
    def tolerance(self) -> float:
        """How far, as a share, a rerun may land: two standard deviations of the paper's own runs where they are known,
        else two points of accuracy (the course report's numbers fit means of several runs) or 0.05 of NMI."""
        return TOLERANCE[self.unit] if self.spread is None else 2 * self.spread * _SHARE[self.unit]

    @property
    def place(self) -> str:
        """As cited, with the table where that is known."""
        return f"{self.paper}, {self.where}" if self.where else self.paper

    @property
    def comparable(self) -> bool:
        """Are these the study's rows, and is its way of measuring theirs or near it?"""
        return self.data == "same" and self.method in ("same", "near")

    @property
    def verified(self) -> bool:
        """False: from memory. Show it, but hold no result to it."""
        return self.read != "memory"


#: Keys of a row whose value is a text, and those whose value is one of few words.
_TEXTS = ("paper", "model", "metric", "where", "role", "split", "note")
_WORDS = {"unit": Unit, "read": Read, "data": SameData, "method": SameMethod}
_NUMBERS = ("values", "spread", "upper")
_NEEDED = ("paper", "model", "metric", *_WORDS, "values")
_KEYS = (*_TEXTS, *_WORDS, *_NUMBERS, "layers")

_TOP = {"papers", "tables"}
_MOST = {"percent": 100, "share": 1}


def load(path: Path = SHIPPED) -> tuple[Published, ...]:
    """All numbers of a file, in its order.

    Raises:
        DataError: with every problem found, each naming table and row, what was found, and what exists.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}. Check the file.") from None
    return parse(text, path)


def parse(text: str, path: Path) -> tuple[Published, ...]:
    """As :func:`load`, from text."""
    try:
        file = tomllib.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not TOML: {error}. Fix that line.") from None
    problems = [f"[{key}]: unknown table. {did_you_mean(key, ('papers', 'tables'))}" for key in file.keys() - _TOP]
    papers = file.get("papers", {})
    if not isinstance(papers, dict) or not all(isinstance(cited, str) for cited in papers.values()):
        problems.append("[papers]: expected names and how each is cited")
        papers = {}
    found: list[Published] = []
    for where, row in _rows(file.get("tables", []), problems):
        wrong = list(_problems(row, papers))
        problems += [f"{where} {problem}" for problem in wrong]
        if not wrong:
            found += _numbers(row, papers)
    same = Counter((n.paper, n.where, n.model, n.split, n.metric, n.task, n.layer) for n in found)
    problems += [f"{', '.join(map(str, key))}: stands there {n} times" for key, n in same.items() if n > 1]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise DataError(f"{path}: {counted(len(problems), 'problem')}\n{listed}\nFix the file.")
    return tuple(found)


def curves(numbers: Iterable[Published]) -> tuple[tuple[Published, ...], ...]:
    """Numbers of one model, task and table together, in their order: one, or one for each layer."""
    found: dict[tuple[str, ...], list[Published]] = {}
    for n in numbers:
        found.setdefault((n.paper, n.where, n.model, n.split, n.metric, n.task), []).append(n)
    return tuple(map(tuple, found.values()))


def _rows(tables: Any, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its table's keys, and what to call it in a message."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append("[[tables]]: expected a list of tables")
        return
    for at, table in enumerate(tables, start=1):
        rows = table.get("rows")
        if not rows or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            problems.append(f"[[tables]] {at}: expected one or more [[tables.rows]]")
            continue
        shared = {key: value for key, value in table.items() if key != "rows"}
        for row in rows:
            yield f'[[tables]] {at}, "{row.get("model", "")}"', shared | row


def _problems(row: Mapping[str, Any], papers: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{key}: unknown key. {did_you_mean(key, _KEYS)}" for key in row if key not in _KEYS)
    yield from (f"{key}: missing. Every row or its table needs one" for key in _NEEDED if key not in row)
    for key in _TEXTS:
        if not isinstance(row.get(key, ""), str):
            yield f"{key}: found {row[key]!r}, expected a text"
    for key, words in _WORDS.items():
        if key in row and row[key] not in typing.get_args(words):
            yield f'{key}: found "{row[key]}". {did_you_mean(str(row[key]), typing.get_args(words))}'
    if isinstance(row.get("paper"), str) and row["paper"] not in papers:
        yield f'paper: found "{row["paper"]}". {did_you_mean(row["paper"], papers)}'
    layers = row.get("layers")
    if layers is not None and not _layers(layers):
        yield f"layers: found {layers!r}, expected a list of different whole numbers from 0"
        return
    for key in _NUMBERS:
        yield from _number_problems(key, row)


def _layers(found: Any) -> bool:
    whole = isinstance(found, list) and all(type(layer) is int and layer >= 0 for layer in found)
    return whole and 0 < len(found) == len(set(found))


def _number_problems(key: str, row: Mapping[str, Any]) -> Iterator[str]:
    cells, layers, most = row.get(key, {}), row.get("layers"), _MOST.get(str(row.get("unit")), 100)
    if not isinstance(cells, dict) or (key == "values" and key in row and not cells):
        yield f"{key}: found {cells!r}, expected a number for each task"
        return
    values = row.get("values")
    tasks = values if isinstance(values, dict) else {}
    for task, found in cells.items():
        if task not in tasks:
            yield f"{key}.{task}: no such task among its values. {did_you_mean(task, tasks)}"
        several = found if isinstance(found, list) else [found]
        if isinstance(found, list) != (layers is not None) or (layers is not None and len(several) != len(layers)):
            want = f"{len(layers)} numbers, one for each of its layers" if isinstance(layers, list) else "one number"
            yield f"{key}.{task}: found {found!r}, expected {want}"
        elif not all(type(number) in (int, float) and 0 <= number <= most for number in several):
            yield f"{key}.{task}: found {found!r}, expected numbers from 0 to {most}"


def _numbers(row: Mapping[str, Any], papers: Mapping[str, str]) -> Iterator[Published]:
    told = {key: row[key] for key in (*_TEXTS, *_WORDS) if key in row} | {"paper": papers[row["paper"]]}
    for task, found in row["values"].items():
        layers = row.get("layers", [WHOLE_MODEL])
        beside = {key: _each(row.get(key, {}).get(task), layers) for key in ("spread", "upper")}
        for at, (layer, value) in enumerate(zip(layers, _each(found, layers), strict=True)):
            more = {key: values[at] for key, values in beside.items()}
            yield Published(task=task, layer=layer, value=float(value), **told, **more)


def _each(found: Any, layers: list[int]) -> list[Any]:
    return found if isinstance(found, list) else [found] * len(layers)
