"""How time grows with rows, layers, seeds, classes, texts, tasks and models: k of time ~ size^k. 1 is linear; less,
where a fixed cost or stacking helps. It is fitted to all sizes by least squares on logarithms, and taken from the two
largest alone; the larger of both is judged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.extraction import sentences
from benchmarks.figures import Row, exponent, least
from benchmarks.recipes import JAWAHAR
from benchmarks.study import PROBING, go
from benchmarks.study import groups as real_groups
from clipstudy import backbones, run
from clipstudy.features.cache import Store
from clipstudy.features.extract import Text, extract
from clipstudy.job import Group
from clipstudy.probes.inputs import Inputs, Labels
from clipstudy.probes.mlp import fit
from clipstudy.spec import ModelSpec

WIDTH = 64
#: A little more than linear is left to caches that are too small for the large sizes.
MOST = 1.15


def rows(quick: bool) -> Iterator[Row]:
    few = (1000, 3000, 10_000) if quick else (1000, 10_000, 100_000)
    yield grown("rows of a probe", few, lambda n: probes(rows=n))
    yield grown("layers of a probe", (2, 4, 8, 16), lambda n: probes(layers=n))
    yield grown("seeds of a probe", (2, 4, 8, 16), lambda n: probes(seeds=n))
    yield grown("classes of a probe", (10, 100, 1000), lambda n: probes(classes=n))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        spec = tiny(home / "model")
        backbone = backbones.load(spec, "cpu")
        # Distinct texts: a number at the end keeps those apart that begin alike, of one width for all, since words are
        # spelled letter by letter.
        real = sentences(1000)
        texts = [Text((*real[i % len(real)].words[:4], f"{i:06}")) for i in range(max(few))]
        yield grown(
            "texts encoded",
            few,
            lambda n: partial(extract, backbone, texts[:n], layers=range(3), views=("mean",), batch_size=32),
            repeats=2,
        )
        for axis in ("tasks", "models"):
            yield grown(f"{axis} of a study", (1, 2, 4), lambda n, axis=axis: study(home, **{axis: n}))


def grown(what: str, sizes: Sequence[int], of: Callable[[int], Callable[[], Any]], repeats: int = 5) -> Row:
    """How the time of ``of(size)`` grows; what it takes to make that is not counted. Of all sizes, and of the two
    largest alone, as fixed costs hide there the least: the larger power of the two is judged."""
    of(sizes[0])()
    seconds = [least(of(size), repeats) for size in sizes]
    fitted, last = exponent(sizes, seconds), exponent(sizes[-2:], seconds[-2:])
    each = ", ".join(f"{size:,}: {took:.2g} s" for size, took in zip(sizes, seconds, strict=True))
    return Row(
        f"growth with {what}",
        [max(fitted, last)],
        unit="(power)",
        most=MOST,
        said=f"the larger of {fitted:.2f}, fitted to all, and {last:.2f} from {sizes[-2]:,} to {sizes[-1]:,}; {each}",
    )


def probes(rows: int = 2000, layers: int = 2, seeds: int = 2, classes: int = 4) -> Callable[[], Any]:
    """One evaluation period of SentEval's probe on noise."""
    rng = np.random.default_rng(0)
    sizes = (rows, 200, 200)
    inputs = [Inputs(*(rng.standard_normal((n, WIDTH), np.float32) for n in sizes)) for _ in range(layers)]
    labels = Labels(*(rng.integers(0, classes, n) for n in sizes))
    return partial(fit, inputs, [labels], classes, JAWAHAR, range(seeds))


def tiny(folder: Path) -> ModelSpec:
    """A BERT of two layers with random weights that knows the letters, written to ``folder``."""
    from transformers import BertConfig, BertModel, BertTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}).save_pretrained(folder)
    return ModelSpec("tiny", "transformers", str(folder), 2)


def small(home: Path, models: int, tasks: int, limit: int) -> list[Group]:
    """A study of tiny models on so many of the probing tasks that are of one size."""
    folder = home / "model"
    spec = ModelSpec("tiny", "transformers", str(folder), 2) if folder.exists() else tiny(folder)
    given = {"max_epoch": 8, "draws": 10}
    return [
        replace(group, model=twin, task=replace(group.task, options=given))
        for twin in (replace(spec, name=f"tiny-{i}", init="random", init_seed=i) for i in range(models))
        for group in real_groups(spec, limit)
        if group.task.name in PROBING[1 : 1 + tasks]
    ]


def study(home: Path, models: int = 1, tasks: int = 1) -> Callable[[], None]:
    """All of a study but its plan, models loaded anew, nothing in the store."""
    groups = small(home, models, tasks, 300)

    def call() -> None:
        shelf = run.Shelf("cpu")
        with tempfile.TemporaryDirectory() as folder:
            for group in groups:
                go(group, shelf, Store(Path(folder)))

    return call
