"""Several estimates as one: initialisations of an untrained twin, tasks of a category. Pure.

What an interval is: the 95% interval that the task recorded with each run. Where numbers are combined here, standard
errors are, read back from the intervals as (high − low) / (2 · 1.96), or from the longer side of one that ends at 0 or
1; and no interval of a share goes beyond these:

- **pooling** k initialisations of one untrained twin: the mean; se² = between-initialisation variance / k + mean
  within-run se². The test items are the same for every initialisation, so the within part is not divided by k. k are
  few: the interval is read on Student's distribution, at Satterthwaite's degrees of freedom (k − 1 of the former part);
- **averaging** T tasks of one category: the mean; se² = Σ se² / T², the tasks' test items being independent. Their
  initialisations are not, where an untrained twin's are the same for each task: each is averaged by itself first, and
  these means are pooled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from clipstudy.outcome import Estimate
from clipstudy.results.units import LEVEL, Z, around, axis_title, standard_error
from clipstudy.results.views import Cell, Curve, View, best_layer, models_of
from clipstudy.spec import WHOLE_MODEL


def pooled(found: Sequence[Estimate], metric: str) -> Estimate:
    """The mean of ``metric`` over initialisations, its interval as the module says. One is given back as it is."""
    if len(found) == 1:
        return found[0]
    value = mean([e.value for e in found])
    between = sum((e.value - value) ** 2 for e in found) / (len(found) - 1)
    within = [se**2 for e in found if (se := standard_error(e)) is not None]
    error = math.sqrt(between / len(found) + (mean(within) if within else 0.0))
    return around(value, error * few(error, [e.value for e in found]), metric)


def few(error: float, values: Sequence[float]) -> float:
    """How much wider than a normal distribution's the interval of a mean of ``values`` is, whose standard error is
    ``error``, what the values do not account for included."""
    import numpy as np
    from scipy.special import stdtrit

    from clipstudy.metrics import freedom

    return max(1.0, float(stdtrit(freedom(error, [np.array(values)]), (1 + LEVEL) / 2)) / Z)


def average(views: Sequence[View], title: str) -> tuple[View | None, tuple[str, ...]]:
    """The mean of several tasks per layer, for the models that have them, and notes on what could not be averaged.

    Only tasks of one metric that every trained model of the panel has, only untrained twins that have these, too, and
    only layers that every task has, so that no difference between two bars comes from what was averaged. A model's
    curves in two studies are two curves. Error propagation as the module says.
    """
    metrics = Counter(v.metric for v in views)
    if not metrics:
        return None, ()
    metric = metrics.most_common(1)[0][0]
    usable = [v for v in views if v.metric == metric and any(layer != WHOLE_MODEL for layer in v.layers)]
    notes = [f"{v.title}: measured as {axis_title(v.metric)}, not in the average" for v in views if v.metric != metric]
    notes += [f"{v.title}: not measured alike, not in the average" for v in usable if v.mixed]
    usable = [v for v in usable if not v.mixed]
    has = {v.task: {(curve.study, curve.family): curve for curve in v.curves} for v in usable}
    everybody = models_of(usable)
    needed = {(c.study, c.family) for c in everybody if not c.twin_of} or {(c.study, c.family) for c in everybody}
    common = [v for v in usable if needed <= has[v.task].keys()]
    notes += [f"{v.title}: not in the average, as some models have no result yet" for v in usable if v not in common]
    if len(common) < 2:
        return None, tuple(notes)
    curves = []
    for first in everybody:
        found = [has[v.task].get((first.study, first.family)) for v in common]
        parts = [curve for curve in found if curve is not None]
        if len(parts) < len(common):
            notes.append(f"{first.title}: not in the average, as some tasks have no result of it yet")
            continue
        cells = _averaged(parts, metric)
        if cells:
            dev = _dev(parts, cells)
            curves.append(replace(first, cells=cells, best=best_layer(cells, metric, dev), missing=(), dev=dev))
    averaged = View(
        task="",
        title=title,
        category=common[0].category,
        metric=metric,
        modality=common[0].modality,
        curves=tuple(curves),
        baselines=_shared([dict(v.baselines) for v in common]),
        caption="Mean of " + ", ".join(v.title for v in common) + ".",
        note=note_said(common),
    )
    return (averaged if curves else None), tuple(notes)


def note_said(views: Iterable[View]) -> str:
    """The notes of several views, each once."""
    return " ".join(sorted({v.note for v in views if v.note}))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _shared(known: Sequence[Mapping[str, float]]) -> tuple[tuple[str, float], ...]:
    """The means of what all of ``known`` have."""
    return tuple((name, mean([of[name] for of in known])) for name in known[0] if all(name in of for of in known))


def _dev(parts: Sequence[Curve], cells: Sequence[Cell]) -> dict[int, float]:
    """The mean of the tasks' development scores, of the layers of which every task has one."""
    layers = [cell.layer for cell in cells if all(cell.layer in part.dev for part in parts)]
    return {layer: mean([part.dev[layer] for part in parts]) for layer in layers}


def _averaged(parts: Sequence[Curve], metric: str) -> tuple[Cell, ...]:
    tables = [{cell.layer: cell for cell in part.cells if cell.layer != WHOLE_MODEL} for part in parts]
    cells = []
    for layer in sorted(set.intersection(*(set(table) for table in tables))):
        found = [table[layer] for table in tables]
        cells.append(
            Cell(
                layer=layer,
                label=found[0].label,
                estimate=_of_tasks(found, metric),
                depth=found[0].depth,
                inits=min(cell.inits for cell in found),
                one_class=any(cell.one_class for cell in found),
                baselines=_shared([dict(cell.baselines) for cell in found]),
            )
        )
    return tuple(cells)


def _of_tasks(found: Sequence[Cell], metric: str) -> Estimate:
    """The mean over a cell of each task."""
    names = {frozenset(cell.by_init) for cell in found}
    if len(names) == 1 and len(inits := names.pop()) > 1:
        return pooled([_independent([cell.by_init[name] for cell in found], metric) for name in sorted(inits)], metric)
    return _independent([cell.estimate for cell in found], metric)


def _independent(found: Sequence[Estimate], metric: str) -> Estimate:
    """The mean of estimates on different test items."""
    value, errors = mean([e.value for e in found]), [standard_error(e) for e in found]
    known = [se for se in errors if se is not None]
    if len(known) < len(errors):
        return Estimate(value)
    return around(value, math.sqrt(sum(se**2 for se in known)) / len(found), metric)
