"""How numbers are written: names, units and decimals of metrics, intervals, p, layers. Pure."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence

from clipstudy import tasks
from clipstudy.outcome import Estimate
from clipstudy.spec import WHOLE_MODEL
from clipstudy.tasks.task import Metric

LEVEL = 0.95
Z = 1.959964  #: that LEVEL of a normal distribution lies within
#: What stands behind a value, as captions of tables say it.
INTERVAL = "± half of the 95% interval (or [both ends])"
#: What a hollow bar says, and the dagger behind a value.
ONE_CLASS = "with at least one seed, a single class is predicted"


@functools.cache
def known() -> Mapping[str, Metric]:
    """How the metrics of all task kinds are shown, by the last part of their names."""
    found: dict[str, Metric] = {}
    for kind in tasks.kinds():
        with contextlib.suppress(Exception):  # a broken one is told to whoever runs it, and spoils no other's page
            found |= tasks.load(kind).METRICS
    return found


def of_baselines(kind: str, otherwise: str) -> str:
    """What the baselines of a task ``kind`` are measured in, which the table's headline may not be; ``otherwise`` where
    the kind is not known here."""
    if kind in tasks.kinds():
        with contextlib.suppress(Exception):
            return tasks.load(kind).METRIC
    return otherwise


def base(metric: str) -> str:
    """``native/accuracy`` → ``accuracy``: what is measured, of whatever arm."""
    return metric.rsplit("/", 1)[-1]


def half_width(estimate: Estimate) -> float | None:
    """Half of the 95% interval; the interval itself need not be symmetric."""
    if estimate.low is None or estimate.high is None:
        return None
    return (estimate.high - estimate.low) / 2


def standard_error(estimate: Estimate) -> float | None:
    """Read back from the 95% interval. One that ends at 0 or 1 may be cut off there, as Wilson's of a share of all or
    none is: of that the longer side says how wide it is."""
    if estimate.low is None or estimate.high is None:
        return None
    sides = estimate.value - estimate.low, estimate.high - estimate.value
    cut = estimate.low == 0 or estimate.high == 1
    return (max(sides) if cut else sum(sides) / 2) / Z


def around(value: float, error: float, metric: str) -> Estimate:
    """``value`` with the 95% interval of that standard error, of which :func:`standard_error` is the way back."""
    return within(Estimate(value, value - Z * error, value + Z * error), metric)


def within(estimate: Estimate, metric: str) -> Estimate:
    """``estimate`` with no end of its interval where ``metric`` cannot be."""
    if not unit(metric).share or estimate.low is None or estimate.high is None:
        return estimate
    return Estimate(estimate.value, max(estimate.low, 0.0), min(estimate.high, 1.0))


def axis_title(metric: str) -> str:
    """``accuracy (%)``, ``accuracy (%), native``: the unit, and the arm where it is not the headline's."""
    arm, _, last = metric.rpartition("/")
    return known()[last].title + (f", {arm}" if arm else "") if last in known() else metric


def unit(metric: str) -> Metric:
    """How ``metric`` is shown; one that no kind declares as it is, more of it for better."""
    return known().get(base(metric)) or Metric(metric)


def shown_value(estimate: Estimate, metric: str) -> str:
    """``85.3 ± 0.7``, in the axis's unit; ``100.0 [96.4, 100.0]`` where one side of the interval is less than half as
    long as the other, as at the ends of what a share can be, or the value lies outside."""
    said = unit(metric)
    text = said.text(estimate.value)
    if estimate.low is None or estimate.high is None:
        return text
    short, long = sorted((estimate.value - estimate.low, estimate.high - estimate.value))
    # A step of the last decimal may be rounding.
    if 2 * short < long and (long - short) * said.factor > 10**-said.decimals:
        return f"{text} [{said.text(estimate.low)}, {said.text(estimate.high)}]"
    return f"{text} ± {said.text((estimate.high - estimate.low) / 2)}"


def shown_p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def better(metric: str) -> int:
    """1 where more of ``metric`` is better, −1 where less is, 0 where neither is."""
    return unit(metric).better


def layer_name(layer: int, modality: str = "text") -> str:
    if layer == WHOLE_MODEL:
        return "whole model"
    return str(layer) if layer else f"0 ({_before(modality)})"


def layers_title(layers: Iterable[int], modality: str = "text", of: str = "") -> str:
    """What the numbers along an axis of ``layers`` are: ``layer (block; 0 = embedding)``.

    Args:
        of: whose; empty: the chart says.
    """
    first = f"; 0 = {_before(modality)}" if 0 in layers else ""
    return f"layer{f' of {of}' if of else ''} (block{first})"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def ranges(numbers: Sequence[int]) -> str:
    """``0–3, 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs)


def _before(modality: str) -> str:
    """What layer 0 is: what comes before the blocks."""
    return "embedding" if modality == "text" else "stem"
