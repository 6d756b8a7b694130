"""A dataset → the same without what identifies: every element of every level is looked at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dicomanonymizer.simpledicomanonymizer import replace_element
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from pacs_node.dicom.header import identity, text_of
from pacs_node.dicom.sop_classes import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_node.workbench.deidentify.codes import is_public, of_patient, say_removed
from pacs_node.workbench.deidentify.iods import needed
from pacs_node.workbench.deidentify.options import LONGITUDINAL, Options, codes_of
from pacs_node.workbench.deidentify.profile import Action, action_for
from pacs_node.workbench.deidentify.pseudonyms import Pseudonyms
from pacs_node.workbench.deidentify.traces import DUMMY_DATE, Traces, elements_of, values_of
from pacs_node.workbench.deidentify.words import REMOVED, harmless, scrubbed

_TEXT = ("SH", "LO", "ST", "LT", "UC", "UT")
_LONGEST = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240, "PN": 64}  # characters
_CODED = frozenset({"CodeValue", "LongCodeValue", "URNCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"})
_DUMMY_TIME = "000000"


@dataclass
class Cleaner:
    """De-identifies the objects of one study. ``traces``: what must not stay in the texts that are kept."""

    options: Options
    pseudonyms: Pseudonyms
    traces: Traces

    def clean(self, dataset: Dataset, *, pixels: bool = False) -> None:
        """De-identify an object in place; ``pixels``: burnt-in text was blanked. Raises what `dicom.header.DAMAGED` lists where a value cannot be read."""
        study_uid = text_of(dataset, "StudyInstanceUID")
        pseudonym = self.pseudonyms.patient(identity(dataset), study_uid)
        counted = any(element.keyword == "ReferencedContentItemIdentifier" for element, _ in elements_of(dataset))
        _Walk(self, text_of(dataset, "SOPClassUID"), self.pseudonyms.shift(pseudonym), counted).walk(dataset, ())
        dataset.PatientID = dataset.PatientName = pseudonym
        for keyword in ("PatientBirthDate", "PatientSex"):  # Type 2 in every object of a patient (PS3.3 C.7.1.1)
            if keyword not in dataset:
                setattr(dataset, keyword, "")
        self._mark(dataset, pixels=pixels)
        dataset.file_meta = _meta(dataset)
        dataset.preamble = b"\0" * 128

    def _mark(self, dataset: Dataset, *, pixels: bool) -> None:
        codes = codes_of(self.options, pixels=pixels, structured="ContentSequence" in dataset)
        dataset.PatientIdentityRemoved = "YES"
        earlier = [item for item in dataset.get("DeidentificationMethodCodeSequence") or () if text_of(item, "CodeValue") not in dict(codes)]
        said = [text for text in text_of(dataset, "DeidentificationMethod").split("\\") if text]
        dataset.DeidentificationMethod = list(dict.fromkeys([*said, *(meaning[:64] for _, meaning in codes)]))
        dataset.DeidentificationMethodCodeSequence = Sequence([*earlier, *(_code(*one) for one in codes)])
        dataset.LongitudinalTemporalInformationModified = LONGITUDINAL[self.options.dates]
        if pixels:
            dataset.BurnedInAnnotation = "NO"


@dataclass
class _Walk:
    """One object: its IOD, by how much its dates are moved, and whether its content items are referred to by their places (PS3.3 C.17.3.2.5)."""

    cleaner: Cleaner
    sop_class_uid: str
    shift: timedelta
    counted: bool

    def walk(self, dataset: Dataset, path: tuple[str, ...]) -> None:
        for tag in sorted(dataset.keys()):
            element = dataset[tag]
            action = action_for(element.tag, element.VR, self.sop_class_uid, path, self.cleaner.options)
            if not self._do(action, element, dataset, path):
                del dataset[tag]

    def _do(self, action: Action, element: DataElement, dataset: Dataset, path: tuple[str, ...]) -> bool:
        """Deal with one element; False where it goes."""
        if action is Action.REMOVE:
            return False
        if action is Action.EMPTY:
            element.value = Sequence() if element.VR == "SQ" else None
        elif action is Action.REPLACE:
            return self._replace(element)
        elif action is Action.UID:
            _each(element, self.cleaner.pseudonyms.uid)
        elif action is Action.SHIFT:
            _each(element, lambda text: moved(text, element.VR, self.shift))
        elif element.VR == "SQ":
            self._into(element, path)
        elif action is Action.CLEAN:
            wanted = path != () or element.keyword == "TextValue" or needed(self.sop_class_uid, (element.keyword,)) != "3"
            return self._clean_text(element, stays=wanted)
        elif element.VR in _TEXT:
            if not _is_public_code(element, dataset):
                _each(element, lambda text: scrubbed(text, self.cleaner.traces)[: _LONGEST.get(element.VR)])
        elif element.VR in ("IS", "DS", "CS") and any(self.cleaner.traces.is_one(str(value)) for value in values_of(element)):
            element.value = None  # e.g. a Series Number that is the accession number
            return needed(self.sop_class_uid, (*path, element.keyword)) != "3"
        return True

    def _into(self, element: DataElement, path: tuple[str, ...]) -> None:
        """Go into the items of a sequence; those that say of the patient what was not asked for go (in a tree that counts its items: their content)."""
        for item in list(element.value):
            if not of_patient(item, self.cleaner.options):
                self.walk(item, (*path, element.keyword))
            elif self.counted:
                say_removed(item)
            else:
                element.value.remove(item)

    def _replace(self, element: DataElement) -> bool:
        """Put a dummy value; False where there is none for the kind of value."""
        if element.VR == "SQ":
            for item in element.value:
                for tag in sorted(item.keys()):
                    if item[tag].tag.is_private or not self._replace(item[tag]):
                        del item[tag]
        elif element.VR == "UI":
            _each(element, self.cleaner.pseudonyms.uid)
        elif element.VR in ("DA", "DT", "TM"):
            element.value = {"DA": DUMMY_DATE, "DT": DUMMY_DATE + _DUMMY_TIME, "TM": _DUMMY_TIME}[element.VR]
        else:
            try:
                replace_element(element)
            except NotImplementedError:
                return False
        return True

    def _clean_text(self, element: DataElement, *, stays: bool) -> bool:
        """Keep what is harmless of a text; where nothing is, one word stands in its place, or it goes."""
        values = [harmless(str(value), self.cleaner.traces)[: _LONGEST.get(element.VR)] for value in values_of(element)]
        if not any(values):
            element.value = REMOVED
            return stays
        element.value = values if len(values) > 1 else values[0]
        return True


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def public_words(dataset: Dataset) -> str:
    """Return the words of the public codes that a dataset holds."""
    return "\n".join(text_of(item, "CodeMeaning") for element, _ in elements_of(dataset) if element.VR == "SQ" for item in element.value if is_public(item))


def _is_public_code(element: DataElement, dataset: Dataset) -> bool:
    """Tell whether an element is part of a code whose words are those of a public scheme."""
    return element.keyword in _CODED and is_public(dataset)


def _each(element: DataElement, change: Callable[[str], str]) -> None:
    changed = [change(str(value)) for value in values_of(element)]
    if changed:
        element.value = changed if len(changed) > 1 else changed[0]


def moved(text: str, vr: str, by: timedelta) -> str:
    """Return a date or date and time (DA, DT) moved by whole days; times of day (TM) stay; what is no date goes.

    A date and time that is given only to the month or year (PS3.5 6.2) keeps that precision.
    """
    if vr == "TM" or not text:
        return text
    digits = re.match(r"[0-9]{4,8}", text.replace(".", "") if vr == "DA" else text)
    if digits is None:
        return ""
    given = digits.group()[: len(digits.group()) // 2 * 2]
    try:
        begin = datetime.strptime((given + "0101")[:8], "%Y%m%d")
        return (begin + by).strftime("%Y%m%d")[: len(given)] + text[len(given) :] if vr == "DT" else (begin + by).strftime("%Y%m%d")
    except (ValueError, OverflowError):
        return ""


def _meta(dataset: Dataset) -> FileMetaDataset:
    """Return file meta information that says nothing of who stored or sent the source (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    syntax = dataset.file_meta.TransferSyntaxUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == DeflatedExplicitVRLittleEndian else syntax  # nothing could be found in deflated bytes
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta
