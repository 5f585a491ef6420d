"""The text study against the plain loop over its layers, and its second run against its first.

CoNLL-2000 and six probing tasks on real rows: MiniLM with its own weights, and BERT-base's shape with random ones. The
plain loop (:mod:`benchmarks.plain`) has the same rows, options, grid and early stopping; it is timed on the middle
layer of each task and multiplied by the layers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
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
    yield whole(MINILM, "MiniLM", groups(MINILM, 200 if quick else 600), 1 if quick else 5, least=5)
    with tempfile.TemporaryDirectory() as folder:
        # 2,000 rows a task, in three splits. Three tasks, one a repeat: a round of all takes half an hour.
        large = bert(Path(folder))
        some = groups(large, 60 if quick else 667)
        yield by_task(large, "BERT-base, random weights", some[1:2] if quick else some[:3], least=12)
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


def whole(model: ModelSpec, name: str, study: Sequence[Group], repeats: int, least: float) -> Row:
    """The plain loop's time for the whole study over ours; each round of tasks is a repeat."""
    sides = [sides_of(model, group) for group in study]
    ours, theirs = ([0.0] * repeats for _ in range(2))
    for ran, looped in sides:
        seconds = measured(repeats, ours=ran, plain=looped)
        ours = [a + b for a, b in zip(ours, seconds["ours"], strict=True)]
        theirs = [a + b for a, b in zip(theirs, seconds["plain"], strict=True)]
    return Row(
        f"text study: plain loop / clipstudy ({name})",
        ratios(theirs, ours, model.layers + 1),
        least=least,
        said=f"{len(study)} tasks, {model.layers + 1} layers, {len(SEEDS)} seeds; clipstudy took {ours[0]:.0f} s",
    )


def by_task(model: ModelSpec, name: str, study: Sequence[Group], least: float) -> Row:
    found = []
    for group in study:
        ran, looped = sides_of(model, group)
        seconds = measured(1, ours=ran, plain=looped)
        found += ratios(seconds["plain"], seconds["ours"], model.layers + 1)
    names = ", ".join(group.task.name for group in study)
    return Row(
        f"text study: plain loop / clipstudy ({name})",
        found,
        least=least,
        said=f"a repeat is a task ({names}); {model.layers + 1} layers, {len(SEEDS)} seeds",
    )


def sides_of(model: ModelSpec, group: Group) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """One task with all layers by clipstudy, from loading the model on; and its middle layer by the plain loop."""

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            go(group, run.Shelf("cpu"), Store(Path(folder)))

    return ours, partial(plain_layer, group, model.layers // 2)


def go(group: Group, shelf: run.Shelf, store: Store | None) -> list[Any]:
    return list(run.run(group, range(group.model.layers + 1), shelf=shelf, store=store, bench=Bench()))


def plain_layer(group: Group, layer: int) -> Any:
    """One layer of a task by the plain loop, from loading the model on."""
    kind = tasks.load(group.task.kind)
    asked = options(kind, group.task.options)
    data = kind.read(group.dataset, asked)
    reader = plain.Reader(group.model)
    if group.task.kind == "classify":
        return plain.layer_of_classify(reader, data, layer, group.task.seeds, asked, BATCH)
    return list(plain.layer_of_phrases(reader, data, layer, group.task.seeds, asked, BATCH))


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
