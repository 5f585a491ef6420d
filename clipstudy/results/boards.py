"""Which results count, in which order, and as views: the newest group of each (model, task), untrained twins pooled.
Pure."""

from __future__ import annotations

import fnmatch
import functools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clipstudy import metrics
from clipstudy.outcome import Estimate, Result
from clipstudy.results import alike
from clipstudy.results.pooling import mean, pooled
from clipstudy.results.units import base, of_baselines, ranges, within
from clipstudy.results.views import CEILING, Cell, Curve, View, best_layer
from clipstudy.wording import counted, plural

BASELINE = "baseline/"
#: Where the pocket models' checkpoints lie.
POCKET = "package:clipstudy/pocket/"
BASELINE_NAMES = {
    "majority": "majority class",
    "random": "random clusters",
    "span_length": "span length",
    "pos_first": "first word's part of speech",
    "pos_last": "last word's part of speech",
    "pos_coarse": "last word's coarse part of speech",
    "permuted": "unpaired texts",
    "raw_pixels": CEILING,
}
#: Baselines that differ by more than this share of the largest value in a chart have no line in common.
APART = 0.03
#: What the cells of a group have in common besides its settings, and how it is called.
PINNED = {"checkpoint": "another checkpoint", "data": "other data", "reference": "another reference model"}
#: Name → value of what needs no model.
Baselines = dict[str, float]


@dataclass(frozen=True)
class Board:
    """The results that count, in the order in which they are shown."""

    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    #: What :func:`view` drew once: thousands of results are not gone through again for every page.
    _view_cache: dict[tuple[str, str | None], View | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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
    def by_family(self) -> Mapping[str, Result]:
        """A result of each."""
        return {r.family: r for r in self.results}

    @functools.cached_property
    def families(self) -> tuple[str, ...]:
        return tuple(sorted(self.by_family, key=lambda family: _rank(self, family)))


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
            f"{model} · {task}: {counted(number, 'result')} of {what} not shown" for model, task, what, number in older
        ]
        notes += [f"{study}: {note}" if len(studies) > 1 else note for note in (*said, *_mixed(rows), *_gaps(rows))]
    ranked = sorted(kept, key=lambda r: (r.tags.get("category", ""), r.task))
    tasks = tuple(dict.fromkeys(r.task for r in ranked))
    return Board(tuple(kept), tuple(notes), tuple(order), tasks)


def newest(results: Iterable[Result]) -> tuple[list[Result], list[tuple[str, str, str, int]]]:
    """Results of the newest settings, checkpoint and data of each (study, model, task); and (model, task, of what,
    runs) of the others.

    Newest is what the run has that began last, since no cell of older settings is begun any more, while one may end
    later. A curve is of one digest, and of one checkpoint and the same data, which a rerun may find changed. Settings
    that are put back are shown again once a cell of theirs is run (``clipstudy rerun``).
    """
    cells: dict[tuple[str, str, str], dict[tuple[str, ...], list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        made_of = (result.tags.get("digest", ""), *(result.params.get(f"resolved.{one}", "") for one in PINNED))
        cells[result.study, result.model, result.task][made_of].append(result)
    kept, older = [], []
    for (_, model, task), groups in cells.items():
        latest = max(groups, key=lambda made_of: (max(map(_began, groups[made_of])), made_of))
        kept += groups[latest]
        older += [(model, task, _other(one, latest), len(rows)) for one, rows in groups.items() if one != latest]
    return kept, older


def view(shown: Board, task: str, metric: str | None = None) -> View | None:
    """``metric`` (None: the headline) of one task over all models; None: no model has it."""
    if (task, metric) not in shown._view_cache:
        shown._view_cache[task, metric] = _view(shown, task, metric)
    return shown._view_cache[task, metric]


def _view(shown: Board, task: str, metric: str | None) -> View | None:
    rows = shown.by_task.get(task, ())
    headline = next((r.tags["metric"] for r in rows if r.tags.get("metric")), "accuracy")
    name = metric or headline
    rows = [r for r in rows if name in r.metrics]
    if not rows:
        return None
    families: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for row in rows:
        families[row.study, row.family].append(row)
    several = len({r.study for r in shown.results}) > 1
    same = base(name) == of_baselines(rows[0].tags.get("kind", ""), base(headline))
    lines, own = _baselines(rows, name) if same else ({}, {})
    ranked = sorted((_rank(shown, family, study), (study, family)) for study, family in families)
    curves = tuple(replace(_curve(families[key], name, several, own), rank=rank) for rank, key in ranked)
    reference = tuple(curve for curve in curves if _is_reference(curve))
    if len(reference) == len(curves):  # nothing else is there yet
        reference = ()
    baselines = tuple((f"{of}: {what}" if several else what, value) for (of, what), value in lines.items())
    return View(
        task=task,
        title=rows[0].tags.get("task_title", task),
        category=rows[0].tags.get("category", ""),
        metric=name,
        modality=rows[0].tags.get("modality", "text"),
        curves=tuple(curve for curve in curves if curve not in reference),
        baselines=baselines,
        caption=_one_sample(rows),
        note=note_of(rows),
        mixed=mixed(rows),
        reference=reference,
    )


def note_of(results: Iterable[Result], tag: str = "note") -> str:
    """What the studies of ``results`` say of themselves (``note``, ``description``), each what it said last."""
    latest: dict[str, Result] = {}
    for result in sorted(results, key=lambda r: r.tags.get("ended", "")):
        latest[result.study] = result
    return " ".join(dict.fromkeys(r.tags[tag] for r in latest.values() if r.tags.get(tag)))


def estimate(measured: Mapping[str, Estimate], metric: str) -> Estimate:
    """``metric`` as it is shown and written everywhere, of what one cell measured.

    A share of test items that is 0 or 1 has Wilson's interval: all draws of a bootstrap are equal there, and 10 of 10
    would look as sure as 10,000 of 10,000. Any other interval is as it was recorded; that of a share, which few seeds
    may have widened too far, ends at 0 and 1.
    """
    found, items = measured[metric], measured.get("items/test")
    if base(metric) == "accuracy" and found.value in (0, 1) and found.low is not None and items:
        n = round(items.value)
        return Estimate(*metrics.share_interval(round(found.value) * n, n))
    return within(found, metric)


def estimates(measured: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """All that one cell measured, as :func:`estimate` has it."""
    return {name: estimate(measured, name) for name in measured}


def stands_in(result: Result) -> bool:
    """Is the model not the one that its role is named after (a pocket model, an untrained one, one of a study that says
    of itself what it is not to be taken for), or was it shown a part of the rows (``limit``)? Then no number that
    others published is a number of it."""
    limited = bool(result.params.get("dataset.limit"))
    return is_pocket(result) or result.tags.get("init") == "random" or bool(result.tags.get("note")) or limited


def recorded_as(metric: str, runs: Sequence[Result]) -> str:
    """``metric`` as ``runs`` have it: ``native/accuracy`` is ``accuracy`` where that view is the headline's."""
    view, _, name = metric.rpartition("/")
    headline = [_headline_view(run) == view for run in runs]
    return name if view and headline and all(headline) else metric


def _headline_view(run: Result) -> str | None:
    try:
        return str(json.loads(run.params["option.views"])[0])
    except (ValueError, LookupError, TypeError, RecursionError):  # it has none, or one that somebody else wrote
        return None


def is_pocket(result: Result) -> bool:
    return result.params.get("model.checkpoint", "").startswith(POCKET)


def planned_layers(result: Result) -> frozenset[int]:
    """The layers at which the study measures the model of ``result`` on its task; none where the run does not say."""
    return frozenset(int(layer) for layer in result.tags.get("layers", "").split(",") if layer)


def matches(result: Result, patterns: Sequence[str]) -> bool:
    """Whether a pattern names the result's family, model or one of its roles."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in called(result))


#: What is measured of probes, whose accuracy on dev chooses a layer: none is chosen on what is reported.
OF_PROBES = ("accuracy", "macro_f1", "selectivity")


def called(result: Result) -> list[str]:
    """The names by which a pattern may take the result's model."""
    return [name for name in (result.family, result.model, *result.tags.get("role", "").split()) if name]


# -- inside ------------------------------------------------------------------------------------------------------


def _curve(members: Sequence[Result], metric: str, several: bool, own: Mapping[str, Baselines]) -> Curve:
    """One model's curve, its title with its study's name where there are ``several``.

    Args:
        own: run id → the baselines that are that run's own.
    """
    by_layer: dict[int, list[Result]] = defaultdict(list)
    for member in members:
        by_layer[member.layer].append(member)
    arm = f"{metric.rpartition('/')[0]}/" if "/" in metric else ""
    cells = tuple(_cell(layer, by_layer[layer], metric, arm, own) for layer in sorted(by_layer))
    dev = {}
    if base(metric) in OF_PROBES:
        scored = f"{arm}dev_accuracy"
        dev = {k: mean([r.metrics[scored].value for r in rs if scored in r.metrics]) for k, rs in by_layer.items()}
    tags = members[0].tags
    study, title = members[0].study, tags.get("model_title") or members[0].family
    return Curve(
        family=members[0].family,
        title=f"{study}: {title}" if several else title,
        twin_of=tags.get("twin_of"),
        cells=cells,
        best=best_layer(cells, metric, dev),
        missing=tuple(sorted(planned_layers(members[0]) - set(by_layer))),
        role=tags.get("role", ""),
        study=study,
        stands_in=any(stands_in(r) for r in members),
        dev=dev,
    )


def _began(result: Result) -> str:
    return result.tags.get("started") or result.tags.get("ended", "")


def _other(one: tuple[str, ...], latest: tuple[str, ...]) -> str:
    """How ``one`` differs from the ``latest`` of :func:`newest`."""
    if one[0] != latest[0]:
        return f"older settings ({one[0]})"
    return ", ".join(
        f"{called} ({a})" for called, a, b in zip(PINNED.values(), one[1:], latest[1:], strict=True) if a != b
    )


def _is_reference(curve: Curve) -> bool:
    """Is it the likeness of a model to itself?"""
    runs = [run for cell in curve.cells for run in cell.runs]
    return all(run.params.get("reference") == run.model for run in runs)


def _one_sample(rows: Sequence[Result]) -> str:
    """What intervals leave out where a clustering is of one sample of spans."""
    if not all("samples" in r.metrics and r.metrics["samples"].value == 1 for r in rows):
        return ""
    known = any(estimate.low is not None for r in rows for estimate in r.metrics.values())
    return f"One sample of spans: {'the intervals cover k-means seeds only' if known else 'there are no intervals'}."


def _cell(layer: int, members: Sequence[Result], metric: str, arm: str, own: Mapping[str, Baselines]) -> Cell:
    tags = members[0].tags
    items = members[0].metrics.get("items/test")
    flags = [r.metrics[f"{arm}one_class"].value for r in members if f"{arm}one_class" in r.metrics]
    depth = tags.get("depth")
    by_init = {r.model: estimate(r.metrics, metric) for r in members}
    return Cell(
        layer=layer,
        label=tags.get("layer_label", str(layer)),
        estimate=pooled([*by_init.values()], metric),
        depth=float(depth) if depth else None,
        n=round(items.value) if items and math.isfinite(items.value) else None,
        inits=len(members),
        by_init=by_init,
        one_class=any(value > 0 for value in flags),
        baselines=tuple(_means(own.get(r.run_id, {}) for r in members).items()),
        runs=tuple(members),
    )


def _baselines(members: Sequence[Result], metric: str) -> tuple[dict[tuple[str, str], float], dict[str, Baselines]]:
    """What needs no model: (study, name) → its mean over the study's runs, where they agree as they do but for what a
    model could not see; and run id → those of which each run has its own, as chance has for a map of its own area."""
    arm = metric.rpartition("/")[0]
    prefixes = dict.fromkeys((f"{arm}/{BASELINE}" if arm else BASELINE, BASELINE))
    prefix = next((p for p in prefixes if any(name.startswith(p) for r in members for name in r.metrics)), BASELINE)
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for member in members:
        for name, value in member.metrics.items():
            if name.startswith(prefix):
                short = name.removeprefix(prefix)
                found[member.study, BASELINE_NAMES.get(short, short.replace("_", " "))][member.run_id] = value.value
    scale = max(
        abs(v) for v in (*(r.metrics[metric].value for r in members), *(v for f in found.values() for v in f.values()))
    )
    lines: dict[tuple[str, str], float] = {}
    own: dict[str, Baselines] = defaultdict(dict)
    for (study, name), values in sorted(found.items()):
        if max(values.values()) - min(values.values()) <= APART * scale:
            lines[study, name] = mean([*values.values()])
            continue
        for run_id, number in values.items():
            own[run_id][name] = number
    return lines, own


def _means(found: Iterable[Baselines]) -> Baselines:
    """Name → its mean over those that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    for one in found:
        for name, value in one.items():
            values[name].append(value)
    return {name: mean(numbers) for name, numbers in values.items()}


def mixed(rows: Iterable[Result]) -> str:
    """In which settings a task's models were not measured alike, study by study."""
    studies: dict[str, list[Result]] = defaultdict(list)
    for row in rows:
        studies[row.study].append(row)
    titles = {r.family: r.tags.get("model_title") or r.family for of in studies.values() for r in of}
    return "; ".join(filter(None, (alike.said(alike.unlike(of), titles) for of in studies.values())))


def _mixed(kept: Sequence[Result]) -> list[str]:
    """What of one study's tasks' models were not measured alike, and how they would be."""
    tasks: dict[str, list[Result]] = defaultdict(list)
    for result in kept:
        tasks[result.task].append(result)
    return [
        f"{task}: not measured alike: {mixed(rows)}. To measure all of them with the newest settings, type: "
        f"{alike.again(rows[0].study, task, alike.behind(rows, apart))}"
        for task, rows in sorted(tasks.items())
        if (apart := alike.unlike(rows))
    ]


def _gaps(kept: Sequence[Result]) -> list[str]:
    """Layers that the runs themselves say should be there. What of other tasks should be, ``planned`` knows."""
    present: dict[tuple[str, str], set[int]] = defaultdict(set)
    expected: dict[tuple[str, str], frozenset[int]] = {}
    for result in kept:
        cell = (result.model, result.task)
        present[cell].add(result.layer)
        expected[cell] = planned_layers(result)
    notes = []
    for (model, task), layers in sorted(expected.items()):
        gone = sorted(layers - present[model, task])
        if gone:
            notes.append(f"{model} · {task}: no result yet for {plural(len(gone), 'layer')} {ranges(gone)}")
    return notes


def _rank(shown: Board, family: str, study: str = "") -> tuple[int | str, ...]:
    """Listed ones first, as listed, then by name; an untrained twin right behind its model, whatever part the model
    plays and whichever pattern would take the twin's own name."""
    own = shown.by_family[family]
    twin_of = own.tags.get("twin_of", "")
    names = called(shown.by_family[twin_of]) if twin_of in shown.by_family else [*filter(None, [twin_of]), *called(own)]
    listed = (i for i, pattern in enumerate(shown.order) if any(fnmatch.fnmatchcase(name, pattern) for name in names))
    return (next(listed, len(shown.order)), twin_of or family, study, int(bool(twin_of)), family)
