"""Measured curves → verdicts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from clipstudy import metrics
from clipstudy.claims.catalogue import ASKED_FOR, CLAIMS, Claim, Clause, Inequality, wanted
from clipstudy.claims.draws import Draws, Measured, tasks_read
from clipstudy.claims.quantities import UNTRAINED, Array, Evaluation, MetricReference, Unfit
from clipstudy.metrics import Difference
from clipstudy.wording import plural

ALPHA = 0.05
DRAWS = 2000


class Verdict(StrEnum):
    """What became of a claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NOT_RUN = "not run"
    NOT_TESTABLE = "not testable"


@dataclass(frozen=True)
class Part:
    """One inequality at one place, tested. The two last p are corrected: that of the side for which a single part is
    enough for the number of parts, and ``against`` for the number of clauses, of which one is enough to refute."""

    text: str
    where: str  #: the block or stage; empty for a statistic over all
    metric: str  #: its unit
    found: Difference  #: the left side of ``text`` less its right one; of an equivalence test, p is TOST's
    holds: float  #: p at which it holds
    against: float  #: p at which it goes the other way

    @property
    def speaks(self) -> int:
        """1: it holds, −1: it goes the other way, 0: neither is shown."""
        return 1 if self.holds <= ALPHA else -1 if self.against <= ALPHA else 0


class Condition(NamedTuple):
    """One of those that must all hold for a claim: an inequality at all its places, or a "somewhere"."""

    text: str
    side: int  #: 1: it holds, −1: it goes the other way, 0: neither is shown


@dataclass(frozen=True)
class Judgement:
    """A claim and what the results of one choice of models say of it."""

    claim: Claim
    verdict: Verdict
    models: Mapping[str, str] = field(default_factory=dict)  #: role → model
    parts: tuple[Part, ...] = ()
    deciding: Part | None = None  #: the weakest where all must hold, the strongest where one is enough
    conditions: tuple[Condition, ...] = ()
    n: tuple[int, ...] = ()  #: test items (samples, channels) behind the draws, in the order of the tasks' names
    paired: bool = True  #: False: what is compared has no units in common: channels
    why: str = ""  #: of a verdict that is none: what is missing, or what the claim needs; of one: what to know of it
    todo: str = ""  #: a command that goes on from there; empty: none would help
    missing: tuple[tuple[str, str], ...] = ()  #: model (a pattern) and task of what was not run; empty: not known

    @property
    def p(self) -> float | None:
        """At which the deciding part would hold or go the other way, whichever is nearer: ≤ α with a verdict."""
        return None if self.deciding is None else min(self.deciding.holds, self.deciding.against)


def judge(measured: Iterable[Measured], claims: Iterable[Claim] = CLAIMS, draws: int = DRAWS) -> list[Judgement]:
    """Every claim on the results of one study, once for each choice of models that play its roles."""
    measured, claims = tuple(measured), tuple(claims)
    evidence = _Evidence(measured, tasks_read(measured, wanted(claims)), Draws(draws))
    return [judgement for claim in claims for judgement in _judge(claim, evidence)]


@dataclass(frozen=True)
class _Evidence:
    """What was measured, by who plays which part."""

    measured: tuple[Measured, ...]
    tasks: Mapping[MetricReference, str]
    draws: Draws

    def playing(self, role: str, both_norms: bool) -> list[str]:
        """The models of a role; those whose last layer is read after the final norm only with ``both_norms``."""
        found = (curve.model for curve in self.measured if curve.role == role and (both_norms or not curve.final_norm))
        return list(dict.fromkeys(found))

    def twin(self, role: str, model: str) -> str:
        """The family of the untrained twin of ``model``; empty: it has none, or none with results."""
        return next((curve.model for curve in self.measured if (curve.role, curve.twin_of) == (role, model)), "")

    def of(self, reference: MetricReference, model: str) -> Measured | None:
        """What ``model`` has of it; None: nothing."""
        wanted = (model, self.tasks[reference], reference.metric, reference.role)
        for curve in self.measured:
            if (curve.model, curve.task, curve.metric, curve.role) == wanted:
                return curve
        return None


def _judge(claim: Claim, evidence: _Evidence) -> list[Judgement]:
    if claim.untestable:
        return [Judgement(claim, Verdict.NOT_TESTABLE, why=claim.untestable)]
    roles = sorted({reference.role.removeprefix(UNTRAINED) for reference in claim.reads})
    twins = sorted({reference.role for reference in claim.reads if reference.role.startswith(UNTRAINED)})
    playing = {role: evidence.playing(role, claim.both_norms) for role in roles}
    if empty := [role for role in roles if not playing[role]]:
        why = f"no result of a model with the {plural(len(empty), 'role')} {', '.join(empty)}"
        if normed := dict.fromkeys(model for role in empty for model in evidence.playing(role, both_norms=True)):
            why += f", raw; the last layer of {', '.join(normed)} is read after its final norm (final_norm)"
        return [Judgement(claim, Verdict.NOT_RUN, why=why, todo="clipstudy enqueue --all", missing=(("", ""),))]
    found = []
    for models in itertools.product(*(playing[role] for role in roles)):
        named = dict(zip(roles, models, strict=True))
        named |= {twin: evidence.twin(twin, named[twin.removeprefix(UNTRAINED)]) for twin in twins}
        found.append(_judge_models(claim, evidence, named))
    return found


class _Missing(NamedTuple):
    """A cell that was not run, and the words of the command that runs it; empty where a name is not known."""

    whose: str
    where: str
    lacks: str
    model: str
    task: str


def _judge_models(claim: Claim, evidence: _Evidence, models: Mapping[str, str]) -> Judgement:
    chosen, missing, never, notes = {}, [], [], []
    for reference in sorted(claim.reads):
        model, task = models[reference.role], evidence.tasks[reference]
        curve = evidence.of(reference, model)
        if task not in ("", reference.task):
            notes.append(f"read from {task}, in place of {reference.task}")
        if curve is None or curve.missing:
            missing.append(_lacking(reference, model, task, curve, models))
        elif not curve.layers:
            never.append(
                f"{model} · {task} records no {reference.metric}: {ASKED_FOR.get(reference.metric, 'it ran without')}"
            )
        else:
            chosen[reference] = curve
    if never:
        return Judgement(claim, Verdict.NOT_TESTABLE, models, why="; ".join(never))
    if missing:
        cells = tuple((cell.model.strip("'"), cell.task) for cell in missing)
        told = f"missing: {_told(missing)}"
        return Judgement(claim, Verdict.NOT_RUN, models, why=told, todo=_command(missing), missing=cells)
    try:
        drawn = evidence.draws.of(chosen)
        clauses = _merged(claim.clauses)
        tested = [(clause.some, _tested(clause, drawn.evaluations, len(clauses))) for clause in clauses]
    except Unfit as error:
        return Judgement(claim, Verdict.NOT_TESTABLE, models, why=str(error))
    sides = [_side(parts, some) for some, parts in tested]
    side = -1 if -1 in sides else min(sides)
    verdict = {1: Verdict.SUPPORTED, -1: Verdict.REFUTED, 0: Verdict.UNDECIDED}[side]
    parts = tuple(part for _, parts in tested for part in parts)
    decisive = [_deciding(parts, some, side) for (some, parts), own in zip(tested, sides, strict=True) if own == side]
    deciding = max(decisive, key=lambda part: part.against if side < 0 else part.holds)
    why = "; ".join(dict.fromkeys(filter(None, (*notes, *drawn.notes, claim.note))))
    conditions = tuple(
        one for clause, (_, own) in zip(clauses, tested, strict=True) for one in _conditions(clause, own)
    )
    return Judgement(claim, verdict, models, parts, deciding, conditions, drawn.n, drawn.paired, why)


def _lacking(
    reference: MetricReference, model: str, task: str, curve: Measured | None, models: Mapping[str, str]
) -> _Missing:
    """What is not there of a reference. ``task`` is empty where none of its kind has a result to know its name by."""
    where = task or f"a task of the kind {reference.kind}"
    if not model:
        original = models[reference.role.removeprefix(UNTRAINED)]
        return _Missing(f'an untrained twin of {original} (twin_of, init = "random")', where, "no result", "", task)
    pattern = curve.pattern if curve else f"'{model}*'" if reference.role.startswith(UNTRAINED) else model
    lacks = f"no {reference.metric}" if curve is None else f"layers {', '.join(map(str, curve.missing))}"
    return _Missing(model, where, lacks, pattern, task)


def _told(missing: Sequence[_Missing]) -> str:
    """Each model once for all of which it lacks the same."""
    cells: dict[tuple[str, str], list[str]] = {}
    for cell in missing:
        cells.setdefault((cell.whose, cell.lacks), []).append(cell.where)
    return "; ".join(f"{whose} · {', '.join(dict.fromkeys(on))}: {lacks}" for (whose, lacks), on in cells.items())


def _command(missing: Sequence[_Missing]) -> str:
    """What enqueues them all. One whose model or task has no known name leaves all of these in."""
    words = []
    for option, names in (("model", [cell.model for cell in missing]), ("task", [cell.task for cell in missing])):
        if all(names):
            words += [f"--{option} {name}" for name in dict.fromkeys(names)]
    return f"clipstudy enqueue {' '.join(words) or '--all'}"


def _merged(clauses: Sequence[Clause]) -> list[Clause]:
    """What must hold everywhere as one clause, corrected as one family; then each "somewhere"."""
    everywhere = tuple(part for clause in clauses if not clause.some for part in clause.parts)
    return ([Clause(everywhere)] if everywhere else []) + [clause for clause in clauses if clause.some]


def _side(parts: Sequence[Part], some: bool) -> int:
    """1: the clause holds, −1: it does not, 0: neither is shown."""
    sides = [part.speaks for part in parts]
    # The side for which a single part is enough, and that for which all are needed.
    by_one, by_all = (1, -1) if some else (-1, 1)
    if by_one in sides:
        return by_one
    return by_all if all(side == by_all for side in sides) else 0


def _conditions(clause: Clause, parts: Sequence[Part]) -> list[Condition]:
    """What became of each condition of a clause."""
    if clause.some:
        return [Condition(clause.text, _side(parts, some=True))]
    texts = dict.fromkeys(part.text for part in parts)
    return [Condition(text, _side([part for part in parts if part.text == text], some=False)) for text in texts]


def _deciding(parts: Sequence[Part], some: bool, side: int) -> Part:
    """The part on which the clause's side hangs; undecided, the one that is nearest to deciding it."""
    if side < 0:
        return (max if some else min)(parts, key=lambda part: part.against)
    if some:
        return min(parts, key=lambda part: (part.holds, -part.against))
    return max(parts, key=lambda part: (part.holds, -part.against))


def _tested(clause: Clause, evaluations: Mapping[MetricReference, Evaluation], clauses: int) -> list[Part]:
    """Every part of a clause, one of ``clauses``."""
    parts = []
    for part in clause.parts:
        evaluation = part.quantity.of(evaluations)
        for label, values in zip(evaluation.labels, evaluation.values, strict=True):
            parts.append(Part(part.text, label, part.quantity.metric, *_test(part, evaluation, values)))
    # One part is enough to refute "everywhere", or to support "somewhere": that side is corrected for their number.
    # And one clause is enough to refute the claim.
    holds, against = np.array([[part.holds, part.against] for part in parts]).T
    if clause.some:
        holds = metrics.holm(holds)
    else:
        against = metrics.holm(against)
    against = np.minimum(1.0, clauses * against)
    return [replace(part, holds=float(h), against=float(a)) for part, h, a in zip(parts, holds, against, strict=True)]


def _test(part: Inequality, evaluation: Evaluation, values: Array) -> tuple[Difference, float, float]:
    """The statistic, the p at which the part holds, and the p at which it goes the other way (1 for the wrong sign).

    Args:
        values: of one place of ``evaluation``.
    """
    value = float(values[0])
    draws, seeds = evaluation.apart(values)
    if evaluation.few:
        found = metrics.of_samples(value, draws, evaluation.step)
    else:
        found = metrics.difference(value, draws, seeds, evaluation.units)
        if part.quantity.metric == "accuracy":
            n = int(evaluation.units)
            # Of what lies that much above a number, a draw of 0 says nothing of items.
            apart = math.inf if evaluation.less else metrics.differing(draws, n)
            found = metrics.not_certain(found, n, apart)
    # An interval knows nothing of where a rank correlation ends.
    found = found._replace(low=max(found.low, evaluation.ends[0]), high=min(found.high, evaluation.ends[1]))
    if part.margin is not None:
        free = evaluation.units - 1 if evaluation.few else metrics.freedom(found.error, seeds, evaluation.units)
        same = metrics.tost(found.value, found.error, part.margin, free)
        beyond = min(1.0, 2 * (1 - same)) if abs(found.value) > part.margin else 1.0
        # TOST's p is of lying beyond the margin, so what is left of it is the p of lying within, doubled for two sides.
        return found._replace(p=same), same, beyond
    # The draws of a rank correlation may lie on the other side of its estimate; such a p speaks for neither.
    ends = found.value, float(np.median(draws))
    above, below = found.p if min(ends) > 0 else 1.0, found.p if max(ends) < 0 else 1.0
    return (found, below, above) if part.below else (found, above, below)
