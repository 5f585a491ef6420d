"""Models of a researcher's own, as ``source = "torch"`` finds them: what its contract runs on."""

from __future__ import annotations

import functools
import os

import torch
from torch import nn


class Convolutions(nn.Module):
    """A stem, three stages, then a layer behind the pooling; its code calls ``view`` on a map, as much code does."""

    def __init__(self) -> None:
        super().__init__()
        widths = (2, 4, 8, 12)
        self.stem = nn.Conv2d(3, 2, 3, 2, 1)
        self.stages = nn.Sequential(*map(self._stage, widths, widths[1:]))
        self.head = nn.Linear(12, 5)

    @staticmethod
    def _stage(width: int, wider: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(width, wider, 3, 2, 1), nn.BatchNorm2d(wider), nn.ReLU())

    def forward_intermediates(self, x: torch.Tensor, **_: object) -> list[torch.Tensor]:
        """What each stage gives, asked for as timm's models are."""
        return [self.stages[:k](self.stem(x)) for k in (1, 2, 3)]

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.stages(self.stem(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.forward_features(x)
        return self.head(x.view(len(x), 12, -1).mean(dim=2))


class InPlace(nn.Module):
    """What follows a convolution works in its map's own place, as in torchvision's VGG."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.act: nn.Module = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.second(self.act(self.first(x)))).mean(dim=(2, 3))


class Smooth(InPlace):
    """The same weights, and another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()


class Patches(nn.Module):
    """A small vision transformer, with a class token or without; its parts are called as timm's are."""

    def __init__(self, cls: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 8, 8)
        self.num_prefix_tokens = int(cls)
        self.token = nn.Parameter(torch.randn(1, self.num_prefix_tokens, 8))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(3))
        self.norm_pre, self.norm = nn.Identity(), nn.LayerNorm(8)

    def patch_embed(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).flatten(2).transpose(1, 2)

    def _pos_embed(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)

    def forward_intermediates(self, x: torch.Tensor, **_: object) -> list[tuple[torch.Tensor, torch.Tensor]]:
        x, found = self._pos_embed(self.patch_embed(x)), []
        for block in self.blocks:
            x = block(x)
            found.append((x[:, 1:].transpose(1, 2).unflatten(2, (4, 4)), x[:, :1]))
        return found

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        x = self._pos_embed(self.patch_embed(x))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_features(x)[:, 0]


def patches_alone() -> nn.Module:
    return Patches(cls=False)


class Twice(nn.Module):
    """One module that runs twice, and one that never does; another gives no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.idle, self.named = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), Named()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.named(self.body(self.body(x)))["map"]


class Named(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"map": x}


def broken() -> nn.Module:
    raise ValueError("no such width")


def text() -> str:
    return os.sep


abort = os.abort  #: what must never be called: the package is trusted, what it imports is not


def loaded() -> nn.Module:
    """Gives weights of its own, whatever the seed; only its head is drawn."""
    model = Convolutions()
    generator = torch.Generator().manual_seed(7)
    for weight in [*model.stem.parameters(), *model.stages.parameters()]:
        weight.data = torch.randn(weight.shape, generator=generator)
    return model


class Builder:
    """What builds a model when it is called, as configured factories do."""

    def __call__(self) -> nn.Module:
        return Convolutions()


build, cached = Builder(), functools.lru_cache(Convolutions)


class Touches:
    """No model: what it does when it is built must not be done."""

    def __init__(self) -> None:
        raise SystemExit("it was built")
