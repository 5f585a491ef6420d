"""What Alembic runs, over the connection that ``clipstudy init`` passes in."""

from __future__ import annotations

from alembic import context
from sqlalchemy.engine import Connection

from clipstudy.errors import QueueError
from clipstudy.queue.schema import metadata

given: Connection | None = context.config.attributes.get("connection")
if given is None:
    raise QueueError("The job table's migrations run over a connection that clipstudy gives. Type: clipstudy init")
# As batch: SQLite alters a table by building it anew.
context.configure(connection=given, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
