"""Stages that could run at a time: does the slowest set the pace?

A GPU does not compete with what tokenizes, pools and writes. A stand-in that takes its time, and of the processor only
what calling a GPU costs, shows what of that time is lost. On processor cores all stages compete: what two of them at a
time gain is measured too, in wall-clock time whatever the clock of the other rows. The stand-in's share in processor
time is of the thread that asks it: what others write meanwhile is not in it.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

import torch

from benchmarks import figures
from benchmarks.extraction import BATCH, MINILM, sentences
from benchmarks.figures import Row, in_turns, ratios
from benchmarks.probes import CLASSES, features, labels
from benchmarks.recipes import JAWAHAR
from clipstudy import backbones
from clipstudy.features.cache import Store
from clipstudy.features.extract import MOST_ROWS, extract
from clipstudy.probes.mlp import fit
from clipstudy.spec import ModelSpec

#: Seconds that the stand-in takes for a token: a BERT-base's 170 MFLOP at 26 TFLOP/s, about what a data centre's GPU
#: does in single precision.
TOKEN = 6.5e-6
#: Sentences of median length a batch, as in benchmarks/gpu.py.
ON_GPU = 128


def rows(quick: bool) -> Iterator[Row]:
    repeats, number = (2, 4000) if quick else (5, 8000)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # calling a GPU is one thread's work
    with tempfile.TemporaryDirectory() as folder:
        calls = miniature(Path(folder))
        found = [stand_in(calls, number) for _ in range(repeats)]
    torch.set_num_threads(threads)
    beside = "the store" if figures.clock() == "wall" else "the store's beginning and end"
    yield Row(
        "share of extraction that a stand-in for a GPU is at work",
        found,
        unit="",
        least=0.9,
        said=f"{number:,} sentences, {1e6 * TOKEN:.1f} µs a token, batches of {ON_GPU}, 13 layers of 768; tokenizing, "
        f"a GPU's calls and {beside} included",
    )
    yield Row(
        "probes and the next group's encoder: one after another / at a time",
        side_by_side(256 if quick else 1024, repeats),
        said="on the same processor cores; a worker does one after another",
    )


class StandIn:
    """An encoder of BERT-base's shape on a GPU that is not there.

    The processor's part is done: the library is called, block by block, for a model with next to no arithmetic. Of the
    GPU's there is the time alone: it begins with the first call and works off what it is asked in order, whoever asks
    goes on meanwhile, and a copy of its results waits until they are there. The library itself waits before each pass:
    it looks at a mask that is on the GPU, behind all work before.
    """

    name, depth, width, native = "stand-in", 12, 768, "cls"
    device = torch.device("cpu")  # where its results land
    resolved = {"checkpoint": "none"}

    def __init__(self, calls: ModelSpec) -> None:
        self._calls: Any = backbones.load(calls, "cpu")
        self._states = torch.randn(ON_GPU * MOST_ROWS, 1, self.width)
        self._waited = 0.0  #: for it, where the clock does not count that
        self._free = 0.0  #: when it will have worked off everything
        self.seconds = 0.0  #: of work

    def pieces(self, texts: Sequence[Sequence[str]]) -> Any:
        return self._calls.pieces(texts)

    def states(self, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        takes = TOKEN * ids.numel()
        self._wait(self._free)
        began = self.now()
        self._calls.states(ids[:1, :2], mask[:1, :2], layers)
        self._free = max(began + takes, self.now())
        self.seconds += takes
        return {layer: self._states[: len(ids)].expand(-1, ids.shape[1], -1) for layer in layers}

    def copies(self, _most: int) -> list[StandIn]:
        return [self]

    def landing(self, values: torch.Tensor) -> Callable[[], Any]:
        there = self._free

        def landed() -> Any:
            if figures.clock() == "wall":
                self._wait(there)
            return values.numpy()

        return landed

    def now(self) -> float:
        """Seconds: the wall's, or the processor's in this thread and what it waited for."""
        return time.perf_counter() if figures.clock() == "wall" else time.thread_time() + self._waited

    def _wait(self, until: float) -> None:
        left = max(0.0, until - self.now())
        if figures.clock() == "wall":
            time.sleep(left)
        else:
            self._waited += left


def miniature(folder: Path) -> ModelSpec:
    """BERT-base's blocks, so narrow that calling them is all their cost, with MiniLM's vocabulary."""
    from transformers import AutoTokenizer, BertConfig

    AutoTokenizer.from_pretrained(backbones.located(MINILM).checkpoint, local_files_only=True).save_pretrained(folder)
    BertConfig(hidden_size=12, intermediate_size=12).save_pretrained(folder)
    return ModelSpec("calls", "transformers", str(folder), 12, init="random")


def stand_in(calls: ModelSpec, number: int) -> float:
    """The share of the time that the stand-in was at work."""
    encoder, texts = StandIn(calls), sentences(number)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("clipstudy.features.extract.landing", encoder.landing),
        patch("clipstudy.features.extract.CACHE", 2**40),  # which is a processor's
    ):
        gc.collect()  # what loading left is not extraction's to clear away
        began = encoder.now()
        extract(encoder, texts, layers=range(13), views=["native"], batch_size=ON_GPU, store=Store(Path(folder)))
        return encoder.seconds / (encoder.now() - began)


def side_by_side(number: int, repeats: int) -> list[float]:
    backbone: Any = backbones.load(backbones.located(MINILM), "cpu")
    truth = labels((2000, 200, 200))
    inputs = [features(layer, truth) for layer in range(4)]
    encode = partial(extract, backbone, sentences(number), layers=range(7), views=["mean"], batch_size=BATCH)
    probe = partial(fit, inputs, [truth], CLASSES, JAWAHAR, range(5))

    def one_after_another() -> None:
        encode()
        probe()

    def at_a_time() -> None:
        beside = Thread(target=probe)
        beside.start()
        encode()
        beside.join()

    asked = figures.clock()
    figures.use("wall")  # processor time is the same for both
    try:
        seconds = in_turns(repeats, one_after_another=one_after_another, at_a_time=at_a_time)
    finally:
        figures.use(asked)
    return ratios(seconds["one_after_another"], seconds["at_a_time"])
