"""Which instances were rejected by notes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instances", sa.Column("rejected", sa.String(length=16), nullable=False, server_default=""))
    op.create_table(
        "rejections",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sop_uid", sa.String(length=64), nullable=False),
        sa.Column("note_uid", sa.String(length=64), nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.Column("said_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("note_uid", "sop_uid"),
    )
    op.create_index("ix_rejections_sop_uid", "rejections", ["sop_uid"])


def downgrade() -> None:
    op.drop_index("ix_rejections_sop_uid", "rejections")
    op.drop_table("rejections")
    op.drop_column("instances", "rejected")
