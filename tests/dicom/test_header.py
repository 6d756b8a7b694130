"""What damaged and hostile headers may do to their readers: nothing but be called unreadable."""

from __future__ import annotations

import resource
import struct
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from pacs_node.dicom.file_meta import read_meta
from pacs_node.dicom.header import leading_uids, nested_deeper, text_of
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
