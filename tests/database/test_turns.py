"""What the second revision of the schema makes of jobs that were made before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import select, text

import pacs_node.database.migrations
from pacs_node.database.engine import Store, database_url
from pacs_node.database.tables import HEAD_START, JobRow

MADE = datetime(2026, 1, 1, tzinfo=UTC)


def test_jobs_of_the_first_schema_keep_their_order(tmp_path: Path) -> None:
    store = Store(database_url(None, tmp_path))
    with store.engine.connect().execution_options(writes=True) as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(pacs_node.database.migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        study = "1, '1.2', 'complete', '', '', '', '', '', '', '2026-01-01', '2026-01-01', NULL, '', '', '', '[]', '[]'"
        connection.execute(text(f"INSERT INTO studies VALUES ({study})"))
        for number, priority, state in ((1, 0, "queued"), (2, 1, "parked"), (3, 2, "queued"), (4, 2, "done")):
            columns = (
                "id, study_id, pipeline, series_uids, rules, targets, digest, state, priority, run, complete_reason, partial, attempts, not_before, worker"
            )
            values = f"{number}, 1, 'ct', '[]', '[]', '[]', '', '{state}', {priority}, 1, '', false, 0, '2026-01-01', ''"
            more = "created_at, progress, reason, told, finding", "'2026-01-01 00:00:00.000000', 0, '', false, '{}'"
            connection.execute(text(f"INSERT INTO jobs ({columns}, {more[0]}) VALUES ({values}, {more[1]})"))
        connection.commit()
    store.upgrade()
    with store.read() as session:
        jobs = session.scalars(select(JobRow).order_by(JobRow.id)).all()
        assert [job.turn - MADE for job in jobs] == [HEAD_START[0], HEAD_START[1], HEAD_START[2], timedelta(0)]
        assert {(job.rung, job.shadow, tuple(job.shadow_rules)) for job in jobs} == {(0, False, ())}
    store.close()
