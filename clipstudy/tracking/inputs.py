"""A group's model and data set where MLflow's own pages look for them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from clipstudy.job import Group
from clipstudy.spec import decisive
from clipstudy.tracking import entry as entries
from clipstudy.tracking.entry import LONGEST_KEY, LONGEST_PARAM, PREFIX, clip, safe_key

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log(client: MlflowClient, experiment: str, run_id: str, group: Group, fingerprint: str) -> None:
    """The model and the data set where MLflow's UI looks for them: what the group's run was given.

    Args:
        fingerprint: of the rows, where it is known: MLflow takes data of one name and digest for the same.
    """
    from mlflow.entities import Dataset, DatasetInput, LoggedModelInput

    spec = group.dataset
    source: dict[str, Any] = {"path": spec.hub, "config_name": spec.config, "revision": spec.revision}
    if not spec.hub:
        source = {"uri": spec.path or spec.name}
    digest = fingerprint.rpartition(":")[2][:12] or entries.short_hash(json.dumps(decisive(spec), sort_keys=True))[:12]
    kind = "hugging_face" if spec.hub else "local"
    dataset = Dataset(clip(spec.name, LONGEST_KEY), digest, kind, json.dumps(source))
    model = LoggedModelInput(_model(client, experiment, group))
    client.log_inputs(run_id, [DatasetInput(dataset)], [model])


def _model(client: MlflowClient, experiment: str, group: Group) -> str:
    """The id of the model's own entry in MLflow, one a specification, made where it is not there yet."""
    params = {safe_key(k): clip(v, LONGEST_PARAM) for k, v in entries.model_params(group.model).items()}
    key = entries.short_hash(json.dumps(params, sort_keys=True))
    if found := _entries(client, experiment, key):
        return found[0]
    name = re.sub(r"""[/:.%"']""", "_", clip(group.model.name, LONGEST_KEY))
    tags = {PREFIX + "model_key": key, PREFIX + "model": clip(group.model.name, LONGEST_PARAM)}
    made = client.create_logged_model(experiment, name, tags=tags, params=params, model_type=group.model.source)
    client.finalize_logged_model(made.model_id, "READY")
    first, *_ = _entries(client, experiment, key)
    if first != made.model_id:  # another group's recorder was quicker
        client.delete_logged_model(made.model_id)
    return first


def _entries(client: MlflowClient, experiment: str, key: str) -> list[str]:
    """Ids of the model's entries, the same one first for everybody."""
    found = client.search_logged_models([experiment], f"tags.`{PREFIX}model_key` = '{key}'")
    ordered = sorted(found, key=lambda one: (one.creation_timestamp, str(one.model_id)))
    return [str(one.model_id) for one in ordered]
