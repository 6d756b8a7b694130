"""Whether a face could be made of the pixels: nothing here takes it away."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

from pacs_node.dicom.header import has_pixels, text_of

_VOLUMES = ("CT", "MR", "PT")
_HEAD = re.compile(r"head|brain|skull|face|facial|neuro|cereb|crani|orbit|sinus|kopf|schaedel|schädel|tete|tête|cabeza|whole ?body|ganzk", re.IGNORECASE)
_WHERE = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription", "PerformedProcedureStepDescription")


def shows_face(header: Dataset) -> bool | None:
    """Tell whether a source's images may show a face; None where it does not say what they show. Looked at before descriptions go."""
    if text_of(header, "Modality") not in _VOLUMES or not has_pixels(header):
        return False
    stated = text_of(header, "RecognizableVisualFeatures").upper()
    if stated in ("YES", "NO"):
        return stated == "YES"
    said = " ".join([*(text_of(header, keyword) for keyword in _WHERE), _regions(header)])
    return True if _HEAD.search(said) else None if not said.strip() else False


def _regions(header: Dataset) -> str:
    return " ".join(text_of(item, "CodeMeaning") for item in header.get("AnatomicRegionSequence") or () if isinstance(item, Dataset))
