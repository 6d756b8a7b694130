"""The rejection note for what a later run supersedes: a Key Object Selection titled Rejected for Quality Reasons (IHE RAD TF-3 4.66, TID 2010).

It is made from the stored report of the later run: patient, study, equipment and times are that report's, so that making it again gives the same bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import highdicom.sr as hd
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    RawDataStorage,
)

from pacs_node.dicom.header import text_of
from pacs_node.dicom.uids import derive_uid
from pacs_node.results import codes as ours
from pacs_node.results.content import CONTAINS, child_image
from pacs_node.results.identity import series_number
from pacs_node.results.references import Reference, evidence

KIND = "rejection"
_NUMBER = 12  # added to the run's Series Number
_COMPOSITE = frozenset((Comprehensive3DSRStorage, EnhancedSRStorage, KeyObjectSelectionDocumentStorage, RawDataStorage))  # without pixels
_OF_REPORTS = (
    "CompletionFlag", "CompletionFlagDescription", "VerificationFlag", "VerifyingObserverSequence", "PreliminaryFlag", "PredecessorDocumentsSequence",
    "PerformedProcedureCodeSequence", "PertinentOtherEvidenceSequence", "CodingSchemeIdentificationSequence",
)  # fmt: skip


def rejection_note(report: Dataset, run: int, superseded: Sequence[Reference], uid_root: str | None) -> Dataset:
    """Return the note by which ``report``, of the ``run``-th run, has the instances of earlier runs rejected."""
    dataset = copy.deepcopy(report)
    for keyword in _OF_REPORTS:
        dataset.pop(keyword, None)
    facts = (text_of(report, "SOPInstanceUID"), *sorted(reference.sop_uid for reference in superseded))
    dataset.SOPClassUID = UID(KeyObjectSelectionDocumentStorage)
    dataset.SOPInstanceUID = UID(derive_uid("rejection note", *facts, root=uid_root))
    dataset.SeriesInstanceUID = UID(derive_uid("rejection note series", *facts, root=uid_root))
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "KO", series_number(run, _NUMBER), 1
    dataset.SeriesDescription = f"superseded by run {run}: rejected earlier results"
    dataset.ConceptNameCodeSequence = [ours.item_of(ours.REJECTED_FOR_QUALITY)]
    dataset.ContentTemplateSequence = [_template()]
    observers = [item for item in dataset.ContentSequence if text_of(item, "RelationshipType") == "HAS OBS CONTEXT"]
    said = f"Results of earlier runs of the same analysis, superseded by those of run {run}. Research use only."
    dataset.ContentSequence = [*observers, hd.TextContentItem(ours.KEY_OBJECT_DESCRIPTION, said, CONTAINS), *map(_item, superseded)]
    dataset.CurrentRequestedProcedureEvidenceSequence = evidence(superseded)
    return dataset


def _template() -> Dataset:
    item = Dataset()
    item.MappingResource, item.TemplateIdentifier = "DCMR", "2010"
    return item


def _item(reference: Reference) -> Dataset:
    if reference.sop_class_uid not in _COMPOSITE:
        return child_image(reference)
    item = Dataset()
    item.RelationshipType, item.ValueType, item.ReferencedSOPSequence = "CONTAINS", "COMPOSITE", [reference.item()]
    return item
