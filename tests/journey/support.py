"""A small CT study, an engine that needs no model, and a house to live in: the journey without network and torch."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pacs_node.config import Settings, shipped
from pacs_node.database.engine import Store, database_url
from pacs_node.dicom.header import read_header
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import OutOfScope
from pacs_node.executors.retry import LADDER, Effort
from pacs_node.journey import House
from pacs_node.journey.assemble import assemble
from pacs_node.journey.deliver import deliver
from pacs_node.journey.receive import note_quarantined, receive
from pacs_node.journey.run_job import Worker, run_job
from pacs_node.reception.spool import Spool
from pacs_node.records import Algorithm, Finding, Frame, Plane, Sender, Verdict, Volume
from pacs_node.routing import load

RULES = """
rules:
  - name: head CT
    when: {Modality: CT, BodyPartExamined: HEAD}
    pipeline: ct-test
    send_to: [research]
  - name: anything else
    otherwise: true
    pipeline: null
    results: []
"""


def ct_slice(index: int, *, study: str = "A", patient: str = "P1", series: int = 1, **changes: object) -> Dataset:
    """Return one slice of a small, valid CT series; ``study`` names it, ``changes`` set or (None) remove attributes."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = derive_uid("test", study, series, index)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = derive_uid("test", study), derive_uid("test", study, series)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = patient, f"Test^{patient}", "19700101", "O"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "20260102", "101010", "1", f"ACC{study}"[:16], ""
    ds.SeriesDate, ds.SeriesTime, ds.ContentDate, ds.ContentTime = "20260102", "101011", "20260102", "101012"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = "CT", series, index + 1, 1
    ds.Manufacturer, ds.BodyPartExamined, ds.ImageType, ds.PositionReferenceIndicator = "test", "HEAD", ["ORIGINAL", "PRIMARY", "AXIAL"], ""
    ds.StudyDescription, ds.SeriesDescription, ds.PatientPosition = "Head", "axial", "HFS"
    ds.FrameOfReferenceUID = derive_uid("test", study, "frame")
    ds.Rows = ds.Columns = 16
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, "MONOCHROME2", 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType, ds.KVP = "1", "-1024", "HU", "120"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 5 * index], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], "5"
    pixels = np.random.default_rng(int(hashlib.sha256(f"{study}{series}{index}".encode()).hexdigest()[:8], 16)).integers(900, 1100, (16, 16))
    ds.PixelData = pixels.astype("<i2").tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def ct_study(count: int = 6, **changes: object) -> list[Dataset]:
    """Return a whole small series; arguments as of `ct_slice`."""
    return [ct_slice(index, **changes) for index in range(count)]  # type: ignore[arg-type]


@dataclass
class TestEngine:
    """An engine that needs no model: every study scores 1.5. ``script`` may raise, or act, before it answers."""

    __test__ = False
    script: Callable[[str], None] = lambda name: None
    calls: list[str] = field(default_factory=list)
    efforts: list[Effort] = field(default_factory=list)

    def analyse(self, files: Sequence[Path], name: str, folders: Mapping[str, Path], beat: Callable[[float], None], effort: Effort = LADDER[0]) -> Finding:
        self.calls.append(name)
        self.efforts.append(effort)
        self.script(name)
        beat(0.5)
        headers = sorted((read_header(file) for file in files), key=lambda header: float(header.get("ImagePositionPatient", [0, 0, 0])[2]))
        if any("ImagePositionPatient" not in header for header in headers):
            raise OutOfScope("there are no pixels to judge")
        return finding(headers)


def _orientation(header: Dataset) -> tuple[float, float, float, float, float, float]:
    row_x, row_y, row_z, column_x, column_y, column_z = map(float, header.get("ImageOrientationPatient") or (1, 0, 0, 0, 1, 0))
    return row_x, row_y, row_z, column_x, column_y, column_z


def _heat_spacing(header: Dataset) -> tuple[float, float]:
    """Eight pixels of heat cover the source."""
    rows, columns = map(float, header.get("PixelSpacing") or (1, 1))
    return rows * float(header.get("Rows") or 16) / 8, columns * float(header.get("Columns") or 16) / 8


def finding(headers: Sequence[Dataset]) -> Finding:
    """Return a finding on a series whose heat lies in the middle slice."""
    count = len(headers)
    planes = tuple(Plane(tuple(map(float, h.ImagePositionPatient)), _orientation(h), _heat_spacing(h), 5.0) for h in headers)  # type: ignore[arg-type]
    frames = tuple(
        Frame(str(h.SOPInstanceUID), str(h.SOPClassUID), None, Plane(plane.position, plane.orientation, (1.0, 1.0), 5.0))
        for h, plane in zip(headers, planes, strict=True)
    )
    pixels = np.zeros((count, 16, 16), np.float32)
    heat = np.zeros((count, 8, 8), np.float32)
    heat[count // 2, 3:5, 3:5] = 1.0
    volume = Volume(pixels, "[hnsf'U]", frames, "CT", str(headers[0].SeriesInstanceUID), str(headers[0].FrameOfReferenceUID))
    return Finding(
        volume=volume,
        algorithm=Algorithm("ct-test", "1.0", "test", "a" * 64, "b" * 64, "", derive_uid("test device")),
        score=1.5,
        verdict=Verdict.UNCALIBRATED,
        calibration=None,
        percentile=None,
        p_value=None,
        parts={"residual": 1.5},
        slice_scores=np.linspace(0, 1, count, dtype=np.float32),
        top_slices=(count // 2,),
        heat=heat,
        heat_calibrated=False,
        planes=planes,
        view=np.zeros((count, 8, 8), np.float32),
        reconstruction=np.zeros((count, 8, 8), np.float32),
        embedding=np.zeros((count, 4), np.float16),
        window=(40.0, 80.0),
    )


def shipped_bundles(*names: str) -> dict[str, Path]:
    """Return the folders of the bundles that come with the package, by name."""
    return {name: shipped("models") / name for name in names}


class Town:
    """A house with a moved clock: `send` puts objects into the spool as a receiver would, `settle` lets time pass."""

    def __init__(self, folder: Path, rules: str = RULES, bundles: Mapping[str, Path] | None = None, **settings: object) -> None:
        self.folder = folder
        self.bundles = bundles or {"ct-test": folder}  # name of a pipeline → folder; the engine that stands in needs none
        (folder / "rules.yaml").write_text(rules)
        base = {
            "node": {"name": "test", "data": str(folder / "data"), "rules": str(folder / "rules.yaml")},
            "assembly": {"quiet": "10s", "deadline": "1h"},
            "destinations": {"research": {"kind": "folder", "path": str(folder / "out")}},
        }
        self.settings = Settings.model_validate({**base, **settings})
        self.engine = TestEngine()
        self._count = itertools.count()
        self.clock = datetime.now(UTC)
        self.start()

    def start(self) -> None:
        """Open the house, as a process does at its start."""
        self.settings.node.data.mkdir(exist_ok=True)
        rules = load(self.folder / "rules.yaml", pipelines=self.bundles, destinations=self.settings.destinations)
        store = Store(database_url(self.settings.database.url, self.settings.node.data))
        store.upgrade()
        self.house = House(self.settings, store, rules, self.bundles, Spool(self.settings.node.data), lambda: self.clock)
        self.worker = Worker("test:worker-0", self.engine)

    def restart(self) -> None:
        """Begin again with nothing but what is on disk."""
        self.house.store.close()
        self.start()

    def send(self, datasets: Sequence[Dataset], *, calling: str = "CT1", association: str = "", released: bool | None = True) -> None:
        """Put objects into the spool, and the end of the association (None: still open)."""
        self.clock = max(self.clock, datetime.now(UTC))  # making studies takes real time, too
        sender = Sender(calling, "PACS_NODE", "127.0.0.1:4242", association or f"a{next(self._count):08d}")
        self.house.spool._last_time = int(self.clock.timestamp() * 1e9)  # names carry the moved clock's time
        for dataset in datasets:
            body = encode_body(dataset)
            self.house.spool.store(sender, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), str(dataset.file_meta.TransferSyntaxUID), [body])
        if released is not None:
            self.house.spool.end_association(sender, released=released, stored=len(datasets), refused=0)

    def gather(self) -> None:
        """Index the spool and look at due studies."""
        while receive(self.house, self.clock):
            pass
        note_quarantined(self.house, self.house.spool.quarantined(), self.clock)
        while assemble(self.house, self.clock):
            pass

    def work(self) -> None:
        """Run the jobs that wait."""
        while run_job(self.house, self.worker):
            pass

    def post(self) -> None:
        """Empty the outbox as far as it is due."""
        for name in self.settings.destinations:
            while deliver(self.house, name, self.clock):
                pass

    def wait(self, **span: float) -> None:
        """Move the clock."""
        self.clock += timedelta(**span)

    def settle(self) -> None:
        """Let a study go all the way: in, quiet time, job, out."""
        self.gather()
        self.wait(seconds=11)
        self.gather()
        self.work()
        self.post()

    def results(self) -> list[Dataset]:
        """Return what lies in the destination folder."""
        return [read_header(path) for path in sorted((self.folder / "out").rglob("*.dcm"))]


def encode_body(dataset: Dataset) -> bytes:
    """Return a dataset encoded in its transfer syntax, without preamble and file meta."""
    from io import BytesIO

    from pydicom.filewriter import dcmwrite

    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    raw = buffer.getvalue()
    length = int.from_bytes(raw[140:144], "little")
    return raw[144 + length :]
