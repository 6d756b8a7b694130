"""The parametric map: the heat of every slice as floating-point frames, each where its source slice lies in the patient.

highdicom makes the object around one frame; the per-frame functional groups and the pixels are then written here for all
slices in geometric order, because a tilted or unevenly spaced stack is no regular volume and must not be sorted into one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.pm import ParametricMap, RealWorldValueMapping
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ParametricMapStorage

from pacs_node.dicom.header import text_of
from pacs_node.dicom.uids import derive_uid
from pacs_node.records import Finding, Frame, Plane
from pacs_node.results import codes as ours
from pacs_node.results.identity import Label, add_request_attributes, finish, sop_uid
from pacs_node.results.lossiness import add_lossiness
from pacs_node.results.modalities import manner_of
from pacs_node.results.references import frame_numbers, image_items, referenced_series, references_to
from pacs_node.results.request import BuildRequest, finding_of
from pacs_node.results.wording import algorithm_line, one_line


@dataclass(frozen=True, slots=True)
class Quantity:
    """What the pixels of a map mean."""

    code: Code
    content_label: str  # CS
    lut_label: str  # SH
    explanation: str  # LO
    top: float  # largest value; values lie in 0…top


QUANTITIES = {
    True: Quantity(ours.TAIL_QUANTITY, "ANOMALY_TAIL", "-log10 tail", "-log10 of the calibrated pixel tail, 0 to 4", 4.0),
    False: Quantity(ours.RELATIVE_QUANTITY, "ANOMALY_RELATIVE", "relative score", "anomaly relative to this study, uncalibrated, 0 to 1", 1.0),
}


def has_frame_of_reference(finding: Finding) -> bool:
    """Tell whether a map can be made: the IOD demands a Frame of Reference and the place of every frame in the patient."""
    return manner_of(finding.volume).in_patient and finding.volume.frame_of_reference_uid is not None and all(plane is not None for plane in finding.planes)


def build_map(request: BuildRequest, companions: Mapping[str, Dataset]) -> Dataset:
    """Build the parametric map of a finding that `has_frame_of_reference`."""
    del companions
    finding = finding_of(request, "pm")
    planes = tuple(plane for plane in finding.planes if plane is not None)
    label = Label("pm", ParametricMapStorage, text_of(request.header, "Modality") or "OT", 1, f"{algorithm_line(finding.algorithm)} anomaly map")
    dataset = Dataset(_skeleton(request, finding, planes[0]))  # a plain dataset, without highdicom's frame index
    _add_frames(dataset, request, planes)
    _add_references(dataset, request)
    organization = derive_uid("dimensions", sop_uid(request, label), root=request.uid_root)
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in dataset.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    dataset.CodingSchemeIdentificationSequence = [ours.coding_scheme()]
    add_lossiness(dataset, request.sources.analysed)
    return finish(dataset, request, label)


def stored_pixels(finding: Finding) -> NDArray[np.float32]:
    """Return the pixels as stored, (slices, height, width): within the declared range; what was not judged is 0, never evidence."""
    top = QUANTITIES[finding.heat_calibrated].top
    pixels = np.nan_to_num(finding.heat, nan=0.0, posinf=top, neginf=0.0)
    return np.ascontiguousarray(np.clip(pixels, 0.0, top, out=pixels), dtype="<f4")


# --- the object around one frame ---------------------------------------------------------------------------------------


def _skeleton(request: BuildRequest, finding: Finding, plane: Plane) -> Any:
    quantity = QUANTITIES[finding.heat_calibrated]
    mapping = RealWorldValueMapping(
        lut_label=quantity.lut_label,
        lut_explanation=quantity.explanation,
        unit=ours.NO_UNITS,
        value_range=(0.0, quantity.top),
        slope=1.0,
        intercept=0.0,
        quantity_definition=quantity.code,
    )
    return ParametricMap(
        source_images=[_stand_in(finding, plane)],
        pixel_array=np.zeros((1, *finding.heat.shape[1:]), dtype=np.float32),
        series_instance_uid="1.2",  # UIDs, equipment and patient are given by `finish`
        series_number=1,
        sop_instance_uid="1.2",
        instance_number=1,
        manufacturer=one_line(request.equipment.manufacturer),
        manufacturer_model_name="-",
        software_versions="-",
        device_serial_number="-",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=quantity.top / 2, window_width=quantity.top)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label=quantity.content_label,
        content_description=one_line(f"{quantity.explanation}, {algorithm_line(finding.algorithm)}"),
        pixel_measures=_measures(plane),
        plane_orientation=hd.PlaneOrientationSequence("PATIENT", plane.orientation),
        plane_positions=[hd.PlanePositionSequence("PATIENT", plane.position)],
    )


def _stand_in(finding: Finding, plane: Plane) -> Dataset:
    """Return a header with nothing but what a map is checked against: what is odd in a source never reaches the constructor."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, "1.2"
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2", "1.2"
    header.FrameOfReferenceUID = finding.volume.frame_of_reference_uid
    header.Rows, header.Columns = finding.heat.shape[1:]
    header.ImagePositionPatient, header.ImageOrientationPatient = list(plane.position), list(plane.orientation)
    header.PixelSpacing, header.SliceThickness = list(plane.spacing), plane.thickness
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(header, keyword, "")
    return header


def _measures(plane: Plane) -> Any:
    measures = hd.PixelMeasuresSequence(pixel_spacing=plane.spacing, slice_thickness=plane.thickness or 1.0)
    if plane.thickness is None:
        del measures[0].SliceThickness
    return measures


# --- all frames --------------------------------------------------------------------------------------------------------


def _add_frames(dataset: Dataset, request: BuildRequest, planes: Sequence[Plane]) -> None:
    """Write pixels and per-frame functional groups. What is the same in all planes stays in the shared functional groups."""
    finding, shared = finding_of(request, "pm"), dataset.SharedFunctionalGroupsSequence[0]
    template = dataset.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0]
    one_orientation = len({plane.orientation for plane in planes}) == 1
    one_measure = len({(plane.spacing, plane.thickness) for plane in planes}) == 1
    shared.FrameAnatomySequence = [_anatomy(request.header)]
    for keyword, same in (("PlaneOrientationSequence", one_orientation), ("PixelMeasuresSequence", one_measure)):
        if not same:
            delattr(shared, keyword)
    items = []
    for number, (plane, frame) in enumerate(zip(planes, finding.volume.frames, strict=True), start=1):
        item = Dataset()
        item.FrameContentSequence = [_frame_content(template, number)]
        item.PlanePositionSequence = hd.PlanePositionSequence("PATIENT", plane.position)
        if not one_orientation:
            item.PlaneOrientationSequence = hd.PlaneOrientationSequence("PATIENT", plane.orientation)
        if not one_measure:
            item.PixelMeasuresSequence = _measures(plane)
        item.DerivationImageSequence = [_derivation(frame, plane, request.sources.analysed)]
        items.append(item)
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(items)
    dataset.NumberOfFrames = len(items)
    dataset.pop("DimensionOrganizationType", None)
    dataset.FloatPixelData = stored_pixels(finding).tobytes()


def _frame_content(template: Dataset, number: int) -> Dataset:
    content = Dataset()
    content.DimensionIndexValues = [number] * len(_as_list(template.DimensionIndexValues))
    return content


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) or hasattr(value, "__iter__") else [value]


def _derivation(frame: Frame, plane: Plane, headers: Sequence[Dataset]) -> Dataset:
    """Return the Derivation Image macro (PS3.3 C.7.6.16.2.6): the slice, or frame of an enhanced object, from which a frame was made."""
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = frame.sop_class_uid, frame.sop_uid
    if numbers := frame_numbers(headers, [frame]).get(frame.sop_uid):
        source.ReferencedFrameNumber = numbers
    source.PurposeOfReferenceCodeSequence = [ours.item_of(ours.SOURCE_FOR_PROCESSING)]
    source.SpatialLocationsPreserved = "YES" if frame.plane == plane else "NO"
    item = Dataset()
    item.SourceImageSequence = [source]
    item.DerivationCodeSequence = [ours.item_of(ours.UNSPECIFIED_DERIVATION)]
    return item


def _anatomy(header: Dataset) -> Dataset:
    item = Dataset()
    item.AnatomicRegionSequence = [ours.item_of(ours.finding_site(header) or ours.ANY_BODY_PART)]
    item.FrameLaterality = ours.frame_laterality(header)
    return item


def _add_references(dataset: Dataset, request: BuildRequest) -> None:
    """Point at the analysed images as a whole (General Reference, Common Instance Reference) and keep the order."""
    sources = references_to(request.sources.analysed)
    dataset.SourceImageSequence = image_items(sources, frame_numbers(request.sources.analysed, finding_of(request, "pm").volume.frames))
    dataset.ReferencedSeriesSequence = referenced_series(sources)
    add_request_attributes(dataset, request.header)
