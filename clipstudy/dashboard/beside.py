"""Published numbers beside measured ones: as marks on a chart, and as differences. Pure but for reading the numbers."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from clipstudy import published
from clipstudy.dashboard import tables
from clipstudy.dashboard.tables import Mark, View
from clipstudy.outcome import Estimate, Result
from clipstudy.published import Published


@dataclass(frozen=True)
class Comparison:
    """A published number and what was measured of the same role, task, metric and layer."""

    number: Published
    model: str
    study: str
    measured: Estimate

    @property
    def difference(self) -> float:
        """Measured minus published, as shares."""
        return self.measured.value - self.number.share

    @property
    def inside(self) -> bool:
        """Within the tolerance. Of a number that is not ``comparable``, this says little."""
        return abs(self.difference) <= self.number.tolerance + 1e-9


def marked(view: View, numbers: Sequence[Published] | None = None) -> View:
    """``view`` with a mark for each comparable number of a curve's own role; none where a model only stands in.

    Args:
        numbers: None: those that come with the package.
    """
    marks = [
        Mark(curve.family, number.layer, number.share, f"{number.model}: {number.place}", not number.verified)
        for number in (_shipped() if numbers is None else numbers)
        for curve in view.curves
        if number.comparable
        and (number.task, number.metric) == (view.task, view.metric)
        and number.role in curve.role.split()
        and not curve.stands_in
        and curve.twin_of is None
    ]
    return replace(view, marks=tuple(marks)) if marks else view


def compared(results: Iterable[Result], numbers: Iterable[Published]) -> list[Comparison]:
    """Every number of a role that some trained model of ``results`` plays, with what that model has."""
    cells: dict[tuple[str, str, int], list[Result]] = defaultdict(list)
    for result in tables.newest(results)[0]:
        if result.tags.get("init") != "random" and not tables.stands_in(result):
            for role in result.tags.get("role", "").split():
                cells[role, result.task, result.layer].append(result)
    return [
        Comparison(number, result.model, result.study, result.metrics[number.metric])
        for number in numbers
        if number.role
        for result in cells.get((number.role, number.task, number.layer), ())
        if number.metric in result.metrics
    ]


@functools.cache
def _shipped() -> tuple[Published, ...]:
    return published.load()
