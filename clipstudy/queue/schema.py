"""The tables. Whatever must hold whoever writes is a constraint here, not a habit of the code above.

Instants are seconds since 1970 (UTC) in a double on both databases, always from the **database's** clock
(:func:`clipstudy.queue.dialect.clock`): one type, the same arithmetic, a quarter of a microsecond apart. In psql:
``to_timestamp(lease_until)``; in sqlite3: ``datetime(lease_until, 'unixepoch')``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

#: The newest migration. `migration.check` compares with it, so that a command need not import Alembic.
HEAD = "0002"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

groups = Table(
    "groups",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study", String, nullable=False),
    Column("model", String, nullable=False),
    Column("task", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("spec", Text, nullable=False),  # Group.to_json(): what workers read, whatever tasks.toml says by then
    Column("resolved", Text),  # JSON: what the first batch resolved at run time (revisions, fingerprints)
    Column("parent_run_id", String),
    # The group that was enqueued last for its (study, model, task). Not "the highest id": settings may come back.
    Column("newest", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("study", "model", "task", "digest"),
)

Index(
    "uq_groups_newest",
    groups.c.study,
    groups.c.model,
    groups.c.task,
    unique=True,
    sqlite_where=text("newest"),
    postgresql_where=text("newest"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("group_id", Integer, ForeignKey("groups.id"), nullable=False),
    Column("model", String, nullable=False),  # the group's, once more: the claim's preference is an index walk
    Column("layer", Integer, nullable=False),  # -1 for the model as a whole, never NULL: UNIQUE must hold
    Column("label", String, nullable=False),
    Column("status", String, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),  # only ever grows: the fencing token
    Column("tries", Integer, nullable=False),  # what counts against max_tries
    Column("max_tries", Integer, nullable=False),
    Column("infra", Integer, nullable=False),  # failures that were not the job's own, since a person asked for it
    Column("run_after", Double),
    Column("worker", String),
    Column("leased_at", Double),  # when the lease was last given or renewed
    Column("lease_until", Double),
    Column("failure", String),  # how the last attempt ended, where it ended badly
    Column("error", Text),
    Column("run_id", String),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("study", String, nullable=False, server_default=""),  # as model: the group's, once more
    UniqueConstraint("group_id", "layer"),
    CheckConstraint(
        "status IN ('queued', 'running', 'computed', 'done', 'failed', 'cancelled', 'superseded')", name="status"
    ),
    CheckConstraint("status <> 'done' OR run_id IS NOT NULL", name="done_is_recorded"),
    CheckConstraint(
        "status <> 'running' OR (worker IS NOT NULL AND lease_until IS NOT NULL)", name="running_is_leased"
    ),
    CheckConstraint("tries >= 0 AND attempt >= 0", name="counts"),
)


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


# Partial: a row that is done costs the claim nothing, however many there are.
Index("ix_jobs_queued", jobs.c.priority.desc(), jobs.c.id, **_where("status = 'queued'"))
Index("ix_jobs_queued_model", jobs.c.model, jobs.c.priority.desc(), jobs.c.id, **_where("status = 'queued'"))
Index("ix_jobs_queued_group", jobs.c.group_id, jobs.c.priority.desc(), jobs.c.id, **_where("status = 'queued'"))
Index("ix_jobs_queued_study", jobs.c.study, jobs.c.priority.desc(), jobs.c.id, **_where("status = 'queued'"))
Index("ix_jobs_failed", jobs.c.group_id, **_where("status = 'failed'"))
Index("ix_jobs_leased", jobs.c.lease_until, **_where("status = 'running'"))
# Not (status, …): without statistics SQLite takes an equality on status for the best there is, and sorts.
Index("ix_jobs_ended", jobs.c.ended_at, jobs.c.status)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", Integer, ForeignKey("jobs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", String, nullable=False),
    Column("worker", String),
    Column("metrics", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("error", Text),
    Column("log", Text),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double, nullable=False),
    # The recorder's short lease. The token is new with every lease: it fences a recorder that slept too long.
    Column("token", String),
    Column("recorder", String),
    Column("lease_until", Double),
    Column("tries", Integer, nullable=False),
    Column("run_after", Double),
    Column("last_error", Text),
    UniqueConstraint("job_id", "attempt"),  # an attempt ends once
    CheckConstraint("kind IN ('finished', 'failed')", name="kind"),
    sqlite_autoincrement=True,  # ids are never used again, so "oldest first" and fencing by id hold
)

outbox_files = Table(
    "outbox_files",
    metadata,
    Column("outbox_id", Integer, ForeignKey("outbox.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String, primary_key=True),
    Column("host", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", String, nullable=False),
    Column("batch", String),
    Column("started_at", Double, nullable=False),
    Column("heartbeat", Double, nullable=False),
)
