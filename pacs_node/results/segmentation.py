"""The segmentation: one segment for each region of the calibrated map, one bit a pixel, each frame where its source slice lies.

::

    in the patient     the analysis grid in the plane of its slice, as in the parametric map
    ultrasound         no place in the patient: pixel by pixel on the single frame that it was made from (PS3.3 A.51)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.seg import Segmentation as HighdicomSegmentation
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from pacs_node.records import Algorithm, Finding, Plane
from pacs_node.results import codes as ours
from pacs_node.results.files import even
from pacs_node.results.frames import Placed, add_references, anatomy_of, measures_of, name_dimensions, stand_in, write_frames
from pacs_node.results.identity import Label, finish, region_tracking_uid
from pacs_node.results.lossiness import add_lossiness
from pacs_node.results.panels import source_to_grid
from pacs_node.results.parametric_map import has_frame_of_reference
from pacs_node.results.regions import Mask, Region
from pacs_node.results.request import BuildRequest, finding_of
from pacs_node.results.wording import algorithm_line, one_line

_COLOURS = ((69, 56, 60), (75, -40, 50), (60, 20, -60), (80, -10, 75), (65, 60, -45), (80, -45, -10))  # CIELab, one after the other
_NOWHERE = Plane((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 1.0), 1.0)
_SPATIAL = ("FrameOfReferenceUID", "PositionReferenceIndicator")  # without a place in the patient
_SPATIAL_GROUPS = ("PlaneOrientationSequence", "PixelMeasuresSequence")


@dataclass(frozen=True, slots=True)
class SegmentFrame:
    """One frame: a region on one slice."""

    region: Region
    index: int  # of the slice

    def grid(self, finding: Finding) -> Mask:
        """Return the frame's pixels on the analysis grid."""
        mask = np.zeros(finding.heat.shape[1:], dtype=np.bool_)
        mask[self.region.box[1:]] = self.region.mask[self.index - self.region.box[0].start]
        return mask

    def source(self, finding: Finding) -> Mask:
        """Return the frame's pixels on the source image: those whose centre lies in a pixel of the region."""
        matrix, offset = source_to_grid(finding, self.index)
        rows, columns = finding.volume.pixels.shape[1:]
        row = np.floor(np.arange(rows) * matrix[0, 0] + offset[0] + 0.5).astype(np.int64)
        column = np.floor(np.arange(columns) * matrix[1, 1] + offset[1] + 0.5).astype(np.int64)
        mask = self.grid(finding)
        height, width = mask.shape
        grid = np.pad(mask, 1)  # what lies beside the grid is in no region
        found: Mask = grid[np.ix_(np.clip(row, -1, height) + 1, np.clip(column, -1, width) + 1)]
        if not found.any():  # a region between the centres of coarser pixels is in the pixel nearest to it
            middle = np.argwhere(mask).mean(axis=0)
            found[int(np.abs(row - middle[0]).argmin()), int(np.abs(column - middle[1]).argmin())] = True
        return found


def segment_frames(regions: Sequence[Region]) -> list[SegmentFrame]:
    """Return the frames of a segmentation in their order: by segment, then by slice. Frame numbers count from 1."""
    return [SegmentFrame(region, index) for region in regions for index in region.slices]


def build_segmentation(request: BuildRequest, companions: Mapping[str, Dataset]) -> Dataset:
    """Build the segmentation of the request's regions, of which there is at least one."""
    del companions
    finding, frames = finding_of(request, "seg"), segment_frames(request.regions)
    in_patient = has_frame_of_reference(finding)
    label = Label("seg", SegmentationStorage, "SEG", 5, f"{algorithm_line(finding.algorithm)} anomaly regions")
    dataset = Dataset(_skeleton(request, finding, in_patient))
    dataset.SegmentSequence = [_segment(request, finding.algorithm, region) for region in request.regions]
    dataset.SharedFunctionalGroupsSequence[0].pop("SegmentIdentificationSequence", None)
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy_of(request.header)]
    write_frames(dataset, [_placed(finding, frame, in_patient) for frame in frames], request.sources.analysed, codes.DCM.Segmentation)
    dataset.PixelData = packed(frame.grid(finding) if in_patient else frame.source(finding) for frame in frames)
    dataset["PixelData"].VR = "OB"
    dataset.ContentCreatorName = None
    if not in_patient:
        _unplace(dataset)
    add_references(dataset, request, finding.volume.frames)
    dataset.pop("SourceImageSequence", None)  # the frames name their own; the Segmentation IOD has no General Reference module
    name_dimensions(dataset, request, label)
    dataset.CodingSchemeIdentificationSequence = [ours.coding_scheme()]
    add_lossiness(dataset, request.sources.analysed)
    return finish(dataset, request, label)


def packed(masks: Iterable[Mask]) -> bytes:
    """Return masks as single-bit pixel data: frames follow each other bit by bit, the first pixel lowest (PS3.5 8.1.1).

    One mask at a time: a study of hundreds of regions has thousands of frames.
    """
    content, left = bytearray(), np.zeros(0, np.bool_)  # what does not fill a byte goes before the next frame
    for mask in masks:
        bits = np.concatenate([left, mask.ravel()])
        whole = len(bits) // 8 * 8
        content += np.packbits(bits[:whole], bitorder="little").tobytes()
        left = bits[whole:]
    content += np.packbits(left, bitorder="little").tobytes()
    return even(bytes(content))


def _placed(finding: Finding, frame: SegmentFrame, in_patient: bool) -> Placed:
    plane = finding.planes[frame.index] if in_patient else None
    return Placed(finding.volume.frames[frame.index], plane, (frame.region.number, frame.index + 1), frame.region.number)


def _segment(request: BuildRequest, algorithm: Algorithm, region: Region) -> Dataset:
    identification = hd.AlgorithmIdentificationSequence(
        name=one_line(algorithm.name), version=one_line(algorithm.version), family=codes.cid7162.ArtificialIntelligence, source=one_line(algorithm.manufacturer)
    )
    made: Dataset = SegmentDescription(
        segment_number=region.number,
        segment_label=f"Region {region.number}",
        segmented_property_category=ours.REGION_CATEGORY,
        segmented_property_type=ours.REGION_TYPE,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=identification,
        tracking_uid=region_tracking_uid(request, region.number),
        tracking_id=region_name(request, region),
        display_color=hd.color.CIELabColor(*_COLOURS[(region.number - 1) % len(_COLOURS)]),
    )
    return made


def region_name(request: BuildRequest, region: Region) -> str:
    """Return the Tracking Identifier of a region, the same in segmentation and report."""
    return one_line(f"{request.run.pipeline} run {request.run.number} region {region.number}")


def _skeleton(request: BuildRequest, finding: Finding, in_patient: bool) -> Any:
    """Return highdicom's object around one frame of one segment."""
    plane = next(plane for plane in (*finding.planes, _NOWHERE) if plane is not None) if in_patient else _NOWHERE
    rows, columns = finding.heat.shape[1:] if in_patient else finding.volume.pixels.shape[1:]
    return HighdicomSegmentation(
        source_images=[stand_in((int(rows), int(columns)), plane, finding.volume.frame_of_reference_uid)],
        pixel_array=np.ones((1, rows, columns), dtype=np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(request, finding.algorithm, request.regions[0])],
        series_instance_uid="1.2",  # UIDs, equipment and patient are given by `finish`
        series_number=1,
        sop_instance_uid="1.2",
        instance_number=1,
        manufacturer=one_line(request.equipment.manufacturer),
        manufacturer_model_name="-",
        software_versions="-",
        device_serial_number="-",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="ANOMALY_REGIONS",
        content_description=one_line(f"pixel tail p < 0.001, research use, {algorithm_line(finding.algorithm)}"),
        pixel_measures=measures_of(plane),
        plane_orientation=hd.PlaneOrientationSequence("PATIENT", plane.orientation),
        plane_positions=[hd.PlanePositionSequence("PATIENT", plane.position)],
    )


def _unplace(dataset: Dataset) -> None:
    """Take out what says where in the patient the frames lie; they are told apart by segment and by place in the series."""
    for keyword in _SPATIAL:
        dataset.pop(keyword, None)
    dataset.PatientOrientation = None  # Type 2C of General Image where nothing else says how the picture lies
    for keyword in _SPATIAL_GROUPS:
        dataset.SharedFunctionalGroupsSequence[0].pop(keyword, None)
    index = dataset.DimensionIndexSequence[1]
    index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x00209057, 0x00209111  # In-Stack Position Number, Frame Content
    index.DimensionDescriptionLabel = "In-Stack Position Number"
    for item in dataset.PerFrameFunctionalGroupsSequence:
        content = item.FrameContentSequence[0]
        content.StackID, content.InStackPositionNumber = "1", content.DimensionIndexValues[1]
