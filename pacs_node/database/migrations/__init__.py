"""Alembic migrations: one file per schema change, run by `pacs_node.database.engine.Store.upgrade`."""
