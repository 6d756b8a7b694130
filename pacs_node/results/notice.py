"""The notice: an Enhanced SR that says why a study has no (full) result, by status (CID 6042) and in words."""

from __future__ import annotations

from collections.abc import Mapping

import highdicom.sr as hd
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedSRStorage

from pacs_node.dicom.header import has_pixels, text_of
from pacs_node.errors import ResultRejected
from pacs_node.records import Notice, NoticeStatus, Verdict
from pacs_node.results import codes as ours
from pacs_node.results.content import CONTAINS, Document, container, image_library, text_item, write_document
from pacs_node.results.identity import Label
from pacs_node.results.references import references_to
from pacs_node.results.request import BuildRequest
from pacs_node.results.wording import RESEARCH_USE, completeness_line

STATUS_TEXTS = {
    NoticeStatus.NOT_ATTEMPTED: "analysis not attempted",
    NoticeStatus.FAILED: "analysis failed",
    NoticeStatus.PARTIALLY_SUCCEEDED: "analysis partially succeeded",
}
VERDICTS = {
    NoticeStatus.NOT_ATTEMPTED: Verdict.NOT_ANALYSED.value.capitalize(),
    NoticeStatus.FAILED: Verdict.NOT_ANALYSED.value.capitalize(),
    NoticeStatus.PARTIALLY_SUCCEEDED: "Analysed in part",
}


def build_notice(request: BuildRequest, companions: Mapping[str, Dataset]) -> Dataset:
    """Build the notice. It points at the images that would have been, or were partly, analysed; at no companion."""
    del companions
    notice = request.notice
    if notice is None or not notice.reason.strip():
        raise ResultRejected("notice", ("there is nothing to notify: a status and a reason are needed",))
    images = tuple(header for header in request.sources.analysed or request.sources.others if has_pixels(header) and _is_picture(header))
    pointed = references_to(images)
    others = tuple(reference for reference in references_to(request.sources.analysed + request.sources.others) if reference not in pointed)
    library = (image_library(images),) if images else ()
    children = (text_item(ours.SUMMARY, notice_text(request, notice)), *library, _evaluations(notice))
    label = Label("notice", EnhancedSRStorage, "SR", 4, f"{request.run.pipeline}: {STATUS_TEXTS[notice.status]}")
    return write_document(hd.EnhancedSR, Document(children, pointed, others), request, label)


def _is_picture(header: Dataset) -> bool:
    """Tell whether an object with pixels is one that an IMAGE item may point at: masks and doses are none to every reader."""
    return text_of(header, "Modality") not in ("SEG", "RTDOSE")


def notice_text(request: BuildRequest, notice: Notice) -> str:
    """Tell status and reason in words."""
    lines = (
        f"{VERDICTS[notice.status]}: {STATUS_TEXTS[notice.status]}. {notice.reason}",
        f"{RESEARCH_USE}. Nothing is said about what the images show.",
        f"Pipeline {request.run.pipeline}; run {request.run.number}; {completeness_line(request.run)}.",
    )
    return "\n".join(lines)


def _evaluations(notice: Notice) -> Dataset:
    """Return the Qualitative Evaluations container of TID 1500 with the status and its reason."""
    status = hd.CodeContentItem(ours.ANALYSIS_STATUS, ours.STATUSES[notice.status], CONTAINS)
    return container(ours.QUALITATIVE_EVALUATIONS, [status, text_item(ours.COMMENT, notice.reason)])
