"""A pretraining in a real SQLite store: one run, its curve and figures, and nothing of it among a study's results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipstudy import tracking
from clipstudy.errors import ClipstudyError
from clipstudy.job import Group
from clipstudy.settings import Settings
from clipstudy.tracking import Entry, pretraining

DONE: dict[str, Any] = {
    "name": "gpt2",
    "objective": "next word",
    "seed": 0,
    "recipe": {"steps": 40, "batch": 64, "rate": 0.001},
    "parameters": 700000,
    "curve": [[10, 7.5], [20, 6.25], [30, 5.0], [40, 4.5]],
    "figures": {"perplexity": 90.0},
    "untrained": {"perplexity": 1800.0},
    "floors": {"unigram": 240.0, "grammar": 20.0},
    "held": 48,
}


@pytest.fixture
def settings(sqlite_store: tuple[str, str], tmp_path: Path) -> Settings:
    uri, artifacts = sqlite_store
    return Settings.read({"CLIPSTUDY_TRACKING": uri, "CLIPSTUDY_ARTIFACTS": artifacts, "CLIPSTUDY_HOME": str(tmp_path)})


def recorded(settings: Settings, **tags: str) -> list[Any]:
    """Active runs of the experiment with these tags, asked past our own code."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=settings.tracking)
    experiment = client.get_experiment_by_name(pretraining.EXPERIMENT)
    assert experiment is not None
    asked = " and ".join(f"tags.`clipstudy.{key}` = '{value}'" for key, value in tags.items())
    return list(client.search_runs([experiment.experiment_id], asked))


def history(settings: Settings, run_id: str, metric: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    points = MlflowClient(tracking_uri=settings.tracking).get_metric_history(run_id, metric)
    return sorted((point.step, point.value) for point in points)


def test_one_run_with_the_curve_the_figures_and_the_record(settings: Settings) -> None:
    run_id = pretraining.record(settings, DONE, seconds=12.5, params={"version.torch": "2"})
    [run] = recorded(settings, record=pretraining.digest(DONE))
    assert run.info.run_id == run_id and run.info.status == "FINISHED" and run.info.run_name == "gpt2 · next word"
    assert run.info.end_time - run.info.start_time == 12500
    assert history(settings, run_id, "loss") == [(10, 7.5), (20, 6.25), (30, 5.0), (40, 4.5)]
    assert history(settings, run_id, "perplexity") == [(40, 90.0)]
    assert run.data.metrics == {
        "loss": 4.5,
        "perplexity": 90.0,
        "untrained/perplexity": 1800.0,
        "floor/unigram": 240.0,
        "floor/grammar": 20.0,
        "seconds": 12.5,
    }
    assert run.data.params == {
        "name": "gpt2",
        "objective": "next word",
        "seed": "0",
        "parameters": "700000",
        "held": "48",
        "recipe.steps": "40",
        "recipe.batch": "64",
        "recipe.rate": "0.001",
        "version.torch": "2",
    }
    assert run.data.tags["clipstudy.model"] == "gpt2" and "**gpt2**" in run.data.tags["mlflow.note.content"]
    assert json.loads(tracking.open(settings).artifact(run_id, pretraining.ARTIFACT)) == DONE


def test_recording_again_gives_no_second_run_and_another_seed_does(settings: Settings) -> None:
    done = DONE | {"name": "again"}
    run_id = pretraining.record(settings, done)
    assert pretraining.record(settings, done, seconds=3.0) == run_id
    assert pretraining.record(settings, done | {"seed": 1}) != run_id
    assert len(recorded(settings, model="again")) == 2


def test_a_run_that_a_crash_left_open_is_ended(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    def crash(*_: Any, **__: Any) -> None:
        raise InterruptedError

    done = DONE | {"name": "crashed"}
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", crash)
        with pytest.raises(InterruptedError):
            pretraining.record(settings, done, seconds=5.0)
    run_id = pretraining.record(settings, done)
    [run] = recorded(settings, model="crashed")
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert history(settings, run_id, "loss") == [(10, 7.5), (20, 6.25), (30, 5.0), (40, 4.5)]


def test_no_study_sees_it(settings: Settings, group: Group, entry: Callable[..., Entry]) -> None:
    book = tracking.open(settings)
    book.record(entry(), book.parent(group, None, None))
    before = book.results()
    assert [result.model for result in before if result.study == group.study] == ["bert"]
    pretraining.record(settings, DONE | {"name": "unseen"})
    assert book.results() == before


def test_a_deleted_experiment_is_said(settings: Settings) -> None:
    from mlflow import MlflowClient

    pretraining.record(settings, DONE)
    client = MlflowClient(tracking_uri=settings.tracking)
    experiment = client.get_experiment_by_name(pretraining.EXPERIMENT)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    try:
        with pytest.raises(
            ClipstudyError, match=rf"experiments restore --experiment-id {experiment.experiment_id}; then"
        ):
            pretraining.record(settings, DONE)
    finally:
        client.restore_experiment(experiment.experiment_id)


def test_files_lie_where_the_studies_do(settings: Settings) -> None:
    run_id = pretraining.record(settings, DONE)
    assert (Path(settings.artifacts) / run_id / "artifacts" / pretraining.ARTIFACT).is_file()
