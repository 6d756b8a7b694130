"""Studies that are complete for a reason that comes from outside: an archive that counts, a modality that reports its steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.sop_class import ModalityPerformedProcedureStep as MPPS

from pacs_node import crash
from pacs_node.delivery.requestor import Requestor
from tests.journey.support import ct_study
from tests.journey.test_announced import step
from tests.node.orthanc import Orthanc
from tests.node.support import NodeProcess, wait_until
from tests.node.test_crash_points import fired, order, send_until_all_are_acknowledged, store
from tests.node.test_processes import write

pytestmark = pytest.mark.slow

Make = Callable[..., NodeProcess]
Tool = Callable[[str], str]
IMAGES = ct_study(6)


def reason(node: NodeProcess) -> str:
    (job,) = wait_until(node.jobs, "a job is made")
    return str(job["complete_reason"])


@pytest.mark.peers
def test_what_orthanc_counts_more_is_fetched_from_it_before_the_study_is_complete(make_node: Make, tool: Tool, tmp_path: Path) -> None:
    port = make_node().port
    orthanc = Orthanc(tmp_path / "orthanc", tool("Orthanc"), DicomModalities={"node": ["PACS_NODE", "127.0.0.1", port]}).start()
    try:
        parcels = write(tmp_path / "in", IMAGES)
        for parcel in parcels:
            orthanc._client.post("/instances", content=parcel.path.read_bytes()).raise_for_status()
        asking = {"quiet": "1s", "verify_with": "orthanc", "fetch": True}
        out = {"kind": "folder", "path": str(tmp_path / "out")}
        node = make_node(node={"port": port}, assembly=asking, destinations={"orthanc": orthanc.place, "research": out})
        node.port = port
        node.start()
        assert len(store(tool, node, parcels[:4])) == 4
        assert "orthanc counts 6 instances, and all are here" in reason(node)
        (study,) = node.status()["studies"]
        assert study["instances"] == 6
    finally:
        orthanc.close()


@pytest.mark.peers
def test_a_modality_that_reports_its_step_decides_when_the_study_is_complete(make_node: Make, tool: Tool, tmp_path: Path) -> None:
    node = make_node(reception={"mpps": True, "processes": 2}, assembly={"quiet": "1s"}).start()
    entity, uid = Requestor("CT1", 20, 20, 20), "1.2.826.0.1.3680043.9.7"
    association = entity.associate("127.0.0.1", node.port, [build_context(MPPS, [ExplicitVRLittleEndian])], "PACS_NODE")
    assert association.send_n_create(step("IN PROGRESS", str(IMAGES[0].StudyInstanceUID)), MPPS, uid)[0].Status == 0x0000
    assert len(store(tool, node, write(tmp_path / "in", IMAGES))) == 6
    wait_until(lambda: "MPPS in progress" in str(node.status()["studies"]), "the step is waited for")
    assert node.jobs() == []
    assert association.send_n_set(step("COMPLETED", images=IMAGES), MPPS, uid)[0].Status == 0x0000
    association.release()
    assert reason(node) == "MPPS completed, and all 6 instances listed are here"


@pytest.mark.peers
def test_a_step_is_heard_although_receiver_and_core_are_killed_at_each_of_their_steps(
    make_node: Make, tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("received", "part-written", "file-synced", "renamed", "folder-synced", "answered", "noted")
    node = make_node(reception={"mpps": True, "processes": 1}, assembly={"quiet": "1s"})
    monkeypatch.setenv(crash.VARIABLE, order(node.folder / "crashes", steps))
    node.start()

    def say(operation: str, dataset: Dataset) -> None:
        wait_until(lambda: request(node, operation, dataset) == 0x0000, f"{operation} is answered with success", 120)

    say("n_create", step("IN PROGRESS", str(IMAGES[0].StudyInstanceUID)))
    say("n_set", step("COMPLETED", images=IMAGES))
    wait_until(lambda: fired(node.folder / "crashes") == set(steps), "every step was passed")
    send_until_all_are_acknowledged(tool, node, write(tmp_path / "in", IMAGES))
    assert reason(node) == "MPPS completed, and all 6 instances listed are here"
    assert not any((node.folder / "data/quarantine").iterdir())


def request(node: NodeProcess, operation: str, dataset: Dataset) -> int | None:
    """Make a request over an association of its own; returns its status, None where none came."""
    contexts = [build_context(MPPS, [ExplicitVRLittleEndian])]
    association = Requestor("CT1", 5, 5, 5).associate("127.0.0.1", node.port, contexts, "PACS_NODE")
    if not association.is_established:
        return None
    send = {"n_create": association.send_n_create, "n_set": association.send_n_set}[operation]
    status, _ = send(dataset, MPPS, "1.2.826.0.1.3680043.9.8")
    if association.is_established:
        association.release()
    return status.get("Status")
