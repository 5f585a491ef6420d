"""What Alembic runs. ``clipstudy init`` passes a connection in; the ``alembic`` command reads the settings."""

from __future__ import annotations

from alembic import context
from sqlalchemy.engine import Connection

from clipstudy.queue.dialect import connect, writing
from clipstudy.queue.schema import metadata
from clipstudy.settings import Settings


def run(connection: Connection) -> None:
    # As batch: SQLite alters a table by building it anew.
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with writing(connect(Settings.read().database)) as opened:
        run(opened)
