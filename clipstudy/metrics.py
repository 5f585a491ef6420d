"""Scores, intervals and paired tests. Pure: arrays in, numbers out; numpy and scikit-learn are imported when asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np

#: Draws that are worked on at a time, so that memory does not grow with their number.
_CHUNK = 200


class Interval(NamedTuple):
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A mean paired difference, its 95% interval, and the two-sided p-value that it is zero."""

    value: float
    low: float
    high: float
    p: float


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float((truth == predicted).mean())


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The mean over the classes that occur of each one's F1; a class never predicted counts 0."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, average="macro", zero_division=0))


def majority(train: np.ndarray, test: np.ndarray) -> float:
    """Accuracy on ``test`` of always saying the commonest class of ``train`` (the first of several)."""
    import numpy as np

    classes, counts = np.unique(train, return_counts=True)
    return float((test == classes[counts.argmax()]).mean())


def nmi(
    truth: np.ndarray, clusters: np.ndarray, *, average: Literal["geometric", "arithmetic"] = "geometric"
) -> float:
    """Normalised mutual information. Not adjusted for chance: it grows with the number of clusters."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(truth, clusters, average_method=average))


def ami(truth: np.ndarray, clusters: np.ndarray) -> float:
    """Mutual information adjusted for chance (Vinh, Epps & Bailey 2010): 0 for random clusters of any number."""
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(truth, clusters))


def quantiles(values: Sequence[float]) -> Interval:
    """Mean and central 95% over replicates (span samples × k-means seeds): resampling items with replacement would
    inflate mutual information."""
    import numpy as np

    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(np.mean(values)), float(low), float(high))


def bootstrap_accuracy(correct: np.ndarray, *, draws: int = 1000, rng: np.random.Generator) -> list[Interval]:
    """Accuracy with its hierarchical bootstrap interval: seeds and test items are both drawn with replacement.

    Args:
        correct: ``[L, S, N]``, what each of S probe seeds scored on each of N items at L layers (bool, or any number,
            such as the difference of two probes). All layers share the draws, so that layers can be compared.

    Returns:
        One interval a layer; the value is the plain mean.
    """
    import numpy as np

    scores = np.asarray(correct, dtype=np.float32)
    if scores.ndim != 3:
        raise ValueError(f"want [layers, seeds, items], found {scores.ndim} axes")
    n_layers, n_seeds, n_items = scores.shape
    flat = scores.reshape(n_layers * n_seeds, n_items)
    means = np.empty((draws, n_layers))
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        items = np.stack([np.bincount(rng.integers(n_items, size=n_items), minlength=n_items) for _ in range(size)])
        by_item = (items.astype(np.float32) @ flat.T / n_items).reshape(size, n_layers, n_seeds)
        seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=size) / n_seeds
        means[start : start + size] = np.einsum("dls,ds->dl", by_item, seeds)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    values = scores.mean(axis=(1, 2), dtype=np.float64)
    return [Interval(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True)]


def paired_difference(first: np.ndarray, second: np.ndarray, *, draws: int = 10_000, rng: np.random.Generator) -> Difference:
    """Mean of ``first − second`` over the same items (``[N]``, or ``[S, N]`` with seeds, averaged first), by bootstrap
    over items. The p-value is two-sided, from the bootstrap distribution shifted to zero; it is never below 1/draws."""
    import numpy as np

    gap = np.atleast_2d(first).mean(0, dtype=np.float64) - np.atleast_2d(second).mean(0, dtype=np.float64)
    n = len(gap)
    means = np.array([gap[rng.integers(n, size=n)].mean() for _ in range(draws)])
    low, high = np.quantile(means, [0.025, 0.975])
    extreme = np.count_nonzero(np.abs(means - gap.mean()) >= abs(gap.mean()))
    return Difference(float(gap.mean()), float(low), float(high), (extreme + 1) / (draws + 1))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """McNemar's exact two-sided p-value that two classifiers err equally often on the same items."""
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = running
    return adjusted


def equivalent(values: np.ndarray, margin: float) -> float:
    """Two one-sided t-tests (TOST, Schuirmann 1987): the p-value that the mean of paired differences lies outside
    ±``margin``. Small: equivalent."""
    import numpy as np
    from scipy.stats import t

    n, error = len(values), float(np.std(values, ddof=1)) / len(values) ** 0.5
    mean = float(np.mean(values))
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    below, above = t.sf((mean + margin) / error, n - 1), t.cdf((mean - margin) / error, n - 1)
    return float(max(below, above))
