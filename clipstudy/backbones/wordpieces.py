"""Words → pieces, word by word, so that every piece is known to belong to one word whatever the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clipstudy.backbones.backbone import Pieces


@dataclass
class WordPieces:
    """Tokenizes texts by looking their words up, each distinct word having been encoded once.

    No tokenizer here merges across whitespace, so the pieces are those of the text as a whole, and a hundred thousand
    sentences cost about as much as their vocabulary.
    """

    encode: Callable[[Sequence[str]], Sequence[Sequence[int]]]  #: strings → ids without special tokens, in bulk
    front: tuple[int, ...]  #: special tokens before a text
    back: tuple[int, ...]  #: special tokens after it
    limit: int  #: most ids a text may have, special tokens included
    empty: int  #: what stands for a text that has no token at all
    lead: str = ""  #: what precedes a word inside a text, where it changes the word's pieces (byte-level BPE)
    fill: int | None = None  #: pad to ``limit`` with this id: for models whose tokens attend to padding
    _known: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def pieces(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        spelled = [[word if i == 0 else self.lead + word for i, word in enumerate(words)] for words in texts]
        new = sorted({word for words in spelled for word in words} - self._known.keys())
        for word, ids in zip(new, self.encode(new) if new else (), strict=True):
            self._known[word] = tuple(ids)
        return [self._assemble(words) for words in spelled]

    def _assemble(self, words: Sequence[str]) -> Pieces:
        room = self.limit - len(self.front) - len(self.back)
        ids: list[int] = []
        owners: list[int] = []
        cut = None
        for index, word in enumerate(words):
            pieces = self._known[word]
            if len(ids) + len(pieces) > room:
                cut, pieces = index, pieces[: room - len(ids)]
            ids.extend(pieces)
            owners.extend([index] * len(pieces))
            if cut is not None:
                break
        text = (*self.front, *ids, *self.back) or (self.empty,)
        padding = () if self.fill is None else (self.fill,) * (self.limit - len(text))
        before = (None,) * len(self.front)
        after = (None,) * (len(text) + len(padding) - len(before) - len(owners))
        return Pieces(text + padding, (*before, *owners, *after), cut)


def lead_of(encode: Callable[[Sequence[str]], Sequence[Sequence[int]]]) -> str:
    """What must precede a word for it to be encoded as it is inside a text: a space for byte-level BPE (GPT-2,
    RoBERTa), else nothing."""
    first, both, *alone = encode(["b", "b a", "a", " a"])
    inside = list(both)[len(first) :]
    return " " if list(alone[0]) != inside and list(alone[1]) == inside else ""
