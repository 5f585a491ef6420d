"""Attention drawn over the images: a contact sheet of what each map of a block falls on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipstudy.tasks.parts.sheet import contact_sheet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipstudy.backbones.backbone import Tokens

#: Side of a picture, in pixels.
TILE = 112
#: Black, violet, orange, light yellow: ever brighter, so that a print in grey says the same.
HEAT = ((0.0, 0.0, 0.05), (0.45, 0.1, 0.45), (0.95, 0.5, 0.15), (1.0, 1.0, 0.75))


@dataclass(frozen=True)
class Maps:
    """One picture's, at one block."""

    heads: NDArray[Any]  #: ``[H, P]``
    rollout: NDArray[Any] | None  #: ``[P]``


@dataclass(frozen=True)
class Shown:
    """A picture on the sheet, as the model sees it."""

    picture: NDArray[Any]  #: ``[h, w, 3]``, in [0, 1]
    foreground: NDArray[Any] | None  #: ``[h, w]``


def overlays(shown: Sequence[Shown], maps: Sequence[Maps], tokens: Tokens, title: str, mass: float) -> bytes:
    """Each picture with its maps over it: foreground, mean over heads and the mask that holds ``mass`` of it, rollout,
    each head. A PNG."""
    import numpy as np

    from clipstudy.probes.attention import kept

    tiles: list[NDArray[Any]] = []
    captions: list[str] = []
    for original, attention in zip(shown, maps, strict=True):
        mean = attention.heads.mean(axis=0)
        picture = _sized(original.picture, smooth=True)
        row: dict[str, NDArray[Any]] = {"picture": picture}
        if original.foreground is not None:
            row["foreground"] = _dimmed(picture, _sized(original.foreground))
        row["mean of heads"] = _heated(picture, mean, tokens)
        row[f"{mass:.0%} of it"] = _dimmed(picture, _placed(kept(mean, mass), tokens))
        if attention.rollout is not None:
            row["rollout"] = _heated(picture, attention.rollout, tokens)
        row |= {f"head {number}": _heated(picture, head, tokens) for number, head in enumerate(attention.heads)}
        tiles += row.values()
        captions += row
    return contact_sheet(np.stack(tiles), captions, title, columns=len(tiles) // len(shown))


def _sized(values: NDArray[Any], smooth: bool = False) -> NDArray[Any]:
    """``[h, w]`` or ``[h, w, 3]`` in [0, 1] at the size of a tile."""
    import numpy as np
    from PIL import Image

    image = Image.fromarray(np.rint(values * 255).astype(np.uint8))
    way = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    sized: NDArray[Any] = np.asarray(image.resize((TILE, TILE), way), dtype=np.float32) / 255
    return sized


def _placed(values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
    """Values of patches in [0, 1] as an image of the size of a tile."""
    return _sized(values.reshape(tokens.grid).astype("float32"))


def _dimmed(picture: NDArray[Any], inside: NDArray[Any]) -> NDArray[Any]:
    """The picture, dark where it is not ``inside``."""
    return picture * (0.2 + 0.8 * inside[..., None])


def _heated(picture: NDArray[Any], values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
    """A map over its picture in grey, each map on a scale of its own from nothing to its largest value."""
    import numpy as np

    strength = _placed(values / max(float(values.max()), 1e-12), tokens)
    stops = np.linspace(0, 1, len(HEAT))
    colour = np.stack([np.interp(strength, stops, channel) for channel in zip(*HEAT, strict=True)], axis=-1)
    heated: NDArray[Any] = 0.35 * picture.mean(axis=-1, keepdims=True) + 0.65 * colour
    return heated
