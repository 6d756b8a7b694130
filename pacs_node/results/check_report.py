"""The gate for documents: evidence, the templates that IHE AIR demands, and the algorithm by the same name everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from pacs_node.dicom.header import is_synthetic, text_of
from pacs_node.records import Population, Verdict
from pacs_node.results import codes
from pacs_node.results.case import Case, algorithm_of, children, code_of, content, pointers
from pacs_node.results.demands import REPORTS

_GROUP = "125007"  # Measurement Group
_ROOT = {  # what the root of a report by TID 1500 holds
    "121049": "language",
    "121005": "observer type",
    "121012": "device observer UID",
    "121013": "device observer name",
    "121014": "device observer manufacturer",
    "121015": "device observer model name",
    "121016": "device observer serial number",
    "121058": "procedure reported",
    "111028": "image library",
}
_IN_GROUP = {"112039": "tracking identifier", "112040": "tracking unique identifier"}
_ALGORITHM = {"111001": "algorithm name", "111003": "algorithm version", "111000": "algorithm family"}
_PLACES = ("1410", "1411")
_POINTING = ("IMAGE", "SCOORD")
_STANDING = {codes.PERCENTILE.value: "a percentile", codes.P_VALUE.value: "a p-value"}  # only what the site's own calibration may say
_VERDICTS = {codes.VERDICTS[verdict].value for verdict in (Verdict.ABOVE, Verdict.NOT_ABOVE)}


def _evidence(case: Case) -> Iterator[str]:
    if case.sop_class not in REPORTS:
        return
    pointed = {uid for item in children(case.dataset, "ContentSequence") for uid, _ in pointers(item)}
    current, other = (
        [uid for item in children(case.dataset, keyword) for uid, _ in pointers(item)]
        for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
    )
    yield from (f"the content refers to {uid}, which is not among the evidence" for uid in sorted(pointed - set(current)))
    yield from (f"{uid} is evidence but the content does not refer to it" for uid in sorted(set(current) - pointed))
    if len(current + other) > len(set(current + other)):
        yield "an instance is listed twice as evidence"


def _template(case: Case) -> Iterator[str]:
    """A report with measurements says who observed, what, by which algorithm, and gives every group an identity and a place."""
    groups = list(_groups(case.dataset))
    if case.sop_class != Comprehensive3DSRStorage and not groups:
        return
    said = {code_of(item) for item in children(case.dataset, "ContentSequence")}
    yield from (f"the report lacks the {name} ({code}, DCM)" for code, name in _ROOT.items() if code not in said)
    if case.sop_class == Comprehensive3DSRStorage and not groups:
        yield "the report has no measurement group"
    for number, group in enumerate(groups, start=1):
        yield from (f"measurement group {number} {fault}" for fault in _group_faults(group))


def _group_faults(group: Dataset) -> Iterator[str]:
    inside = children(group, "ContentSequence")
    said = {code_of(item) for item in inside}
    yield from (f"lacks the {name} ({code}, DCM)" for code, name in {**_IN_GROUP, **_ALGORITHM}.items() if code not in said)
    if not any(text_of(item, "ValueType") == "NUM" for item in inside):
        yield "holds no measurement"
    if not any(text_of(item, "ValueType") in _POINTING for item in inside):
        yield "points at no image"
    if _template_of(group) in _PLACES and not any(_is_place(item) for item in inside):
        yield "is about a region and does not say where it lies"


def _is_place(item: Dataset) -> bool:
    """Tell whether an item is an outline on an image, or a segment that is named by its number."""
    if text_of(item, "ValueType") == "SCOORD":
        return bool(item.get("GraphicData")) and any("ReferencedSOPSequence" in child for child in children(item, "ContentSequence"))
    return any("ReferencedSegmentNumber" in reference for reference in children(item, "ReferencedSOPSequence"))


def _groups(dataset: Dataset) -> Iterator[Dataset]:
    return (item for item in content(dataset) if code_of(item) == _GROUP)


def _names(case: Case) -> Iterator[str]:
    """TID 1004, TID 4019 and Algorithm Identification say the same as Contributing Equipment (PS3.3 10.16)."""
    algorithm = algorithm_of(case.dataset)
    if algorithm is None:
        return
    said = dict(zip(("122405", "111001", "111003", "121012"), algorithm, strict=True))
    for item in content(case.dataset):
        code, value = code_of(item), text_of(item, "TextValue") or text_of(item, "UID")
        if code in said and value != said[code]:
            yield f"the content names the algorithm differently: {value} instead of {said[code]}"
    for segment in children(case.dataset, "SegmentSequence"):
        found = [tuple(text_of(item, key) for key in ("AlgorithmName", "AlgorithmVersion")) for item in children(segment, _IDENTIFICATION)]
        if found != [algorithm[1:3]]:
            yield f"segment {text_of(segment, 'SegmentNumber')} names the algorithm differently: {found} instead of {algorithm[1:3]}"
        if not all(children(item, "AlgorithmFamilyCodeSequence") for item in children(segment, _IDENTIFICATION)):
            yield f"segment {text_of(segment, 'SegmentNumber')} names no algorithm family"


def _words(case: Case) -> Iterator[str]:
    """Percentile, p-value and verdict come from the site's own calibration; of a phantom from any."""
    if is_synthetic(case.dataset):
        return
    found = list(content(case.dataset))
    populations = {code_of(item, _VALUE) for item in found if code_of(item) == codes.CALIBRATION_POPULATION.value}
    said = [_STANDING[code_of(item)] for item in found if code_of(item) in _STANDING]
    said += ["a verdict" for item in found if code_of(item) == codes.VERDICT.value and code_of(item, _VALUE) in _VERDICTS]
    if populations != {codes.POPULATIONS[Population.SITE].value}:
        yield from (f"the content gives {what} that does not rest on this site's own calibration" for what in said)


_VALUE = "ConceptCodeSequence"
_IDENTIFICATION = "SegmentationAlgorithmIdentificationSequence"


def tracked(datasets: Sequence[Dataset]) -> Iterator[str]:
    """The regions of a report and the segments of the segmentation beside it have the same tracking UIDs."""
    segments = {text_of(segment, "TrackingUID") for dataset in datasets for segment in children(dataset, "SegmentSequence")}
    for dataset in datasets:
        if not segments or text_of(dataset, "SOPClassUID") != Comprehensive3DSRStorage:
            continue
        regions = [group for group in _groups(dataset) if _template_of(group) in _PLACES]
        if {text_of(item, "UID") for group in regions for item in children(group, "ContentSequence") if code_of(item) == "112040"} != segments:
            yield "the tracking UIDs of report and segmentation differ"


def _template_of(group: Dataset) -> str:
    return next((text_of(item, "TemplateIdentifier") for item in children(group, "ContentTemplateSequence")), "")


RULES = (_evidence, _template, _names, _words)
