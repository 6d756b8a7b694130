"""Results go to an archive only where it means the same patient; who is asked is a scripted archive, and Orthanc."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from pacs_node.database import alerts, deliveries
from pacs_node.delivery import cstore
from pacs_node.delivery.archive import FolderArchive, Script
from pacs_node.delivery.backoff import Policy
from pacs_node.errors import InputError
from pacs_node.journey import deliver
from pacs_node.journey.operate import release, retry_delivery
from pacs_node.records import Outcome, Parcel
from tests.delivery.places import destination_at
from tests.journey.support import Town, ct_slice, ct_study
from tests.node.support import free_port, wait_until
from tests.reception.peers import save

RULES = """
rules:
  - name: head CT
    when: {Modality: CT}
    pipeline: ct-test
    send_to: [archive, research]
"""
Make = Callable[..., Town]


class Index:
    """What the archive knows of the study: attributes as C-FIND gives them, or None where it does not know it."""

    def __init__(self, **known: str) -> None:
        self.known: dict[str, str] | None = known
        self.asked = 0
        self.fails = False

    def find(self, identifier: Dataset) -> Iterable[tuple[int, Dataset | None]]:
        self.asked += 1
        if self.fails:
            return [(0xA700, None)]
        if self.known is None:
            return []
        answer = Dataset()
        answer.QueryRetrieveLevel, answer.StudyInstanceUID = "STUDY", identifier.StudyInstanceUID
        for keyword, value in self.known.items():
            setattr(answer, keyword, value)
        return [(0xFF00, answer)]


def town_with(make_town: Make, port: int, folder: Path, rules: str = RULES) -> Town:
    archive = {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": port, "accepts_research": True, "verify_identity": True}
    return make_town(rules=rules, destinations={"archive": archive, "research": {"kind": "folder", "path": str(folder / "out")}})


@pytest.fixture
def index() -> Index:
    return Index(PatientID="P1", PatientName="TEST^P1", PatientBirthDate="19700101", AccessionNumber="ACCA")


@pytest.fixture
def archive(tmp_path: Path, index: Index) -> Iterator[FolderArchive]:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(find=index.find)) as started:
        yield started


def states(town: Town) -> set[str]:
    with town.house.store.read() as session:
        return {row.state.value for row in deliveries.list_deliveries(session) if row.destination == "archive"}


def messages(town: Town) -> list[str]:
    with town.house.store.read() as session:
        return [alert.message for alert in alerts.open_alerts(session)]


def test_an_archive_that_means_the_same_patient_gets_the_results(make_town: Make, archive: FolderArchive, index: Index, tmp_path: Path) -> None:
    town = town_with(make_town, archive.port, tmp_path)
    town.send(ct_study())
    town.settle()
    assert len(archive.received) == 3 and index.asked == 1 and messages(town) == []


@pytest.mark.parametrize(
    ("known", "field"),
    [({"PatientID": "P9"}, "Patient ID"), ({"PatientName": "OTHER^NAME"}, "patient's name"), ({"PatientBirthDate": "19500505"}, "birth date"),
     ({"AccessionNumber": "X1"}, "accession number")],
)  # fmt: skip
def test_an_archive_that_knows_another_patient_gets_nothing_and_the_operator_is_told(
    make_town: Make, archive: FolderArchive, index: Index, tmp_path: Path, known: dict[str, str], field: str
) -> None:
    index.known = {**(index.known or {}), **known}
    town = town_with(make_town, archive.port, tmp_path)
    town.send(ct_study())
    town.settle()
    assert archive.received == [] and states(town) == {"waiting"}
    (message,) = messages(town)
    assert field in message and "pacs-node release 1" in message and "P9" not in message
    assert len(town.results()) == 4  # the other destination has them
    town.wait(minutes=30)
    town.post()
    assert index.asked == 1


def test_what_was_held_goes_out_once_the_archive_was_corrected(make_town: Make, archive: FolderArchive, index: Index, tmp_path: Path) -> None:
    right, index.known = index.known, {"PatientID": "P9"}
    town = town_with(make_town, archive.port, tmp_path)
    town.send(ct_study())
    town.settle()
    index.known = right
    town.wait(minutes=61)
    town.post()
    assert len(archive.received) == 3 and messages(town) == []
    with town.house.store.read() as session:
        assert {row.attempts for row in deliveries.list_deliveries(session) if row.destination == "archive"} == {1}


def test_what_was_held_goes_out_once_the_study_was_corrected(make_town: Make, archive: FolderArchive, tmp_path: Path) -> None:
    town = town_with(make_town, archive.port, tmp_path)
    town.send(ct_study(patient="P9"))
    town.settle()
    assert archive.received == []
    town.send(ct_study(patient="P1"))
    town.settle()
    assert len(archive.received) == 3
    (message,) = messages(town)  # about the other destination only, which compares nothing
    assert message.startswith("4 results of study 1 were delivered under a patient identity")


def test_an_operator_may_say_that_both_are_one_patient_and_another_one_is_held_again(
    make_town: Make, archive: FolderArchive, index: Index, tmp_path: Path
) -> None:
    index.known = {"PatientID": "P9"}
    town = town_with(make_town, archive.port, tmp_path)
    town.send(ct_study())
    town.settle()
    assert "goes to archive now" in release(town.house.store, 1, town.clock)
    town.post()
    assert len(archive.received) == 3 and messages(town) == []
    index.known = {"PatientID": "P10"}
    town.send([ct_slice(7)])
    town.settle()
    assert len(archive.received) == 3 and "Patient ID" in messages(town)[0]
    with pytest.raises(InputError, match="is not held"):
        release(town.house.store, 1, town.clock)
        release(town.house.store, 1, town.clock)


def test_retry_asks_at_once_for_the_whole_group(make_town: Make, archive: FolderArchive, index: Index, tmp_path: Path) -> None:
    right, index.known = index.known, {"PatientID": "P9"}
    town = town_with(make_town, archive.port, tmp_path)
    town.send(ct_study())
    town.settle()
    index.known = right
    with town.house.store.read() as session:
        last = max(row.id for row in deliveries.list_deliveries(session) if row.destination == "archive")
    retry_delivery(town.house.store, last, town.clock)
    town.post()
    assert len(archive.received) == 3


def test_a_study_that_the_archive_does_not_know_yet_is_waited_for_and_then_parked(
    make_town: Make, archive: FolderArchive, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "POLICY", Policy(give_up_after=timedelta(hours=2)))
    right, index.known = index.known, None
    town = town_with(make_town, archive.port, tmp_path)
    town.send(ct_study())
    town.settle()
    assert states(town) == {"waiting"} and archive.received == []
    for _ in range(20):
        town.wait(hours=2)
        town.post()
        if states(town) == {"parked"}:
            break
    assert states(town) == {"parked"} and archive.received == []
    assert all("does not know the study" in message and "retry" in message for message in messages(town))  # and nobody calls the archive down
    index.known = right
    with town.house.store.read() as session:
        numbers = sorted(row.id for row in deliveries.list_deliveries(session) if row.destination == "archive")
    for number in numbers:
        retry_delivery(town.house.store, number, town.clock)
    town.post()
    assert len(archive.received) == 3


def test_an_archive_that_cannot_answer_is_tried_again(make_town: Make, archive: FolderArchive, index: Index, tmp_path: Path) -> None:
    index.fails = True
    town = town_with(make_town, archive.port, tmp_path)
    town.send(ct_study())
    town.settle()
    assert archive.received == [] and states(town) == {"waiting"}
    index.fails = False
    town.wait(minutes=5)
    town.post()
    assert len(archive.received) == 3


def test_originals_make_a_study_known_and_are_held_like_results_where_it_is_anothers(
    make_town: Make, archive: FolderArchive, index: Index, tmp_path: Path
) -> None:
    right, index.known = index.known, None
    town = town_with(make_town, archive.port, tmp_path, RULES + "    forward: [archive]\n")
    town.send(ct_study())
    town.settle()
    assert len(archive.received) == 6  # the results wait until the archive lists the study
    index.known = right
    town.wait(minutes=5)
    town.post()
    assert len(archive.received) == 9
    index.known = {"PatientID": "P9"}
    town.send([ct_slice(0, study="B")])
    town.settle()
    assert len(archive.received) == 9 and "nothing of study 2 goes to archive" in messages(town)[0]


def test_an_archive_that_files_results_under_another_patient_is_said(make_town: Make, archive: FolderArchive, index: Index, tmp_path: Path) -> None:
    archive.script = replace(archive.script, statuses={"1.2.840.10008.5.1.4.1.1.88.34": 0xB000})
    index.known = {"PatientID": "P9"}
    town = make_town(rules=RULES, destinations={
        "archive": {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": archive.port, "accepts_research": True},
        "research": {"kind": "folder", "path": str(tmp_path / "out")},
    })  # fmt: skip
    town.send(ct_study())
    town.settle()
    assert states(town) == {"delivered"}
    (message,) = messages(town)
    assert message.startswith("archive stored objects of study 1 with changes (status 0xB000)") and "another Patient ID" in message


# --- a real archive ------------------------------------------------------------------------------------------------------


@pytest.fixture
def orthanc(tmp_path: Path, tool: Callable[[str], str]) -> Iterator[int]:
    """Give the DICOM port of an Orthanc that keeps what it has."""
    program, port, store = tool("Orthanc"), free_port(), tmp_path / "orthanc"
    store.mkdir()
    config = {
        "StorageDirectory": str(store), "IndexDirectory": str(store), "DicomAet": "ARCHIVE", "DicomPort": port, "HttpServerEnabled": False, "Plugins": [],
        "DicomAlwaysAllowStore": True, "DicomAlwaysAllowFind": True, "OverwriteInstances": False, "RemoteAccessAllowed": False,
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    with (tmp_path / "orthanc.log").open("wb") as log, subprocess.Popen([program, str(tmp_path / "orthanc.json")], stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: cstore.probe(destination_at(port), "TEST", []).reachable, "Orthanc answers")
            yield port
        finally:
            process.terminate()


@pytest.mark.peers
@pytest.mark.parametrize(("patient", "sent"), [("P1", "delivered"), ("P9", "waiting"), (None, "waiting")])
def test_orthanc_gets_results_only_for_the_patient_that_it_knows(make_town: Make, orthanc: int, tmp_path: Path, patient: str | None, sent: str) -> None:
    if patient is not None:
        image = ct_slice(0, patient=patient)
        parcel = Parcel(str(image.SOPInstanceUID), str(image.SOPClassUID), str(image.file_meta.TransferSyntaxUID), save(image, tmp_path / "one.dcm"))
        outcomes: list[Outcome] = []
        cstore.deliver(destination_at(orthanc), [parcel], "TEST", outcomes.append)
        assert outcomes[0].delivered
    town = town_with(make_town, orthanc, tmp_path)
    town.send(ct_study())
    town.settle()
    assert states(town) == {sent}
    expected = {"P1": 0, "P9": 1, None: 0}[patient]
    assert len([message for message in messages(town) if "Patient ID" in message]) == expected


@pytest.mark.peers
def test_orthanc_shows_by_image_whether_an_instance_is_there(orthanc: int, tmp_path: Path) -> None:
    from pacs_node.delivery.query import is_there

    image = ct_slice(0)
    parcel = Parcel(str(image.SOPInstanceUID), str(image.SOPClassUID), str(image.file_meta.TransferSyntaxUID), save(image, tmp_path / "one.dcm"))
    assert not is_there(destination_at(orthanc), "TEST", image)
    cstore.deliver(destination_at(orthanc), [parcel], "TEST", lambda outcome: None)
    assert is_there(destination_at(orthanc), "TEST", image)
    assert not is_there(destination_at(orthanc), "TEST", ct_slice(1))
