"""Jobs: the order in which they are claimed, how far down the ladder they came, and those that are only tried."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_HEAD_START = {1: timedelta(hours=2), 2: timedelta(hours=12)}  # of urgent jobs before normal and night ones, as it was in this revision


def upgrade() -> None:
    op.add_column("jobs", sa.Column("turn", sa.DateTime(), nullable=False, server_default="2000-01-01 00:00:00.000000"))
    op.add_column("jobs", sa.Column("rung", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("shadow", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("shadow_rules", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("objects", sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("objects", sa.Column("withheld", sa.JSON(), nullable=False, server_default="[]"))
    op.drop_index("ix_jobs_claim", table_name="jobs")
    op.create_index("ix_jobs_claim", "jobs", ["state", "turn", "id"])
    _take_turns()


def _take_turns() -> None:
    jobs = sa.table("jobs", sa.column("id", sa.Integer()), sa.column("priority", sa.Integer()), sa.column("state", sa.String()), *_times())
    connection = op.get_bind()
    connection.execute(sa.update(jobs).values(turn=jobs.c.created_at))
    waiting = sa.select(jobs.c.id, jobs.c.priority, jobs.c.created_at).where(jobs.c.state.in_(("queued", "running", "parked")), jobs.c.priority > 0)
    for number, priority, created_at in connection.execute(waiting).all():
        connection.execute(sa.update(jobs).where(jobs.c.id == number).values(turn=created_at + _HEAD_START[priority]))


def _times() -> tuple[sa.ColumnClause[datetime], sa.ColumnClause[datetime]]:
    return sa.column("created_at", sa.DateTime()), sa.column("turn", sa.DateTime())
