"""What the tests of reception and delivery share: small images, running receivers, other makers' programs."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset

from pacs_node.config import Size
from pacs_node.delivery.requestor import Requestor
from pacs_node.reception.spool import Spool
from pacs_node.records import Arrival, AssociationEnd, Note

NO_RESERVE = Size(number=0)


def wait_until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@dataclass
class Running:
    """A receiver in a thread of this process."""

    port: int
    spool: Spool
    slots: list[int]
    stop: threading.Event
    thread: threading.Thread = field(repr=False)

    def arrivals(self) -> list[Arrival]:
        return [entry for entry in self.spool.arrivals(10_000) if isinstance(entry, Arrival)]

    def ends(self) -> list[AssociationEnd]:
        return [entry for entry in self.spool.arrivals(10_000) if isinstance(entry, AssociationEnd)]

    def notes(self) -> list[Note]:
        return [entry for entry in self.spool.arrivals(10_000) if isinstance(entry, Note)]

    def the_end(self) -> AssociationEnd:
        wait_until(self.ends)
        (end,) = self.ends()
        return end

    def associate(self, *contexts: tuple[str, list[str]], called_ae: str = "PACS_NODE", calling_ae: str = "CT1") -> Association:
        entity = Requestor(calling_ae, 20, 20, 20)
        proposed = [build_context(*context) for context in contexts] or [build_context(CTImageStorage, [ExplicitVRLittleEndian])]
        return entity.associate("127.0.0.1", self.port, proposed, called_ae)


def make_ct(rows: int = 16, **values: object) -> Dataset:
    """Return a small CT image with fresh UIDs."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.Modality = "P1", "Doe^Jane", "CT"
    dataset.Rows = dataset.Columns = rows
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(range(256)) * (rows * rows * 2 // 256)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def dataset_bytes(path: Path) -> bytes:
    """Return what follows the file meta information."""
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def tool_path(name: str) -> str:
    """Return the path of a program of dcmtk; the test is skipped where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} (dcmtk) is not installed")
    return path


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of dcmtk; the test is skipped where it is not installed."""
    return subprocess.run([tool_path(name), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def data_set(name: str) -> Path:
    """Return a folder of real images; the test is skipped where they are not unpacked."""
    folder = Path(__file__).parents[2] / ".data" / name
    if not folder.is_dir():
        pytest.skip(f"the test images {name} are not in .data/")
    return folder
