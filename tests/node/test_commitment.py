"""Storage commitment with real processes: Orthanc asks us and is asked by us; an archive reports on associations of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pacs_node.config import DicomDestination
from pacs_node.database import deliveries
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import DeliveryRow
from pacs_node.delivery import cstore
from pacs_node.dicom.commitment import Report
from pacs_node.records import Outcome
from pacs_node.workbench.tables import open_store
from tests.delivery.committing import CommittingArchive
from tests.journey.support import ct_study
from tests.node.orthanc import Orthanc
from tests.node.support import NodeProcess, wait_until
from tests.node.test_processes import write

FORWARD = """
rules:
  - name: CT
    when: {Modality: CT}
    pipeline: null
    results: []
    forward: [archive]
  - name: anything else
    otherwise: true
    pipeline: null
    results: []
"""
Make = Callable[..., NodeProcess]


def rows(node: NodeProcess) -> list[DeliveryRow]:
    if not node.has_tables():
        return []
    with open_store(node.settings) as store, store.read() as session:
        return list(deliveries.list_deliveries(session))


def states(node: NodeProcess) -> list[DeliveryState]:
    return [row.state for row in rows(node)]


def send(node: NodeProcess, folder: Path, count: int = 4) -> list[Outcome]:
    outcomes: list[Outcome] = []
    cstore.deliver(node.address, write(folder, ct_study(count)), "CT1", outcomes.append)
    assert all(outcome.delivered for outcome in outcomes)
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("roles", [True, False], ids=["as the SCP", "without a word about roles"])
def test_an_archive_reports_to_any_of_our_receivers_on_an_association_of_its_own(make_node: Make, tmp_path: Path, roles: bool) -> None:
    with CommittingArchive(when="new", roles=roles) as archive:
        target = {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": archive.port, "commitment": True}
        node = make_node(rules=FORWARD, destinations={"archive": target})
        archive.reports_to = node.port
        node.start()
        send(node, tmp_path / "study")
        wait_until(lambda: states(node) == [DeliveryState.DELIVERED] * 4, "the archive has committed")
        archive.settle()
        assert archive.answers == [0x0000] and all(row.committed_at is not None for row in rows(node))
        archive.send_report(Report("1.2.3.4", archive.requests[0].references))  # an unknown transaction
        assert archive.answers[-1] == 0x0000
        wait_until(lambda: "unknown transaction" in node.log(), "it is said")


@pytest.mark.slow
def test_a_report_that_comes_after_a_kill_of_the_whole_node_still_counts(make_node: Make, tmp_path: Path) -> None:
    with CommittingArchive(when="never") as archive:
        target = {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": archive.port, "commitment": True}
        node = make_node(rules=FORWARD, destinations={"archive": target})
        archive.reports_to = node.port
        node.start()
        send(node, tmp_path / "study")
        wait_until(lambda: archive.requests, "the archive is asked")
        node.kill()
        node.start()
        archive.report_anew(archive.requests[0])
        wait_until(lambda: states(node) == [DeliveryState.DELIVERED] * 4, "the archive has committed")
        assert len(archive.sent) == 4


@pytest.fixture
def orthancs(tmp_path: Path, tool: Callable[[str], str]) -> Iterator[Callable[[str, int], Orthanc]]:
    """Give a function that starts an Orthanc of a name which may exchange storage commitment with a node on a port."""
    running: list[Orthanc] = []

    def start(name: str, port: int) -> Orthanc:
        node = {"AET": "PACS_NODE", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
        running.append(Orthanc(tmp_path / name, tool("Orthanc"), DicomModalities={"node": node}, DicomAet=name))
        return running[-1].start()

    yield start
    for orthanc in running:
        orthanc.close()


@pytest.mark.peers
@pytest.mark.slow
def test_orthanc_hears_from_us_that_another_orthanc_has_committed(make_node: Make, orthancs: Callable[[str, int], Orthanc], tmp_path: Path) -> None:
    node = make_node(rules=FORWARD)
    archive, modality = orthancs("ARCHIVE", node.port), orthancs("MODALITY", node.port)
    places: dict[str, Any] = {name: {**orthanc.place, "ae_title": name} for name, orthanc in (("ARCHIVE", archive), ("MODALITY", modality))}
    destinations = {"archive": {**places["ARCHIVE"], "commitment": True}, "modality": places["MODALITY"]}
    node = make_node(rules=FORWARD, node={"port": node.port}, destinations=destinations, reception={"commitment": True})
    node.port = node.settings.node.port
    node.start()
    cstore.deliver(DicomDestination.model_validate(places["MODALITY"]), write(tmp_path / "study", ct_study(4)), "CONSOLE", lambda outcome: None)
    (study,) = modality.ask("/studies")
    answer = modality.ask("/modalities/node/store", {"Resources": [study], "StorageCommitment": True, "Synchronous": True})
    uid = answer["StorageCommitmentTransactionUID"]
    report = wait_until(lambda: _report(modality, uid), "the modality has its report", 120)
    assert report["Status"] == "Success" and len(report["Success"]) == 4
    assert states(node) == [DeliveryState.DELIVERED] * 4 and all(row.committed_at is not None for row in rows(node))
    assert len(archive.ask("/instances")) == 4
    stranger = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SOPInstanceUID": "1.2.3.4.5.6"}
    uid = modality.ask("/modalities/node/storage-commitment", {"DicomInstances": [stranger]})["ID"]
    report = wait_until(lambda: _report(modality, uid), "the modality has its report", 60)
    assert report["Status"] == "Failure" and [item["SOPInstanceUID"] for item in report["Failures"]] == ["1.2.3.4.5.6"]
    assert report["Failures"][0]["FailureReason"] == 0x0112


def _report(orthanc: Orthanc, uid: str) -> dict[str, Any] | None:
    found = dict(orthanc.ask(f"/storage-commitment/{uid}"))
    return found if found["Status"] != "Pending" else None
