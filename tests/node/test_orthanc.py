"""A real PACS: Orthanc is sent a study, forwards it to the node, and gets report, picture and map into the same study."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pacs_node.phantoms import PhantomSpec, write_study
from tests.node.support import NodeProcess, free_port, wait_until

RULES = """
rules:
  - name: head CT
    when: {Modality: CT, BodyPartExamined: HEAD}
    pipeline: ct-head
    send_to: [orthanc]
"""


@dataclass
class Orthanc:
    dicom_port: int
    http_port: int

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=data, method="GET" if body is None else "POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def ready(self) -> bool:
        try:
            return "Version" in self.ask("/system")
        except OSError:
            return False


@pytest.fixture
def make_orthanc(tmp_path: Path, tool: Callable[[str], str]) -> Iterator[Callable[[int], Orthanc]]:
    """Give a function that starts an Orthanc which knows a node on a port; it is stopped at the end."""
    running: list[subprocess.Popen[bytes]] = []

    def start(node_port: int) -> Orthanc:
        orthanc = Orthanc(free_port(), free_port())
        store = tmp_path / "orthanc"
        store.mkdir()
        config = {
            "Name": "test", "StorageDirectory": str(store), "IndexDirectory": str(store), "DicomAet": "ORTHANC", "DicomPort": orthanc.dicom_port,
            "HttpPort": orthanc.http_port, "DicomCheckCalledAet": True, "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [],
            "DicomModalities": {"node": ["PACS_NODE", "127.0.0.1", node_port]}, "DicomAlwaysAllowStore": True, "OverwriteInstances": False,
        }  # fmt: skip
        path = tmp_path / "orthanc.json"
        path.write_text(json.dumps(config))
        with (tmp_path / "orthanc.log").open("wb") as log:
            running.append(subprocess.Popen([tool("Orthanc"), str(path)], stdout=log, stderr=log))
        wait_until(orthanc.ready, "Orthanc answers")
        return orthanc

    yield start
    for process in running:
        process.terminate()
        process.wait(30)


@pytest.mark.peers
@pytest.mark.slow
def test_orthanc_forwards_a_study_and_gets_the_results_into_the_same_study(
    make_node: Callable[..., NodeProcess], make_orthanc: Callable[[int], Orthanc], tool: Callable[[str], str], tmp_path: Path
) -> None:
    tool("Orthanc")
    node = make_node(rules=RULES)
    orthanc = make_orthanc(node.port)
    target = {"kind": "dicom", "ae_title": "ORTHANC", "address": "127.0.0.1", "port": orthanc.dicom_port, "accepts_research": True}
    sender = {"ae_title": "ORTHANC", "network": "127.0.0.1/32", "results_to": "orthanc"}
    node = make_node(rules=RULES, node={"port": node.port}, destinations={"orthanc": target}, reception={"senders": [sender]})
    node.port = node.settings.node.port
    node.start(ready=False)  # it takes associations from Orthanc only: `echo` below is Orthanc's own
    files = write_study(PhantomSpec(modality="CT", region="head", lesion="ellipsoid", seed=77), tmp_path / "study")
    scu = [tool("storescu"), "-aec", "ORTHANC", "127.0.0.1", str(orthanc.dicom_port), "+sd", str(tmp_path / "study")]
    subprocess.run(scu, check=True, capture_output=True, timeout=120)
    study = wait_until(lambda: orthanc.ask("/studies"), "Orthanc has the study")[0]
    wait_until(lambda: _stored(orthanc, study), "Orthanc could forward the study to the node")
    series = wait_until(lambda: _result_series(orthanc, study), "the results are in Orthanc", 180)
    assert {item["MainDicomTags"]["Modality"] for item in series} >= {"SR", "OT"}
    assert len(orthanc.ask("/studies")) == 1
    assert len(orthanc.ask("/patients")) == 1
    classes = sorted(_tags(orthanc, instance)["SOPClassUID"] for item in series for instance in item["Instances"])
    assert classes == ["1.2.840.10008.5.1.4.1.1.30", "1.2.840.10008.5.1.4.1.1.7.4", "1.2.840.10008.5.1.4.1.1.88.34"]
    received = {_tags(orthanc, instance)["SOPInstanceUID"] for item in orthanc.ask(f"/studies/{study}/series") for instance in item["Instances"]}
    report = next(instance for item in series if item["MainDicomTags"]["Modality"] == "SR" for instance in item["Instances"])
    referenced = set(_referenced(orthanc.ask(f"/instances/{report}/simplified-tags")))
    assert referenced
    assert referenced <= received  # every reference resolves in the archive
    assert len(files) == len(received) - 3
    wait_until(lambda: all(row["state"] == "delivered" for row in _deliveries(node)), "all is marked delivered")
    assert len(_deliveries(node)) == 3


def _stored(orthanc: Orthanc, study: str) -> bool:
    try:
        return bool(orthanc.ask("/modalities/node/store", {"Resources": [study], "Synchronous": True}))
    except OSError:
        return False


def _result_series(orthanc: Orthanc, study: str) -> list[dict[str, Any]]:
    found = [item for item in orthanc.ask(f"/studies/{study}/series") if item["MainDicomTags"].get("Manufacturer") == "pacs-node open source project"]
    found = [item for item in found if not item["MainDicomTags"].get("SeriesDescription", "").startswith("Synthetic")]
    return found if sum(len(item["Instances"]) for item in found) >= 3 else []


def _tags(orthanc: Orthanc, instance: str) -> dict[str, Any]:
    return dict(orthanc.ask(f"/instances/{instance}/simplified-tags"))


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
