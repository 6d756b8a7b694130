"""The secondary capture: Multi-frame True Color SC with a page of text and a page for each slice that stands out (PS3.3 A.8.5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from pacs_node.dicom.header import text_of
from pacs_node.records import Finding
from pacs_node.results import codes as ours
from pacs_node.results.canvas import Page
from pacs_node.results.drawing import Heading, slice_page, text_page
from pacs_node.results.files import even
from pacs_node.results.identity import Label, add_request_attributes, copied_element, finish, local_time
from pacs_node.results.lossiness import add_lossiness
from pacs_node.results.references import frame_numbers, image_items, referenced_series, references_to
from pacs_node.results.request import BuildRequest, finding_of
from pacs_node.results.wording import UNCALIBRATED_HERE, algorithm_line, calibration_line, completeness_line, images_line, score_line, standing_line, top_slices

MOST_SLICES = 5


def build_capture(request: BuildRequest, companions: Mapping[str, Dataset]) -> Dataset:
    """Build the secondary capture of a finding."""
    del companions
    finding = finding_of(request, "sc")
    tops = top_slices(finding, request.sources.analysed)[:MOST_SLICES]
    heading = heading_of(request)
    pages = [summary_page(request, finding), *(slice_page(finding, top, heading, request.regions) for top in tops)]
    label = Label("sc", MultiFrameTrueColorSecondaryCaptureImageStorage, "OT", 2, f"{algorithm_line(finding.algorithm)} anomaly pictures")
    dataset = Dataset()
    add_image(dataset, request)
    _add_pixels(dataset, pages)
    _add_vectors(dataset, ["summary", *(top.called.label for top in tops)])
    return finish(dataset, request, label)


def summary_page(request: BuildRequest, finding: Finding) -> Page:
    """Draw the page of text."""
    return text_page(score_line(finding), _standing(finding), summary_rows(request, finding), heading_of(request), finding)


def heading_of(request: BuildRequest) -> Heading:
    """Return what every page says: which series, and whether the study was complete."""
    number = text_of(request.header, "SeriesNumber")
    return Heading(f"series {number}" if number else "", request.run.partial)


def _standing(finding: Finding) -> str:
    standing = standing_line(finding)
    return standing[:1].upper() + standing[1:]


def summary_rows(request: BuildRequest, finding: Finding) -> list[tuple[str, str]]:
    """Return names and values of the page of text, the most important first."""
    header, run, volume = request.header, request.run, finding.volume
    date = text_of(header, "StudyDate")
    study = (f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 else date, text_of(header, "StudyDescription"))
    series = (text_of(header, "SeriesNumber"), text_of(header, "SeriesDescription"), images_line(volume))
    rows = [
        ("Study", " · ".join(part for part in study if part)),
        ("Series", " · ".join(part for part in series if part)),
    ]
    rows += [("Stands out", top.line) for top in top_slices(finding, request.sources.analysed)[:MOST_SLICES]]
    rows += [
        ("Algorithm", f"{algorithm_line(finding.algorithm)} · {finding.algorithm.manufacturer}"),
        ("Calibration", calibration_line(finding.calibration) if finding.calibration else UNCALIBRATED_HERE),
        ("Completeness", completeness_line(run)),
        ("Run", f"{run.number} · {local_time(request):%Y-%m-%d %H:%M} · pipeline {run.pipeline}"),
    ]
    return rows + [("Remark", remark) for remark in dict.fromkeys((*volume.remarks, *finding.remarks))]


# --- modules -----------------------------------------------------------------------------------------------------------


def add_image(dataset: Dataset, request: BuildRequest) -> None:
    """General Image, General Reference, SC Equipment and SC Multi-frame Image (PS3.3 C.7.6.1, C.12.4, C.8.6.1, C.8.6.3).

    No spacing is written, and no place in the patient: nobody shall measure in these pictures.
    """
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.ConversionType = "WSD"
    dataset.PatientOrientation = None
    dataset.BurnedInAnnotation = "YES"
    dataset.DerivationDescription = "Pictures of slices with anomaly heat by an AI algorithm, research use"
    sources = references_to(request.sources.analysed)
    dataset.SourceImageSequence = []
    for item in image_items(sources, frame_numbers(request.sources.analysed, finding_of(request, "sc").volume.frames)):
        item.PurposeOfReferenceCodeSequence = [ours.item_of(ours.SOURCE_FOR_PROCESSING)]
        dataset.SourceImageSequence.append(item)
    dataset.ReferencedSeriesSequence = referenced_series(sources)
    add_request_attributes(dataset, request.header)
    for keyword in ("BodyPartExamined", "Laterality"):
        element = copied_element(request.header, keyword)
        if element is not None:
            dataset.add(element)
    _mend_laterality(dataset, request.header)
    add_lossiness(dataset, request.sources.analysed)


def _mend_laterality(dataset: Dataset, header: Dataset) -> None:
    """Laterality (Type 2C) is absent for a body part that exists once, and there, if need be empty, for any other or an unknown one.

    Enhanced objects give body part and side by frame, as codes.
    """
    term = text_of(dataset, "BodyPartExamined") or ours.body_part_term(header)
    if term:
        dataset.BodyPartExamined = term
    if term in ours.UNPAIRED:
        dataset.pop("Laterality", None)
    elif "Laterality" not in dataset:
        side = ours.frame_laterality(header)
        dataset.Laterality = side if side in ("R", "L") else None


def _add_pixels(dataset: Dataset, pages: list[Page]) -> None:
    """Image Pixel and Multi-frame (PS3.3 C.7.6.3, C.7.6.6): RGB, colour by pixel."""
    dataset.Rows, dataset.Columns = pages[0].shape[:2]
    dataset.NumberOfFrames = len(pages)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    content = np.stack(pages).tobytes()
    dataset.PixelData = even(content)


def _add_vectors(dataset: Dataset, labels: list[str]) -> None:
    """SC Multi-frame Vector (PS3.3 C.8.6.4): page numbers, and a name for each page."""
    if len(labels) > 1:
        dataset.FrameIncrementPointer = [0x00182001, 0x00182002]  # Page Number Vector, Frame Label Vector
        dataset.PageNumberVector = list(range(1, len(labels) + 1))
        dataset.FrameLabelVector = labels
