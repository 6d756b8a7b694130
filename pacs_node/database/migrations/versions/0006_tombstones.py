"""Tombstones: rows stay when retention removes files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("studies", "instances", "aside", "jobs", "objects"):
        op.add_column(table, sa.Column("removed_at", sa.DateTime(), nullable=True))
    op.add_column("studies", sa.Column("removed_reason", sa.Text(), nullable=False, server_default=""))
    op.add_column("instances", sa.Column("copy", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("instances", sa.Column("fingerprint", sa.String(length=64), nullable=False, server_default=""))
    op.create_index("ix_studies_retention", "studies", ["removed_at", "last_arrival", "id"])
    op.create_index("ix_jobs_retention", "jobs", ["removed_at", "finished_at", "id"])
    op.create_index("ix_aside_retention", "aside", ["removed_at", "received_at", "id"])
    op.create_table(
        "removals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("path"),
    )


def downgrade() -> None:
    op.drop_table("removals")
    for table in ("studies", "jobs", "aside"):
        op.drop_index(f"ix_{table}_retention", table)
    for table, column in (("studies", "removed_reason"), ("instances", "copy"), ("instances", "fingerprint")):
        op.drop_column(table, column)
    for table in ("studies", "instances", "aside", "jobs", "objects"):
        op.drop_column(table, "removed_at")
