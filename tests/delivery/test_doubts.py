"""Answers that are believed only after a question: a scripted archive that is asked, cannot be asked, and says other things than we do."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from pydicom.dataset import Dataset

from pacs_node.delivery import cstore, query
from pacs_node.delivery.agreement import differences, facts_of
from pacs_node.delivery.archive import FolderArchive
from pacs_node.delivery.association import Timeouts
from pacs_node.dicom.header import read_header
from pacs_node.errors import TemporaryFailure
from pacs_node.records import Outcome, Parcel
from tests.delivery.places import destination_at, free_port

Archive = Callable[..., FolderArchive]
MakeParcel = Callable[..., Parcel]
QUICK = Timeouts(5.0, 5.0, 2.0)


def send(there: FolderArchive, parcel: Parcel) -> Outcome:
    outcomes: list[Outcome] = []
    cstore.deliver(destination_at(there.port), [parcel], "PACS_NODE", outcomes.append, QUICK)
    return outcomes[0]


def holding(*headers: Dataset) -> Callable[[Dataset], Iterable[tuple[int, Dataset | None]]]:
    """Return a script that answers queries as an archive with these instances does."""

    def find(identifier: Dataset) -> Iterable[tuple[int, Dataset | None]]:
        for header in headers:
            wanted = [element for element in identifier if element.value not in ("", None) and element.keyword != "QueryRetrieveLevel"]
            if all(str(header.get(element.keyword)) == str(element.value) for element in wanted):
                answer = Dataset()
                for element in identifier:
                    setattr(answer, element.keyword, header.get(element.keyword, "") or "")
                answer.QueryRetrieveLevel = identifier.QueryRetrieveLevel
                yield 0xFF00, answer

    return find


# --- 0x0111 --------------------------------------------------------------------------------------------------------------


def test_a_duplicate_counts_where_a_query_shows_the_very_instance(archive: Archive, parcel: MakeParcel) -> None:
    one = parcel()
    outcome = send(archive(statuses={one.sop_uid: 0x0111}, find=holding(read_header(one.path))), one)
    assert (outcome.delivered, outcome.status) == (True, 0x0111) and "query shows" in outcome.message


@pytest.mark.parametrize("changes", [{"SOPInstanceUID": "1.2.3"}, {"StudyInstanceUID": "1.2.3"}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}])
def test_a_duplicate_that_is_another_instance_or_not_to_be_found_is_tried_again(archive: Archive, parcel: MakeParcel, changes: dict[str, str]) -> None:
    one = parcel()
    other = read_header(one.path)
    for keyword, value in changes.items():
        setattr(other, keyword, value)
    outcome = send(archive(statuses={one.sop_uid: 0x0111}, find=holding(other)), one)
    assert outcome.temporary and "may be another object" in outcome.message


def test_a_duplicate_at_an_archive_that_takes_no_queries_is_tried_again(archive: Archive, parcel: MakeParcel) -> None:
    one = parcel()
    outcome = send(archive(statuses={one.sop_uid: 0x0111}), one)
    assert outcome.temporary and "takes no queries" in outcome.message


def test_a_query_that_fails_proves_nothing(archive: Archive, parcel: MakeParcel) -> None:
    one = parcel()
    outcome = send(archive(statuses={one.sop_uid: 0x0111}, find=lambda identifier: [(0xA700, None)]), one)
    assert outcome.temporary and "could not answer C-FIND" in outcome.message


# --- 0xB000 --------------------------------------------------------------------------------------------------------------


def test_a_coerced_patient_id_named_in_the_answer_is_noticed(archive: Archive, parcel: MakeParcel) -> None:
    one, answer = parcel(), Dataset()
    answer.Status, answer.OffendingElement = 0xB000, [0x00100020]
    outcome = send(archive(statuses={one.sop_uid: answer}), one)
    assert outcome.delivered and "Patient ID" in outcome.coerced


def test_a_patient_id_that_a_query_finds_changed_is_noticed(archive: Archive, parcel: MakeParcel) -> None:
    one = parcel()
    changed = read_header(one.path)
    changed.PatientID = "SOMEBODY ELSE"
    outcome = send(archive(statuses={one.sop_uid: 0xB000}, find=holding(changed)), one)
    assert outcome.delivered and "another Patient ID" in outcome.coerced


@pytest.mark.parametrize("asks", [True, False])
def test_a_warning_about_something_else_is_a_delivery(archive: Archive, parcel: MakeParcel, asks: bool) -> None:
    one, answer = parcel(), Dataset()
    answer.Status, answer.OffendingElement = 0xB000, [0x00081030]
    outcome = send(archive(statuses={one.sop_uid: answer}, find=holding(read_header(one.path)) if asks else None), one)
    assert outcome.delivered and outcome.coerced == "" and outcome.status == 0xB000


# --- queries -------------------------------------------------------------------------------------------------------------


def test_an_archive_that_is_off_or_says_nothing_is_a_temporary_failure(archive: Archive) -> None:
    with pytest.raises(TemporaryFailure, match="cannot be reached"):
        query.study(destination_at(free_port()), "PACS_NODE", "1.2", QUICK)

    def hang(identifier: Dataset) -> Iterable[tuple[int, Dataset | None]]:
        there._stopped.wait(6)
        return []

    there = archive(find=hang)
    with pytest.raises(TemporaryFailure, match="no answer"):
        query.study(destination_at(there.port), "PACS_NODE", "1.2", Timeouts(5.0, 5.0, 0.5))


def test_a_study_that_is_asked_for_is_found_with_its_patient(archive: Archive, parcel: MakeParcel) -> None:
    header = read_header(parcel().path)
    there = destination_at(archive(find=holding(header)).port)
    (answer,) = query.study(there, "PACS_NODE", header.StudyInstanceUID, QUICK)
    assert facts_of(answer) == facts_of(header)
    assert query.study(there, "PACS_NODE", "1.2.3.4.5", QUICK) == []


# --- agreement -----------------------------------------------------------------------------------------------------------

OURS = ["P1", "HOSPITAL", "DOE^JANE", "19700101", "ACC1"]


@pytest.mark.parametrize(
    ("theirs", "fields"),
    [
        (OURS, []),
        (["P1", "", "", "", ""], []),
        (["P1", "", "DOE^JANE=山田^花", "19700101", "ACC1"], []),
        (["", "", "", "", ""], []),
        (["P2", "HOSPITAL", "DOE^JANE", "19700101", "ACC1"], ["Patient ID"]),
        (["P1", "OTHER", "DOE^JANE", "19700101", "ACC1"], ["issuer of the Patient ID"]),
        (["P1", "HOSPITAL", "DOE^JOHN", "19690101", "ACC1"], ["patient's name", "birth date"]),
        (["P1", "HOSPITAL", "DOE^JANE", "19700101", "ACC2"], ["accession number"]),
    ],
)
def test_what_both_sides_say_must_agree(theirs: list[str], fields: list[str]) -> None:
    assert differences(OURS, theirs) == fields
    assert differences(theirs, OURS) == fields


def test_case_padding_and_empty_components_are_no_differences() -> None:
    one, other = Dataset(), Dataset()
    one.PatientID, one.PatientName, one.PatientBirthDate, one.AccessionNumber = "p1 ", "Doe^Jane^^", "1970.01.01", " acc1"
    other.PatientID, other.PatientName, other.PatientBirthDate, other.AccessionNumber = "P1", "DOE^JANE", "19700101", "ACC1"
    assert facts_of(one) == facts_of(other)
