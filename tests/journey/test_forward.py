"""Originals on their way through the node: forwarded as received, once, before the results that refer to them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs_node.database import alerts, deliveries, originals
from pacs_node.database.states import DeliveryState
from pacs_node.delivery.archive import FolderArchive, Script
from pacs_node.delivery.cstore import probe
from pacs_node.dicom.uids import node_device_uid
from pacs_node.journey.operate import retry_delivery, retry_parked
from pacs_node.workbench import tables
from tests.journey.support import Town, ct_slice, ct_study, encode_body
from tests.node.support import free_port, wait_until
from tests.reception.peers import dataset_bytes, tool_path

RULES = """
rules:
  - name: head CT
    when: {Modality: CT}
    pipeline: ct-test
    send_to: [archive]
    forward: [archive, research]
"""
ONLY_FORWARD = """
rules:
  - name: through
    when: {Modality: CT}
    pipeline: null
    results: []
    forward: [archive, research]
"""
Make = Callable[..., Town]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[FolderArchive]:
    with FolderArchive(tmp_path / "archive", "ARCHIVE") as started:
        yield started


def between(make_town: Make, port: int, folder: Path, rules: str = RULES) -> Town:
    destinations = {
        "archive": {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": port, "accepts_research": True},
        "research": {"kind": "folder", "path": str(folder / "out")},
    }
    return make_town(rules=rules, destinations=destinations)


def states(town: Town, destination: str, kind: str = "original") -> list[DeliveryState]:
    with town.house.store.read() as session:
        return [row.state for row in deliveries.list_deliveries(session, 10_000) if row.destination == destination and row.kind == kind]


def messages(town: Town) -> list[str]:
    with town.house.store.read() as session:
        return [alert.message for alert in alerts.open_alerts(session)]


def test_a_study_goes_on_as_it_was_received_and_before_the_results_that_refer_to_it(make_town: Make, archive: FolderArchive, tmp_path: Path) -> None:
    town = between(make_town, archive.port, tmp_path)
    study = ct_study()
    town.send(study)
    town.settle()
    assert archive.received[:6] == [str(ds.SOPInstanceUID) for ds in study]
    assert len(archive.received) == 9
    for ds in study:
        assert dataset_bytes(archive.path_of(str(ds.SOPInstanceUID))) == encode_body(ds)
        (copy,) = (tmp_path / "out").rglob(f"{ds.SOPInstanceUID}.dcm")
        assert dataset_bytes(copy) == encode_body(ds)
    assert messages(town) == []


def test_a_rule_without_pipeline_forwards_and_says_so(make_town: Make, archive: FolderArchive, tmp_path: Path) -> None:
    town = between(make_town, archive.port, tmp_path, ONLY_FORWARD)
    town.send(ct_study())
    town.settle()
    assert len(archive.received) == 6
    (row,) = tables.status_tables(town.settings)["studies"]
    assert row["outcome"] == "originals to archive; originals to research"
    lines = [(line["kind"], line["count"], line["destination"], line["state"]) for line in tables.delivery_rows(town.settings, 50)]
    assert sorted(lines) == [("original", 6, "archive", "delivered"), ("original", 6, "research", "delivered")]


def test_late_instances_follow_once_they_are_complete_and_nothing_goes_twice(make_town: Make, archive: FolderArchive, tmp_path: Path) -> None:
    town = between(make_town, archive.port, tmp_path, ONLY_FORWARD)
    study = ct_study(8)
    town.send(study[:5])
    town.settle()
    town.send([*study[5:], study[0]])  # one is a duplicate
    town.gather()
    town.post()
    assert len(archive.received) == 5
    town.settle()
    town.restart()
    town.settle()
    assert archive.received == [str(ds.SOPInstanceUID) for ds in study]


def test_what_this_node_made_is_never_forwarded(make_town: Make, archive: FolderArchive, tmp_path: Path) -> None:
    town = between(make_town, archive.port, tmp_path, ONLY_FORWARD)
    marked = ct_slice(9)
    item = ct_slice(0)
    item.clear()
    item.DeviceUID, item.Manufacturer = node_device_uid("test"), "test"
    marked.ContributingEquipmentSequence = [item]
    town.send([*ct_study(), marked])
    town.settle()
    assert str(marked.SOPInstanceUID) not in archive.received and len(archive.received) == 6


def test_a_corrected_instance_goes_again_and_what_is_out_under_the_old_name_is_said(make_town: Make, archive: FolderArchive, tmp_path: Path) -> None:
    town = between(make_town, archive.port, tmp_path, ONLY_FORWARD)
    town.send(ct_study())
    town.settle()
    town.send(ct_study(patient="P2"))
    town.settle()
    assert len(archive.received) == 12
    assert {str(dcmread(archive.path_of(uid)).PatientID) for uid in archive.received} == {"P2"}
    (message,) = messages(town)
    assert "6 original instances (to archive) and 6 original instances (to research) of study 1" in message and "has been corrected since" in message


def test_a_correction_before_the_send_replaces_what_waited(make_town: Make, tmp_path: Path) -> None:
    town = between(make_town, free_port(), tmp_path, ONLY_FORWARD)
    town.send(ct_study())
    town.settle()
    assert set(states(town, "archive")) == {DeliveryState.WAITING}
    town.send(ct_study(patient="P2"))
    town.settle()
    assert sorted(states(town, "archive")) == [DeliveryState.CANCELLED] * 6 + [DeliveryState.WAITING] * 6
    port = town.settings.destinations["archive"].port
    with FolderArchive(tmp_path / "archive", "ARCHIVE", port) as archive:
        town.wait(hours=2)
        town.post()
        assert {str(dcmread(archive.path_of(uid)).PatientID) for uid in archive.received} == {"P2"} and len(archive.received) == 6
    assert any("(to research)" in message and "(to archive)" not in message for message in messages(town))


def test_originals_of_a_study_of_two_patients_go_nowhere(make_town: Make, archive: FolderArchive, tmp_path: Path) -> None:
    town = between(make_town, archive.port, tmp_path, ONLY_FORWARD)
    town.send([*ct_study(3), ct_slice(4, patient="P2")])
    town.settle()
    assert archive.received == [] and any("is held" in message for message in messages(town))


def test_an_archive_that_is_off_delays_no_other_and_gets_all_in_order_once_it_is_back(make_town: Make, tmp_path: Path) -> None:
    port = free_port()
    town = between(make_town, port, tmp_path)
    town.send(ct_study())
    town.settle()
    assert states(town, "research") == [DeliveryState.DELIVERED] * 6
    assert states(town, "archive") == [DeliveryState.WAITING] * 6 and states(town, "archive", "sr") == [DeliveryState.WAITING]
    with FolderArchive(tmp_path / "archive", "ARCHIVE", port) as archive:
        town.wait(hours=2)
        town.post()
        classes = [dcmread(archive.path_of(uid)).SOPClassUID.keyword for uid in archive.received]
    assert classes[:6] == ["CTImageStorage"] * 6 and classes[-1] == "Comprehensive3DSRStorage" and len(classes) == 9


def test_an_encoding_that_the_archive_does_not_take_is_refused_for_that_object_and_never_changed(make_town: Make, tmp_path: Path) -> None:
    script = Script(transfer_syntaxes=frozenset({ImplicitVRLittleEndian}))
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=script) as archive:
        town = between(make_town, archive.port, tmp_path)
        implicit = ct_slice(5)
        implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        town.send([*ct_study(5), implicit])
        town.settle()
        assert sorted(states(town, "archive")) == [DeliveryState.DELIVERED] + [DeliveryState.REFUSED] * 5
        (message,) = messages(town)  # one for all of them
        assert ExplicitVRLittleEndian.name in message and message.startswith("original instances of study 1 to archive that were refused: 5,")
        assert archive.received[0] == implicit.SOPInstanceUID
        assert states(town, "archive", "sr") == [DeliveryState.DELIVERED]  # in the default encoding; it waits for no refused original
    stuck = [row for row in tables.delivery_rows(town.settings, 50) if row["state"] == "refused"]
    assert len(stuck) == 5 and all(row["kind"] == "original" and row["count"] == 1 for row in stuck)
    retry_delivery(town.house.store, stuck[0]["id"], town.clock)
    assert len(messages(town)) == 1  # the others still are
    assert "4 deliveries are due now" in retry_parked(town.house.store, town.clock)
    assert messages(town) == []


def test_one_instance_that_the_archive_cannot_take_now_holds_up_neither_the_others_nor_for_long_the_results(make_town: Make, tmp_path: Path) -> None:
    study = ct_study()
    script = Script(statuses={str(study[1].SOPInstanceUID): 0xA700})
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=script) as archive:
        town = between(make_town, archive.port, tmp_path)
        town.send(study)
        town.settle()
        assert len(archive.received) == 5 and states(town, "archive", "sr") == [DeliveryState.WAITING]
        for _ in range(3):
            town.wait(minutes=5)
            town.post()
        assert states(town, "archive", "sr") == [DeliveryState.DELIVERED]
        archive.script = Script()
        town.wait(hours=2)
        town.post()
        assert states(town, "archive") == [DeliveryState.DELIVERED] * 6


def test_what_a_dead_process_left_in_the_middle_is_sent_again(make_town: Make, archive: FolderArchive, tmp_path: Path) -> None:
    town = between(make_town, archive.port, tmp_path, ONLY_FORWARD)
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()
    with town.house.store.write() as session:
        deliveries.start(session, deliveries.due_group(session, "archive", town.clock)[:3], town.clock)
    town.restart()
    town.post()
    town.wait(minutes=2)
    town.post()
    assert sorted(archive.received) == sorted(str(ds.SOPInstanceUID) for ds in ct_study())
    assert states(town, "archive") == [DeliveryState.DELIVERED] * 6


def test_retention_is_told_which_studies_still_need_their_originals(make_town: Make, archive: FolderArchive, tmp_path: Path) -> None:
    town = between(make_town, archive.port, tmp_path, ONLY_FORWARD)
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()
    with town.house.store.read() as session:
        assert originals.studies_that_need_originals(session, [1, 2]) == {1}
    town.post()
    with town.house.store.read() as session:
        assert originals.studies_that_need_originals(session, [1, 2]) == set()


@pytest.mark.peers
def test_storescp_stopped_and_started_gets_each_original_byte_for_byte(make_town: Make, tmp_path: Path) -> None:
    port, kept = free_port(), tmp_path / "kept"
    program = tool_path("storescp")
    kept.mkdir()
    town = between(make_town, port, tmp_path, ONLY_FORWARD)
    study = ct_study()
    town.send(study)
    town.settle()
    assert states(town, "archive") == [DeliveryState.WAITING] * 6
    with subprocess.Popen([program, "+xa", "-B", "-od", str(kept), str(port)]) as process:
        try:
            wait_until(lambda: probe(town.settings.destinations["archive"], "TEST", []).reachable, "it runs")  # type: ignore[arg-type]
            town.wait(hours=2)
            town.post()
        finally:
            process.terminate()
    assert states(town, "archive") == [DeliveryState.DELIVERED] * 6
    assert sorted(dataset_bytes(path) for path in kept.iterdir()) == sorted(encode_body(ds) for ds in study)
