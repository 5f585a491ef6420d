"""Where attention looks, in numbers: how well it covers an object, how much its heads differ, how far it spreads, and
whether it follows edges. Pure; arrays in, arrays out, one number an image.

A *map* is an array ``[…, P]`` of attention to P patches, not negative; only its shape counts, not its sum. What is
defined by pixels (masks, edges) is brought to patches by the mean over each patch's pixels, which loses nothing: the
overlap of a mask made of whole patches with one made of pixels follows from each patch's share.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipstudy.probes.brightness import Floats, brightness, gradient

Bools = NDArray[np.bool_]


def by_patch(values: Floats, grid: tuple[int, int]) -> Floats:
    """The mean over each patch: ``[B, h, w]`` → ``[B, P]``, rows of patches one after another.

    Pixels beyond the last whole patch are left out, as the model leaves them out: fewer than there are rows (columns),
    or patches would be taken for larger ones.
    """
    rows, columns = grid
    height, width = values.shape[1] // rows, values.shape[2] // columns
    whole = values[:, : rows * height, : columns * width].reshape(-1, rows, height, columns, width)
    means: Floats = whole.mean(axis=(2, 4)).reshape(-1, rows * columns)
    return means


def kept(maps: Floats, mass: float) -> Bools:
    """The fewest patches that hold ``mass`` of a map (0.6 in Caron et al. 2021, DINO): ``[…, P]``."""
    order = np.argsort(-maps, axis=-1, kind="stable")
    largest_first = np.take_along_axis(maps, order, axis=-1).astype(np.float64)
    total = largest_first.cumsum(axis=-1)
    wanted = mass * total[..., -1:]
    inside = np.empty(maps.shape, dtype=bool)
    # A patch is in if those before it do not yet reach the mass; sums that do but for a rounding do.
    np.put_along_axis(inside, order, total - largest_first < wanted * (1 - 1e-9), axis=-1)
    return inside


def jaccard(masks: Bools, foreground: Floats) -> Floats:
    """Intersection over union of masks made of whole patches with the foreground, in pixels: ``[…]``.

    Args:
        masks: ``[…, P]``.
        foreground: the share of each patch that is foreground, ``[…, P]``; not all 0.
    """
    both = np.where(masks, foreground, 0).sum(axis=-1)
    overlap: Floats = both / (masks.sum(axis=-1) + foreground.sum(axis=-1) - both)
    return overlap


def scattered(areas: NDArray[np.integer[Any]], patches: int, rng: np.random.Generator) -> Bools:
    """Masks of so many patches each, drawn anywhere: ``[…]`` → ``[…, patches]``. What overlap chance alone would give a
    mask of the same area is measured with these."""
    places = rng.random((*areas.shape, patches)).argsort(axis=-1).argsort(axis=-1)
    inside: Bools = places < areas[..., None]
    return inside


def swapped(pictures: int, rng: np.random.Generator) -> NDArray[np.integer[Any]]:
    """Another picture for each of ``pictures``, 2 or more, and each of them once: ``[pictures]``. What a map overlaps
    with another picture's object shows how much comes from where objects usually are."""
    order = rng.permutation(pictures)
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)  # one circle through all
    return other


def centre(grid: tuple[int, int]) -> Floats:
    """A Gaussian around the centre of the image, as wide as a quarter of each side: what a model that knows nothing but
    where photographers put things would look at. ``[P]``."""
    down, across = (((np.arange(side) + 0.5) / side - 0.5) / 0.25 for side in grid)
    gaussian: Floats = np.exp(-(down[:, None] ** 2 + across[None] ** 2) / 2).ravel()
    return gaussian


def entropy(maps: Floats) -> Floats:
    """How widely a map is spread, as its Shannon entropy in bits: 0 where one patch has all of it, log2 P where all
    patches have the same. ``[…]``."""
    shares = _shares(maps)
    # The logarithm of nothing is never taken: p log p goes to 0 with p.
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=-1) + 0.0


def divergence(heads: Floats) -> Floats:
    """How much heads differ: the Jensen–Shannon divergence (Lin 1991, IEEE Trans. Inf. Theory 37) between two heads'
    maps, in bits (0 alike, 1 nothing in common), the mean over all pairs: ``[B, H, P]`` → ``[B]``. A single head has
    no other to differ from: 0."""
    shares, spread = _shares(heads), entropy(heads)
    pairs = list(itertools.combinations(range(heads.shape[1]), 2))
    total = np.zeros(len(heads))
    for a, b in pairs:
        total += entropy(shares[:, a] + shares[:, b]) - (spread[:, a] + spread[:, b]) / 2
    return np.maximum(total, 0) / max(1, len(pairs))


def sobel(pictures: Floats) -> Floats:
    """Strength of the edges in brightness: the length of its gradient. ``[B, 3, h, w]`` of pixels in [0, 1] →
    ``[B, h, w]``."""
    length: Floats = np.hypot(*gradient(brightness(np.moveaxis(pictures, 1, -1))))
    return length


def correlation(maps: Floats, others: Floats) -> Floats:
    """Pearson's correlation over patches: ``[…]``. What is the same everywhere is correlated with nothing: 0."""
    a, b = (values - values.mean(axis=-1, keepdims=True, dtype=np.float64) for values in (maps, others))
    length = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    # Of a constant, rounding leaves a little that varies.
    flat = length <= 1e-9 * np.abs(maps).max(axis=-1) * np.abs(others).max(axis=-1)
    return np.where(flat, 0.0, (a * b).sum(axis=-1) / np.where(flat, 1.0, length))


def best_head(scores: Floats) -> NDArray[np.int64]:
    """The best head for each image, without the luck of having been chosen on the images that it is scored on: the head
    that is best on the images of even number stands for the others, and the other way round.

    Args:
        scores: ``[N, H]``, N of 2 or more.

    Returns:
        ``[N]``.
    """
    best = np.empty(len(scores), dtype=np.int64)
    for half in (0, 1):
        best[half::2] = scores[1 - half :: 2].mean(axis=0).argmax()
    return best


def _shares(maps: Floats) -> Floats:
    """Each map with the sum 1; one of nothing prefers no patch to another."""
    total = maps.sum(axis=-1, keepdims=True, dtype=np.float64)
    return np.where(total > 0, maps / np.where(total > 0, total, 1), 1 / maps.shape[-1])
