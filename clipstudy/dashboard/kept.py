"""What runs keep besides their numbers, read on demand: each seed's score of each test item, and pictures.

A kind's files are read by their columns, so that a kind that keeps the same columns needs nothing here:
``predictions.parquet`` with ``label`` and ``ARM/seed_K`` (what the arm's model of seed K said of each item; the
headline arm first) or with ``sample``, ``label`` and ``cluster_K``; ``images.parquet`` with ``METRIC/seed_K`` (a score
an image).
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from clipstudy import metrics
from clipstudy.dashboard.tables import Cell, Curve, View
from clipstudy.errors import ClipstudyError
from clipstudy.metrics import Difference
from clipstudy.outcome import Result

if TYPE_CHECKING:
    from pyarrow import Table

PREDICTIONS, IMAGES = "predictions.parquet", "images.parquet"
PNG = b"\x89PNG\r\n\x1a\n"
#: Draws of a paired bootstrap on a page: no p below 0.001, and no visitor waits for more.
DRAWS = 2000
#: Runs whose scores are held.
HELD = 1000


class Scores(NamedTuple):
    """What one run, or several initialisations of one model, scored."""

    items: str  #: which test items (or samples), in which order; two equal ones may be paired
    seeds: NDArray[np.float64]  #: ``[S]``: each seed's score of all items (of clusterings: each sample and seed)
    each: NDArray[np.float32] | None = None  #: ``[S, N]``: of each item; None: the score is of all items together
    samples: int = 1  #: of clusterings: how many samples of spans


class Tested(NamedTuple):
    """First minus second, paired on the same items; None where what they kept is too little for a test."""

    difference: Difference | None
    on: str  #: what the two are paired on, or why there is no test


class Store(Protocol):
    """Where runs keep files."""

    def files(self, run_id: str) -> list[str]: ...

    def artifact(self, run_id: str, name: str) -> bytes: ...


class Kept:
    """What runs of one store keep. A finished run keeps what it has, so a file is read once. Safe in many threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._scores: OrderedDict[tuple[str, str], Scores | None] = OrderedDict()
        self._tested: OrderedDict[tuple[Any, ...], Tested | None] = OrderedDict()
        self._pictures: OrderedDict[str, list[str]] = OrderedDict()

    def scores(self, run: Result, metric: str) -> Scores | None:
        """``metric`` of each seed and test item; None where the run kept none.

        Raises:
            TrackingUnreachable: MLflow does not answer.
        """
        return self._held(self._scores, (run.run_id, metric), lambda: self._read(run, metric))

    def tested(self, first: Cell, second: Cell, metric: str) -> Tested | None:
        """``first`` minus ``second``, paired on the same items; None where they did not keep the same ones."""
        runs = tuple(tuple(run.run_id for run in cell.runs) for cell in (first, second))
        return self._held(self._tested, (*runs, metric), lambda: self._test(first, second, metric))

    def picture(self, run: Result, name: str) -> bytes | None:
        """A PNG that the run keeps; None where it keeps no such file, or it is none."""
        try:
            content = self._store.artifact(run.run_id, name)
        except ClipstudyError as error:
            if error.transient:
                raise
            return None
        return content if content.startswith(PNG) else None

    def pictures(self, run: Result, patterns: Sequence[str] = ()) -> list[str]:
        """The names of its PNG files that a pattern takes; no pattern: all of them."""

        def names() -> list[str]:
            return sorted(name for name in self._store.files(run.run_id) if name.lower().endswith(".png"))

        found: list[str] = self._held(self._pictures, run.run_id, names)
        return [name for name in found if not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns)]

    def _read(self, run: Result, metric: str) -> Scores | None:
        last = metric.rpartition("/")[2]
        found = _FILES.get(last)
        if found is None:
            return None
        name, read = found
        import pyarrow.parquet as pq

        try:
            content = self._store.artifact(run.run_id, name)
        except ClipstudyError as error:
            if error.transient:
                raise
            return None  # removed, or of a kind that keeps none
        return read(pq.read_table(io.BytesIO(content)), run, metric)

    def _pooled(self, cell: Cell, metric: str) -> Scores | None:
        """Several initialisations are so many seeds more, where all scored the same items."""
        found = [self.scores(run, metric) for run in cell.runs]
        known = [scores for scores in found if scores is not None]
        if not known or len(known) < len(found) or len({scores.items for scores in known}) > 1:
            return None
        each = [scores.each for scores in known if scores.each is not None]
        seeds = np.concatenate([scores.seeds for scores in known])
        whole = np.concatenate(each) if len(each) == len(known) else None
        return Scores(known[0].items, seeds, whole, known[0].samples)

    def _test(self, first: Cell, second: Cell, metric: str) -> Tested | None:
        a, b = self._pooled(first, metric), self._pooled(second, metric)
        if a is None or b is None or a.items != b.items:
            return None
        if a.each is not None and b.each is not None:
            (found,) = metrics.paired_difference(a.each[None], b.each[None], draws=DRAWS)
            return Tested(found, f"{a.each.shape[1]:,} test items")
        if a.seeds.shape != b.seeds.shape:
            return None
        if a.samples < 2:
            # Seeds of k-means alone say nothing of how another sample of spans would come out.
            return Tested(None, "one sample: no test")
        apart = a.seeds - b.seeds
        found = metrics.difference(float(apart.mean()), apart, len(apart) - 1, few=True)
        return Tested(found, f"{len(apart)} samples × seeds")

    def _held(self, held: OrderedDict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key in held:
                held.move_to_end(key)
                return held[key]
        made = make()
        with self._lock:
            held[key] = made
            while len(held) > HELD:
                held.popitem(last=False)
        return made


def seeded(view: View, kept: Kept) -> View:
    """``view`` with every seed's own value in each of its cells, where the runs kept what it takes."""

    def cell(one: Cell) -> Cell:
        found = [kept.scores(run, view.metric) for run in one.runs]
        return replace(one, points=tuple(float(v) for scores in found if scores for v in scores.seeds))

    def curve(one: Curve) -> Curve:
        return replace(one, cells=tuple(map(cell, one.cells)))

    return replace(view, curves=tuple(map(curve, view.curves)))


# -- inside ------------------------------------------------------------------------------------------------------


def _correct(table: Table, run: Result, metric: str) -> Scores | None:
    """Was each seed's model of the metric's arm right?"""
    import pyarrow.compute as pc

    arms = list(dict.fromkeys(name.rpartition("/")[0] for name in table.column_names if "/seed_" in name))
    arm = _arm(arms, metric.rpartition("/")[0])
    if arm is None:
        return None
    label = table["label"].cast("string")
    seeds = [name for name in table.column_names if name.rpartition("/")[0] == arm and "/seed_" in name]
    each = np.stack([pc.equal(table[name].cast("string"), label).to_numpy() for name in seeds])
    names = table["id"].cast("string").to_pylist() if "id" in table.column_names else []
    return Scores(_which(run, [*names, *label.to_pylist()]), each.mean(axis=1), each.astype(np.float32))


def _arm(arms: Sequence[str], prefix: str) -> str | None:
    """The arm whose metrics have ``prefix``: of a column's parts those that differ from the headline's."""
    for arm in arms:
        own, headline = arm.split("/"), arms[0].split("/")
        apart = [part for part, other in zip_longest(own, headline) if part and part != other]
        if "/".join(apart) == prefix:
            return arm
    return None


def _agreement(table: Table, run: Result, metric: str) -> Scores | None:
    """The NMI of each sample of spans and seed of k-means; only the headline arm's clusters are kept."""
    columns = [name for name in table.column_names if name.startswith("cluster_")]
    if metric != "nmi" or not columns or "sample" not in table.column_names:
        return None
    average: Any = run.params.get("option.average", "arithmetic")
    sample, label = table["sample"].to_numpy(), np.asarray(table["label"].cast("string").to_pylist(), dtype=str)
    numbers = sorted(set(sample.tolist()))
    values = [
        metrics.nmi(label[sample == number], table[name].to_numpy()[sample == number], average=average)
        for number in numbers
        for name in columns
    ]
    return Scores(_which(run, [f"{numbers} {columns}"]), np.array(values), samples=len(numbers))


def _per_image(table: Table, run: Result, metric: str) -> Scores | None:
    """A score of each image and seed."""
    columns = [name for name in table.column_names if name.startswith(f"{metric}/seed_")]
    if not columns:
        return None
    each = np.stack([table[name].to_numpy() for name in columns])
    return Scores(_which(run, [str(each.shape[1])]), each.mean(axis=1, dtype=np.float64), each.astype(np.float32))


def _which(run: Result, names: Sequence[str]) -> str:
    data = run.params.get("resolved.data", "")
    return f"{data} {hashlib.sha256(chr(10).join(names).encode()).hexdigest()[:12]}"


#: A metric → the file that holds its scores, and how it is read.
_FILES: dict[str, tuple[str, Callable[[Table, Result, str], Scores | None]]] = {
    "accuracy": (PREDICTIONS, _correct),
    "nmi": (PREDICTIONS, _agreement),
    "mse": (IMAGES, _per_image),
    "ssim": (IMAGES, _per_image),
}
