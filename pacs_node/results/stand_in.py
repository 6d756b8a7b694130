"""What goes in the place of an object that a destination does not take: made from the stored object, without the finding and without the model.

::

    sr  Comprehensive 3D SR          ─► enhanced-sr   Enhanced SR with the same content (PS3.3 A.35.2: it has no three-dimensional coordinates, nor have we)
    sc  Multi-frame True Color SC    ─► single-frame  a Secondary Capture Image for each page (PS3.3 A.8.1)

A stand-in is a new instance in a new series: its UIDs are made of the object's and of what it refers to, so that making it again gives the same bytes.
What the object refers to and the destination did not take is replaced by what stands in for it, or left out: a region without its segmentation is
told as what was measured on its images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID, EnhancedSRStorage, SecondaryCaptureImageStorage

from pacs_node.dicom.header import number_of, text_of
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import ResultRejected
from pacs_node.records import Sources
from pacs_node.results import codes as ours
from pacs_node.results.case import code_of
from pacs_node.results.files import even
from pacs_node.results.identity import copied_element
from pacs_node.results.modules import COPIED
from pacs_node.results.references import Reference, evidence

Replacements = Mapping[str, Sequence[Reference]]  # SOP Instance UID that the destination did not take → what it gets instead


@dataclass(frozen=True, slots=True)
class StandIn:
    """One kind: what it is, the last digit of its Series Number, and how its datasets come from the object's."""

    sop_class_uid: str
    number: int
    split: Callable[[Dataset], Iterable[Dataset]]


def _pages(capture: Dataset) -> Iterator[Dataset]:
    """Give a single-frame capture for each frame; the name of the page goes into Image Comments (0020,4000)."""
    count, size = int(capture.NumberOfFrames), int(capture.Rows) * int(capture.Columns) * int(capture.SamplesPerPixel) * (int(capture.BitsAllocated) // 8)
    labels = capture.get("FrameLabelVector") or []
    names = [str(label) for label in ([labels] if isinstance(labels, str) else labels)]
    for index in range(count):
        page = Dataset()
        page.update({element.tag: copy.deepcopy(element) for element in capture if element.keyword not in _OF_MANY_FRAMES})
        content = capture.PixelData[index * size : (index + 1) * size]
        page.PixelData = even(content)
        page["PixelData"].VR = "OB"
        if index < len(names):
            page.ImageComments = names[index]
        yield page


_OF_MANY_FRAMES = ("NumberOfFrames", "FrameIncrementPointer", "PageNumberVector", "FrameLabelVector", "PixelData")

STAND_INS: dict[str, StandIn] = {
    "enhanced-sr": StandIn(EnhancedSRStorage, 6, lambda report: (copy.deepcopy(report),)),
    "single-frame": StandIn(SecondaryCaptureImageStorage, 7, _pages),
}


def stand_ins(stored: Dataset, kind: str, replacements: Replacements, uid_root: str | None) -> tuple[Dataset, ...]:
    """Make the objects of ``kind`` that go in the place of ``stored``; raises `ResultRejected` for a kind that nothing makes."""
    row = STAND_INS.get(kind)
    if row is None:
        raise ResultRejected(kind, (f"nothing makes such a stand-in: there are {', '.join(STAND_INS)}",))
    made = tuple(row.split(stored))
    for index, dataset in enumerate(made, start=1):
        _redirect(dataset, replacements)
        dataset.SeriesNumber = (number_of(stored, "SeriesNumber") or 0) // 10 * 10 + row.number
        dataset.InstanceNumber = index
        _rename(dataset, stored, (kind, *_facts(replacements)), index, row.sop_class_uid, uid_root)
    return made


def redirected(stored: Dataset, replacements: Replacements, uid_root: str | None) -> Dataset:
    """Return a copy of ``stored``, an instance of its own, that refers to what the destination has instead of what it did not take."""
    dataset = copy.deepcopy(stored)
    _redirect(dataset, replacements)
    _rename(dataset, stored, ("redirected", *_facts(replacements)), number_of(stored, "InstanceNumber") or 1, text_of(stored, "SOPClassUID"), uid_root)
    return dataset


def refers_to(dataset: Dataset, sop_uids: Iterable[str]) -> bool:
    """Tell whether the content of a report points at one of the instances."""
    return not {uid for uid, _ in _pointers(dataset.get("ContentSequence") or ())}.isdisjoint(sop_uids)


def _facts(replacements: Replacements) -> list[str]:
    return [f"{uid}>{','.join(reference.sop_uid for reference in found)}" for uid, found in sorted(replacements.items())]


def _rename(dataset: Dataset, stored: Dataset, facts: Sequence[str], index: int, sop_class_uid: str, uid_root: str | None) -> None:
    before = text_of(stored, "SOPInstanceUID")
    dataset.SOPClassUID = UID(sop_class_uid)
    dataset.SOPInstanceUID = UID(derive_uid("stand-in", before, *facts, index, root=uid_root))
    dataset.SeriesInstanceUID = UID(derive_uid("stand-in series", before, *facts, root=uid_root))
    dataset.file_meta = copy.deepcopy(stored.file_meta)
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID


# --- references ----------------------------------------------------------------------------------------------------------


def _redirect(dataset: Dataset, replacements: Replacements) -> None:
    if not replacements or "ContentSequence" not in dataset:
        return
    dataset.ContentSequence = list(_items(dataset.ContentSequence, replacements))
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        if keyword in dataset:
            found = [new for old in _listed(dataset[keyword].value) for new in replacements.get(old.sop_uid, (old,))]
            delattr(dataset, keyword)
            if found:
                setattr(dataset, keyword, evidence(dict.fromkeys(found)))


def _items(items: Iterable[Dataset], replacements: Replacements) -> Iterator[Dataset]:
    """Give content items with each pointer at something replaced once for each thing in its place."""
    for item in items:
        pointed = text_of(item.ReferencedSOPSequence[0], "ReferencedSOPInstanceUID") if item.get("ReferencedSOPSequence") else ""
        if "ContentSequence" in item:
            item.ContentSequence = list(_items(item.ContentSequence, replacements))
            _mend_group(item)
        if pointed not in replacements:
            yield item
            continue
        for reference in replacements[pointed]:
            other = copy.deepcopy(item)
            other.ReferencedSOPSequence = [reference.item()]
            yield other


def _mend_group(group: Dataset) -> None:
    """Make a group about images (TID 1501) of one about a region (TID 1411) whose segmentation is not there: its numbers and its images stay."""
    template = next(iter(group.get("ContentTemplateSequence") or ()), None)
    if template is None or text_of(template, "TemplateIdentifier") != "1411" or _has_region(group):
        return
    template.TemplateIdentifier = "1501"
    for item in group.ContentSequence:
        if code_of(item) == ours.SOURCE_FOR_SEGMENTATION.value:
            item.ConceptNameCodeSequence = [ours.item_of(ours.SOURCE_OF_MEASUREMENT)]


def _has_region(group: Dataset) -> bool:
    pointers = (pointer for item in group.ContentSequence for pointer in item.get("ReferencedSOPSequence") or ())
    return any("ReferencedSegmentNumber" in pointer for pointer in pointers) or any(text_of(item, "ValueType") == "SCOORD" for item in group.ContentSequence)


def _listed(studies: Iterable[Dataset]) -> Iterator[Reference]:
    """Give the references of a Hierarchical SOP Instance Reference (PS3.3 C.17.2.1)."""
    for study in studies:
        for series in study.get("ReferencedSeriesSequence") or ():
            for item in series.get("ReferencedSOPSequence") or ():
                names = text_of(study, "StudyInstanceUID"), text_of(series, "SeriesInstanceUID")
                yield Reference(*names, text_of(item, "ReferencedSOPClassUID"), text_of(item, "ReferencedSOPInstanceUID"))


def _pointers(items: Iterable[Dataset]) -> Iterator[tuple[str, Dataset]]:
    for item in items:
        for pointer in item.get("ReferencedSOPSequence") or ():
            yield text_of(pointer, "ReferencedSOPInstanceUID"), pointer
        yield from _pointers(item.get("ContentSequence") or ())


# --- for the gate --------------------------------------------------------------------------------------------------------


def sources_as_stored(stored: Dataset) -> Sources:
    """Return what a stored object was made of, as it says itself: it has passed the gate, and a stand-in may claim nothing that it does not."""
    frames: dict[str, int] = {}
    every = [*_pointers(stored.get("ContentSequence") or ()), *((text_of(item, "ReferencedSOPInstanceUID"), item) for item in _source_images(stored))]
    for uid, pointer in every:
        numbers = [int(number) for number in text_of(pointer, "ReferencedFrameNumber").split("\\") if number.isdecimal()]
        frames[uid] = max([frames.get(uid, 1), *numbers])
    hierarchy = (stored.get(keyword) or () for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"))
    references = [*(reference for studies in hierarchy for reference in _listed(studies)), *_common_instances(stored)]
    return Sources(tuple(header_of(stored, reference, frames.get(reference.sop_uid, 1)) for reference in dict.fromkeys(references)))


def _source_images(stored: Dataset) -> Iterable[Dataset]:
    found: Iterable[Dataset] = stored.get("SourceImageSequence") or ()
    return found


def _common_instances(stored: Dataset) -> Iterator[Reference]:
    for series in stored.get("ReferencedSeriesSequence") or ():
        for item in series.get("ReferencedInstanceSequence") or ():
            names = text_of(stored, "StudyInstanceUID"), text_of(series, "SeriesInstanceUID")
            yield Reference(*names, text_of(item, "ReferencedSOPClassUID"), text_of(item, "ReferencedSOPInstanceUID"))


def header_of(stored: Dataset, reference: Reference, frames: int = 1) -> Dataset:
    """Return a header for an instance that an object refers to: of its patient and study, with its UIDs."""
    header = Dataset()
    for keyword in COPIED:
        element = copied_element(stored, keyword)
        if element is not None:
            header.add(element)
    header.StudyInstanceUID, header.SeriesInstanceUID = reference.study_uid, reference.series_uid
    header.SOPClassUID, header.SOPInstanceUID, header.NumberOfFrames = reference.sop_class_uid, reference.sop_uid, frames
    return header
