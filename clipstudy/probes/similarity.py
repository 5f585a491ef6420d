"""Linear CKA from the unbiased HSIC, over minibatches of texts: how alike two sets of vectors of the same texts are.

Kornblith et al. 2019 (ICML): CKA = HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L)) with the Gram matrices K and L of the two
sets; 1 where one is a rotation, shift and scaling of the other. HSIC is Song et al.'s unbiased estimator (2012, JMLR),
since the usual one grows with width over texts whatever the vectors are. Each HSIC is a mean over minibatches (Nguyen,
Raghu & Kornblith 2021, ICLR), which leaves it unbiased and makes memory and time linear in texts.

The unbiased HSIC is the inner product of U-centred Gram matrices (Székely & Rizzo 2014), so it costs one product for
all pairs of layers, and |CKA| ≤ 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipstudy.metrics import Interval, quantile_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Hsic:
    """Unbiased HSIC of one layer with J others, minibatch by minibatch of one cut."""

    cross: Floats  #: ``[J, B]``
    chance: Floats  #: the same where each text is paired with another one's vector, ``[J, B]``
    own: Floats  #: of the layer with itself, ``[B]``
    others: Floats  #: of each other with itself, ``[J, B]``


def minibatches(texts: int, size: int, seed: int) -> NDArray[np.int64]:
    """A random cut of ``texts`` into minibatches of ``size`` or a little more: row numbers ``[B, m]``.

    As many minibatches as there can be, equally large; fewer than B texts are left over, other ones for each seed.
    """
    count = texts // size
    return np.random.default_rng(seed).permutation(texts)[: texts - texts % count].reshape(count, -1)


def centred(vectors: NDArray[Any], *, scaled: bool = False) -> Floats:
    """``[n, d]`` with zero mean per dimension, and unit variance where ``scaled``. What is constant up to float32
    rounding becomes 0: a layer that says the same of every text must not be compared by its rounding."""
    x = np.asarray(vectors, dtype=np.float64)
    mean = x.mean(axis=0)
    x = x - mean
    deviation = np.sqrt((x**2).mean(axis=0))
    varies = deviation > np.finfo(np.float32).eps * np.abs(mean)
    return x * np.where(varies, 1 / np.where(varies & scaled, deviation, 1), 0)


def grams(vectors: Floats, rows: NDArray[np.int64]) -> Floats:
    """U-centred Gram matrices of each minibatch, ``[n, d]`` → ``[B, m, m]``, scaled so that the unbiased HSIC of two
    sets of vectors is the sum of the elementwise product of theirs."""
    m = rows.shape[1]
    x = vectors[rows]
    gram = x @ x.transpose(0, 2, 1)
    diagonal = np.arange(m)
    gram[:, diagonal, diagonal] = 0
    sums = gram.sum(axis=2)
    gram -= (sums[:, :, None] + sums[:, None, :]) / (m - 2)
    gram += (sums.sum(axis=1) / ((m - 1) * (m - 2)))[:, None, None]
    gram[:, diagonal, diagonal] = 0
    return gram / np.sqrt(m * (m - 3))


def hsic(layer: Floats, others: Floats) -> Hsic:
    """HSIC of a layer with J others on one cut, from their :func:`grams`: ``[B, m, m]`` and ``[J, B, m, m]``."""
    # The minibatches are in random order already, so the next text is any other text.
    moved = np.roll(layer, 1, axis=(1, 2))
    return Hsic(_inner(layer, others), _inner(moved, others), _inner(layer, layer), _inner(others, others))


def cka(cuts: Sequence[Hsic]) -> Floats:
    """CKA with each of the J others, HSIC averaged over the minibatches of all cuts: ``[J]``, from −1 to 1.

    0 where a layer says the same of every text: it shares nothing.
    """
    return _ratio(*(_mean([getattr(cut, part) for cut in cuts]) for part in ("cross", "own", "others")))


def chance(cuts: Sequence[Hsic]) -> Floats:
    """CKA of unpaired texts on each cut: ``[S, J]``, near 0 at any width."""
    return np.stack([_ratio(*(part.mean(axis=-1) for part in (cut.chance, cut.own, cut.others))) for cut in cuts])


def intervals(cuts: Sequence[Hsic], *, draws: int) -> list[Interval]:
    """:func:`cka` with its 95% bootstrap interval: the minibatches of a cut are resampled, each cut in its turn.

    Texts are not drawn one by one: one that comes twice is alike to itself, as no two texts are.
    """
    replicates = []
    for at, cut in enumerate(cuts):
        count = len(cut.own)
        shares = np.random.default_rng(at).multinomial(count, [1 / count] * count, size=-(-draws // len(cuts))) / count
        replicates.append(_ratio(cut.cross @ shares.T, cut.own @ shares.T, cut.others @ shares.T))
    pooled = np.concatenate(replicates, axis=1)
    return [quantile_interval(r)._replace(value=float(v)) for v, r in zip(cka(cuts), pooled, strict=True)]


def _inner(first: Floats, second: Floats) -> Floats:
    return np.einsum("...xy,...xy->...", first, second)


def _mean(parts: Sequence[Floats]) -> Floats:
    return np.mean([part.mean(axis=-1) for part in parts], axis=0)


def _ratio(cross: Floats, own: Floats, others: Floats) -> Floats:
    scale = np.sqrt(own * others)
    return np.divide(cross, scale, out=np.zeros_like(scale), where=scale > 0)
