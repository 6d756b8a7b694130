"""Rejection notes (IHE IOCM): instances that they name are not used any more, and what was made of them is withdrawn or reported."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select

from pacs_node import crash
from pacs_node.assembly.rejections import TITLES, read_rejection
from pacs_node.database import deliveries, jobs
from pacs_node.database.states import DeliveryState, JobState, StudyState
from pacs_node.database.tables import InstanceRow, StudyRow
from pacs_node.dicom.uids import derive_uid
from pacs_node.workbench import tables
from tests.journey.support import Town, ct_slice, ct_study
from tests.journey.test_adversity import alert_kinds, states_of_jobs
from tests.journey.test_announced import item

KO = "1.2.840.10008.5.1.4.1.1.88.59"
WRONG = ("113001", "113037", "113038")
Make = Callable[..., Town]
_numbers = itertools.count()


def rejection(images: Sequence[Dataset], code: str = "113037", scheme: str = "DCM", **changes: object) -> Dataset:
    """Return a note that rejects images of one study (PS3.3 A.35.4)."""
    first, number = images[0], next(_numbers)
    note = item(SOPClassUID=KO, SOPInstanceUID=derive_uid("note", number), StudyInstanceUID=first.StudyInstanceUID, Modality="KO")
    note.SeriesInstanceUID, note.SeriesNumber, note.InstanceNumber = derive_uid("note series", number), 99, 1
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        setattr(note, keyword, getattr(first, keyword))
    note.ReferringPhysicianName, note.Manufacturer, note.ContentDate, note.ContentTime = "", "test", "20260102", "101112"
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    note.ConceptNameCodeSequence = [item(CodeValue=code, CodingSchemeDesignator=scheme, CodeMeaning="rejected")]
    references = [item(ReferencedSOPClassUID=one.SOPClassUID, ReferencedSOPInstanceUID=one.SOPInstanceUID) for one in images]
    series = item(SeriesInstanceUID=first.SeriesInstanceUID, ReferencedSOPSequence=references)
    note.CurrentRequestedProcedureEvidenceSequence = [item(StudyInstanceUID=first.StudyInstanceUID, ReferencedSeriesSequence=[series])]
    note.ContentSequence = [item(RelationshipType="CONTAINS", ValueType="IMAGE", ReferencedSOPSequence=[reference]) for reference in references]
    note.file_meta = FileMetaDataset()
    note.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in changes.items():
        setattr(note, keyword, value)
    return note


def pass_time(town: Town, **span: float) -> None:
    town.gather()
    town.wait(**span)
    town.gather()


def analysed(town: Town) -> list[int]:
    """Return how many instances each job looked at, by their number in the reports' evidence."""
    with town.house.store.read() as session:
        return [job.finding["slices"] for job in reversed(jobs.list_jobs(session)) if job.finding]


def outcome(town: Town) -> str:
    with town.house.store.read() as session:
        return str(tables.study_rows(session, 10)[0]["outcome"])


@pytest.mark.parametrize("code", TITLES)
def test_a_rejected_instance_is_left_out_of_the_analysis(town: Town, code: str) -> None:
    images = ct_study()
    town.send(images)
    town.send([rejection(images[4:], code)])
    town.settle()
    assert analysed(town) == [4] and alert_kinds(town) == []
    assert f"2 instances rejected ({TITLES[code].meaning})" in outcome(town)


@pytest.mark.parametrize("code", WRONG)
def test_results_of_rejected_instances_are_reported_and_made_again_of_what_remains(town: Town, code: str) -> None:
    images = ct_study()
    town.send(images)
    town.settle()
    town.send([rejection(images[5:], code)])
    town.settle()
    assert analysed(town) == [6, 5] and alert_kinds(town) == ["rejected"]
    with town.house.store.read() as session:
        first, second = jobs.jobs_of(session, 1)
        assert second.predecessor_id == first.id and second.run == 2
    assert "4 results of study 1 were delivered before 1 instances" in str(tables.status_tables(town.settings)["alerts"])


def test_a_removal_for_age_is_no_error_of_the_results_that_are_out(town: Town) -> None:
    images = ct_study()
    town.send(images)
    town.settle()
    town.send([rejection(images, "113039")])
    town.settle()
    assert states_of_jobs(town) == [JobState.DONE] and alert_kinds(town) == []


def test_a_running_job_on_rejected_instances_is_cancelled_and_sends_nothing(town: Town) -> None:
    images = ct_study()

    def reject(name: str) -> None:
        town.engine.script = lambda again: None
        town.send([rejection(images[:2])])
        town.gather()

    town.engine.script = reject
    town.send(images)
    town.settle()
    assert states_of_jobs(town) == [JobState.CANCELLED] and town.results() == []
    town.settle()
    assert states_of_jobs(town) == [JobState.CANCELLED, JobState.DONE] and analysed(town) == [4]


def test_results_that_wait_are_withdrawn(town: Town) -> None:
    images = ct_study()
    town.send(images)
    pass_time(town, seconds=11)
    town.work()
    town.send([rejection(images)])
    town.settle()
    assert town.results() == [] and alert_kinds(town) == []
    with town.house.store.read() as session:
        assert {row.state for row in deliveries.list_deliveries(session)} == {DeliveryState.CANCELLED}


def test_where_nothing_remains_no_job_is_made(town: Town) -> None:
    images = ct_study()
    town.send(images)
    town.send([rejection(images, "113001")])
    pass_time(town, seconds=11)
    assert states_of_jobs(town) == []
    with town.house.store.read() as session:
        assert session.scalars(select(StudyRow)).one().state is StudyState.COMPLETE
    assert outcome(town) == "no rule fired; 6 instances rejected (Rejected for Quality Reasons)"


def test_a_job_on_another_series_goes_on(make_town: Make) -> None:
    town = make_town(rules="rules:\n  - name: all\n    when: {Modality: CT}\n    series: all\n    pipeline: ct-test\n    send_to: [research]\n")
    one, other = ct_study(4), ct_study(5, series=2)
    town.send([*one, *other])
    pass_time(town, seconds=11)
    town.send([rejection(one)])
    town.gather()
    assert sorted(states_of_jobs(town)) == [JobState.CANCELLED, JobState.QUEUED]
    town.settle()
    assert analysed(town) == [5]


@pytest.mark.parametrize("code", WRONG)
def test_a_note_that_comes_before_the_instances_holds_for_them(town: Town, code: str) -> None:
    images = ct_study()
    town.send([rejection(images[:2], code)])
    pass_time(town, seconds=60)
    town.send(images)
    town.settle()
    assert analysed(town) == [4]


def test_instances_that_come_after_a_removal_for_age_count(town: Town) -> None:
    images = ct_study()
    town.send([rejection(images, "113039")])
    town.gather()
    town.send(images)
    town.settle()
    assert analysed(town) == [6]


@pytest.mark.parametrize(("code", "counts"), [*((code, False) for code in WRONG), ("113039", True)])
def test_a_rejected_instance_that_is_received_again_counts_only_after_a_removal_for_age(town: Town, code: str, counts: bool) -> None:
    images = ct_study()
    town.send(images)
    town.send([rejection(images[4:], code)])
    pass_time(town, seconds=11)
    town.send(images)
    town.settle()
    assert analysed(town) == ([6] if counts else [4])


@pytest.mark.parametrize("codes", [("113039", "113037"), ("113037", "113039")])
def test_an_error_outdoes_a_removal_for_age_in_whatever_order_the_notes_come(town: Town, codes: tuple[str, str]) -> None:
    images = ct_study()
    town.send(images)
    for code in codes:
        town.send([rejection(images[4:], code)])
    pass_time(town, seconds=11)
    town.send(images)  # after a removal for age alone they would count again
    town.settle()
    assert analysed(town) == [4]


def test_a_held_study_is_freed_where_the_instances_of_the_other_patient_are_rejected(town: Town) -> None:
    right, wrong = ct_study(4), [ct_slice(index, patient="P2") for index in range(4, 6)]
    town.send([*right, *wrong])
    pass_time(town, seconds=11)
    assert alert_kinds(town) == ["held"]
    town.send([rejection(wrong, "113038")])  # it names the wrong patient, as what it rejects
    town.settle()
    assert analysed(town) == [4] and alert_kinds(town) == []
    assert {str(result.PatientID) for result in town.results()} == {"P1"}


def test_a_note_in_another_study_is_obeyed(town: Town) -> None:
    images = ct_study()
    town.send(images)
    town.send([rejection(images[:3], StudyInstanceUID=derive_uid("another study"))])
    town.settle()
    assert analysed(town) == [3]


@pytest.mark.parametrize("change", ["code", "scheme", "class"])
def test_a_key_object_selection_that_rejects_nothing_changes_nothing(town: Town, change: str) -> None:
    images = ct_study()
    note = rejection(images, "113000" if change == "code" else "113037", "99LOCAL" if change == "scheme" else "DCM")
    if change == "class":
        note.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    town.send([*images, note])
    town.settle()
    assert analysed(town) == [6]


@pytest.mark.parametrize("keyword", ["CurrentRequestedProcedureEvidenceSequence", "ContentSequence"])
def test_each_of_the_two_lists_of_a_note_is_enough(keyword: str) -> None:
    images = ct_study(2)
    note = rejection(images)
    delattr(note, keyword)
    found = read_rejection(note)
    assert found is not None and found.instances == {str(image.SOPInstanceUID) for image in images}


def test_a_note_is_obeyed_on_postgresql_as_well(make_town: Make, make_database: Callable[..., str]) -> None:
    town = make_town(database={"url": make_database("postgresql")})
    images = ct_study()
    town.send([rejection(images[:1], "113001")])  # before it comes
    town.send(images)
    town.settle()
    town.send([rejection(images[5:], "113038")])
    town.settle()
    assert analysed(town) == [5, 4] and alert_kinds(town) == ["rejected"]


def test_a_crash_between_commit_and_move_of_a_note_repeats_nothing(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ct_study()
    town.send(images)
    town.settle()
    town.send([rejection(images[4:])])

    def die(step: str) -> None:
        if step == "indexed":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crash, "passed", die)
        with pytest.raises(KeyboardInterrupt):
            town.gather()
    town.restart()
    town.settle()
    town.settle()
    assert analysed(town) == [6, 4] and alert_kinds(town) == ["rejected"]
    with town.house.store.read() as session:
        assert sorted(row.rejected for row in session.scalars(select(InstanceRow)) if row.rejected and not row.own) == ["113037", "113037", "note"]
