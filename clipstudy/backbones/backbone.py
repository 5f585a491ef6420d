"""What a model is to the rest of the house, and what "layer k" means.

**Layer k, said once.** Layer 0 is the embedding output: what enters block 0, positions and any embedding norm
included. Layer k (1 ≤ k ≤ depth) is the *raw output of block k*, for every model. Libraries differ: GPT-2's last
hidden state in transformers is after ``ln_f``, a CLIP text tower's is before its final norm; both are taken raw
here. ``final_norm = true`` in a model's table applies the model's own final norm to layer ``depth`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Pieces:
    """One text as the model reads it."""

    ids: tuple[int, ...]  #: token ids, special tokens included
    words: tuple[int | None, ...]  #: for each id the index of the word it is a piece of; None: a special token
    truncated: bool = False  #: True: pieces past the model's limit were left out


class TextBackbone(Protocol):
    """A frozen text encoder that gives the states of any of its layers in one pass."""

    depth: int  #: number of blocks
    width: int  #: size of a state
    native: str  #: the model's own summary of a text: ``cls``, ``last`` (real token) or ``eot``
    limit: int  #: most ids a text may have, special tokens included
    resolved: Mapping[str, str]  #: what identifies the weights: commit, or sha256 of the files; library versions

    def pieces(self, words: Sequence[str]) -> Pieces:
        """Tokenize one text, given word by word, so that each piece is known to belong to one word.

        Pieces past ``limit`` are cut (closing special token kept) and ``truncated`` says so. A word may yield no
        piece at all (a control character); then no entry of ``Pieces.words`` names it.
        """
        ...

    def states(self, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """States of ``layers`` in one pass.

        Args:
            ids: token ids, padded on the right, ``[B, T]`` (long).
            mask: True on real tokens, ``[B, T]`` (bool).
            layers: any of 0..depth.

        Returns:
            layer → ``[B, T, width]`` on the model's device. Values on padding are undefined.
        """
        ...

    def summary(self, pieces: Pieces) -> int:
        """Index in ``pieces.ids`` of the token that ``native`` reads."""
        ...
