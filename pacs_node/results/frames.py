"""What parametric map and segmentation share: frames that lie where their source slices lie (functional groups, PS3.3 C.7.6.16).

highdicom makes the object around one frame of a stand-in; all frames are then written here, because a tilted or unevenly spaced stack is no
regular volume and must not be sorted into one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage

from pacs_node.dicom.uids import derive_uid
from pacs_node.records import Frame, Plane
from pacs_node.results import codes as ours
from pacs_node.results.identity import Label, add_request_attributes, sop_uid
from pacs_node.results.modules import TYPE_2
from pacs_node.results.references import frame_count, frame_number, frame_numbers, image_items, referenced_series, references_to
from pacs_node.results.request import BuildRequest


@dataclass(frozen=True, slots=True)
class Placed:
    """One frame of ours."""

    source: Frame  # the slice that it was made from
    plane: Plane | None  # where it lies; None: pixel by pixel on its source, which has no place in the patient
    indices: tuple[int, ...]  # Dimension Index Values (0020,9157)
    segment: int | None = None  # of a segmentation


def stand_in(shape: tuple[int, int], plane: Plane, frame_of_reference_uid: str | None) -> Dataset:
    """Return a header with nothing but what a constructor checks an object against: what is odd in a source never reaches it."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID, header.Modality = CTImageStorage, "1.2", "OT"
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2", "1.2"
    header.FrameOfReferenceUID = frame_of_reference_uid or "1.2"
    header.Rows, header.Columns = shape
    header.ImagePositionPatient, header.ImageOrientationPatient = list(plane.position), list(plane.orientation)
    header.PixelSpacing, header.SliceThickness = list(plane.spacing), plane.thickness
    for keyword in TYPE_2:
        setattr(header, keyword, "")
    return header


def measures_of(plane: Plane) -> Any:
    """Return Pixel Measures (PS3.3 C.7.6.16.2.1) of a plane."""
    measures = hd.PixelMeasuresSequence(pixel_spacing=plane.spacing, slice_thickness=plane.thickness or 1.0)
    if plane.thickness is None:
        del measures[0].SliceThickness
    return measures


def write_frames(dataset: Dataset, frames: Sequence[Placed], headers: Sequence[Dataset], derivation: Code) -> None:
    """Write the per-frame functional groups. What is the same in all planes stays in the shared ones."""
    planes = [frame.plane for frame in frames if frame.plane is not None]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    varying = {
        "PlaneOrientationSequence": len({plane.orientation for plane in planes}) != 1,
        "PixelMeasuresSequence": len({(plane.spacing, plane.thickness) for plane in planes}) != 1,
    }
    for keyword, varies in varying.items():
        if varies and keyword in shared:
            delattr(shared, keyword)
    counts = {str(header.SOPInstanceUID): frame_count(header) for header in headers}
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence([_group(frame, varying, counts, derivation) for frame in frames])
    dataset.NumberOfFrames = len(frames)
    dataset.pop("DimensionOrganizationType", None)


def _group(frame: Placed, varying: dict[str, bool], counts: dict[str, int], derivation: Code) -> Dataset:
    item, content = Dataset(), Dataset()
    content.DimensionIndexValues = list(frame.indices)
    item.FrameContentSequence = [content]
    if frame.plane is not None:
        item.PlanePositionSequence = hd.PlanePositionSequence("PATIENT", frame.plane.position)
        if varying["PlaneOrientationSequence"]:
            item.PlaneOrientationSequence = hd.PlaneOrientationSequence("PATIENT", frame.plane.orientation)
        if varying["PixelMeasuresSequence"]:
            item.PixelMeasuresSequence = measures_of(frame.plane)
    if frame.segment is not None:
        segment = Dataset()
        segment.ReferencedSegmentNumber = frame.segment
        item.SegmentIdentificationSequence = [segment]
    item.DerivationImageSequence = [_derivation(frame, counts, derivation)]
    return item


def _derivation(frame: Placed, counts: dict[str, int], derivation: Code) -> Dataset:
    """Return the Derivation Image macro (PS3.3 C.7.6.16.2.6): the slice, or frame of an enhanced object, from which a frame was made."""
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = frame.source.sop_class_uid, frame.source.sop_uid
    if (number := frame_number(frame.source, counts)) is not None:
        source.ReferencedFrameNumber = number
    source.PurposeOfReferenceCodeSequence = [ours.item_of(ours.SOURCE_FOR_PROCESSING)]
    source.SpatialLocationsPreserved = "YES" if frame.source.plane == frame.plane else "NO"
    item = Dataset()
    item.SourceImageSequence = [source]
    item.DerivationCodeSequence = [ours.item_of(derivation)]
    return item


def anatomy_of(header: Dataset) -> Dataset:
    """Return the item of Frame Anatomy (PS3.3 C.7.6.16.2.8) for all frames made of these images."""
    item = Dataset()
    item.AnatomicRegionSequence = [ours.item_of(ours.finding_site(header) or ours.ANY_BODY_PART)]
    item.FrameLaterality = ours.frame_laterality(header)
    return item


def name_dimensions(dataset: Dataset, request: BuildRequest, label: Label) -> None:
    """Give the dimension organization a UID of the request's own (PS3.3 C.7.6.17)."""
    organization = derive_uid("dimensions", sop_uid(request, label), root=request.uid_root)
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in dataset.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization


def add_references(dataset: Dataset, request: BuildRequest, frames: Iterable[Frame]) -> None:
    """Point at the analysed images as a whole (General Reference, Common Instance Reference) and keep the order."""
    sources = references_to(request.sources.analysed)
    dataset.SourceImageSequence = image_items(sources, frame_numbers(request.sources.analysed, frames))
    dataset.ReferencedSeriesSequence = referenced_series(sources)
    add_request_attributes(dataset, request.header)
