"""The outbox also holds received instances that are forwarded, what is to take the place of a refused object, and holds by an archive's identity."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("deliveries") as batch_op:
        batch_op.add_column(sa.Column("study_id", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("instance_id", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("version", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("fallback", sa.String(length=16), nullable=False, server_default=""))
    op.execute("UPDATE deliveries SET study_id = (SELECT jobs.study_id FROM jobs WHERE jobs.id = deliveries.job_id)")
    op.drop_index("ix_deliveries_due", table_name="deliveries")
    with op.batch_alter_table("deliveries") as batch_op:
        batch_op.alter_column("study_id", existing_type=sa.Integer(), nullable=False)
        batch_op.alter_column("object_id", existing_type=sa.Integer(), nullable=True)
        batch_op.alter_column("job_id", existing_type=sa.Integer(), nullable=True)
        batch_op.create_foreign_key("fk_deliveries_study_id", "studies", ["study_id"], ["id"])
        batch_op.create_foreign_key("fk_deliveries_instance_id", "instances", ["instance_id"], ["id"])
        batch_op.create_unique_constraint("uq_deliveries_original", ["instance_id", "version", "destination"])
    op.create_index("ix_deliveries_due", "deliveries", ["destination", "state", "job_id", "next_attempt_at"])
    op.create_index("ix_deliveries_study", "deliveries", ["study_id", "destination", "state"])
    op.create_table(
        "identity_holds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("ours", sa.JSON(), nullable=False),
        sa.Column("theirs", sa.JSON(), nullable=False),
        sa.Column("held_at", sa.DateTime(), nullable=False),
        sa.Column("released_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("study_id", "destination"),
    )
