"""What must be there once is kept so by an index; what pages show has one, too."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _clear_repeated_alerts()
    where = sa.text("cleared_at IS NULL")
    op.create_index("ix_alerts_once", "alerts", ["kind", "subject"], unique=True, sqlite_where=where, postgresql_where=where)
    op.create_index("ix_studies_newest", "studies", ["last_arrival"])
    op.create_index("ix_instances_own", "instances", ["study_id"], sqlite_where=sa.text("own = 1"), postgresql_where=sa.text("own"))
    op.create_index("ix_jobs_predecessor_id", "jobs", ["predecessor_id"])


def _clear_repeated_alerts() -> None:
    """Of the same open alert raised twice, the first stays open."""
    alerts = sa.table("alerts", sa.column("id", sa.Integer()), *(sa.column(name, sa.String()) for name in ("kind", "subject")), *_times())
    first = sa.select(sa.func.min(alerts.c.id)).where(alerts.c.cleared_at.is_(None)).group_by(alerts.c.kind, alerts.c.subject)
    op.execute(sa.update(alerts).where(alerts.c.cleared_at.is_(None), alerts.c.id.not_in(first)).values(cleared_at=alerts.c.raised_at))


def _times() -> tuple[sa.ColumnClause[datetime], sa.ColumnClause[datetime]]:
    return sa.column("raised_at", sa.DateTime()), sa.column("cleared_at", sa.DateTime())
