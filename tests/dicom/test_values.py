"""Values come out as what they are, and what cannot be read counts as missing."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs_node.dicom.values import Kind, comparable, kind_of, parse_key, places, plain_text, values


def through_a_file(dataset: Dataset, *, implicit: bool = False) -> Dataset:
    """Encode and read again, so that values are as raw as those of a received object."""
    buffer = BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.save_as(buffer, implicit_vr=implicit, little_endian=True)
    buffer.seek(0)
    return dcmread(buffer, force=True)


def damaged(vr: str, tag: tuple[int, int], value: bytes) -> Dataset:
    element = tag[0].to_bytes(2, "little") + tag[1].to_bytes(2, "little") + vr.encode() + len(value).to_bytes(2, "little") + value
    head = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    return dcmread(BytesIO(bytes(128) + b"DICM" + head + element), force=True)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("keyword", "given", "found"),
    [
        ("Modality", "CT", ["CT"]),
        ("ImageType", ["ORIGINAL", "PRIMARY"], ["ORIGINAL", "PRIMARY"]),
        ("SliceThickness", "2.50", [2.5]),
        ("PixelSpacing", ["0.5", "0.25"], [0.5, 0.25]),
        ("InstanceNumber", "7", [7]),
        ("Rows", 512, [512]),
        ("PatientName", "Müller^Änne=", ["Müller^Änne"]),
        ("StudyDate", "20240131", ["20240131"]),
        ("StudyTime", "223015.5", ["223015.5"]),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2", ["1.2.840.10008.5.1.4.1.1.2"]),
        ("FrameIncrementPointer", 0x00181063, ["(0018,1063)"]),
        ("StudyID", "", []),
        ("ContrastBolusAgent", None, []),
    ],
)
def test_values_are_python_values(keyword: str, given: Any, found: list[Any], implicit: bool) -> None:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    setattr(dataset, keyword, given)

    assert values(through_a_file(dataset, implicit=implicit), parse_key(keyword)) == found


@pytest.mark.parametrize(
    ("keyword", "vr", "tag", "value"),
    [
        ("SliceThickness", "DS", (0x0018, 0x0050), b"thin"),
        ("SliceThickness", "DS", (0x0018, 0x0050), b"nan "),
        ("InstanceNumber", "IS", (0x0020, 0x0013), b"one "),
        ("Rows", "US", (0x0028, 0x0010), b"\x01"),
        ("KVP", "FL", (0x0018, 0x0060), b"\x00\x00\xc0\x7f"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_values_that_cannot_be_read_count_as_missing(keyword: str, vr: str, tag: tuple[int, int], value: bytes) -> None:
    assert values(damaged(vr, tag, value), parse_key(keyword)) == []


def test_private_values_are_found_by_their_creator_wherever_its_block_lies() -> None:
    dataset = Dataset()
    dataset.private_block(0x0029, "FIRST", create=True).add_new(0x10, "LO", "one")
    dataset.private_block(0x0029, "SECOND (2.0)", create=True).add_new(0x10, "LO", "two")

    for implicit in (False, True):  # in implicit encodings private values have no known representation
        read = through_a_file(dataset, implicit=implicit)
        assert values(read, parse_key("(0029,second (2.0),10)")) == ["two"]
        assert values(read, parse_key("(0029,FIRST,xx10)")) == ["one"]
        assert values(read, parse_key("(0029,FIRST,11)")) == []


def test_binary_values_stay_bytes_and_answer_no_comparison() -> None:
    dataset = Dataset()
    dataset.private_block(0x0029, "ACME", create=True).add_new(0x10, "OB", b"\x01\x02\xff\x00")

    [found] = values(dataset, parse_key("(0029,ACME,10)"))

    assert found == b"\x01\x02\xff\x00"
    assert comparable(found, Kind.UNKNOWN) is None


def test_file_meta_information_is_found_too() -> None:
    dataset = dcmread(Path(str(get_testdata_file("CT_small.dcm"))), stop_before_pixels=True)

    assert values(dataset, parse_key("TransferSyntaxUID")) == [ExplicitVRLittleEndian]


def test_a_value_in_the_object_hides_those_of_its_frames() -> None:
    frame, macro = Dataset(), Dataset()
    macro.SliceThickness = "1"
    frame.PixelMeasuresSequence = [macro]
    dataset = Dataset()
    dataset.PerFrameFunctionalGroupsSequence = [frame, Dataset()]

    assert places(dataset, parse_key("SliceThickness")) == ((1.0,), ())
    dataset.SliceThickness = "9"
    assert places(dataset, parse_key("SliceThickness")) == ((9.0,),)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("045Y", Kind.AGE, 45.0),
        ("006M", Kind.AGE, 0.5),
        ("45", Kind.AGE, 45.0),
        ("old", Kind.AGE, None),
        ("2024-01-31", Kind.DATE, "20240131"),
        ("2024.01.31", Kind.DATE, "20240131"),
        ("2024", Kind.DATE, None),
        ("22:30", Kind.TIME, 81000.0),
        ("2230", Kind.TIME, 81000.0),
        ("evening", Kind.TIME, None),
        ("1e1", Kind.NUMBER, 10.0),
        ("inf", Kind.NUMBER, None),
        ("Straße", Kind.TEXT, "strasse"),
        ("5.0", Kind.UNKNOWN, 5.0),
        ("Five", Kind.UNKNOWN, "five"),
    ],
)
def test_values_compare_by_what_they_are(text: str, kind: Kind, expected: float | str | None) -> None:
    assert comparable(text, kind) == expected


def test_the_value_representation_says_how_to_compare() -> None:
    assert [kind_of(vr) for vr in ("DS", "AS", "DA", "TM", "LO", "UI", None)] == [
        Kind.NUMBER, Kind.AGE, Kind.DATE, Kind.TIME, Kind.TEXT, Kind.TEXT, Kind.UNKNOWN,
    ]  # fmt: skip
    assert plain_text(5.0) == "5"
    assert plain_text(0.5) == "0.5"


@pytest.mark.slow
def test_no_real_object_however_odd_stops_a_look_up(dataset_folder: Any) -> None:
    keys = [parse_key(text) for text in ("Modality", "SliceThickness", "ImageType", "PatientName", "StudyDate", "(0029,SIEMENS CSA HEADER,10)")]
    read = 0
    for file in sorted(dataset_folder("pydicom-test-files").rglob("*")):
        try:
            dataset = dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError, ValueError, EOFError, NotImplementedError, AttributeError, KeyError, TypeError):
            continue
        read += 1
        for key in keys:
            assert isinstance(values(dataset, key), list)

    assert read > 50
