"""What destinations were seen to take, and reports after which something is to be made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "contexts",
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("config", sa.String(length=64), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("destination", "sop_class_uid"),
    )
    op.add_column("deliveries", sa.Column("afterwards", sa.String(length=16), nullable=False, server_default=""))
    op.create_index(
        "ix_deliveries_afterwards",
        "deliveries",
        ["destination"],
        sqlite_where=sa.text("afterwards <> ''"),
        postgresql_where=sa.text("afterwards <> ''"),
    )


def downgrade() -> None:
    op.drop_index("ix_deliveries_afterwards", "deliveries")
    op.drop_column("deliveries", "afterwards")
    op.drop_table("contexts")
