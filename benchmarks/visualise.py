"""What fitting many images as one gains: channels of the last stage in chunks against one by one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.figures import Row, in_turns, ratios
from clipstudy import backbones
from clipstudy.backbones.backbone import ImageBackbone
from clipstudy.pocket.training import models
from clipstudy.probes.activation import Recipe, maximise, targets
from clipstudy.spec import ModelSpec

STEPS, CHUNK = 4, 16


def rows(quick: bool) -> Iterator[Row]:
    repeats = 1 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        models.save("resnet", models.build("resnet"), Path(folder))
        spec = ModelSpec("pocket ResNet", "timm", f"local-dir:{folder}", 4, modality="image")
        yield from of(backbones.load(spec, "cpu"), 64, 16 if quick else 64, repeats)


def of(backbone: ImageBackbone, side: int, channels: int, repeats: int) -> Iterator[Row]:
    recipe = Recipe("channel", side, STEPS, 0.05, robust=True)
    some = targets(backbone.depth, (backbone.widths[-1], 1, 1), recipe.objective, channels, neurons=1)

    def fit(chunk: int) -> None:
        maximise(backbone, backbone.depth, [(target, 0) for target in some], recipe, chunk=chunk)

    def passes() -> None:
        # As many images as a fit shows the network: at every step, and twice at the end without gradients.
        for _ in range(channels // CHUNK):
            pixels = torch.randn(CHUNK, 3, *backbone.size, requires_grad=True)
            for _ in range(STEPS):
                backbone.states(pixels, [backbone.depth], gradients=True)[backbone.depth].map.mean().backward()
            for _ in range(2):
                backbone.states(pixels, [backbone.depth])

    seconds = in_turns(repeats, singly=lambda: fit(1), together=lambda: fit(CHUNK), passes=passes)
    said = f"{STEPS} steps on images of {side} px, {CHUNK} at once"
    yield Row(
        f"{channels} channels visualised: one by one / together ({backbone.name})",
        ratios(seconds["singly"], seconds["together"]),
        least=1.3,
        said=said,
    )
    yield Row(
        f"visualising / the network's own passes ({backbone.name})",
        ratios(seconds["together"], seconds["passes"]),
        said=said,
    )
