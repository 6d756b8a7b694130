"""Writing a result as the file that every delivery attempt sends."""

from __future__ import annotations

import hashlib
import os
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset

from pacs_node.records import ResultObject


def even(content: bytes) -> bytes:
    """Return a value with the zero that makes its length even, where it needs one (PS3.5 7.1.1)."""
    return content + b"\0" * (len(content) % 2)


def encode(dataset: Dataset) -> bytes:
    """Return the Part 10 bytes of a dataset (PS3.10 7)."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def save(result: ResultObject, path: Path) -> str:
    """Write a result so that it survives a power cut, and return its SHA-256 in hexadecimal.

    The file appears under ``path`` only when it is whole: written beside it, synced, renamed, and the folder synced.
    """
    content = encode(result.dataset)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # on a full disk, half a result would take the room that is needed to say so
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return hashlib.sha256(content).hexdigest()
