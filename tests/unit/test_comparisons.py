"""Levels beside what is measured: what the classes' names alone reach, and what a pair's first text alone does."""

from __future__ import annotations

from dataclasses import replace

from clipstudy.outcome import Estimate, Result
from clipstudy.results import comparisons, sheets, writers
from clipstudy.results.boards import board, view
from clipstudy.results.views import Level, View
from clipstudy.spec import WHOLE_MODEL
from tests.made_up import BERT, Model, Task, result

CLIP, TWIN = Model("clip", "CLIP"), Model("clip-untrained", "CLIP, untrained", "clip", inits=2)
PROBED, NAMED = Task("cifar", "CIFAR-100", "images"), Task("cifar-zero", "CIFAR-100, zero-shot", "images")
OTHER = Task("shapes", "Shapes", "images")


def zero_shot(model: Model, value: float, dataset: str = "cifar", init: int = 0) -> Result:
    found = {"accuracy": Estimate(value, value - 0.02, value + 0.02)}
    return result(model, NAMED, WHOLE_MODEL, found, init, kind="zero_shot", dataset=dataset, layers="-1", depth="")


def probed(model: Model, task: Task = PROBED, dataset: str = "cifar") -> list[Result]:
    return [result(model, task, k, dataset=dataset, modality="image", layers="0,1") for k in (0, 1)]


FOUND = [
    *probed(CLIP), *probed(BERT), *probed(TWIN), *probed(CLIP, OTHER, "shapes"),
    zero_shot(CLIP, 0.5), zero_shot(TWIN, 0.1), zero_shot(TWIN, 0.2, init=1),
]  # fmt: skip


def levelled(task: Task, metric: str | None = None) -> View:
    shown = board(FOUND)
    found = view(shown, task.name, metric)
    assert found
    return comparisons.levelled(found, shown)


def test_each_models_own_on_the_same_data() -> None:
    levels = {level.family: level for level in levelled(PROBED).levels}
    assert levels["clip"] == Level("clip", "zero-shot", Estimate(0.5, 0.48, 0.52), "paper")
    assert levels["clip-untrained"].estimate.value == 0.15000000000000002, "initialisations are pooled"
    assert set(levels) == {"clip", "clip-untrained"}, "a model without a second tower has none"


def test_none_on_other_data_beside_itself_or_beside_what_is_no_accuracy() -> None:
    assert levelled(OTHER).levels == () == levelled(NAMED).levels
    shown = board([*probed(CLIP), zero_shot(CLIP, 0.5)])
    found = view(shown, PROBED.name)
    assert found and comparisons.levelled(View(**{**vars(found), "metric": "selectivity"}), shown).levels == ()


def test_the_table_holds_the_line() -> None:
    shown = sheets.only(levelled(PROBED), ["clip", "bert"])
    head, body = writers.grid(shown)
    assert dict(zip(head, next(row for name, row in body if name == "zero-shot"), strict=True)) == {
        "BERT": ("—", False),
        "CLIP": ("50.0 ± 2.0", False),
    }


def test_no_line_of_a_model_that_is_not_shown() -> None:
    alone = sheets.only(levelled(PROBED), ["bert"])
    assert alone.levels == () and "zero-shot" not in dict(writers.grid(alone)[1])


def paired(layer: int, value: float, alone: float, init: int = 0) -> Result:
    found = {"accuracy": Estimate(value, value, value), "question_only/accuracy": Estimate(alone, alone, alone)}
    return result(BERT, BOOLQ, layer, found, init, layers="0,1")


BOOLQ = Task("boolq", "BoolQ", "pairs")


def test_the_first_text_alone_at_the_models_best_layer() -> None:
    shown = board([paired(0, 0.6, 0.75), paired(1, 0.7, 0.65)])
    found = view(shown, BOOLQ.name)
    assert found
    alone_there = Level("bert", "first text alone", Estimate(0.65, 0.65, 0.65), "paper")
    assert comparisons.levelled(found, shown).levels == (alone_there,)
    alone = view(shown, BOOLQ.name, "question_only/accuracy")
    assert alone and comparisons.levelled(alone, shown).levels == ()


def test_the_first_text_alone_beside_a_whole_model() -> None:
    shown = board([paired(WHOLE_MODEL, 0.7, 0.6)])
    found = view(shown, BOOLQ.name)
    assert found
    _, body = writers.grid(comparisons.levelled(found, shown))
    assert [name for name, _ in body][:2] == ["whole model", "first text alone"]


def test_models_of_one_name_in_two_studies_have_a_level_each() -> None:
    """Without --study, `results` has one table of both: in each column stands its own study's number."""
    both = [replace(paired(1, 0.7, alone), study=study) for study, alone in (("paper", 0.65), ("pocket", 0.55))]
    shown = board(both)
    found = view(shown, BOOLQ.name)
    assert found
    head, body = writers.grid(comparisons.levelled(found, shown))
    assert head == ["paper: BERT", "pocket: BERT"]
    assert [text for text, _ in dict(body)["first text alone"]] == ["65.0 ± 0.0", "55.0 ± 0.0"]
