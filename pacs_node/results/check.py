"""Our own gate: what every object must satisfy before it leaves, told as faults in words.

Each rule looks at one object (and at what it was made from) and returns its faults; the rules that apply are one tuple. A rule never raises
over what an object lacks: that is a fault to be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import RawDataStorage

from pacs_node.dicom.header import DAMAGED, identity, is_synthetic, text_of
from pacs_node.dicom.uids import is_valid_uid
from pacs_node.records import Finding, Place, ResultObject, Sources
from pacs_node.results import check_frames, check_places, check_report
from pacs_node.results.case import Case, algorithm_of, children, code_of, is_node, pointers
from pacs_node.results.demands import DEMANDS
from pacs_node.results.modules import COPIED, PATIENT, STUDY, TYPE_2
from pacs_node.results.raw import lacking
from pacs_node.results.references import reference_to

# Sequences whose references lead elsewhere on purpose: taken over from the source, orders, the report that is replaced
_LEADING_ELSEWHERE = frozenset((*COPIED, "RequestAttributesSequence", "ReferencedRequestSequence", "PredecessorDocumentsSequence"))
_MENDED = frozenset(("DeidentificationMethod",))  # the only attribute of these modules that `identity` may change


def check(dataset: Dataset, sources: Sources, companions: Iterable[Dataset] = (), finding: Finding | None = None) -> tuple[str, ...]:
    """Return the structural faults of one object, none where it may leave.

    ``companions`` are the other objects of its build; ``finding``, where it is at hand, says where the analysis grid lies on the sources.
    """
    case = Case(dataset, sources.analysed, sources.others, tuple(companions), places_of(finding))
    return tuple(dict.fromkeys(fault for rule in _RULES for fault in rule(case)))


def places_of(finding: Finding | None) -> dict[tuple[str, int], Place]:
    """Return where the analysis grid lies on each analysed image or frame; nothing where that is not known."""
    if finding is None or not finding.places:
        return {}
    return {(frame.sop_uid, frame.number or 1): place for frame, place in zip(finding.volume.frames, finding.places, strict=True)}


def check_all(objects: Sequence[ResultObject], sources: Sources, finding: Finding | None = None) -> tuple[str, ...]:
    """Return the faults of all objects of a build, each with its kind, and of what they must have in common; see `check`."""
    datasets = [made.dataset for made in objects]
    faults = [f"{made.kind}: {fault}" for made in objects for fault in check(made.dataset, sources, datasets, finding)]
    shared = [keyword for keyword in ("SOPInstanceUID", "SeriesInstanceUID") if len({text_of(data, keyword) for data in datasets}) < len(datasets)]
    faults += [f"two objects of the build share one {keyword}" for keyword in shared]
    if len({algorithm_of(dataset) for dataset in datasets if algorithm_of(dataset) is not None}) > 1:
        faults.append("the objects of the build name different algorithms")
    if len({(text_of(dataset, "ContentDate"), text_of(dataset, "ContentTime")) for dataset in datasets}) > 1:
        faults.append("the objects of the build are of different times")
    if [made.order for made in objects] != sorted(made.order for made in objects):
        faults.append("the objects are not in sending order")
    return (*faults, *check_report.tracked(datasets))


# --- rules -------------------------------------------------------------------------------------------------------------


def _attributes(case: Case) -> Iterator[str]:
    demand = DEMANDS.get(case.sop_class)
    if demand is None:
        yield f"SOP class {case.sop_class or '(none)'} is none that results have"
        return
    for keyword in demand.type_1:
        if case.dataset.get(keyword) in (None, "", b"") or (keyword.endswith("Sequence") and not case.dataset[keyword].value):
            yield f"{keyword} is missing or empty"
    yield from (f"{keyword} is missing (it may be empty)" for keyword in (*TYPE_2, *demand.type_2) if keyword not in case.dataset)
    for keyword, value in demand.fixed.items():
        if text_of(case.dataset, keyword) != value:
            yield f"{keyword} is not {value}"


def _same_patient_and_study(case: Case) -> Iterator[str]:
    source = case.sources[0]
    if identity(case.dataset) != identity(source):
        yield "the patient is not the source's"
    for keyword in (*STUDY, *PATIENT):
        if keyword not in _MENDED and _value(case.dataset, keyword) != _value(source, keyword):
            yield f"{keyword} is not the source's"
    if len({text_of(header, "StudyInstanceUID") for header in case.sources}) > 1:
        yield "the sources are of more than one study"
    if any(is_synthetic(header) for header in case.sources) and not is_synthetic(case.dataset):
        yield "SyntheticData is not YES although a source is synthetic"


def _value(dataset: Dataset, keyword: str) -> object:
    """Return a value to compare by: absent and empty are the same, and what cannot be read is not compared."""
    try:
        value = dataset.get(keyword)
    except DAMAGED:
        return None
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else str(value or "")


def _uids(case: Case) -> Iterator[str]:
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
    meta = getattr(case.dataset, "file_meta", None)
    said = (text_of(meta, "MediaStorageSOPClassUID"), text_of(meta, "MediaStorageSOPInstanceUID")) if meta else ("", "")
    if said != (case.sop_class, own):
        yield "the file meta information names another object"


def _references(case: Case) -> Iterator[str]:
    known = {reference.sop_uid: reference.sop_class_uid for reference in map(reference_to, (*case.sources, *case.companions))}
    for element in case.dataset:
        if element.VR != "SQ" or element.keyword in _LEADING_ELSEWHERE:
            continue
        for item in element.value:
            for sop_uid, sop_class in pointers(item):
                if sop_uid not in known:
                    yield f"{element.keyword} refers to {sop_uid}, which is neither received nor of this build"
                elif known[sop_uid] != sop_class:
                    yield f"{element.keyword} gives {sop_uid} another SOP class than it has"


def _equipment(case: Case) -> Iterator[str]:
    found = children(case.dataset, "ContributingEquipmentSequence")
    for item in found:
        if code_of(item, "PurposeOfReferenceCodeSequence") != "109102":
            yield "an item of ContributingEquipmentSequence has another purpose than (109102, DCM, Processing Equipment)"
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID"):
            if not text_of(item, keyword):
                yield f"an item of ContributingEquipmentSequence lacks {keyword}"
    if not any(is_node(item) for item in found):
        yield "ContributingEquipmentSequence has no item for this node, so that it would analyse its own result"
    demand = DEMANDS.get(case.sop_class)
    if algorithm_of(case.dataset) is None and demand is not None and demand.algorithm:
        yield "ContributingEquipmentSequence has no item for the algorithm"


def _representation(case: Case) -> Iterator[str]:
    if case.sop_class == RawDataStorage:
        yield from (f"the private block lacks {element}" for element in lacking(case.dataset))


_RULES = (_attributes, _same_patient_and_study, _uids, _references, _equipment, _representation, *check_report.RULES, *check_frames.RULES, *check_places.RULES)
