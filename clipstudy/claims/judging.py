"""Measured curves → verdicts."""

from __future__ import annotations

import itertools
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipstudy import metrics
from clipstudy.claims.quantities import BLOCKS, Array, Reading, Stack, Unfit
from clipstudy.claims.stated import CLAIMS, Claim, Clause
from clipstudy.metrics import Difference
from clipstudy.spec import WHOLE_MODEL

ALPHA = 0.05
DRAWS = 2000
#: Half of a 95% interval in standard errors.
_Z = 1.959964


class Verdict(StrEnum):
    """What became of a claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NOT_RUN = "not run"
    NOT_TESTABLE = "not testable"


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric of one model on one task, over the layers that have results."""

    model: str
    role: str
    task: str
    kind: str
    metric: str
    blocks: int  #: of the model
    layers: tuple[int, ...]  #: ``[L]``, ascending; without layer 0, which no claim is about
    estimates: Array  #: ``[L, 3]``: value, low, high; NaN where no interval was recorded
    scores: NDArray[Any] | None = None  #: ``[L, S, N]``: each seed's score (right or not) of each test item, where kept
    replicates: Array | None = None  #: ``[L, R]``: one value a span sample and seed, where items are not resampled
    items: str = ""  #: equal for two that were scored on the same items (or the same samples and seeds)
    missing: tuple[int, ...] = ()  #: layers that belong to the task and have no result
    final_norm: bool = False  #: the last layer is read after the model's final norm
    title: str = ""  #: how the model is shown

    @property
    def n(self) -> int | None:
        """Test items, or replicates; None where only intervals are known."""
        kept = self.scores if self.scores is not None else self.replicates
        return None if kept is None else int(kept.shape[-1])

    @property
    def needs_no_model(self) -> bool:
        """A floor that is computed from the data alone: exact."""
        return self.metric.startswith("baseline/")


@dataclass(frozen=True)
class Part:
    """One inequality at one place, tested. Of the two last p, one is corrected: that of the side for which a single
    part is enough."""

    text: str
    where: str  #: the block or stage; empty for a statistic over all
    metric: str  #: its unit
    found: Difference  #: of an equivalence test, p is TOST's
    holds: float  #: p at which it holds
    against: float  #: p at which it goes the other way

    @property
    def speaks(self) -> int:
        """1: it holds, −1: it goes the other way, 0: neither is shown."""
        return 1 if self.holds <= ALPHA else -1 if self.against <= ALPHA else 0


@dataclass(frozen=True)
class Judgement:
    """A claim and what the results of one choice of models say of it."""

    claim: Claim
    verdict: Verdict
    models: Mapping[str, str] = field(default_factory=dict)  #: role → model
    parts: tuple[Part, ...] = ()
    deciding: Part | None = None  #: the weakest where all must hold, the strongest where one is enough
    n: tuple[int, ...] = ()  #: test items (or replicates) behind the draws, in the order of the tasks' names
    paired: bool = True  #: False: some models could not be compared on the same items
    why: str = ""  #: of a verdict that is none: what is missing, or what the claim needs
    todo: str = ""  #: a command that goes on from there

    @property
    def p(self) -> float | None:
        """At which the deciding part would hold or go the other way, whichever is nearer: ≤ α with a verdict."""
        return None if self.deciding is None else min(self.deciding.holds, self.deciding.against)


def judge(measured: Iterable[Measured], claims: Iterable[Claim] = CLAIMS, draws: int = DRAWS) -> list[Judgement]:
    """Every claim on the results of one study, once for each choice of models that play its roles."""
    evidence = _Evidence(tuple(measured), draws)
    return [judgement for claim in claims for judgement in _judge(claim, evidence)]


class _Evidence:
    """What was measured, and its draws, each made once."""

    def __init__(self, measured: tuple[Measured, ...], draws: int) -> None:
        self.measured = measured
        self.draws = draws
        self._kept: dict[tuple[str, str], dict[str, Array]] = {}

    def of(self, reading: Reading, model: str) -> Measured | None:
        for one in self.measured:
            if one.model == model and one.metric == reading.metric and reading.task in (one.task, one.kind):
                return one
        return None

    def stacks(self, chosen: Mapping[Reading, Measured]) -> tuple[dict[Reading, Stack], bool]:
        """The draws of each reading; and were models of one task drawn on the same items?"""
        together: dict[tuple[str, str], list[Measured]] = defaultdict(list)
        for one in chosen.values():
            together[one.task, one.metric].append(one)
        drawn: dict[tuple[str, str, str], Array] = {}
        paired = True
        for (task, metric), group in together.items():
            kept = self._drawn(task, metric)
            sizes = {kept[one.model].shape[1] if one.model in kept else 0 for one in group}
            same = len({one.items for one in group}) == 1
            # Replicates of other samples are not paired by their number, nor can they be set against other draws.
            fit = len(sizes) == 1 and 0 not in sizes and (same or all(one.scores is not None for one in group))
            paired &= len(group) == 1 or (fit and same)
            for one in group:
                drawn[task, metric, one.model] = kept[one.model] if fit else self._recorded(one)
        return {reading: _stack(one, drawn[one.task, one.metric, one.model]) for reading, one in chosen.items()}, paired

    def _drawn(self, task: str, metric: str) -> dict[str, Array]:
        """Model → ``[L, draws]`` of all that kept their items."""
        if (task, metric) not in self._kept:
            found: dict[str, Array] = {}
            samples: dict[str, list[Measured]] = defaultdict(list)
            for one in self.measured:
                if (one.task, one.metric) != (task, metric):
                    continue
                if one.scores is not None:
                    samples[one.items].append(one)
                elif one.replicates is not None:
                    found[one.model] = one.replicates
            for items, group in samples.items():
                rng = _rng(task, metric, items)
                means = metrics.resampled([one.scores for one in group if one.scores is not None], self.draws, rng)
                found |= {one.model: mean for one, mean in zip(group, means, strict=True)}
            self._kept[task, metric] = found
        return self._kept[task, metric]

    def _recorded(self, one: Measured) -> Array:
        """Normal draws with the recorded values and intervals."""
        value, low, high = one.estimates.T
        error = np.zeros_like(value) if one.needs_no_model else (high - low) / (2 * _Z)
        if np.isnan(error).any():
            raise Unfit(f"{one.model} · {one.task}: {one.metric} was recorded without an interval")
        noise = _rng(one.task, one.metric, one.model).standard_normal((len(value), self.draws))
        return value[:, None] + error[:, None] * noise


def _rng(*names: str) -> np.random.Generator:
    """Draws that depend on what is drawn alone, not on what was drawn before."""
    return np.random.default_rng(zlib.crc32("\0".join(names).encode()))


def _stack(one: Measured, drawn: Array) -> Stack:
    values = np.concatenate([one.estimates[:, :1], drawn], axis=1)
    if one.layers == (WHOLE_MODEL,):
        return Stack((float(BLOCKS),), ("",), values)
    at = tuple(BLOCKS * layer / one.blocks for layer in one.layers)
    return Stack(at, tuple(f"block {layer}" for layer in one.layers), values)


def _judge(claim: Claim, evidence: _Evidence) -> list[Judgement]:
    if claim.untestable:
        return [Judgement(claim, Verdict.NOT_TESTABLE, why=claim.untestable)]
    roles = sorted({reading.role for reading in claim.reads})
    playing = {
        role: list(
            dict.fromkeys(
                one.model for one in evidence.measured if one.role == role and (claim.both_norms or not one.final_norm)
            )
        )
        for role in roles
    }
    if empty := [role for role in roles if not playing[role]]:
        plural = "s" * (len(empty) > 1)
        why = f"no result of a model with the role{plural} {', '.join(empty)}"
        return [Judgement(claim, Verdict.NOT_RUN, why=why, todo="clipstudy enqueue --all")]
    choices = itertools.product(*(playing[role] for role in roles))
    return [_judge_models(claim, evidence, dict(zip(roles, models, strict=True))) for models in choices]


def _judge_models(claim: Claim, evidence: _Evidence, models: Mapping[str, str]) -> Judgement:
    chosen, missing = {}, []
    for reading in sorted(claim.reads):
        model = models[reading.role]
        one = evidence.of(reading, model)
        if one is None:
            missing.append((model, reading.task, f"{model} · {reading.task}: no {reading.metric}"))
        elif one.missing:
            missing.append((model, one.task, f"{model} · {one.task}: layers {', '.join(map(str, one.missing))}"))
        else:
            chosen[reading] = one
    if missing:
        names = [dict.fromkeys(column) for column in zip(*missing, strict=True)]
        words = [
            f"--{option} {name}" for option, column in zip(("model", "task"), names, strict=False) for name in column
        ]
        todo = f"clipstudy enqueue {' '.join(words)}"
        return Judgement(claim, Verdict.NOT_RUN, models, why="missing: " + "; ".join(names[2]), todo=todo)
    try:
        stacks, paired = evidence.stacks(chosen)
        tested = [(clause.some, _tested(clause, stacks)) for clause in _merged(claim.clauses)]
    except Unfit as error:
        return Judgement(claim, Verdict.NOT_TESTABLE, models, why=str(error))
    sides = [_side(parts, some) for some, parts in tested]
    side = -1 if -1 in sides else min(sides)
    verdict = {1: Verdict.SUPPORTED, -1: Verdict.REFUTED, 0: Verdict.UNDECIDED}[side]
    parts = tuple(part for _, parts in tested for part in parts)
    decisive = [_deciding(parts, some, side) for (some, parts), own in zip(tested, sides, strict=True) if own == side]
    deciding = max(decisive, key=lambda part: part.against if side < 0 else part.holds)
    n = tuple(dict.fromkeys(one.n for one in chosen.values() if one.n is not None))
    return Judgement(claim, verdict, models, parts, deciding, n, paired)


def _merged(clauses: Sequence[Clause]) -> list[Clause]:
    """What must hold everywhere as one clause, corrected as one family; then each "somewhere"."""
    everywhere = tuple(part for clause in clauses if not clause.some for part in clause.parts)
    return ([Clause(everywhere)] if everywhere else []) + [clause for clause in clauses if clause.some]


def _side(parts: Sequence[Part], some: bool) -> int:
    """1: the clause holds, −1: it does not, 0: neither is shown."""
    said = [part.speaks for part in parts]
    one, each = (1, -1) if some else (-1, 1)
    if one in said:
        return one
    return each if all(speaks == each for speaks in said) else 0


def _deciding(parts: Sequence[Part], some: bool, side: int) -> Part:
    """The part on which the clause's side hangs."""
    if side < 0:
        return (max if some else min)(parts, key=lambda part: part.against)
    return (min if some else max)(parts, key=lambda part: part.holds)


def _tested(clause: Clause, stacks: Mapping[Reading, Stack]) -> list[Part]:
    parts = []
    for part in clause.parts:
        stack = part.quantity.of(stacks)
        for label, values in zip(stack.labels, stack.values, strict=True):
            tested = _test(values[0], values[1:], part.margin)
            parts.append(Part(part.text, label, part.quantity.metric, *tested))
    # One part is enough to refute "everywhere", or to support "somewhere": that side is corrected for their number.
    if clause.some:
        corrected = metrics.holm([part.holds for part in parts])
        return [replace(part, holds=float(p)) for part, p in zip(parts, corrected, strict=True)]
    corrected = metrics.holm([part.against for part in parts])
    return [replace(part, against=float(p)) for part, p in zip(parts, corrected, strict=True)]


#: Fewer draws than this are replicates, not a bootstrap's: their shares are too coarse for a p.
_FEW = 1000


def _test(value: float, draws: Array, margin: float | None) -> tuple[Difference, float, float]:
    """The statistic, the p at which it holds, and the p at which it goes the other way (1 for the wrong sign)."""
    found = metrics.difference(float(value), draws, normal=len(draws) < _FEW)
    if margin is None:
        # The draws of a rank correlation may lie on the other side of its estimate; such a p speaks for neither.
        middle = float(np.median(draws))
        return found, found.p if min(value, middle) > 0 else 1.0, found.p if max(value, middle) < 0 else 1.0
    same = metrics.tost(found.value, found.error, margin)
    beyond = min(1.0, 2 * (1 - same)) if abs(value) > margin else 1.0
    # TOST's p is of lying beyond the margin, so what is left of it is the p of lying within, doubled for two sides.
    return found._replace(p=same), same, beyond
