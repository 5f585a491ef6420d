"""What a model is to the rest of the house, and what "layer k" means.

**Layer k, said once.** Layer 0 is the embedding output: what enters block 0, positions and any embedding norm
included. Layer k (1 ≤ k ≤ depth) is the *raw output of block k*, for every model. Libraries differ: GPT-2's last
hidden state in transformers is after ``ln_f``, a CLIP text tower's is before its final norm; both are taken raw
here. ``final_norm = true`` in a model's table applies the model's own final norm to layer ``depth`` alone.

The same for images: a vision transformer's blocks are its blocks; a residual network's are its four stages, and its
layer 0 is what its stem gives them, pooling included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

#: The tokens that can stand for a whole text: the one put in front, the last piece of its last word, the one that
#: closes it. A model's ``native`` is one of them.
SUMMARIES = ("cls", "last", "eot")
#: What can stand for a whole image: the mean over its places (global average pooling), the class token.
IMAGE_SUMMARIES = ("gap", "cls")


@dataclass(frozen=True)
class Pieces:
    """One text as the model reads it."""

    ids: tuple[int, ...]  #: token ids, special tokens included; never empty
    words: tuple[int | None, ...]  #: for each id the index of the word it is a piece of; None: a special token
    cut: int | None = None  #: index of the first word that the model's limit let in only in part, or not at all
    second: int | None = None  #: position at which the second of two joined texts begins; None: one text

    @property
    def truncated(self) -> bool:
        """True: pieces past the model's limit were left out."""
        return self.cut is not None

    @property
    def own(self) -> tuple[int, ...]:
        """Positions of the text's own pieces; of all its tokens where no word yields a piece."""
        positions = tuple(i for i, word in enumerate(self.words) if word is not None)
        return positions or tuple(range(len(self.ids)))

    def summary(self, view: str) -> int:
        """Position of the token that ``view`` (``cls``, ``last`` or ``eot``) reads.

        ``cls`` is the first token and ``eot`` the last, whatever the model calls them; ``last`` is the text's own
        last piece, so a closing special token or padding is never read as if it were text.
        """
        return {"cls": 0, "last": self.own[-1], "eot": len(self.ids) - 1}[view]


class TextBackbone(Protocol):
    """A frozen text encoder that gives the states of any of its layers in one pass."""

    name: str  #: the model's table
    depth: int  #: number of blocks
    width: int  #: size of a state
    native: str  #: the model's own summary of a text: ``cls``, ``last`` or ``eot``
    limit: int  #: most ids a text may have, special tokens included
    device: torch.device  #: where its weights and states are
    module: nn.Module  #: its weights, frozen and in evaluation mode; whoever trains a model of their own thaws them
    #: What decides the states: commit or sha256 of the files, library versions, dtype, final norm. Equal for two
    #: workers whose features may be mixed.
    resolved: Mapping[str, str]

    def pieces(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """Tokenize texts, each given word by word, so that each piece is known to belong to one word.

        Pieces past ``limit`` are cut (closing special token kept) and ``cut`` says where. A word may yield no
        piece at all (a control character); then no entry of ``Pieces.words`` names it.
        """
        ...

    def states(self, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """States of ``layers`` in one pass, without gradients.

        Args:
            ids: token ids, padded on the right with anything, ``[B, T]`` (long), on any device.
            mask: True on real tokens, ``[B, T]`` (bool).
            layers: any of 0..depth.

        Returns:
            layer → ``[B, T, width]`` on the model's device, in its dtype. Values on padding are undefined.
        """
        ...

    def copies(self, most: int) -> Sequence[TextBackbone]:
        """Itself and copies over the same weights, ``most`` together: :meth:`states` of each may run in a thread of its
        own at the same time. Itself alone where it has no copies to give."""
        ...

    def joined(self, pairs: Sequence[tuple[Sequence[str], Sequence[str]]], whole: int) -> list[Pieces]:
        """Tokenize pairs of texts, each pair as one text: as the library joins them where a summary token stands in
        front (BERT: its separator, a token type for each), else one after the other, since a model that reads in one
        direction knows no separator. Words are numbered on through the second text.

        Args:
            whole: 0 or 1, the text that is kept whole where the limit cuts; the other one's end is left out.
        """
        ...

    def last(self, ids: torch.Tensor, mask: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The model's last states, after its own final norm: ``[B, T, width]``, with gradients for weights that want
        them.

        Args:
            ids, mask: as :meth:`states` has them.
            second: True on the second of two joined texts, ``[B, T]`` (bool).
        """
        ...


@dataclass(frozen=True)
class ImageStates:
    """States of a batch of images at one layer."""

    map: torch.Tensor  #: ``[B, C, H, W]``: a residual network's map, or a transformer's patch tokens in their places
    cls: torch.Tensor | None = None  #: ``[B, C]``: the class token; None where the model has none


@dataclass(frozen=True)
class Tokens:
    """How a vision transformer's tokens lie: some in front, then one for each patch, row by row."""

    grid: tuple[int, int]  #: rows and columns of patches
    prefix: int = 0  #: tokens in front: the class token, registers
    cls: bool = False  #: is the first of them a class token?

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    def __len__(self) -> int:
        return self.prefix + self.patches


class ImageBackbone(Protocol):
    """A frozen image encoder that gives the states of any of its layers in one pass."""

    name: str  #: the model's table
    depth: int  #: number of blocks or stages
    widths: tuple[int, ...]  #: size of a state at each layer, 0..depth
    summaries: tuple[str, ...]  #: which of :data:`IMAGE_SUMMARIES` it has
    native: str  #: the model's own summary of an image: the one that its head reads
    size: tuple[int, int]  #: height and width of what :meth:`preprocess` gives
    #: Each channel's, of pixels in [0, 1]: what :meth:`preprocess` takes off and divides by.
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    tokens: Tokens | None  #: None: its layers give maps
    module: nn.Module  #: its weights, frozen and in evaluation mode
    resolved: Mapping[str, str]  #: what decides the states, preprocessing included; as :class:`TextBackbone` has it

    def preprocess(self, image: Image, whole: bool = False) -> torch.Tensor:
        """An RGB image as the model's own configuration wants it (size, resampling, crop, mean, deviation):
        ``[3, H, W]``, float32, on the CPU, the same size for every image.

        Args:
            whole: its central square, all of it, in place of the configuration's own crop: then every model sees the
                same.
        """
        ...

    @property
    def uncalibrated(self) -> bool:
        """Has it batch norms that no training gave their statistics? Then :meth:`calibrate` must come before states."""
        ...

    def calibrate(self, batches: Iterable[torch.Tensor]) -> None:
        """Give an untrained model's batch norms the statistics of ``batches`` of preprocessed images, and of no others
        before. Without them signals fade from layer to layer, which says nothing of the architecture."""
        ...

    def states(self, pixels: torch.Tensor, layers: Sequence[int], gradients: bool = False) -> dict[int, ImageStates]:
        """States of ``layers`` in one pass.

        Args:
            pixels: preprocessed images ``[B, 3, H, W]``, on any device.
            layers: any of 0..depth.
            gradients: let them flow from the states to ``pixels`` (the weights stay frozen).

        Returns:
            layer → states on the model's device, in its dtype.
        """
        ...

    def attention(
        self, pixels: torch.Tensor, layers: Collection[int], take: Callable[[int, torch.Tensor], None]
    ) -> None:
        """Tell ``take`` the attention weights of blocks ``layers`` (any of 1..depth), lowest first, in one pass: layer,
        ``[B, heads, T, T]`` (float32, on the model's device; T tokens as :attr:`tokens` has them, a row a query).

        Args:
            pixels: preprocessed images ``[B, 3, H, W]``, on any device.

        Raises:
            ModelError: the model has no attention, or one that cannot be seen.
        """
        ...

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images in the space that a contrastive model shares with texts.

        Args:
            pixels: preprocessed images ``[B, 3, H, W]``, on any device.

        Returns:
            ``[B, E]``, float32, of unit length, on the model's device.

        Raises:
            ModelError: it has no text tower.
        """
        ...

    def captions(self, texts: Sequence[str]) -> torch.Tensor:
        """The same of texts: ``[N, E]``. The text tower is loaded for this call alone."""
        ...
