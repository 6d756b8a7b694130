"""A measurement group for each region (PS3.16).

::

    with a segmentation in the same build     TID 1411: Referenced Segment, and the images that it was made from
    without one, or ultrasound                outlines on the source images, SCOORD: TID 1410 of one slice, TID 1411 of several
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom.sr as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage

from pacs_node.dicom.header import text_of
from pacs_node.records import Finding, Frame
from pacs_node.results import codes as ours
from pacs_node.results.identity import region_tracking_uid
from pacs_node.results.modalities import manner_of
from pacs_node.results.naming import name_of
from pacs_node.results.outlines import outlines
from pacs_node.results.references import frame_count, frame_number
from pacs_node.results.regions import MOST_REGIONS, Region
from pacs_node.results.request import BuildRequest, finding_of
from pacs_node.results.segmentation import region_name
from pacs_node.results.wording import number

MOST_TOLD = 5  # in the summary


def region_groups(request: BuildRequest, segmentation: Dataset | None, algorithm: Any) -> list[Dataset]:
    """Return the groups of all regions. ``segmentation`` is that of the same build; ``algorithm`` is TID 4019."""
    finding = finding_of(request, "sr")
    in_patient = manner_of(finding.volume).in_patient
    counts = {text_of(header, "SOPInstanceUID"): frame_count(header) for header in request.sources.analysed}
    groups = []
    for region in request.regions:
        if segmentation is not None and in_patient:
            groups += _group(request, region, _segment(finding, region, segmentation, counts), algorithm)
        else:
            groups += _group(request, region, _outlined(finding, region, counts), algorithm)
    return groups


def _group(request: BuildRequest, region: Region, where: Mapping[str, Any], algorithm: Any) -> Any:
    template = hd.PlanarROIMeasurementsAndQualitativeEvaluations if "referenced_region" in where else hd.VolumetricROIMeasurementsAndQualitativeEvaluations
    site = ours.finding_site(request.header)
    return template(
        tracking_identifier=hd.TrackingIdentifier(uid=region_tracking_uid(request, region.number), identifier=region_name(request, region)),
        algorithm_id=algorithm,
        finding_sites=[hd.FindingSite(site)] if site is not None else None,
        measurements=measurements(region),
        **where,
    )


def measurements(region: Region) -> list[Any]:
    """Return area or volume, mean and largest score of a region."""
    found = [] if region.area is None else [_measure(ours.AREA, region.area, ours.SQUARE_MM)]
    found += [] if region.volume is None else [_measure(ours.VOLUME, region.volume, ours.CUBIC_MM)]
    found += [_measure(ours.TAIL_QUANTITY, value, ours.NO_UNITS, how) for value, how in ((region.mean, ours.MEAN), (region.top, ours.MAXIMUM))]
    return found


def _measure(name: Code, value: float, unit: Code, derivation: Code | None = None) -> Any:
    return hd.Measurement(name=name, value=float(f"{value:.6g}"), unit=unit, derivation=derivation)


def region_lines(request: BuildRequest) -> list[str]:
    """Tell the regions in a few lines of plain text, the hottest first; none where there are none."""
    if not request.regions:
        return []
    finding, count = finding_of(request, "sr"), len(request.regions)
    capped = f", the {MOST_REGIONS} hottest are told" if count == MOST_REGIONS else ""
    lines = [f"Regions where fewer than 1 calibration pixel in 1000 is as unusual: {count}{capped}."]
    lines += [f"Region {region.number}: {_told(finding, region, request.sources.analysed)}." for region in request.regions[:MOST_TOLD]]
    return lines + ([f"{count - MOST_TOLD} more regions are measured below."] if count > MOST_TOLD else [])


def _told(finding: Finding, region: Region, headers: Sequence[Dataset]) -> str:
    first, last = (name_of(finding.volume, index, headers).sentence for index in (region.slices[0], region.slices[-1]))
    extent = f"area {number(region.area)} mm2, " if region.area is not None else f"volume {number(region.volume)} mm3, " if region.volume is not None else ""
    return f"{first if first == last else f'{first} to {last}'}, {extent}-log10 tail {number(region.mean)} on average, {number(region.top)} at most"


# --- where it is -------------------------------------------------------------------------------------------------------


def _segment(finding: Finding, region: Region, segmentation: Dataset, counts: Mapping[str, int]) -> dict[str, Any]:
    """Refer to the segment by its number, also where it lies in one slice: with a frame number there may be none (PS3.3 Table 10-3)."""
    sources = [_source(hd.SourceImageForSegmentation, finding.volume.frames[index], counts) for index in region.slices]
    facts = str(segmentation.SOPClassUID), str(segmentation.SOPInstanceUID)
    return {"referenced_segment": hd.ReferencedSegment(*facts, segment_number=region.number, source_images=sources)}


def _outlined(finding: Finding, region: Region, counts: Mapping[str, int]) -> dict[str, Any]:
    drawn = []
    for index, points in outlines(finding, region):
        outline = hd.ImageRegion(hd.GraphicTypeValues.POLYLINE, points, hd.SourceImageForRegion(CTImageStorage, "1.2"))  # highdicom knows no retired classes
        outline.ContentSequence = [_source(hd.SourceImageForRegion, finding.volume.frames[index], counts)]
        drawn.append(outline)
    return {"referenced_region": drawn[0]} if len(region.slices) == 1 else {"referenced_regions": drawn}


def _source(item: Any, frame: Frame, counts: Mapping[str, int]) -> Any:
    meant = frame_number(frame, counts)
    return item(frame.sop_class_uid, frame.sop_uid, None if meant is None else [meant])
