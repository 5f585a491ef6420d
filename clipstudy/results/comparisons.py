"""What stands beside what is measured: published numbers, as marks and as differences, and levels of a whole model.

Pure but for reading the numbers.
"""

from __future__ import annotations

import fnmatch
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from clipstudy import published
from clipstudy.outcome import Estimate, Result
from clipstudy.published import Published
from clipstudy.results import boards, pooling, units
from clipstudy.results.boards import Board
from clipstudy.results.views import Curve, Level, Mark, View
from clipstudy.spec import WHOLE_MODEL


@dataclass(frozen=True)
class Comparison:
    """A published number and what was measured of the same role, task, metric and layer."""

    number: Published
    model: str
    study: str
    measured: Estimate

    @property
    def difference(self) -> float | None:
        """Measured minus published, as shares; from the nearer end of a range, and 0 within it. None: the number is
        from memory, and no result is held to it."""
        if not self.number.verified:
            return None
        low, high = self.number.ends
        return self.measured.value - min(max(self.measured.value, low), high)

    @property
    def inside(self) -> bool | None:
        """Within the tolerance; None as ``difference``. Of a number that is not ``comparable``, this says little."""
        return None if self.difference is None else abs(self.difference) <= self.number.tolerance + 1e-9


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
        and number.task == view.task
        and view.metric == boards.recorded_as(number.metric, [run for cell in curve.cells for run in cell.runs])
        and number.role in curve.role.split()
        and not curve.stands_in
    ]
    return replace(view, marks=tuple(marks)) if marks else view


def levelled(view: View, shown: Board) -> View:
    """``view`` with what belongs beside its models' accuracies: a contrastive model's with no probe, on the same data,
    and that of tasks on pairs where the first text is shown alone."""
    levels = (*_zero_shot(view, shown), *_alone(view))
    return replace(view, levels=levels) if levels else view


def _zero_shot(view: View, shown: Board) -> Iterator[Level]:
    """Beside accuracies of layers alone: that of the ``zero_shot`` task on the view's own data set."""
    if units.base(view.metric) != "accuracy" or set(view.layers) <= {WHOLE_MODEL}:
        return
    datasets = {(r.study, r.tags.get("dataset")) for r in shown.results if r.task == view.task}
    found: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in shown.results:
        if result.tags.get("kind") == "zero_shot" and (result.study, result.tags.get("dataset")) in datasets:
            found[result.study, result.family].append(result)
    for curve in view.curves:
        yield from _level(curve, "zero-shot", found[curve.study, curve.family], "accuracy")


def _alone(view: View) -> Iterator[Level]:
    """At the layer where the model is best: what it can tell without the second text says nothing of the pair."""
    if view.metric != "accuracy":
        return
    for curve in view.curves:
        if curve.chosen is not None:
            yield from _level(curve, "first text alone", curve.chosen.runs, "question_only/accuracy")


def _level(curve: Curve, name: str, runs: Sequence[Result], metric: str) -> Iterator[Level]:
    measured = [boards.estimate(run.metrics, metric) for run in runs if metric in run.metrics]
    if measured:
        yield Level(curve.family, name, pooling.pooled(measured, "accuracy"), curve.study)


def compared(results: Iterable[Result], known: Iterable[Published]) -> list[Comparison]:
    """Every number of a role that some trained model of ``results`` plays, with what that model has."""
    cells: dict[tuple[str, str, int], list[Result]] = defaultdict(list)
    for result in boards.newest(results)[0]:
        if not boards.stands_in(result):
            for role in result.tags.get("role", "").split():
                cells[role, result.task, result.layer].append(result)
    return [
        Comparison(number, result.model, result.study, boards.estimate(result.metrics, name))
        for number in known
        if number.role
        for result in cells.get((number.role, number.task, number.layer), ())
        if (name := boards.recorded_as(number.metric, [result])) in result.metrics
    ]


def numbers(papers: Sequence[str] = ()) -> list[Published]:
    """The numbers that come with the package, of the papers that a pattern takes; no pattern: of all."""
    return [n for n in _shipped() if not papers or any(fnmatch.fnmatchcase(n.paper, p) for p in papers)]


@functools.cache
def _shipped() -> tuple[Published, ...]:
    return published.load()
