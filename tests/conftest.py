"""What every test gets: an environment of its own, and real rows where they are at hand."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Fixtures, one of each for all tests of a process.
from tests.databases import migrated_database as migrated_database
from tests.databases import migrated_file as migrated_file
from tests.databases import new_database as new_database
from tests.databases import postgres as postgres

#: Three processes share two cores: how long one example takes says nothing.
settings.register_profile("suite", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
#: What `make fuzz` gives each parser.
settings.register_profile("fuzz", max_examples=10_000, print_blob=True)

#: The folder of real rows (docs/real-rows.md says what is in it), before tests lose the user's environment.
REAL = os.environ.get("CLIPSTUDY_REAL_DATA", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks for real rows is marked so."""
    for item in items:
        if "real" in getattr(item, "fixturenames", ()):
            item.add_marker("real")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the user's databases, caches or Hub."""
    for name in list(os.environ):
        if name.startswith(("CLIPSTUDY_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLIPSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("PYTHONSAFEPATH", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "")  # what a command sets is taken back after the test
        del os.environ[name]


@pytest.fixture(autouse=True)
def clean_log() -> Iterator[None]:
    """A command has its log written to what is its stderr at the time: no test's to the next one's."""
    logger = logging.getLogger("clipstudy")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real rows; the test is skipped where it is not."""
    if not REAL or not Path(REAL).is_dir():
        pytest.skip(f'CLIPSTUDY_REAL_DATA does not name the folder of real rows: found "{REAL}"')
    monkeypatch.setenv("CLIPSTUDY_REAL_DATA", REAL)
    return Path(REAL)


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with tables and nothing in them: its hundred migrations are run once, not in every test."""
    from clipstudy.tracking import store

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with store._quiet():
        store._make(file)
    return file
