"""Cells: planning, selecting, and that a group survives the table."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from clipstudy.job import MOVES, SETTLED, Group, Selection, Status, keys, layer_label, layers_of, plan
from clipstudy.spec import DatasetSpec, ModelSpec, Study, TaskSpec

BERT = ModelSpec("bert", "transformers", "bert-base-uncased", 12)
TINY = ModelSpec("tiny", "transformers", "tiny", 2, optional=True)
DATA = DatasetSpec("shift", "senteval", path="./x")
TASK = TaskSpec("shift", "classify", "shift", "accuracy", seeds=(3, 4), options={"l2": [0.1]})
STUDY = Study("s", {"bert": BERT, "tiny": TINY}, {"shift": DATA}, {"shift": TASK})


def test_plan_is_the_product() -> None:
    [(group, layers)] = plan(STUDY, Selection())
    assert (group.model, group.dataset, group.task, layers) == (BERT, DATA, TASK, tuple(range(13)))


def test_optional_models_are_named() -> None:
    assert {k.model for k in keys(plan(STUDY, Selection(models=("*",))))} == {"bert", "tiny"}


def test_selection() -> None:
    chosen = keys(plan(STUDY, Selection(models=("b*",), layers=(0, 12, 13))))
    assert [k.layer for k in chosen] == [0, 12]
    assert not plan(STUDY, Selection(tasks=("nothing",)))


def test_other_modality_is_left_out() -> None:
    image = ModelSpec("vit", "timm", "vit", 4, modality="image")
    assert not plan(Study("s", {"vit": image}, {"shift": DATA}, {"shift": TASK}), Selection())


def test_a_model_that_lacks_what_a_task_looks_at_is_left_out() -> None:
    study = replace(STUDY, unable={"shift": frozenset({"bert"})})
    assert {k.model for k in keys(plan(study, Selection(models=("*",))))} == {"tiny"}


def test_layers_and_labels() -> None:
    whole = TaskSpec("tune", "classify", "shift", "accuracy", layers="whole")
    assert layers_of(BERT, whole) == (-1,)
    assert [layer_label(BERT, k) for k in (-1, 0, 7)] == ["whole model", "embedding", "block 7"]


def test_stages_are_quarters_of_the_depth() -> None:
    """Of a residual network its four stages, of a transformer the blocks that lie where those do."""
    stages = TaskSpec("t", "classify", "shift", "accuracy", layers="stages")
    found = {n: layers_of(replace(BERT, layers=n), stages) for n in (1, 3, 4, 6, 12, 24)}
    assert found == {
        1: (1,), 3: (1, 2, 3), 4: (1, 2, 3, 4), 6: (2, 3, 5, 6), 12: (3, 6, 9, 12), 24: (6, 12, 18, 24),
    }  # fmt: skip


def test_a_group_survives_json() -> None:
    group = Group("s", BERT, DATA, TASK)
    again = Group.from_json(group.to_json())
    assert again == group and again.digest == group.digest


def test_a_group_of_a_later_version_is_read() -> None:
    text = Group("s", BERT, DATA, TASK).to_json().replace('"source"', '"invented": 1, "source"')
    assert Group.from_json(text).model == BERT


def test_moves() -> None:
    assert set(MOVES) == set(Status)
    assert all(Status.RUNNING not in MOVES[s] for s in SETTLED)  # a settled cell is queued before it runs again
    assert MOVES[Status.COMPUTED] == {Status.DONE}  # what was computed is never thrown away


NAMES = st.text("abc-_.é😀 ", min_size=1, max_size=8)
SEEDS = st.integers(0, 2**32 - 1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MODELS = st.builds(
    ModelSpec, name=NAMES, source=NAMES, checkpoint=NAMES, layers=st.integers(1, 99),
    modality=st.sampled_from(["text", "image"]), tower=st.none() | NAMES, revision=st.none() | NAMES,
    init=st.sampled_from(["pretrained", "random"]), init_seed=SEEDS, final_norm=st.booleans(), bos=st.booleans(),
    max_tokens=st.none() | st.integers(3, 999), modules=st.none() | st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    mean=st.none() | st.tuples(NUMBERS, NUMBERS, NUMBERS), batch_size=st.integers(1, 999), role=st.none() | NAMES,
)  # fmt: skip
DATASETS = st.builds(
    DatasetSpec, name=NAMES, reader=NAMES, path=st.none() | NAMES, splits=st.dictionaries(NAMES, NAMES, max_size=2),
    limit=st.none() | st.integers(2, 999), unreadable=st.floats(0, 0.5), development=st.floats(0.1, 0.9),
    exclude=st.dictionaries(NAMES, st.lists(SEEDS, max_size=3).map(tuple), max_size=2),
)  # fmt: skip
VALUES = st.booleans() | st.integers() | NUMBERS | NAMES | st.lists(NAMES, max_size=2)
TASKS = st.builds(
    TaskSpec, name=NAMES, kind=NAMES, dataset=NAMES, metric=NAMES, seeds=st.lists(SEEDS, max_size=3).map(tuple),
    models=st.lists(NAMES, max_size=2).map(tuple), reference=st.none() | MODELS,
    options=st.dictionaries(NAMES, VALUES, max_size=3),
)  # fmt: skip


@given(NAMES, MODELS, DATASETS, TASKS)
def test_any_group_survives_the_table_with_its_digest(
    study: str, model: ModelSpec, dataset: DatasetSpec, task: TaskSpec
) -> None:
    group = Group(study, model, dataset, task, note="é\n")
    again = Group.from_json(group.to_json())
    assert again == group and again.digest == group.digest
