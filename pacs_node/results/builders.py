"""Which results there are, one row each, and the order in which they are built and sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, EnhancedSRStorage, MultiFrameTrueColorSecondaryCaptureImageStorage, ParametricMapStorage

from pacs_node.errors import ResultRejected
from pacs_node.records import ResultObject
from pacs_node.results.capture import build_capture
from pacs_node.results.notice import build_notice
from pacs_node.results.parametric_map import build_map, has_frame_of_reference
from pacs_node.results.report import build_report
from pacs_node.results.request import BuildRequest


@dataclass(frozen=True, slots=True)
class Builder:
    """How one kind is made."""

    sop_class_uid: str  # what a destination must accept
    order: int  # smaller is built and sent first: what is referenced goes before what refers to it
    build: Callable[[BuildRequest, Mapping[str, Dataset]], Dataset]  # gets the objects of the same build made so far, by kind
    possible: Callable[[BuildRequest], bool]  # False: silently left out


def _always(request: BuildRequest) -> bool:
    return True


def _has_place(request: BuildRequest) -> bool:
    return request.finding is None or has_frame_of_reference(request.finding)


BUILDERS: dict[str, Builder] = {
    "pm": Builder(ParametricMapStorage, 1, build_map, _has_place),
    "sc": Builder(MultiFrameTrueColorSecondaryCaptureImageStorage, 2, build_capture, _always),
    "sr": Builder(Comprehensive3DSRStorage, 3, build_report, _always),
    "notice": Builder(EnhancedSRStorage, 4, build_notice, _always),
}
PLANNED = ("seg", "raw", "denoised", "ko")


def build(request: BuildRequest) -> tuple[ResultObject, ...]:
    """Build the asked kinds in sending order.

    The same request always gives the same bytes. The map is left out where the source has no frame of reference.
    Raises `ResultRejected` for a kind that does not exist, or that the request holds nothing for.
    """
    for kind in request.kinds:
        if kind not in BUILDERS:
            raise ResultRejected(kind, (f"no such kind of result exists yet: ask for some of {', '.join(BUILDERS)}",))
    made: dict[str, Dataset] = {}
    for kind in sorted(set(request.kinds), key=lambda name: BUILDERS[name].order):
        if BUILDERS[kind].possible(request):
            made[kind] = BUILDERS[kind].build(request, dict(made))
    return tuple(ResultObject(kind, dataset, BUILDERS[kind].order) for kind, dataset in made.items())
