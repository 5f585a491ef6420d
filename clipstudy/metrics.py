"""Scores, their intervals, and tests of differences. Pure; scikit-learn and SciPy are imported where they are used.

Scores are resampled over seeds *and* test items (a seed is one draw of the probe, an item one draw of the test
set), because either alone understates how far a rerun on fresh data may land. Seeds are few, which a plain bootstrap
takes for more than they say: one seed less than there are is drawn, and intervals and p are widened as Student's
distribution is, by as much as the seeds have a part in the spread. Clusterings are not resampled over items: a
repeated item is a perfect agreement with itself and inflates NMI; there the samples are the replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LEVEL = 0.95
#: Sums of single precision in different order differ by less: what is this small, between draws or from 0, is nothing.
TIE = 1e-6
#: Mean squared error that rounding to 8 bits makes by itself, of pixels in [0, 1].
ROUNDING = 1 / (12 * 255**2)
#: The window of SSIM: Gaussian weights of this deviation on so many pixels a side (Wang et al. 2004, section III.C).
_WINDOW, _DEVIATION = 11, 1.5


class Interval(NamedTuple):
    """A value with its 95% interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """First minus second, its 95% interval, the two-sided p of no difference, and its standard error."""

    value: float
    low: float
    high: float
    p: float
    error: float


def macro_f1(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Mean F1 over the classes that occur among labels or predictions; a class never predicted right counts 0."""
    truth, guess = _pair(labels, predictions)
    classes, both = np.unique(np.concatenate([truth, guess]), return_inverse=True)
    truth, guess = both[: len(truth)], both[len(truth) :]
    right = np.bincount(truth[truth == guess], minlength=len(classes))
    shown = np.bincount(truth, minlength=len(classes)) + np.bincount(guess, minlength=len(classes))
    return float((2 * right / shown).mean())


def majority(train: ArrayLike, test: ArrayLike | None = None) -> float:
    """Accuracy on ``test`` (None: on ``train``) of always saying ``train``'s most frequent label; ties: the lowest."""
    values, counts = np.unique(np.asarray(train), return_counts=True)
    return float((np.asarray(train if test is None else test) == values[counts.argmax()]).mean())


def nmi(labels: ArrayLike, clusters: ArrayLike, average: Literal["geometric", "arithmetic"] = "arithmetic") -> float:
    """Normalised mutual information of two partitions; scikit-learn averaged geometrically before 0.22."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(*_pair(labels, clusters), average_method=average))


def ami(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Mutual information adjusted for chance (Vinh, Epps & Bailey 2010): 0 for a random partition."""
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(*_pair(labels, clusters)))


def squared_error(images: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Mean squared error of each pair of images ``[N, C, H, W]``: ``[N]``."""
    a, b = _images(images, others)
    error: NDArray[np.float64] = ((a - b) ** 2).mean(axis=(1, 2, 3), dtype=np.float64)
    return error


def psnr(error: ArrayLike) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB, of squared errors of pixels in [0, 1].

    What is less than rounding to 8 bits makes counts as that: 58.9 dB at most, where no error would be infinite.
    """
    return -10 * np.log10(np.maximum(np.asarray(error, dtype=np.float64), ROUNDING))


def ssim(images: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Structural similarity of each pair of images (Wang, Bovik, Sheikh & Simoncelli 2004, equation 13), ``[N]``.

    The paper's Gaussian window of 11 × 11 pixels and its constants (0.01², 0.03²); the mean over all places where the
    window lies within the image, and over channels.

    Args:
        images, others: ``[N, C, H, W]`` in [0, 1], 11 or more pixels a side.
    """
    a, b = _images(images, others)
    rows, columns = (_smoothing(side) for side in a.shape[2:])

    def smooth(x: NDArray[Any]) -> NDArray[Any]:
        smoothed: NDArray[Any] = rows @ x @ columns.T
        return smoothed

    mean_a, mean_b = smooth(a), smooth(b)
    both, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance, variances = smooth(a * b) - both, smooth(a**2 + b**2) - squares
    alike = (2 * both + 0.01**2) * (2 * covariance + 0.03**2) / ((squares + 0.01**2) * (variances + 0.03**2))
    return np.asarray(alike.mean(axis=(1, 2, 3)))


def bootstrap_mean(scores: NDArray[Any], *, draws: int = 1000, rng: np.random.Generator | int = 0) -> list[Interval]:
    """The mean score of every layer with a hierarchical bootstrap interval, all layers from the same draws; of
    booleans an accuracy, which ends at 0 and 1.

    Each draw resamples seeds and N items with replacement; every seed was scored on the same items, so the two
    are crossed. Quantile interval, widened for few seeds and few items.

    Args:
        scores: ``[L, S, N]``: what seed s scores on item n at layer l, or whether it is right.
        rng: a generator, or the seed of one.
    """
    numbers = np.asarray(scores, dtype=np.float32)
    seeds = numbers.mean(axis=2, dtype=np.float64)
    found = [
        _interval(means.mean(), drawn, freedom(float(drawn.std()), [means], numbers.shape[2]))
        for means, drawn in zip(seeds, resampled([numbers], draws, rng)[0], strict=True)
    ]
    if np.asarray(scores).dtype != np.bool_:
        return found
    return [Interval(value, max(low, 0.0), min(high, 1.0)) for value, low, high in found]


def bootstrap_gain(
    error: NDArray[Any], floor: NDArray[Any], *, draws: int = 1000, rng: np.random.Generator | int = 0
) -> Interval:
    """The share of a floor's squared error that is gone, 1 − mean error / mean floor, with its interval over seeds and
    items; items are resampled for both together, since what is hard for one is hard for the other.

    Args:
        error: ``[S, N]``, of each seed on each item.
        floor: ``[N]``. One that makes no error has nothing to gain from, and counts as rounding to 8 bits.
    """
    of, at = resampled([error[None], floor[None, None]], draws, rng)
    drawn = 1 - of[0] / np.maximum(at[0], ROUNDING)
    seeds = 1 - error.mean(axis=1, dtype=np.float64) / max(float(floor.mean(dtype=np.float64)), ROUNDING)
    return _interval(seeds.mean(), drawn, freedom(float(drawn.std()), [seeds], len(floor)))


def share_interval(right: int, n: int) -> Interval:
    """The share of ``right`` in ``n`` items with Wilson's 95% interval (Wilson 1927, JASA 22), which has a width at 0
    and at 1 too."""
    from scipy.stats import binomtest

    ends = binomtest(right, n).proportion_ci(_LEVEL, "wilson")
    return Interval(right / n, float(ends.low), float(ends.high))


def not_certain(found: Difference, n: int, differing: float) -> Difference:
    """A difference of shares of ``n`` items, ``differing`` of which differ at all, where a bootstrap is too sure of it.

    Where every draw gives the same, it is as wide as Wilson's interval of none in ``n``, and p is no less than a normal
    distribution of that width gives. Where few items differ, p is no less than that of so many equal signs, 2^(1 − k):
    the least that the exact test gives (McNemar 1947, Psychometrika 12), of which draws know nothing; and an interval
    reaches 0 where that is above 0.05.
    """
    from scipy.stats import norm

    if found.error:
        least = min(1.0, 2.0 ** (1 - differing))
        if least > 1 - _LEVEL:
            found = found._replace(low=min(found.low, 0.0), high=max(found.high, 0.0))
        return found._replace(p=max(found.p, least))
    half = share_interval(0, n).high
    error = half / float(norm.ppf((1 + _LEVEL) / 2))
    low, high = max(found.value - half, -1.0), min(found.value + half, 1.0)
    return Difference(found.value, low, high, max(found.p, float(2 * norm.sf(abs(found.value) / error))), error)


def differing(draws: ArrayLike, n: int) -> float:
    """How many of ``n`` items differ, by the share of bootstrap draws in which none does, (1 − k/n)^n; infinite where
    there is no such draw, or where draws lie on both sides: there, gains and losses cancel in a draw of 0."""
    values = np.asarray(draws, dtype=np.float64)
    none = float((np.abs(values) < TIE).mean())
    if not none or (values.min() < -TIE and values.max() > TIE):
        return math.inf
    return n * (1 - none ** (1 / n))


def quantile_interval(replicates: ArrayLike) -> Interval:
    """Mean of replicates (clusterings: span samples × seeds, any shape) between their own 2.5% and 97.5% quantiles."""
    values = np.asarray(replicates, dtype=np.float64).ravel()
    return _interval(values.mean(), values)


def paired_difference(
    first: NDArray[Any], second: NDArray[Any], *, draws: int = 10_000, rng: np.random.Generator | int = 0
) -> list[Difference]:
    """Paired bootstrap of two models, layer by layer: items are resampled together, each model's seeds by themselves.

    Args:
        first, second: ``[L, S, N]`` and ``[L, S', N]``, correct or not (or any score per item).
    """
    a, b = (np.asarray(x, dtype=np.float32) for x in (first, second))
    if a.shape[0] != b.shape[0] or a.shape[2] != b.shape[2]:
        raise ValueError(f"not the same layers and items: {a.shape} and {b.shape}")
    drawn = resampled([a, b], draws, rng)
    seeds = (x.mean(axis=2, dtype=np.float64) for x in (a, b))
    return [
        difference(own.mean() - other.mean(), draw, [own, other], a.shape[2])
        for own, other, draw in zip(*seeds, drawn[0] - drawn[1], strict=True)
    ]


def difference(value: float, draws: ArrayLike, seeds: Iterable[NDArray[Any]], units: float) -> Difference:
    """What is 0 where nothing differs, judged by its bootstrap's ``[draws]``: interval and two-sided p.

    The interval is the draws' quantiles, and p twice the smaller share of draws on either side of 0, counted with the
    observed one. Where none lies on the other side, a normal distribution says how far out 0 is: that none does is no
    p by itself, as the few means that few seeds have may all lie on one side, and 2 / (draws + 1) is none that a
    correction over many layers would pass; draws all alike have no spread to say it by, and an error of 0. Both are
    then read on Student's distribution instead of the normal one, at the freedom that seeds and units give: with many
    of both this changes nothing.

    Args:
        value: the point estimate.
        seeds, units: what :func:`freedom` takes.
    """
    from scipy.stats import norm, t

    # A tie speaks for neither side, and draws that differ by a rounding are no spread for a normal distribution.
    drawn = np.asarray(draws, dtype=np.float64)
    drawn = np.where(np.abs(drawn) < TIE, 0.0, drawn)
    error = 0.0 if np.ptp(drawn) < TIE else float(drawn.std())
    free = freedom(error, seeds if error else (), units)
    tail = int(min((drawn <= 0).sum(), (drawn >= 0).sum()))
    beyond = bool(error) and tail == 0
    deviate = abs(value) / error if beyond else float(norm.isf(min(0.5, (tail + 1) / (len(drawn) + 1))))
    return Difference(*_interval(value, drawn, free), min(1.0, float(2 * t.sf(deviate, free))), error)


def of_samples(value: float, samples: ArrayLike, step: float = 0.0) -> Difference:
    """What is 0 where nothing differs, judged by its values on ``[n]`` samples, each a measurement of the whole.

    The interval is a prediction interval, value ± t · sd · √(1 + 1/n) with n − 1 degrees of freedom: where one more
    sample would land, which is wider than how sure their mean is. p is of 0 being such a sample. Where all agree to the
    last digit there is no spread to say it by, and p is that of so many equal signs, 2^(1 − n).

    Args:
        value: the estimate from all samples.
        samples: two or more. Seeds within a sample are no draws of another: average them first.
        step: the least by which two samples can differ; they are taken to spread by as much, however equal they are.
    """
    from scipy.stats import t

    value, values = float(value), np.asarray(samples, dtype=np.float64)
    n = len(values)
    error = max(float(values.std(ddof=1)), step) * math.sqrt(1 + 1 / n)
    if error < 1e-12:
        return Difference(value, value, value, 1.0 if abs(value) < 1e-12 else 2.0 ** (1 - n), 0.0)
    half = error * float(t.ppf((1 + _LEVEL) / 2, n - 1))
    return Difference(value, value - half, value + half, float(2 * t.sf(abs(value) / error, n - 1)), error)


def freedom(error: float, seeds: Iterable[NDArray[Any]], units: float = math.inf) -> float:
    """Degrees of freedom of a bootstrap's standard error over seeds and units (Satterthwaite 1946, Biometrics 2).

    Its square is the sum of what each model's seeds give, with one degree less than there are, and the units' rest.

    Args:
        seeds: for each model whose seeds were drawn by themselves, the number that is judged for each seed alone,
            ``[S]``, the others' seeds being all; one seed says nothing.
        units: test items, channels. Infinite: what they give is known as well as can be.
    """
    parts = [(float(values.var(ddof=1)) / len(values), len(values)) for values in seeds if len(values) > 1]
    known = sum(variance for variance, _ in parts)
    rest = max(error**2 - known, 0.0)
    spread = sum(variance**2 / (n - 1) for variance, n in parts) + rest**2 / max(units - 1, 1)
    return (known + rest) ** 2 / spread if spread else max(units - 1, 1)


def resampled(
    groups: Sequence[NDArray[Any]],
    draws: int = 10_000,
    rng: np.random.Generator | int = 0,
    seeds: Sequence[np.random.Generator] | None = None,
) -> list[NDArray[np.float64]]:
    """Bootstrapped means of every ``[L, S, N]``, as ``[L, draws]``: the same items for all, seeds for each its own.

    N items are drawn of N, and S − 1 seeds of S: the mean of so many varies as the mean of S seeds does, where that of
    S drawn from the few themselves would vary by (S − 1)/S of it (Rao & Wu 1988, JASA 83).

    Args:
        seeds: what each group's seeds are drawn by, so that its draws do not depend on which others there are (None:
            ``rng`` draws them one group after the other).
    """
    rng = np.random.default_rng(rng)
    groups = [np.asarray(scores, dtype=np.float32) for scores in groups]
    items = groups[0].shape[2]
    shares = []
    for scores, own in zip(groups, seeds or [rng] * len(groups), strict=True):
        taken = max(1, scores.shape[1] - 1)
        shares.append(_counts(draws, scores.shape[1], own, taken) / taken)
    means = [np.empty((*scores.shape[:2], draws)) for scores in groups]
    # In blocks: the counts of all draws at once would be draws × N.
    step = max(1, 2**21 // items)
    for start in range(0, draws, step):
        weights = _counts(min(step, draws - start), items, rng).T.astype(np.float32)
        for scores, mean in zip(groups, means, strict=True):
            flat = scores.reshape(-1, items) @ weights
            mean[..., start : start + step] = flat.reshape(*scores.shape[:2], -1) / items
    return [np.einsum("lsd,ds->ld", mean, share) for mean, share in zip(means, shares, strict=True)]


def holm(p: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """p-values adjusted for their number (Holm 1979), in the order given."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted


def tost(value: float, error: float, margin: float, freedom: float = math.inf) -> float:
    """p of "differs by ``margin`` or more" (two one-sided tests, Schuirmann 1987): below α, the two are equivalent.

    Args:
        value, error: the difference and its standard error.
        margin: the largest difference that still counts as none, > 0.
        freedom: degrees of freedom of the error; infinite for a bootstrap's.
    """
    from scipy.stats import norm, t

    if margin <= 0:
        raise ValueError(f"the margin of an equivalence test is positive, not {margin}")
    if error == 0:
        return 0.0 if abs(value) < margin else 1.0
    upper = (margin - abs(value)) / error  # the nearer bound decides
    return float(norm.sf(upper) if math.isinf(freedom) else t.sf(upper, freedom))


def _counts(draws: int, size: int, rng: np.random.Generator, taken: int | None = None) -> NDArray[np.int64]:
    """How often each of ``size`` things is among ``taken`` (None: ``size``) with replacement: ``[draws, size]``."""
    which = rng.integers(0, size, (draws, taken or size)) + size * np.arange(draws)[:, None]
    return np.bincount(which.ravel(), minlength=draws * size).reshape(draws, size)


def _interval(value: float, replicates: NDArray[np.float64], free: float = math.inf) -> Interval:
    """Quantiles of the replicates, as far from ``value`` as Student's are farther out than the normal's."""
    from scipy.stats import norm, t

    ends = (1 - _LEVEL) / 2, (1 + _LEVEL) / 2
    low, high = np.quantile(replicates, ends)
    if math.isfinite(free):
        wider = float(t.ppf(ends[1], free) / norm.ppf(ends[1]))
        low, high = value - wider * (value - low), value + wider * (high - value)
    return Interval(float(value), float(low), float(high))


def _smoothing(side: int) -> NDArray[np.float64]:
    """The matrix that takes ``side`` pixels to their weighted means under every place of the window."""
    if side < _WINDOW:
        raise ValueError(f"SSIM's window of {_WINDOW} pixels does not lie within {side}")
    weights = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / _DEVIATION) ** 2)
    matrix = np.zeros((side - _WINDOW + 1, side))
    for place, row in enumerate(matrix):
        row[place : place + _WINDOW] = weights / weights.sum()
    return matrix


def _images(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 4 or not a.size:
        raise ValueError(f"two batches of images [N, C, H, W], of one shape and not empty: {a.shape} and {b.shape}")
    return a, b


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"two lists of equal length, not empty: {a.shape} and {b.shape}")
    return a, b
