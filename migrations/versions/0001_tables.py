"""The tables: groups, jobs, outbox, outbox_files, workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

QUEUED = {"sqlite_where": sa.text("status = 'queued'"), "postgresql_where": sa.text("status = 'queued'")}
RUNNING = {"sqlite_where": sa.text("status = 'running'"), "postgresql_where": sa.text("status = 'running'")}


def upgrade() -> None:
    op.create_table(
        "groups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("resolved", sa.Text()),
        sa.Column("parent_run_id", sa.String()),
        sa.Column("newest", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
        sa.UniqueConstraint("study", "model", "task", "digest", name="uq_groups_study_model_task_digest"),
    )
    op.create_index(
        "uq_groups_newest",
        "groups",
        ["study", "model", "task"],
        unique=True,
        sqlite_where=sa.text("newest"),
        postgresql_where=sa.text("newest"),
    )

    op.create_table(
        "workers",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("batch", sa.String()),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("heartbeat", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_workers"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("max_tries", sa.Integer(), nullable=False),
        sa.Column("infra", sa.Integer(), nullable=False),
        sa.Column("run_after", sa.Double()),
        sa.Column("worker", sa.String()),
        sa.Column("leased_at", sa.Double()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("failure", sa.String()),
        sa.Column("error", sa.Text()),
        sa.Column("run_id", sa.String()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double()),
        sa.Column("ended_at", sa.Double()),
        sa.CheckConstraint("status <> 'done' OR run_id IS NOT NULL", name="done_is_recorded"),
        sa.CheckConstraint(
            "status <> 'running' OR (worker IS NOT NULL AND lease_until IS NOT NULL)", name="running_is_leased"
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'computed', 'done', 'failed', 'cancelled', 'superseded')",
            name="status",
        ),
        sa.CheckConstraint("tries >= 0 AND attempt >= 0", name="counts"),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_jobs_group_id"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("group_id", "layer", name="uq_jobs_group_id_layer"),
    )
    op.create_index("ix_jobs_leased", "jobs", ["lease_until"], **RUNNING)
    op.create_index("ix_jobs_queued", "jobs", [sa.text("priority DESC"), "id"], **QUEUED)
    op.create_index("ix_jobs_queued_group", "jobs", ["group_id", sa.text("priority DESC"), "id"], **QUEUED)
    op.create_index("ix_jobs_queued_model", "jobs", ["model", sa.text("priority DESC"), "id"], **QUEUED)
    op.create_index("ix_jobs_ended", "jobs", ["ended_at", "status"])

    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("worker", sa.String()),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("log", sa.Text()),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=False),
        sa.Column("token", sa.String()),
        sa.Column("recorder", sa.String()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("run_after", sa.Double()),
        sa.Column("last_error", sa.Text()),
        sa.CheckConstraint("kind IN ('finished', 'failed')", name="kind"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_outbox_job_id"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("job_id", "attempt", name="uq_outbox_job_id_attempt"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "outbox_files",
        sa.Column("outbox_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["outbox_id"], ["outbox.id"], name="fk_outbox_files_outbox_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("outbox_id", "name", name="pk_outbox_files"),
    )


def downgrade() -> None:
    for table in ("outbox_files", "outbox", "jobs", "workers", "groups"):
        op.drop_table(table)
