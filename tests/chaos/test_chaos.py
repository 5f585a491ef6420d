"""The promise under the most telling faults: a few cells each. `make chaos` runs all faults, on servers too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import servers
from tests.chaos.faults import FAULTS
from tests.chaos.house import Backends, trial

NAMED = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Backends:
    return Backends("embedded", servers.unused_store(tmp_path_factory.mktemp("store") / "mlflow.db"))


@pytest.fixture(scope="module")
def on_postgres(embedded: Backends) -> Iterator[Backends]:
    with servers.folder("clipstudy-chaos-") as folder:
        postgres = servers.Postgres(folder / "postgres")
        yield Backends("Postgres", embedded.unused, postgres)
        postgres.close()


@pytest.fixture(scope="module")
def mixed(embedded: Backends) -> Iterator[Backends]:
    with servers.folder("clipstudy-chaos-") as folder:
        mlflow = servers.MLflow(folder / "mlflow")
        yield Backends("mixed", embedded.unused, mlflow=mlflow)
        mlflow.close()


def hold(name: str, backends: Backends, folder: Path, jobs: int = 30) -> None:
    # Those that come by the clock may come before any work began.
    fault = replace(NAMED[name], most=2 if NAMED[name].blow is None else 6)
    seen, verdict, wrong = trial(fault, backends, folder / "house", jobs, busy=5.0, workers=2, limit=120)
    assert wrong == [] and (seen.recoveries or not fault.most or fault.fails), "no cell was in anybody's hands"
    assert verdict.jobs == verdict.done + verdict.failed >= jobs


@pytest.mark.parametrize("name", ["kill at: hand-over", "kill at: create_run", "terminate", "poison"])
def test_embedded(name: str, embedded: Backends, tmp_path: Path) -> None:
    hold(name, embedded, tmp_path)


def test_a_sleeper_writes_late_what_another_has_taken_over(embedded: Backends, tmp_path: Path) -> None:
    hold("sleep at: mid-fit", embedded, tmp_path, jobs=60)


def test_a_person_cancels_what_is_being_computed(embedded: Backends, tmp_path: Path) -> None:
    _, verdict, wrong = trial(NAMED["cancel"], embedded, tmp_path / "house", 60, busy=5.0, workers=2, limit=120)
    assert wrong == [] and verdict.given_up


def test_every_change_of_settings_is_a_new_one(embedded: Backends, tmp_path: Path) -> None:
    seen, verdict, wrong = trial(NAMED["change"], embedded, tmp_path / "house", 60, busy=5.0, workers=2, limit=120)
    assert wrong == [] and seen.blows > 1
    assert verdict.jobs == 60 + 20 * seen.blows, "two of six models each time"


def test_mlflow_does_what_it_is_asked_and_its_answer_is_lost(mixed: Backends, tmp_path: Path) -> None:
    hold("MLflow: cut", mixed, tmp_path)


@pytest.mark.postgres
def test_postgres_crashes(on_postgres: Backends, tmp_path: Path) -> None:
    hold("Postgres crashes", on_postgres, tmp_path)
