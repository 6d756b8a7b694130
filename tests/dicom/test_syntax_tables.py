import subprocess
import sys

import pytest
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts

from pacs_node.dicom.sop_classes import STORAGE_CLASSES, VERIFICATION, acceptable, accepted_classes, name_of
from pacs_node.dicom.transfer_syntaxes import DEFAULT, REENCODABLE, TRANSFER_SYNTAXES
from pacs_node.dicom.uids import is_valid_uid

CT, IMPLICIT, EXPLICIT, JPEG_LS = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80"


def test_every_storage_class_that_pynetdicom_knows_is_accepted() -> None:
    assert {str(context.abstract_syntax) for context in AllStoragePresentationContexts} <= set(STORAGE_CLASSES)


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.5.1.4.1.1.6",  # Ultrasound Image Storage, retired
        "1.2.840.10008.5.1.4.1.1.5",  # Nuclear Medicine Image Storage, retired
        "1.2.840.10008.5.1.4.1.1.77.1",  # VL Image Storage, trial
        "1.2.840.10008.5.1.4.1.1.12.77",  # retired, without a name
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol Storage: no patient
        "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map Storage
        "1.2.840.10008.5.1.4.1.1.66",  # Raw Data Storage
    ],
)
def test_retired_and_non_patient_storage_classes_are_accepted_too(uid: str) -> None:
    assert uid in accepted_classes()


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.20.1", "1.2.840.10008.1.3.10", "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.1.200.4"])
def test_commitment_directories_and_queries_are_no_storage(uid: str) -> None:
    assert uid not in accepted_classes()


def test_private_classes_are_accepted_when_configured_and_verification_always() -> None:
    assert {"1.3.12.2.1107.5.9.1", VERIFICATION} <= accepted_classes(["1.3.12.2.1107.5.9.1"])
    assert "1.3.12.2.1107.5.9.1" not in accepted_classes()


@pytest.mark.parametrize(
    "uid",
    [
        IMPLICIT,
        EXPLICIT,
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.53",
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
        JPEG_LS,
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.107",
        "1.2.840.10008.1.2.4.110",
        "1.2.840.10008.1.2.4.112",
        "1.2.840.10008.1.2.4.201",
        "1.2.840.10008.1.2.4.203",
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.4.102.1",
    ],
)
def test_every_family_of_transfer_syntaxes_is_known(uid: str) -> None:
    assert TRANSFER_SYNTAXES[uid]


def test_the_tables_are_complete_and_hold_valid_uids() -> None:
    assert set(ALL_TRANSFER_SYNTAXES) <= set(TRANSFER_SYNTAXES)
    assert all(is_valid_uid(uid) for uid in (*TRANSFER_SYNTAXES, *STORAGE_CLASSES, *REENCODABLE, DEFAULT))


def test_the_table_does_not_depend_on_what_was_imported_before() -> None:
    code = "from pacs_node.dicom.transfer_syntaxes import TRANSFER_SYNTAXES as table; print(len(table))"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(fresh.stdout) == len(TRANSFER_SYNTAXES)


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([(CT, [IMPLICIT, EXPLICIT])], {CT: (IMPLICIT, EXPLICIT)}),
        ([(CT, [JPEG_LS, EXPLICIT])], {CT: (JPEG_LS, EXPLICIT)}),  # the sender's own encoding comes first
        ([(CT, [JPEG_LS]), (CT, [EXPLICIT])], {CT: (JPEG_LS, EXPLICIT)}),
        ([(CT, ["1.2.3.4"])], {}),
        ([("1.2.840.10008.5.1.4.1.2.1.1", [IMPLICIT])], {}),
        ([], {}),
    ],
)
def test_a_proposal_is_answered_in_the_order_of_the_proposer(proposed: list[tuple[str, list[str]]], chosen: dict[str, tuple[str, ...]]) -> None:
    assert acceptable(proposed, accepted_classes()) == chosen


def test_names_are_for_people_and_an_unknown_uid_names_itself() -> None:
    assert name_of(CT) == "CT Image Storage"
    assert "JPEG-LS" in name_of(JPEG_LS)
    assert name_of("1.2.3") == "1.2.3"
