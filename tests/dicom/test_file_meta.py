from pathlib import Path

import pytest

from pacs_node.dicom.file_meta import read_meta
from pacs_node.errors import UnreadableObject


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(128) + b"DICX" + bytes(50), b"%PDF-1.4" + bytes(200)])
def test_what_is_no_part_10_file_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.dcm"
    path.write_bytes(content)
    with pytest.raises(UnreadableObject, match=r"file\.dcm") as error:
        read_meta(path)
    assert error.value.reason


def test_a_file_that_is_not_there_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_meta(tmp_path / "none.dcm")
