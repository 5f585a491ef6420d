"""A pretraining as one MLflow run, in an experiment of its own, where no result of a study is looked for."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clipstudy.settings import Settings
from clipstudy.tracking import store
from clipstudy.tracking.entry import LONGEST_PARAM, PREFIX, clip, safe_key, short_hash
from clipstudy.tracking.files import Opened

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "clipstudy pretraining"
#: The record as it was given, kept with the run.
ARTIFACT = "pretraining.json"


def record(
    settings: Settings,
    done: Mapping[str, Any],
    *,
    seconds: float | None = None,
    params: Mapping[str, str] | None = None,
) -> str:
    """Write a finished pretraining as one closed run and give the run's id; recording it again changes nothing.

    Metrics are the loss curve (``loss``, step by step), the held-out figures by their own names, those of the model
    before its first step as ``untrained/…``, what they are held against as ``floor/…``, and ``seconds``.

    Args:
        done: the record of a pretraining: ``name``, ``objective``, ``seed``, ``recipe``, ``parameters``, ``curve``,
            ``figures``, ``untrained`` and ``floors``. Whatever else it says in one word becomes a parameter.
        seconds: that it took, where that is known.
        params: what the record does not say: versions, host.

    Raises:
        TrackingUnreachable: MLflow does not answer.
        ClipstudyError: the experiment was deleted.
    """
    opened = Opened(settings.tracking, settings.artifacts)
    client, studies = opened.connect()
    with opened.reaching():
        from mlflow.entities import Metric, Param

        # Its files lie beside those of the studies; a server has places of its own.
        served = urlsplit(settings.tracking).scheme in store.SERVERS
        location = None if served else client.get_experiment(studies).artifact_location
        run = _run(client, store.experiment(client, location, EXPERIMENT), done, seconds)
        run_id: str = run.info.run_id
        if run.info.status == "FINISHED":
            return run_id  # closing is the last step, so nothing is missing
        # The run's own time, not this moment's: MLflow ignores a point that it has already.
        began = run.info.start_time
        points = _points(done) + ([] if seconds is None else [("seconds", seconds, 0)])
        all_params = {**(params or {}), **_params(done)}
        client.log_batch(
            run_id,
            [Metric(name, float(value), began, step) for name, value, step in points],
            [Param(safe_key(key), clip(value, LONGEST_PARAM)) for key, value in all_params.items()],
        )
        client.log_text(run_id, json.dumps(done, indent=1) + "\n", ARTIFACT)
        client.set_terminated(run_id, "FINISHED", began + round(1000 * (seconds or 0)))
        return run_id


def digest(done: Mapping[str, Any]) -> str:
    """What the run of a record is found by again."""
    return short_hash(json.dumps(done, sort_keys=True))


def _run(client: MlflowClient, experiment: str, done: Mapping[str, Any], seconds: float | None) -> Run:
    key, name, objective = digest(done), str(done["name"]), str(done["objective"])
    found = client.search_runs([experiment], f"tags.`{PREFIX}record` = '{key}'", order_by=["attributes.start_time"])
    if found:
        return found[0]
    steps = done["recipe"]["steps"]
    tags = {
        PREFIX + "level": "pretraining",
        PREFIX + "record": key,
        PREFIX + "claimed": str(time.time_ns()),
        PREFIX + "model": name,
        PREFIX + "objective": objective,
        "mlflow.note.content": f"Pocket model **{name}**, trained from nothing on {objective} for {steps:,} steps.",
    }
    began = round(1000 * (time.time() - (seconds or 0)))
    return client.create_run(experiment, began, tags, f"{name} · {objective}")


def _points(done: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """(metric, value, step): figures at the last step, those of the untrained model before the first."""
    steps = done["recipe"]["steps"]
    points = [("loss", loss, step) for step, loss in done["curve"]]
    points += [(name, value, steps) for name, value in done["figures"].items()]
    points += [(f"untrained/{name}", value, 0) for name, value in done["untrained"].items()]
    return points + [(f"floor/{name}", value, 0) for name, value in done["floors"].items()]


def _params(done: Mapping[str, Any]) -> dict[str, str]:
    own = {key: str(value) for key, value in done.items() if isinstance(value, str | int | float)}
    return own | {f"recipe.{key}": str(value) for key, value in done["recipe"].items()}
