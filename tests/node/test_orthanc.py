"""A real PACS: Orthanc is sent a study, forwards it to the node, and gets report, picture and map into the same study."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pacs_node.phantoms import PhantomSpec, write_study
from tests.node.orthanc import Orthanc
from tests.node.support import NodeProcess, wait_until

RULES = """
rules:
  - name: head CT
    when: {Modality: CT, BodyPartExamined: HEAD}
    pipeline: ct-head
    send_to: [orthanc]
  - name: MR
    when: {Modality: MR}
    pipeline: mr-brain
    send_to: [orthanc]
  - name: PET
    when: {Modality: PT}
    pipeline: pt-body
    send_to: [orthanc]
  - name: ultrasound
    when: {Modality: US}
    pipeline: us-breast
    send_to: [orthanc]
"""

SR, SC, PM = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7.4", "1.2.840.10008.5.1.4.1.1.30"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"

OTHERS = {
    "MR": (PhantomSpec(modality="MR", lesion="ellipsoid", slices=8, rows=128, seed=78), [PM, SC, SEG, SR]),
    "PT": (PhantomSpec(modality="PT", lesion="ellipsoid", slices=24, rows=128, seed=79), [PM, SC, SEG, SR]),
    "US": (PhantomSpec(modality="US", lesion="ellipsoid", slices=4, seed=80), [SC, SEG, SR]),  # no place in the patient, no map
}


@pytest.fixture
def make_orthanc(tmp_path: Path, tool: Callable[[str], str]) -> Iterator[Callable[[int], Orthanc]]:
    """Give a function that starts an Orthanc which knows a node on a port; it is stopped at the end."""
    running: list[Orthanc] = []

    def start(node_port: int) -> Orthanc:
        running.append(Orthanc(tmp_path / "orthanc", tool("Orthanc"), DicomModalities={"node": ["PACS_NODE", "127.0.0.1", node_port]}))
        return running[-1].start()

    yield start
    for orthanc in running:
        orthanc.close()


@pytest.fixture
def loop(make_node: Callable[..., NodeProcess], make_orthanc: Callable[[int], Orthanc], tool: Callable[[str], str]) -> tuple[NodeProcess, Orthanc]:
    """Give a running node and an Orthanc that send to each other."""
    tool("Orthanc")
    node = make_node(rules=RULES)
    orthanc = make_orthanc(node.port)
    sender = {"ae_title": "ORTHANC", "network": "127.0.0.1/32", "results_to": "orthanc"}
    node = make_node(rules=RULES, node={"port": node.port}, destinations={"orthanc": orthanc.place}, reception={"senders": [sender]})
    node.port = node.settings.node.port
    node.start(ready=False)  # it takes associations from Orthanc only: `echo` below is Orthanc's own
    return node, orthanc


@pytest.mark.peers
@pytest.mark.slow
def test_orthanc_forwards_a_study_and_gets_the_results_into_the_same_study(
    loop: tuple[NodeProcess, Orthanc], tool: Callable[[str], str], tmp_path: Path
) -> None:
    node, orthanc = loop
    files = write_study(PhantomSpec(modality="CT", region="head", lesion="ellipsoid", seed=77), tmp_path / "study")
    study = _hand_in(orthanc, tool("storescu"), tmp_path / "study")
    wait_until(lambda: _stored(orthanc, study), "Orthanc could forward the study to the node")
    _assert_results_in_study(orthanc, study, len(files), [PM, SC, SEG, SR])
    assert len(orthanc.ask("/studies")) == 1
    assert len(orthanc.ask("/patients")) == 1
    wait_until(lambda: all(row["state"] == "delivered" for row in _deliveries(node)), "all is marked delivered")
    assert len(_deliveries(node)) == 4


@pytest.mark.peers
@pytest.mark.slow
def test_orthanc_gets_the_results_of_mr_pet_and_ultrasound_into_their_studies(
    loop: tuple[NodeProcess, Orthanc], tool: Callable[[str], str], tmp_path: Path
) -> None:
    node, orthanc = loop
    files = {modality: write_study(spec, tmp_path / modality) for modality, (spec, _) in OTHERS.items()}
    studies = {modality: _hand_in(orthanc, tool("storescu"), tmp_path / modality) for modality in OTHERS}
    for study in studies.values():
        wait_until(lambda study=study: _stored(orthanc, study), "Orthanc could forward the study to the node")
    for modality, study in studies.items():
        _assert_results_in_study(orthanc, study, len(files[modality]), OTHERS[modality][1])
    assert len(orthanc.ask("/studies")) == len(orthanc.ask("/patients")) == 3
    wait_until(lambda: all(row["state"] == "delivered" for row in _deliveries(node)), "all is marked delivered")
    assert len(_deliveries(node)) == sum(len(wanted) for _, wanted in OTHERS.values())


def _hand_in(orthanc: Orthanc, storescu: str, folder: Path) -> str:
    """Store a study in Orthanc as a modality does; returns Orthanc's name for it."""
    before = set(orthanc.ask("/studies"))
    scu = [storescu, "-aec", "ORTHANC", "127.0.0.1", str(orthanc.dicom_port), "+sd", str(folder)]
    subprocess.run(scu, check=True, capture_output=True, timeout=120)
    (study,) = wait_until(lambda: set(orthanc.ask("/studies")) - before, "Orthanc has the study")
    return str(study)


def _assert_results_in_study(orthanc: Orthanc, study: str, sent: int, wanted: list[str]) -> None:
    """The study holds what was sent, and results of exactly the wanted classes whose references all resolve in it."""
    series = wait_until(lambda: _result_series(orthanc, study, len(wanted)), "the results are in Orthanc", 180)
    assert {item["MainDicomTags"]["Modality"] for item in series} >= {"SR", "OT"}
    assert sorted(orthanc.tags(instance)["SOPClassUID"] for item in series for instance in item["Instances"]) == sorted(wanted)
    received = {orthanc.tags(instance)["SOPInstanceUID"] for item in orthanc.ask(f"/studies/{study}/series") for instance in item["Instances"]}
    assert len(received) == sent + len(wanted)
    report = next(instance for item in series if item["MainDicomTags"]["Modality"] == "SR" for instance in item["Instances"])
    referenced = set(_referenced(orthanc.tags(report)))
    assert referenced
    assert referenced <= received  # every reference resolves in the archive


def _stored(orthanc: Orthanc, study: str) -> bool:
    try:
        return bool(orthanc.ask("/modalities/node/store", {"Resources": [study], "Synchronous": True}))
    except httpx.HTTPError:
        return False


def _result_series(orthanc: Orthanc, study: str, wanted: int) -> list[dict[str, Any]]:
    found = [item for item in orthanc.ask(f"/studies/{study}/series") if item["MainDicomTags"].get("Manufacturer") == "pacs-node open source project"]
    found = [item for item in found if not item["MainDicomTags"].get("SeriesDescription", "").startswith("Synthetic")]
    return found if sum(len(item["Instances"]) for item in found) >= wanted else []


def _referenced(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "ReferencedSOPInstanceUID" in value:
            yield value["ReferencedSOPInstanceUID"]
        for part in value.values():
            yield from _referenced(part)
    elif isinstance(value, list):
        for part in value:
            yield from _referenced(part)


def _deliveries(node: NodeProcess) -> list[dict[str, Any]]:
    from pacs_node.workbench.tables import delivery_rows

    return delivery_rows(node.settings, 100)
