"""A house whose finished studies retention looks after: what the tests of retention share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select

from pacs_node.database.alerts import open_alerts
from pacs_node.journey.retire import retire
from pacs_node.reception.pressure import Disk
from pacs_node.retention.sweep import Swept
from pacs_node.workbench.fsck import examine
from tests.journey.support import RULES, Town

ROOM = Disk(free=900, capacity=1000)
FULL = Disk(free=100, capacity=1000)
MARKS = {
    "rules": RULES.replace("send_to", "results: [sr]\n    send_to"),  # one object a job: quick to build
    "reception": {"reserve": "0B"},
    "retention": {"keep": "14d", "high_watermark": "85%"},
}
NOBODY_ANSWERS = {"kind": "dicom", "ae_title": "DEAD", "address": "127.0.0.1", "port": 9, "accepts_research": True}


def files(town: Town, folder: str) -> list[Path]:
    return sorted((town.house.data / folder).rglob("*.dcm"))


def look(town: Town, **span: float) -> Swept:
    town.wait(**span)
    return retire(town.house, town.clock)


def alerts(town: Town, kind: str) -> list[str]:
    with town.house.store.read() as session:
        return [alert.message for alert in open_alerts(session) if alert.kind == kind]


def row_of(town: Town, table: type, number: int = 1) -> Any:
    with town.house.store.read() as session:
        row = session.get(table, number)
        assert row is not None
        session.expunge_all()
        return row


def rows(town: Town, table: type) -> list:
    with town.house.store.read() as session:
        return list(session.scalars(select(table).order_by(table.id)))


def whats(town: Town) -> list[str]:
    return [finding.what for finding in examine(town.settings, repair=False, deep=True).findings]
