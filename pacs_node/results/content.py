"""Parts of a structured report that the measurement report and the notice share (PS3.16 TID 1500).

highdicom's content items and templates are put together here, once. Order within a document::

    root ─┬─ language, device observer, procedure reported
          ├─ summary          the finding as text: what a viewer shows first
          ├─ image library    what was looked at
          └─ measurements, or qualitative evaluations
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom.sr as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pacs_node.dicom.header import text_of
from pacs_node.dicom.uids import node_device_uid
from pacs_node.records import PriorReport
from pacs_node.results import codes as ours
from pacs_node.results.identity import MODEL_NAME, Label, finish, serial_of
from pacs_node.results.modules import TYPE_2
from pacs_node.results.references import Reference, evidence, reference_to, referenced_requests
from pacs_node.results.request import BuildRequest
from pacs_node.results.wording import one_line

CONTAINS = hd.RelationshipTypeValues.CONTAINS
_CONTEXT = hd.RelationshipTypeValues.HAS_ACQ_CONTEXT


@dataclass(frozen=True, slots=True)
class Document:
    """The contents of a report: the children of the root that come after the document's context."""

    children: tuple[Dataset, ...]
    evidence: tuple[Reference, ...]  # every instance that the children point at
    others: tuple[Reference, ...]  # of the same or another study, looked at but not pointed at


# --- content items -----------------------------------------------------------------------------------------------------


def text_item(name: Code, value: str) -> Dataset:
    """Return a TEXT item that its parent contains."""
    item: Dataset = hd.TextContentItem(name=name, value=value, relationship_type=CONTAINS)
    return item


def image_item(name: Code, reference: Reference, frames: Sequence[int] | None = None) -> Dataset:
    """Return an IMAGE item that its parent contains; ``frames`` are 1-based, None: the whole object."""
    item: Dataset = hd.ImageContentItem(name, reference.sop_class_uid, reference.sop_uid, frames, relationship_type=CONTAINS)
    return item


def child_image(reference: Reference, frames: Sequence[int] | None = None) -> Dataset:
    """Return an IMAGE item of a key object selection (TID 2010): it has no name of its own."""
    item = image_item(codes.SCT.Source, reference, frames)
    del item.ConceptNameCodeSequence
    return item


def container(name: Code, children: Iterable[Dataset]) -> Dataset:
    """Return a CONTAINER item that its parent contains."""
    item: Dataset = hd.ContainerContentItem(name=name, relationship_type=CONTAINS)
    item.ContentSequence = list(children)
    return item


def image_library(headers: Sequence[Dataset], numbers: Mapping[str, Sequence[int]] | None = None) -> Dataset:
    """Return TID 1600: the images by series, with what all images of a series share (TID 1602) said once for the series.

    ``numbers``: which frames of multi-frame objects are meant, see `frame_numbers`.
    """
    groups: dict[str, list[Dataset]] = {}
    for header in headers:
        groups.setdefault(text_of(header, "SeriesInstanceUID"), []).append(header)
    return container(codes.DCM.ImageLibrary, [_library_group(group, numbers or {}) for group in groups.values()])


def _library_group(headers: Sequence[Dataset], numbers: Mapping[str, Sequence[int]]) -> Dataset:
    first, items = headers[0], []
    modality = ours.modality(first)
    if modality is not None:
        items.append(hd.CodeContentItem(codes.DCM.Modality, modality, _CONTEXT))
    if frame_of_reference := text_of(first, "FrameOfReferenceUID"):
        items.append(hd.UIDRefContentItem(codes.DCM.FrameOfReferenceUID, frame_of_reference, _CONTEXT))
    references = [reference_to(header) for header in headers]
    items += [image_item(codes.SCT.Source, reference, numbers.get(reference.sop_uid)) for reference in references]
    return container(codes.DCM.ImageLibraryGroup, items)


def observer(request: BuildRequest) -> Any:
    """Return TID 1002 with the device that observed (TID 1004): the algorithm, or the node where no algorithm ran."""
    equipment, algorithm, node = request.equipment, request.algorithm, request.run.node_name
    if algorithm is not None:
        uid, name, maker, serial = algorithm.device_uid, algorithm.name, algorithm.manufacturer, serial_of(algorithm)
    else:
        uid, name, maker, serial = node_device_uid(node), MODEL_NAME, equipment.manufacturer, equipment.serial
    attributes = hd.DeviceObserverIdentifyingAttributes(
        uid=uid, name=one_line(name), manufacturer_name=one_line(maker), model_name=one_line(name), serial_number=one_line(serial)
    )
    return hd.ObserverContext(codes.cid270.Device, attributes)


# --- the document ------------------------------------------------------------------------------------------------------


def root(request: BuildRequest) -> Any:
    """Return the root container of TID 1500 with title, language, observer and procedure."""
    item = hd.ContainerContentItem(name=codes.cid7021.ImagingMeasurementReport, template_id="1500")
    content = hd.ContentSequence()
    content.extend(hd.LanguageOfContentItemAndDescendants(hd.CodedConcept("en-US", "RFC5646", "English (United States)")))
    content.extend(hd.ObservationContext(observer_device_context=observer(request)))
    procedure = ours.procedure_reported(request.header)
    content.append(hd.CodeContentItem(codes.DCM.ProcedureReported, procedure, hd.RelationshipTypeValues.HAS_CONCEPT_MOD))
    item.ContentSequence = content
    return item


def write_document(constructor: Any, document: Document, request: BuildRequest, label: Label) -> Dataset:
    """Wrap the contents into an SR object of the class that ``constructor`` (highdicom's) makes.

    The constructor gets the context of the document only, because it copies and parses all that it gets (a second for a hundred
    images); the children are added to what it made.
    """
    made = constructor(
        evidence=[header_for((*document.evidence, *document.others)[0])],
        content=root(request),
        series_instance_uid="1.2",  # UIDs, equipment and patient are given by `finish`
        series_number=1,
        sop_instance_uid="1.2",
        instance_number=1,
        manufacturer=one_line(request.equipment.manufacturer),
        is_complete=not request.run.partial,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    dataset = Dataset(made)  # without highdicom's parsed copy of the content
    dataset.ContentSequence.extend(document.children)
    dataset.CodingSchemeIdentificationSequence = [ours.coding_scheme()]
    predecessors = [_predecessor(request.run.predecessor)] if request.run.predecessor is not None else []
    sequences = {
        "CurrentRequestedProcedureEvidenceSequence": evidence(document.evidence),
        "PertinentOtherEvidenceSequence": evidence(document.others),
        "ReferencedRequestSequence": referenced_requests(request.header),
        "PredecessorDocumentsSequence": evidence(predecessors),
    }
    for keyword, items in sequences.items():  # Type 1C: never empty
        dataset.pop(keyword, None)
        if items:
            setattr(dataset, keyword, items)
    return finish(dataset, request, label)


def _predecessor(prior: PriorReport) -> Reference:
    return Reference(prior.study_uid, prior.series_uid, prior.sop_class_uid, prior.sop_uid)


def header_for(reference: Reference) -> Dataset:
    """Return a header with the UIDs of an instance and an empty patient: what is odd in a source never reaches a constructor."""
    header = Dataset()
    header.StudyInstanceUID, header.SeriesInstanceUID = reference.study_uid, reference.series_uid
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, reference.sop_uid  # highdicom knows no retired classes
    for keyword in TYPE_2:
        setattr(header, keyword, "")
    return header
