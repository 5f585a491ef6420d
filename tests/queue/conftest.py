"""Both databases, real: a SQLite file and a Postgres server, empty for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from clipstudy.queue import dialect
from tests.databases import emptied


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return str(request.getfixturevalue("new_database")())


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database with nothing in it. Its structure is not to be changed."""
    if backend == "sqlite":
        file = tmp_path / "jobs.db"
        shutil.copy(request.getfixturevalue("migrated_file"), file)
        return f"sqlite:///{file}"
    return emptied(request.getfixturevalue("migrated_database"))


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = dialect.connect(url)
    yield engine
    engine.dispose()
