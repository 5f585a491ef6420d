"""What a claim's inequality is made of: curves over blocks, and the numbers computed from them, draw by draw."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: The depth in which the report counts.
BLOCKS = 12

Array = NDArray[np.float64]


#: Before a role: its model's untrained twin.
UNTRAINED = "untrained "


class Reading(NamedTuple):
    """What a claim reads: the metric of one task of the model that plays a role, or of that model's untrained twin."""

    role: str
    task: str
    metric: str
    kind: str = ""  #: where no task has that name, one of this kind will do

    def means(self, task: str, kind: str) -> bool:
        return self.task == task or (bool(self.kind) and self.kind == kind)


EVERYWHERE = (-math.inf, math.inf)


class Stack(NamedTuple):
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

    def apart(self, values: Array) -> tuple[Array, list[Array]]:
        """Of one place's ``values``: its draws; and for each model's seeds what each gives by itself ``[S]``, the
        jackknife's pseudo-values (Tukey 1958): of a mean over seeds each seed's own."""
        ends = np.cumsum([len(values) - sum(self.seeds), *self.seeds])[:-1]
        _, draws, *without = np.split(values, [1, *ends])
        return draws, [len(left) * values[0] - (len(left) - 1) * left for left in without]

    def only(self, kept: Sequence[int]) -> Stack:
        at, labels = tuple(self.at[i] for i in kept), tuple(self.labels[i] for i in kept)
        return self._replace(at=at, labels=labels, values=self.values[list(kept)])


class Unfit(Exception):
    """The results are there, but not of the shape that the claim is about."""


@dataclass(frozen=True)
class Quantity:
    """A curve over blocks, or one number, computed from readings. ``metric`` names its unit; empty: none."""

    text: str
    metric: str
    reads: frozenset[Reading]
    of: Callable[[Mapping[Reading, Stack]], Stack]

    def __sub__(self, other: Quantity | float) -> Quantity:
        if not isinstance(other, Quantity):
            return self._then(f"{self.text} − {shown(other, self.metric)}", lambda stack: _less(stack, other))
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

        def chosen(stack: Stack) -> Stack:
            wanted = [BLOCKS * -(-stack.blocks * number // 4) / stack.blocks for number in numbers]
            if gone := [number for number, at in zip(numbers, wanted, strict=True) if at not in stack.at]:
                raise Unfit(f"no layer measured stands at stage {gone[0]} of 4")
            found = stack.only([stack.at.index(at) for at in wanted])
            places = tuple(BLOCKS * number / 4 for number in numbers)  # the same for models of any depth
            return found._replace(at=places, labels=tuple(f"stage {number}" for number in numbers))

        name = "stage" if len(numbers) == 1 else "stages"
        return self._then(f"{self.text} at {name} {', '.join(map(str, numbers))}", chosen)

    def mean(self) -> Quantity:
        return self._reduced("mean", lambda values: values.mean(axis=0))

    def max(self) -> Quantity:
        return self._reduced("max", lambda values: values.max(axis=0))

    def trend(self) -> Quantity:
        """Spearman's correlation with the layer's number."""

        def rho(stack: Stack) -> Stack:
            order = np.broadcast_to(np.arange(len(stack.at))[:, None], stack.values.shape)
            return _ranked(stack, _spearman(order, stack.values))

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

        def rho(a: Stack, b: Stack) -> Stack:
            _same_places(a, b)
            return _ranked(a, _spearman(a.values, b.values))._replace(units=min(a.units, b.units))

        return self._with(other, f"Spearman({self.text}, {other.text})", "spearman", rho)

    def _steps(self, name: str, step: Callable[[Array], Array]) -> Quantity:
        def stepped(stack: Stack) -> Stack:
            names = tuple(f"{a} to {b}" for a, b in itertools.pairwise(stack.labels))
            return stack._replace(at=stack.at[1:], labels=names, values=step(stack.values))

        return self._then(f"{name} of {self.text}", stepped)

    def _at(self, name: str, takes: Callable[[float], bool]) -> Quantity:
        def chosen(stack: Stack) -> Stack:
            kept = [i for i, at in enumerate(stack.at) if takes(at)]
            if not kept:
                raise Unfit(f"no layer measured stands for {name} of {BLOCKS}")
            return stack.only(kept)

        return self._then(f"{self.text} at {name}", chosen)

    def _then(self, text: str, step: Callable[[Stack], Stack]) -> Quantity:
        return replace(self, text=text, of=lambda found: step(self.of(found)))

    def _each(self, text: str, step: Callable[[Array], Array]) -> Quantity:
        return self._then(text, lambda stack: stack._replace(values=step(stack.values)))

    def _reduced(self, name: str, step: Callable[[Array], Array]) -> Quantity:
        return self._then(f"{name} of {self.text}", lambda stack: _one(stack, step(stack.values)))

    def _with(self, other: Quantity, text: str, metric: str, step: Callable[[Stack, Stack], Stack]) -> Quantity:
        return Quantity(text, metric, self.reads | other.reads, lambda found: step(self.of(found), other.of(found)))


def shown(bound: float, metric: str) -> str:
    """``0.05``, or of an accuracy ``5 points``."""
    return f"{100 * bound:g} points" if metric == "accuracy" else f"{bound:g}"


def _one(stack: Stack, values: Array) -> Stack:
    return stack._replace(at=(float(BLOCKS),), labels=("",), values=values[None])


def _ranked(stack: Stack, rho: Array) -> Stack:
    """A rank correlation over the places of ``stack``: two neighbours that change places move it by this step."""
    n = len(stack.at)
    return _one(stack, rho)._replace(step=12 / (n * (n * n - 1)) if n > 1 else 0.0, ends=(-1.0, 1.0))


def _same_places(a: Stack, b: Stack) -> None:
    if a.at != b.at:
        raise Unfit(f"models of different depth: {len(a.at)} and {len(b.at)} layers to compare one by one")


def _less(stack: Stack, number: float) -> Stack:
    low, high = stack.ends
    return stack._replace(values=stack.values - number, ends=(low - number, high - number))


def _minus(a: Stack, b: Stack) -> Stack:
    """Place by place; a single number is taken from (or by) every place."""
    if min(len(a.at), len(b.at)) > 1:
        _same_places(a, b)
    longer = a if len(a.at) >= len(b.at) else b
    return longer._replace(values=a.values - b.values, units=min(a.units, b.units), ends=EVERYWHERE)


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
        wanted = [Reading(role, task, metric, kind) for task in tasks]

        def mean(found: Mapping[Reading, Stack]) -> Stack:
            stacks = [found[reading] for reading in wanted]
            for stack in stacks[1:]:
                _same_places(stacks[0], stack)
            values = np.mean([stack.values for stack in stacks], axis=0)
            return stacks[0]._replace(values=values, units=min(stack.units for stack in stacks))

        return Quantity(f"{name}({role})", metric, frozenset(wanted), mean)

    return of
