"""The pocket study, from nothing to a page, by the command that a newcomer types first. Nothing is trained, nothing
fetched."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipstudy import demo, tasksfile
from clipstudy.cli import demo as command
from clipstudy.job import Selection, Status, plan
from clipstudy.pocket.baskets import Sizes
from clipstudy.results import evidence
from clipstudy.settings import Settings
from clipstudy.spec import Study, TaskSpec
from clipstudy.supervisor import Crew
from clipstudy.tracking import open as open_tracking
from tests.acceptance.conftest import Typed, totals

MODELS = ("bert", "clip-resnet", "bert-untrained-0", "resnet", "clip-vit-image")
#: Task → cells: (model, layer) pairs of those models.
TASKS = {"phrases": 21, "bigram_shift": 21, "shapes": 10, "reconstruct": 8, "visualise": 8, "attend": 4}
CELLS = sum(TASKS.values())
FEW = ("bigram_shift", "shapes", "attend")
QUICK: Mapping[str, Mapping[str, Any]] = {
    "attend": {"pictures": 20, "draws": 50},
    "classify": {"max_epoch": 4, "draws": 100},
    "phrase_clusters": {"labelled": 200, "outside": 40, "fit": 150},
    "reconstruct": {"steps": 10, "batch_size": 8, "draws": 50},
    "visualise": {"channels": 2, "steps": 4, "natural": 8, "draws": 50},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Five models, a task of each quick kind, few rows, few passes: every path of the demonstration in seconds. As
    parameters: the tasks, where fewer will do."""
    chosen = getattr(request, "param", TASKS)
    thinned = demo.thinned

    def smaller(study: Study) -> Study:
        thin = thinned(study)
        tasks = {name: _quick(thin.tasks[name]) for name in chosen}
        return replace(thin, models={name: thin.models[name] for name in MODELS}, tasks=tasks)

    monkeypatch.setattr(demo, "thinned", smaller)
    monkeypatch.setattr(demo, "SIZES", Sizes(200, 100, 200))
    monkeypatch.setattr(demo, "budgets", dict)  # none: a busy machine must not decide what is computed


def _quick(task: TaskSpec) -> TaskSpec:
    return replace(task, seeds=task.seeds[:2], options={**task.options, **QUICK[task.kind]})


def test_from_nothing_to_a_page(small: None, typed: Typed, tmp_path: Path) -> None:
    first = typed("demo", "--device", "cpu")
    assert f"{CELLS} cells computed" in first.out
    assert totals(typed, "--study", "pocket") == {"done": CELLS}
    assert "CLIP text (ResNet)" in first.out and "say nothing about the real CLIP" in first.out
    assert "clipstudy ui" in first.out and "clipstudy enqueue --all" in first.out
    page = (tmp_path / "here" / "report.html").read_text(encoding="utf-8")
    # At the head of the page, and under the title of each figure.
    assert page.count("these figures say nothing about the real CLIP") > len(TASKS)
    assert "measured alike" not in page, "one study, enqueued at once"

    again = typed("demo", "--device", "cpu")
    assert f"Nothing to do: {CELLS} cells are already done." in again.out
    assert totals(typed, "--study", "pocket") == {"done": CELLS}
    _claims_read_what_the_kinds_kept()


def test_terminated_it_takes_its_workers_along(small: None, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they had begun is given back."""
    begun: list[Crew] = []

    def terminated(_engine: object, _study: object, crew: Crew, *_: object) -> None:
        begun.append(crew)
        crew.tend()
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal ended nothing")

    monkeypatch.setattr(demo, "_watch", terminated)
    typed("demo", "--device", "cpu", code=128 + signal.SIGTERM)
    assert len(begun) == 1 and not begun[0].tend(), "nobody is at work"
    assert set(totals(typed, "--study", "pocket")) == {"queued"}


def test_cells_that_workers_left_behind_are_an_error(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that were given up end quietly: what they left must not look like a study that is done."""
    ended = demo.Ended({Status.DONE: 40, Status.QUEUED: 3, Status.COMPUTED: 2, Status.CANCELLED: 7}, 40, 60.0)
    monkeypatch.setattr(demo, "run", lambda *words, **more: ended)
    monkeypatch.setattr(command, "_report", lambda *words: None)
    said = typed("demo", code=2)
    assert "5 cells of the study are not finished" in said.err and "demo-worker-1.log" in said.err
    assert said.err.endswith("clipstudy worker --drain --study pocket\n")
    assert "as tasks.toml declares it" in said.out
    Path("tasks.toml").unlink()
    assert "as tasks.toml declares it" not in typed("demo", code=2).out


def _claims_read_what_the_kinds_kept() -> None:
    """Of every kind: single scores whose mean is the number that was recorded."""
    tracking = open_tracking(Settings.read())
    results = tracking.results("pocket")
    recorded = {(r.model, r.task, r.layer): r.metrics for r in results}
    read = evidence.measured(results, tracking.artifact)
    attended, seen = {"jaccard", "best/edges", "diversity"}, {"total_variation", "high_frequency", "edge_density"}
    assert {one.metric for one in read} == {"nmi", "accuracy", "mse", "colour_entropy", *attended, *seen}
    for one in read:
        assert one.scores is not None and one.missing == ()
        values = [recorded[one.model, one.task, layer][one.metric].value for layer in one.layers]
        assert np.nanmean(one.scores, axis=(1, 2)) == pytest.approx(values, rel=1e-5), one.metric


@pytest.mark.parametrize("small", [FEW], indirect=True)
def test_a_budget_that_is_spent_leaves_cells_out_and_says_so(
    small: None,
    typed: Typed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "budgets", lambda: {"classify": 0.0})
    said = typed("demo", "--device", "cpu")
    found = totals(typed, "--study", "pocket")
    assert set(found) == {"done", "cancelled"} and sum(found.values()) == sum(TASKS[name] for name in FEW)
    assert f"{found['cancelled']} cells did not fit" in said.out and "retry --study pocket --cancelled" in said.out
    assert totals(typed, "--study", "pocket", "--task", "attend") == {"done": TASKS["attend"]}
    again = typed("demo", "--device", "cpu")
    assert "Nothing to do" in again.out and totals(typed, "--study", "pocket") == found


def test_where_a_shell_does_not_find_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `make demo`, which calls it by its path."""
    own, bin = tmp_path / "my env", tmp_path / "my env" / "bin"
    bin.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(own))
    monkeypatch.setenv("PATH", str(bin))
    assert command._reached().startswith("first: export PATH=")
    (bin / "activate").touch()
    assert command._reached().startswith(f"first: source '{bin}/activate' ")
    monkeypatch.chdir(tmp_path)
    assert command._reached().startswith("first: source 'my env/bin/activate' ")
    (bin / "clipstudy").touch(mode=0o755)
    assert command._reached() == ""


def test_how_long_it_takes_at_most_is_told() -> None:
    said = demo.foretold({"classify": 220.0, "attend": 20.0}, 2)
    assert said.startswith("each task kind has a time budget, 4 min 0 s in total: about 2 min 0 s on 2 workers")
    assert demo.foretold({}, 2) == "", "the whole study has no budget"


def test_models_that_are_not_here_are_asked_for(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = tasksfile.load
    study = load(tasksfile.find("pocket", tmp_path))
    gone = {n: replace(m, checkpoint=str(tmp_path / "gone" / n)) for n, m in study.models.items()}
    monkeypatch.setattr(tasksfile, "load", lambda path: replace(study, models=gone))
    said = typed("demo", "--device", "cpu", code=2).err
    assert f"clipstudy pocket pretrain --folder {tmp_path / 'gone'}" in said and totals(typed) == {}


def test_what_is_thinned_and_what_is_not() -> None:
    whole = tasksfile.load(tasksfile.find("pocket", Path("/nowhere")))
    thin = demo.thinned(whole)
    assert set(thin.tasks) == set(whole.tasks) and set(thin.datasets) == set(whole.datasets)
    assert {m.family for m in thin.models.values()} == {m.family for m in whole.models.values()}
    assert all(d.limit == demo.ROWS for d in thin.datasets.values() if d.reader != "conll2000")
    assert set(demo.THIN) == {task.kind for task in whole.tasks.values()}
    assert len(plan(thin, Selection())) < len(plan(whole, Selection()))
    assert {Status.DONE, Status.COMPUTED} == set(demo.DONE)


def test_short_of_time_every_trained_model_has_its_first_tasks() -> None:
    whole = tasksfile.load(tasksfile.find("pocket", Path("/nowhere")))
    planned = plan(demo.thinned(whole), Selection())
    rounds = demo.in_rounds(planned)
    assert sorted(map(repr, planned)) == sorted(repr(one) for groups in rounds for one in groups)
    trained = {m.name for m in whole.models.values() if m.init != "random"}
    assert {group.model.name for group, _ in rounds[0]} == {group.model.name for group, _ in rounds[1]} == trained
    ends = [{group.model.init for group, _ in groups} for groups in rounds]
    assert ends == sorted(ends, key=lambda inits: "random" in inits), "untrained twins come last"
    first = [group.model for group, _ in rounds[0] if group.model.modality == "text"]
    assert ["clip" in (model.role or "") for model in first] == [True, False, True, False], "nothing without a rival"
