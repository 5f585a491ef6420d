"""A task's reference model: named in the study file, whole in the cell, part of what decides a result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clipstudy import tasksfile
from clipstudy.errors import StudyError
from clipstudy.job import Group, Selection, plan
from clipstudy.queue.enqueue import differences
from clipstudy.spec import decisive, digest
from clipstudy.tracking.entry import group_params

GOOD = """
[models.bert]
source = "transformers"
checkpoint = "./bert"
layers = 3
[models.bert-untrained]
twin_of = "bert"
init = "random"
init_seeds = [0, 1]
[models.gpt2]
source = "transformers"
checkpoint = "./gpt2"
layers = 2
[datasets.shift]
reader = "senteval"
path = "./shift.txt"
[tasks.like_bert]
kind = "similarity"
dataset = "shift"
reference = "bert"
"""


def groups(text: str, folder: str = "/there") -> dict[str, Group]:
    study = tasksfile.parse(text, Path(folder) / "small.toml")
    return {group.model.name: group for group, _ in plan(study, Selection())}


def mend(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_cell_holds_the_whole_model() -> None:
    found = groups(GOOD)
    assert set(found) == {"bert", "bert-untrained-0", "bert-untrained-1", "gpt2"}  # the reference itself, too
    for group in found.values():
        assert group.task.reference == found["bert"].model


def test_it_survives_the_table() -> None:
    group = groups(GOOD)["gpt2"]
    again = Group.from_json(group.to_json())
    assert again == group and again.digest == group.digest
    assert again.task.reference and again.task.reference.base == "/there"  # where a worker looks for ./bert


def test_an_initialisation_of_a_twin_may_be_one() -> None:
    found = groups(mend('reference = "bert"', 'reference = "bert-untrained-1"'))["gpt2"].task.reference
    assert found and (found.init, found.init_seed) == ("random", 1)


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ('checkpoint = "./bert"', 'checkpoint = "./bert2"', "checkpoint"),
        ("layers = 3", "layers = 3\nfinal_norm = true", "final_norm"),
        ('reference = "bert"', 'reference = "bert-untrained-0"', "init"),
    ],
)
def test_another_reference_is_another_cell(old: str, new: str, changes: str) -> None:
    before, after = groups(GOOD)["gpt2"], groups(mend(old, new))["gpt2"]
    assert before.digest != after.digest
    assert list(differences(before, after)) == [f"task.reference.{changes}"]


def test_how_it_is_shown_or_run_changes_nothing() -> None:
    before = groups(GOOD)["gpt2"]
    after = groups(mend("layers = 3", 'layers = 3\nlabel = "B"\nrole = "bert"\nbatch_size = 3'), "/elsewhere")["gpt2"]
    assert after.task.reference != before.task.reference
    assert after.digest == before.digest and not differences(before, after)
    renamed = GOOD.replace("bert]", "bort]").replace('"bert"', '"bort"')
    assert groups(renamed)["gpt2"].digest == before.digest


def test_a_key_of_a_later_version_changes_no_digest() -> None:
    """Keys at their default do not enter, in the reference as anywhere."""
    group = groups(GOOD)["gpt2"]
    assert group.task.reference
    spelled = replace(group.task, reference=replace(group.task.reference, dtype="float32", bos=True))
    assert digest(group.model, group.dataset, spelled) == group.digest


def test_it_is_recorded() -> None:
    group = groups(GOOD)["gpt2"]
    recorded = json.loads(group_params(group)["task.reference"])
    assert recorded["checkpoint"] == "./bert" and not {"name", "base", "label"} & set(recorded)
    assert decisive(group.task)["reference"] == recorded


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('reference = "bert"', "", '[tasks.like_bert] reference: missing; kind = "similarity" wants a model of this'),
        ('reference = "bert"', 'reference = "brt"', 'found "brt"; kind = "similarity" wants a model of this study'),
        ('reference = "bert"', 'reference = "brt"', 'Did you mean "bert"? What exists: bert, bert-untrained-0, bert'),
        ('reference = "bert"', 'reference = "bert-untrained"', 'found "bert-untrained"; kind ='),
        ('reference = "bert"', "reference = 3", 'found "3"'),
        ('reference = "bert"', 'reference = ["bert"]', "reference: found"),
        ('"similarity"', '"classify"', '[tasks.like_bert] reference: kind = "classify" compares with no model. Remove'),
        ("layers = 3", 'layers = 3\nmodality = "image"', '"bert" is of modality image, the task of text'),
        ('reference = "bert"', 'reference = "bert"\noptions = {batch_size = 3}', "found 3, expected 4 or more"),
        ('reference = "bert"', 'reference = "bert"\noptions = {split = "te"}', 'split: found "te"'),
        ('reference = "bert"', 'reference = "bert"\noptions = {views = []}', "views: found []"),
        ('reference = "bert"', 'reference = "bert"\noptions = {views = ["cls", "cls"]}', "expected one or more, each"),
        ('reference = "bert"', 'reference = "bert"\noptions = {draws = 0}', "draws: found 0, expected 1 or more"),
    ],
)
def test_mistakes_are_named(old: str, new: str, says: str) -> None:
    with pytest.raises(StudyError) as error:
        groups(mend(old, new))
    assert says in error.value.message
    assert error.value.message.endswith("retry.")


def test_a_mistake_in_the_models_own_table_is_told_once() -> None:
    with pytest.raises(StudyError, match=r"1 problem\n  \[models\.gpt2\] layers: found '2'"):
        groups(mend("layers = 2", 'layers = "2"').replace('reference = "bert"', 'reference = "gpt2"'))
