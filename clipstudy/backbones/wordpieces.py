"""Words → pieces, word by word, so that every piece is known to belong to one word whatever the tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, repeat

from clipstudy.backbones.backbone import Pieces

log = logging.getLogger(__name__)

#: So large a share of the distinct words, of so many at least, is warned of where the vocabulary has no piece for them.
MOST_UNKNOWN, OF_WORDS = 0.1, 20


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
    between: tuple[int, ...] = ()  #: special tokens between two texts that are read as one
    fill: tuple[int, int] | None = None  #: pad with this id to so many, for models that read the last of their padding
    unknown: int | None = None  #: what stands for all that the vocabulary has no piece for
    name: str = ""  #: the model's, for the warning
    _known: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    _strange: list[str] = field(default_factory=list, repr=False)  #: words with an unknown piece
    _warned: bool = field(default=False, repr=False)

    def pieces(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        spelled = self._spelled(texts)
        self._learn(word for words in spelled for word in words)
        room = self.limit - len(self.front) - len(self.back)
        return [self._framed(self._fill(words, room)) for words in spelled]

    def joined(self, pairs: Sequence[tuple[Sequence[str], Sequence[str]]], whole: int) -> list[Pieces]:
        first = self._spelled([one for one, _ in pairs])
        spelled = list(zip(first, self._spelled([two for _, two in pairs], inside=not self.between), strict=True))
        self._learn(word for pair in spelled for words in pair for word in words)
        room = self.limit - len(self.front) - len(self.between) - len(self.back)
        found = []
        for pair in spelled:
            kept = self._fill(pair[whole], room)
            rest = self._fill(pair[1 - whole], room - len(kept.ids))
            one, two = (rest, kept) if whole else (kept, rest)
            found.append(self._framed(one, two.after(len(pair[0]))))
        return found

    def _spelled(self, texts: Sequence[Sequence[str]], inside: bool = False) -> list[list[str]]:
        """Words as they are encoded: what comes first, or behind nothing but words that have no piece, has no lead."""
        if not self.lead or inside:
            return [[self.lead + word for word in words] for words in texts]
        self._learn(words[0] for words in texts if words)
        found = []
        for words in texts:
            first = 0
            while first < len(words) - 1 and not self._pieces_of(words[first]):
                first += 1
            found.append([*words[: first + 1], *(self.lead + word for word in words[first + 1 :])])
        return found

    def _pieces_of(self, word: str) -> tuple[int, ...]:
        if word not in self._known:
            self._learn([word])
        return self._known[word]

    def _learn(self, words: Iterable[str]) -> None:
        new = sorted(set(words) - self._known.keys())
        for word, ids in zip(new, self.encode(new) if new else (), strict=True):
            self._known[word] = tuple(ids)
            if self.unknown in ids:
                self._strange.append(word)
        share = len(self._strange) / max(len(self._known), OF_WORDS)
        if share > MOST_UNKNOWN and not self._warned:
            self._warned = True
            some = ", ".join(f'"{word.strip()}"' for word in self._strange[:3])
            log.warning(
                "%s has no pieces for %.0f%% of the words that it is given (%s…) and reads them all alike: its "
                "vocabulary is of other texts",
                self.name,
                100 * share,
                some,
            )

    def _fill(self, words: Sequence[str], room: int) -> _Filled:
        """As many pieces of ``words`` as there is room for."""
        pieces = [self._known[word] for word in words]
        ids = list(chain.from_iterable(pieces))
        owners = list(chain.from_iterable(map(repeat, count(), map(len, pieces))))
        if len(ids) <= room:
            return _Filled(ids, owners, None)
        return _Filled(ids[:room], owners[:room], owners[room])

    def _framed(self, one: _Filled, two: _Filled | None = None) -> Pieces:
        ids, owners = [*self.front, *one.ids], [*(None for _ in self.front), *one.owners]
        second, cuts = None, [one.cut]
        if two is not None:
            second = len(ids) + len(self.between)
            ids += [*self.between, *two.ids]
            owners += [*(None for _ in self.between), *two.owners]
            cuts.append(two.cut)
        text = (*ids, *self.back) or (self.empty,)
        padding = () if self.fill is None else (self.fill[0],) * (self.fill[1] - len(text))
        whole = text + padding
        after = (None,) * (len(whole) - len(owners))
        return Pieces(whole, (*owners, *after), min((cut for cut in cuts if cut is not None), default=None), second)


@dataclass(frozen=True)
class _Filled:
    """The pieces of one text that fitted, the word that each belongs to, and the first word that did not fit whole."""

    ids: Sequence[int]
    owners: Sequence[int]
    cut: int | None

    def after(self, words: int) -> _Filled:
        """The same behind a text of so many words."""
        cut = None if self.cut is None else self.cut + words
        return _Filled(self.ids, [owner + words for owner in self.owners], cut)


def lead_of(encode: Callable[[Sequence[str]], Sequence[Sequence[int]]]) -> str:
    """What must precede a word for it to be encoded as it is inside a text: a space for byte-level BPE (GPT-2,
    RoBERTa), else nothing."""
    first, both, *alone = encode(["b", "b a", "a", " a"])
    inside = list(both)[len(first) :]
    return " " if list(alone[0]) != inside and list(alone[1]) == inside else ""
