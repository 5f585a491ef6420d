"""What stands beside measured layers: published numbers, as marks and as differences, and a model's zero-shot accuracy.

Pure but for reading the numbers.
"""

from __future__ import annotations

import fnmatch
import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from clipstudy import published
from clipstudy.dashboard import pooling, tables
from clipstudy.dashboard.tables import Board
from clipstudy.dashboard.views import Level, Mark, View
from clipstudy.outcome import Estimate, Result
from clipstudy.published import Published
from clipstudy.spec import WHOLE_MODEL


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


def marked(view: View, known: Sequence[Published] | None = None) -> View:
    """``view`` with a mark for each comparable number of a curve's own role; none where a model stands in for it.

    Args:
        known: None: those that come with the package.
    """
    marks = [
        Mark(curve.family, number.layer, number.share, f"{number.model}: {number.place}", not number.verified)
        for number in (_shipped() if known is None else known)
        for curve in view.curves
        if number.comparable
        and (number.task, number.metric) == (view.task, view.metric)
        and number.role in curve.role.split()
        and not curve.stands_in
    ]
    return replace(view, marks=tuple(marks)) if marks else view


def levelled(view: View, shown: Board) -> View:
    """``view`` with what its contrastive models reach on the same data with no probe: a level for each of them.

    Only beside accuracies of layers, and only of the ``zero_shot`` task on the view's own data set.
    """
    if view.metric.rsplit("/", 1)[-1] != "accuracy" or set(view.layers) <= {WHOLE_MODEL}:
        return view
    datasets = {(r.study, r.tags.get("dataset")) for r in shown.results if r.task == view.task}
    found: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in shown.results:
        if result.tags.get("kind") == "zero_shot" and (result.study, result.tags.get("dataset")) in datasets:
            found[result.study, tables.family_of(result)].append(result)
    levels = [
        Level(
            curve.family,
            "zero-shot",
            pooling.pooled([tables.estimate(r.metrics, "accuracy") for r in runs], "accuracy"),
        )
        for curve in view.curves
        if (runs := [r for r in found[curve.study, curve.family] if "accuracy" in r.metrics])
    ]
    return replace(view, levels=tuple(levels)) if levels else view


def compared(results: Iterable[Result], known: Iterable[Published]) -> list[Comparison]:
    """Every number of a role that some trained model of ``results`` plays, with what that model has."""
    cells: dict[tuple[str, str, int], list[Result]] = defaultdict(list)
    for result in tables.newest(results)[0]:
        if not tables.stands_in(result):
            for role in result.tags.get("role", "").split():
                cells[role, result.task, result.layer].append(result)
    return [
        Comparison(number, result.model, result.study, tables.estimate(result.metrics, number.metric))
        for number in known
        if number.role
        for result in cells.get((number.role, number.task, number.layer), ())
        if number.metric in result.metrics
    ]


def numbers(papers: Sequence[str] = ()) -> list[Published]:
    """The numbers that come with the package, of the papers that a pattern takes; no pattern: of all."""
    return [n for n in _shipped() if not papers or any(fnmatch.fnmatchcase(n.paper, p) for p in papers)]


@functools.cache
def _shipped() -> tuple[Published, ...]:
    return published.load()
