"""What damaged and hostile headers may do to their readers: nothing but be called unreadable."""

from __future__ import annotations

import resource
import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.pixels import pixel_array
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pacs_node.dicom.file_meta import read_meta
from pacs_node.dicom.header import leading_uids, nested_deeper, read_header, text_of, with_pixels
from pacs_node.errors import UnreadableObject
from pacs_node.reception.part10 import Incoming, head
from pacs_node.records import Sender

EXPLICIT = "1.2.840.10008.1.2.1"


def nested_fault(depth: int, tag: int) -> bytes:
    """Return a sequence in a sequence, and so on, below which stands a number of three bytes."""
    content = struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 3) + b"abc"
    for _ in range(depth):
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content
        content = struct.pack("<HH2sxxL", tag >> 16, tag & 0xFFFF, b"SQ", len(item)) + item
    return content


def read(content: bytes) -> Dataset:
    return read_dataset(DicomBytesIO(content), is_implicit_VR=False, is_little_endian=True)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("depth", [14, 60, 2000])
def test_a_damaged_value_below_many_sequences_does_not_fill_the_memory(depth: int) -> None:
    """pydicom's message about it would be 2.6 times as long at every level: 400 MB at the fourteenth."""
    before, content = peak(), nested_fault(depth, 0x00080018)
    with pytest.raises(UnreadableObject, match=r"written as a sequence|cannot be parsed") as refusal:
        leading_uids(struct.pack("<HH2sH", 8, 0x16, b"UI", 4) + b"1.2\0" + content, EXPLICIT)
    assert len(str(refusal.value)) < 500
    assert text_of(read(content), "SOPInstanceUID") == ""
    with pytest.raises(Exception) as fault:
        str(read(content))
    assert len(str(fault.value)) < 1000
    assert peak() - before < 100 << 20


def test_an_item_outside_of_a_sequence_is_no_nesting() -> None:
    content = struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 2) + b"ab" + struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    assert not nested_deeper(read(content), 1)


def test_file_meta_information_whose_numbers_have_odd_lengths_is_said_to_be_unreadable(tmp_path: Path) -> None:
    content = bytearray(head(Incoming(Sender("A", "B", "h:1", "1"), "1.2", "1.3", EXPLICIT)))
    content[132 + 6] = 7  # the length of (0002,0000), which is an unsigned long
    (tmp_path / "odd.dcm").write_bytes(content)
    with pytest.raises(UnreadableObject):
        read_meta(tmp_path / "odd.dcm")


# --- the pixels alone ------------------------------------------------------------------------------------------------------------

SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def image(path: Path, syntax: UID) -> Path:
    """Write an image of 4 × 3 pixels, with something that describes it, and something that does not."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "2.25.7"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.8", "2.25.9"
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 4, 3, 16, 16, 15
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 1
    dataset.PixelPaddingValue, dataset.RescaleSlope, dataset.PatientName = -5, "2", "Doe"
    dataset.PixelData = np.arange(-6, 6, dtype=">i2" if syntax == ExplicitVRBigEndian else "<i2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: str(syntax.name))
def test_pixels_come_with_what_describes_them_in_every_encoding(tmp_path: Path, syntax: UID) -> None:
    path = image(tmp_path / "image.dcm", syntax)
    header = read_header(path)
    found = with_pixels(header, path)
    assert pixel_array(found).ravel().tolist() == list(range(-6, 6))
    assert (found.PixelPaddingValue, found.RescaleSlope, found.SOPInstanceUID) == (-5, 2, "2.25.7")
    assert "PixelData" not in header
    assert ("PatientName" in found) is (syntax == DeflatedExplicitVRLittleEndian)  # nobody can say where in such a file the pixels begin


def test_pixels_that_are_gone_or_cut_off_are_said(tmp_path: Path) -> None:
    path = image(tmp_path / "image.dcm", ExplicitVRLittleEndian)
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="expected"):
        pixel_array(with_pixels(header, path))
    path.unlink()
    with pytest.raises(UnreadableObject, match="No such file"):
        with_pixels(header, path)


def test_a_header_from_elsewhere_has_the_whole_object_read(tmp_path: Path) -> None:
    path = image(tmp_path / "image.dcm", ExplicitVRLittleEndian)
    with path.open("rb") as file:
        assert with_pixels(read_header(file), path).PatientName == "Doe"
