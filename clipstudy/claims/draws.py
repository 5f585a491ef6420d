"""What was measured, unit by unit, and its draws: what a claim's interval and p are made of."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipstudy import metrics
from clipstudy.claims.quantities import BLOCKS, Array, Evaluation, MetricReference, Unfit
from clipstudy.spec import WHOLE_MODEL


class Unit(StrEnum):
    """What is drawn anew to see how far a number would move."""

    ITEMS = "test items"  #: the same for every model; seeds are drawn beside them
    SAMPLES = "span samples"  #: each the mean of its seeds: measurements of the whole, which are not drawn again
    CHANNELS = "channels"  #: each layer's own


#: With fewer, nothing is tested. Of nine items or channels that all agree a bootstrap makes the least p that it can;
#: a single sample says nothing of how far another would land.
FEWEST: Mapping[Unit, int] = {Unit.ITEMS: 10, Unit.SAMPLES: 2, Unit.CHANNELS: 10}
#: Of fewer seeds a note says so: what they vary by is itself hardly known, and the interval so much the wider.
FEW_SEEDS = 5


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric of one model on one task, over the layers that have results."""

    model: str  #: or the family of an untrained twin, whose initialisations count as seeds
    role: str
    task: str
    kind: str
    metric: str
    blocks: int  #: of the model
    layers: tuple[int, ...]  #: ``[L]``, ascending; without layer 0, which no claim is about. None: no result has it
    scores: NDArray[Any] | None = None  #: ``[L, S, N]``: each seed's of each unit. NaN: a layer of fewer channels
    items: tuple[str, ...] = ()  #: ``[N]``: equal names are the same item, or sample, for every model
    unit: Unit = Unit.ITEMS
    seeded: bool = True  #: another seed would give other scores
    missing: tuple[int, ...] = ()  #: layers that belong to the task and have no result
    final_norm: bool = False  #: the last layer is read after the model's final norm
    twin_of: str = ""  #: of an untrained twin: the model
    inits: int = 1  #: of an untrained twin: how many initialisations; a single one's seeds are drawn in their place
    #: The settings in which the task's models were not measured alike, with its values: several where its runs differ.
    settings: tuple[tuple[str, tuple[str, ...]], ...] = ()
    mend: str = ""  #: what to type so that they are alike
    lost: str = ""  #: why the scores that were kept cannot be had

    @property
    def pattern(self) -> str:
        """What a command calls it: of a twin every initialisation."""
        return f"'{self.model}*'" if self.twin_of else self.model


class Drawn(NamedTuple):
    """What one choice of models has of each reference, ready to be computed with."""

    evaluations: dict[MetricReference, Evaluation]
    n: tuple[int, ...]  #: units of each task, in the order of the tasks' names
    paired: bool  #: what was compared was so on the same units
    notes: tuple[str, ...]


class Draws:
    """Draws of what was measured, each made once."""

    def __init__(self, draws: int) -> None:
        self.draws = draws
        self._made: dict[tuple[str, ...], Array] = {}

    def of(self, chosen: Mapping[MetricReference, Measured]) -> Drawn:
        """What of one task is compared is drawn together: the same items, or the same samples, for all.

        Raises:
            Unfit: nothing was kept to draw from, or too little.
        """
        evaluations: dict[MetricReference, Evaluation] = {}
        seeds: dict[MetricReference, Array] = {}
        numbers, notes, paired = [], [], True
        for task in sorted({curve.task for curve in chosen.values()}):
            group = {reference: curve for reference, curve in chosen.items() if curve.task == task}
            for curve in group.values():
                if curve.scores is None:
                    none = (
                        f"its runs kept no scores of single {curve.unit}, so nothing says how far {curve.metric} would "
                        f"move. Type: clipstudy rerun --model {curve.pattern} --task {task}"
                    )
                    raise Unfit(f"{curve.model} · {task}: {curve.lost or none}")
            _check_alike(task, group.values())
            if any(curve.unit is Unit.CHANNELS for curve in group.values()):
                n = min(_channels(curve) for curve in group.values())
                evaluated = {reference: self._by_layer(curve) for reference, curve in group.items()}
                paired = False
                notes.append("not paired: a channel of one layer or model is none of another's")
            else:
                evaluated, of_seeds, n = self._together(task, group)
                seeds |= of_seeds
                notes += _few_seeds(group.values())
            evaluations |= evaluated
            numbers.append(n)
        evaluations = _without_each(evaluations, seeds, chosen)
        return Drawn(evaluations, tuple(dict.fromkeys(numbers)), paired, tuple(dict.fromkeys(notes)))

    def _together(
        self, task: str, group: Mapping[MetricReference, Measured]
    ) -> tuple[dict[MetricReference, Evaluation], dict[MetricReference, Array], int]:
        """On the units that all have; each seed's means ``[L, S]`` where seeds are drawn; how many units these are."""
        members = list(group.values())
        common = sorted(set.intersection(*(set(curve.items) for curve in members)))
        unit, models = members[0].unit, ", ".join(dict.fromkeys(curve.model for curve in members))
        if len(common) < FEWEST[unit]:
            shared = "" if all(len(curve.items) == len(common) for curve in members) else " in common"
            raise Unfit(
                f"too few {unit}: {models} · {task} have {len(common)}{shared}, expected {FEWEST[unit]} or more"
                + (". Their tasks' settings or data differ" if shared else "")
            )
        kept = {reference: _taken(curve, common) for reference, curve in group.items()}
        if unit is Unit.SAMPLES:
            return _samples(task, models, group, kept), {}, len(common)
        mark = f"{zlib.crc32(chr(0).join(common).encode()):08x}"
        keys = {reference: (task, mark, curve.model, curve.metric) for reference, curve in group.items()}
        new = {key: reference for reference, key in keys.items() if key not in self._made}
        if new:
            # Items are drawn by their own stream, and seeds by their model's: whatever else is in the claim.
            means = metrics.resampled(
                [kept[reference] for reference in new.values()],
                self.draws,
                _rng(task, mark),
                [_rng(task, mark, group[reference].model) for reference in new.values()],
            )
            self._made |= dict(zip(new, means, strict=True))
        evaluated = {
            reference: _evaluation(curve, kept[reference], self._made[keys[reference]])
            for reference, curve in group.items()
        }
        return evaluated, {reference: scores.mean(axis=2) for reference, scores in kept.items()}, len(common)

    def _by_layer(self, curve: Measured) -> Evaluation:
        """Each layer's channels by themselves. What a seed begins with differs from channel to channel, so the mean of
        a channel over seeds holds what they add."""
        assert curve.scores is not None
        means = curve.scores.mean(axis=1)
        key = (curve.task, curve.model, curve.metric)
        if key not in self._made:
            drawn = [
                metrics.resampled([row[None, None, ~np.isnan(row)]], self.draws, _rng(*key, str(layer)))[0][0]
                for layer, row in zip(curve.layers, means, strict=True)
            ]
            self._made[key] = np.stack(drawn)
        return _evaluation(curve, means[:, None], self._made[key])


def _samples(
    task: str, models: str, group: Mapping[MetricReference, Measured], kept: Mapping[MetricReference, Array]
) -> dict[MetricReference, Evaluation]:
    """Every sample is one measurement of the whole, the mean of its seeds: another seed is not another sample. A
    sample's items are not drawn again: an item that comes twice agrees with itself."""
    means = {reference: scores.mean(axis=1) for reference, scores in kept.items()}
    if all(np.ptp(rows, axis=1).max() == 0 for rows in means.values()):
        n = next(iter(means.values())).shape[1]
        raise Unfit(f"{models} · {task}: all {n} samples are equal, so nothing says how far another would land")
    return {
        reference: _evaluation(group[reference], rows[:, None], rows, few=True) for reference, rows in means.items()
    }


def _few_seeds(members: Collection[Measured]) -> list[str]:
    """What to know of an interval that so few seeds are behind."""
    few: dict[int, set[str]] = {}
    for curve in members:
        if curve.seeded and curve.unit is Unit.ITEMS and _seeds(curve) < FEW_SEEDS:
            few.setdefault(_seeds(curve), set()).add(curve.model)
    notes = []
    for n, models in sorted(few.items()):
        whose = ", ".join(sorted(models))
        if n == 1:
            notes.append(f"one seed of {whose}: how far another would land is not in the interval")
        else:
            notes.append(f"{n} seeds of {whose}: how far another would land is hardly known, so the interval is wide")
    if alone := sorted({curve.model for curve in members if curve.twin_of and curve.inits == 1 and _seeds(curve) > 1}):
        notes.append(f"one initialisation of {', '.join(alone)}: how far another would land is not in the interval")
    return notes


def _without_each(
    evaluations: Mapping[MetricReference, Evaluation],
    seeds: Mapping[MetricReference, Array],
    chosen: Mapping[MetricReference, Measured],
) -> dict[MetricReference, Evaluation]:
    """``evaluations``, each with columns for what it is without each seed of each model that has several: of a quantity
    computed from them, these say how much of its spread is whose seeds'."""
    whose = {
        reference: (chosen[reference].task, chosen[reference].model, rows.shape[1]) for reference, rows in seeds.items()
    }
    owners = sorted({owner for owner in whose.values() if owner[2] > 1})
    numbers = tuple(n for *_, n in owners)
    found = {}
    for reference, evaluation in evaluations.items():
        if evaluation.few:
            found[reference] = evaluation
            continue
        columns = [evaluation.values]
        for owner in owners:
            point, n = evaluation.values[:, :1], owner[2]
            own = seeds[reference] if whose.get(reference) == owner else np.repeat(point, n, axis=1)
            columns.append((n * point - own) / (n - 1))
        found[reference] = evaluation._replace(values=np.concatenate(columns, axis=1), seeds=numbers)
    return found


def _check_alike(task: str, curves: Iterable[Measured]) -> None:
    """Raises Unfit where models are compared that were measured with other settings."""

    def told_of(values: Sequence[str]) -> str:
        return " and ".join(value if len(value) <= 40 else f"{value[:40]}…" for value in values)

    curves = list(curves)
    told = {curve.model: curve.settings for curve in curves}
    if len(set(told.values())) > 1 or any(len(values) > 1 for own in told.values() for _, values in own):
        apart = "; ".join(
            f"{model} with {', '.join(f'{name} = {told_of(values)}' for name, values in own) or 'other ones'}"
            for model, own in told.items()
        )
        raise Unfit(
            f"{task} was not measured alike: {apart}. To measure all with the newest settings, type: {curves[0].mend}"
        )


def _taken(curve: Measured, names: Sequence[str]) -> Array:
    """Scores of the units named, in that order: ``[L, S, N]``."""
    assert curve.scores is not None
    place = {name: at for at, name in enumerate(curve.items)}
    return np.asarray(curve.scores[:, :, [place[name] for name in names]], dtype=np.float64)


def _seeds(curve: Measured) -> int:
    return 0 if curve.scores is None else int(curve.scores.shape[1])


def _channels(curve: Measured) -> int:
    """Of the layer that has fewest. Raises Unfit where these are too few."""
    assert curve.scores is not None
    fewest = int((~np.isnan(curve.scores[:, 0])).sum(axis=1).min())
    if fewest < FEWEST[Unit.CHANNELS]:
        raise Unfit(
            f"too few channels: {curve.model} · {curve.task} has {fewest} at a layer, expected "
            f"{FEWEST[Unit.CHANNELS]} or more"
        )
    return fewest


def _rng(*names: str) -> np.random.Generator:
    """Draws that depend on what is drawn alone, not on what was drawn before."""
    return np.random.default_rng(zlib.crc32("\0".join(names).encode()))


def _evaluation(curve: Measured, scores: Array, drawn: Array, few: bool = False) -> Evaluation:
    """The mean of ``[L, S, N]`` and its draws, at their places in twelve blocks."""
    values = np.concatenate([np.nanmean(scores, axis=(1, 2))[:, None], drawn], axis=1)
    units = int((~np.isnan(scores[:, 0])).sum(axis=1).min())
    if curve.layers == (WHOLE_MODEL,):
        return Evaluation((float(BLOCKS),), ("",), values, units, few=few)
    at = tuple(BLOCKS * layer / curve.blocks for layer in curve.layers)
    labels = tuple(f"block {layer}" for layer in curve.layers)
    return Evaluation(at, labels, values, units, few=few, blocks=curve.blocks)


def tasks_read(measured: Iterable[Measured], references: Collection[MetricReference]) -> dict[MetricReference, str]:
    """The task that each reference means, one for all its roles: one with its metric, of its name, that most have run.
    Empty where none of its kind has a result to know its name by."""
    measured, found = tuple(measured), {}
    for reference in references:
        roles = {other.role for other in references if (other.task, other.kind) == (reference.task, reference.kind)}
        there = [curve for curve in measured if curve.role in roles and reference.means(curve.task, curve.kind)]
        having = Counter(curve.task for curve in there if curve.metric == reference.metric and curve.layers)
        ranked = {
            curve.task: (not having[curve.task], curve.task != reference.task, -having[curve.task]) for curve in there
        }
        unknown = "" if reference.kind else reference.task
        found[reference] = min(sorted(ranked), key=ranked.__getitem__, default=unknown)
    return found
