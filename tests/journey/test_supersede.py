"""Where a destination wants it, the results of a re-run are followed by a rejection note for those that they supersede."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs_node.assembly.rejections import read_rejection
from pacs_node.database import alerts, deliveries, rejections
from pacs_node.database.tables import RejectionRow
from pacs_node.delivery.archive import FolderArchive, Script
from pacs_node.dicom.header import made_by
from pacs_node.dicom.uids import node_device_uid
from pacs_node.errors import OutOfScope
from pacs_node.journey import supersede
from pacs_node.results import dciodvfy
from tests.journey.support import Town, ct_slice, ct_study
from tests.node.orthanc import Orthanc

KEY_OBJECTS, REPORT = "1.2.840.10008.5.1.4.1.1.88.59", "1.2.840.10008.5.1.4.1.1.88.34"
RULES = """
rules:
  - name: head CT
    when: {Modality: CT}
    pipeline: ct-test
    results: [sr, pm, sc, raw]
    notice: true
    send_to: [archive]
"""
Make = Callable[..., Town]


def town_at(make_town: Make, port: int, **more: object) -> Town:
    place = {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": port, "accepts_research": True, "reject_superseded": True}
    return make_town(rules=RULES, destinations={"archive": {**place, **more}})


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[FolderArchive]:
    with FolderArchive(tmp_path / "archive", "ARCHIVE") as started:
        yield started


def late(town: Town, number: int = 6) -> None:
    """Let one more slice come, with which the study is analysed again."""
    town.send([ct_slice(number)])
    town.settle()


def kept(archive: FolderArchive) -> list[Dataset]:
    """Return what the archive has, in the order in which it came."""
    return [dcmread(archive.path_of(uid)) for uid in archive.received]


def notes(archive: FolderArchive) -> list[Dataset]:
    return [dataset for dataset in kept(archive) if dataset.SOPClassUID == KEY_OBJECTS]


def rejected(note: Dataset) -> set[str]:
    found = read_rejection(note)
    assert found is not None and found.code == "113001"
    return set(found.instances)


def test_after_the_new_results_a_note_rejects_all_of_the_old_ones(make_town: Make, archive: FolderArchive) -> None:
    town = town_at(make_town, archive.port)
    town.send(ct_study())
    town.settle()
    first = list(archive.received)
    assert len(first) == 4 and notes(archive) == []
    late(town)
    everything = kept(archive)
    [note] = notes(archive)
    assert len(everything) == 9 and everything[-1].SOPInstanceUID == note.SOPInstanceUID
    assert rejected(note) == set(first)
    assert note.ConceptNameCodeSequence[0].CodeMeaning == "Rejected for Quality Reasons"
    assert {item.ValueType for item in note.ContentSequence if "ReferencedSOPSequence" in item} == {"IMAGE", "COMPOSITE"}
    [report] = [one for one in everything[4:] if one.SOPClassUID == REPORT]
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber", "ContentDate", "ContentTime"):
        assert note.get(keyword) == report.get(keyword)
    assert len({str(one.SeriesInstanceUID) for one in everything}) == len({(one.SeriesNumber) for one in everything}) == 9
    assert made_by(note, node_device_uid(town.settings.node.name))
    with town.house.store.read() as session:
        assert next((row.kind, row.state.value) for row in deliveries.list_deliveries(session)) == ("rejection", "delivered")
        assert alerts.open_alerts(session) == []


def test_nothing_is_rejected_unless_the_destination_wants_it(make_town: Make, archive: FolderArchive) -> None:
    town = town_at(make_town, archive.port, reject_superseded=False)
    town.send(ct_study())
    town.settle()
    late(town)
    assert len(archive.received) == 8 and notes(archive) == []


def test_a_third_run_has_only_the_results_of_the_second_rejected(make_town: Make, archive: FolderArchive) -> None:
    town = town_at(make_town, archive.port)
    town.send(ct_study())
    town.settle()
    late(town)
    second = set(archive.received[4:8])
    late(town, 7)
    assert [rejected(note) for note in notes(archive)] == [set(archive.received[:4]), second]


def test_the_note_waits_until_the_new_results_are_there(make_town: Make, tmp_path: Path) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE") as archive:
        town, port = town_at(make_town, archive.port), archive.port
        town.send(ct_study())
        town.settle()
        first = set(archive.received)
    with FolderArchive(tmp_path / "full", "ARCHIVE", port=port, script=Script(statuses={REPORT: 0xA700})) as full:
        late(town)
        assert REPORT not in {one.SOPClassUID for one in kept(full)} and full.received and notes(full) == []
    with FolderArchive(tmp_path / "again", "ARCHIVE", port=port) as again:
        town.wait(hours=5)
        town.post()
        assert [one.SOPClassUID for one in kept(again)] == [REPORT, KEY_OBJECTS]
        assert rejected(notes(again)[0]) == first


def test_a_process_that_dies_before_the_note_is_made_makes_it_later(make_town: Make, archive: FolderArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    town = town_at(make_town, archive.port)
    town.send(ct_study())
    town.settle()
    with monkeypatch.context() as patch:
        patch.setattr(supersede, "make_due", lambda *_: None)
        late(town)
    assert notes(archive) == []
    town.restart()
    town.post()
    town.post()
    assert len(notes(archive)) == 1


def test_a_notice_that_a_result_supersedes_is_rejected_and_a_notice_rejects_nothing(make_town: Make, archive: FolderArchive) -> None:
    def refuse(name: str) -> None:
        raise OutOfScope("too few slices")

    town = town_at(make_town, archive.port)
    town.engine.script = refuse
    town.send(ct_study())
    town.settle()
    [notice] = kept(archive)
    town.engine.script = lambda name: None
    late(town)
    [note] = notes(archive)
    assert rejected(note) == {str(notice.SOPInstanceUID)}
    town.engine.script = refuse
    late(town, 7)
    assert len(notes(archive)) == 1 and kept(archive)[-1].SOPClassUID == notice.SOPClassUID


def test_what_lies_under_another_patient_is_left_to_people(make_town: Make, archive: FolderArchive) -> None:
    town = town_at(make_town, archive.port)
    town.send(ct_study())
    town.settle()
    town.send(ct_study(patient="P2"))
    town.settle()
    assert {str(one.PatientID) for one in kept(archive)} == {"P1", "P2"} and notes(archive) == []


def test_a_note_of_ours_that_comes_back_rejects_nothing_here(make_town: Make, archive: FolderArchive) -> None:
    town = town_at(make_town, archive.port)
    town.send(ct_study())
    town.settle()
    late(town)
    [note] = notes(archive)
    old = [one for one in kept(archive) if str(one.SOPInstanceUID) in rejected(note)]
    calls = list(town.engine.calls)
    for _ in range(2):  # before what it rejects came back, and after
        town.send([note])
        town.settle()
        town.send(old)
        town.settle()
    assert town.engine.calls == calls and len(notes(archive)) == 1
    with town.house.store.read() as session:
        assert session.query(RejectionRow).count() == 0
        assert rejections.instances(session, [str(one.SOPInstanceUID) for one in ct_study()])[0].rejected == ""


@pytest.mark.peers
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error_in_the_note(make_town: Make, archive: FolderArchive) -> None:
    town = town_at(make_town, archive.port)
    town.send(ct_study())
    town.settle()
    late(town)
    [note] = notes(archive)
    assert dciodvfy(archive.path_of(str(note.SOPInstanceUID)), None)[0] == ()


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed")
def test_orthanc_files_the_note_with_the_study_and_knows_all_that_it_names(make_town: Make, tmp_path: Path) -> None:
    orthanc = Orthanc(tmp_path / "orthanc", shutil.which("Orthanc") or "").start()
    try:
        town = make_town(rules=RULES, destinations={"archive": {**orthanc.place, "reject_superseded": True}})
        town.send(ct_study())
        town.settle()
        first = set(orthanc.instances())
        late(town)
        known = orthanc.instances()
        [note] = [tags for name in known.values() if (tags := orthanc.tags(name))["SOPClassUID"] == KEY_OBJECTS]
        listed = {
            item["ReferencedSOPInstanceUID"]
            for study in note["CurrentRequestedProcedureEvidenceSequence"]
            for series in study["ReferencedSeriesSequence"]
            for item in series["ReferencedSOPSequence"]
        }
        assert listed == first and len(first) == 4 and first < set(known)
        assert note["ConceptNameCodeSequence"][0]["CodeValue"] == "113001"
        assert len(orthanc.ask("/studies")) == 1
    finally:
        orthanc.close()
