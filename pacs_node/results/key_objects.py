"""The key object selection: the slices that stand out, so that a viewer can lead to them (PS3.3 A.35.4, TID 2010)."""

from __future__ import annotations

from collections.abc import Mapping

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from pacs_node.records import Finding
from pacs_node.results import codes as ours
from pacs_node.results.content import child_image, header_for, observer
from pacs_node.results.identity import Label, finish
from pacs_node.results.references import Reference, evidence, frame_count, frame_number, reference_to, referenced_requests
from pacs_node.results.request import BuildRequest, finding_of
from pacs_node.results.wording import RESEARCH_USE, algorithm_line, one_line, score_line, top_slices


def build_key_objects(request: BuildRequest, companions: Mapping[str, Dataset]) -> Dataset:
    """Build the selection of a finding that has slices that stand out. It points at source images only, never at another result."""
    del companions
    finding = finding_of(request, "ko")
    label = Label("ko", KeyObjectSelectionDocumentStorage, "KO", 8, f"{algorithm_line(finding.algorithm)} slices that stand out")
    by_uid = {reference.sop_uid: reference for reference in map(reference_to, request.sources.analysed)}
    chosen = tuple(dict.fromkeys(by_uid[finding.volume.frames[index].sop_uid] for index in finding.top_slices))
    dataset = _skeleton(request, chosen[0], description(request, finding))
    counts = {reference_to(header).sop_uid: frame_count(header) for header in request.sources.analysed}
    for reference in chosen:
        frames = [finding.volume.frames[index] for index in finding.top_slices if finding.volume.frames[index].sop_uid == reference.sop_uid]
        numbers = sorted(number for frame in frames if (number := frame_number(frame, counts)) is not None)
        dataset.ContentSequence.append(child_image(reference, numbers or None))
    dataset.CurrentRequestedProcedureEvidenceSequence = evidence(chosen)
    orders = referenced_requests(request.header)
    if orders:  # Type 1C: never empty
        dataset.ReferencedRequestSequence = orders
    return finish(dataset, request, label)


def description(request: BuildRequest, finding: Finding) -> str:
    """Say why these slices were chosen."""
    lines = [f"{score_line(finding)}. {RESEARCH_USE}.", *(f"Stands out: {top.line}." for top in top_slices(finding, request.sources.analysed))]
    return "\n".join(lines)


def _skeleton(request: BuildRequest, reference: Reference, text: str) -> Dataset:
    """Return highdicom's document about one stand-in, without the item that points at it."""
    header = header_for(reference)
    content = KeyObjectSelection(ours.OF_INTEREST, [header], observer_device_context=observer(request), description=text)
    made = KeyObjectSelectionDocument(
        evidence=[header],
        content=content,
        series_instance_uid="1.2",  # UIDs, equipment and patient are given by `finish`
        series_number=1,
        sop_instance_uid="1.2",
        instance_number=1,
        manufacturer=one_line(request.equipment.manufacturer),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    dataset = Dataset(made)
    dataset.ContentSequence = [item for item in dataset.ContentSequence if "ReferencedSOPSequence" not in item]
    return dataset
