"""Judgements as rows that a page, a terminal or a script shows. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from clipstudy.claims import ALPHA, Judgement, Part, Verdict
from clipstudy.results import units
from clipstudy.wording import counted

#: How a page says what the verdicts are.
METHOD = (
    "A claim about every layer is supported if it holds at each one (intersection–union, each at "
    f"α = {ALPHA}), and refuted if some layer goes the other way, corrected for the number of layers (Holm) and of "
    "conditions (Bonferroni). “Comparable” is an equivalence test with its margin stated. “No better than” a baseline "
    "is a test of non-inferiority, its margin written as a factor below 1 of the baseline. Anything else is undecided. "
    "Models, layers and baselines are compared on the same test items (bootstrap over items and over each model's "
    "seeds), clusterings on the same span samples, each the mean of its seeds; their interval and p say where one "
    "more sample would land. Channels have no counterpart in another model or layer, so each layer's are resampled by "
    "themselves. n counts items, samples or channels."
)
#: Over the column of numbers, and what they are.
MARGIN = "Left − right [95%]"
#: The columns of what was tested, the last three of numbers, and of what was not.
TESTED = ("Claim, and what was compared", "Verdict", "Decided by", MARGIN, "p", "n")
UNTESTED = ("Claim", "Verdict", "Why")
KEY = (
    "Each row shows the inequality that decided the verdict. The number beside it is the left side minus the right "
    "side; where a margin bounds a difference, it is that difference. p is corrected for several layers or conditions "
    "where one of them is enough; the interval is not. Claims count blocks as in a model of 12: in a model of another "
    "depth, block 6 is the one halfway up. The block beside a number is the model's own."
)


class Row(NamedTuple):
    """One claim for one choice of models."""

    claim: str
    quote: str
    verdict: str
    models: str
    compared: str  #: every inequality of the claim
    statistic: str  #: the one that decides, and at which block
    conditions: str  #: of several that must all hold, which of them the verdict hangs on
    value: str  #: with its 95% interval, in its unit
    p: str
    n: str
    why: str  #: of a verdict that is none; or what to know of it
    todo: str


def rows(judgements: Iterable[Judgement]) -> list[Row]:
    return [_row(judgement) for judgement in judgements]


def totals(judgements: Sequence[Judgement]) -> str:
    """``3 supported, 1 refuted, … (53 verdicts on 35 claims: some are tested on several models)``."""
    numbers = {verdict: sum(j.verdict is verdict for j in judgements) for verdict in Verdict}
    told = ", ".join(f"{number} {verdict}" for verdict, number in numbers.items() if number)
    claims = len({j.claim.number for j in judgements})
    if len(judgements) == claims:
        return f"{told} ({counted(claims, 'claim')})"
    return f"{told} ({len(judgements)} verdicts on {counted(claims, 'claim')}: some are tested on several models)"


def unplayed(judgements: Sequence[Judgement]) -> str:
    """A sentence where no model of the study plays any role, so that there is nothing to judge; else empty."""
    asked = [j for j in judgements if j.verdict is Verdict.NOT_RUN]
    if not asked or any(j.models or j.todo for j in asked):
        return ""
    return (
        "No claim is judged: no model with results plays a role that the claims name. To give a model a role, add the "
        "key “role” to its table and enqueue the study again (docs/study-file.md)."
    )


def plain(judgement: Judgement) -> dict[str, Any]:
    """Everything known of a judgement, as JSON values; accuracies are shares of 1."""
    return {
        "claim": judgement.claim.number,
        "quote": judgement.claim.quote,
        "verdict": str(judgement.verdict),
        "compared": judgement.claim.text,
        "models": dict(judgement.models),
        "p": judgement.p,
        "n": list(judgement.n),
        "paired": judgement.paired,
        "why": judgement.why,
        "todo": judgement.todo,
        "statistic": None if judgement.deciding is None else _plain(judgement.deciding),
        "conditions": [condition._asdict() for condition in judgement.conditions],
        "parts": [_plain(part) for part in judgement.parts],
    }


def _plain(part: Part) -> dict[str, Any]:
    named = {"text": part.text, "where": part.where, "metric": part.metric}
    return named | part.found._asdict() | {"p_holds": part.holds, "p_against": part.against}


def _row(judgement: Judgement) -> Row:
    part, claim = judgement.deciding, judgement.claim
    return Row(
        claim=claim.number,
        quote=claim.quote,
        verdict=str(judgement.verdict),
        models=", ".join(f"{role} = {model}" if role != model else role for role, model in judgement.models.items()),
        compared=claim.text,
        statistic="" if part is None else _statistic(part),
        conditions=_conditions(judgement),
        value="" if part is None else _value(part),
        p="" if judgement.p is None else units.shown_p(judgement.p),
        n="; ".join(f"{n:,}" for n in judgement.n),
        why=judgement.why,
        todo=judgement.todo,
    )


def _conditions(judgement: Judgement) -> str:
    """``2 of 3 conditions fail: somewhere: a > b; c > d``, but for what the row shows anyway; empty where there is only
    one."""
    found = judgement.conditions
    if len(found) < 2:
        return ""
    if judgement.verdict is Verdict.SUPPORTED:
        return f"all {len(found)} conditions hold"
    side = -1 if judgement.verdict is Verdict.REFUTED else 0
    decisive = [condition.text for condition in found if condition.side == side]
    one = len(decisive) == 1
    became = ("fails" if one else "fail") if side else ("is undecided" if one else "are undecided")
    if len(decisive) == len(found):
        return f"all {len(found)} conditions {became}"
    shown = one and judgement.deciding is not None and judgement.deciding.text in decisive[0]
    which = "" if shown else f": {'; '.join(decisive)}"
    return f"{len(decisive)} of {len(found)} conditions {became}{which}"


def _statistic(part: Part) -> str:
    """The inequality, and where it was tested; of several stages that one alone."""
    text = re.sub(r" at stages \d(, \d)+", "", part.text) if part.where.startswith("stage") else part.text
    return text + f", {part.where}" * (part.where not in text)


def _value(part: Part) -> str:
    value, low, high = (units.unit(part.metric).text(number).replace("-", "−") for number in part.found[:3])
    return f"{value} [{low},\N{NO-BREAK SPACE}{high}]" + (" points" if part.metric == "accuracy" else "")
