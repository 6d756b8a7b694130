from __future__ import annotations

import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom.dsutils import split_dataset

from pacs_node.dicom.header import leading_uids
from pacs_node.dicom.leading import quick_uids
from pacs_node.errors import UnreadableObject
from tests.reception.peers import data_set, make_ct

EXPLICIT, IMPLICIT, BIG, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
CT = "1.2.840.10008.5.1.4.1.1.2"


def encoded(implicit: bool, **values: object) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, implicit
    write_dataset(stream, make_ct(SOPInstanceUID="1.2.3.4", **values))
    return stream.getvalue()


@pytest.mark.parametrize(("implicit", "syntax"), [(False, EXPLICIT), (True, IMPLICIT), (False, "1.2.840.10008.1.2.4.90")])
def test_plain_datasets_say_at_once_what_they_are(implicit: bool, syntax: str) -> None:
    content = encoded(implicit, SpecificCharacterSet="ISO_IR 100", ImageType=["ORIGINAL", "PRIMARY"], InstanceCreationDate="20260101")
    assert quick_uids(memoryview(content), syntax) == (CT, "1.2.3.4") == leading_uids(content, syntax)


@pytest.mark.parametrize("syntax", [BIG, DEFLATED, "1.2.3", ""])
def test_other_encodings_get_no_verdict(syntax: str) -> None:
    assert quick_uids(encoded(False), syntax) is None


def test_too_few_bytes_get_no_verdict_and_never_another_one() -> None:
    content = encoded(False)
    verdicts = {quick_uids(content[:size], EXPLICIT) for size in range(200)}
    assert verdicts == {None, (CT, "1.2.3.4")}


CLASS = b"\x08\x00\x16\x00UI\x1a\x00" + CT.encode() + b"\0"
ODD = {
    "an instance and no class": b"\x08\x00\x18\x00UI\x04\x001.2\0",
    "a value that is no UID": CLASS + b"\x08\x00\x18\x00UI\x04\x001.x\0",
    "two values": CLASS + b"\x08\x00\x18\x00UI\x04\x001\\2\0",
    "a value of no length": CLASS + b"\x08\x00\x18\x00UI\x00\x00",
    "another VR": CLASS + b"\x08\x00\x18\x00LO\x04\x001.2\0",
    "a sequence first": b"\x08\x00\x06\x00SQ\x00\x00\x00\x00\x00\x00" + CLASS + b"\x08\x00\x18\x00UI\x04\x001.2\0",
    "out of order": CLASS + b"\x08\x00\x05\x00CS\x00\x00\x08\x00\x18\x00UI\x04\x001.2\0",
    "an instance twice": CLASS + b"\x08\x00\x18\x00UI\x04\x001.2\0\x08\x00\x18\x00UI\x04\x001.3\0",
    "another group": b"\x02\x00\x10\x00UI\x00\x00" + CLASS,
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_datasets_get_no_verdict(what: str) -> None:
    assert quick_uids(ODD[what], EXPLICIT) is None


def test_on_real_files_it_agrees_with_pydicom_or_says_nothing() -> None:
    told = 0
    for path in sorted(data_set("pydicom-test-files").rglob("*")):
        try:
            syntax = str(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
            content = path.read_bytes()[split_dataset(path)[1] :]
            slowly = leading_uids(content, syntax)
        except (InvalidDicomError, UnreadableObject, AttributeError, OSError, ValueError, NotImplementedError, EOFError, TypeError, KeyError):
            continue
        quick = quick_uids(content, syntax)
        assert quick in (None, slowly), path
        told += quick is not None
    assert told > 50
