"""The audit trail: rows linked by hashes, which the database refuses to change or to remove; and where copies of it stand.

A later migration that alters the table ``audit`` in batch mode (SQLite) has to make its triggers again: `guard`.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from pacs_node.database.audit import GENESIS, link
from pacs_node.database.tables import UTCTime
from pacs_node.records import AuditEntry

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_REFUSAL = "the audit trail is only ever added to"
_PAGE = 1000  # rows

_AUDIT = sa.table(
    "audit",
    *(sa.column(name, kind) for name, kind in (("id", sa.Integer), ("at", UTCTime), ("actor", sa.String), ("action", sa.String), ("subject", sa.String))),
    sa.column("detail", sa.JSON),
    sa.column("hash", sa.String),
)


def upgrade() -> None:
    op.add_column("audit", sa.Column("hash", sa.String(length=64), nullable=False, server_default=""))
    _chain(op.get_bind())
    guard()
    op.create_table(
        "audit_places",
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("try_again_at", sa.DateTime(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _chain(connection: sa.Connection) -> None:
    """Link the rows that were written before there was a chain: from now on they cannot be changed unnoticed either."""
    before, query = GENESIS, sa.select(_AUDIT).order_by(_AUDIT.c.id).limit(_PAGE)
    page: list[Any] = list(connection.execute(query))
    while page:
        changes = []
        for row in page:
            before = link(before, AuditEntry(row.id, row.at, row.actor, row.action, row.subject, row.detail))
            changes.append({"number": row.id, "linked": before})
        connection.execute(sa.update(_AUDIT).where(_AUDIT.c.id == sa.bindparam("number")).values(hash=sa.bindparam("linked")), changes)
        page = list(connection.execute(query.where(_AUDIT.c.id > page[-1].id)))


def guard() -> None:
    """Have the database itself refuse to change and to remove rows, and to add one anywhere but at the end (which REPLACE would do, too)."""
    inner = "NEW.id <= (SELECT max(id) FROM audit)"
    if op.get_bind().dialect.name == "sqlite":
        for name, what in (("update", "UPDATE ON audit"), ("delete", "DELETE ON audit"), ("insert", f"INSERT ON audit WHEN {inner}")):
            op.execute(f"CREATE TRIGGER audit_no_{name} BEFORE {what} BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END")
        return
    refuse = f"RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'restrict_violation'"
    op.execute(f"CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {refuse}; END $$")
    op.execute(f"CREATE FUNCTION audit_at_the_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {inner} THEN {refuse}; END IF; RETURN NEW; END $$")
    op.execute("CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_refuse()")
    op.execute("CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()")
    op.execute("CREATE TRIGGER audit_no_insert BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_at_the_end()")


def downgrade() -> None:
    op.drop_table("audit_places")
    if op.get_bind().dialect.name == "sqlite":
        for what in ("update", "delete", "insert"):
            op.execute(f"DROP TRIGGER audit_no_{what}")
    else:
        op.execute("DROP TRIGGER audit_no_change ON audit")
        op.execute("DROP TRIGGER audit_no_truncate ON audit")
        op.execute("DROP TRIGGER audit_no_insert ON audit")
        op.execute("DROP FUNCTION audit_refuse()")
        op.execute("DROP FUNCTION audit_at_the_end()")
    op.drop_column("audit", "hash")
