"""Results as tables: the newest group of each (model, task), untrained twins pooled, categories averaged. Pure.

What an interval is: the 95% interval that the task recorded with each run. Where numbers are combined here, standard
errors are, read back from the intervals as (high − low) / (2 · 1.96):

- **pooling** k initialisations of one untrained twin: the mean; se² = between-initialisation variance / k + mean
  within-run se². The test items are the same for every initialisation, so the within part is not divided by k;
- **averaging** T tasks of one category: the mean; se² = Σ se² / T², the tasks' test items being independent.
"""

from __future__ import annotations

import fnmatch
import functools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clipstudy.outcome import Estimate, Result
from clipstudy.spec import WHOLE_MODEL

Z = 1.959964
BASELINE = "baseline/"
#: Where the pocket models' checkpoints lie.
POCKET = "package:clipstudy/pocket/"
LOWER_IS_BETTER = frozenset({"mse", "mae", "loss", "perplexity", "lpips"})
#: What describes and does not judge: how an image looks, and where heads look and how widely.
DESCRIPTIVE = frozenset({
    "activation", "area", "colour_entropy", "distance", "distance_patches", "diversity", "edge_density", "edges",
    "entropy", "high_frequency", "spectral_slope", "total_variation",
})  # fmt: skip
#: The last part of a metric's name → (how an axis calls it, what a value is multiplied by, decimals).
UNITS: Mapping[str, tuple[str, float, int]] = {
    "accuracy": ("accuracy (%)", 100, 1),
    "dev_accuracy": ("dev accuracy (%)", 100, 1),
    "selectivity": ("selectivity (points)", 100, 1),
    "macro_f1": ("macro F1 (%)", 100, 1),
    "nmi": ("NMI", 1, 3),
    "nmi_arithmetic": ("NMI, arithmetic mean", 1, 3),
    "ami": ("AMI", 1, 3),
    "cka": ("CKA with the nearest layer", 1, 3),
    "jaccard": ("Jaccard index", 1, 3),
    "diversity": ("divergence of heads (bits)", 1, 3),
    "entropy": ("entropy (bits)", 1, 2),
    "distance": ("attention distance (pixels)", 1, 1),
    "edges": ("correlation with edges", 1, 3),
    "high_frequency": ("share of high frequencies", 1, 3),
    "mse": ("mean squared error", 1, 4),
    "psnr": ("PSNR (dB)", 1, 2),
    "ssim": ("SSIM", 1, 3),
}
BASELINE_NAMES = {
    "majority": "majority class",
    "random": "random clusters",
    "span_length": "span length",
    "permuted": "unpaired texts",
}


@dataclass(frozen=True)
class Cell:
    """One bar."""

    layer: int
    label: str
    estimate: Estimate
    depth: float | None = None  #: fraction of the model's blocks; None for a task of the whole model
    n: int | None = None  #: test items
    inits: int = 1  #: initialisations pooled
    one_class: bool = False  #: a probe here predicts one class only: the number says nothing about the layer
    points: tuple[float, ...] = ()  #: one value a seed (and initialisation), where they were asked for
    runs: tuple[Result, ...] = field(default=(), compare=False, repr=False)  #: whose numbers these are


@dataclass(frozen=True)
class Curve:
    """One model (or the pooled initialisations of one untrained twin) on one task."""

    family: str
    title: str
    twin_of: str | None
    cells: tuple[Cell, ...]
    best: int | None  #: the best layer: on the development set where it was scored, else on the test set
    missing: tuple[int, ...] = ()  #: layers that belong to the task and have no result yet
    role: str = ""
    study: str = ""
    stands_in: bool = False  #: not the model that its role is named after

    @property
    def chosen(self) -> Cell | None:
        """The best layer, or the only one; None where there is nothing to choose by."""
        if len(self.cells) == 1:
            return self.cells[0]
        return next((cell for cell in self.cells if cell.layer == self.best), None)


@dataclass(frozen=True)
class Mark:
    """A number that others published, beside a cell of the same role, task, metric and layer."""

    family: str  #: whose cell
    layer: int
    value: float
    source: str
    from_memory: bool = False  #: not read again since: no bar that a result must pass


@dataclass(frozen=True)
class Level:
    """A number of a model as a whole, beside its layers': a line across the chart in the model's colour."""

    family: str
    name: str  #: what it is, not whose: the colour says that
    estimate: Estimate


@dataclass(frozen=True)
class View:
    """One metric of one task (or the average of a category), over models and layers."""

    task: str
    title: str
    category: str
    metric: str
    modality: str
    curves: tuple[Curve, ...]
    baselines: tuple[tuple[str, float], ...] = ()
    marks: tuple[Mark, ...] = ()
    levels: tuple[Level, ...] = ()
    caption: str = ""
    note: str = ""  #: what the results' studies say of themselves: what they are not to be taken for
    reference: tuple[Curve, ...] = ()  #: of the model that the others are compared with: itself beside itself

    @property
    def families(self) -> frozenset[str]:
        return frozenset(curve.family for curve in (*self.curves, *self.reference))

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({cell.layer for curve in self.curves for cell in curve.cells}))


@dataclass(frozen=True)
class Board:
    """The results that count, in the order in which they are shown."""

    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    tasks: tuple[str, ...] = field(default=())

    @functools.cached_property
    def by_task(self) -> Mapping[str, Sequence[Result]]:
        found: dict[str, list[Result]] = defaultdict(list)
        for result in self.results:
            found[result.task].append(result)
        return found

    @functools.cached_property
    def metrics(self) -> Mapping[str, frozenset[str]]:
        """Task → the names of all that its runs measured."""
        return {task: frozenset(name for r in rows for name in r.metrics) for task, rows in self.by_task.items()}

    @functools.cached_property
    def views(self) -> dict[tuple[str, str | None], View | None]:
        """What was drawn of it once: thousands of results are not gone through again for every page."""
        return {}

    @functools.cached_property
    def families(self) -> tuple[str, ...]:
        titles = {family_of(r): r for r in self.results}
        return tuple(sorted(titles, key=lambda family: _rank(titles[family], self.order)))


def board(results: Iterable[Result], order: Sequence[str] = ()) -> Board:
    """The newest group of each (study, model, task), and notes on what is older or missing, study by study.

    Args:
        order: patterns of families, roles or model names: which are drawn first.
    """
    studies: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        studies[result.study].append(result)
    kept: list[Result] = []
    notes = []
    for study, members in studies.items():
        rows, older = newest(members)
        kept += rows
        said = [
            f"{model} · {task}: {number} result{'s' * (number > 1)} of older settings ({digest}) not shown"
            for model, task, digest, number in older
        ]
        notes += [f"{study}: {note}" if len(studies) > 1 else note for note in (*said, *_gaps(rows))]
    ranked = sorted(kept, key=lambda r: (r.tags.get("category", ""), r.task))
    tasks = tuple(dict.fromkeys(r.task for r in ranked))
    return Board(tuple(kept), tuple(notes), tuple(order), tasks)


def newest(results: Iterable[Result]) -> tuple[list[Result], list[tuple[str, str, str, int]]]:
    """Results of the newest digest of each (study, model, task); and (model, task, digest, runs) of the others.

    Newest is the digest whose latest run ended last: enqueueing old settings again makes them the newest.
    """
    cells: dict[tuple[str, str, str], dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        cells[result.study, result.model, result.task][result.tags.get("digest", "")].append(result)
    kept, older = [], []
    for (_, model, task), groups in cells.items():
        latest = max(groups, key=lambda digest: (max(r.tags.get("ended", "") for r in groups[digest]), digest))
        kept += groups[latest]
        older += [(model, task, digest, len(rows)) for digest, rows in groups.items() if digest != latest]
    return kept, older


def view(shown: Board, task: str, metric: str | None = None) -> View | None:
    """``metric`` (None: the headline) of one task over all models; None: no model has it."""
    if (task, metric) not in shown.views:
        shown.views[task, metric] = _view(shown, task, metric)
    return shown.views[task, metric]


def _view(shown: Board, task: str, metric: str | None) -> View | None:
    rows = shown.by_task.get(task, ())
    headline = next((r.tags["metric"] for r in rows if r.tags.get("metric")), "accuracy")
    name = metric or headline
    rows = [r for r in rows if name in r.metrics]
    if not rows:
        return None
    families: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for row in rows:
        families[row.study, family_of(row)].append(row)
    several = len({r.study for r in shown.results}) > 1
    ordered = sorted(families.items(), key=lambda item: (_rank(item[1][0], shown.order), item[0][0]))
    curves = tuple(_curve(members, name, several) for _, members in ordered)
    reference = tuple(curve for curve in curves if _is_reference(curve))
    if len(reference) == len(curves):  # nothing else is there yet
        reference = ()
    same_kind = name.rsplit("/", 1)[-1] == headline.rsplit("/", 1)[-1]
    arm = name.rpartition("/")[0]
    baselines: list[tuple[str, float]] = []
    for study in sorted({r.study for r in rows}) if same_kind else ():
        lines = _baselines([r for r in rows if r.study == study], arm)
        baselines += [(f"{study}: {line}" if several else line, value) for line, value in lines]
    return View(
        task=task,
        title=rows[0].tags.get("task_title", task),
        category=rows[0].tags.get("category", ""),
        metric=name,
        modality=rows[0].tags.get("modality", "text"),
        curves=tuple(curve for curve in curves if curve not in reference),
        baselines=tuple(baselines),
        caption=_compared(reference),
        note=note_of(rows),
        reference=reference,
    )


def note_of(results: Iterable[Result], tag: str = "note") -> str:
    """What the studies of ``results`` say of themselves (``note``, ``description``), each what it said last."""
    latest: dict[str, Result] = {}
    for result in sorted(results, key=lambda r: r.tags.get("ended", "")):
        latest[result.study] = result
    return " ".join(dict.fromkeys(r.tags[tag] for r in latest.values() if r.tags.get(tag)))


def stands_in(result: Result) -> bool:
    """Is the model not the one that its role is named after: a pocket model, or one of a study that says of itself
    what it is not to be taken for? Then no number that others published is a number of it."""
    return is_pocket(result) or bool(result.tags.get("note"))


def is_pocket(result: Result) -> bool:
    return result.params.get("model.checkpoint", "").startswith(POCKET)


def note_said(views: Iterable[View]) -> str:
    """The notes of several views, each once."""
    return " ".join(sorted({v.note for v in views if v.note}))


def average(views: Sequence[View], title: str) -> tuple[View | None, tuple[str, ...]]:
    """The mean of several tasks per layer, for the models that have them, and notes on what could not be averaged.

    Only tasks of one metric that every model of the panel has, and only layers that every task has, so that no
    difference between two bars comes from what was averaged. A model's curves in two studies are two curves. Error
    propagation as the module says.
    """
    metrics = Counter(v.metric for v in views)
    if not metrics:
        return None, ()
    metric = metrics.most_common(1)[0][0]
    usable = [v for v in views if v.metric == metric and any(layer != WHOLE_MODEL for layer in v.layers)]
    notes = [f"{v.title}: measured as {axis_title(v.metric)}, not in the average" for v in views if v.metric != metric]
    models = {(curve.study, curve.family) for v in usable for curve in v.curves}
    common = [v for v in usable if {(curve.study, curve.family) for curve in v.curves} == models]
    notes += [f"{v.title}: not in the average, some models have no result yet" for v in usable if v not in common]
    if len(common) < 2:
        return None, tuple(notes)
    curves = []
    for first in common[0].curves:
        model = first.study, first.family
        parts = [next(c for c in v.curves if (c.study, c.family) == model) for v in common]
        cells = _averaged(parts)
        if cells:
            curves.append(replace(first, cells=cells, best=_best(cells, metric), missing=()))
    shared = set.intersection(*({name for name, _ in v.baselines} for v in common))
    lines = tuple((name, _mean([dict(v.baselines)[name] for v in common])) for name, _ in common[0].baselines)
    mean = View(
        task="",
        title=title,
        category=common[0].category,
        metric=metric,
        modality=common[0].modality,
        curves=tuple(curves),
        baselines=tuple((name, value) for name, value in lines if name in shared),
        caption="Mean of " + ", ".join(v.title for v in common) + ".",
        note=note_said(common),
    )
    return (mean if curves else None), tuple(notes)


def family_of(result: Result) -> str:
    return result.tags.get("family") or result.model


def matches(result: Result, patterns: Sequence[str]) -> bool:
    """Whether a pattern names the result's family, model or one of its roles."""
    names = (family_of(result), result.model, *result.tags.get("role", "").split())
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names if name)


def half_width(estimate: Estimate) -> float | None:
    """Half of the 95% interval; the interval itself need not be symmetric."""
    if estimate.low is None or estimate.high is None:
        return None
    return (estimate.high - estimate.low) / 2


def standard_error(estimate: Estimate) -> float | None:
    half = half_width(estimate)
    return None if half is None else half / Z


def axis_title(metric: str) -> str:
    """``accuracy (%)``, ``accuracy (%), native``: the unit, and the arm where it is not the headline's."""
    arm, _, last = metric.rpartition("/")
    return unit(metric)[0] + (f", {arm}" if arm else "") if last in UNITS else metric


def unit(metric: str) -> tuple[str, float, int]:
    """How an axis calls ``metric``, its factor, its decimals."""
    last = metric.rsplit("/", 1)[-1]
    return UNITS.get(last, (metric, 1.0, 3))


def shown_value(estimate: Estimate, metric: str) -> str:
    """``85.3 ± 0.7``, in the axis's unit."""
    _, factor, decimals = unit(metric)
    half = half_width(estimate)
    text = f"{estimate.value * factor:.{decimals}f}"
    return text if half is None else f"{text} ± {half * factor:.{decimals}f}"


def shown_p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def better(metric: str) -> int:
    """1 where more of ``metric`` is better, −1 where less is, 0 where neither is."""
    last = metric.rsplit("/", 1)[-1]
    return 0 if last in DESCRIPTIVE else -1 if last in LOWER_IS_BETTER else 1


def is_near(best: Cell | None, cell: Cell, metric: str) -> bool:
    """Is ``cell`` the best, or do the two cells' own intervals not tell it from the best?

    As of two independent estimates, se² = se₁² + se₂²: rather too often, as what is measured on the same items errs
    alike.
    """
    if best is None or cell == best:
        return best is not None
    errors = standard_error(best.estimate), standard_error(cell.estimate)
    if errors[0] is None or errors[1] is None:
        return False
    return better(metric) * (best.estimate.value - cell.estimate.value) <= Z * math.hypot(errors[0], errors[1])


def layer_name(layer: int, modality: str = "text") -> str:
    if layer == WHOLE_MODEL:
        return "whole model"
    return str(layer) if layer else f"0 ({'embedding' if modality == 'text' else 'stem'})"


# -- inside ------------------------------------------------------------------------------------------------------


def _curve(members: Sequence[Result], metric: str, several: bool) -> Curve:
    """One model's curve, its title with its study's name where there are ``several``."""
    by_layer: dict[int, list[Result]] = defaultdict(list)
    for member in members:
        by_layer[member.layer].append(member)
    arm = f"{metric.rpartition('/')[0]}/" if "/" in metric else ""
    cells = tuple(_cell(layer, by_layer[layer], metric, arm) for layer in sorted(by_layer))
    dev = {}
    if metric.rsplit("/", 1)[-1] == "accuracy":
        scored = f"{arm}dev_accuracy"
        dev = {k: _mean([r.metrics[scored].value for r in rs if scored in r.metrics]) for k, rs in by_layer.items()}
    tags = members[0].tags
    study, title = members[0].study, tags.get("model_title") or family_of(members[0])
    expected = {int(k) for k in tags.get("layers", "").split(",") if k}
    return Curve(
        family=family_of(members[0]),
        title=f"{study}: {title}" if several else title,
        twin_of=tags.get("twin_of"),
        cells=cells,
        best=_best(cells, metric, dev),
        missing=tuple(sorted(expected - set(by_layer))),
        role=tags.get("role", ""),
        study=study,
        stands_in=any(stands_in(r) for r in members),
    )


def _is_reference(curve: Curve) -> bool:
    """Is it the likeness of a model to itself?"""
    runs = [run for cell in curve.cells for run in cell.runs]
    return all(run.params.get("reference") == run.model for run in runs)


def _compared(reference: Sequence[Curve]) -> str:
    named = " and ".join(curve.title for curve in reference)
    return f"Each is compared with {named}, which is left out: any model's likeness to itself is 1." if named else ""


def _cell(layer: int, members: Sequence[Result], metric: str, arm: str) -> Cell:
    tags = members[0].tags
    items = members[0].metrics.get("items/test")
    flags = [r.metrics[f"{arm}one_class"].value for r in members if f"{arm}one_class" in r.metrics]
    depth = tags.get("depth")
    return Cell(
        layer=layer,
        label=tags.get("layer_label", str(layer)),
        estimate=pooled([r.metrics[metric] for r in members]),
        depth=float(depth) if depth else None,
        n=round(items.value) if items else None,
        inits=len(members),
        one_class=any(value > 0 for value in flags),
        runs=tuple(members),
    )


def pooled(found: Sequence[Estimate]) -> Estimate:
    """The mean over initialisations, its interval as the module says. One estimate is given back as it is."""
    if len(found) == 1:
        return found[0]
    value = _mean([e.value for e in found])
    between = sum((e.value - value) ** 2 for e in found) / (len(found) - 1)
    within = [se**2 for e in found if (se := standard_error(e)) is not None]
    return _around(value, math.sqrt(between / len(found) + (_mean(within) if within else 0.0)))


def _averaged(parts: Sequence[Curve]) -> tuple[Cell, ...]:
    tables = [{cell.layer: cell for cell in part.cells if cell.layer != WHOLE_MODEL} for part in parts]
    cells = []
    for layer in sorted(set.intersection(*(set(table) for table in tables))):
        found = [table[layer] for table in tables]
        value = _mean([cell.estimate.value for cell in found])
        errors = [standard_error(cell.estimate) for cell in found]
        known = [se for se in errors if se is not None]
        whole = len(known) == len(errors)
        estimate = _around(value, math.sqrt(sum(se**2 for se in known)) / len(found)) if whole else Estimate(value)
        cells.append(
            Cell(
                layer=layer,
                label=found[0].label,
                estimate=estimate,
                depth=found[0].depth,
                inits=min(cell.inits for cell in found),
                one_class=any(cell.one_class for cell in found),
            )
        )
    return tuple(cells)


def _around(value: float, error: float) -> Estimate:
    return Estimate(value, value - Z * error, value + Z * error)


def _best(cells: Sequence[Cell], metric: str, dev: Mapping[int, float] | None = None) -> int | None:
    """The best of several layers; the first of equals. None where there is nothing to choose, or by."""
    sign = better(metric)
    if len(cells) < 2 or not sign:
        return None
    scores = {cell.layer: cell.estimate.value for cell in cells}
    if dev and all(math.isfinite(dev.get(layer, math.nan)) for layer in scores):
        scores = {layer: dev[layer] for layer in scores}
    return max(scores, key=lambda layer: (sign * scores[layer], -layer))


def _baselines(members: Sequence[Result], arm: str) -> tuple[tuple[str, float], ...]:
    """What needs no model, as its mean over the runs (they differ only where a model could not see an item)."""
    found: dict[str, list[float]] = defaultdict(list)
    for prefix in dict.fromkeys((f"{arm}/{BASELINE}" if arm else BASELINE, BASELINE)):
        for member in members:
            for name, estimate in member.metrics.items():
                if name.startswith(prefix):
                    found[name.removeprefix(prefix)].append(estimate.value)
        if found:
            break
    return tuple((BASELINE_NAMES.get(n, n.replace("_", " ")), _mean(v)) for n, v in sorted(found.items()))


def _gaps(kept: Sequence[Result]) -> list[str]:
    """Layers that the runs themselves say should be there. What of other tasks should be, ``planned`` knows."""
    present: dict[tuple[str, str], set[int]] = defaultdict(set)
    expected: dict[tuple[str, str], set[int]] = {}
    for result in kept:
        cell = (result.model, result.task)
        present[cell].add(result.layer)
        expected[cell] = {int(k) for k in result.tags.get("layers", "").split(",") if k}
    notes = []
    for (model, task), layers in sorted(expected.items()):
        gone = sorted(layers - present[model, task])
        if gone:
            notes.append(f"{model} · {task}: no result yet for layer{'s' * (len(gone) > 1)} {ranges(gone)}")
    return notes


def ranges(numbers: Sequence[int]) -> str:
    """``0–3, 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs)


def _rank(result: Result, order: Sequence[str]) -> tuple[int, str, int, str]:
    """Listed ones first, as listed; an untrained twin right after its model; then by name."""
    family, twin_of = family_of(result), result.tags.get("twin_of")
    place = next((i for i, pattern in enumerate(order) if matches(result, [pattern])), None)
    if place is None and twin_of:
        place = next((i for i, pattern in enumerate(order) if fnmatch.fnmatchcase(twin_of, pattern)), None)
    return (len(order) if place is None else place, twin_of or family, int(bool(twin_of)), family)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
