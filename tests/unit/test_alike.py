"""Models that were measured with other settings are told apart wherever they would be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clipstudy.outcome import Estimate, Result
from clipstudy.results import alike, boards, evidence, sheets
from clipstudy.results.pooling import average
from clipstudy.results.views import View
from clipstudy.tasks.parts import files
from tests.made_up import BERT, MODELS, SHIFT, Model, Task, result

GPT2 = MODELS[1]
DEPTH = Task("tree_depth", "Tree depth", "syntactic")
LOOKED = Task("looked", "Looked", "image")


def run(model: Model = BERT, task: Task = SHIFT, layer: int = 1, init: int = 0, **params: str) -> Result:
    made = result(
        model, task, layer, {"accuracy": Estimate(0.75, 0.74, 0.76)}, init, digest=repr(sorted(params.items()))
    )
    settings = {"option.hidden": "50", "task.method": "2", "task.seeds": "[0, 1]", "dataset.path": "./a", **params}
    return replace(made, params=made.params | {key.replace("__", "."): value for key, value in settings.items()})


def drawn(rows: list[Result], task: Task = SHIFT) -> View:
    found = boards.view(boards.board(rows), task.name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"option.hidden": "200"}, "hidden is 200 (BERT), 50 (GPT-2)"),
        ({"task.method": "3"}, "the method's version is 2 (GPT-2), 3 (BERT)"),
        ({"dataset.limit": "100"}, ""),
        ({"option.views": '["mean", "native", "cls", "last", "eot", "gap"]'}, ""),
        ({"resolved.data": "a" * 64}, "data differs (BERT; GPT-2)"),
        ({"task.seeds": "[0]"}, ""),
        ({"dataset.path": "/elsewhere"}, ""),
        ({"model.dtype": "bfloat16"}, ""),
        ({}, ""),
    ],
)
def test_what_is_asked_of_a_task_and_not_where_its_data_lie(changed: dict[str, str], told: str) -> None:
    """A setting that one of the two does not know is not held against either."""
    assert drawn([run(**changed), run(GPT2)]).mixed == told


def test_initialisations_of_one_twin_are_of_one_model() -> None:
    twin = MODELS[3]
    rows = [run(twin, init=0, **{"model.dtype": "bfloat16"}), run(twin, init=1, **{"model.dtype": "float32"})]
    assert drawn(rows).mixed == "dtype is bfloat16 (BERT, untrained), float32 (BERT, untrained)"
    seeds = [run(twin, init=i, **{"model.init_seed": str(i)}) for i in (0, 1)]
    assert drawn(seeds).mixed == ""


def test_no_page_compares_them() -> None:
    rows = [run(**{"option.hidden": "200"}), run(GPT2), run(task=DEPTH), run(GPT2, DEPTH)]
    board = boards.board(rows)
    (note,) = [note for note in board.notes if "alike" in note]
    assert note.startswith("bigram_shift: not measured alike: hidden is 200 (BERT), 50 (GPT-2).")
    assert note.endswith("type: clipstudy enqueue --task bigram_shift; clipstudy worker --drain")
    views = [drawn(rows), drawn(rows, DEPTH)]
    assert "Not measured alike, so not to be compared: hidden is" in views[0].caption and not views[1].caption
    best = sheets.best(views)
    assert [(name, [entry.bold for entry in entries]) for name, entries in best.lines] == [
        ("Bigram shift, accuracy (%) ‡", [False, False]),
        ("Tree depth, accuracy (%)", [True, True]),
    ]
    assert "‡: its models were not measured alike" in best.said
    apart = sheets.differences(views, "bert", "gpt2")
    assert [entries[2].text for _, entries in apart.lines] == ["not measured alike", "not paired"]
    assert [entry.value for entry in apart.lines[0][1][:2]] == [None, None], "no difference is drawn from them"
    mean, notes = average([*views, replace(views[1], title="again")], "All")
    assert mean is not None and "Bigram shift: not measured alike, not in the average" in notes


def test_studies_may_ask_for_different_things() -> None:
    other = run(GPT2, **{"option.hidden": "200"})
    rows = [run(), replace(other, study="mine", tags=other.tags | {"study": "mine"})]
    assert drawn(rows).mixed == "" and not boards.board(rows).notes[2:]


def test_no_claim_is_judged_on_them() -> None:
    def kept(model: str, role: str, **params: str) -> list[Result]:
        tags = {"role": role, "kind": "reconstruct", "layers": "1,2,3,4", "blocks": "4", "digest": str(params)}
        found = {"mse": Estimate(0.1)}
        made = [result(Model(model, model), LOOKED, k, found, **tags) for k in (1, 2, 3, 4)]
        settings = {"option.split": "test", "resolved.data": "sha256:1", "option.steps": "100", **params}
        return [replace(r, run_id=f"{model} {r.layer}", params=settings) for r in made]

    def judged(*found: list[Result]) -> dict[str, str]:
        content = files.parquet({"mse/seed_0": [0.1] * 20, "mse/seed_1": [0.2] * 20})
        rows = [row for some in found for row in some]
        (judgements,) = evidence.judged(rows, lambda run_id, name: content).values()
        return {one.claim.number: one.why for one in judgements if one.models and "alike" in one.why}

    clip, vit = kept("clip", "clip_rn50"), kept("vit", "vit_small")
    assert judged(clip, vit, kept("rn50", "rn50")) == {}
    told = judged(clip, vit, kept("rn50", "rn50", **{"option.steps": "200"}))
    assert told and all("looked was not measured alike: " in why for why in told.values())
    assert all("steps = 100" in why and "steps = 200" in why for why in told.values())
    assert all(why.endswith("clipstudy enqueue --task looked; clipstudy worker --drain") for why in told.values())


def test_what_is_not_known_is_no_difference() -> None:
    assert alike.unlike([]) == {} and alike.said({}) == ""
