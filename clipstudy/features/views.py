"""Which states make up a vector: a text's summary or mean, a span's two ends, an image's mean or class token. Pure; no
torch import.

Sources: spans read the first sub-word of their first word and the last sub-word of their last word (Jawahar et al.
2019, section 3); the mean is over the text's own pieces, special tokens left out. An image's mean is over the places
of a map or over patch tokens (global average pooling), as Raghu et al. 2021 probe vision transformers beside the class
token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clipstudy.backbones.backbone import IMAGE_SUMMARIES, SUMMARIES, ImageStates, Pieces
from clipstudy.spec import Modality

if TYPE_CHECKING:
    import torch

#: What ``extract`` can be asked for. ``native`` is the model's own among cls, last and eot.
VIEWS = ("mean", "native", *SUMMARIES, "span")
#: A view that keeps some of an image's layout: the means over its four quarters, one after another.
QUARTERS = "2x2"
#: The same of images: ``native`` is the model's own among gap and cls.
IMAGE_VIEWS = ("native", *IMAGE_SUMMARIES, QUARTERS)
VIEWS_OF: Mapping[Modality, tuple[str, ...]] = {"text": VIEWS, "image": IMAGE_VIEWS}


def ends(pieces: Pieces, span: tuple[int, int]) -> tuple[int, int] | None:
    """Positions of the first piece of a span's first word and of the last piece of its last word.

    Args:
        pieces: the text as the model reads it.
        span: half-open range of word indices.

    Returns:
        None where the model does not see both: past its limit (also in part), or a word that yields no piece.
    """
    start, stop = span
    if pieces.cut is not None and stop > pieces.cut:
        return None
    if start not in pieces.words or stop - 1 not in pieces.words:
        return None
    return pieces.words.index(start), len(pieces.words) - 1 - pieces.words[::-1].index(stop - 1)


def one_piece(span_ends: tuple[int, int]) -> bool:
    """Is the span a single piece? Then both its ends are the same vector."""
    return span_ends[0] == span_ends[1]


def mean(states: Sequence[torch.Tensor], own: torch.Tensor) -> torch.Tensor:
    """Mean of the states that ``own`` marks, layer by layer.

    Args:
        states: of each layer ``[B, T, d]``; undefined on padding.
        own: True on the text's own pieces, at least one a text, ``[B, T]`` (bool).

    Returns:
        ``[layers, B, d]``, float32.
    """
    import torch

    others = ~own.unsqueeze(-1)
    # Not a product with zeros and ones: padding may hold NaN.
    sums = [of_layer.float().masked_fill(others, 0.0).sum(1) for of_layer in states]
    return torch.stack(sums) / own.sum(1, keepdim=True)


def at(states: Sequence[torch.Tensor], rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """``[rows, positions]`` of each layer's states: ``[layers, *rows.shape, d]``, float32."""
    import torch

    return torch.stack([of_layer[rows, positions] for of_layer in states]).float()


def image_width(view: str, channels: int) -> int:
    """Size of an image's vector where its states have ``channels``."""
    return 4 * channels if view == QUARTERS else channels


def of_image(states: ImageStates, view: str) -> torch.Tensor:
    """``gap`` or ``cls`` of each image: ``[B, C]``, float32; of ``2x2`` ``[B, 4 C]``, channel by channel.

    Raises:
        KeyError: the model has no class token.
    """
    if view == "gap":
        return states.map.float().mean(dim=(2, 3))
    if view == QUARTERS:
        from torch.nn.functional import adaptive_avg_pool2d

        return adaptive_avg_pool2d(states.map.float(), 2).flatten(1)
    if states.cls is None:
        raise KeyError(view)
    return states.cls.float()
