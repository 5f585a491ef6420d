"""Texts → features: all asked layers and views in one pass over texts sorted by length, each distinct text once.

A GPU returns from a pass at once and works on alone. Meanwhile texts of later batches are tokenized here, between two
passes, and what earlier ones gave is written by another thread; so the encoder waits for neither. Processor cores have
a batch each, see :mod:`clipstudy.features.parallel`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipstudy.backbones.backbone import SUMMARIES, Pieces, TextBackbone
from clipstudy.device import Stopwatch, fitting, landing, sent
from clipstudy.features import parallel
from clipstudy.features import views as view_of
from clipstudy.features.cache import Store
from clipstudy.features.collect import Arrival, Cell, Collection, Vectors
from clipstudy.features.reading import Reading
from clipstudy.wording import counted

log = logging.getLogger(__name__)

#: Part of every key of the store: raise it when the same request would give other numbers.
EXTRACTION = 8
#: A batch of very short texts holds at most this many times ``batch_size``.
MOST_ROWS = 8
#: On processor cores a batch is of so many tokens that the widest states of a block, four times the model's width, stay
#: in the caches of its cores, of so many bytes each: larger ones wait for memory.
CACHE = 6 * 2**20


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
        rows: NDArray[np.int64],
        truncated: NDArray[np.bool_],
        span_rows: NDArray[np.int64],
        span_seen: NDArray[np.bool_],
        coverage: Coverage,
        native: str,
    ) -> None:
        super().__init__(arrays, spoiled, native)
        self._rows, self._span_rows = rows, span_rows  # where each text and span lies in the arrays
        self.truncated = truncated  #: ``[N]``: did the model's limit cut the text?
        self.span_seen = span_seen  #: ``[S]``: did the model see the span? Unseen spans have zeros
        self.coverage = coverage

    def vectors(self, layer: int, view: str) -> NDArray[np.float32]:
        return np.asarray(self._cell(self.called(view), layer)[self._rows], dtype=np.float32)

    def span_ends(self, layer: int) -> NDArray[np.float32]:
        """First and last piece of each span, in order of texts, then spans: ``[S, 2, width]``, float32.

        Raises: as :meth:`vectors`.
        """
        return np.asarray(self._cell("span", layer)[self._span_rows], dtype=np.float32)


def extract(
    backbone: TextBackbone,
    texts: Sequence[Text],
    *,
    layers: Sequence[int],
    views: Sequence[str],
    batch_size: int,
    store: Store | None = None,
    on_progress: Callable[[int, int], None] | None = None,
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

    Raises:
        DeviceError: not even one text fits in the device's memory.
        ModelError: on reading a layer at which the model gave values that are not finite (its siblings can be read).
    """
    views = tuple(dict.fromkeys(backbone.native if view == "native" else view for view in views))
    layers = tuple(dict.fromkeys(layers))
    reading = Reading(backbone.pieces, [text.words for text in texts], [text.spans for text in texts])
    keys = _keys(backbone, reading, views)
    shapes = {
        view: (len(reading.spans), 2, backbone.width) if view == "span" else (len(reading.texts), backbone.width)
        for view in views
    }
    wanted = {(view, layer): shapes[view] for view in views for layer in layers}
    with Collection(backbone.name, counted(len(reading.texts), "text"), store, keys, wanted) as collection:
        run = _Run(backbone, reading, collection, batch_size)
        run.all(on_progress)
    return Features(
        collection.arrays,
        collection.spoiled,
        reading.place[reading.index],
        reading.truncated[reading.index],
        reading.span_place,
        np.array([ends is not None for ends in reading.ends], dtype=bool),
        _coverage(reading, run),
        backbone.native,
    )


def _coverage(reading: Reading, run: _Run) -> Coverage:
    seen = [ends for ends in reading.ends if ends]
    return Coverage(
        texts=len(reading.index),
        distinct=len(reading.texts),
        truncated=int(reading.truncated[reading.index].sum()),
        spans=len(reading.spans),
        spans_unseen=len(reading.spans) - len(seen),
        spans_single_piece=sum(map(view_of.one_piece, seen)),
        tokens_useful=run.useful,
        tokens_executed=run.executed,
    )


#: Distinct texts and their numbers.
Batch = Sequence[tuple[int, Pieces]]


@dataclass(frozen=True)
class _Reader:
    """A model, or a copy of it, and how long it was at work."""

    backbone: TextBackbone
    at_work: Stopwatch


class _Run:
    """One pass over the texts, longest first, pooled on the device and written into ``collection``."""

    def __init__(self, backbone: TextBackbone, reading: Reading, collection: Collection, batch_size: int) -> None:
        self._backbone, self._reading, self._collection, self._batch_size = backbone, reading, collection, batch_size
        self._layers, self._views = collection.layers, collection.views
        self._device = str(backbone.device)
        self._budget = 0  #: tokens of a batch
        self.useful = self.executed = 0

    def all(self, on_progress: Callable[[int, int], None] | None) -> None:
        if not self._layers:
            for _ in self._reading.windows():  # what is known of the texts is asked for all the same
                pass
            return
        total, done = len(self._reading.texts), 0
        whole = Stopwatch()
        with whole.running():
            readers = self._readers()
            with closing(parallel.in_order(self._encoded, readers, self._batches())) as encoded:
                for batch, arrivals in chain.from_iterable(encoded):
                    self._collection.expect(arrivals)
                    self.useful += sum(len(pieces.ids) for _, pieces in batch)
                    self.executed += len(batch) * len(batch[0][1].ids)
                    done += len(batch)
                    if on_progress:
                        on_progress(done, total)
            self._collection.finish()
        share = sum(reader.at_work.seconds for reader in readers) / len(readers) / max(whole.seconds, 1e-9)
        log.info("%d texts in %.1f s, %.0f%% of it the encoder's", total, whole.seconds, 100 * share)

    def _readers(self) -> list[_Reader]:
        """As many as there is work for; how much a batch holds follows from it."""
        typical = self._reading.typical()
        self._budget, most = self._batch_size * typical, 1
        if self._device == "cpu":
            most = parallel.number()
            in_cache = parallel.threads(most) * CACHE // (4 * 4 * self._backbone.width)
            self._budget = min(self._budget, in_cache)
            most = min(most, math.ceil(typical * len(self._reading.texts) / max(1, self._budget)))
        return [_Reader(backbone, Stopwatch()) for backbone in self._backbone.copies(most)]

    def _batches(self) -> Iterator[Batch]:
        for window in self._reading.windows():
            left: Batch = window
            # Longest first: what does not fit in memory shows at once, and sorted texts need little padding.
            while left:
                batch = self._first(left)
                yield batch
                self._reading.ahead(len(batch) / len(left))  # evenly, so that no batch waits for it
                left = left[len(batch) :]

    def _first(self, texts: Batch) -> Batch:
        """So many of ``texts``, the longest first, as make a batch."""
        return texts[: max(1, min(self._budget // len(texts[0][1].ids), self._batch_size * MOST_ROWS))]

    def _encoded(self, reader: _Reader, batch: Batch) -> list[tuple[Batch, list[Arrival]]]:
        """The batch encoded: in one part, or in several where it does not fit in the device's memory."""
        hopeless = (
            f"one text of {len(batch[0][1].ids)} tokens does not fit in the device's memory. Lower max_tokens in "
            f"[models.{self._backbone.name}], or use another device."
        )
        parts = []
        while batch:
            part = self._first(batch)
            arrivals = fitting(partial(self._encode, reader, part), hopeless if len(part) == 1 else None)
            if arrivals is None:
                self._budget = min(self._budget, len(part[0][1].ids) * (len(part) // 2))
            else:
                parts.append((part, arrivals))
                batch = batch[len(part) :]
        return parts

    def _encode(self, reader: _Reader, batch: Batch) -> list[Arrival]:
        pieces = [text for _, text in batch]
        lengths = torch.tensor([len(text.ids) for text in pieces])
        mask = torch.arange(len(pieces[0].ids)) < lengths[:, None]
        ids = torch.zeros(mask.shape, dtype=torch.long)
        ids[mask] = torch.tensor(list(chain.from_iterable(text.ids for text in pieces)))
        with reader.at_work.running():
            states = reader.backbone.states(sent(ids, self._device), sent(mask, self._device), self._layers)
        by_layer = [states[layer] for layer in self._layers]
        # Everything is pooled before anything is written: a batch that runs out of memory leaves no half behind.
        return [self._arrival(view, self._pool(view, by_layer, batch)) for view in self._views]

    def _arrival(self, view: str, pooled: torch.Tensor) -> Arrival:
        """One copy off the device, of all layers."""
        return Arrival([(view, layer) for layer in self._layers], pooled.nbytes, landing(pooled))

    def _pool(self, view: str, states: Sequence[torch.Tensor], batch: Batch) -> torch.Tensor:
        """The view's values of the batch at every layer, ``[layers, rows, …]``."""
        if view == "mean":
            positions = [pieces.own for _, pieces in batch]
            own = torch.zeros(states[0].shape[:2], dtype=torch.bool)
            rows = np.repeat(range(len(batch)), list(map(len, positions)))
            own[rows, list(chain.from_iterable(positions))] = True
            return view_of.mean(states, sent(own, self._device))
        if view in SUMMARIES:
            at = [(row, pieces.summary(view)) for row, (_, pieces) in enumerate(batch)]
        else:
            spans = [
                (row, span) for row, (text, _) in enumerate(batch) for span in self._reading.spans_of.get(text, ())
            ]
            at = [(row, end) for row, span in spans for end in self._reading.ends[span] or ()]
        rows, positions = sent(torch.tensor(at, dtype=torch.long).reshape(len(at), 2).T.contiguous(), self._device)
        values = view_of.at(states, rows, positions)
        return values if view in SUMMARIES else values.unflatten(1, (len(at) // 2, 2))


def _keys(backbone: TextBackbone, reading: Reading, views: Sequence[str]) -> dict[str, str]:
    """View → key of the store: everything that decides the numbers, the texts themselves included."""
    model = json.dumps(dict(backbone.resolved), sort_keys=True)
    start = hashlib.sha256(json.dumps([EXTRACTION, model]).encode())
    reading.tell(start.update)
    keys = dict.fromkeys(views, start.hexdigest()[:24])
    if "span" in keys:
        start.update(json.dumps(reading.spans).encode())
        keys["span"] = start.hexdigest()[:24]
    return keys
