"""What fitting many images as one gains: 64 channels of the last stage in chunks of 16, against one by one.

    python -m benchmarks.visualise [--full]

On the pocket residual network (64 px); with ``--full`` on ResNet-50 too (224 px, images of 128, fewer channels), both
untrained. Prints a line a model: seconds of processor time one by one and in chunks and their ratio, what a step takes
beside the network's own forward and backward pass, and what layer 1 takes beside the last. Fails where fitting as one
gains less than LEAST on the pocket network.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.extraction import fastest
from clipstudy import backbones
from clipstudy.backbones.backbone import ImageBackbone
from clipstudy.pocket import models
from clipstudy.probes.activation import Recipe, maximise, targets
from clipstudy.spec import ModelSpec

STEPS, CHUNK = 4, 16
LEAST = 1.3


def main(full: bool) -> None:
    print(f"{torch.get_num_threads()} threads, {STEPS} steps")
    print(f"{'':32}{'one by one':>12}{'chunks':>10}{'ratio':>8}{'step / passes':>15}{'layer 1 / last':>16}")
    with tempfile.TemporaryDirectory() as folder:
        models.save("resnet", models.build("resnet"), Path(folder))
        spec = ModelSpec("pocket resnet", "timm", f"local-dir:{folder}", 4, modality="image")
        gain = row(backbones.load(spec, "cpu"), side=64, channels=64)
    if full:
        spec = ModelSpec("resnet50", "timm", "resnet50.tv_in1k", 4, modality="image", init="random")
        row(backbones.load(spec, "cpu"), side=128, channels=16)
    if gain < LEAST:
        sys.exit(f"less than {LEAST} times faster in processor time")


def row(backbone: ImageBackbone, side: int, channels: int) -> float:
    """Measure one model; how many times faster its images are fitted as one."""
    recipe = Recipe("channel", side, STEPS, 0.05, robust=True)

    def fit(layer: int, chunk: int) -> None:
        some = targets(layer, (backbone.widths[layer], 1, 1), recipe.objective, channels, neurons=1)
        maximise(backbone, layer, [(target, 0) for target in some], recipe, chunk=chunk)

    def passes() -> None:
        # As many images as a fit shows the network: at every step, and twice at the end without gradients.
        for _ in range(channels // CHUNK):
            pixels = torch.randn(CHUNK, 3, *backbone.size, requires_grad=True)
            for _ in range(STEPS):
                backbone.states(pixels, [backbone.depth], gradients=True)[backbone.depth].map.mean().backward()
            for _ in range(2):
                backbone.states(pixels, [backbone.depth])

    singly, together, bare, first = fastest(
        lambda: fit(backbone.depth, 1), lambda: fit(backbone.depth, CHUNK), passes, lambda: fit(1, CHUNK)
    )
    name = f"{backbone.name}, {channels} channels"
    ratios = f"{singly / together:8.2f}{together / bare:15.2f}{first / together:16.2f}"
    print(f"{name:32}{singly:11.1f}s{together:9.1f}s{ratios}", flush=True)
    return singly / together


if __name__ == "__main__":
    main("--full" in sys.argv[1:])
