"""Our own gate: what every object must satisfy before it leaves, told as faults in words.

Each rule looks at one object (and at what it was made from) and returns its faults; the rules that apply are one tuple.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
)

from pacs_node.dicom import values as looking_up
from pacs_node.dicom.header import identity, number_of, text_of
from pacs_node.dicom.uids import is_valid_uid
from pacs_node.records import ResultObject, Sources
from pacs_node.results.identity import MODEL_NAME
from pacs_node.results.modules import COPIED, STUDY, TYPE_2
from pacs_node.results.naming import frames_of
from pacs_node.results.references import reference_to

_REPORTS = (Comprehensive3DSRStorage, EnhancedSRStorage)
_PLANE_TOLERANCE = 0.01  # mm

_ALWAYS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "InstanceNumber",
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "ContentDate", "ContentTime", "ContributingEquipmentSequence",
)  # fmt: skip
_DOCUMENT = ("CompletionFlag", "VerificationFlag", "ValueType", "ConceptNameCodeSequence", "ContentSequence", "ContentTemplateSequence")
_IMAGE = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "ImageType", "LossyImageCompression")

# Type 1 (and 1C that always hold) of the modules that we write, by SOP class, with the value where there is only one
TYPE_1: dict[str, tuple[str, ...]] = {
    Comprehensive3DSRStorage: (*_ALWAYS, *_DOCUMENT, "CodingSchemeIdentificationSequence", "CurrentRequestedProcedureEvidenceSequence"),
    EnhancedSRStorage: (*_ALWAYS, *_DOCUMENT),
    ParametricMapStorage: (
        *_ALWAYS, *_IMAGE, "FrameOfReferenceUID", "ContentLabel", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
        "DimensionOrganizationSequence", "DimensionIndexSequence", "ReferencedSeriesSequence", "FloatPixelData", "CodingSchemeIdentificationSequence",
    ),
    MultiFrameTrueColorSecondaryCaptureImageStorage: (*_ALWAYS, *_IMAGE, "ConversionType", "PlanarConfiguration", "PixelData"),
    SecondaryCaptureImageStorage: (*_ALWAYS, *(one for one in _IMAGE if one != "NumberOfFrames"), "ConversionType", "PlanarConfiguration", "PixelData"),
}  # fmt: skip
FIXED: dict[str, dict[str, str]] = {
    Comprehensive3DSRStorage: {"VerificationFlag": "UNVERIFIED", "Modality": "SR"},
    EnhancedSRStorage: {"VerificationFlag": "UNVERIFIED", "Modality": "SR"},
    ParametricMapStorage: {"ContentQualification": "RESEARCH"},
    MultiFrameTrueColorSecondaryCaptureImageStorage: {"BurnedInAnnotation": "YES"},
    SecondaryCaptureImageStorage: {"BurnedInAnnotation": "YES"},
}

# Sequences whose references lead elsewhere on purpose: taken over from the source, orders, the report that is replaced
_LEADING_ELSEWHERE = frozenset((*COPIED, "RequestAttributesSequence", "ReferencedRequestSequence", "PredecessorDocumentsSequence"))


@dataclass(frozen=True, slots=True)
class _Case:
    """One object under judgement."""

    dataset: Dataset
    sources: tuple[Dataset, ...]
    companions: tuple[Dataset, ...]  # other objects of the same build


def check(dataset: Dataset, sources: Sources, companions: Iterable[Dataset] = ()) -> tuple[str, ...]:
    """Return the structural faults of one object, none where it may leave. ``companions`` are the other objects of its build."""
    case = _Case(dataset, sources.analysed + sources.others, tuple(companions))
    return tuple(dict.fromkeys(fault for rule in _RULES for fault in rule(case)))


def check_all(objects: Sequence[ResultObject], sources: Sources) -> tuple[str, ...]:
    """Return the faults of all objects of a build, each with its kind, and of what they must have in common."""
    datasets = [made.dataset for made in objects]
    faults = [f"{made.kind}: {fault}" for made in objects for fault in check(made.dataset, sources, datasets)]
    shared = [keyword for keyword in ("SOPInstanceUID", "SeriesInstanceUID") if len({text_of(data, keyword) for data in datasets}) < len(datasets)]
    faults += [f"two objects of the build share one {keyword}" for keyword in shared]
    if len({_algorithm_of(dataset) for dataset in datasets if _algorithm_of(dataset) is not None}) > 1:
        faults.append("the objects of the build name different algorithms")
    if [made.order for made in objects] != sorted(made.order for made in objects):
        faults.append("the objects are not in sending order")
    return tuple(faults)


# --- rules -------------------------------------------------------------------------------------------------------------


def _attributes(case: _Case) -> Iterator[str]:
    sop_class = text_of(case.dataset, "SOPClassUID")
    if sop_class not in TYPE_1:
        yield f"SOP class {sop_class or '(none)'} is none that results have"
        return
    for keyword in TYPE_1[sop_class]:
        if case.dataset.get(keyword) in (None, "", b"") or (keyword.endswith("Sequence") and not case.dataset[keyword].value):
            yield f"{keyword} is missing or empty"
    yield from (f"{keyword} is missing (it may be empty)" for keyword in TYPE_2 if keyword not in case.dataset)
    for keyword, value in FIXED[sop_class].items():
        if text_of(case.dataset, keyword) != value:
            yield f"{keyword} is not {value}"


def _same_patient_and_study(case: _Case) -> Iterator[str]:
    source = case.sources[0]
    if identity(case.dataset) != identity(source):
        yield "the patient is not the source's"
    for keyword in STUDY[:5]:  # identifiers of the study
        if text_of(case.dataset, keyword) != text_of(source, keyword):
            yield f"{keyword} is not the source's"
    if len({text_of(header, "StudyInstanceUID") for header in case.sources}) > 1:
        yield "the sources are of more than one study"


def _uids(case: _Case) -> Iterator[str]:
    for element in case.dataset.iterall():
        if element.VR == "UI":
            for uid in element.value if isinstance(element.value, Sequence) and not isinstance(element.value, str) else [element.value]:
                if uid and not is_valid_uid(str(uid)):
                    yield f"{element.keyword} {uid} is no valid UID"
    own = text_of(case.dataset, "SOPInstanceUID")
    if own in {text_of(header, "SOPInstanceUID") for header in case.sources}:
        yield "SOPInstanceUID is that of a received instance"
    if text_of(case.dataset, "SeriesInstanceUID") in {text_of(header, "SeriesInstanceUID") for header in case.sources}:
        yield "SeriesInstanceUID is that of a received series"


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """Yield ``dataset`` and every item below it."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _items(item)


def _pointers(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Yield (SOP Instance UID, SOP Class UID) of every reference below ``dataset``."""
    for item in _items(dataset):
        if "ReferencedSOPInstanceUID" in item:
            yield text_of(item, "ReferencedSOPInstanceUID"), text_of(item, "ReferencedSOPClassUID")


def _references(case: _Case) -> Iterator[str]:
    known = {reference.sop_uid: reference.sop_class_uid for reference in map(reference_to, (*case.sources, *case.companions))}
    for element in case.dataset:
        if element.VR != "SQ" or element.keyword in _LEADING_ELSEWHERE:
            continue
        for item in element.value:
            for sop_uid, sop_class in _pointers(item):
                if sop_uid not in known:
                    yield f"{element.keyword} refers to {sop_uid}, which is neither received nor of this build"
                elif known[sop_uid] != sop_class:
                    yield f"{element.keyword} gives {sop_uid} another SOP class than it has"


def _evidence(case: _Case) -> Iterator[str]:
    if text_of(case.dataset, "SOPClassUID") not in _REPORTS:
        return
    pointed = {uid for item in case.dataset.get("ContentSequence") or () for uid, _ in _pointers(item)}
    current = [uid for item in case.dataset.get("CurrentRequestedProcedureEvidenceSequence") or () for uid, _ in _pointers(item)]
    other = [uid for item in case.dataset.get("PertinentOtherEvidenceSequence") or () for uid, _ in _pointers(item)]
    yield from (f"the content refers to {uid}, which is not among the evidence" for uid in sorted(pointed - set(current)))
    yield from (f"{uid} is evidence but the content does not refer to it" for uid in sorted(set(current) - pointed))
    if len(current + other) > len(set(current + other)):
        yield "an instance is listed twice as evidence"


def _algorithm_of(dataset: Dataset) -> tuple[str, ...] | None:
    """Return maker, name, version and device UID of the algorithm as Contributing Equipment says them, None without one."""
    for item in dataset.get("ContributingEquipmentSequence") or ():
        if text_of(item, "ManufacturerModelName") != MODEL_NAME or "StationName" not in item:
            return tuple(text_of(item, keyword) for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID"))
    return None


def _equipment(case: _Case) -> Iterator[str]:
    items = case.dataset.get("ContributingEquipmentSequence") or ()
    for item in items:
        if [text_of(code, "CodeValue") for code in item.get("PurposeOfReferenceCodeSequence") or ()] != ["109102"]:
            yield "an item of ContributingEquipmentSequence has another purpose than (109102, DCM, Processing Equipment)"
        if not text_of(item, "DeviceUID") or not text_of(item, "Manufacturer"):
            yield "an item of ContributingEquipmentSequence lacks DeviceUID or Manufacturer"
    if not any(text_of(item, "ManufacturerModelName") == MODEL_NAME and "StationName" in item for item in items):
        yield "ContributingEquipmentSequence has no item for this node, so that it would analyse its own result"
    algorithm = _algorithm_of(case.dataset)
    if algorithm is None and text_of(case.dataset, "SOPClassUID") != EnhancedSRStorage:
        yield "ContributingEquipmentSequence has no item for the algorithm"
    if algorithm is not None:
        said = dict(zip(("122405", "111001", "111003", "121012"), algorithm, strict=True))
        for code, value in _said(case.dataset):
            if code in said and value != said[code]:
                yield f"the content names the algorithm differently: {value} instead of {said[code]}"


def _said(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Yield (code of the concept name, value) of all TEXT and UIDREF items."""
    for item in dataset.get("ContentSequence") or ():
        for name in item.get("ConceptNameCodeSequence") or ():
            yield text_of(name, "CodeValue"), text_of(item, "TextValue") or text_of(item, "UID")
        yield from _said(item)


def _pixels(case: _Case) -> Iterator[str]:
    dataset = case.dataset
    for keyword in ("PixelData", "FloatPixelData"):
        if keyword in dataset:
            expected = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * (dataset.BitsAllocated // 8) * frames_of(dataset)
            if len(dataset[keyword].value) != expected + expected % 2:
                yield f"{keyword} holds {len(dataset[keyword].value)} bytes instead of {expected}"
    frames = dataset.get("PerFrameFunctionalGroupsSequence")
    if frames is not None and len(frames) != dataset.NumberOfFrames:
        yield "there is not one item of PerFrameFunctionalGroupsSequence for each frame"


def _places(case: _Case) -> Iterator[str]:
    """Every frame of a map lies in the plane of the slice, or of the frame of an enhanced object, that it was made from."""
    headers = {text_of(header, "SOPInstanceUID"): header for header in case.sources}
    known: dict[str, tuple[_Vectors, _Vectors]] = {}
    for number, frame in enumerate(case.dataset.get("PerFrameFunctionalGroupsSequence") or (), start=1):
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        uid = text_of(source, "ReferencedSOPInstanceUID")
        if uid not in headers:
            continue  # said by another rule
        if uid not in known:
            known[uid] = _vectors(headers[uid], _POSITION), _vectors(headers[uid], _ORIENTATION)
        index = (number_of(source, "ReferencedFrameNumber") or 1) - 1
        position, orientation = (_of_frame(vectors, index) for vectors in known[uid])
        if position is None or orientation is None:
            continue  # a place that the source gives in another way cannot be compared
        offset = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float) - position
        if abs(float(np.cross(*orientation.reshape(2, 3)) @ offset)) > _PLANE_TOLERANCE:
            yield f"frame {number} does not lie in the plane of its source slice"


_Vectors = list[NDArray[np.float64]]  # one for the object, or one for each of its frames
_POSITION, _ORIENTATION = looking_up.parse_key("ImagePositionPatient"), looking_up.parse_key("ImageOrientationPatient")


def _vectors(header: Dataset, key: looking_up.Key) -> _Vectors:
    return [np.array([float(value) for value in place], dtype=np.float64) for place in looking_up.places(header, key)]


def _of_frame(vectors: _Vectors, index: int) -> NDArray[np.float64] | None:
    vector = vectors[0] if len(vectors) == 1 else vectors[index] if index < len(vectors) else None
    return vector if vector is not None and vector.size in (3, 6) else None


def _frames(case: _Case) -> Iterator[str]:
    """A reference to frames is one to frames that the object has."""
    counts = {text_of(header, "SOPInstanceUID"): frames_of(header) for header in (*case.sources, *case.companions)}
    for item in _items(case.dataset):
        for text in filter(str.isdecimal, text_of(item, "ReferencedFrameNumber").split("\\")):
            uid = text_of(item, "ReferencedSOPInstanceUID")
            if not 1 <= int(text) <= counts.get(uid, int(text)):
                yield f"there is no frame {text} in {uid}"


_RULES = (_attributes, _same_patient_and_study, _uids, _references, _evidence, _equipment, _pixels, _places, _frames)
