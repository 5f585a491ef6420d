"""Published numbers: what they are, that they hang together, and that a slip of the pen is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipstudy import published, tasksfile
from clipstudy.errors import DataError
from clipstudy.published import Published
from clipstudy.spec import WHOLE_MODEL

ROOT = Path(__file__).parents[2]
NUMBERS = published.load()
GOOD = """
[papers]
one = "Some & Body 2020"
[[tables]]
paper = "one"
where = "Table 7"
metric = "accuracy"
unit = "percent"
read = "source"
data = "same"
[[tables.rows]]
model = "BERT"
method = "near"
layers = [1, 2]
values = { tense = [80, 90.5] }
[[tables.rows]]
model = "people"
method = "none"
data = "split"
values = { tense = 99.0, wic = 80.0 }
spread = { wic = 1.5 }
"""


def find(**wanted: object) -> list[Published]:
    return [n for n in NUMBERS if all(getattr(n, key) == value for key, value in wanted.items())]


def table_2(task: str, layer: int) -> float:
    (number,) = find(task=task, layer=layer, metric="native/accuracy")
    return number.value


def test_rows_have_their_tables_keys_and_their_own() -> None:
    found = published.parse(GOOD, Path("here.toml"))
    assert [(n.task, n.layer, n.value, n.data) for n in found] == [
        ("tense", 1, 80.0, "same"), ("tense", 2, 90.5, "same"), ("tense", WHOLE_MODEL, 99.0, "split"),
        ("wic", WHOLE_MODEL, 80.0, "split"),
    ]  # fmt: skip
    assert {(n.paper, n.where) for n in found} == {("Some & Body 2020", "Table 7")}
    assert [n.spread for n in found] == [None, None, None, 1.5]
    assert [n.comparable for n in found] == [True, True, False, False]
    assert found[1].share == 0.905


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[papers]", "[paper]", '[paper]: unknown table. Did you mean "papers"?'),
        ('one = "Some', "one = 3 # ", "[papers]: expected names and how each is cited"),
        ('paper = "one"', 'paper = "ne"', '[[tables]] 1, "BERT" paper: found "ne". Did you mean "one"?'),
        ('metric = "accuracy"', "", '[[tables]] 1, "people" metric: missing'),
        ('metric = "accuracy"', "metric = 3", "metric: found 3, expected a text"),
        ('unit = "percent"', 'unit = "per cent"', 'unit: found "per cent". Did you mean "percent"?'),
        ('unit = "percent"', 'unit = "share"', "values.tense: found [80, 90.5], expected numbers from 0 to 1"),
        ('read = "source"', 'red = "source"', 'red: unknown key. Did you mean "read"?'),
        ('method = "near"', "method = [1]", 'method: found "[1]". What exists: near, none, other, same, unknown.'),
        ("layers = [1, 2]", "layers = [1, 2, 3]", "values.tense: found [80, 90.5], expected 3 numbers, one for each"),
        ("layers = [1, 2]", "layers = [1, 1]", "layers: found [1, 1], expected a list of different"),
        ("layers = [1, 2]", "layers = 2", "layers: found 2, expected a list"),
        ("layers = [1, 2]", "", "values.tense: found [80, 90.5], expected one number"),
        ("tense = 99.0", "tense = -1", "values.tense: found -1, expected numbers from 0 to 100"),
        ("tense = 99.0", "tense = nan", "values.tense: found nan, expected numbers"),
        ("tense = 99.0", "tense = true", "values.tense: found True, expected numbers"),
        ("spread = { wic", "spread = { wick", 'spread.wick: no such task among its values. Did you mean "wic"?'),
        ("spread = { wic = 1.5 }", "spread = 3", "spread: found 3, expected a number for each task"),
        ("{ tense = 99.0, wic = 80.0 }", "{}", "values: found {}, expected a number for each task"),
        ("[[tables.rows]]", "[[tables.row]]", "[[tables]] 1: expected one or more [[tables.rows]]"),
        ("[[tables.rows]]", "[[papers]]", "is not TOML"),
    ],
)
def test_a_mistake_is_told(old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(DataError, match=r"(?s)here\.toml.*Fix") as error:
        published.parse(GOOD.replace(old, new), Path("here.toml"))
    assert says in error.value.message


def test_a_number_stands_there_once() -> None:
    again = GOOD[GOOD.index("[[tables]]") :]
    with pytest.raises(DataError, match=r"4 problems\n.*Some & Body 2020, Table 7, BERT, , accuracy, tense, 1: stands"):
        published.parse(GOOD + again, Path("here.toml"))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        published.load(tmp_path / "none.toml")


def test_tasks_metrics_and_roles_are_the_studys() -> None:
    study = tasksfile.load(ROOT / "tasks.toml")
    metric_of = {name: task.metric for name, task in study.tasks.items()}
    ours = {name for name in metric_of if "-apart" in name or name.endswith(("-frozen", "-width"))}  # nobody's arms
    images = {name for name, task in study.tasks.items() if task.modality == "image"} - {"cifar100-zero-shot"}
    assert {n.task for n in NUMBERS} == metric_of.keys() - {"phrases", "similarity"} - ours - images
    # [CLS] is BERT's own summary, where the study's headline is the mean of a text's pieces.
    summaries = {n for n in NUMBERS if n.metric == "native/accuracy"}
    assert {(n.paper, n.where) for n in summaries} == {("Jawahar, Sagot & Seddah 2019 (ACL)", "Table 2")}
    assert all(n.metric.removeprefix("native/") == metric_of[n.task] for n in NUMBERS)
    role_of = {m.role: m.layers for m in study.models.values() if m.role and m.modality == "text"}
    assert {n.role for n in NUMBERS} == {"", *role_of, "clip_rn50", "clip_vit"}
    for number in find(role="bert"):
        assert number.layer in (WHOLE_MODEL, *range(1, role_of["bert"] + 1))


def test_jawahars_averages() -> None:
    """The means over syntactic and semantic tasks that go with the table, so a digit that slipped would show."""
    syntactic = ("bigram_shift", "tree_depth", "top_constituents")
    semantic = ("past_present", "subj_number", "obj_number", "odd_man_out", "coordination_inversion")
    averages = {
        syntactic: [49.9, 55.9, 58.7, 61.7, 67.8, 69.2, 69.1, 69.0, 69.5, 68.8, 67.8, 65.9],
        semantic: [68.1, 72.3, 72.8, 73.6, 76.2, 78.3, 79.2, 79.4, 80.3, 79.8, 79.3, 78.5],
    }
    for tasks, means in averages.items():
        for layer, mean in enumerate(means, start=1):
            assert sum(table_2(task, layer) for task in tasks) / len(tasks) == pytest.approx(mean, abs=0.051)


def test_jawahars_best_layers() -> None:
    layered = published.curves(n for n in NUMBERS if n.layer != WHOLE_MODEL)
    tops = [max(curve, key=lambda n: (n.value, -n.layer)) for curve in layered]
    best = {n.task: (n.layer, n.value) for n in tops}
    assert best == {
        "phrases-released": (1, 0.38), "sentence_length": (3, 96.2), "word_content": (4, 69.8), "tree_depth": (6, 41.3),
        "top_constituents": (7, 84.1), "bigram_shift": (9, 87.0), "past_present": (9, 90.0), "subj_number": (6, 88.1),
        "obj_number": (7, 82.2), "odd_man_out": (12, 65.2), "coordination_inversion": (9, 78.7),
    }  # fmt: skip


def test_the_reports_table() -> None:
    paper = next(n.paper for n in NUMBERS if "CSCI 566" in n.paper)
    found = {(n.role, n.task): n.value for n in find(paper=paper)}
    assert found == {
        ("bert", "boolq"): 69.24, ("gpt2", "boolq"): 66.47, ("clip_text", "boolq"): 62.34,
        ("bert", "wic"): 68.51, ("gpt2", "wic"): 52.68, ("clip_text", "wic"): 58.04,
    }  # fmt: skip
    assert not any(n.comparable for n in find(paper=paper))  # it says neither the split nor what was trained


def test_what_is_from_memory_is_no_bar() -> None:
    assert {n.paper for n in NUMBERS if not n.verified} == {
        "Conneau et al. 2018 (ACL)",
        "Jawahar, Sagot & Seddah 2019 (ACL)",
    }
    assert all(n.verified for n in NUMBERS if n.task in ("boolq", "wic"))
    assert all(n.note for n in NUMBERS if n.method == "near")
    assert not any(n.comparable for n in NUMBERS if n.split == "test" and n.task in ("boolq", "wic"))
