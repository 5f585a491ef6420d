"""The tables' version: telling whether it is this program's, and bringing it there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import text

from clipstudy.errors import NotMigrated, QueueError
from clipstudy.queue.dialect import reading, serialise, translated
from clipstudy.queue.schema import HEAD
from clipstudy.settings import redact


def check(engine: Engine) -> None:
    """Return if the tables are there and of this version.

    Raises NotMigrated (says what to type) or DatabaseUnreachable. Cheap: one SELECT, no Alembic.
    """
    found = _version(engine)
    if found is None:
        raise NotMigrated()
    if found != HEAD:
        then = "Upgrade clipstudy." if found.isdigit() and found > HEAD else "Type: clipstudy init"
        raise NotMigrated(f'The job table is of version "{found}"; this clipstudy needs "{HEAD}". {then}')


def _version(engine: Engine) -> str | None:
    if engine.dialect.name == "sqlite" and not Path(str(engine.url.database)).exists():
        return None  # asking would create it
    try:
        with reading(engine) as connection:
            found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
            return found
    except NotMigrated:
        return None


def migrate(engine: Engine) -> None:
    """Bring the tables to the newest version, from nothing or from an older one. Several processes at once are safe.

    Raises QueueError where the database holds another program's tables.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with (
        translated(engine),
        _alone(engine),
        engine.connect() as connection,
        _foreign_keys_off(connection),
        connection.begin(),
    ):
        serialise(connection, "migrate")
        found = _version(engine)
        if found is not None and found not in known:
            raise QueueError(
                f"{redact(engine.url.render_as_string(hide_password=True))} holds tables of version "
                f'"{found}", which are not this clipstudy\'s. Give the job table a database of its own '
                "(CLIPSTUDY_DATABASE), or upgrade clipstudy."
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def migrations_folder() -> Path:
    """Where the migrations are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "_top" / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """On SQLite, a file lock: the switch to WAL is not covered by the database's own."""
    if engine.dialect.name != "sqlite":
        yield
        return
    import fcntl

    with Path(f"{engine.url.database}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """WAL, which stays with the file; and no foreign keys while tables are rebuilt. Neither works in a transaction."""
    if connection.dialect.name != "sqlite":
        yield
        return
    raw: Any = connection.connection.dbapi_connection
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        raw.execute("PRAGMA foreign_keys = ON")
