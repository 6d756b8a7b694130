"""Whether an archive means the same patient and order as we do: pure comparison of normalised values."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from pacs_node.dicom.header import identity, normalised, text_of

FIELDS = ("Patient ID", "issuer of the Patient ID", "patient's name", "birth date", "accession number")
_NAME = 2


def facts_of(header: Dataset) -> list[str]:
    """Return the values of `FIELDS` as they are compared: normalised by `pacs_node.dicom.header.identity`."""
    patient = identity(header)
    return [patient.patient_id, patient.issuer, patient.name, patient.birth_date, normalised(text_of(header, "AccessionNumber"))]


def differences(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Return the names of the fields that differ; what one side does not give is no difference."""
    return [field for index, (field, one, other) in enumerate(zip(FIELDS, ours, theirs, strict=True)) if not _agree(one, other, name=index == _NAME)]


def _agree(one: str, other: str, *, name: bool) -> bool:
    """Compare two values; names by group (alphabetic, ideographic, phonetic; PS3.5 6.2), since many archives give the first one only."""
    pairs = zip(one.split("="), other.split("="), strict=False) if name else [(one, other)]
    return all(not left or not right or left == right for left, right in pairs)
