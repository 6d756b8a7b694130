from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from pacs_node.delivery.archive import FolderArchive, Script
from pacs_node.records import Parcel
from tests.reception.peers import make_ct, save


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Callable[..., FolderArchive]]:
    """Start archives with a script; they are stopped at the end of the test."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    started: list[FolderArchive] = []

    def begin(**script: object) -> FolderArchive:
        started.append(FolderArchive(tmp_path / f"archive{len(started)}", "ARCHIVE", script=Script(**script)).start())  # type: ignore[arg-type]
        return started[-1]

    yield begin
    for one in started:
        one.stop()


@pytest.fixture
def parcel(tmp_path: Path) -> Callable[..., Parcel]:
    """Make a stored object that is ready to be sent."""
    count = iter(range(1000))

    def make(dataset: Dataset | None = None, folder: str = "study CT head", **values: object) -> Parcel:
        image = dataset or make_ct(**values)  # type: ignore[arg-type]
        path = save(image, tmp_path / f"object{next(count)}.dcm")
        return Parcel(str(image.SOPInstanceUID), str(image.SOPClassUID), str(image.file_meta.TransferSyntaxUID), path, folder)

    return make
