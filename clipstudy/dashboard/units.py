"""How numbers are written: names, units and decimals of metrics, intervals, p, layers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from clipstudy.outcome import Estimate
from clipstudy.spec import WHOLE_MODEL

LEVEL = 0.95
Z = 1.959964  #: that LEVEL of a normal distribution lies within
#: What stands behind a value, as captions of tables say it.
INTERVAL = "± half of the 95% interval (or [both ends])"
#: What a hollow bar says, and the dagger behind a value.
ONE_CLASS = "with at least one seed, a single class is predicted"
LOWER_IS_BETTER = frozenset({"mse", "mae", "loss", "perplexity", "lpips"})
#: What describes and does not judge: how an image looks, and where heads look and how widely.
DESCRIPTIVE = frozenset({
    "activation", "area", "colour_entropy", "distance", "distance_patches", "diversity", "edge_density", "edges",
    "entropy", "high_frequency", "spectral_slope", "total_variation",
})  # fmt: skip
#: What lies between 0 and 1, and so does its interval.
SHARES = frozenset({"accuracy", "dev_accuracy", "macro_f1"})
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
    "spectral_slope": ("fall of the spectrum (exponent)", 1, 2),
    "total_variation": ("total variation (ranges a pixel)", 1, 3),
    "edge_density": ("share of pixels on an edge", 1, 3),
    "colour_entropy": ("entropy of colours (bits)", 1, 2),
    "area": ("share of the image", 1, 3),
    "distance_patches": ("attention distance (patches)", 1, 2),
    "explained": ("error explained (share of the mean image's)", 1, 3),
    "mse": ("mean squared error", 1, 4),
    "psnr": ("PSNR (dB)", 1, 2),
    "ssim": ("SSIM", 1, 3),
}


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
    if base(metric) not in SHARES or estimate.low is None or estimate.high is None:
        return estimate
    return Estimate(estimate.value, max(estimate.low, 0.0), min(estimate.high, 1.0))


def axis_title(metric: str) -> str:
    """``accuracy (%)``, ``accuracy (%), native``: the unit, and the arm where it is not the headline's."""
    arm, _, last = metric.rpartition("/")
    return unit(metric)[0] + (f", {arm}" if arm else "") if last in UNITS else metric


def unit(metric: str) -> tuple[str, float, int]:
    """How an axis calls ``metric``, its factor, its decimals."""
    return UNITS.get(base(metric), (metric, 1.0, 3))


def shown_value(estimate: Estimate, metric: str) -> str:
    """``85.3 ± 0.7``, in the axis's unit; ``100.0 [96.4, 100.0]`` where one side of the interval is less than half as
    long as the other, as at the ends of what a share can be, or the value lies outside."""
    _, factor, decimals = unit(metric)
    text = f"{estimate.value * factor:.{decimals}f}"
    if estimate.low is None or estimate.high is None:
        return text
    low, value, high = (end * factor for end in (estimate.low, estimate.value, estimate.high))
    short, long = sorted((value - low, high - value))
    # A step of the last decimal may be rounding.
    if 2 * short < long and long - short > 10**-decimals:
        return f"{text} [{low:.{decimals}f}, {high:.{decimals}f}]"
    return f"{text} ± {(high - low) / 2:.{decimals}f}"


def shown_p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def better(metric: str) -> int:
    """1 where more of ``metric`` is better, −1 where less is, 0 where neither is."""
    last = base(metric)
    return 0 if last in DESCRIPTIVE else -1 if last in LOWER_IS_BETTER else 1


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
