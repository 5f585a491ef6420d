"""Files that runs keep, as each kind writes them, and what is read of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipstudy import metrics
from clipstudy.dashboard import markup
from clipstudy.errors import ClipstudyError, TrackingUnreachable
from clipstudy.job import Group
from clipstudy.outcome import Estimate, Result
from clipstudy.results import run_files, sheets
from clipstudy.results.boards import board, view
from clipstudy.results.run_files import RunFiles
from clipstudy.results.views import View
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tasks.parts.sheet import contact_sheet
from clipstudy.tracking.entry import group_params
from tests.made_up import BERT, MODELS, SHIFT, TASKS, Model, Task, result

GPT2, PHRASES = MODELS[1], TASKS[0]


class Files:
    """Files by run; counts what is asked for."""

    def __init__(self, of: Mapping[str, Mapping[str, bytes]]) -> None:
        self.of, self.asked = of, 0

    def files(self, run_id: str) -> list[str]:
        return list(self.of.get(run_id, {}))

    def artifact(self, run_id: str, name: str) -> bytes:
        self.asked += 1
        if name not in self.of.get(run_id, {}):
            raise ClipstudyError(f"no {name}")
        return self.of[run_id][name]


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({name.replace("__", "/"): values for name, values in columns.items()}), buffer)
    return buffer.getvalue()


def probed(right: Any, native: Any) -> bytes:
    """Predictions as `classify` keeps them: ``right`` says for each seed and item whether the probe is right."""
    label = np.array(["a", "b"] * (len(right[0]) // 2))
    other = np.where(label == "a", "b", "a")
    said = {f"mean__mlp__seed_{s}": np.where(row, label, other) for s, row in enumerate(right)}
    said |= {f"native__mlp__seed_{s}": np.where(row, label, other) for s, row in enumerate(native)}
    return parquet(label=label, **said)


def test_each_seed_of_each_arm() -> None:
    run = result()
    store = Files({run.run_id: {"predictions.parquet": probed([[1, 1, 1, 0], [1, 0, 0, 0]], [[0, 0, 0, 0]] * 2)}})
    files = RunFiles(store)
    found = files.scores(run, "accuracy")
    assert found and found.scores.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    native = files.scores(run, "native/accuracy")
    assert native and native.scores.tolist() == [[0] * 4] * 2 and native.names == found.names
    assert files.scores(run, "nowhere/accuracy") is None
    asked = store.asked
    assert files.scores(run, "accuracy") is found and store.asked == asked, "a finished run keeps what it has"
    assert files.scores(run, "selectivity") is None and store.asked == asked


def test_clusters_and_images() -> None:
    run = result(task=PHRASES)
    label, good, bad = ["x", "x", "y", "y"], [0, 0, 1, 1], [0, 1, 0, 1]
    clusters = parquet(sample=[0] * 4 + [1] * 4, label=label * 2, cluster_0=good + bad, cluster_1=good + good)
    images = parquet(mse__seed_0=[0.5, 0.25], mse__seed_1=[0.25, 0.5], mse__mean_image=[1.0, 1.0])
    files = RunFiles(Files({run.run_id: {"predictions.parquet": clusters, "images.parquet": images}}))
    found = files.scores(run, "nmi")
    assert found and found.scores.ravel().tolist() == pytest.approx([1, 0, 1, 1]) and len(found.names) == 2
    assert files.scores(run, "native/nmi") is None, "only the headline's clusters are kept"
    error = files.scores(run, "mse")
    assert error and error.scores.tolist() == [[0.5, 0.25], [0.25, 0.5]]


def test_what_is_not_kept_and_what_does_not_answer() -> None:
    run = result()
    assert RunFiles(Files({})).scores(run, "accuracy") is None

    class Away(Files):
        def artifact(self, run_id: str, name: str) -> bytes:
            raise TrackingUnreachable

    with pytest.raises(TrackingUnreachable):
        RunFiles(Away({})).scores(run, "accuracy")


def test_pictures() -> None:
    run = result()
    png = run_files.PNG + b"..."
    files = RunFiles(Files({run.run_id: {"b.png": b"no picture", "a.PNG": png, "notes.txt": b""}}))
    assert files.pictures(run.run_id) == ["a.PNG", "b.png"] and files.pictures(run.run_id, ["b*"]) == ["b.png"]
    assert files.picture(run.run_id, "a.PNG") == png
    assert files.picture(run.run_id, "b.png") is None and files.picture(run.run_id, "gone.png") is None


def both(first: bytes, second: bytes, task: Task = SHIFT, **params: str) -> tuple[View, RunFiles]:
    """Two models at one layer each, and what they keep."""
    value = {task.metric: Estimate(0.5, 0.4, 0.6)}
    runs = [replace(result(m, task, 3, value), params={"resolved.data": "d"} | params) for m in (BERT, GPT2)]
    shown = view(board(runs, ("bert",)), task.name)
    assert shown
    files = {run.run_id: {"predictions.parquet": one} for run, one in zip(runs, (first, second), strict=True)}
    return shown, RunFiles(Files(files))


def test_two_models_on_the_same_items() -> None:
    rng = np.random.default_rng(0)
    a = rng.random((3, 400)) < 0.8
    b = a.copy()
    b[:, :60] = False  # what the second misses besides
    shown, files = both(probed(a, a), probed(b, b))
    (line,) = sheets.differences([shown], "bert", "gpt2", files.tested).lines
    expected = metrics.paired_difference(a[None], b[None], draws=run_files.DRAWS)[0]
    difference, p, on, *_ = line[1]
    assert difference.value == pytest.approx(100 * expected.value) and p.value == expected.p
    assert on.text == "400 test items" and difference.bold and expected.value > 0.05
    (unpaired,) = sheets.differences([shown], "bert", "gpt2").lines
    assert unpaired[1][2].text == "not paired" and not unpaired[1][0].bold, "of recorded intervals as wide as these"


def test_two_models_without_a_mistake_are_not_known_to_be_alike() -> None:
    perfect = probed(np.ones((7, 10), bool), np.ones((7, 10), bool))
    shown, files = both(perfect, perfect)
    cells = (curve.cells[0] for curve in shown.curves)
    found = files.tested(*cells, "accuracy")
    assert found and found.difference and found.difference[:2] == pytest.approx((0, -0.278), abs=1e-3)
    assert found.difference.high == -found.difference.low and found.difference.p == 1


def test_models_are_paired_on_the_items_that_both_scored() -> None:
    first, second = np.ones((2, 6), bool), np.zeros((2, 4), bool)
    shown, files = both(probed(first, first), probed(second, second))
    cells = shown.curves[0].cells[0], shown.curves[1].cells[0]
    found = files.tested(*cells, "accuracy")
    assert found and found.on == "4 test items" and found.difference and found.difference.value == 1
    elsewhere = replace(cells[0].runs[0], run_id="x", params={"resolved.data": "other rows"})
    second_run = cells[1].runs[0].run_id
    store = Files({"x": {"predictions.parquet": probed(first, first)},
                   second_run: {"predictions.parquet": probed(second, second)}})  # fmt: skip
    assert RunFiles(store).tested(replace(cells[0], runs=(elsewhere,)), cells[1], "accuracy") is None


WHERE = {"path": "b", "hub": "a/b", "revision": "v1", "checksum": "git:1"}
WHICH = {"reader": "table", "config": "en", "splits": {"test": "dev"}, "columns": {"label": "l"}, "limit": 800,
         "limit_seed": 1, "unseen_labels": "drop", "unreadable": 0.5, "development": 0.2, "development_seed": 1,
         "exclude": {"test": (3,)}}  # fmt: skip


@pytest.mark.parametrize("key", [*WHERE, *WHICH])
def test_other_rows_of_one_file_are_not_taken_for_the_same(key: str) -> None:
    """A study file that was edited between two models: row 7 of another choice of rows is another row."""

    def run(model: Model, dataset: DatasetSpec) -> Result:
        spec = ModelSpec(model.family, "transformers", "c", 2)
        asked = group_params(Group("s", spec, dataset, TaskSpec("shift", "classify", "d", "accuracy")))
        return replace(result(model, SHIFT, 3), run_id=model.family, params={"resolved.data": "f"} | asked)

    dataset = DatasetSpec("d", "senteval", path="a", limit=400)
    runs = [run(BERT, dataset), run(GPT2, replace(dataset, **{key: (WHERE | WHICH)[key]}))]
    content = probed(np.ones((1, 40), bool), np.ones((1, 40), bool))
    files = RunFiles(Files({one.run_id: {"predictions.parquet": content} for one in runs}))
    first, second = (files.scores(one, "accuracy") for one in runs)
    assert first and second and len(set(first.names)) == 40
    assert (first.names == second.names) if key in WHERE else not set(first.names) & set(second.names)
    older = replace(runs[0], params={"resolved.data": "f"})  # recorded before a run said which rows it took
    before = files.scores(replace(older, run_id="older"), "accuracy")
    assert before is None
    store = Files({"older": {"predictions.parquet": content}})
    before = RunFiles(store).scores(replace(older, run_id="older"), "accuracy")
    assert before and not set(before.names) & {*first.names, *second.names}


def test_every_key_of_a_data_set_says_where_it_lies_or_which_rows_are_taken() -> None:
    assert {*WHERE, *WHICH} == {f.name for f in fields(DatasetSpec)} - DatasetSpec.PRESENTATION


@pytest.mark.parametrize("content", [b"", b"no table", probed([[1, 0]], [[1, 0]])[:-9]])
def test_a_file_that_is_damaged_is_told_of_and_not_read(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    files = RunFiles(Files({(run := result()).run_id: {"predictions.parquet": content}}))
    assert files.scores(run, "accuracy") is None
    assert f"run {run.run_id}: predictions.parquet cannot be read" in caplog.text


def test_an_initialisation_is_one_draw_however_many_seeds_were_probed_on_it() -> None:
    rng = np.random.default_rng(0)
    model = Model("twin", "Twin", "bert", inits=3)
    levels = [0.55, 0.62, 0.69]
    runs = [result(model, SHIFT, 3, init=k) for k in range(3)] + [result(BERT, SHIFT, 3)]
    items = rng.random(2000)
    right = [np.tile(items < level, (5, 1)) for level in [*levels, 0.65]]
    files = RunFiles(Files({r.run_id: {"predictions.parquet": probed(x, x)} for r, x in zip(runs, right, strict=True)}))
    shown = view(board(runs), SHIFT.name)
    assert shown
    twin, own = (next(c.cells[0] for c in shown.curves if c.family == name) for name in ("twin", "bert"))
    found = files.tested(own, twin, "accuracy")
    assert found and found.difference
    # Three initialisations, as 15 seeds would not: two degrees of freedom.
    assert found.difference.high - found.difference.low > 2 * 4.3 * 0.07 / np.sqrt(3) * 0.7


@pytest.mark.parametrize(("samples", "said"), [(1, "one sample: no test"), (3, "3 samples")])
def test_one_sample_of_spans_is_no_test(samples: int, said: str) -> None:
    label, good, bad = ["x", "x", "y", "y"] * samples, [0, 0, 1, 1], [0, 1, 0, 1]
    number = [s for s in range(samples) for _ in range(4)]
    first = parquet(sample=number, label=label, cluster_0=good * samples, cluster_1=good * samples)
    mixed = (good + bad * samples)[: 4 * samples]
    second = parquet(sample=number, label=label, cluster_0=bad * samples, cluster_1=mixed)
    shown, files = both(first, second, PHRASES)
    ((_, (difference, p, on, *_)),) = sheets.differences([shown], "bert", "gpt2", files.tested).lines
    assert on.text == said and (p.value is None) == (samples == 1)
    assert difference.value == pytest.approx(0.0 if samples == 1 else 1 - 1 / 6)


def test_seeds_as_points() -> None:
    model = Model("twin", "Twin", "bert", inits=2)
    runs: list[Result] = [result(model, SHIFT, 0, init=k) for k in (0, 1)]
    a, b = probed([[1, 1, 1, 0]], [[0] * 4]), probed([[1, 0, 0, 0]], [[0] * 4])
    files = RunFiles(Files({runs[0].run_id: {"predictions.parquet": a}, runs[1].run_id: {"predictions.parquet": b}}))
    shown = view(board([*runs, result(layer=1)]), SHIFT.name)
    assert shown
    points = {c.family: [cell.points for cell in c.cells] for c in run_files.seeded(shown, files).curves}
    assert points == {"twin": [(0.75, 0.25)], "bert": [()]}


def test_a_contact_sheet_says_in_words_what_is_on_it() -> None:
    """It is read from the file; what is no such file, or cut off, says nothing."""
    content = contact_sheet(np.zeros((3, 40, 40, 3)), ["original", "original", "channel 7: 1.5"], "What excites é", 3)
    files = Files({"r": {"a.png": content, "b.png": content[:50], "c.png": b"GIF"}})
    said = ("What excites é", "original (2 images) · channel 7: 1.5")
    assert [RunFiles(files).explained("r", f"{n}.png") for n in "abcd"] == [said, ("", ""), ("", ""), ("", "")]


def test_what_a_sheet_says_is_in_a_report_too() -> None:
    assert markup.explained("", "") == ""
    assert markup.explained("A <b>", "c") == "<figcaption>A &lt;b&gt;</figcaption><figcaption>c</figcaption>"
    assert "<details><summary>each image" in markup.explained("", "x" * 501)
    runs = [result(layer=k) for k in (1, 2)]
    shown = view(board(runs), SHIFT.name)
    assert shown
    files = RunFiles(Files({runs[1].run_id: {"b.png": b"", "a.png": b"", "notes.txt": b""}}))
    assert [(c.family, layer, run.run_id, name) for c, layer, run, name in files.album(shown)] == [
        ("bert", 2, runs[1].run_id, "a.png"), ("bert", 2, runs[1].run_id, "b.png"),
    ]  # fmt: skip
    assert [name for *_, name in files.album(shown, ["b*"])] == ["b.png"]
