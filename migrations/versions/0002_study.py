"""Jobs know their study: claims of one study, and the list of failures, stay flat at a million rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

QUEUED = {"sqlite_where": sa.text("status = 'queued'"), "postgresql_where": sa.text("status = 'queued'")}
FAILED = {"sqlite_where": sa.text("status = 'failed'"), "postgresql_where": sa.text("status = 'failed'")}


def upgrade() -> None:
    # A default, so that SQLite need not build the table anew; no row keeps it.
    op.add_column("jobs", sa.Column("study", sa.String(), nullable=False, server_default=""))
    op.execute("UPDATE jobs SET study = (SELECT study FROM groups WHERE groups.id = jobs.group_id)")
    op.create_index("ix_jobs_queued_study", "jobs", ["study", sa.text("priority DESC"), "id"], **QUEUED)
    op.create_index("ix_jobs_failed", "jobs", ["group_id"], **FAILED)


def downgrade() -> None:
    for index in ("ix_jobs_failed", "ix_jobs_queued_study"):
        op.drop_index(index, "jobs")
    op.drop_column("jobs", "study")
