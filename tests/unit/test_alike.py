"""Models that were measured with other settings are told apart wherever they would be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clipstudy.outcome import Estimate, Result
from clipstudy.results import alike, boards, evidence, sheets, writers
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
        ({"dataset.limit": "100"}, "limit is 100 (BERT), not set (GPT-2)"),
        ({"option.width": "64"}, "width is 64 (BERT), not set (GPT-2)"),
        ({"option.views": '["mean", "native", "cls", "last", "eot", "gap"]'}, "views differs (BERT; GPT-2)"),
        ({"option.draws": "5000"}, ""),
        ({"task.kind": "finetune"}, "kind is finetune (BERT), not set (GPT-2)"),
        ({"resolved.reference": "sha256:1"}, ""),
        ({"resolved.data": "a" * 64}, "data differs (BERT; GPT-2)"),
        ({"task.seeds": "[0]"}, ""),
        ({"dataset.path": "/elsewhere"}, ""),
        ({"model.dtype": "bfloat16"}, ""),
        ({}, ""),
    ],
)
def test_what_is_asked_of_a_task_and_not_where_its_data_lie(changed: dict[str, str], told: str) -> None:
    """A key that is not recorded is at its default; but what only the computing process knows may be unknown."""
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
    assert note.endswith("type: clipstudy enqueue --task bigram_shift --model bert; clipstudy worker --drain")
    views = [drawn(rows), drawn(rows, DEPTH)]
    told = "ot measured alike, so not to be compared: hidden is 200 (BERT), 50 (GPT-2)"
    assert told in writers.caption(views[0]) and "alike" not in writers.caption(views[1])
    for take in (writers.to_markdown, writers.to_latex, lambda view: sheets.by_layer(view).said):
        assert told in take(views[0]) and "alike" not in take(views[1])
    assert {row.mixed for row in writers.rows(views[0])} == {"hidden is 200 (BERT), 50 (GPT-2)"}
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
    again = "clipstudy enqueue --task looked --model clip --model vit; clipstudy worker --drain"
    assert all(why.endswith(again) for why in told.values())


def test_of_a_choice_of_models_only_these_count() -> None:
    rows = [run(**{"option.hidden": "200"}), run(GPT2), run(MODELS[2])]
    whole = drawn(rows)
    assert whole.mixed and not sheets.only(whole, ["gpt2", "clip-text"]).mixed
    assert sheets.only(whole, ["gpt2", "bert"]).mixed == "hidden is 200 (BERT), 50 (GPT-2)"
    unlike_clip = [run(), run(GPT2), run(MODELS[2], **{"option.hidden": "200"})]
    alike_ones = [drawn([run(task=task), run(GPT2, task)], task) for task in (SHIFT, DEPTH)]
    mean, notes = average([*alike_ones, drawn(unlike_clip)], "All")
    assert mean is not None and [curve.family for curve in mean.curves] == ["bert", "gpt2"], notes


def test_an_untrained_twin_is_of_its_model_as_it_is_now() -> None:
    twin = MODELS[3]
    rows = [run(**{"model.bos": "true"}), run(twin)]
    assert drawn(rows).mixed == "bos is not set (BERT, untrained), true (BERT)"
    rows = [run(**{"model.init": "pretrained", "model.pretrained": "x"}), run(twin, **{"model.init": "random"})]
    assert drawn(rows).mixed == ""


def test_who_is_behind_is_who_has_not_the_newest_settings() -> None:
    def ended(day: int, made: Result) -> Result:
        return replace(made, tags=made.tags | {"ended": f"2026-11-{day:02}T12:00:00+00:00"})

    rows = [ended(1, run(**{"option.hidden": "200"})), ended(2, run(MODELS[2])), ended(3, run(GPT2))]
    assert alike.behind(rows, alike.unlike(rows)) == ["bert"]
    twin = [ended(1, run(MODELS[3], **{"option.hidden": "200"})), *rows[1:]]
    assert alike.behind(twin, alike.unlike(twin)) == ["bert-untrained-*"], "as enqueue takes its initialisations"
    assert alike.again("pocket", "looked", ["bert"]).startswith("clipstudy enqueue --study pocket --task looked")


def test_what_is_not_known_is_no_difference() -> None:
    assert alike.unlike([]) == {} and alike.said({}) == ""
