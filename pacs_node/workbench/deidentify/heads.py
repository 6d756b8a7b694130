"""Whether a face could be made of the pixels: nothing here takes it away."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

from pacs_node.dicom.header import DAMAGED, has_pixels, text_of

_VOLUMES = ("CT", "MR", "PT")
_PHOTOGRAPHS = ("1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.840.10008.5.1.4.1.1.77.1.4.1", "1.2.840.10008.5.1.4.1.1.77.1.7")  # VL, its videos, dermoscopic
_HEAD = re.compile(
    r"head|brain|skull|face|facial|neuro|cereb|crani|orbit|sinus|kopf|schaedel|schädel|tete|tête|cabeza|whole ?body|ganzk"
    r"|mp ?rage|pituit|hypophys|sella|\biac\b|temporal|\bnnh\b|\btmj\b|jaw|kiefer|mandib|maxill|dental|\bear\b|\beye|nasal",
    re.IGNORECASE,
)
_ELSEWHERE = re.compile(
    r"chest|thora|lung|abd|liver|leber|kidney|niere|pancrea|spleen|pelvi|becken|prostat|uter|bladder|breast|mamm|heart|card|herz|coron|lumb|sacr|lws|l-?spine"
    r"|t-?spine|bws|hip|knee|knie|ankle|foot|fuss|hand|wrist|elbow|shoulder|schulter|arm|leg|bein|thigh|calf|femur|tibia|humerus|extremit|bowel|colon|aorta",
    re.IGNORECASE,
)
_WHERE = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription", "PerformedProcedureStepDescription")


def shows_face(header: Dataset) -> bool | None:
    """Tell whether a source's images may show a face: False only where they say another region, None where they say none that is known.

    Looked at before descriptions go.
    """
    photograph = text_of(header, "SOPClassUID") in _PHOTOGRAPHS or text_of(header, "Modality") == "XC"
    if not has_pixels(header) or not (photograph or text_of(header, "Modality") in _VOLUMES):
        return False
    stated = text_of(header, "RecognizableVisualFeatures").upper()
    if stated in ("YES", "NO"):
        return stated == "YES"
    said = " ".join([*(text_of(header, keyword) for keyword in _WHERE), _regions(header)])
    return True if _HEAD.search(said) else False if _ELSEWHERE.search(said) else None


def _regions(header: Dataset) -> str:
    try:
        return " ".join(text_of(item, "CodeMeaning") for item in header.get("AnatomicRegionSequence") or () if isinstance(item, Dataset))
    except DAMAGED:
        return ""
