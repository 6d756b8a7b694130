"""Delivery to an archive that is off, slow to come back, or refuses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from pacs_node.config import Settings
from pacs_node.database import alerts, deliveries
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import DestinationRow
from pacs_node.delivery.archive import FolderArchive, Script
from pacs_node.delivery.backoff import Policy
from pacs_node.journey import deliver
from pacs_node.journey.operate import retry_parked
from pacs_node.workbench import tables
from tests.journey.support import Town, ct_study
from tests.node.support import free_port

RULES = """
rules:
  - name: head CT
    when: {Modality: CT, BodyPartExamined: HEAD}
    pipeline: ct-test
    send_to: [archive, research]
"""
Make = Callable[..., Town]


def town_with(make_town: Make, port: int, folder: Path) -> Town:
    destinations = {
        "archive": {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": port, "accepts_research": True},
        "research": {"kind": "folder", "path": str(folder / "out")},
    }
    return make_town(rules=RULES, destinations=destinations)


def states(town: Town, destination: str) -> list[DeliveryState]:
    with town.house.store.read() as session:
        return [row.state for row in deliveries.list_deliveries(session) if row.destination == destination]


def messages(town: Town) -> list[str]:
    with town.house.store.read() as session:
        return [alert.message for alert in alerts.open_alerts(session)]


def test_an_archive_that_is_off_delays_no_other_and_gets_everything_once_it_is_back(make_town: Make, tmp_path: Path) -> None:
    port = free_port()
    town = town_with(make_town, port, tmp_path)
    town.send(ct_study())
    town.settle()
    assert states(town, "research") == [DeliveryState.DELIVERED] * 4
    assert states(town, "archive") == [DeliveryState.WAITING] * 3
    for _ in range(4):
        town.wait(minutes=10)
        town.post()
    assert any("archive is down since" in message for message in messages(town))
    status = {row["name"]: row for row in tables.status_tables(town.settings)["destinations"]}
    assert "failing since" in status["archive"]["state"]
    assert (status["archive"]["waiting"], status["research"]["delivered"]) == (3, 4)
    archive = FolderArchive(tmp_path / "archive", "ARCHIVE", port).start()
    try:
        town.wait(hours=2)
        town.post()
    finally:
        archive.stop()
    assert states(town, "archive") == [DeliveryState.DELIVERED] * 3
    assert len(archive.received) == 3
    assert messages(town) == []


def test_what_is_referenced_arrives_before_what_refers_to_it(make_town: Make, tmp_path: Path) -> None:
    archive = FolderArchive(tmp_path / "archive", "ARCHIVE").start()
    try:
        town = town_with(make_town, archive.port, tmp_path)
        town.send(ct_study())
        town.settle()
    finally:
        archive.stop()
    from pydicom import dcmread

    classes = [dcmread(archive.path_of(uid)).SOPClassUID.keyword for uid in archive.received]
    assert classes[-1] == "Comprehensive3DSRStorage"


def test_an_archive_that_refuses_one_kind_still_gets_the_others_and_the_operator_is_told(make_town: Make, tmp_path: Path) -> None:
    parametric_map = "1.2.840.10008.5.1.4.1.1.30"
    archive = FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(refused_classes=frozenset({parametric_map}))).start()
    try:
        town = town_with(make_town, archive.port, tmp_path)
        town.send(ct_study())
        town.settle()
        assert sorted(states(town, "archive")) == [DeliveryState.DELIVERED, DeliveryState.DELIVERED, DeliveryState.REFUSED]
        assert any("was refused" in message and "retry delivery" in message for message in messages(town))
        for _ in range(3):
            town.wait(hours=5)
            town.post()
        assert len(archive.received) == 2  # a refusal is not tried again by itself
    finally:
        archive.stop()


def test_a_temporary_answer_holds_back_what_comes_after_it_and_is_tried_again(make_town: Make, tmp_path: Path) -> None:
    parametric_map = "1.2.840.10008.5.1.4.1.1.30"
    archive = FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(statuses={parametric_map: 0xA700})).start()
    try:
        town = town_with(make_town, archive.port, tmp_path)
        town.send(ct_study())
        town.settle()
        assert archive.received == []
        archive.script = Script()
        town.wait(hours=2)
        town.post()
        assert states(town, "archive") == [DeliveryState.DELIVERED] * 3
    finally:
        archive.stop()


def test_a_duplicate_that_nobody_can_prove_is_parked_in_the_end_and_said(make_town: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "POLICY", Policy(give_up_after=timedelta(hours=1)))
    report = "1.2.840.10008.5.1.4.1.1.88.34"
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(statuses={report: 0x0111})) as archive:
        town = town_with(make_town, archive.port, tmp_path)
        town.send(ct_study())
        town.settle()
        for _ in range(15):
            town.wait(hours=2)
            town.post()
        assert sorted(states(town, "archive")) == [DeliveryState.DELIVERED, DeliveryState.DELIVERED, DeliveryState.PARKED]
    (message,) = messages(town)
    assert "takes no queries" in message and "retry delivery" in message


@pytest.mark.slow
def test_after_days_of_silence_a_delivery_is_parked_and_one_command_sends_it(make_town: Make, tmp_path: Path) -> None:
    port = free_port()
    town = town_with(make_town, port, tmp_path)
    town.send(ct_study())
    town.settle()
    for _ in range(120):
        town.wait(hours=2)
        town.post()
        if states(town, "archive") == [DeliveryState.PARKED] * 3:
            break
    assert states(town, "archive") == [DeliveryState.PARKED] * 3
    archive = FolderArchive(tmp_path / "archive", "ARCHIVE", port).start()
    try:
        assert "3 deliveries are due now" in retry_parked(town.house.store, town.clock)
        town.post()
    finally:
        archive.stop()
    assert states(town, "archive") == [DeliveryState.DELIVERED] * 3
    with town.house.store.read() as session:
        row = session.scalars(select(DestinationRow).where(DestinationRow.name == "archive")).one()
        assert (row.failures, row.down_since) == (0, None)


def test_a_destination_that_did_not_agree_to_research_results_gets_none(make_town: Make, tmp_path: Path) -> None:
    destinations = {"archive": {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": free_port()}}
    town = make_town(rules=RULES.replace(", research", ""), destinations=destinations)
    assert isinstance(town.settings, Settings)
    town.send(ct_study())
    town.settle()
    assert states(town, "archive") == []


@pytest.mark.parametrize("kinds", ["[sr]", "[sr, sc]", "[sr, seg]"])
def test_a_rule_gets_exactly_the_kinds_it_asks_for_as_far_as_they_can_be_made(make_town: Make, kinds: str) -> None:
    town = make_town(rules=RULES.replace("    send_to", f"    results: {kinds}\n    send_to").replace("archive, ", ""))
    town.send(ct_study())
    town.settle()
    made = {"SR": "sr", "OT": "sc"}
    wanted = {kind for kind in kinds.strip("[]").split(", ") if kind != "seg"}
    assert {made[str(result.Modality)] for result in town.results()} == wanted
