"""Decoders: from a layer's map of states back to the image. What they cannot draw, the map does not tell them.

After Dosovitskiy & Brox 2016 (CVPR, "Inverting visual representations with convolutional networks"): one
up-convolutional network a layer, trained on pairs of (map, image) to the least squared error, so that what it draws is
the mean of all images that have such a map.

Maps differ in size from layer to layer, and a larger map would win by that alone. So every map passes the same
**bottleneck**, ``width`` channels on a ``grid`` × ``grid``, and behind it every decoder is the same network. The way
there is linear and local, one convolution whose stride is its kernel: squares of a finer map's cells are gathered into
one, a coarser map's cells are spread over many, and nothing is averaged away before the convolution has chosen what to
keep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clipstudy.device import seeded

#: Among layers: the preprocessed pixels themselves, as a map of three channels.
PIXELS = -1
#: Slope of the leaky rectifiers on their negative side, as Dosovitskiy & Brox have it.
SLOPE = 0.2
#: Least channels behind an up-convolution.
NARROWEST = 16
#: Share of the steps over which the learning rate rises.
WARM_UP = 0.05

#: (layer, seed)
Key = tuple[int, int]


@dataclass(frozen=True)
class Recipe:
    """What a decoder is, and how it is trained."""

    grid: int  #: side of the bottleneck
    width: int  #: channels of the bottleneck
    hidden: int  #: channels behind the first up-convolution; each further one halves them, down to ``NARROWEST``
    size: int  #: side of the images: ``grid`` times a power of two, 2 or more
    steps: int
    learning_rate: float  #: Adam's; after a short warm-up it falls to 0 as a cosine does

    def rate(self, step: int) -> float:
        """The learning rate at ``step`` (from 0)."""
        warm = max(1, round(WARM_UP * self.steps))
        fall = (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.learning_rate * min(1.0, (step + 1) / warm) * fall


class Standardised(nn.Module):
    """Channels of maps at zero mean and unit variance over all maps seen in training, batches taken together.

    Not by each batch's own, as batch norm does in training: a few images differ in what they have in common, such as
    their brightness, and a decoder that learns without it cannot draw it.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self._seen = 0  #: values a channel

    def forward(self, maps: Tensor) -> Tensor:
        """``[B, channels, h, w]``, both."""
        if self.training:
            self._see(maps)
        # A channel that never differed while training stays 0: whatever it does later, nothing was learned of it.
        standardised = functional.batch_norm(maps, self.mean, self.variance, eps=1e-8)
        return standardised * (self.variance > 0).to(maps.dtype)[:, None, None]

    @torch.no_grad()
    def _see(self, maps: Tensor) -> None:
        variance, mean = torch.var_mean(maps, dim=(0, 2, 3), correction=0)
        new = maps[:, 0].numel()
        self._seen += new
        share, shift = new / self._seen, mean - self.mean
        within, between = (1 - share) * self.variance + share * variance, share * (1 - share) * shift**2
        self.variance = within + between
        self.mean = self.mean + share * shift


class Decoder(nn.Module):
    """A map ``[B, channels, h, w]`` → images ``[B, 3, size, size]``, not clamped.

    Channels are standardised first: the scale of a layer's states says nothing of what they hold. What is learned is
    the difference from the mean image, at first 0.
    """

    mean: Tensor

    def __init__(self, channels: int, side: int, recipe: Recipe, mean: Tensor) -> None:
        """
        Args:
            side: the larger of h and w.
            mean: the mean image, ``[3, size, size]``.
        """
        super().__init__()
        self.register_buffer("mean", mean)
        grid, width = recipe.grid, recipe.width
        self.standardised = Standardised(channels)
        if side >= grid:
            cells = math.ceil(side / grid)
            self.side, taps = grid * cells, channels * cells**2
            self.bottleneck: nn.Module = nn.Conv2d(channels, width, cells, stride=cells)
        else:
            cells = math.ceil(grid / side)
            self.side, taps = side, channels
            self.bottleneck = nn.ConvTranspose2d(channels, width, cells, stride=cells)
        self.grid = grid
        _start(self.bottleneck, 1 / math.sqrt(taps))
        self.trunk = _trunk(recipe)

    def forward(self, maps: Tensor) -> Tensor:
        """``[B, channels, h, w]`` → ``[B, 3, size, size]``."""
        code = self.bottleneck(_resized(self.standardised(maps.float()), self.side))
        images: Tensor = self.mean + self.trunk(_resized(code, self.grid))
        return images


def _trunk(recipe: Recipe) -> nn.Sequential:
    """From the bottleneck to pixels, the same for every layer."""
    parts: list[nn.Module] = []
    inner, outer = recipe.width, recipe.hidden
    gain = nn.init.calculate_gain("leaky_relu", SLOPE)
    for _ in range(round(math.log2(recipe.size / recipe.grid))):
        # A kernel twice its stride: every pixel has four taps, so no checkerboard.
        up = nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1)
        _start(up, gain / math.sqrt(4 * inner))
        parts += [up, nn.LeakyReLU(SLOPE)]
        inner, outer = outer, max(outer // 2, NARROWEST)
    last = nn.Conv2d(inner, 3, 3, padding=1)
    _start(last, 0.0)
    return nn.Sequential(*parts, last)


def _start(layer: nn.Conv2d | nn.ConvTranspose2d, deviation: float) -> None:
    """Weights from a normal distribution, so wide that what comes out is as spread as what went in (He et al. 2015)."""
    assert layer.bias is not None
    nn.init.normal_(layer.weight, std=deviation)
    nn.init.zeros_(layer.bias)


def _resized(maps: Tensor, side: int) -> Tensor:
    """``maps`` on a square of ``side``; as they are where they have it."""
    if tuple(maps.shape[2:]) == (side, side):
        return maps
    return functional.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


class Decoders:
    """A decoder for each (layer, seed), trained side by side on the same batches.

    What one of them becomes depends on its layer's maps, the images, the recipe and its (layer, seed) alone: first
    weights are drawn from that, and nothing is mixed over decoders. Each is trained on a batch before the next is, so
    that one network's activations are in memory at a time.
    """

    def __init__(
        self,
        shapes: Mapping[int, Sequence[int]],
        mean: Tensor,
        recipe: Recipe,
        seeds: Sequence[int],
        device: str = "cpu",
    ) -> None:
        """
        Args:
            shapes: layer → (channels, h, w) of its maps.
            mean: the mean image, ``[3, size, size]``.
        """
        self.recipe, self.done = recipe, 0
        self.each: dict[Key, Decoder] = {}
        for layer, (channels, *sides) in shapes.items():
            for seed in seeds:
                drawn = np.random.SeedSequence((seed, layer + 1)).generate_state(1, np.uint64)
                with seeded(int(drawn[0])):
                    decoder = Decoder(channels, max(sides), recipe, mean)
                self.each[layer, seed] = decoder.to(device)
        self._adam = torch.optim.Adam([w for decoder in self.each.values() for w in decoder.parameters()])

    def step(self, maps: Mapping[int, Tensor], images: Tensor) -> dict[Key, Tensor]:
        """One step of every decoder, and its squared error before it.

        Args:
            maps: layer → ``[B, channels, h, w]``, for each layer of ``shapes``.
            images: ``[B, 3, size, size]`` in [0, 1].
        """
        for group in self._adam.param_groups:
            group["lr"] = self.recipe.rate(self.done)
        losses = {}
        for (layer, seed), decoder in self.each.items():
            loss = functional.mse_loss(decoder.train()(maps[layer]), images)
            loss.backward()
            losses[layer, seed] = loss.detach()
        self._adam.step()
        self._adam.zero_grad()
        self.done += 1
        return losses

    @torch.no_grad()
    def draw(self, maps: Mapping[int, Tensor], key: Key) -> Tensor:
        """What the decoder ``key`` makes of its layer's ``maps``: ``[B, 3, size, size]`` in [0, 1]."""
        return self.each[key].eval()(maps[key[0]]).clamp(0, 1)
