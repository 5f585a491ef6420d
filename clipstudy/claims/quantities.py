"""What a claim's inequality is made of: curves over blocks, and the numbers computed from them, draw by draw."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipstudy.wording import plural

#: The depth in which the course report counts.
BLOCKS = 12

Array = NDArray[np.float64]


#: Before a role: its model's untrained twin.
UNTRAINED = "untrained "


class MetricReference(NamedTuple):
    """What a claim reads: the metric of one task of the model that plays a role, or of that model's untrained twin."""

    role: str
    task: str
    metric: str
    kind: str = ""  #: where no task has that name, one of this kind will do

    def means(self, task: str, kind: str) -> bool:
        return self.task == task or (bool(self.kind) and self.kind == kind)


EVERYWHERE = (-math.inf, math.inf)


class Evaluation(NamedTuple):
    """A quantity evaluated: at which of twelve blocks, how each place is called, and its values."""

    at: tuple[float, ...]
    labels: tuple[str, ...]
    values: Array  #: ``[places, 1 + draws + seeds]``: the point estimate, its draws, and it without each seed
    units: float = math.inf  #: how many were drawn from
    seeds: tuple[int, ...] = ()  #: of each model with several: their number
    few: bool = False  #: the draws are a few measurements of the whole, not a bootstrap's
    step: float = 0.0  #: the least by which two values can differ
    ends: tuple[float, float] = EVERYWHERE  #: between which all values lie
    blocks: int = BLOCKS  #: that the model has
    less: bool = False  #: a number was taken from what was measured

    def apart(self, values: Array) -> tuple[Array, list[Array]]:
        """Of one place's ``values``: its draws; and for each model's seeds what each gives by itself ``[S]``, the
        jackknife's pseudo-values (Tukey 1958): of a mean over seeds each seed's own."""
        ends = np.cumsum([len(values) - sum(self.seeds), *self.seeds])[:-1]
        _, draws, *without = np.split(values, [1, *ends])
        return draws, [len(left) * values[0] - (len(left) - 1) * left for left in without]

    def only(self, kept: Sequence[int]) -> Evaluation:
        at, labels = tuple(self.at[i] for i in kept), tuple(self.labels[i] for i in kept)
        return self._replace(at=at, labels=labels, values=self.values[list(kept)])


class Unfit(Exception):
    """The results are there, but not of the shape that the claim is about."""


@dataclass(frozen=True)
class Quantity:
    """A curve over blocks, or one number, computed from what it reads. ``metric`` names its unit; empty: none."""

    text: str
    metric: str
    reads: frozenset[MetricReference]
    of: Callable[[Mapping[MetricReference, Evaluation]], Evaluation]

    def __sub__(self, other: Quantity | float) -> Quantity:
        if not isinstance(other, Quantity):
            return self._then(f"{self.text} − {shown(other, self.metric)}", lambda evaluation: _less(evaluation, other))
        return self._with(other, f"{self.text} − {other.text}", self.metric, _minus)

    def blocks(self, first: int, last: int | None = None) -> Quantity:
        """Those of the blocks from ``first`` to ``last``, what a deeper model has in between included (None: that
        block alone)."""
        name = f"block {first}" if last is None else f"blocks {first}–{last}"
        return self._at(name, lambda at: at == first if last is None else first - 1 < at <= last)

    def last(self) -> Quantity:
        return self._at("the last block", lambda at: at == BLOCKS)

    def but_last(self) -> Quantity:
        return self._at("every block but the last", lambda at: at != BLOCKS)

    def stages(self, *numbers: int) -> Quantity:
        """The given quarters of the depth, 1 to 4: each the first block that completes it, as ``layers = "stages"``
        measures them."""

        def chosen(evaluation: Evaluation) -> Evaluation:
            wanted = [BLOCKS * -(-evaluation.blocks * number // 4) / evaluation.blocks for number in numbers]
            if gone := [number for number, at in zip(numbers, wanted, strict=True) if at not in evaluation.at]:
                raise Unfit(f"no layer measured stands at stage {gone[0]} of 4")
            found = evaluation.only([evaluation.at.index(at) for at in wanted])
            places = tuple(BLOCKS * number / 4 for number in numbers)  # the same for models of any depth
            return found._replace(at=places, labels=tuple(f"stage {number}" for number in numbers))

        name = f"{plural(len(numbers), 'stage')} {', '.join(map(str, numbers))}"
        return self._then(f"{self.text} at {name}", chosen)

    def mean(self) -> Quantity:
        return self._reduced("mean", lambda values: values.mean(axis=0))

    def max(self) -> Quantity:
        return self._reduced("max", lambda values: values.max(axis=0))

    def trend(self) -> Quantity:
        """Spearman's correlation with the layer's number."""

        def rho(evaluation: Evaluation) -> Evaluation:
            order = np.broadcast_to(np.arange(len(evaluation.at))[:, None], evaluation.values.shape)
            return _ranked(evaluation, _spearman(order, evaluation.values))

        return replace(self._then(f"Spearman(layer, {self.text})", rho), metric="spearman")

    def rises(self) -> Quantity:
        """From each block to the next, at the later one."""
        return self._steps("rise", lambda values: np.diff(values, axis=0))

    def drops(self) -> Quantity:
        """The same downwards."""
        return self._steps("drop", lambda values: -np.diff(values, axis=0))

    def times(self, factor: float) -> Quantity:
        return self._each(f"{factor:g} × {self.text}", lambda values: factor * values)

    def alike(self, other: Quantity) -> Quantity:
        """Spearman's correlation of two curves."""

        def rho(a: Evaluation, b: Evaluation) -> Evaluation:
            _same_places(a, b)
            return _ranked(a, _spearman(a.values, b.values))._replace(units=min(a.units, b.units))

        return self._with(other, f"Spearman({self.text}, {other.text})", "spearman", rho)

    def _steps(self, name: str, step: Callable[[Array], Array]) -> Quantity:
        def stepped(evaluation: Evaluation) -> Evaluation:
            names = tuple(f"{a} to {b}" for a, b in itertools.pairwise(evaluation.labels))
            return evaluation._replace(at=evaluation.at[1:], labels=names, values=step(evaluation.values))

        return self._then(f"{name} of {self.text}", stepped)

    def _at(self, name: str, takes: Callable[[float], bool]) -> Quantity:
        def chosen(evaluation: Evaluation) -> Evaluation:
            kept = [i for i, at in enumerate(evaluation.at) if takes(at)]
            if not kept:
                raise Unfit(f"no layer measured stands for {name} of {BLOCKS}")
            return evaluation.only(kept)

        return self._then(f"{self.text} at {name}", chosen)

    def _then(self, text: str, step: Callable[[Evaluation], Evaluation]) -> Quantity:
        return replace(self, text=text, of=lambda found: step(self.of(found)))

    def _each(self, text: str, step: Callable[[Array], Array]) -> Quantity:
        return self._then(text, lambda evaluation: evaluation._replace(values=step(evaluation.values)))

    def _reduced(self, name: str, step: Callable[[Array], Array]) -> Quantity:
        return self._then(f"{name} of {self.text}", lambda evaluation: _one(evaluation, step(evaluation.values)))

    def _with(
        self, other: Quantity, text: str, metric: str, step: Callable[[Evaluation, Evaluation], Evaluation]
    ) -> Quantity:
        return Quantity(text, metric, self.reads | other.reads, lambda found: step(self.of(found), other.of(found)))


def shown(bound: float, metric: str) -> str:
    """``0.05``, or of an accuracy ``5 points``."""
    return f"{100 * bound:g} points" if metric == "accuracy" else f"{bound:g}"


def _one(evaluation: Evaluation, values: Array) -> Evaluation:
    return evaluation._replace(at=(float(BLOCKS),), labels=("",), values=values[None])


def _ranked(evaluation: Evaluation, rho: Array) -> Evaluation:
    """A rank correlation over the places of ``evaluation``: two neighbours that change places move it by this step."""
    n = len(evaluation.at)
    return _one(evaluation, rho)._replace(step=12 / (n * (n * n - 1)) if n > 1 else 0.0, ends=(-1.0, 1.0))


def _same_places(a: Evaluation, b: Evaluation) -> None:
    if a.at != b.at:
        raise Unfit(f"models of different depth: {len(a.at)} and {len(b.at)} layers to compare one by one")


def _less(evaluation: Evaluation, number: float) -> Evaluation:
    low, high = evaluation.ends
    return evaluation._replace(values=evaluation.values - number, ends=(low - number, high - number), less=True)


def _minus(a: Evaluation, b: Evaluation) -> Evaluation:
    """Place by place; a single number is taken from (or by) every place."""
    if min(len(a.at), len(b.at)) > 1:
        _same_places(a, b)
    longer = a if len(a.at) >= len(b.at) else b
    values, units = a.values - b.values, min(a.units, b.units)
    return longer._replace(values=values, units=units, ends=EVERYWHERE, less=a.less or b.less)


def _spearman(a: NDArray[Any], b: NDArray[Any]) -> Array:
    """Rank correlation down the columns of two ``[places, draws]``; 0 where a curve is flat."""
    from scipy.stats import rankdata

    x, y = (r - r.mean(axis=0) for r in (rankdata(a, axis=0), rankdata(b, axis=0)))
    scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    product: Array = (x * y).sum(axis=0)
    return np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)


def read(name: str, metric: str, *tasks: str, kind: str = "") -> Callable[[str], Quantity]:
    """What a role's model has on ``tasks`` (where there is none of a name, one of ``kind``): their mean, layer by
    layer."""

    def of(role: str) -> Quantity:
        wanted = [MetricReference(role, task, metric, kind) for task in tasks]

        def mean(found: Mapping[MetricReference, Evaluation]) -> Evaluation:
            evaluations = [found[reference] for reference in wanted]
            for evaluation in evaluations[1:]:
                _same_places(evaluations[0], evaluation)
            values = np.mean([evaluation.values for evaluation in evaluations], axis=0)
            return evaluations[0]._replace(values=values, units=min(evaluation.units for evaluation in evaluations))

        return Quantity(f"{name}({role})", metric, frozenset(wanted), mean)

    return of
