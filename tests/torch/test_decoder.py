"""Decoders: they draw what a map tells, fall to the mean image where it tells nothing, and are alike behind it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from clipstudy.probes.decoder import PIXELS, Decoder, Decoders, Recipe, Standardised

SMALL = Recipe(grid=4, width=48, hidden=32, size=16, steps=250, learning_rate=4e-3)


def smooth(n: int, seed: int) -> torch.Tensor:
    """Images ``[n, 3, 16, 16]`` in [0, 1] with nothing finer than a fifth of their side."""
    rough = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return interpolate(rough, size=(16, 16), mode="bicubic").clamp(0, 1)


TRAIN, HELD_OUT = smooth(320, 0), smooth(64, 1)
MEAN = TRAIN.mean(0)


def batches(recipe: Recipe, size: int = 16):
    draw = torch.Generator().manual_seed(2)
    for _ in range(recipe.steps):
        yield torch.randint(len(TRAIN), (size,), generator=draw)


def trained(maps, seeds=(0,), recipe=SMALL) -> Decoders:
    """Decoders of ``maps``, each a function of (images, generator)."""
    noise = torch.Generator().manual_seed(3)
    decoders = Decoders({k: make(TRAIN[:2], noise).shape[1:] for k, make in maps.items()}, MEAN, recipe, seeds)
    noise.manual_seed(4)
    for rows in batches(recipe):
        decoders.step({k: make(TRAIN[rows], noise) for k, make in maps.items()}, TRAIN[rows])
    return decoders


def error(drawn: torch.Tensor) -> float:
    return float(((drawn - HELD_OUT) ** 2).mean())


FLOOR = error(MEAN.expand_as(HELD_OUT))


def test_the_identity_is_drawn_and_shuffled_maps_fall_to_the_mean_image():
    def shuffled(images, noise):
        return images[torch.randperm(len(images), generator=noise)]

    decoders = trained({1: lambda images, _: images, 2: shuffled})
    psnr = -10 * torch.log10(torch.tensor(error(decoders.draw({1: HELD_OUT}, (1, 0)))))
    assert psnr > 27, "the bottleneck is as wide as the image"
    assert error(decoders.draw({1: HELD_OUT}, (1, 0))) < FLOOR / 20
    others = error(decoders.draw({2: HELD_OUT.roll(1, 0)}, (2, 0)))
    assert 0.98 * FLOOR < others < 1.15 * FLOOR


def test_a_decoder_begins_at_the_mean_image():
    decoders = Decoders({0: (5, 3, 3)}, MEAN, SMALL, [0])
    assert torch.equal(decoders.draw({0: torch.randn(2, 5, 3, 3)}, (0, 0)), MEAN.expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("channels", "rows", "columns"), [(3, 16, 16), (7, 4, 4), (5, 1, 1), (6, 3, 3), (2, 7, 7), (4, 9, 5), (4, 2, 3)]
)
def test_behind_the_bottleneck_all_are_the_same_network(channels, rows, columns):
    """Whatever the map, its numbers become ``width × grid × grid``, and what follows has the same weights to learn."""
    decoder = Decoder(channels, max(rows, columns), SMALL, MEAN)
    codes = []
    decoder.trunk.register_forward_pre_hook(lambda _, given: codes.append(given[0].shape))
    assert decoder(torch.randn(2, channels, rows, columns)).shape == (2, 3, 16, 16)
    assert codes == [(2, 48, 4, 4)]
    as_one = Decoder(1, 1, SMALL, MEAN)
    assert [w.shape for w in decoder.trunk.parameters()] == [w.shape for w in as_one.trunk.parameters()]


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16])
def test_nothing_is_averaged_away_before_the_bottleneck(side):
    """Where the bottleneck has room for a whole map, the way into it loses nothing: it has full rank."""
    torch.manual_seed(0)
    decoder = Decoder(3, side, SMALL, MEAN).eval()
    codes = []
    decoder.trunk.register_forward_pre_hook(lambda _, given: codes.append(given[0].flatten(1)))
    numbers = 3 * side**2
    one_by_one = torch.eye(numbers).reshape(numbers, 3, side, side)
    decoder(torch.cat([one_by_one, torch.zeros(1, 3, side, side)]))
    assert torch.linalg.matrix_rank((codes[0][:-1] - codes[0][-1]).double(), rtol=1e-6) == numbers


SHORT = replace(SMALL, steps=6)


def a_few(layers, seeds=(0,)):
    return trained(
        {k: (lambda images, _, k=k: interpolate(images * k, scale_factor=1 / k)) for k in layers}, seeds, SHORT
    )


def test_siblings_and_other_seeds_do_not_matter():
    together, alone = a_few((1, 2, 4), (0, 1)), a_few((2,), (1,))
    maps = interpolate(HELD_OUT * 2, scale_factor=0.5)
    assert torch.equal(together.draw({2: maps}, (2, 1)), alone.draw({2: maps}, (2, 1)))


def test_a_seed_is_one_decoder_and_disturbs_nobody():
    state = torch.get_rng_state()
    first, again = a_few((1,), (0, 1)), a_few((1,), (0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    drawn = [decoders.draw({1: HELD_OUT}, (1, seed)) for decoders in (first, again) for seed in (0, 1)]
    assert torch.equal(drawn[0], drawn[2]) and torch.equal(drawn[1], drawn[3])
    assert not torch.equal(drawn[0], drawn[1])


def test_the_scale_of_states_says_nothing():
    """Layers differ in scale by orders of magnitude, and some channels hardly move: all are brought to one scale."""
    factor = torch.tensor([1000.0, 1.0, 0.01])[:, None, None]
    plain, scaled = trained({1: lambda x, _: x}, recipe=SHORT), trained({1: lambda x, _: x * factor + 5}, recipe=SHORT)
    torch.testing.assert_close(
        plain.draw({1: HELD_OUT}, (1, 0)), scaled.draw({1: HELD_OUT * factor + 5}, (1, 0)), atol=5e-3, rtol=0
    )


def test_the_statistics_are_those_of_all_maps_seen_whatever_the_batches() -> None:
    """What lies between batches counts, and so does that a channel was silent in most of them."""
    torch.manual_seed(0)
    batches = [torch.randn(size, 4, 5, 3) * 3 + 20 * number for number, size in enumerate((8, 8, 2, 5))]
    for number, maps in enumerate(batches):
        maps[:, 1] *= number == 3  # first heard in the last batch
        maps[:, 2] = maps[:, 2] * 1e-6 if number else 0  # hardly moves
        maps[:, 3] += 1000
    standardised, seen = Standardised(4), torch.cat(batches).double()
    for maps in batches:
        standardised.train()(maps)
    torch.testing.assert_close(standardised.mean.double(), seen.mean((0, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(standardised.variance.double(), seen.var((0, 2, 3), correction=0), rtol=1e-4, atol=0)
    plain = standardised.eval()(torch.cat(batches))[:, [0, 1, 3]]
    torch.testing.assert_close(plain.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(plain.var((0, 2, 3), correction=0), torch.ones(3), rtol=1e-3, atol=0)


def test_a_batch_is_standardised_in_training_as_when_it_is_drawn() -> None:
    decoder = Decoders({PIXELS: (3, 16, 16)}, MEAN, SMALL, [0]).each[PIXELS, 0]
    torch.nn.init.normal_(decoder.trunk[-1].weight)  # 0 at first, and then all is drawn alike
    brighter = HELD_OUT[:4] + 0.5
    with torch.no_grad():
        decoder.train()(HELD_OUT)
        assert torch.equal(decoder.train()(brighter), decoder.eval()(brighter))
        assert (decoder(brighter) - decoder(HELD_OUT[:4])).abs().mean() > 0.1  # what all of a batch have is not lost


def test_the_learning_rate_rises_falls_and_ends_near_nought():
    rates = [SMALL.rate(step) for step in range(SMALL.steps)]
    top = rates.index(max(rates))
    assert 0 < top < SMALL.steps / 10 and max(rates) == pytest.approx(SMALL.learning_rate, rel=0.02)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[0] > 0 and rates[-1] < SMALL.learning_rate / 1000
    assert Recipe(4, 8, 8, 16, 1, 1e-3).rate(0) > 0, "even a single step learns"


def test_the_pixels_are_a_map_too():
    decoders = Decoders({PIXELS: (3, 32, 32)}, MEAN, SMALL, [0])
    assert decoders.draw({PIXELS: torch.randn(2, 3, 32, 32)}, (PIXELS, 0)).shape == (2, 3, 16, 16)
