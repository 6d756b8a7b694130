"""What peers say is to come of a study: performed procedure steps (PS3.3 C.4.14, C.4.15) and availability notifications (PS3.3 C.4.23).

::

    MPPS  N-CREATE  Scheduled Step Attributes ─► studies     N-SET  Performed Series ─► instances; COMPLETED or DISCONTINUED
    IAN   N-CREATE  study, Referenced Series  ─► instances that can be had
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from pacs_node.dicom.header import DAMAGED, text_of
from pacs_node.errors import UnreadableObject
from pacs_node.records import Announcement

_STATES = {"IN PROGRESS": "in progress", "COMPLETED": "completed", "DISCONTINUED": "discontinued"}  # PS3.3 C.4.14
_NOT_TO_BE_HAD = "UNAVAILABLE"  # PS3.3 C.4.23.1.1


def read_step(dataset: Dataset) -> Announcement:
    """Read an N-CREATE or N-SET of a performed procedure step; raises `UnreadableObject` for a status that the standard does not know."""
    said = text_of(dataset, "PerformedProcedureStepStatus")
    if said and said not in _STATES:
        raise UnreadableObject("the performed procedure step", "its Performed Procedure Step Status is none of IN PROGRESS, COMPLETED, DISCONTINUED")
    studies = (text_of(item, "StudyInstanceUID") for item in _items(dataset, "ScheduledStepAttributesSequence"))
    instances = None
    if "PerformedSeriesSequence" in dataset:
        instances = frozenset(_step_instances(dataset))
    return Announcement(tuple(dict.fromkeys(uid for uid in studies if uid)), _STATES.get(said, ""), instances)


def _step_instances(dataset: Dataset) -> Iterator[str]:
    for series in _items(dataset, "PerformedSeriesSequence"):
        for keyword in ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence"):
            yield from (uid for item in _items(series, keyword) if (uid := text_of(item, "ReferencedSOPInstanceUID")))


def read_availability(dataset: Dataset) -> Announcement:
    """Read an instance availability notification; raises `UnreadableObject` where it names no study."""
    study = text_of(dataset, "StudyInstanceUID")
    if not study:
        raise UnreadableObject("the availability notification", "it names no study")
    references = [item for series in _items(dataset, "ReferencedSeriesSequence") for item in _items(series, "ReferencedSOPSequence")]
    uids = (text_of(item, "ReferencedSOPInstanceUID") for item in references if text_of(item, "InstanceAvailability") != _NOT_TO_BE_HAD)
    return Announcement((study,), "available", frozenset(uid for uid in uids if uid))


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    try:
        return [item for item in dataset.get(keyword) or () if isinstance(item, Dataset)]
    except DAMAGED:
        return []
