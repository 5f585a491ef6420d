"""Made-up results with the shape of a real study: what a report must be able to show."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clipstudy.outcome import Estimate, Result


class Model(NamedTuple):
    family: str
    title: str
    twin_of: str = ""
    blocks: int = 12
    inits: int = 1


class Task(NamedTuple):
    name: str
    title: str
    category: str
    metric: str = "accuracy"
    chance: float = 0.5


BERT = Model("bert", "BERT")
MODELS = (
    BERT,
    Model("gpt2", "GPT-2"),
    Model("clip-text", "CLIP text"),
    Model("bert-untrained", "BERT, untrained", "bert", inits=3),
    Model("gpt2-untrained", "GPT-2, untrained", "gpt2", inits=3),
    Model("clip-text-untrained", "CLIP text, untrained", "clip-text", inits=3),
)
SHIFT = Task("bigram_shift", "Bigram shift", "syntactic")
TASKS = (
    Task("phrases", "Phrase clusters", "phrase", "nmi", 0.2),
    Task("sentence_length", "Sentence length", "surface", chance=0.2),
    Task("word_content", "Word content", "surface", chance=0.01),
    Task("tree_depth", "Tree depth", "syntactic", chance=0.18),
    Task("top_constituents", "Top constituents", "syntactic", chance=0.05),
    SHIFT,
    Task("past_present", "Tense", "semantic"),
    Task("subj_number", "Subject number", "semantic"),
    Task("odd_man_out", "Odd man out", "semantic"),
    Task("coordination_inversion", "Coordination inversion", "semantic"),
)


def result(
    model: Model = BERT,
    task: Task = SHIFT,
    layer: int = 0,
    metrics: Mapping[str, Estimate] | None = None,
    init: int = 0,
    **tags: Any,
) -> Result:
    """One cell; ``tags`` replace or add."""
    known = {
        "study": "paper",
        "digest": "d1",
        "model_title": model.title,
        "family": model.family,
        "init": "random" if model.twin_of else "pretrained",
        "init_seed": str(init),
        "blocks": str(model.blocks),
        "modality": "text",
        "task_title": task.title,
        "category": task.category,
        "metric": task.metric,
        "dataset": "conll2000" if task.metric == "nmi" else "senteval",
        "layers": ",".join(str(k) for k in range(model.blocks + 1)),
        "layer_label": f"block {layer}" if layer else "embedding",
        "depth": f"{layer / model.blocks:.3f}",
        "ended": "2026-11-24T12:00:00+00:00",
        "attempt": "1",
    } | ({"twin_of": model.twin_of} if model.twin_of else {})
    params = {
        "model.checkpoint": f"org/{model.twin_of or model.family}",
        "resolved.checkpoint": "0123abcd" * 5,
        "resolved.data": "f" * 64,
    }
    name = f"{model.family}-{init}" if model.twin_of else model.family
    study = str(tags.get("study", "paper"))
    found = metrics if metrics is not None else {task.metric: Estimate(0.75, 0.7, 0.8)}
    return Result(f"{name}-{task.name}-{layer}", study, name, task.name, layer, found, params, known | tags)


def results(models: Sequence[Model] = MODELS, tasks: Sequence[Task] = TASKS, seed: int = 0) -> list[Result]:
    """Every cell of models × tasks, a smooth curve over the layers with some noise."""
    rng = random.Random(seed)
    found = []
    for model in models:
        for task in tasks:
            peak = rng.random()
            best = task.chance + (0.95 - task.chance) * rng.uniform(0.4, 1) * (0.45 if model.twin_of else 1)
            for init in range(model.inits):
                for layer in range(model.blocks + 1):
                    bump = math.exp(-(((layer / model.blocks - peak) ** 2) * 3))
                    value = task.chance + (best - task.chance) * bump + rng.gauss(0, 0.005)
                    # An untrained CLIP does not learn word order at all in its first layers.
                    stuck = (model.family, task.name) == ("clip-text-untrained", "bigram_shift") and layer < 4
                    found.append(result(model, task, layer, _metrics(task, value, stuck), init))
    return found


def _metrics(task: Task, value: float, stuck: bool) -> dict[str, Estimate]:
    half = 1.3 * 1.96 * math.sqrt(max(value * (1 - value), 0.01) / 10_000)
    headline = Estimate(task.chance, task.chance, task.chance) if stuck else Estimate(value, value - half, value + half)
    counts = {"items/train": Estimate(99_998), "items/test": Estimate(10_002)}
    if task.metric == "nmi":
        return counts | {
            "nmi": headline,
            "ami": Estimate(value * 0.95),
            "baseline/random": Estimate(0.01),
            "baseline/span_length": Estimate(0.16),
        }
    return counts | {
        "accuracy": headline,
        "dev_accuracy": Estimate(headline.value),
        "native/accuracy": Estimate(value * 0.9, value * 0.85, value * 0.95),
        "baseline/majority": Estimate(task.chance),
        "one_class": Estimate(0.4 if stuck else 0.0),
    }
