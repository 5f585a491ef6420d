"""What runs keep besides their numbers, read on demand: each seed's score of each test item, and pictures."""

from __future__ import annotations

import fnmatch
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from clipstudy import metrics
from clipstudy.claims import Unit
from clipstudy.errors import ClipstudyError
from clipstudy.metrics import Difference
from clipstudy.outcome import Result
from clipstudy.results import evidence, units
from clipstudy.results.evidence import Rows
from clipstudy.results.views import Cell, Curve, View

PNG = b"\x89PNG\r\n\x1a\n"
#: Draws of a paired bootstrap on a page: no visitor waits for more. What lies beyond them is Student's.
DRAWS = 2000
#: Runs whose scores are held, and runs whose pictures' names are.
HELD, NAMED = 1000, 100_000
#: Characters that are read of a text in a picture.
LONGEST = 20_000


class Tested(NamedTuple):
    """First minus second, paired on the same items; None where what they kept is too little for a test."""

    difference: Difference | None
    on: str  #: what the two are paired on, or why there is no test


class Store(Protocol):
    """Where runs keep files."""

    def files(self, run_id: str) -> list[str]: ...

    def artifact(self, run_id: str, name: str) -> bytes: ...


class RunFiles:
    """The files that runs of one store keep. A finished run keeps what it has, so a file is read once. Safe in many
    threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._scores: OrderedDict[tuple[str, str], Rows | None] = OrderedDict()
        self._tested: OrderedDict[tuple[Any, ...], Tested | None] = OrderedDict()
        self._pictures: OrderedDict[str, list[str]] = OrderedDict()
        self._explained: OrderedDict[tuple[str, str], tuple[str, str]] = OrderedDict()

    def scores(self, run: Result, metric: str) -> Rows | None:
        """``metric`` of each seed and test item; None where the run kept none.

        Raises:
            TrackingUnreachable: MLflow does not answer.
        """
        found: Rows | None = self._held(self._scores, (run.run_id, metric), lambda: self._read(run, metric))
        return found

    def tested(self, first: Cell, second: Cell, metric: str) -> Tested | None:
        """``first`` minus ``second``, paired on the same items; None where they did not keep the same ones."""
        runs = tuple(tuple(run.run_id for run in cell.runs) for cell in (first, second))
        return self._held(self._tested, (*runs, metric), lambda: self._test(first, second, metric))

    def pictures(self, run_id: str, patterns: Sequence[str] = ()) -> list[str]:
        """The names of the run's PNG files that a pattern takes; no pattern: all of them."""

        def names() -> list[str]:
            return sorted(name for name in self._store.files(run_id) if name.lower().endswith(".png"))

        found: list[str] = self._held(self._pictures, run_id, names, NAMED)
        return [name for name in found if not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns)]

    def album(self, view: View, patterns: Sequence[str] = ()) -> Iterator[tuple[Curve, int, Result, str]]:
        """The pictures of a task, layer by layer and model by model: whose, the layer, the run that keeps it (of an
        untrained twin one initialisation's), and its name."""
        for layer in view.layers:
            for curve in view.curves:
                for run in [run for cell in curve.cells if cell.layer == layer for run in cell.runs[:1]]:
                    yield from ((curve, layer, run, name) for name in self.pictures(run.run_id, patterns))

    def picture(self, run_id: str, name: str) -> bytes | None:
        """A PNG that the run keeps; None where it keeps no such file, or it is none."""
        if name not in self.pictures(run_id):
            return None
        try:
            content = self._store.artifact(run_id, name)
        except ClipstudyError as error:
            if error.transient:
                raise
            return None
        return content if content.startswith(PNG) else None

    def size(self, run_id: str, name: str) -> tuple[int, int] | None:
        """Width and height of a picture in pixels, as its header says."""
        content = self.picture(run_id, name)
        return (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) if content else None

    def explained(self, run_id: str, name: str) -> tuple[str, str]:
        """What the picture's file says of it: in all, and of each image on it; both empty where it says nothing."""
        found: tuple[str, str] = self._held(self._explained, (run_id, name), lambda: _texts(self.picture(run_id, name)))
        return found

    def _read(self, run: Result, metric: str) -> Rows | None:
        file = evidence.score_file_of(metric)
        if file is None:
            return None
        try:
            found = evidence.read(file, metric, run, self._store.artifact)
        except ClipstudyError as error:
            if error.transient:
                raise
            return None  # removed, broken, or of a kind that keeps none
        return found if found.names else None

    def _pooled(self, cell: Cell, metric: str) -> Rows | None:
        """On the items that all initialisations scored."""
        found = [self.scores(run, metric) for run in cell.runs]
        known = [rows for rows in found if rows is not None]
        if not known or len(known) < len(found):
            return None
        names = _common(known)
        return Rows(names, evidence.pooled([rows.of(names) for rows in known])) if names else None

    def _test(self, first: Cell, second: Cell, metric: str) -> Tested | None:
        file = evidence.score_file_of(metric)
        a, b = self._pooled(first, metric), self._pooled(second, metric)
        if file is None or file.unit is Unit.CHANNELS or a is None or b is None:  # no model's channels are another's
            return None
        names = _common([a, b])
        if not names:
            return None
        if file.unit is Unit.ITEMS:
            one, two = a.of(names), b.of(names)
            (found,) = metrics.paired_difference(one[None], two[None], draws=DRAWS)
            if units.base(metric) == "accuracy":
                apart = abs(one.mean(axis=0) - two.mean(axis=0)) > metrics.TIE
                found = metrics.not_certain(found, len(names), int(apart.sum()))
            return Tested(found, f"{len(names):,} test items")
        if len(names) < 2:
            # Seeds of k-means alone say nothing of how another sample of spans would come out.
            return Tested(None, "one sample: no test")
        gaps = a.of(names).mean(axis=0) - b.of(names).mean(axis=0)
        found = metrics.of_samples(float(gaps.mean()), gaps)
        return Tested(found, f"{len(names)} samples")

    def _held(self, held: OrderedDict[Any, Any], key: Any, make: Callable[[], Any], most: int = HELD) -> Any:
        with self._lock:
            if key in held:
                held.move_to_end(key)
                return held[key]
        made = make()
        with self._lock:
            held[key] = made
            while len(held) > most:
                held.popitem(last=False)
        return made


def seeded(view: View, files: RunFiles) -> View:
    """``view`` with every seed's own value in each of its cells, where the runs kept what it takes."""
    file = evidence.score_file_of(view.metric)
    if file is None or not file.seeded:
        return view

    def cell(one: Cell) -> Cell:
        found = [files.scores(run, view.metric) for run in one.runs]
        return replace(one, points=tuple(float(v) for rows in found if rows for v in rows.scores.mean(axis=1)))

    def curve(one: Curve) -> Curve:
        return replace(one, cells=tuple(map(cell, one.cells)))

    return replace(view, curves=tuple(map(curve, view.curves)))


# -- inside ------------------------------------------------------------------------------------------------------


def _texts(content: bytes | None) -> tuple[str, str]:
    """The uncompressed texts Title and Description of a PNG, as ``tasks/parts/sheet.py`` writes them."""
    found = {b"Title": "", b"Description": ""}
    at = len(PNG)
    while content and at + 8 <= len(content):
        size, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        if kind == b"IDAT":
            break
        key, _, rest = content[at + 8 : at + 8 + size].partition(b"\0")
        # Two bytes say that nothing is compressed; then a language and the key in it, both empty.
        if kind == b"iTXt" and key in found and rest.startswith(bytes(4)):
            found[key] = rest[4:].decode(errors="replace")[:LONGEST]
        at += 12 + size
    return found[b"Title"], found[b"Description"]


def _common(rows: Sequence[Rows]) -> tuple[str, ...]:
    """The items that all scored, in the first one's order."""
    shared = set.intersection(*(set(one.names) for one in rows))
    return tuple(name for name in rows[0].names if name in shared)
