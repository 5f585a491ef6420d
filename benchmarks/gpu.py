"""Extraction and probes on a GPU, against its own matrix products and against one after another.

    python -m benchmarks --only gpu

Where torch sees no CUDA device there are no rows, and it says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.extraction import VIEWS, Listener, bert, encode, into_store, sentences
from benchmarks.figures import Row, flops, in_turns, ratios
from benchmarks.probes import CLASSES, features, labels
from benchmarks.recipes import JAWAHAR
from clipstudy import backbones
from clipstudy.features.extract import Text, extract
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
            share_of_encoder(models["float32"], texts, repeats),
            unit="",
            least=0.9,
            said="its passes alone over the same batches, the GPU's pauses between two kernels included / all of an "
            "extraction: tokenizing, pooling and the store are the rest",
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


def share_of_encoder(backbone: Any, texts: Sequence[Text], repeats: int) -> list[float]:
    """Time of the encoder's passes alone over that of a whole extraction into a store, turn by turn."""
    layers = range(backbone.depth + 1)
    heard: Any = Listener(backbone)
    extract(heard, texts, layers=layers, views=VIEWS, batch_size=BATCH)
    with tempfile.TemporaryDirectory() as folder:
        seconds = in_turns(
            repeats,
            whole=finished(into_store(backbone, texts, BATCH, Path(folder))),
            alone=finished(partial(encode, heard.readers, heard.batches, layers)),
        )
    return ratios(seconds["alone"], seconds["whole"])
