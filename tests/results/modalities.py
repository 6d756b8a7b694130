"""Small studies of other modalities and enhanced objects than `studies` makes, and findings on real series as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    PositronEmissionTomographyImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)
from scipy.ndimage import gaussian_filter

from pacs_node.analysis.grid import Grid, resample
from pacs_node.analysis.intensity import by_foreground
from pacs_node.analysis.modalities import READERS
from pacs_node.config import Equipment
from pacs_node.dicom.header import read_header
from pacs_node.dicom.uids import derive_uid
from pacs_node.records import Finding, Frame, Place, Sources, Volume
from pacs_node.results import BuildRequest
from tests.results.studies import RUN, Shape, finding, header, slice_plane

KINDS = ("sr", "pm", "seg", "sc")
UNITS = {"CT": "[hnsf'U]", "MR": "1", "PT": "{SUVbw}g/ml", "US": "1"}
WINDOWS = {"CT": (40.0, 80.0), "MR": (50.0, 100.0), "PT": (2.5, 5.0), "US": (128.0, 256.0)}
PIPELINES = {"CT": "ct-head", "MR": "mr-brain", "PT": "pt-body", "US": "us-breast"}


def _as_request(shape: Shape, headers: Sequence[Dataset], frames: Sequence[Frame], *, calibrated: bool, **volume: object) -> BuildRequest:
    """Return a request for a series whose slices are ``frames`` of the objects in ``headers``."""
    template = finding(shape, tuple(header(shape, index) for index in range(shape.slices)), calibrated=calibrated)
    modality = str(headers[0].Modality)
    frame_of_reference = headers[0].get("FrameOfReferenceUID")
    source = Volume(
        pixels=(template.volume.pixels + 1000) * np.float32(WINDOWS[modality][1] / 1040),
        unit=UNITS[modality],
        frames=tuple(frames),
        modality=modality,
        series_uid=str(headers[0].SeriesInstanceUID),
        frame_of_reference_uid=str(frame_of_reference) if frame_of_reference else None,
        **volume,
    )
    algorithm = replace(template.algorithm, name=PIPELINES[modality])
    found = replace(template, volume=source, window=WINDOWS[modality], view=template.view * 0 + 1, reconstruction=template.view * 0 + 1, algorithm=algorithm)
    return BuildRequest(found, None, Sources(tuple(headers)), replace(RUN, pipeline=PIPELINES[modality]), Equipment(), None, "UTC", KINDS)


# --- slices in the patient ---------------------------------------------------------------------------------------------


def pet(slices: int = 4, *, calibrated: bool = True) -> BuildRequest:
    """Return a request for a PET series of single-frame images, with the patient and study of `studies.request`."""
    attributes = {"Modality": "PT", "SOPClassUID": PositronEmissionTomographyImageStorage, "BodyPartExamined": "WHOLEBODY", "Units": "BQML"}
    shape = Shape(slices=slices, attributes=attributes | {"SeriesInstanceUID": derive_uid("test PET series"), "SeriesNumber": 5})
    headers = [header(shape, index) for index in range(slices)]
    for index, one in enumerate(headers):
        one.SOPInstanceUID = derive_uid("test PET", index)
    frames = [Frame(str(one.SOPInstanceUID), str(one.SOPClassUID), None, slice_plane(shape, index)) for index, one in enumerate(headers)]
    return _as_request(shape, headers, frames, calibrated=calibrated)


def _groups(shape: Shape, indices: Sequence[int]) -> tuple[Dataset, list[Dataset]]:
    """Return shared and per-frame functional groups (PS3.3 C.7.6.16) of frames that show the slices ``indices``."""
    plane = slice_plane(shape, 0)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(plane.orientation)
    measures.PixelSpacing, measures.SliceThickness = list(plane.spacing), plane.thickness
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    shared.FrameAnatomySequence = [_anatomy()]
    per_frame = []
    for index in indices:
        position, item = Dataset(), Dataset()
        position.ImagePositionPatient = list(slice_plane(shape, index).position)
        item.PlanePositionSequence = [position]
        per_frame.append(item)
    return shared, per_frame


def _anatomy() -> Dataset:
    region, item = Dataset(), Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "12738006", "SCT", "Brain"
    item.AnatomicRegionSequence, item.FrameLaterality = [region], "U"
    return item


def enhanced(modality: str, sop_class: str, *, slices: int = 4, echoes: int = 1, objects: int = 1, calibrated: bool = True) -> BuildRequest:
    """Return a request for an enhanced series: ``echoes`` frames at each place (the first is analysed), stored from the last place to the first."""
    shape = Shape(slices=slices, attributes={"Modality": modality, "SOPClassUID": sop_class, "BodyPartExamined": None})
    each, headers, frames = slices // objects, [], {}
    for number in range(objects):
        made = header(shape, 0)
        made.SOPInstanceUID, made.InstanceNumber = derive_uid("test enhanced", sop_class, number), number + 1
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            delattr(made, keyword)
        places = [index for index in reversed(range(number * each, (number + 1) * each)) for _ in range(echoes)]
        shared, per_frame = _groups(shape, places)
        made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence, made.NumberOfFrames = [shared], per_frame, len(per_frame)
        headers.append(made)
        for position in range(0, len(places), echoes):
            frames[places[position]] = Frame(str(made.SOPInstanceUID), sop_class, position + 1, slice_plane(shape, places[position]))
    weighting = {"weighting": "T1"} if modality == "MR" else {}
    return _as_request(shape, headers, [frames[index] for index in range(slices)], calibrated=calibrated, **weighting)


# --- pictures without a place in the patient ---------------------------------------------------------------------------


def ultrasound(loops: Sequence[int | None] = (None,) * 3, *, colour: bool = False, calibrated: bool = True) -> BuildRequest:
    """Return a request for an ultrasound series: for each object the frames of a loop, or None for a still."""
    count = sum(loop or 1 for loop in loops)
    shape = Shape(slices=count, grid=32, grid_spacing=5.0)
    headers, frames = [], []
    for index, loop in enumerate(loops):
        made = _ultrasound_header(shape, index, loop, colour=colour)
        headers.append(made)
        numbers = range(1, loop + 1) if loop else [None]
        frames += [Frame(str(made.SOPInstanceUID), str(made.SOPClassUID), number, None, (0.2, 0.2)) for number in numbers]
    request = _as_request(shape, headers, frames, calibrated=calibrated)
    nowhere = (None,) * count
    places = (Place(10.0, 30.0, 2.0, 2.0),) * count  # the grid lies on rows 10…72 and columns 30…92 of 96 × 128
    return replace(request, finding=replace(request.finding, planes=nowhere, places=places))


def _ultrasound_header(shape: Shape, index: int, loop: int | None, *, colour: bool) -> Dataset:
    made = header(shape, 0)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "FrameOfReferenceUID"):
        delattr(made, keyword)
    made.SOPClassUID = UltrasoundMultiFrameImageStorage if loop else UltrasoundImageStorage
    made.SOPInstanceUID, made.SeriesInstanceUID = derive_uid("test US", index, loop or 0), derive_uid("test US series")
    made.Modality, made.BodyPartExamined, made.Laterality, made.InstanceNumber = "US", "BREAST", "L", 2 * index + 1
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    if loop:
        made.NumberOfFrames = loop
    if colour:
        made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    return made


CASES = {
    "enhanced MR": lambda **options: enhanced("MR", EnhancedMRImageStorage, **options),
    "enhanced MR, first of two echoes": lambda **options: enhanced("MR", EnhancedMRImageStorage, echoes=2, **options),
    "enhanced MR in two objects": lambda **options: enhanced("MR", EnhancedMRImageStorage, objects=2, **options),
    "enhanced CT": lambda **options: enhanced("CT", EnhancedCTImageStorage, **options),
    "legacy-converted CT": lambda **options: enhanced("CT", LegacyConvertedEnhancedCTImageStorage, **options),
    "PET": pet,
    "ultrasound stills": ultrasound,
    "ultrasound loop": lambda **options: ultrasound((6,), **options),
    "ultrasound stills and loops": lambda **options: ultrasound((None, 3, None, 4), **options),
    "ultrasound in colour": lambda **options: ultrasound(colour=True, **options),
}


# --- real series -------------------------------------------------------------------------------------------------------


def real(modality: str, files: Sequence[Path], *, kinds: tuple[str, ...] = KINDS, millimetres: float = 4.0) -> BuildRequest:
    """Return a request for a real series as the node reads it, with heat planted in the middle of its middle slice."""
    volume = READERS[modality](files, lambda fraction: None)
    if modality == "MR":
        volume = by_foreground(volume)
    grid = resample(volume, Grid(64, millimetres, {"CT": -300.0, "MR": 10.0, "PT": 0.2, "US": 10.0}[modality]))
    heat = np.zeros_like(grid.view)
    middle = len(heat) // 2
    y, x = np.mgrid[:64, :64]
    heat[middle] = np.where(np.isfinite(grid.view[middle]), np.exp(-((x - 36) ** 2 + (y - 28) ** 2) / 20), 0.0)
    small = Shape()
    template = finding(small, tuple(header(small, index) for index in range(small.slices)), calibrated=False)
    found: Finding = replace(
        template,
        algorithm=replace(template.algorithm, name=PIPELINES[modality]),
        volume=volume,
        heat=heat,
        planes=grid.planes,
        places=grid.places,
        view=grid.view,
        reconstruction=gaussian_filter(np.nan_to_num(grid.view), (0, 1, 1)),
        slice_scores=heat.max(axis=(1, 2)),
        top_slices=tuple(dict.fromkeys((middle, 0))),
        embedding=np.zeros((len(heat), 8), dtype=np.float16),
        window=WINDOWS[modality],
        remarks=(),
    )
    headers = {str(one.SOPInstanceUID): one for one in map(read_header, files)}
    analysed = {frame.sop_uid: headers[frame.sop_uid] for frame in volume.frames}
    others = tuple(one for uid, one in headers.items() if uid not in analysed)
    return BuildRequest(found, None, Sources(tuple(analysed.values()), others), replace(RUN, pipeline=PIPELINES[modality]), Equipment(), None, "UTC", kinds)
