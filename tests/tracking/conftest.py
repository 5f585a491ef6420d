"""A SQLite store and a real MLflow server, each made once: opening a fresh store takes seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clipstudy.job import Group, layer_label
from clipstudy.outcome import Estimate
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tracking import Entry, Tracking
from tests import servers

BEGUN = datetime(2026, 11, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(scope="session")
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("store")
    return f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.mlflow(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(params=["sqlite", "server"])
def tracking(request: pytest.FixtureRequest) -> Tracking:
    """The contract's two sides. Tests share a store: each asks for its own study only."""
    if request.param == "server":
        return Tracking(request.getfixturevalue("server"), "")
    return Tracking(*request.getfixturevalue("sqlite_store"))


@pytest.fixture
def study(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W", "_", request.node.name)


@pytest.fixture
def group(study: str) -> Group:
    model = ModelSpec("bert", "transformers", "bert-base-uncased", 12, family="bert", role="bert", label="BERT")
    task = TaskSpec("bigram_shift", "classify", "senteval", "accuracy", category="syntactic", options={"hidden": 50})
    return Group(study, model, DatasetSpec("senteval", "senteval", hub="org/senteval", revision="main"), task)


@pytest.fixture
def entry(group: Group) -> Callable[..., Entry]:
    """An entry of ``group``, anything replaced."""

    def make(layer: int = 7, **changed: Any) -> Entry:
        values: dict[str, Any] = {
            "group": group,
            "job": 100 + layer,
            "attempt": 1,
            "layer": layer,
            "label": layer_label(group.model, layer),
            "kind": "finished",
            "started": BEGUN,
            "ended": BEGUN + timedelta(seconds=layer + 2),
            "metrics": {
                "accuracy": Estimate(0.5 + layer / 64, 0.5, 0.75),
                "native/accuracy": Estimate(0.25, 0.125, 0.5),
                "baseline/majority": Estimate(0.5),
                "items/test": Estimate(10002),
            },
            "params": {"device": "cpu", "resolved.checkpoint": "abc"},
        }
        return Entry(**(values | changed))

    return make
