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
from clipstudy.probes.inputs import Inputs, Labels
from clipstudy.probes.mlp import fit
from clipstudy.probes.stack import Shape

WIDTH, CLASSES = 768, 6
SPLITS = ("train", "dev", "test")
#: Bytes that a parameter costs in a step: Adam reads it, its gradient and two moments and writes three of them; the
#: forward pass reads it, the backward pass writes its gradient.
ADAM, PASSES = 7 * 4, 2 * 4


def rows(quick: bool) -> Iterator[Row]:
    repeats = 2 if quick else 5
    layers, seeds = (4, range(2)) if quick else (13, range(5))
    truth = labels((400, 100, 300) if quick else (1000, 250, 500))
    inputs = [features(layer, truth) for layer in range(layers)]
    beside, apart = one_after_another(inputs, truth, seeds, repeats)
    floor = roofline(inputs, truth, seeds, repeats)
    yield replace(beside, other=replace(floor, what="roofline", least=0.8))  # either bound will do
    yield from (apart, floor)
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


def roofline(inputs: list[Inputs], truth: Labels, seeds: range, repeats: int) -> Row:
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
    """Linear probes by full-batch L-BFGS, all layers and weight decays at once, against the stack's Adam. Either side
    takes the weight decay that is best on dev, and predicts test by it."""
    decays = LINEAR.l2
    train, dev, test = (torch.stack([torch.from_numpy(getattr(one, split)) for one in inputs]) for split in SPLITS)
    y = torch.from_numpy(truth.train)
    found: dict[str, Any] = {}

    def newton() -> None:
        found["weights"] = lbfgs.fit(train, y, CLASSES, decays)
        right = (lbfgs.predict(found["weights"], dev).numpy() == truth.dev).mean(-1)
        best = np.round(100 * right, 2).argmax(1)  # two decimals of a percentage decide, as for the stack
        found["lbfgs"] = lbfgs.predict(found["weights"], test).numpy()[np.arange(len(inputs)), best]

    def adam() -> None:
        found["adam"] = np.stack([fits[0].predictions[0] for fits in fit(inputs, [truth], CLASSES, LINEAR, [0])])

    seconds = in_turns(repeats, newton=newton, adam=adam)
    theirs, ours = ((found[side] == truth.test).mean() for side in ("lbfgs", "adam"))
    flat = lbfgs.flat(found["weights"], train, y, decays)
    yield Row(
        "linear probes: stacked Adam / batched L-BFGS",
        ratios(seconds["adam"], seconds["newton"]),
        said=f"{len(inputs)} layers, one seed, as it is convex; either side with SentEval's weight decays "
        f"({', '.join(f'{l2:g}' for l2 in decays)}), the best on dev taken; test accuracy {ours:.3f} and {theirs:.3f}; "
        f"{int(flat.sum())} of {flat.numel()} fits of L-BFGS ended with no entry of the gradient above {lbfgs.FLAT:g}; "
        "studies keep SentEval's Adam, whose early stopping is part of the method",
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
