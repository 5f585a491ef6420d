"""The text study against the plain loop over its layers, and its second run against its first.

CoNLL-2000 and six probing tasks on real rows: MiniLM with its own weights, and BERT-base's shape with random ones. The
plain loop (:mod:`benchmarks.plain`) has the same rows, options, grid and early stopping; it is timed on the middle
layer of each task, what encodes and what comes after apart, and multiplied by the layers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import plain
from benchmarks.extraction import BATCH, MINILM, bert
from benchmarks.figures import Row, measured, ratios, real_rows
from clipstudy import run, tasks
from clipstudy.features.cache import Store
from clipstudy.job import Group
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tasks.task import Bench, options

SEEDS = (0, 1, 2)
PROBING = ("sentence_length", "tree_depth", "bigram_shift", "subj_number", "obj_number", "word_content")
#: Classes of word_content: as many rows a split at least, or no split would know the others' labels.
CLASSES = 1000
#: Its arms: the headline alone, as the study on real rows has it.
WORDS = {"probes": ["linear"], "views": ["mean"], "control": False}
SPANS = {"labelled": 1000, "outside": 150, "fit": 1000, "samples": 2}


def rows(quick: bool) -> Iterator[Row]:
    yield from whole(MINILM, "MiniLM", groups(MINILM, 100 if quick else 600), 1 if quick else 5, least=5)
    with tempfile.TemporaryDirectory() as folder:
        # 2,000 rows a task, in three splits. Three tasks, one a repeat: a round of all takes half an hour.
        large = bert(Path(folder))
        some = groups(large, 40 if quick else 667)
        yield from by_task(large, "BERT-base, random weights", some[1:2] if quick else some[:3], least=12)
    yield again(groups(MINILM, 200 if quick else 600)[2], 2 if quick else 5)


def groups(model: ModelSpec, limit: int) -> list[Group]:
    """The study's (model, task) pairs, of each data set ``limit`` rows a split."""
    real = real_rows()
    phrases = Group(
        "bench",
        model,
        DatasetSpec("conll2000", "conll2000", path=str(real / "conll2000")),
        TaskSpec("phrases", "phrase_clusters", "conll2000", "nmi", seeds=SEEDS, options=SPANS),
    )
    return [phrases, *(_probing(model, name, limit, real) for name in PROBING)]


def _probing(model: ModelSpec, name: str, limit: int, real: Path) -> Group:
    path = str(real / "xprobe" / f"{name}.txt")
    words = name == "word_content"
    rows = max(limit, CLASSES) if words else limit
    data = DatasetSpec(name, "senteval", path=path, limit=rows, unseen_labels="drop")
    given = WORDS if words else {}
    return Group("bench", model, data, TaskSpec(name, "classify", name, "accuracy", seeds=SEEDS, options=given))


def whole(model: ModelSpec, name: str, study: Sequence[Group], repeats: int, least: float) -> Iterator[Row]:
    """The plain loop's time for the whole study over ours; each round of tasks is a repeat."""
    found = [timed(group, repeats) for group in study]
    seconds = {side: [sum(turn) for turn in zip(*(task[side] for task in found), strict=True)] for side in found[0]}
    numbers = f"{len(study)} tasks, {model.layers + 1} layers, {len(SEEDS)} seeds"
    said = f"{numbers}; clipstudy took {seconds['ours'][0]:.0f} s"
    return against_plain(name, model.layers + 1, seconds, least, said)


def by_task(model: ModelSpec, name: str, study: Sequence[Group], least: float) -> Iterator[Row]:
    found = [timed(group, 1) for group in study]
    seconds = {side: [took for task in found for took in task[side]] for side in found[0]}
    names = ", ".join(group.task.name for group in study)
    said = f"a repeat is a task ({names}); {model.layers + 1} layers, {len(SEEDS)} seeds"
    return against_plain(name, model.layers + 1, seconds, least, said)


def against_plain(
    name: str, layers: int, seconds: Mapping[str, Sequence[float]], least: float, said: str
) -> Iterator[Row]:
    """The plain loop over clipstudy; and the loop of somebody who keeps the hidden states of all layers.

    Args:
        seconds: as :func:`timed` gives them, of each repeat.
    """
    turns = list(zip(seconds["encoded"], seconds["probed"], strict=True))
    afresh = [layers * (encoded + probed) for encoded, probed in turns]
    once = [encoded + layers * probed for encoded, probed in turns]
    yield Row(f"text study: plain loop / clipstudy ({name})", ratios(afresh, seconds["ours"]), least=least, said=said)
    yield Row(
        f"text study: plain loop that keeps all hidden states / clipstudy ({name})",
        ratios(once, seconds["ours"]),
        said="from the timings of the row above: reading, loading and encoding counted once a task, probes and "
        f"clusters {layers} times; pooling the other layers is not counted",
    )


def timed(group: Group, repeats: int) -> dict[str, list[float]]:
    """Seconds of one task in each repeat: ``ours`` with all layers, from loading the model on; of its middle layer by
    the plain loop ``encoded``, up to its vectors, and ``probed``, what is then made of them."""
    kept: dict[str, tuple[Any, plain.Encoded]] = {}

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            go(group, run.Shelf("cpu"), Store(Path(folder)))

    def encoded() -> None:
        kept["middle"] = plain_vectors(group, group.model.layers // 2)

    def probed() -> None:
        plain_results(group, *kept["middle"])

    return measured(repeats, ours=ours, encoded=encoded, probed=probed)


def go(group: Group, shelf: run.Shelf, store: Store | None) -> list[Any]:
    return list(run.run(group, range(group.model.layers + 1), shelf=shelf, store=store, bench=Bench()))


def plain_layer(group: Group, layer: int) -> Any:
    """One layer of a task by the plain loop, from loading the model on."""
    return plain_results(group, *plain_vectors(group, layer))


def plain_vectors(group: Group, layer: int) -> tuple[Any, plain.Encoded]:
    """The task's rows, and their vectors at one layer of a model that is loaded for them."""
    kind = tasks.load(group.task.kind)
    data = kind.read(group.dataset, options(kind, group.task.options))
    reader = plain.Reader(group.model)
    return data, reader.encode([text.words for text in data.texts], layer, BATCH)


def plain_results(group: Group, data: Any, vectors: plain.Encoded) -> Any:
    """What the task's kind makes of one layer: accuracies, or clusters."""
    asked = options(tasks.load(group.task.kind), group.task.options)
    if group.task.kind == "classify":
        return plain.layer_of_classify(vectors, data, group.task.seeds, asked)
    return list(plain.layer_of_phrases(vectors, data, group.task.seeds, asked))


def again(group: Group, repeats: int) -> Row:
    """A study once, and once more with another probe: its features are in the store by then."""
    shelf = run.Shelf("cpu")
    shelf.take(group.model)
    other = replace(group, task=replace(group.task, options={**group.task.options, "hidden": 40}))
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            first = measured(1, go=partial(go, group, shelf, store))["go"]
            second = measured(1, go=partial(go, other, shelf, store))["go"]
            found += ratios(first, second)
    return Row(
        "first run / a run with other probe options",
        found,
        least=1.2,
        said=f"{group.task.name}, MiniLM; what is left is the probes",
    )
