"""Between pixels in [0, 1] and what a model is given."""

from __future__ import annotations

import torch

from clipstudy.backbones.backbone import ImageBackbone


def restored(backbone: ImageBackbone, pixels: torch.Tensor) -> torch.Tensor:
    """What the model is given ``[B, 3, h, w]`` as pixels in [0, 1] again: its own crop without its normalisation."""
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
