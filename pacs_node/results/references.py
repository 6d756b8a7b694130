"""Pointing at other instances: references, their grouping by study and series, and the orders that asked for the images."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage, UltrasoundImageStorage

from pacs_node.dicom.header import text_of
from pacs_node.records import Frame
from pacs_node.results.naming import frames_of

# Classes whose objects have one frame (PS3.3 A.3, A.4, A.6, A.21), whatever some makers store under them: no frame of them is referred to
SINGLE_FRAME = frozenset((CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage, UltrasoundImageStorage, "1.2.840.10008.5.1.4.1.1.6"))


@dataclass(frozen=True, slots=True)
class Reference:
    """One instance that an object points at."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_uid: str

    def item(self) -> Dataset:
        """Return the item of a sequence with the SOP Instance Reference Macro (PS3.3 Table 10-11)."""
        item = Dataset()
        item.ReferencedSOPClassUID = self.sop_class_uid
        item.ReferencedSOPInstanceUID = self.sop_uid
        return item


def reference_to(header: Dataset) -> Reference:
    """Return the reference to the instance that ``header`` describes."""
    study, series, sop_class, sop = (text_of(header, keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID"))
    return Reference(study, series, sop_class, sop)


def references_to(headers: Iterable[Dataset]) -> tuple[Reference, ...]:
    """Return the references to instances, each once, in their order."""
    return tuple(dict.fromkeys(reference_to(header) for header in headers))


def frame_numbers(headers: Iterable[Dataset], frames: Iterable[Frame]) -> dict[str, list[int]]:
    """Return by SOP Instance UID which frames of an object a reference means, in rising order.

    Only multi-frame objects of which not all frames are meant: Referenced Frame Number (0008,1160) is Type 1C (PS3.3 Table 10-3).
    """
    meant: dict[str, set[int]] = {}
    for frame in frames:
        if frame.number is not None and frame.sop_class_uid not in SINGLE_FRAME:
            meant.setdefault(frame.sop_uid, set()).add(frame.number)
    if not meant:
        return {}
    counts = {text_of(header, "SOPInstanceUID"): frames_of(header) for header in headers}
    return {uid: sorted(numbers) for uid, numbers in meant.items() if len(numbers) < counts.get(uid, 1)}


def frame_count(header: Dataset) -> int:
    """Return how many frames of an object can be told apart by number: 1 in a class that has single frames."""
    return 1 if text_of(header, "SOPClassUID") in SINGLE_FRAME else frames_of(header)


def frame_number(frame: Frame, counts: Mapping[str, int]) -> int | None:
    """Return the number of a frame in its object, None where the object has no other; ``counts`` by SOP Instance UID, as `frame_count` gives them."""
    return frame.number if counts.get(frame.sop_uid, 1) > 1 else None


def image_items(references: Iterable[Reference], numbers: Mapping[str, Sequence[int]]) -> list[Dataset]:
    """Return items with the Image SOP Instance Reference Macro (PS3.3 Table 10-3); ``numbers`` as `frame_numbers` gives them."""
    items = []
    for reference in references:
        item = reference.item()
        if reference.sop_uid in numbers:
            item.ReferencedFrameNumber = list(numbers[reference.sop_uid])
        items.append(item)
    return items


def _by(references: Iterable[Reference], attribute: str) -> dict[str, list[Reference]]:
    groups: dict[str, list[Reference]] = {}
    for reference in references:
        groups.setdefault(getattr(reference, attribute), []).append(reference)
    return groups


def evidence(references: Iterable[Reference]) -> list[Dataset]:
    """Return the items of a Hierarchical SOP Instance Reference (PS3.3 C.17.2.1): by study, then by series."""
    studies = []
    for study_uid, in_study in _by(references, "study_uid").items():
        study = Dataset()
        study.ReferencedSeriesSequence = []
        for series_uid, in_series in _by(in_study, "series_uid").items():
            series = Dataset()
            series.ReferencedSOPSequence = [reference.item() for reference in in_series]
            series.SeriesInstanceUID = series_uid
            study.ReferencedSeriesSequence.append(series)
        study.StudyInstanceUID = study_uid
        studies.append(study)
    return studies


def referenced_series(references: Iterable[Reference]) -> list[Dataset]:
    """Return the items of Referenced Series of the Common Instance Reference module (PS3.3 C.12.2): same study only."""
    items = []
    for series_uid, in_series in _by(references, "series_uid").items():
        item = Dataset()
        item.ReferencedInstanceSequence = [reference.item() for reference in in_series]
        item.SeriesInstanceUID = series_uid
        items.append(item)
    return items


_ORDER_TEXTS = ("PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest", "RequestedProcedureID", "RequestedProcedureDescription")


def referenced_requests(header: Dataset) -> list[Dataset]:
    """Return the items of Referenced Request (0040,A370) for the orders that the source names, none where it names none."""
    orders = list(header.get("RequestAttributesSequence") or ())
    if not orders and text_of(header, "AccessionNumber"):
        orders = [Dataset()]
    return [_request_item(order, header) for order in orders]


def _request_item(order: Dataset, header: Dataset) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = text_of(order, "StudyInstanceUID") or text_of(header, "StudyInstanceUID")
    item.ReferencedStudySequence = []
    item.AccessionNumber = text_of(order, "AccessionNumber") or text_of(header, "AccessionNumber")
    for keyword in _ORDER_TEXTS:
        setattr(item, keyword, text_of(order, keyword) or text_of(header, keyword))
    item.RequestedProcedureCodeSequence = copy.deepcopy(list(order.get("RequestedProcedureCodeSequence") or ()))
    return item
