"""The distinct texts in the order in which they are encoded, longest first, tokenized while the encoder is at work.

To sort them by tokens all of them would have to be tokenized before the first is encoded, and a GPU would wait for
that. So they are sorted by characters, tokenized a window at a time, and sorted by tokens within it. Windows begin
small, so that the first is there soon, and grow, so that little padding is left.

While one window is encoded the next is tokenized a few texts at a time: in between two batches and not in a thread of
its own, since both need the interpreter, and a thread that holds it would stop the one that keeps a GPU at work for as
long as a batch takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np

from clipstudy.backbones.backbone import Pieces
from clipstudy.features import views as view_of

#: Texts of the first window and of the largest; until then each is so many times as large as the one before.
FIRST, LARGEST, GROWTH = 128, 4096, 4
#: Texts that tell how long a text is.
SAMPLE = 64

Words = tuple[str, ...]
Range = tuple[int, int]


class Reading:
    """What is known of the texts; what only their pieces tell, once :meth:`windows` has ended.

    Args:
        tokenize: as :meth:`clipstudy.backbones.backbone.TextBackbone.pieces`.
        texts: word by word.
        spans: of each text, half-open ranges of words.
    """

    def __init__(
        self,
        tokenize: Callable[[Sequence[Words]], list[Pieces]],
        texts: Sequence[Words],
        spans: Sequence[Sequence[Range]],
    ) -> None:
        self._tokenize = tokenize
        number: dict[Words, int] = {}
        #: Given text → distinct text, by their numbers.
        self.index = np.array([number.setdefault(words, len(number)) for words in texts], dtype=np.int64)
        self.texts = list(number)
        #: The spans in order: distinct text, range of its words.
        self.spans = [(text, span) for text, own in zip(self.index.tolist(), spans, strict=True) for span in own]
        self.spans_of: dict[int, list[int]] = {}
        for span, (text, _) in enumerate(self.spans):
            self.spans_of.setdefault(text, []).append(span)
        self.truncated = np.zeros(len(self.texts), dtype=bool)
        #: Of each span the positions of its first and last piece; None: the model does not see both.
        self.ends: list[tuple[int, int] | None] = [None] * len(self.spans)
        #: Place of each distinct text and of each span in the order of encoding, unseen spans at its end.
        self.place = np.zeros(len(self.texts), dtype=np.int64)
        self.span_place = np.zeros(len(self.spans), dtype=np.int64)

        self._counts = np.array([len(words) for words in self.texts], dtype=np.int64)
        self._lengths = np.fromiter(map(len, chain.from_iterable(self.texts)), dtype=np.int64)
        before = np.concatenate([[0], np.cumsum(self._lengths)])
        stops = np.cumsum(self._counts)
        characters = before[stops] - before[stops - self._counts] + self._counts
        self._order = np.argsort(-characters, kind="stable").tolist()
        self._read: list[Pieces] = []  #: of the window to come
        self._to_read: list[int] = []  #: its other texts

    def tell(self, digest: Callable[[bytes], object]) -> None:
        """Tell ``digest`` the texts, word by word: what differs anywhere is told otherwise."""
        digest(self._counts.tobytes())
        digest(self._lengths.tobytes())
        for start in range(0, len(self.texts), LARGEST):
            words = chain.from_iterable(self.texts[start : start + LARGEST])
            digest("".join(words).encode(errors="surrogatepass"))

    def typical(self) -> int:
        """Median number of tokens, told by texts of about the median number of characters; 1 where there is none."""
        start = max(0, (len(self._order) - SAMPLE) // 2)
        middle = [self.texts[text] for text in self._order[start : start + SAMPLE]]
        return int(np.median([len(pieces.ids) for pieces in self._tokenize(middle)])) if middle else 1

    def windows(self) -> Iterator[list[tuple[int, Pieces]]]:
        """Distinct texts and their pieces, sorted by number of pieces within a window."""
        start, size = 0, FIRST
        self._to_read = self._order[:size]
        while start < len(self._order):
            self.ahead()
            window = list(zip(self._order[start : start + size], self._read, strict=True))
            window.sort(key=lambda numbered: -len(numbered[1].ids))
            self.place[[text for text, _ in window]] = np.arange(start, start + len(window))
            start, size = start + len(window), min(GROWTH * size, LARGEST)
            self._read, self._to_read = [], self._order[start : start + size]
            yield window
        unseen = np.array([ends is None for ends in self.ends], dtype=bool)
        texts = np.array([text for text, _ in self.spans], dtype=np.int64)
        self.span_place[np.lexsort((self.place[texts], unseen))] = np.arange(len(self.spans))

    def ahead(self, share: float = 1.0) -> None:
        """Tokenize so much of what is left of the window to come."""
        number = math.ceil(share * len(self._to_read))
        new, self._to_read = self._to_read[:number], self._to_read[number:]
        if not new:
            return
        for text, pieces in zip(new, self._tokenize([self.texts[text] for text in new]), strict=True):
            self._read.append(pieces)
            self.truncated[text] = pieces.truncated
            for span in self.spans_of.get(text, ()):
                self.ends[span] = view_of.ends(pieces, self.spans[span][1])
