"""Rejection notes: Key Object Selection documents that say which instances are not to be used any more, and why (IHE RAD TF-3 4.66, IOCM).

One table says what each title asks for. An instance that was rejected keeps its file, but no rule sees it and no pipeline judges it:

========  =========================================  ======================  ===================================
title     (PS3.16 CID 7011)                          results that are out    the same UID received again
========  =========================================  ======================  ===================================
113001    Rejected for Quality Reasons               are reported            stays rejected
113037    Rejected for Patient Safety Reasons        are reported            stays rejected (4.66.4.2.3.1)
113038    Incorrect Modality Worklist Entry          are reported            stays rejected (4.66.4.3.3)
113039    Data Retention Policy Expired              are right as they are   counts again (4.66.4.4.3)
========  =========================================  ======================  ===================================

What is corrected comes with new UIDs. The first three titles hold for instances that come after their note, too; the fourth does not: it tells of
a removal, not of an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset

from pacs_node.dicom.header import DAMAGED, text_of

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
_MOST_NESTING = 16


@dataclass(frozen=True, slots=True)
class Title:
    """What a document title asks for: its meaning, and whether it says that the instances were wrong, and not only that they are gone."""

    meaning: str
    wrong: bool


TITLES: Mapping[str, Title] = {
    "113001": Title("Rejected for Quality Reasons", True),
    "113037": Title("Rejected for Patient Safety Reasons", True),
    "113038": Title("Incorrect Modality Worklist Entry", True),
    "113039": Title("Data Retention Policy Expired", False),
}
"""Code value in the coding scheme DCM → what it asks for."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """What a rejection note says: its code and the SOP Instance UIDs that it rejects."""

    code: str
    instances: frozenset[str]


def read_rejection(document: Dataset) -> Rejection | None:
    """Return what a document rejects, None where it is no rejection note."""
    if text_of(document, "SOPClassUID") != KEY_OBJECT_SELECTION:
        return None
    codes = [text_of(item, "CodeValue") for item in _items(document, "ConceptNameCodeSequence") if text_of(item, "CodingSchemeDesignator") == "DCM"]
    code = next((code for code in codes if code in TITLES), None)
    if code is None:
        return None
    return Rejection(code, frozenset(uid for uid in (*_evidence(document), *_content(document, _MOST_NESTING)) if uid))


def _evidence(document: Dataset) -> Iterator[str]:
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in _items(document, keyword):
            for series in _items(study, "ReferencedSeriesSequence"):
                yield from (text_of(item, "ReferencedSOPInstanceUID") for item in _items(series, "ReferencedSOPSequence"))


def _content(node: Dataset, depth: int) -> Iterator[str]:
    for item in _items(node, "ContentSequence") if depth else ():
        yield from (text_of(reference, "ReferencedSOPInstanceUID") for reference in _items(item, "ReferencedSOPSequence"))
        yield from _content(item, depth - 1)


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    try:
        return [item for item in dataset.get(keyword) or () if isinstance(item, Dataset)]
    except DAMAGED:
        return []
