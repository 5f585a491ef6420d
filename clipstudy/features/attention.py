"""Attention weights → what is kept of them: the summary's view of the patches, how far patches look, and rollout. The
matrices themselves are let go block by block.

Sources: the class token's row is what Caron et al. 2021 (DINO) draw; attention distance is Dosovitskiy et al. 2021,
appendix D.7; rollout is Abnar & Zuidema 2020, section 3.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from clipstudy.backbones.backbone import ImageBackbone, Tokens

#: Most attention weights of one block that a pass holds at a time: 256 MB of them.
AT_ONCE = 2**26
HEADS = 16  #: assumed: a model may have more or fewer


@dataclass(frozen=True)
class Attended:
    """A batch's attention in one block, float32, on the CPU."""

    #: ``[B, heads, patches]``: how much the summary looks at each patch. Sums to less than 1: it looks at itself too,
    #: and at other tokens in front.
    heads: torch.Tensor
    distance: torch.Tensor  #: ``[B, heads]``: how far a patch looks, in patches, the mean over patches
    #: ``[B, patches]``: how much of each patch of the input has come to the summary by this block, residual stream
    #: included; None: not asked for.
    rollout: torch.Tensor | None


def attended(
    backbone: ImageBackbone, pixels: torch.Tensor, layers: Collection[int], rollout: bool = True
) -> dict[int, Attended]:
    """What is kept of the attention of ``layers`` (any of 1..depth), by layer, in one pass.

    Args:
        pixels: preprocessed images ``[B, 3, H, W]``.
        rollout: follow attention from block 1 on, for which every block up to the last asked for is looked at.

    Raises:
        ModelError: the model has no attention, or one that cannot be seen.
    """
    per_image = HEADS * len(backbone.tokens) ** 2 if backbone.tokens else 1
    size = max(1, AT_ONCE // per_image)
    parts = [_attended(backbone, part, layers, rollout) for part in pixels.split(size)]
    return {layer: _joined([part[layer] for part in parts]) for layer in layers}


def summary(weights: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """How much the token that stands for the image looks at each patch: the class token, or the mean over patches where
    there is none.

    Args:
        weights: ``[…, T, T]``, a row a query.

    Returns:
        ``[…, patches]``.
    """
    own = weights[..., 0, :] if tokens.cls else weights[..., tokens.prefix :, :].mean(dim=-2)
    return own[..., tokens.prefix :]


def distances(weights: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """How far patches look: the distance between the centres of two patches, averaged with their attention as weight.
    Attention to tokens that lie nowhere in the image is left out.

    Args:
        weights: ``[…, T, T]``, a row a query.

    Returns:
        ``[…]``, in patches.
    """
    among = weights[..., tokens.prefix :, tokens.prefix :]
    far = torch.einsum("...qk,qk->...q", among, spacing(tokens.grid).to(among))
    # A query that looks at no patch at all has no distance; it counts as looking nowhere.
    return (far / among.sum(dim=-1).clamp_min(torch.finfo(among.dtype).tiny)).mean(dim=-1)


def spacing(grid: tuple[int, int]) -> torch.Tensor:
    """Distances between the centres of patches, in patches: ``[patches, patches]``."""
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in grid)
    places = torch.cartesian_prod(rows, columns)
    return (places[:, None] - places[None]).norm(dim=-1)


def followed(weights: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
    """One block more of attention rollout: the mean over heads plus the identity for the residual stream, each row
    brought to the sum 1, times what came before.

    Args:
        weights: ``[B, heads, T, T]``, a row a query.
        before: ``[B, T, T]`` as returned for the block before; None: this is the first.

    Returns:
        ``[B, T, T]``: how much of each input token (column) is in each token (row).
    """
    mixed = weights.mean(dim=1) + torch.eye(weights.shape[-1], device=weights.device)
    mixed = mixed / mixed.sum(dim=-1, keepdim=True)
    return mixed if before is None else mixed @ before


def _attended(
    backbone: ImageBackbone, pixels: torch.Tensor, layers: Collection[int], rollout: bool
) -> dict[int, Attended]:
    by_layer: dict[int, Attended] = {}
    rolled: torch.Tensor | None = None

    def keep(layer: int, weights: torch.Tensor) -> None:
        nonlocal rolled
        tokens = backbone.tokens
        assert tokens is not None  # or there would be no weights
        if rollout:
            rolled = followed(weights, rolled)
        if layer in layers:
            by_layer[layer] = Attended(
                summary(weights, tokens).cpu(),
                distances(weights, tokens).cpu(),
                None if rolled is None else summary(rolled, tokens).cpu(),
            )

    backbone.attention(pixels, {*range(1, max(layers) + 1), *layers} if rollout else layers, keep)
    return by_layer


def _joined(parts: list[Attended]) -> Attended:
    rolled = [part.rollout for part in parts if part.rollout is not None]
    return Attended(
        torch.cat([part.heads for part in parts]),
        torch.cat([part.distance for part in parts]),
        torch.cat(rolled) if rolled else None,
    )
