"""Between pixels in [0, 1] and what a model is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL.Image import Resampling

from clipstudy.backbones.backbone import ImageBackbone

if TYPE_CHECKING:
    from PIL.Image import Image


def centre(image: Image) -> Image:
    """The central square of an image: as much of it as a square holds."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def square(image: Image, size: int) -> torch.Tensor:
    """The central square of an image as pixels in [0, 1], ``[3, size, size]``, resized bicubically: of no model."""
    resized = centre(image.convert("RGB")).resize((size, size), Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized, dtype=np.float32)).permute(2, 0, 1) / 255


def restored(backbone: ImageBackbone, pixels: torch.Tensor) -> torch.Tensor:
    """What the model is given ``[B, 3, h, w]`` as pixels in [0, 1] again: without its normalisation."""
    mean, deviation = _channels(backbone, pixels)
    return (pixels * deviation + mean).clamp(0, 1)


def normalised(backbone: ImageBackbone, images: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1], ``[B, 3, h, w]``, as the model wants them; the way back from :func:`restored`."""
    mean, deviation = _channels(backbone, images)
    return (images - mean) / deviation


def _channels(backbone: ImageBackbone, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, deviation = (
        torch.tensor(channels, device=like.device).view(3, 1, 1) for channels in (backbone.mean, backbone.deviation)
    )
    return mean, deviation
