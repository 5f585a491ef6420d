"""Linear CKA against what is known of it, and against the definition written out as loops."""

from __future__ import annotations

import numpy as np
import pytest

from clipstudy.probes.similarity import Hsic, centred, chance, cka, grams, hsic, intervals, minibatches

TEXTS = 192


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def compared(x: np.ndarray, *others: np.ndarray, size: int = 24, seeds: tuple[int, ...] = (0, 1)) -> list[Hsic]:
    cuts = [minibatches(len(x), size, seed) for seed in seeds]
    return [hsic(grams(centred(x), c), np.stack([grams(centred(y), c) for y in others])) for c in cuts]


def alike(x: np.ndarray, y: np.ndarray) -> float:
    return float(cka(compared(x, y))[0])


def by_the_definition(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC₁ of Song et al. 2012, equation 5, term by term."""
    n = len(x)
    k, m = ([[0.0 if i == j else float(a[i] @ a[j]) for j in range(n)] for i in range(n)] for a in (x, y))
    both = sum(k[i][j] * m[i][j] for i in range(n) for j in range(n))
    chains = sum(sum(k[i]) * sum(m[i]) for i in range(n))
    sums = sum(map(sum, k)) * sum(map(sum, m))
    return (both + sums / ((n - 1) * (n - 2)) - 2 * chains / (n - 2)) / (n * (n - 3))


def test_hsic_is_the_unbiased_estimator() -> None:
    x, y = draw(12, 5), draw(12, 9, seed=1)
    y[:, 0] += x[:, 0]
    whole = np.arange(12)[None]
    found = hsic(grams(x, whole), grams(y, whole)[None])
    assert found.cross == pytest.approx(by_the_definition(x, y))
    assert found.own == pytest.approx(by_the_definition(x, x))
    assert found.others == pytest.approx(by_the_definition(y, y))


def test_each_minibatch_is_one_estimate() -> None:
    x, y = draw(24, 5), draw(24, 3, seed=1)
    rows = minibatches(24, 8, 0)
    found = hsic(grams(x, rows), grams(y, rows)[None]).cross[0]
    assert found == pytest.approx([by_the_definition(x[r], y[r]) for r in rows])


def test_vectors_are_like_themselves() -> None:
    x = draw(TEXTS, 7)
    assert alike(x, x) == pytest.approx(1)


def test_rotation_shift_and_scale_change_nothing() -> None:
    x, y = draw(TEXTS, 7), draw(TEXTS, 11, seed=1)
    y[:, :7] += x
    turn, _ = np.linalg.qr(draw(11, 11, seed=2))
    assert alike(x, y @ turn * 30 + 500) == pytest.approx(alike(x, y))
    assert alike(x, x @ np.linalg.qr(draw(7, 7, seed=3))[0] * 1e-3 - 2) == pytest.approx(1)
    # Not every linear map: that is what tells CKA from canonical correlations.
    assert alike(x, x * np.array([9, 1, 1, 1, 1, 1, 1])) < 0.9


@pytest.mark.parametrize("width", [4, 400, 2000])
def test_independent_vectors_are_unlike_at_any_width(width: int) -> None:
    x, y = draw(TEXTS, width), draw(TEXTS, width, seed=1)
    assert abs(alike(x, y)) < 0.08
    if width > TEXTS:  # where the usual estimator sees two nearly equal models
        k, m = (a @ a.T for a in (x - x.mean(0), y - y.mean(0)))
        assert (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()) > 0.6


def test_symmetric_and_bounded() -> None:
    x, y = draw(TEXTS, 5), -draw(TEXTS, 50, seed=1)
    y[:, :5] += 2 * x
    assert alike(x, y) == pytest.approx(alike(y, x))
    assert 0 < alike(x, y) < 1


def test_several_others_as_each_alone() -> None:
    x, others = draw(TEXTS, 5), [draw(TEXTS, d, seed=d) for d in (3, 8)]
    others[1][:, :5] += x
    assert cka(compared(x, *others)) == pytest.approx([alike(x, y) for y in others])


def test_a_layer_that_says_the_same_of_every_text_is_like_nothing() -> None:
    x = draw(TEXTS, 5)
    same = 0.3 + 1e-8 * draw(TEXTS, 6, seed=1)  # but for rounding
    assert alike(x, same) == alike(same, same) == 0
    assert all(interval == (0, 0, 0) for interval in intervals(compared(x, same), draws=20))
    assert not centred(same, scaled=True).any()


def test_scaled_dimensions_weigh_the_same() -> None:
    x = draw(TEXTS, 3) * np.array([1, 100, 1e-3]) + 5
    assert centred(x, scaled=True).std(axis=0) == pytest.approx([1, 1, 1])
    assert centred(x).std(axis=0) == pytest.approx(x.std(axis=0))


def test_unpaired_texts_have_nothing_in_common() -> None:
    x = draw(TEXTS, 30)
    by_chance = chance(compared(x, x, x))
    assert by_chance.shape == (2, 2) and (abs(by_chance) < 0.1).all()


def test_minibatches_take_each_text_at_most_once() -> None:
    rows = minibatches(190, 64, 0)
    assert rows.shape == (2, 95) and len(set(rows.ravel())) == 190
    assert minibatches(100, 24, 0).shape == (4, 25)
    assert not np.array_equal(rows, minibatches(190, 64, 1))
    assert np.array_equal(rows, minibatches(190, 64, 0))


class TestIntervals:
    def related(self, texts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(seed)
        x = draw.standard_normal((texts, 6))
        return x, x + draw.standard_normal((texts, 6))

    def test_they_hold_the_value_and_shrink_with_texts(self) -> None:
        widths = []
        for texts in (200, 3200):
            [found] = intervals(compared(*self.related(texts, 0)), draws=200)
            assert found.low < found.value < found.high
            widths.append(found.high - found.low)
        assert widths[1] < widths[0] / 2

    def test_they_hold_the_truth(self) -> None:
        """CKA of x and x + noise of the same covariance is 1/2: ‖I‖² over ‖I‖ · ‖2I‖, Frobenius norms."""
        found = [intervals(compared(*self.related(400, seed)), draws=200)[0] for seed in range(40)]
        assert np.mean([f.value for f in found]) == pytest.approx(0.5, abs=0.01)
        assert np.mean([f.low <= 0.5 <= f.high for f in found]) >= 0.85

    def test_the_same_again(self) -> None:
        cuts = compared(*self.related(200, 0))
        assert intervals(cuts, draws=50) == intervals(cuts, draws=50)
