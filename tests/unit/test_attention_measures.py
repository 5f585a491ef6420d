"""Where attention looks, on maps whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipstudy.probes.attention import (
    best_head,
    by_patch,
    centre,
    correlation,
    divergence,
    entropy,
    jaccard,
    kept,
    scattered,
    sobel,
    swapped,
)

MAPS = arrays(np.float32, (3, 9), elements=st.floats(0, 1, width=32)).filter(lambda m: (m.sum(axis=1) > 1e-3).all())


def test_uniform_attention_has_the_entropy_of_its_places() -> None:
    assert entropy(np.ones((2, 64))) == pytest.approx([6, 6])
    assert entropy(np.eye(5)[:1]) == pytest.approx([0])
    assert entropy(np.array([[3, 1, 0, 0], [0, 0, 0, 0]])) == pytest.approx([2 - 0.75 * np.log2(3), 2])


def test_heads_differ_by_nothing_or_by_one_bit() -> None:
    apart = np.eye(4)[None]
    assert divergence(apart) == pytest.approx([1])
    alike = np.broadcast_to(np.array([0.2, 0.5, 0.3]), (2, 4, 3))
    assert divergence(alike) == pytest.approx([0, 0], abs=1e-12)
    assert divergence(alike * np.array([1, 2, 3, 4])[:, None]) == pytest.approx([0, 0], abs=1e-12)  # only shape counts
    assert divergence(apart[:, :1]).tolist() == [0]


def test_heads_differ_as_scipy_says() -> None:
    from scipy.spatial.distance import jensenshannon

    heads = np.random.default_rng(0).random((1, 4, 9))
    pairs = [jensenshannon(heads[0, a], heads[0, b], base=2) ** 2 for a, b in itertools.combinations(range(4), 2)]
    assert divergence(heads) == pytest.approx([np.mean(pairs)])


def test_a_mask_holds_its_share_of_the_map_and_no_patch_too_many() -> None:
    maps = np.array([[0.1, 0.5, 0.05, 0.35], [1, 1, 1, 1], [0, 0, 0, 1]])
    assert kept(maps, 0.6).tolist() == [[False, True, False, True], [True, True, True, False], [False] * 3 + [True]]
    # Ten tenths: six are 60%, though their sum in binary is a little less.
    assert kept(np.full((1, 10), 0.1), 0.6).sum() == 6
    assert not kept(np.zeros((1, 4)), 0.6).any()


@settings(max_examples=50, deadline=None)
@given(MAPS, st.floats(0.05, 0.95))
def test_a_mask_is_the_smallest_of_its_mass(maps: np.ndarray, mass: float) -> None:
    for values, inside in zip(maps.astype(np.float64), kept(maps, mass), strict=True):
        share = values[inside].sum() / values.sum()
        assert share >= mass - 1e-6
        assert share - values[inside].min() / values.sum() <= mass + 1e-6
        assert values[inside].min() >= values[~inside].max(initial=0)


def test_jaccard_counts_pixels() -> None:
    """Patches of 2 × 2 pixels; the object covers one patch and half of the next."""
    pixels = np.zeros((1, 4, 4))
    pixels[0, :2, :3] = 1
    foreground = by_patch(pixels, (2, 2))
    assert foreground.tolist() == [[1, 0.5, 0, 0]]
    masks = np.array([[[True, False, False, False], [True, True, False, False], [False, False, True, True]]])
    in_pixels = np.repeat(np.repeat(masks.reshape(3, 2, 2), 2, axis=1), 2, axis=2)
    inside = pixels.astype(bool)
    want = [(m & inside[0]).sum() / (m | inside[0]).sum() for m in in_pixels]
    assert want == [4 / 6, 6 / 8, 0]
    assert jaccard(masks, foreground[:, None])[0].tolist() == want


def test_random_masks_have_the_area_asked_for_and_no_favourite() -> None:
    rng = np.random.default_rng(0)
    masks = scattered(np.tile([0, 3, 9], (3000, 1)), 9, rng)
    assert masks.shape == (3000, 3, 9) and (masks.sum(axis=-1) == [0, 3, 9]).all()
    assert masks[:, 1].mean(axis=0) == pytest.approx(np.full(9, 1 / 3), abs=0.04)


def test_the_centre_is_in_the_middle() -> None:
    prior = centre((4, 6)).reshape(4, 6)
    assert prior == pytest.approx(prior[::-1]) and prior == pytest.approx(prior[:, ::-1])
    assert prior[1, 2] == pytest.approx(prior.max()) and prior[0, 0] == pytest.approx(prior.min())
    assert prior[2, 3] / prior[2, 4] == pytest.approx(np.exp(((1.5 / 6) ** 2 - (0.5 / 6) ** 2) / 2 / 0.25**2))


def test_edges_are_where_brightness_changes() -> None:
    pictures = np.zeros((2, 3, 8, 8))
    pictures[0, :, :, 4:] = 1
    pictures[1] = 0.7
    edges = sobel(pictures)
    assert edges[0, 2].tolist() == pytest.approx([0, 0, 0, 4, 4, 0, 0, 0]) and edges[1] == pytest.approx(0, abs=1e-9)
    pictures[0, :2] = 0  # blue alone is dark
    assert sobel(pictures)[0, 2, 3] == pytest.approx(4 * 0.114)


@given(st.integers(2, 40), st.integers(0, 9))
def test_every_picture_is_swapped_with_another_and_comes_once(pictures: int, seed: int) -> None:
    other = swapped(pictures, np.random.default_rng(seed))
    assert sorted(other) == list(range(pictures)) and not (other == np.arange(pictures)).any()
    assert other.tolist() == swapped(pictures, np.random.default_rng(seed)).tolist()


def test_correlation() -> None:
    a, b = np.random.default_rng(1).random((2, 5, 20))
    want = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    assert correlation(a, b) == pytest.approx(want)
    assert correlation(a, 3 * a + 1) == pytest.approx(1) and correlation(a, -a) == pytest.approx(-1)
    assert correlation(np.full((1, 20), 0.1), b[:1]).tolist() == [0]


def test_the_best_head_is_scored_on_pictures_that_did_not_choose_it() -> None:
    good = np.zeros((6, 3))
    good[:, 2] = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert best_head(good).tolist() == [2] * 6
    noise = np.random.default_rng(2).random((400, 12))
    chosen = noise[range(400), best_head(noise)]
    assert chosen.mean() == pytest.approx(0.5, abs=0.04)
    assert chosen.mean() < noise.mean(axis=0).max()  # what luck alone would have given


def test_patches_are_row_by_row_and_leave_the_rest_out() -> None:
    values = np.arange(35, dtype=float).reshape(1, 5, 7)
    assert by_patch(values, (2, 3)).tolist() == [
        [values[0, r : r + 2, c : c + 2].mean() for r in (0, 2) for c in (0, 2, 4)]
    ]
