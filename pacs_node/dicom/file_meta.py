"""Reading the file meta information of a Part 10 file, and nothing behind it (PS3.10 7.1)."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from pacs_node.dicom.header import DAMAGED
from pacs_node.errors import UnreadableObject


def read_meta(path: Path) -> Dataset:
    """Return group 0002; raises `UnreadableObject` where the file is no Part 10 file, FileNotFoundError where there is none."""
    try:
        return read_file_meta_info(path)
    except FileNotFoundError:
        raise
    except InvalidDicomError as error:
        raise UnreadableObject(str(path), "no DICOM Part 10 header (the letters DICM at byte 128)") from error
    except DAMAGED as error:
        raise UnreadableObject(str(path), f"its file meta information cannot be read ({error})") from error
