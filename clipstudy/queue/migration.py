"""The tables' version: telling whether it is this program's, and bringing it there."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.sql.expression import text

from clipstudy.errors import NotMigrated, QueueError
from clipstudy.queue.dialect import exists, migrating, reading
from clipstudy.queue.schema import HEAD
from clipstudy.redaction import redact


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
    if not exists(engine):
        return None
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
    with migrating(engine) as connection:
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
