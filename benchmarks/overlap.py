"""Stages that could run at a time: does the slowest set the pace?

A GPU does not compete with what tokenizes, pools and writes; a stand-in that takes its time and no processor shows
what of that time is lost. On processor cores all stages compete: what
two of them at a time gain is measured too. Both are of wall-clock time, whatever the clock of the other rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.extraction import BATCH, MINILM, sentences
from benchmarks.figures import Row
from benchmarks.probes import CLASSES, features, labels
from clipstudy import backbones
from clipstudy.features.cache import Store
from clipstudy.features.extract import MOST_ROWS, extract
from clipstudy.probes.mlp import JAWAHAR, fit

#: Seconds that the stand-in takes for a batch: about a BERT-base's on a data centre's GPU.
PASS = 0.006


def rows(quick: bool) -> Iterator[Row]:
    repeats = 3 if quick else 5
    found = [stand_in(2000 if quick else 8000) for _ in range(repeats)]
    yield Row(
        "share of extraction that a stand-in for a GPU is at work",
        found,
        unit="",
        least=0.9,
        said=f"{1000 * PASS:.0f} ms a batch of {BATCH} sentences, 13 layers of 768; tokenizing and the store included",
    )
    yield Row(
        "probes and the next group's encoder: one after another / at a time",
        [side_by_side(256 if quick else 1024) for _ in range(repeats)],
        said="on the same processor cores; a worker does one after another",
    )


class StandIn:
    """An encoder of BERT-base's shape that computes nothing. As a GPU does, it returns at once, works off what it is
    asked in order, and lets a copy of its results wait until they are there."""

    name, depth, width, native = "stand-in", 12, 768, "cls"
    resolved = {"checkpoint": "none"}

    def __init__(self) -> None:
        self._words: Any = backbones.load(backbones.located(MINILM), "cpu")
        self._states = torch.randn(BATCH * MOST_ROWS, 1, self.width)
        self._free = 0.0  #: when it will have worked off everything
        self.seconds = 0.0  #: of work

    def pieces(self, texts: Sequence[Sequence[str]]) -> Any:
        return self._words.pieces(texts)

    def states(self, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        self._free = max(self._free, time.perf_counter()) + PASS
        self.seconds += PASS
        return {layer: self._states[: len(ids)].expand(-1, ids.shape[1], -1) for layer in layers}

    def landing(self, values: torch.Tensor) -> Callable[[], Any]:
        there = self._free

        def wait() -> Any:
            time.sleep(max(0.0, there - time.perf_counter()))
            return values.numpy()

        return wait


def stand_in(number: int) -> float:
    """The share of the wall clock that the stand-in was at work."""
    encoder, texts = StandIn(), sentences(number)
    encoder.pieces([text.words for text in texts[:8]])
    with tempfile.TemporaryDirectory() as folder, patch("clipstudy.features.extract.landing", encoder.landing):
        began = time.perf_counter()
        extract(encoder, texts, layers=range(13), views=["native"], batch_size=BATCH, store=Store(Path(folder)))
        return encoder.seconds / (time.perf_counter() - began)


def side_by_side(number: int) -> float:
    backbone: Any = backbones.load(backbones.located(MINILM), "cpu")
    truth = labels((2000, 200, 200))
    inputs = [features(layer, truth) for layer in range(4)]
    encode = partial(extract, backbone, sentences(number), layers=range(7), views=["mean"], batch_size=BATCH)
    probe = partial(fit, inputs, [truth], CLASSES, JAWAHAR, range(5))
    began = time.perf_counter()
    encode()
    probe()
    apart = time.perf_counter() - began
    began = time.perf_counter()
    beside = Thread(target=probe)
    beside.start()
    encode()
    beside.join()
    return apart / (time.perf_counter() - began)
