"""What stacking gains: SentEval's probes on 13 layers × 3 seeds, 8,000 rows of 768, against one after another.

    python -m benchmarks.probes [--quick]

Both sides are given the same initial weights, permutations and fused Adam, so that the same accuracies must come out;
the plain side does not pay for SentEval's retraining with the chosen weight decay. Prints one table: seconds of wall
clock and of processor time (the fairer figure on a busy machine), their ratios, the mean test accuracy, the largest
difference of any fit's, and the share of equal predictions. Fails where stacking gains less than LEAST.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from benchmarks.plain import fit_grid
from clipstudy.probes.mlp import JAWAHAR, SENTEVAL, Inputs, Labels, fit

WIDTH, CLASSES = 768, 6
LEAST = 1.8
Found = TypeVar("Found")


def main(quick: bool) -> None:
    layers, seeds = (4, (0,)) if quick else (13, (0, 1, 2))
    rows = (2000, 500, 1000) if quick else (8000, 1000, 2000)
    rng = np.random.default_rng(0)
    truth = Labels(*(rng.integers(0, CLASSES, n) for n in rows))
    inputs = [features(layer, truth) for layer in range(layers)]
    warm_up = Inputs(*(x[:64] for x in (inputs[0].train, inputs[0].dev, inputs[0].test)))
    few = Labels(truth.train[:64], truth.dev[:64], truth.test[:64])
    fit([warm_up], [few], CLASSES, JAWAHAR, [0])
    fit_grid(warm_up, few, CLASSES, JAWAHAR, 0)
    print(f"{layers} layers × {len(seeds)} seeds, {rows[0]} rows of {WIDTH}, {torch.get_num_threads()} threads")
    print(f"{'':34}{'plain s':>16}{'stacked s':>16}{'ratio':>14}{'accuracy':>10}{'largest Δ':>11}{'equal':>8}")
    print(f"{'':34}" + f"{'wall':>8}{'cpu':>8}" * 2 + f"{'wall':>7}{'cpu':>7}")
    slowest = float("inf")
    for name, recipe in (
        ("one weight decay, 4 passes", replace(JAWAHAR, l2=(1e-4,))),
        ("grid of 4, early stopping", SENTEVAL),
    ):
        # The stack goes first and last, so that neither side owns the quieter moment.
        first, found = timed(lambda recipe=recipe: fit(inputs, [truth], CLASSES, recipe, seeds))
        plain, expected = timed(
            lambda recipe=recipe: [[fit_grid(x, truth, CLASSES, recipe, seed) for seed in seeds] for x in inputs]
        )
        last, _ = timed(lambda recipe=recipe: fit(inputs, [truth], CLASSES, recipe, seeds))
        stacked = (first + last) / 2
        ours = np.stack([fits[0].predictions for fits in found])
        theirs = np.stack([[f.predictions for f in fits] for fits in expected])
        accuracy = (ours == truth.test).mean(-1)
        apart = np.abs(accuracy - (theirs == truth.test).mean(-1)).max()
        times = "".join(f"{wall:8.1f}{cpu:8.1f}" for wall, cpu in (plain, stacked))
        ratios = "".join(f"{ratio:7.2f}" for ratio in plain / stacked)
        print(f"{name:34}{times}{ratios}{accuracy.mean():10.3f}{apart:11.4f}{(ours == theirs).mean():8.4f}", flush=True)
        slowest = min(slowest, float(plain[1] / stacked[1]))
    if slowest < LEAST:
        sys.exit(f"less than {LEAST} times faster in processor time")


def features(layer: int, truth: Labels) -> Inputs:
    """Gaussian features whose classes lie further apart the higher the layer."""
    rng = np.random.default_rng(layer + 1)
    means = (0.03 + 0.005 * layer) * rng.standard_normal((CLASSES, WIDTH))
    return Inputs(
        *(
            (rng.standard_normal((len(y), WIDTH)) + means[y]).astype(np.float32)
            for y in (truth.train, truth.dev, truth.test)
        )
    )


def timed(run: Callable[[], Found]) -> tuple[np.ndarray, Found]:
    """Seconds of (wall clock, processor), and what came out."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu]), found


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
