"""Codes: whether their words are a public scheme's, and which concepts say something of the patient."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import cast

from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts  # the codes of the context groups of PS3.16; the public interface looks them up by keyword only

from pacs_node.dicom.header import text_of
from pacs_node.workbench.deidentify.options import Options
from pacs_node.workbench.deidentify.words import REMOVED

_OLDER = {"SRT": "SCT", "SNM3": "SCT", "99SDM": "SCT"}  # designators of the same terms under older code values (PS3.16 8)

_WHO = {("DCM", "121029"), ("DCM", "121030"), ("DCM", "121031")}  # Subject Name, Subject ID, Subject Birth Date
_CHARACTERISTICS = {  # of TID 1007 and TID 3602
    ("DCM", "121032"), ("DCM", "121033"), ("DCM", "121034"),  # Subject Sex, Age, Species
    ("LN", "29463-7"), ("LN", "3141-9"), ("LN", "8302-2"), ("LN", "3137-7"), ("LN", "3138-5"), ("LN", "39156-5"), ("LN", "8277-6"), ("LN", "3140-1"),
    ("LN", "30525-0"), ("LN", "46098-0"), ("SCT", "27113001"), ("SCT", "50373000"), ("SCT", "60621009"), ("SRT", "F-01860"), ("SCT", "397669002"),
    ("SCT", "424144002"),
}  # fmt: skip
_IN_WORDS = re.compile(r"(patient|subject)('s)? (age|sex|gender|weight|height|size|body mass|bmi|species|ethnic)", re.IGNORECASE)


@lru_cache(maxsize=1)
def _meanings() -> dict[str, frozenset[str]]:
    tables = cast("dict[str, dict[str, dict[str, tuple[str, list[int]]]]]", concepts)
    return {scheme: frozenset(meaning.casefold() for codes in known.values() for meaning, _ in codes.values()) for scheme, known in tables.items()}


def is_public(code: Dataset) -> bool:
    """Tell whether a code's meaning is one that its scheme, a public one, has: anything may be written beside a public designator."""
    scheme = text_of(code, "CodingSchemeDesignator")
    return text_of(code, "CodeMeaning").casefold() in _meanings().get(_OLDER.get(scheme, scheme), frozenset())


def of_patient(item: Dataset, options: Options) -> bool:
    """Tell whether the item of a sequence says by its concept name something of the patient that was not asked to be retained."""
    names = item.get("ConceptNameCodeSequence") or [Dataset()]
    concept = (text_of(names[0], "CodingSchemeDesignator"), text_of(names[0], "CodeValue"))
    told = concept in _CHARACTERISTICS or _IN_WORDS.match(text_of(names[0], "CodeMeaning"))
    return concept in _WHO or bool(told and not options.retain_patient_characteristics)


def say_removed(item: Dataset) -> None:
    """Put a text that says that something was removed in the place of a content item: its concept name and relationship stay."""
    for tag in list(item.keys()):
        if item[tag].keyword not in ("ConceptNameCodeSequence", "RelationshipType"):
            del item[tag]
    item.ValueType, item.TextValue = "TEXT", REMOVED
