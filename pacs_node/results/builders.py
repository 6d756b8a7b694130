"""Which results there are, one row each, and the order in which they are built and sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    RawDataStorage,
    SegmentationStorage,
)

from pacs_node.errors import ResultRejected
from pacs_node.records import Finding, ResultObject
from pacs_node.results.capture import build_capture
from pacs_node.results.denoised import build_denoised
from pacs_node.results.key_objects import build_key_objects
from pacs_node.results.modalities import manner_of
from pacs_node.results.notice import build_notice
from pacs_node.results.parametric_map import build_map, has_frame_of_reference
from pacs_node.results.raw import build_raw
from pacs_node.results.regions import Region, regions_of
from pacs_node.results.report import build_report
from pacs_node.results.request import BuildRequest
from pacs_node.results.segmentation import build_segmentation


@dataclass(frozen=True, slots=True)
class Builder:
    """How one kind is made."""

    sop_class_uid: str  # what a destination must accept
    order: int  # smaller is built and sent first: what is referenced goes before what refers to it
    build: Callable[[BuildRequest, Mapping[str, Dataset]], Dataset]  # gets the objects of the same build made so far, by kind
    possible: Callable[[Finding, tuple[Region, ...]], bool]  # of a finding and its regions; False: silently left out


def _always(finding: Finding, regions: tuple[Region, ...]) -> bool:
    return True


def _has_place(finding: Finding, regions: tuple[Region, ...]) -> bool:
    return has_frame_of_reference(finding)


def _has_regions(finding: Finding, regions: tuple[Region, ...]) -> bool:
    return bool(regions) and (has_frame_of_reference(finding) or not manner_of(finding.volume).in_patient)


def _has_slices(finding: Finding, regions: tuple[Region, ...]) -> bool:
    return bool(finding.top_slices)


BUILDERS: dict[str, Builder] = {
    "pm": Builder(ParametricMapStorage, 1, build_map, _has_place),
    "seg": Builder(SegmentationStorage, 2, build_segmentation, _has_regions),
    "sc": Builder(MultiFrameTrueColorSecondaryCaptureImageStorage, 3, build_capture, _always),
    "denoised": Builder(MultiFrameGrayscaleByteSecondaryCaptureImageStorage, 4, build_denoised, _always),
    "raw": Builder(RawDataStorage, 5, build_raw, _always),
    "sr": Builder(Comprehensive3DSRStorage, 6, build_report, _always),
    "ko": Builder(KeyObjectSelectionDocumentStorage, 7, build_key_objects, _has_slices),
    "notice": Builder(EnhancedSRStorage, 8, build_notice, _always),
}
PLANNED: tuple[str, ...] = ()
_ALWAYS_TRIED = ("sr", "notice")
_IN_ADDITION = frozenset(("sc", "denoised", "ko"))


def possible_kinds(finding: Finding) -> frozenset[str]:
    """Return the kinds that can be made of a finding."""
    regions = regions_of(finding)
    return frozenset(kind for kind, row in BUILDERS.items() if row.possible(finding, regions))


def takeable(kinds: Collection[str], refused: Collection[str], fallback: Collection[str]) -> tuple[str, ...]:
    """Return those of ``kinds`` that a destination gets which is known to refuse some SOP classes.

    Reports and notices are always tried, and so is what another kind may go in the place of (``fallback``). Where nothing but pictures would
    be left (IHE AIR allows them in addition only), or nothing at all, the destination gets what was asked for: its refusal is then said.
    """
    left = tuple(kind for kind in kinds if kind in _ALWAYS_TRIED or kind in fallback or BUILDERS[kind].sop_class_uid not in refused)
    return left if set(left) - _IN_ADDITION else tuple(kinds)


def build(request: BuildRequest) -> tuple[ResultObject, ...]:
    """Build the asked kinds in sending order.

    The same request always gives the same bytes. What a finding has nothing for is left out: the map where the source has no frame of reference,
    the segmentation where no region stands out. Raises `ResultRejected` for a kind that does not exist, or that the request holds nothing for.
    """
    for kind in request.kinds:
        if kind not in BUILDERS:
            raise ResultRejected(kind, (f"no such kind of result exists yet: ask for some of {', '.join(BUILDERS)}",))
    finding = request.finding
    if finding is not None and not request.regions:
        request = replace(request, regions=regions_of(finding))
    made: dict[str, Dataset] = {}
    for kind in sorted(set(request.kinds), key=lambda name: BUILDERS[name].order):
        if finding is None or BUILDERS[kind].possible(finding, request.regions):
            made[kind] = BUILDERS[kind].build(request, dict(made))
    return tuple(ResultObject(kind, dataset, BUILDERS[kind].order) for kind, dataset in made.items())
