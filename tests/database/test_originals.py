from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import select, text

from pacs_node.database import deliveries, originals, studies
from pacs_node.database.engine import Store
from pacs_node.database.states import DeliveryState, StudyState
from pacs_node.database.tables import DeliveryRow, InstanceRow, SeriesRow, StudyRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MANY = 450


@pytest.fixture
def store(store: Store) -> Store:
    """Give a database with two studies of many instances."""
    for number in (1, 2):
        with store.write() as session:
            study = StudyRow(
                study_uid=f"1.2.{number}", state=StudyState.COMPLETE, patient_id="P", issuer="", patient_name="", birth_date="", accession="", description="",
                first_arrival=NOW, last_arrival=NOW,
            )  # fmt: skip
            session.add(study)
            session.flush()
            series = SeriesRow(study_id=study.id, series_uid=f"1.2.{number}.1", modality="CT", description="")
            session.add(series)
            session.flush()
            session.add_all(
                InstanceRow(
                    study_id=study.id, series_id=series.id, sop_uid=f"1.2.{number}.1.{index}", sop_class_uid="1", transfer_syntax_uid="1",
                    identity=["P", "", "", ""], arrival=f"{number}-{index}", received_at=NOW,
                )
                for index in range(MANY)
            )  # fmt: skip
    return store


def forward(store: Store, number: int, *names: str) -> int:
    with store.write() as session:
        study = studies.get_study(session, number)
        assert study is not None
        return originals.forward(session, study, names, NOW)


def test_an_instance_is_put_into_the_outbox_once_for_each_destination(store: Store) -> None:
    assert forward(store, 1, "archive") == MANY
    assert forward(store, 1, "archive", "other") == MANY
    assert forward(store, 1, "archive", "other") == 0


def test_a_study_of_thousands_is_taken_out_in_batches_in_the_order_of_arrival(store: Store) -> None:
    forward(store, 1, "archive")
    forward(store, 2, "archive")
    seen: list[int] = []
    sizes = []
    while True:
        with store.write() as session:
            batch = deliveries.start(session, deliveries.due_group(session, "archive", NOW), NOW)
            if not batch:
                break
            assert len({row.study_id for row in batch}) == 1
            sizes.append(len(batch))
            seen += [row.instance_id or 0 for row in batch]
    assert sizes == [200, 200, 50, 200, 200, 50]
    assert seen == sorted(seen)


def test_a_new_version_goes_again_and_the_old_one_is_withdrawn(store: Store) -> None:
    forward(store, 1, "archive")
    with store.write() as session:
        originals.cancel(session, 1, "corrected")
        session.get_one(InstanceRow, 1).version = 2
    assert forward(store, 1, "archive") == 1
    with store.read() as session:
        rows = session.scalars(select(DeliveryRow).where(DeliveryRow.instance_id == 1).order_by(DeliveryRow.id)).all()
        assert [(row.version, row.state) for row in rows] == [(1, DeliveryState.CANCELLED), (2, DeliveryState.WAITING)]


def test_a_million_rows_would_be_found_by_an_index(store: Store) -> None:
    where = "destination='a' AND state='waiting' AND job_id IS NULL"
    query = f"EXPLAIN QUERY PLAN SELECT study_id FROM deliveries WHERE {where} ORDER BY next_attempt_at, id LIMIT 1"
    if store.kind != "sqlite":
        pytest.skip("the plans of PostgreSQL depend on what the tables hold")
    with store.read() as session:
        plan = " ".join(str(row) for row in session.execute(text(query)))
    assert "ix_deliveries_due" in plan and "TEMP B-TREE" not in plan.replace("LAST TERM", "")


def test_a_filled_outbox_of_the_version_before_is_upgraded(kind: str, make_database: Callable[..., str]) -> None:
    store = Store(make_database(kind, empty=True))
    folder = Path(deliveries.__file__).parent / "migrations"

    def migrate(target: str) -> None:
        with store.engine.connect().execution_options(writes=True) as connection:
            config = Config()
            config.set_main_option("script_location", str(folder))
            config.attributes["connection"] = connection
            command.upgrade(config, target)
            connection.commit()

    migrate("0002")
    with store.engine.connect().execution_options(writes=True) as connection:
        for table, values in _OLD.items():
            columns = ", ".join(values)
            connection.execute(sa.text(f"INSERT INTO {table} ({columns}) VALUES ({', '.join(f':{name}' for name in values)})"), values)
        connection.commit()
    migrate("head")
    with store.read() as session:
        row = session.scalars(select(DeliveryRow)).one()
        assert (row.study_id, row.job_id, row.object_id, row.kind, row.fallback) == (1, 1, 1, "sr", "")
    store.close()


_AT = "2026-01-01 00:00:00.000000"
_OLD: dict[str, dict[str, object]] = {
    "studies": {
        "id": 1, "study_uid": "1.2", "state": "complete", "patient_id": "P", "issuer": "", "patient_name": "", "birth_date": "", "accession": "",
        "description": "", "first_arrival": _AT, "last_arrival": _AT, "waiting_for": "", "outcome": "", "held_reason": "", "released_identities": "[]",
        "decisions": "[]",
    },
    "jobs": {
        "id": 1, "study_id": 1, "pipeline": "ct", "series_uids": "[]", "rules": "[]", "targets": "[]", "digest": "d", "state": "done", "priority": 1, "run": 1,
        "complete_reason": "", "partial": False, "attempts": 1, "not_before": _AT, "worker": "", "created_at": _AT, "progress": 1.0, "reason": "",
        "told": False, "finding": "{}",
    },
    "objects": {
        "id": 1, "job_id": 1, "run": 1, "variant": "sr", "kind": "sr", "sop_uid": "1.2.3", "sop_class_uid": "1", "series_uid": "1", "transfer_syntax_uid": "1",
        "path": "p", "sha256": "s", "position": 3, "faults": "[]",
    },
    "deliveries": {
        "id": 1, "object_id": 1, "job_id": 1, "destination": "archive", "position": 3, "state": "waiting", "attempts": 0, "next_attempt_at": _AT, "message": "",
    },
}  # fmt: skip
