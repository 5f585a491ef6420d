"""SentEval's probes as one stack against one after another, against a roofline, and beside L-BFGS.

Both sides are given the same initial weights, permutations and fused Adam, so that the same accuracies must come out;
the plain side does not pay for SentEval's retraining with the chosen weight decay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks import lbfgs
from benchmarks.figures import Row, gemm_rate, in_turns, measured, now, ratios
from benchmarks.plain import fit_grid
from benchmarks.recipes import JAWAHAR, LINEAR, SENTEVAL
from clipstudy.probes.mlp import Inputs, Labels, Recipe, fit
from clipstudy.probes.stack import Shape

WIDTH, CLASSES = 768, 6
#: Bytes that a parameter costs in a step: Adam reads it, its gradient and two moments and writes three of them; the
#: forward pass reads it, the backward pass writes its gradient.
ADAM, PASSES = 7 * 4, 2 * 4


def rows(quick: bool) -> Iterator[Row]:
    repeats = 2 if quick else 5
    layers, seeds = (4, range(2)) if quick else (13, range(5))
    truth = labels((400, 100, 300) if quick else (1000, 250, 500))
    inputs = [features(layer, truth) for layer in range(layers)]
    beside, apart = one_after_another(inputs, truth, seeds, repeats)
    yield from (beside, apart)
    # Either bound will do.
    yield roofline(inputs, truth, seeds, repeats, least=None if beside.met else 0.8)
    yield from full_batch(inputs, truth, repeats)


def one_after_another(inputs: list[Inputs], truth: Labels, seeds: range, repeats: int) -> Iterator[Row]:
    middle = len(inputs) // 2
    fit(inputs[:1], [truth], CLASSES, replace(JAWAHAR, epoch_size=1), [0])
    found: dict[str, Any] = {}

    def stacked() -> None:
        found["ours"] = fit(inputs, [truth], CLASSES, SENTEVAL, seeds)[middle][0]

    def plain() -> None:
        found["plain"] = [fit_grid(inputs[middle], truth, CLASSES, SENTEVAL, seed) for seed in seeds]

    seconds = measured(repeats, stacked=stacked, plain=plain)
    members = f"{len(inputs)} layers × {len(seeds)} seeds × {len(SENTEVAL.l2)} weight decays"
    yield Row(
        "probes: one after another / stacked",
        ratios(seconds["plain"], seconds["stacked"], len(inputs)),
        least=3.0,
        said=f"{members}, {len(truth.train)} rows of {WIDTH}, early stopping; plain: one layer, times {len(inputs)}",
    )
    theirs = np.stack([f.predictions for f in found["plain"]])
    apart = np.abs((found["ours"].predictions == truth.test).mean(1) - (theirs == truth.test).mean(1))
    yield Row(
        "probes: accuracies apart, stacked and plain", apart.tolist(), unit="", most=0.005, said="a repeat is a seed"
    )


def roofline(inputs: list[Inputs], truth: Labels, seeds: range, repeats: int, least: float | None) -> Row:
    """The least time that one evaluation period could take: products at the rate of a large one, each step's weights,
    gradients and moments moved once at the bandwidth of a sum over as many bytes as are trained at once."""
    recipe = replace(JAWAHAR, l2=SENTEVAL.l2)
    shape = Shape(WIDTH, recipe.hidden, CLASSES)
    parameters = sum(a * b for a, b in shape.parameters())
    steps = recipe.epoch_size * -(-len(truth.train) // recipe.batch_size)
    members = len(inputs) * len(seeds) * len(recipe.l2)
    products = 2 * recipe.batch_size * recipe.hidden * (2 * WIDTH + 3 * CLASSES)
    gathered = 2 * 4 * recipe.batch_size * WIDTH / len(recipe.l2)
    found = []
    for _ in range(repeats):
        rate, speed = gemm_rate(), bandwidth(32 * 2**20)
        floor = max(products / rate, PASSES * parameters / speed) + (ADAM * parameters + gathered) / speed
        (took,) = measured(1, ours=partial(fit, inputs, [truth], CLASSES, recipe, seeds))["ours"]
        found.append(members * steps * floor / took)
    return Row(
        "probes: roofline / stacked",
        found,
        unit="",
        least=least,
        said=f"a step of a probe: {products / 1e6:.1f} MFLOP at {rate / 1e9:.0f} GFLOP/s, "
        f"{(ADAM + PASSES) * parameters / 1e6:.1f} MB at {speed / 1e9:.0f} GB/s",
    )


def bandwidth(size: int) -> float:
    """Bytes a second that a sum of two vectors into a third moves, ``size`` bytes in all three."""
    a, b, c = torch.ones(3, size // 12).unbind()
    torch.add(a, b, out=c)
    began = now()
    for _ in range(20):
        torch.add(a, b, out=c)
    return 20 * size / (now() - began)


def full_batch(inputs: list[Inputs], truth: Labels, repeats: int) -> Iterator[Row]:
    """Linear probes by full-batch L-BFGS, all layers and weight decays at once, against the stack's Adam."""
    scale = 20.0  # Adam's early stopping is a regulariser of its own; raw features would make L-BFGS separate them
    decays = tuple(scale * l2 for l2 in (1e-3, 1e-2))
    x = torch.stack([torch.from_numpy(one.train) for one in inputs])
    test = torch.stack([torch.from_numpy(one.test) for one in inputs])
    found: dict[str, Any] = {}

    def newton() -> None:
        found["lbfgs"] = lbfgs.fit(x, torch.from_numpy(truth.train), CLASSES, decays)

    def adam() -> None:
        found["adam"] = fit(inputs, [truth], CLASSES, recipe, [0])

    recipe: Recipe = replace(LINEAR, l2=decays)
    seconds = in_turns(repeats, newton=newton, adam=adam)
    guessed = lbfgs.predict(found["lbfgs"], test).numpy()
    best = (guessed == truth.test).mean(-1).max(1).mean()
    ours = np.mean([(layer[0].predictions == truth.test).mean() for layer in found["adam"]])
    yield Row(
        "linear probes: stacked Adam / batched L-BFGS",
        ratios(seconds["adam"], seconds["newton"]),
        said=f"{len(inputs)} layers × {len(decays)} weight decays, one seed, as it is convex; test accuracy "
        f"{ours:.3f} and {best:.3f}; studies keep SentEval's Adam, whose early stopping is part of the method",
    )


def labels(sizes: tuple[int, int, int]) -> Labels:
    rng = np.random.default_rng(0)
    return Labels(*(rng.integers(0, CLASSES, n) for n in sizes))


def features(layer: int, truth: Labels) -> Inputs:
    """Gaussian features whose classes lie equally far apart at every layer."""
    means = 0.06 * np.random.default_rng(CLASSES).standard_normal((CLASSES, WIDTH))
    rng = np.random.default_rng(layer + 1)
    return Inputs(
        *(
            (rng.standard_normal((len(y), WIDTH)) + means[y]).astype(np.float32)
            for y in (truth.train, truth.dev, truth.test)
        )
    )
