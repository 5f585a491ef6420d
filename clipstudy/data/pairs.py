"""Pairs of texts with a yes or a no: what the readers of BoolQ and WiC give, and where early stopping gets its rows.

The labels of both data sets' test splits are hidden, so results are reported on the released dev split. Whatever is
chosen while fitting is chosen on rows cut from train, never on those.
"""

from __future__ import annotations

import json
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipstudy.data import files, fingerprint, table, text_lines, within
from clipstudy.data.labelled import stratified
from clipstudy.errors import DataError, did_you_mean
from clipstudy.spec import DatasetSpec

log = logging.getLogger(__name__)

#: How files spell the two labels (1 and 0 are True and False to Python), and what they are called here.
_SPELLINGS = {True: "True", False: "False", "True": "True", "False": "False", "T": "True", "F": "False"}


@dataclass(frozen=True)
class Pair:
    """Two texts, as words, and whether the answer is yes."""

    id: str  #: ``dev/17``: row 17 (from 0) of the released dev split, which is SuperGLUE's ``idx`` too
    first: tuple[str, ...]
    second: tuple[str, ...]
    label: str  #: ``True`` or ``False``
    word: str = ""  #: the lemma that both texts use, where the pair is about a word
    marked: tuple[int, int] | None = None  #: which word of either text is that one, from 0
    doubtful: bool = False  #: a marked word cannot be a form of ``word``


@dataclass(frozen=True)
class Split:
    """One split, as released."""

    pairs: tuple[Pair, ...]
    fingerprint: str
    source: str


@dataclass(frozen=True)
class Pairs:
    """What to fit on, what to choose on, what to report on. No row is in two of them."""

    train: tuple[Pair, ...]
    development: tuple[Pair, ...]  #: cut from the released train split: early stopping looks here
    reported: tuple[Pair, ...]  #: the released dev split
    fingerprint: str
    source: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The label names, sorted: the order of class numbers."""
        return tuple(sorted({pair.label for pair in self.train}))

    @property
    def class_number(self) -> dict[str, int]:
        """Each label's number among :attr:`classes`."""
        return {label: number for number, label in enumerate(self.classes)}

    @property
    def doubtful(self) -> int:
        """Pairs that mark a word which cannot be a form of theirs."""
        return sum(pair.doubtful for part in (self.train, self.development, self.reported) for pair in part)


@dataclass(frozen=True)
class Row:
    """One row of a file or table, before it is made a pair."""

    number: int  #: from 0
    where: str  #: for messages: ``path:line``, or the table's split and row
    cells: Mapping[str, Any]

    def refused(self, what: str) -> DataError:
        return DataError(f"{self.where}: {what}. Fix or remove the row, or name another split in `splits`.")

    def text(self, key: str) -> str:
        """A text with a word in it. Raises DataError."""
        value = self.cells.get(key)
        if not isinstance(value, str) or not value.split():
            raise self.refused(f"{key} is {value!r}, expected a text" if key in self.cells else f"no {key}")
        return value

    def whole(self, key: str) -> int:
        """A whole number from 0. Raises DataError."""
        value = self.cells.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            found = f"{key} is {value!r}, expected a whole number from 0" if key in self.cells else f"no {key}"
            raise self.refused(found)
        return value

    def label(self, *keys: str) -> str:
        """The label, under the first of ``keys`` that the row has. Raises DataError."""
        key = next((key for key in keys if key in self.cells), None)
        if key is None:
            raise self.refused(f"no {' or '.join(keys)}: the labels of test splits are not public")
        value = self.cells[key]
        known = isinstance(value, bool | int | str) and value in _SPELLINGS
        if not known:
            raise self.refused(f"{key} is {value!r}, expected true or false (or the text True, False, T or F)")
        return _SPELLINGS[value]


def together(spec: DatasetSpec, train: Split, reported: Split, group: Callable[[Pair], str]) -> Pairs:
    """Both released splits, thinned to ``spec.limit``, and the development part cut from train.

    Raises:
        DataError: the two are the same file; train has one label only; the share leaves either part without one of
            its labels, so that nothing can be fitted or chosen.
    """
    where = f"[datasets.{spec.name}]"
    if train.fingerprint == reported.fingerprint:
        raise DataError(
            f"{where} splits: train and dev are the same rows ({train.source}), so every score would be of what was "
            "learnt by heart. Name two files in `splits`."
        )
    thinned = []
    for split in (train, reported):
        kept = stratified([pair.label for pair in split.pairs], spec.limit, spec.limit_seed)
        thinned.append(tuple(split.pairs[i] for i in kept))
    fitted, dev = thinned
    if len({pair.label for pair in fitted}) < 2:
        raise DataError(f'{where} {train.source} has one label only ("{fitted[0].label}"). Fix the file.')
    rest, development = cut(fitted, spec.development, spec.development_seed, group)
    if any(len({pair.label for pair in part}) < 2 for part in (rest, development)):
        raise DataError(
            f"{where} development = {spec.development}: of the {len(fitted)} rows of train that leaves {len(rest)} to "
            f"fit on and {len(development)} for early stopping (rows of one passage, or one word, stay together), and "
            f"both need both labels. Set it nearer to the middle{', raise `limit`' if spec.limit else ''} or add rows "
            "to train."
        )
    _tell_repeated(where, [*rest, *development], dev)
    print_ = fingerprint(split.fingerprint.encode() for split in (train, reported))
    return Pairs(rest, development, dev, print_, f"{train.source}, {reported.source}")


def _tell_repeated(where: str, fitted: Sequence[Pair], reported: Sequence[Pair]) -> None:
    """Warn of pairs that are in train too: what a model scores on them may be memory."""
    known = {(pair.first, pair.second, pair.marked) for pair in fitted}
    if again := [pair for pair in reported if (pair.first, pair.second, pair.marked) in known]:
        log.warning(
            '%s %d of the %d pairs of dev are in train, too ("%s"), so a model may know them by heart. To measure what '
            "it has learnt, remove them from either split.",
            where, len(again), len(reported), again[0].id,
        )  # fmt: skip


def cut(
    pairs: Sequence[Pair], share: float, seed: int, group: Callable[[Pair], str]
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """The rest, and a part with ``share`` of each label: both in the order of ``pairs``, no group in both.

    Groups are gone through in an order drawn with ``seed``; one is taken whole where no label of it goes over its
    share. So a label may fall short by the last group that did not fit.
    """
    room = Counter({label: round(share * n) for label, n in Counter(pair.label for pair in pairs).items()})
    groups: dict[str, list[int]] = defaultdict(list)
    for row, pair in enumerate(pairs):
        groups[group(pair)].append(row)
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    taken: set[int] = set()
    for name in names:
        wanted = Counter(pairs[row].label for row in groups[name])
        if wanted <= room:
            room -= wanted
            taken.update(groups[name])
    parts = ([p for row, p in enumerate(pairs) if (row in taken) is inside] for inside in (False, True))
    rest, part = map(tuple, parts)
    return rest, part


def split_of(spec: DatasetSpec, split: str, source: str, pairs: Sequence[Pair], print_: str) -> Split:
    """Raises DataError where there is no row."""
    if not pairs:
        raise DataError(f'[datasets.{spec.name}] split "{split}" of {source} is empty. Fix the file or `splits`.')
    return Split(tuple(pairs), print_, source)


def split_file(spec: DatasetSpec, split: str, layouts: Sequence[str]) -> Path:
    """The one file of a split: what ``splits`` calls it, or that in one of ``layouts`` (``{0}`` is its name).

    Raises:
        DataError: there is none, or more than one; ``path`` is a file, which cannot hold two splits.
    """
    folder, where = files(spec), f"[datasets.{spec.name}]"
    if folder.is_file():
        raise DataError(f"{where} path: {folder} is one file, but each split has its own. Name their folder.")
    name = spec.splits.get(split, split)
    wanted = [layout.format(name) for layout in layouts]
    found = [candidate for candidate in (name, *wanted) if within(spec, folder, candidate).is_file()]
    if len(found) > 1:
        raise DataError(f'{where} has several files for split "{split}": {", ".join(found)}. Name one in `splits`.')
    if not found:
        endings = tuple(layout.rpartition("}")[2] for layout in layouts)
        known = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        there = [path for path in known if path.endswith(endings)]
        fix = f'{did_you_mean(wanted[-1], there)} Name one: splits = {{ {split} = "…" }}'
        if not there:
            fix = f"There is: {', '.join(known[:12]) or 'nothing'}. Write {wanted[-1]}, with a JSON object a line."
        raise DataError(f'{where} has no split "{split}": {folder} has no {" or ".join(wanted)}. {fix}')
    return folder / found[0]


def json_rows(path: Path) -> Iterator[Row]:
    """The rows of a file with one JSON object a line. Raises DataError, naming file and line."""
    lines = [(number, line) for number, line in enumerate(text_lines(path), start=1) if line.strip()]
    for row, (number, line) in enumerate(lines):
        where = f"{path}:{number}"
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error}). Fix the line.") from None
        if not isinstance(cells, dict):
            raise DataError(f"{where}: found {line[:40]}, expected an object with named values. Fix the line.")
        yield Row(row, where, cells)


def table_rows(spec: DatasetSpec, split: str, loaded: table.Table) -> Iterator[Row]:
    """The rows of a Hub table."""
    where = f'[datasets.{spec.name}] {loaded.source}, split "{split}"'
    for row, cells in enumerate(zip(*loaded.columns.values(), strict=True)):
        yield Row(row, f"{where}, row {row} (from 0)", dict(zip(loaded.columns, cells, strict=True)))
