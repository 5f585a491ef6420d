"""Scores against scikit-learn and closed forms; intervals and tests against what theory says of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from sklearn import metrics as sk

from clipstudy.metrics import (
    ami,
    bootstrap_gain,
    bootstrap_mean,
    difference,
    differing,
    freedom,
    holm,
    macro_f1,
    majority,
    nmi,
    not_certain,
    of_samples,
    paired_difference,
    psnr,
    quantile_interval,
    resampled,
    share_interval,
    squared_error,
    ssim,
    tost,
)

pairs = st.integers(1, 60).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2))
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_macro_f1_agrees_with_scikit_learn(pair: tuple[list[int], list[int]]) -> None:
    truth, guess = pair
    assert macro_f1(truth, guess) == pytest.approx(sk.f1_score(truth, guess, average="macro"))


@settings(max_examples=50, deadline=None)
@given(pairs, st.permutations(range(5)))
def test_nmi_is_symmetric_bounded_and_blind_to_names(pair: tuple[list[int], list[int]], names: list[int]) -> None:
    truth, clusters = pair
    for average in ("geometric", "arithmetic"):
        score = nmi(truth, clusters, average)
        assert -1e-9 <= score <= 1 + 1e-9
        assert nmi(clusters, truth, average) == pytest.approx(score, abs=1e-9)
        assert nmi(truth, [names[c] for c in clusters], average) == pytest.approx(score, abs=1e-9)


def test_nmi_in_closed_form() -> None:
    # Four labels against the two halves they make up: I = ln 2, entropies ln 4 and ln 2.
    truth, clusters = [0, 1, 2, 3], [0, 0, 1, 1]
    assert nmi(truth, clusters, "arithmetic") == pytest.approx(2 / 3)
    assert nmi(truth, clusters, "geometric") == pytest.approx(1 / np.sqrt(2))


def test_ami_of_chance_is_zero_where_nmi_is_not() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 9, 100)
    drawn = [rng.integers(0, 9, 100) for _ in range(50)]
    assert abs(np.mean([ami(truth, c) for c in drawn])) < 0.01
    assert np.mean([nmi(truth, c) for c in drawn]) > 0.1


def test_majority_is_learnt_on_train_and_scored_on_test() -> None:
    assert majority([0, 0, 1]) == pytest.approx(2 / 3)
    assert majority([0, 0, 1], [1, 1, 1, 0]) == 0.25
    assert majority([1, 0], [0, 0, 1]) == pytest.approx(2 / 3)  # a tie: the lowest label


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="equal length"):
        macro_f1([1, 2], [1])


def test_with_one_seed_the_interval_is_the_binomial_one() -> None:
    correct = np.arange(1000) < 700
    value, low, high = bootstrap_mean(correct[None, None], draws=4000)[0]
    half = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
    assert value == pytest.approx(0.7)
    assert (value - low, high - value) == (pytest.approx(half, rel=0.1), pytest.approx(half, rel=0.1))


def test_few_items_widen_the_interval() -> None:
    few = np.arange(8.0)
    (found,) = bootstrap_mean(few[None, None], draws=20_000)
    students = stats.t.ppf(0.975, 7) * few.std() / np.sqrt(8)
    assert (found.high - found.low) / 2 == pytest.approx(students, rel=0.03)


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    alike = rng.random((4, 500)) < 0.7
    unlike = rng.random((4, 500)) < np.array([0.5, 0.6, 0.8, 0.9])[:, None]
    narrow, wide = bootstrap_mean(np.stack([alike, unlike]))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_the_interval_of_a_share_ends_where_shares_do() -> None:
    """Few seeds that differ widen it; a gain may be of either sign."""
    right = np.arange(100) < np.array([[90], [98], [100]])
    assert bootstrap_mean(right[None])[0].high == 1 < bootstrap_mean(right[None].astype(float))[0].high
    assert bootstrap_mean(~right[None])[0].low == 0


def test_a_gain_is_drawn_with_its_floor() -> None:
    """What takes off the same share of every item's error does so in every draw, however unlike the items are."""
    floor = np.random.default_rng(3).gamma(0.5, size=60)
    steady = bootstrap_gain(np.stack([0.4 * floor, 0.4 * floor]), floor)
    assert steady == pytest.approx((0.6, 0.6, 0.6), abs=1e-6)
    apart = bootstrap_gain(np.stack([0.4 * floor[::-1]] * 2), floor)
    assert apart.value == pytest.approx(0.6) and apart.low < 0.55 and apart.high > 0.65
    seeds = bootstrap_gain(np.stack([0.3 * floor, 0.5 * floor]), floor)
    assert seeds.value == pytest.approx(0.6) and seeds.low < 0.5 and seeds.high > 0.7
    assert bootstrap_gain(floor[None], np.zeros(60)).value < 0 and np.isfinite(bootstrap_gain(floor[None], floor)).all()


def test_layers_share_the_draws() -> None:
    correct = np.random.default_rng(2).random((3, 2, 200)) < 0.6
    together = bootstrap_mean(correct, draws=300, rng=5)
    alone = [bootstrap_mean(layer[None], draws=300, rng=5)[0] for layer in correct]
    assert np.allclose(together, alone, atol=1e-6)
    twice = bootstrap_mean(np.stack([correct[0], correct[0]]), draws=300)
    assert twice[0] == twice[1]


def test_intervals_cover_what_they_should() -> None:
    # A truth of 0.75 over items, seeds around it by 0.03: about 95 of 100 intervals hold it.
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        levels = 0.75 + 0.03 * rng.standard_normal(8)
        difficulty = rng.random(300)
        _, low, high = bootstrap_mean((difficulty < levels[:, None])[None], draws=300, rng=rng)[0]
        held += low <= 0.75 <= high
    assert 0.90 <= held / 200 <= 1.0


def test_a_share_of_all_or_none_has_an_interval() -> None:
    # Wilson 1927 by hand at the ends: n / (n + z²).
    z2 = stats.norm.ppf(0.975) ** 2
    assert share_interval(10, 10) == pytest.approx((1.0, 10 / (10 + z2), 1.0))
    assert share_interval(0, 10) == pytest.approx((0.0, 0.0, z2 / (10 + z2)))
    assert share_interval(1000, 1000).low > 0.996


def test_a_difference_that_no_draw_moves_is_not_certain() -> None:
    right = np.ones((1, 3, 10))
    (found,) = paired_difference(right, right)
    wide = not_certain(found, 10, 0)
    assert (found.low, found.high, found.error) == (0, 0, 0)
    assert wide.low == pytest.approx(-0.278, abs=1e-3) and wide.high == -wide.low and wide.p == found.p
    assert tost(0.0, wide.error, 0.05) > 0.3, "ten items alike say little of five points"
    assert tost(0.0, not_certain(found, 1000, 0).error, 0.05) < 0.001
    moved = found._replace(error=0.1)
    assert not_certain(moved, 10, math.inf) == moved


@pytest.mark.parametrize("apart", [2, 4, 5, 8, 12, 40])
def test_a_few_items_that_all_point_one_way_are_no_more_than_so_many_signs(apart: int) -> None:
    """The exact test of them (McNemar's), which a bootstrap undercuts."""
    first, second = np.ones((1, 2, 2000)), np.ones((1, 3, 2000))
    second[..., :apart] = 0
    (found,) = paired_difference(first, second, draws=4000)
    told = not_certain(found, 2000, apart)
    exact = stats.binomtest(apart, apart).pvalue
    assert told.p == max(found.p, exact) and (told.value, told.error) == (found.value, found.error)
    assert (told.low <= 0) == (exact > 0.05), "the interval says the same"
    (drawn,) = resampled([first[:, :1] - second[:, :1]], 4000)[0]
    assert differing(drawn, 2000) == pytest.approx(apart, rel=0.2) or (apart > 5 and differing(drawn, 2000) > 5)


def test_gains_and_losses_that_cancel_in_a_draw_are_items_that_differ() -> None:
    """12 against 3 of 100: the exact test says 0.035, of five equal signs it would be no less than 0.06."""
    apart = np.zeros((1, 1, 100))
    apart[..., :12], apart[..., 12:15] = 1, -1
    (drawn,) = resampled([apart], 4000)[0]
    assert (np.abs(drawn) < 1e-9).any() and differing(drawn, 100) == math.inf


@pytest.mark.parametrize("seeds", [3, 7, 8, 11])
@pytest.mark.parametrize("score", [1.0, 0.3])  # sums of ones are exact, others are not
def test_a_rounding_is_no_spread(seeds: int, score: float) -> None:
    """The mean of 7 seeds that all agree differs in its last digit from draw to draw."""
    (found,) = paired_difference(np.full((1, seeds, 10), score), np.zeros((1, seeds, 10)), draws=2000)
    assert found.error == 0 and found.p == pytest.approx(2 * stats.t.sf(stats.norm.isf(1 / 2001), 9))
    wide = not_certain(found, 10, 0)
    assert wide.low == pytest.approx(score - 0.278, abs=1e-3) and wide.p == pytest.approx(
        max(found.p, 2 * stats.norm.sf(score / wide.error))
    )


def test_no_draw_moves_a_number_that_is_taken_from_all() -> None:
    found = difference(-0.05, np.zeros(2000) - 0.05, [np.full(7, -0.05)], 10)
    assert found.error == 0
    wide = not_certain(found, 10, 0)
    assert wide.high == pytest.approx(0.228, abs=1e-3) and wide.p > 0.7, "of ten items five points are none"
    assert not_certain(found, 10_000, 0).p == found.p < 0.01


def test_quantile_interval_is_over_the_replicates() -> None:
    assert quantile_interval(np.arange(101).reshape(101, 1)) == pytest.approx((50.0, 2.5, 97.5))
    assert quantile_interval([0.25]) == (0.25, 0.25, 0.25)


def test_a_paired_difference_sees_what_unpaired_intervals_hide() -> None:
    rng = np.random.default_rng(4)
    difficulty = rng.random(1000)
    first, second = (difficulty < 0.72)[None, None], (difficulty < 0.70)[None, None]
    found = paired_difference(first, second, draws=2000)[0]
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.low > 0 and found.p < 0.01
    a, b = (bootstrap_mean(x)[0] for x in (first, second))
    assert a.low < b.high
    back = paired_difference(second, first, draws=2000)[0]
    assert back.value == pytest.approx(-found.value)
    assert back.p == pytest.approx(found.p, abs=0.005)


def test_the_p_of_no_difference_keeps_its_level() -> None:
    rng = np.random.default_rng(5)
    first, second = (rng.random((300, 1, 200)) < 0.7 for _ in range(2))
    p = np.array([d.p for d in paired_difference(first, second, draws=999, rng=rng)])
    assert 0.01 <= (p <= 0.05).mean() <= 0.10
    assert 0.4 <= (p <= 0.5).mean() <= 0.6


def test_equal_models_do_not_differ_and_other_items_are_refused() -> None:
    same = np.random.default_rng(6).random((1, 1, 100)) < 0.5
    found = paired_difference(same, same, draws=200)[0]
    assert (found.value, found.low, found.high, found.p, found.error) == (0, 0, 0, 1, 0)
    with pytest.raises(ValueError, match="not the same layers and items"):
        paired_difference(same, same[..., :50])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(p_values)
def test_holm_is_monotone_and_between_p_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.asarray(p)).all()
    assert (adjusted <= np.minimum(1, np.asarray(p) * len(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_tost_in_closed_form() -> None:
    # Equivalent at 5% exactly when the 90% interval lies within the margin.
    error = 0.01
    edge = 0.05 - stats.norm.ppf(0.95) * error
    assert tost(edge, error, 0.05) == pytest.approx(0.05)
    assert tost(-edge, error, 0.05) == pytest.approx(0.05)
    assert tost(0.06, error, 0.05) > 0.5
    assert tost(edge, error, 0.05, freedom=4) > 0.05
    assert (tost(0.01, 0, 0.05), tost(0.05, 0, 0.05)) == (0.0, 1.0)
    with pytest.raises(ValueError, match="positive"):
        tost(0, 1, 0)


class TestImages:
    """Squared error, PSNR and SSIM of images ``[N, C, H, W]``."""

    @pytest.fixture(scope="class")
    def images(self) -> np.ndarray:
        return ndimage.gaussian_filter(np.random.default_rng(0).random((4, 3, 20, 26)), (0, 0, 1, 1)).clip(0, 1)

    def test_squared_error_and_psnr_in_closed_form(self, images: np.ndarray) -> None:
        other = images + np.array([0.0, 0.001, 0.1, 0.5])[:, None, None, None]
        error = squared_error(images, other)
        assert error == pytest.approx([0, 1e-6, 0.01, 0.25])
        assert psnr(error) == pytest.approx([58.92, 58.92, 20, 6.02], abs=0.005), "rounding to 8 bits is a bound"

    def test_ssim_by_another_way(self, images: np.ndarray) -> None:
        """Equation 13 place by place, with SciPy's own Gaussian window of 11 pixels and its edges cut off."""
        other = np.clip(images + np.random.default_rng(1).normal(0, 0.1, images.shape), 0, 1)

        def smooth(plane: np.ndarray) -> np.ndarray:
            return ndimage.gaussian_filter(plane, 1.5, truncate=3.5)[5:-5, 5:-5]

        def by_hand(x: np.ndarray, y: np.ndarray) -> float:
            mx, my = smooth(x), smooth(y)
            vx, vy, vxy = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
            c1, c2 = 1e-4, 9e-4
            each = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
            return float(each.mean())

        expected = [
            np.mean([by_hand(x, y) for x, y in zip(a, b, strict=True)]) for a, b in zip(images, other, strict=True)
        ]
        found = ssim(images, other)
        assert found == pytest.approx(expected, abs=1e-9)
        assert (found > 0.2).all() and (found < 0.95).all()
        assert ssim(other, images) == pytest.approx(found)

    def test_ssim_at_its_ends(self, images: np.ndarray) -> None:
        assert ssim(images, images) == pytest.approx(1)
        assert (ssim(images, 1 - images) < 0).all(), "structure turned round"
        grey = np.full_like(images, 0.5)
        assert ssim(grey, grey + 0.25) == pytest.approx((2 * 0.375 + 1e-4) / (0.25 + 0.5625 + 1e-4)), "luminance alone"

    def test_what_is_no_pair_of_images(self, images: np.ndarray) -> None:
        with pytest.raises(ValueError, match="of one shape"):
            squared_error(images, images[:, :1])
        with pytest.raises(ValueError, match="window of 11 pixels does not lie within 10"):
            ssim(images[..., :10], images[..., :10])


class TestDifference:
    DRAWS = np.random.default_rng(0).normal(1, 0.2, 2000)

    def test_samples_are_judged_by_where_one_more_would_land(self):
        few = np.array([0.1, 0.3, 0.2, 0.4, 0.25])
        error = few.std(ddof=1) * np.sqrt(1 + 1 / 5)
        found = of_samples(few.mean(), few)
        assert found.error == pytest.approx(error)
        assert found.p == pytest.approx(2 * stats.t.sf(few.mean() / error, 4)) and 0.05 < found.p < 0.12
        assert found.low < 0 < found.high  # as p says, though all five are above
        edge = of_samples(error * stats.t.ppf(0.975, 4), few)
        assert edge.low == pytest.approx(0, abs=1e-12) and edge.p == pytest.approx(0.05)

    @pytest.mark.parametrize("n", [2, 3, 5])
    def test_samples_that_are_equal_are_so_many_equal_signs(self, n):
        assert of_samples(0.2, np.full(n, 0.2)).p == 2 * 0.5**n
        assert of_samples(0.0, np.zeros(n)).p == 1
        coarse = of_samples(0.2, np.full(n, 0.2), step=0.1)
        assert coarse == of_samples(0.2, np.full(n, 0.2) + np.array([0, 1e-6] * 3)[:n], step=0.1)
        assert coarse.error == pytest.approx(0.1 * np.sqrt(1 + 1 / n))

    def test_one_more_sample_lands_within_95_of_100_intervals(self):
        n, rng = 3, np.random.default_rng(3)
        drawn = rng.normal(0.3, 0.1, (5000, n + 1))
        found = [of_samples(row[:-1].mean(), row[:-1]) for row in drawn]
        held = np.mean([one.low <= row[-1] <= one.high for one, row in zip(found, drawn, strict=True)])
        assert 0.943 <= held <= 0.957  # without √(1 + 1/n): 0.935

    def test_beyond_the_last_draw_student_says_how_far(self):
        least = 2 / 2001
        assert difference(1, self.DRAWS, [], 10_000).p < difference(1, self.DRAWS, [], 30).p < least
        assert difference(1, self.DRAWS, [], 9).p > difference(1, self.DRAWS, [], 30).p
        near = self.DRAWS - 0.7  # some lie on the other side: their share is p
        share = 2 * ((near <= 0).sum() + 1) / 2001
        assert difference(0.3, near, [], 10**9).p == pytest.approx(share, rel=1e-4)
        assert difference(0.3, near, [], 30).p > share > least
        wide, narrow = difference(0.3, near, [], 3), difference(0.3, near, [], 10**9)
        assert wide.high - 0.3 == pytest.approx((narrow.high - 0.3) * stats.t.ppf(0.975, 2) / 1.959964, rel=1e-4)

    def test_freedom_is_of_whatever_the_spread_is_of(self):
        seeds = np.array([0.1, 0.2, 0.4])
        variance = seeds.var(ddof=1) / 3
        assert freedom(variance**0.5, [seeds], 1000) == pytest.approx(2)  # the seeds' alone
        assert freedom(1, [np.full(3, 0.2)], 1000) == freedom(1, [np.array([0.2])], 1000) == 999  # the items' alone
        both = freedom((2 * variance) ** 0.5, [seeds], 3)  # half and half
        assert both == pytest.approx(4)


@pytest.mark.parametrize("seeds", [3, 5])
def test_seeds_that_differ_more_than_items_are_covered_however_few(seeds: int) -> None:
    """Two models that are equally good on average, each seed better or worse by more than what items add."""
    rng = np.random.default_rng(seeds)
    found = []
    for _ in range(300):
        items = rng.random(400)
        both = [items < 0.7 + 0.05 * rng.standard_normal((seeds, 1)) for _ in range(2)]
        (one,) = paired_difference(both[0][None], both[1][None], draws=200, rng=rng)
        found.append((one.low <= 0 <= one.high, one.p < 0.05))
    held, told = np.mean(found, axis=0)
    assert held >= 0.92 and told <= 0.08  # drawn like items, without freedom: 0.80 and 0.18 of three, 0.86 and 0.13


def test_a_groups_draws_are_its_own_whoever_is_drawn_beside_it() -> None:
    rng = np.random.default_rng(1)
    a, b, c = rng.random((2, 3, 40)), rng.random((1, 5, 40)), rng.random((3, 1, 40))

    def seeds(*names: int) -> list[np.random.Generator]:
        return [np.random.default_rng(name) for name in names]

    (alone,) = resampled([b], 500, 7, seeds(2))
    _, beside, _ = resampled([a, b, c], 500, 7, seeds(1, 2, 3))
    assert np.allclose(alone, beside)
