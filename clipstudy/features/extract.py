"""Texts → features: all asked layers and views in one pass over texts sorted by length, each distinct text once.

What a batch gave is written while the next one is encoded, so that an encoder on a device of its own does not wait for
the disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipstudy.backbones.backbone import SUMMARIES, Pieces, TextBackbone
from clipstudy.device import Stopwatch, landing, out_of_memory
from clipstudy.errors import DeviceError
from clipstudy.features import views as view_of
from clipstudy.features.cache import Store
from clipstudy.features.collect import Cell, Collection, Vectors

log = logging.getLogger(__name__)

#: Part of every key of the store: raise it when the same request would give other numbers.
EXTRACTION = 1
#: A batch of very short texts holds at most this many times ``batch_size``.
MOST_ROWS = 8
#: On processor cores a batch is of so many tokens that the widest states of a block, four times the model's width, stay
#: in a core's cache of this many bytes: larger ones wait for memory.
CACHE = 3 * 2**20


#: A view, rows of its sheet, and their values once they are off the device.
_Pooled = tuple[str, NDArray[np.int64], Callable[[], NDArray[np.float32]]]


@dataclass(frozen=True)
class Text:
    """One text, word by word, and the spans in it that are asked for."""

    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...] = ()  #: half-open ranges of words


@dataclass(frozen=True)
class Coverage:
    """What the model saw of what it was given, and what that cost."""

    texts: int
    distinct: int  #: different texts; each is encoded once
    truncated: int  #: texts longer than the model's limit
    spans: int
    spans_unseen: int  #: spans not wholly within what the model saw
    spans_single_piece: int  #: seen spans that are one piece, so that both their ends are one vector
    tokens_useful: int  #: tokens that went through the model in this call; 0 where the store held everything
    tokens_executed: int  #: the same with padding


class Features(Vectors):
    """Vectors of texts, and of spans in them."""

    def __init__(
        self,
        arrays: Mapping[Cell, NDArray[Any]],
        spoiled: Mapping[Cell, str],
        index: NDArray[np.int64],
        truncated: NDArray[np.bool_],
        span_seen: NDArray[np.bool_],
        coverage: Coverage,
        native: str,
    ) -> None:
        super().__init__(arrays, spoiled, native)
        self._index = index
        self.truncated = truncated  #: ``[N]``: did the model's limit cut the text?
        self.span_seen = span_seen  #: ``[S]``: did the model see the span? Unseen spans have zeros
        self.coverage = coverage

    def vectors(self, layer: int, view: str) -> NDArray[np.float32]:
        return np.asarray(self._cell(self.called(view), layer)[self._index], dtype=np.float32)

    def span_ends(self, layer: int) -> NDArray[np.float32]:
        """First and last piece of each span, in order of texts, then spans: ``[S, 2, width]``, float32.

        Raises: as :meth:`vectors`.
        """
        return np.array(self._cell("span", layer), dtype=np.float32)


def extract(
    backbone: TextBackbone,
    texts: Sequence[Text],
    *,
    layers: Sequence[int],
    views: Sequence[str],
    batch_size: int,
    store: Store | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    data_key: str = "",
) -> Features:
    """Features of ``texts`` at ``layers``, in as many forward passes as one layer would take.

    Args:
        layers: any of 0..depth.
        views: any of :data:`clipstudy.features.views.VIEWS`.
        batch_size: texts of median length a batch; what a batch holds is bounded by tokens, so long texts come in
            smaller batches and short ones in larger.
        store: where features are kept. What it holds is not computed again; what is new is streamed to it, so memory
            does not grow with texts × layers.
        on_progress: called with (texts done, texts to do), distinct ones.
        data_key: anything more that distinguishes the texts' origin.

    Raises:
        DeviceError: not even one text fits in the device's memory.
        ModelError: on reading a layer at which the model gave values that are not finite (its siblings can be read).
    """
    views = tuple(dict.fromkeys(backbone.native if view == "native" else view for view in views))
    layers = tuple(dict.fromkeys(layers))
    work = _Work.of(backbone.pieces, texts)
    keys = _keys(backbone, work, data_key)
    shapes = {
        view: (len(work.spans), 2, backbone.width) if view == "span" else (len(work.pieces), backbone.width)
        for view in views
    }
    wanted = {(view, layer): shapes[view] for view in views for layer in layers}
    with Collection(backbone.name, store, keys, wanted) as found:
        run = _Run(backbone, work, found, batch_size)
        run.all(on_progress)
        found.finish()
    return Features(
        found.arrays,
        found.spoiled,
        work.index,
        np.array([work.pieces[i].truncated for i in work.index], dtype=bool),
        np.array([span.ends is not None for span in work.spans], dtype=bool),
        work.coverage(run.useful, run.executed),
        backbone.native,
    )


@dataclass(frozen=True)
class _Span:
    text: int  #: which distinct text
    ends: tuple[int, int] | None


@dataclass(frozen=True)
class _Work:
    """The distinct texts, tokenized, and how the given texts and spans refer to them."""

    words: list[tuple[str, ...]]
    pieces: list[Pieces]
    index: NDArray[np.int64]  #: given text → distinct text
    spans: list[_Span]
    ranges: list[tuple[int, int]]  #: the spans as asked for

    @classmethod
    def of(cls, tokenize: Callable[[Sequence[Sequence[str]]], list[Pieces]], texts: Sequence[Text]) -> _Work:
        distinct: dict[tuple[str, ...], int] = {}
        index = [distinct.setdefault(text.words, len(distinct)) for text in texts]
        words = list(distinct)
        pieces = tokenize(words)
        ranges = [(i, span) for i, text in zip(index, texts, strict=True) for span in text.spans]
        spans = [_Span(i, view_of.ends(pieces[i], span)) for i, span in ranges]
        return cls(words, pieces, np.array(index, dtype=np.int64), spans, [span for _, span in ranges])

    def coverage(self, useful: int, executed: int) -> Coverage:
        seen = [span.ends for span in self.spans if span.ends is not None]
        return Coverage(
            texts=len(self.index),
            distinct=len(self.pieces),
            truncated=sum(self.pieces[i].truncated for i in self.index),
            spans=len(self.spans),
            spans_unseen=len(self.spans) - len(seen),
            spans_single_piece=sum(map(view_of.one_piece, seen)),
            tokens_useful=useful,
            tokens_executed=executed,
        )


class _Run:
    """One pass over the texts, longest first, pooled on the device and collected in ``found``."""

    def __init__(self, backbone: TextBackbone, work: _Work, found: Collection, batch_size: int) -> None:
        self._backbone, self._work, self._found, self._batch_size = backbone, work, found, batch_size
        self._layers, self._views = found.layers, found.views
        self._spans_of: dict[int, list[int]] = {}
        for row, span in enumerate(work.spans):
            if span.ends is not None:
                self._spans_of.setdefault(span.text, []).append(row)
        self.useful = self.executed = 0
        self._encoder = Stopwatch()
        self._device = ""  #: known once a batch went through the model

    def all(self, on_progress: Callable[[int, int], None] | None) -> None:
        total = len(self._work.pieces) if self._layers else 0
        done = 0
        whole = Stopwatch()
        with ThreadPoolExecutor(1, "features") as writer, whole.running():
            writing: Future[None] | None = None
            for pooled, texts in self._batches(total):
                if writing:  # one batch waits to be written, and no more
                    writing.result()
                writing = writer.submit(self._write, pooled)
                done += texts
                if on_progress:
                    on_progress(done, total)
            if writing:
                writing.result()
        if total:
            share = self._encoder.seconds / whole.seconds
            log.info("%d texts in %.1f s, %.0f%% of it the encoder's", total, whole.seconds, 100 * share)

    def _write(self, pooled: Sequence[_Pooled]) -> None:
        for view, rows, landed in pooled:
            for layer, values in zip(self._layers, landed(), strict=True):
                self._found.write((view, layer), rows, values)

    def _batches(self, total: int) -> Iterator[tuple[list[_Pooled], int]]:
        """What each batch gave, and how many texts it held."""
        # Longest first: what does not fit in memory shows at once, and sorted texts need little padding.
        lengths = np.array([len(pieces.ids) for pieces in self._work.pieces], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable").tolist() if total else []
        budget = self._batch_size * max(1, int(np.median(lengths))) if total else 0
        most = self._batch_size * MOST_ROWS
        start = 0
        while start < total:
            longest = int(lengths[order[start]])
            batch = order[start : start + max(1, min(budget // longest, most))]
            full = False
            try:
                pooled = self._encode(batch)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise DeviceError(
                        f"one text of {longest} tokens does not fit in the device's memory. Lower max_tokens in "
                        f"[models.{self._backbone.name}], or use another device."
                    ) from error
                full = True
            if full:  # outside the handler, whose traceback would keep the batch's tensors alive
                budget = longest * (len(batch) // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            if self._device == "cpu":
                budget = min(budget, torch.get_num_threads() * CACHE // (4 * 4 * self._backbone.width))
            self.useful += int(lengths[batch].sum())
            self.executed += longest * len(batch)
            start += len(batch)
            yield pooled, len(batch)

    def _encode(self, batch: list[int]) -> list[_Pooled]:
        pieces = [self._work.pieces[i] for i in batch]
        lengths = torch.tensor([len(p.ids) for p in pieces])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.zeros(mask.shape, dtype=torch.long)
        ids[mask] = torch.tensor(list(chain.from_iterable(p.ids for p in pieces)))
        own = torch.zeros_like(mask)
        positions = [p.own for p in pieces]
        own[np.repeat(range(len(batch)), list(map(len, positions))), list(chain.from_iterable(positions))] = True
        with self._encoder.running():
            states = self._backbone.states(ids, mask, self._layers)
        device = states[self._layers[0]].device
        self._device = device.type
        own = own.to(device)
        # Everything is pooled before anything is written: a batch that runs out of memory leaves no half behind.
        return [(view, *self._pool(view, states, batch, pieces, own)) for view in self._views]

    def _pool(
        self,
        view: str,
        states: Mapping[int, torch.Tensor],
        batch: list[int],
        pieces: list[Pieces],
        own: torch.Tensor,
    ) -> tuple[NDArray[np.int64], Callable[[], NDArray[np.float32]]]:
        """Rows of the view's sheet, and (when it has landed) their values at every layer, ``[layers, rows, …]``: one
        copy off the device."""
        if view == "mean":
            vectors = [view_of.mean(states[layer], own) for layer in self._layers]
            return np.array(batch, dtype=np.int64), landing(torch.stack(vectors))
        if view in SUMMARIES:
            at = [p.summary(view) for p in pieces]
            vectors = [view_of.at(states[layer], range(len(batch)), at) for layer in self._layers]
            return np.array(batch, dtype=np.int64), landing(torch.stack(vectors))
        rows = [(i, row) for i, text in enumerate(batch) for row in self._spans_of.get(text, ())]
        where = [self._work.spans[row].ends or (0, 0) for _, row in rows]
        twice = [i for i, _ in rows for _ in (0, 1)]
        vectors = [view_of.at(states[k], twice, [p for pair in where for p in pair]) for k in self._layers]
        pairs = torch.stack(vectors).unflatten(1, (len(rows), 2))
        return np.array([row for _, row in rows], dtype=np.int64), landing(pairs)


def _keys(backbone: TextBackbone, work: _Work, data_key: str) -> dict[str, str]:
    """View → key of the store: everything that decides the numbers, the texts themselves included."""
    model = json.dumps(dict(backbone.resolved), sort_keys=True)
    start = hashlib.sha256(json.dumps([EXTRACTION, model, data_key]).encode())
    for words in work.words:
        start.update(json.dumps(words).encode())
    texts = start.hexdigest()[:24]
    for span, given in zip(work.spans, work.ranges, strict=True):
        start.update(f"{span.text} {given}".encode())
    spans = start.hexdigest()[:24]
    return {view: spans if view == "span" else texts for view in view_of.VIEWS}
