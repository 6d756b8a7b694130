"""Small CT studies and findings for the tests of the results: real headers, a head-like ellipse, heat planted where the test wants it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from scipy.ndimage import gaussian_filter

from pacs_node.config import Equipment
from pacs_node.dicom.uids import derive_uid
from pacs_node.records import Algorithm, Calibration, Finding, Frame, Notice, Plane, Population, Run, Sources, Verdict, Volume
from pacs_node.results import BuildRequest

ALGORITHM = Algorithm("ct-head", "1.2.0", "pacs-node open source project", "ab" * 32, "cd" * 32, "ef" * 32, "2.25.123456789")
CALIBRATION = Calibration(Population.SITE, 120, 2.5, 0.1, date(2026, 1, 15))


@dataclass(frozen=True)
class Shape:
    """How a test study looks."""

    slices: int = 6
    rows: int = 96
    columns: int = 128
    spacing: float = 2.0
    grid: int = 32  # pixels of the analysis grid, square, over the middle of the slice
    grid_spacing: float = 5.0
    tilt: float = 0.0  # degrees, gantry tilt about the x axis
    steps: tuple[float, ...] = ()  # mm between slices; default 5 mm each
    attributes: dict[str, object] = field(default_factory=dict)  # set on every header; None removes


def slice_plane(shape: Shape, index: int) -> Plane:
    """Return the plane of a slice: a tilted table moves along z while the slices lean."""
    angle = np.deg2rad(shape.tilt)
    down = (0.0, float(np.cos(angle)), float(-np.sin(angle)))
    steps = shape.steps or (5.0,) * (shape.slices - 1)
    z = float(sum(steps[:index]))
    corner = np.array([-(shape.columns - 1) / 2 * shape.spacing, 0.0, z]) - (shape.rows - 1) / 2 * shape.spacing * np.array(down)
    x, y, z = (round(float(value), 6) for value in corner)
    return Plane((x, y, z), (1.0, 0.0, 0.0, *(round(part, 9) for part in down)), (shape.spacing, shape.spacing), 5.0)


def grid_plane(shape: Shape, source: Plane) -> Plane:
    """Return the analysis grid in the plane of a slice, over its middle."""
    right, down = np.array(source.orientation[:3]), np.array(source.orientation[3:])
    middle = np.array(source.position) + right * (shape.columns - 1) / 2 * shape.spacing + down * (shape.rows - 1) / 2 * shape.spacing
    x, y, z = (float(value) for value in middle - (right + down) * (shape.grid - 1) / 2 * shape.grid_spacing)
    return Plane((x, y, z), source.orientation, (shape.grid_spacing, shape.grid_spacing), source.thickness)


def header(shape: Shape, index: int) -> Dataset:
    """Return the header of a slice as a scanner would write it."""
    plane = slice_plane(shape, index)
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, derive_uid("test", shape.slices, shape.tilt, index)
    made.StudyDate, made.StudyTime = "20260203", "101112"
    made.AccessionNumber, made.Modality, made.Manufacturer = "A4711", "CT", "Scanner Works"
    made.ReferringPhysicianName, made.StudyDescription, made.SeriesDescription = "Doe^Jane", "CT head", "Axial 5 mm"
    made.PatientName, made.PatientID, made.IssuerOfPatientID = "Phantom^Test", "P-1", "HOSPITAL"
    made.PatientBirthDate, made.PatientSex, made.BodyPartExamined = "19600504", "O", "HEAD"
    made.StudyInstanceUID, made.SeriesInstanceUID = derive_uid("test study"), derive_uid("test series")
    made.FrameOfReferenceUID, made.StudyID, made.SeriesNumber, made.InstanceNumber = derive_uid("test frame"), "S1", 2, index + 1
    made.ImagePositionPatient, made.ImageOrientationPatient = list(plane.position), list(plane.orientation)
    made.PixelSpacing, made.SliceThickness = list(plane.spacing), 5.0
    made.Rows, made.Columns, made.BitsAllocated, made.BitsStored, made.HighBit = shape.rows, shape.columns, 16, 16, 15
    made.SamplesPerPixel, made.PixelRepresentation, made.PhotometricInterpretation = 1, 1, "MONOCHROME2"
    for keyword, value in shape.attributes.items():
        if value is None:
            made.pop(keyword, None)
        else:
            setattr(made, keyword, value)
    return made


def head(shape: Shape) -> np.ndarray:
    """Return a head-like ellipse in HU for one slice: air, skull, brain."""
    y, x = np.mgrid[: shape.rows, : shape.columns]
    radius = np.hypot((x - shape.columns / 2 + 0.5) / (0.36 * shape.columns), (y - shape.rows / 2 + 0.5) / (0.44 * shape.rows))
    return np.where(radius > 1, -1000.0, np.where(radius > 0.92, 900.0, 35.0 + 5 * np.cos(x / 5))).astype(np.float32)


def volume(shape: Shape, headers: tuple[Dataset, ...]) -> Volume:
    """Return the pixels of the study."""
    frames = tuple(Frame(str(one.SOPInstanceUID), str(one.SOPClassUID), None, slice_plane(shape, index)) for index, one in enumerate(headers))
    frame_of_reference = headers[0].get("FrameOfReferenceUID")
    pixels = np.stack([head(shape)] * shape.slices)
    return Volume(pixels, "[hnsf'U]", frames, "CT", str(headers[0].SeriesInstanceUID), str(frame_of_reference) if frame_of_reference else None)


def finding(shape: Shape, headers: tuple[Dataset, ...], *, calibrated: bool = True, lesion: tuple[int, int, int] = (3, 12, 20)) -> Finding:
    """Return a finding with heat planted around (slice, row, column) of the analysis grid."""
    source = volume(shape, headers)
    heat = np.zeros((shape.slices, shape.grid, shape.grid), dtype=np.float32)
    where, row, column = min(lesion[0], shape.slices - 1), *lesion[1:]
    heat[where, row - 1 : row + 2, column - 1 : column + 2] = 3.5 if calibrated else 0.9
    view = np.full(heat.shape, 35.0, dtype=np.float32)
    slice_scores = heat.max(axis=(1, 2)) + np.linspace(0.01, 0.1, shape.slices, dtype=np.float32)
    order = tuple(int(index) for index in np.argsort(-slice_scores)[:3])
    return Finding(
        volume=source,
        algorithm=ALGORITHM if calibrated else replace(ALGORITHM, calibration_hash=""),
        score=3.217,
        verdict=Verdict.ABOVE if calibrated else Verdict.UNCALIBRATED,
        calibration=CALIBRATION if calibrated else None,
        percentile=99.2 if calibrated else None,
        p_value=0.0083 if calibrated else None,
        parts={"reconstruction": 2.1, "latent": 1.117},
        slice_scores=slice_scores,
        top_slices=order,
        heat=heat,
        heat_calibrated=calibrated,
        planes=tuple(grid_plane(shape, slice_plane(shape, index)) for index in range(shape.slices)),
        view=view,
        reconstruction=view + 2,
        embedding=np.zeros((shape.slices, 8), dtype=np.float16),
        window=(40.0, 80.0),
        remarks=("2 slices at the vertex were left out",),
    )


RUN = Run(
    job_id=7,
    number=1,
    pipeline="ct-head",
    node_name="node-1",
    created_at=datetime(2026, 2, 3, 23, 30, 15, 250_000, tzinfo=UTC),
    variant="pm+sc+sr",
    complete_reason="no new instance for 10 s",
    partial=False,
)


def request(shape: Shape | None = None, *, calibrated: bool = True, kinds: tuple[str, ...] = ("sr", "pm", "sc"), notice: Notice | None = None) -> BuildRequest:
    """Return a request for a small study."""
    shape = shape or Shape()
    headers = tuple(header(shape, index) for index in range(shape.slices))
    scout = header(shape, 0)
    scout.SOPInstanceUID, scout.SeriesInstanceUID = derive_uid("test scout"), derive_uid("test scout series")
    found = None if kinds == ("notice",) else finding(shape, headers, calibrated=calibrated)
    return BuildRequest(found, notice, Sources(headers, (scout,)), RUN, Equipment(), None, "UTC", kinds)


def real_request(folder: Path, *, calibrated: bool = False, kinds: tuple[str, ...] = ("sr", "pm", "sc")) -> BuildRequest:
    """Return a request for a real CT series: its own headers and pixels, on an analysis grid of half the resolution."""
    files = [dcmread(path) for path in sorted(folder.rglob("*.dcm")) if path.is_file()]
    normal = np.cross(files[0].ImageOrientationPatient[:3], files[0].ImageOrientationPatient[3:])
    files.sort(key=lambda one: float(np.dot(normal, one.ImagePositionPatient)))
    frames, planes, pixels = [], [], []
    for one in files:
        right_down = tuple(float(part) for part in one.ImageOrientationPatient)
        position, spacing = tuple(float(part) for part in one.ImagePositionPatient), tuple(float(part) for part in one.PixelSpacing)
        plane = Plane(position, right_down, spacing, float(one.SliceThickness))
        corner = np.array(position) + (np.array(right_down[:3]) * spacing[1] + np.array(right_down[3:]) * spacing[0]) / 2
        frames.append(Frame(str(one.SOPInstanceUID), str(one.SOPClassUID), None, plane))
        planes.append(Plane(tuple(float(part) for part in corner), right_down, (2 * spacing[0], 2 * spacing[1]), plane.thickness))
        pixels.append(one.pixel_array * np.float32(one.RescaleSlope) + np.float32(one.RescaleIntercept))
        del one.PixelData
    stack = np.stack(pixels).astype(np.float32)
    view = np.ascontiguousarray(stack[:, ::2, ::2])
    heat = np.zeros_like(view)
    middle = len(files) // 2
    y, x = np.mgrid[: view.shape[1], : view.shape[2]]
    heat[middle] = (4.0 if calibrated else 1.0) * np.exp(-((x - 150) ** 2 + (y - 100) ** 2) / 200)
    source = Volume(stack, "[hnsf'U]", tuple(frames), "CT", str(files[0].SeriesInstanceUID), str(files[0].FrameOfReferenceUID))
    small = Shape()
    template = finding(small, tuple(header(small, index) for index in range(small.slices)), calibrated=calibrated)
    found = replace(
        template,
        volume=source,
        heat=heat,
        planes=tuple(planes),
        view=view,
        reconstruction=gaussian_filter(view, (0, 2, 2)),
        slice_scores=heat.max(axis=(1, 2)),
        top_slices=(middle, middle + 1),
        embedding=np.zeros((len(files), 8), dtype=np.float16),
    )
    return BuildRequest(found, None, Sources(tuple(files)), RUN, Equipment(), None, "UTC", kinds)


def received(dataset: Dataset) -> Dataset:
    """Return a header as it is read from a received file."""
    buffer = BytesIO()
    whole = Dataset(dataset)
    whole.file_meta = FileMetaDataset()
    whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole.file_meta.MediaStorageSOPClassUID, whole.file_meta.MediaStorageSOPInstanceUID = whole.SOPClassUID, whole.SOPInstanceUID
    whole.save_as(buffer, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()))
