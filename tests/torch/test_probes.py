"""The stacked probe against the plain one, and what a probe must and must not find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from benchmarks.plain import fit_grid, fit_one
from benchmarks.recipes import JAWAHAR, LINEAR, SENTEVAL
from clipstudy.errors import DataError
from clipstudy.probes import mlp
from clipstudy.probes.inputs import Inputs, Labels, principal, standardise
from clipstudy.probes.mlp import ProbeFit, Recipe, fit
from clipstudy.probes.stack import Member, Shape, Stack, Stream

CLASSES = 4
QUICK = Recipe(hidden=16, l2=(1e-4,), tenacity=2, epoch_size=2, max_epoch=40)


def labels(rows: tuple[int, int, int] = (330, 150, 400), seed: int = 0) -> Labels:
    rng = np.random.default_rng(seed)
    return Labels(*(rng.integers(0, CLASSES, n) for n in rows))


def layer(seed: int, truth: Labels, *, width: int = 24, signal: float = 0.6) -> Inputs:
    """Gaussian features, the classes' means ``signal`` apart in every dimension."""
    rng = np.random.default_rng(seed)
    means = signal * rng.standard_normal((CLASSES, width))
    return Inputs(
        *(
            (rng.standard_normal((len(y), width)) + means[y]).astype(np.float32)
            for y in (truth.train, truth.dev, truth.test)
        )
    )


def same(first: ProbeFit, second: ProbeFit) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("predictions", "dev_accuracy", "l2", "epochs")
    )


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(replace(SENTEVAL, max_epoch=40), id="mlp"),
        pytest.param(replace(LINEAR, max_epoch=40), id="linear"),
        pytest.param(replace(SENTEVAL, dropout=0.2, tenacity=2, max_epoch=24), id="dropout"),
        pytest.param(replace(JAWAHAR, batch_size=50), id="one period"),
    ],
)
def test_the_stack_equals_the_plain_probe_one_after_another(recipe: Recipe) -> None:
    truth = labels()
    layers = [layer(k, truth, signal=0.15 + 0.1 * k) for k in range(2)]
    found = fit(layers, [truth], CLASSES, recipe, [0, 7])
    for inputs, (stacked,) in zip(layers, found, strict=True):
        for i, seed in enumerate((0, 7)):
            plain = fit_grid(inputs, truth, CLASSES, recipe, seed)
            assert (stacked.predictions[i] == plain.predictions).mean() >= 0.995
            assert stacked.dev_accuracy[i] == pytest.approx(plain.dev_accuracy, abs=1e-3)
            assert (stacked.l2[i], stacked.epochs[i]) == (plain.l2, plain.epochs)


def test_sentevals_profile_is_sentevals_classifier_as_released() -> None:
    assert Recipe() == SENTEVAL
    assert replace(SENTEVAL, hidden=0) == LINEAR
    assert replace(SENTEVAL, early_stop=False) == JAWAHAR


def test_the_stack_starts_from_torchs_own_weights() -> None:
    torch.manual_seed(5)
    first, second = torch.nn.Linear(24, 16), torch.nn.Linear(16, CLASSES)
    drawn = Stream(5, Shape(24, 16, CLASSES)).initial
    for ours, theirs in zip(drawn, (first.weight, first.bias, second.weight, second.bias), strict=True):
        assert torch.allclose(ours.flatten(), theirs.detach().flatten(), atol=1e-7)


def test_a_fit_does_not_depend_on_what_is_fitted_beside_it() -> None:
    truth, other = labels(), labels(seed=9)
    recipe = replace(QUICK, l2=(1e-4, 1e-2), dropout=0.1)
    layers = [layer(k, truth, signal=0.1 * (k + 1)) for k in range(4)]
    whole = fit(layers, [truth, other], CLASSES, recipe, [0, 1, 2])
    assert len({int(e) for row in whole for f in row for e in f.epochs}) > 1  # some make room before others
    for budget in (1, 100_000):
        chunked = fit(layers, [truth, other], CLASSES, recipe, [0, 1, 2], budget=budget)
        assert all(same(a, b) for x, y in zip(whole, chunked, strict=True) for a, b in zip(x, y, strict=True))
    for k in (2, 0):
        ((alone,),) = fit([layers[k]], [truth], CLASSES, recipe, [2])
        assert np.array_equal(alone.predictions[0], whole[k][0].predictions[2])
        assert alone.epochs[0] == whole[k][0].epochs[2]


def test_leaked_labels_are_found_and_shuffled_ones_are_not() -> None:
    truth, shuffled = labels((400, 200, 1000)), labels((400, 200, 1000), seed=3)
    leaked = Inputs(*(np.eye(CLASSES, 8, dtype=np.float32)[y] for y in (truth.train, truth.dev, truth.test)))
    ((found, chance),) = fit([leaked], [truth, shuffled], CLASSES, replace(QUICK, learning_rate=1e-2), [0, 1])
    assert (found.predictions == truth.test).all()
    right = (chance.predictions == shuffled.test).mean()
    assert abs(right - 1 / CLASSES) < 3 * np.sqrt(0.25 * 0.75 / 1000)


def test_a_class_that_is_never_told_apart_is_flagged() -> None:
    truth = labels()
    blind = Inputs(*(np.zeros((len(y), 5), dtype=np.float32) for y in (truth.train, truth.dev, truth.test)))
    found = fit([blind, layer(0, truth)], [truth], CLASSES, QUICK, [0, 1])
    assert found[0][0].one_class.tolist() == [True, True]
    assert found[1][0].one_class.tolist() == [False, False]


@pytest.mark.parametrize(
    ("scores", "tenacity", "evaluations"),
    [
        # Never reset: better results in between buy no patience back.
        ([1, 0, 2, 0, 3, 0, 4, 5, 6, 7], 2, 6),
        ([1, 1, 1, 1, 1], 2, 4),  # an equal score is no improvement
        ([1, 2, 3, 4, 5, 6, 7, 8], 0, 8),
    ],
)
def test_the_count_of_evaluations_without_improvement_is_never_reset(
    scores: list[int], tenacity: int, evaluations: int
) -> None:
    member = Member(0, 0, 0.0, 0, Inputs(*(torch.zeros(10, 1),) * 3))
    recipe = Recipe(epoch_size=1, tenacity=tenacity, max_epoch=7)
    bias = torch.zeros(2, 1)
    for score in scores:
        member.passes += 1
        # Weights that say class 0 throughout, against labels of which ``score`` are 0.
        dev = torch.ones(10, dtype=torch.long)
        dev[:score] = 0
        mlp._score(member, [torch.zeros(2, 1), bias], dev)
        if recipe.finished(member):
            break
    assert member.passes == evaluations
    assert member.best == max(scores[:evaluations])


def test_early_stopping_takes_the_plain_probes_path() -> None:
    truth = labels()
    noise = layer(1, truth, signal=0.05)
    recipe = replace(SENTEVAL, l2=(1e-5,), learning_rate=5e-3)
    ((stacked,),) = fit([noise], [truth], CLASSES, recipe, [0])
    plain = fit_one(noise, truth, CLASSES, recipe, 0, 1e-5)
    assert stacked.epochs[0] == plain.epochs == 4 * plain.evaluations
    assert 6 < plain.evaluations < 51


def test_training_ends_at_the_first_period_past_max_epoch() -> None:
    truth = labels()
    recipe = replace(QUICK, tenacity=1000, max_epoch=8, epoch_size=4)
    ((found,),) = fit([layer(0, truth)], [truth], CLASSES, recipe, [0])
    assert found.epochs.tolist() == [12]  # 8 passes are not more than 8, so as released a third period begins
    ((found,),) = fit([layer(0, truth)], [truth], CLASSES, replace(JAWAHAR, max_epoch=1), [0])
    assert found.epochs.tolist() == [4]


def test_of_equally_good_weight_decays_the_first_is_taken() -> None:
    truth = labels()
    leaked = Inputs(*(10 * np.eye(CLASSES, dtype=np.float32)[y] for y in (truth.train, truth.dev, truth.test)))
    ((found,),) = fit([leaked], [truth], CLASSES, replace(QUICK, l2=(1e-5, 1e-4), learning_rate=1e-2), [0])
    assert (found.dev_accuracy[0], found.l2[0]) == (1.0, 1e-5)


def test_layers_of_other_widths_are_fitted_apart_and_loaded_in_turn() -> None:
    truth = labels()
    asked: list[int] = []
    layers = [layer(k, truth, width=width) for k, width in enumerate((8, 8, 24, 8))]

    def loader(k: int):
        return lambda: (asked.append(k), layers[k])[1]

    told: list[tuple[float, int]] = []
    found = fit([loader(k) for k in range(4)], [truth], CLASSES, QUICK, [0, 1], on_progress=lambda *at: told.append(at))
    assert asked == [0, 1, 2, 3]
    assert told[-1] == (8, 8) and told == sorted(told)
    for k in range(4):
        ((alone,),) = fit([layers[k]], [truth], CLASSES, QUICK, [0, 1])
        assert same(alone, found[k][0])


def test_as_many_layers_are_in_memory_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = labels()
    layers = [layer(k, truth) for k in range(4)]
    together = fit(layers, [truth], CLASSES, QUICK, [0, 1])
    one = layers[0].tensors(0, "cpu").nbytes
    held: list[set[int]] = []
    train = Stack.train

    def watched(stack: Stack, *given: Any, **named: Any) -> None:
        held.append({member.layer for member in stack.members})
        train(stack, *given, **named)

    monkeypatch.setattr(Stack, "train", watched)
    for room, most in ((0, 1), (2 * one, 2), (9 * one, 4)):
        held.clear()
        monkeypatch.setitem(mlp._FEATURES, "cpu", room)
        found = fit(layers, [truth], CLASSES, QUICK, [0, 1])
        assert max(map(len, held)) == most
        assert all(same(a, b) for (a,), (b,) in zip(found, together, strict=True))


def test_what_is_trained_together_and_ends_together_is_told_of_on_the_way() -> None:
    truth, told = labels(), []
    recipe = replace(QUICK, tenacity=1000, epoch_size=2, max_epoch=7)
    fit([layer(k, truth) for k in range(3)], [truth], CLASSES, recipe, [0, 1], on_progress=lambda *at: told.append(at))
    assert told == [(pytest.approx(share * 6), 6) for share in (2 / 7, 4 / 7, 6 / 8, 1)]  # the fourth ends past 7
    # What ended early says how long the others may take, and one that takes longer still is never done before its end.
    stopping = Recipe(epoch_size=4, max_epoch=200)
    assert mlp._done([], [50, 50], stopping) == 0.5
    assert mlp._done([20, 40], [15, 15], stopping) == 3
    assert mlp._done([20, 40], [396], stopping) == 2.99


def test_progress_may_stop_the_fit() -> None:
    truth = labels()

    def cancel(done: float, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit([layer(0, truth)], [truth], CLASSES, QUICK, [0], on_progress=cancel)


def test_not_a_number_is_named_by_layer_and_row() -> None:
    truth = labels()
    broken = layer(1, truth)
    broken.dev[17, 3] = np.nan
    with pytest.raises(DataError, match=r"Layer 1 .* 1 of 150 dev rows .* row 17"):
        fit([layer(0, truth), broken], [truth], CLASSES, QUICK, [0])


def test_features_and_labels_that_do_not_fit_together_are_refused() -> None:
    truth = labels()
    good = layer(0, truth)
    with pytest.raises(ValueError, match="differ in width"):
        fit([replace(good, dev=good.dev[:, :5])], [truth], CLASSES, QUICK, [0])
    with pytest.raises(ValueError, match="rows of features"):
        fit([replace(good, test=good.test[:9])], [truth], CLASSES, QUICK, [0])
    with pytest.raises(ValueError, match=r"0\.\.2"):
        fit([good], [truth], 3, QUICK, [0])


def test_features_mapped_from_a_file_are_read() -> None:
    truth = labels()
    inputs = layer(0, truth)
    ((before,),) = fit([inputs], [truth], CLASSES, QUICK, [0])
    for x in (inputs.train, inputs.dev, inputs.test):
        x.setflags(write=False)
    ((after,),) = fit([inputs], [truth], CLASSES, QUICK, [0])
    assert same(before, after)


def test_standardised_on_train_alone() -> None:
    rng = np.random.default_rng(0)
    train, test = (rng.normal([3, -1000, 0.1, 0], [2, 0.05, 0, 0], (9000, 4)).astype(np.float32) for _ in range(2))
    test[:, 2] = 7
    a, b = standardise(train, test)
    assert a.dtype == b.dtype == np.float32
    assert np.allclose(a[:, :2].mean(0), 0, atol=1e-4) and np.allclose(a[:, :2].std(0), 1, atol=1e-3)
    assert not a[:, 2:].any() and not b[:, 2:].any()  # constant on train: nothing to learn from, never NaN
    assert not np.allclose(b[:, :2].mean(0), 0, atol=1e-6)  # test by train's mean, not its own


class TestPrincipal:
    def made(self, n: int = 300) -> np.ndarray:
        draw = np.random.default_rng(3)
        return draw.standard_normal((n, 12)) @ draw.standard_normal((12, 12)) + 5

    def test_they_are_the_librarys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("clipstudy.probes.inputs._ROWS", 64)
        train, test = np.split(self.made(), [200])
        found, theirs = principal(train, 5), PCA(5).fit(train)
        assert found.explained == pytest.approx(theirs.explained_variance_ratio_.sum())
        mine, other = found.project(test), theirs.transform(test)
        np.testing.assert_allclose(mine, other * np.sign((mine * other).sum(axis=0)), rtol=1e-4, atol=1e-4)
        assert mine.dtype == np.float32 and mine.shape == (100, 5)
        assert (found.components.max(axis=0) >= -found.components.min(axis=0)).all(), "the sign is settled"

    def test_all_of_them_keep_every_distance(self) -> None:
        x = self.made()
        found = principal(x, 12)
        assert found.explained == pytest.approx(1)
        mine = found.project(x)
        np.testing.assert_allclose(np.linalg.norm(mine[0] - mine, axis=1), np.linalg.norm(x[0] - x, axis=1), rtol=1e-4)

    @pytest.mark.parametrize("rank", [0, 1, 4])
    def test_no_direction_that_is_rounding_alone(self, rank: int) -> None:
        """Standardised afterwards, what is left of a direction without variance would be noise of variance 1."""
        draw = np.random.default_rng(0)
        x = draw.standard_normal((50, rank)) @ draw.standard_normal((rank, 12)) + 3
        found = principal(x, 8)
        assert found.components.shape == (12, max(rank, 1)) and found.explained == pytest.approx(1)
        assert principal(self.made(5), 8).components.shape == (12, 4), "five rows span four directions"
        (projected,) = standardise(found.project(x))
        assert np.isfinite(projected).all()


def test_a_wide_input_is_standardised_in_blocks_as_at_once() -> None:
    x = np.random.default_rng(1).normal(5, 3, (20_000, 3)).astype(np.float32)
    (blocked,) = standardise(x)
    exact = x.astype(np.float64)
    assert np.allclose(blocked, (exact - exact.mean(0)) / exact.std(0), atol=1e-5)


def test_out_of_memory_fits_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fitted together decides no result, so a device that is too small only takes longer."""
    asked: list[int] = []
    real = mlp._fit

    def small(*words: Any) -> Any:
        asked.append(words[-1])
        if words[-1] > 8 * 2**20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*words)

    monkeypatch.setattr(mlp, "_fit", small)
    draw = np.random.default_rng(0)
    inputs = Inputs(*(draw.standard_normal((n, 4)).astype(np.float32) for n in (40, 10, 10)))
    labels = Labels(*(draw.integers(2, size=n) for n in (40, 10, 10)))
    found = fit([inputs], [labels], 2, Recipe(l2=(0.0,), early_stop=False), (0,))
    assert found[0][0].predictions.shape == (1, 10)
    assert asked == [32 * 2**20, 16 * 2**20, 8 * 2**20]
