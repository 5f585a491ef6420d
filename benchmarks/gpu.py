"""Extraction and probes on a GPU, against its own matrix products and against one after another.

    python -m benchmarks --only gpu

Where torch sees no CUDA device there are no rows, and it says so.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.extraction import VIEWS, bert, sentences
from benchmarks.figures import Row, flops, in_turns, ratios
from benchmarks.probes import CLASSES, features, labels
from benchmarks.recipes import JAWAHAR
from clipstudy import backbones
from clipstudy.features.cache import Store
from clipstudy.features.extract import extract
from clipstudy.probes.mlp import fit

BATCH = 128


def rows(quick: bool) -> Iterator[Row]:
    if not torch.cuda.is_available():
        print("  torch sees no CUDA device: nothing is measured here")
        return
    repeats = 3 if quick else 5
    texts = sentences(2000 if quick else 8000)
    with tempfile.TemporaryDirectory() as folder:
        spec = replace(bert(Path(folder)), batch_size=BATCH)
        models = {dtype: backbones.load(replace(spec, dtype=dtype), "cuda:0") for dtype in ("float32", "bfloat16")}

        def of(dtype: str, layers: Any = range(13)) -> Callable[[], Any]:
            return finished(partial(extract, models[dtype], texts, layers=layers, views=VIEWS, batch_size=BATCH))

        seconds = in_turns(
            repeats, every=of("float32"), last=of("float32", [12]), half=of("bfloat16"), product=finished(products)
        )
        rate = 2 * SIDE**3 * PRODUCTS
        count = flops(of("float32"))
        said = f"BERT-base, {len(texts):,} sentences, batches of {BATCH}, {torch.cuda.get_device_name()}"
        yield Row("all layers / the last one", ratios(seconds["every"], seconds["last"]), most=1.05, said=said)
        yield Row(
            "extraction / matrix product",
            ratios(seconds["product"], seconds["every"], count / rate),
            unit="",
            said=f"{said}; multiplications a second, float32 for both",
        )
        yield Row("float32 / bfloat16", ratios(seconds["every"], seconds["half"]), said=said)
        yield Row(
            "share of extraction that the encoder is at work",
            [busy(models["float32"], texts) for _ in range(repeats)],
            unit="",
            least=0.9,
            said="by the GPU's own clock; tokenizing and the store are the rest",
        )
    truth = labels((2000, 200, 200))
    inputs = [features(layer, truth) for layer in range(13)]
    stacked = partial(fit, inputs, [truth], CLASSES, JAWAHAR, range(5), device="cuda:0")
    alone = partial(fit, inputs[6:7], [truth], CLASSES, JAWAHAR, [0], device="cuda:0")
    seconds = in_turns(repeats, stacked=finished(stacked), alone=finished(alone))
    yield Row(
        "probes: one at a time / stacked",
        ratios(seconds["alone"], seconds["stacked"], len(inputs) * 5),
        least=3,
        said=f"{len(inputs)} layers × 5 seeds, {len(truth.train):,} rows; one probe times {len(inputs) * 5}",
    )


SIDE, PRODUCTS = 4096, 20


def products() -> None:
    a, b = torch.randn(2, SIDE, SIDE, device="cuda:0").unbind()
    for _ in range(PRODUCTS):
        torch.mm(a, b)


def finished(call: Callable[[], Any]) -> Callable[[], Any]:
    """``call``, and what it asked of the GPU is done."""

    def whole() -> None:
        call()
        torch.cuda.synchronize()

    return whole


def busy(backbone: Any, texts: Any) -> float:
    """Share of the wall clock in which the GPU encodes."""
    events: list[tuple[Any, Any]] = []
    states = backbone.states

    def timed(*given: Any) -> Any:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        found = states(*given)
        end.record()
        events.append((begin, end))
        return found

    backbone.states = timed
    try:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            extract(backbone, texts, layers=range(13), views=VIEWS, batch_size=BATCH, store=Store(Path(folder)))
            whole = time.perf_counter() - began
    finally:
        del backbone.states
    torch.cuda.synchronize()
    return float(np.sum([begin.elapsed_time(end) for begin, end in events])) / 1000 / whole
