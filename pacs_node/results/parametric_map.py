"""The parametric map: the heat of every slice as floating-point frames, in geometric order, each where its source slice lies in the patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.pm import ParametricMap, RealWorldValueMapping
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, ParametricMapStorage

from pacs_node.dicom.header import text_of
from pacs_node.records import Finding, Plane
from pacs_node.results import codes as ours
from pacs_node.results.frames import Placed, add_references, anatomy_of, measures_of, name_dimensions, stand_in, write_frames
from pacs_node.results.identity import Label, finish
from pacs_node.results.lossiness import add_lossiness
from pacs_node.results.modalities import manner_of
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
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy_of(request.header)]
    write_frames(dataset, _frames(finding, planes), request.sources.analysed, ours.UNSPECIFIED_DERIVATION)
    dataset.FloatPixelData = stored_pixels(finding).tobytes()
    dataset.ContentCreatorName = None
    add_references(dataset, request, finding.volume.frames)
    name_dimensions(dataset, request, label)
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
        source_images=[stand_in((int(finding.heat.shape[1]), int(finding.heat.shape[2])), plane, finding.volume.frame_of_reference_uid)],
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
        pixel_measures=measures_of(plane),
        plane_orientation=hd.PlaneOrientationSequence("PATIENT", plane.orientation),
        plane_positions=[hd.PlanePositionSequence("PATIENT", plane.position)],
    )


def _frames(finding: Finding, planes: Sequence[Plane]) -> list[Placed]:
    return [Placed(frame, plane, (number,)) for number, (frame, plane) in enumerate(zip(finding.volume.frames, planes, strict=True), start=1)]
