"""Objects that go in the place of others which a destination does not take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("objects", sa.Column("stands_for", sa.String(length=64), nullable=False, server_default=""))
