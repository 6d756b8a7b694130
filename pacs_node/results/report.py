"""The measurement report: Comprehensive 3D SR by TID 1500, one TID 1501 group for the analysed series, one TID 1410 or 1411 for each region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom.sr as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from pacs_node.records import Calibration, Finding, Frame
from pacs_node.results import codes as ours
from pacs_node.results.content import CONTAINS, Document, container, image_item, image_library, text_item, write_document
from pacs_node.results.identity import Label, tracking_uid
from pacs_node.results.modalities import manner_of
from pacs_node.results.references import Reference, frame_numbers, reference_to, references_to
from pacs_node.results.region_groups import region_groups, region_lines
from pacs_node.results.request import BuildRequest, finding_of
from pacs_node.results.wording import algorithm_line, one_line, summary, top_slices

# Companions of the same build: the name under which the report points at each
COMPANION_NAMES = {"pm": ours.HEAT_MAP, "seg": ours.REGIONS, "sc": ours.PICTURES, "denoised": ours.SYNTHETIC_IMAGES}


def build_report(request: BuildRequest, companions: Mapping[str, Dataset]) -> Dataset:
    """Build the SR of a finding.

    ``companions`` are the objects of this build that the report points at, by kind; they are sent before it.
    """
    finding = finding_of(request, "sr")
    analysed = references_to(request.sources.analysed)
    made = {kind: reference_to(dataset) for kind, dataset in companions.items() if kind in COMPANION_NAMES}
    others = tuple(reference for reference in references_to(request.sources.others) if reference not in analysed)
    algorithm = algorithm_identification(request)
    groups = [*measurement_group(request, finding, analysed, made, algorithm), *region_groups(request, companions.get("seg"), algorithm)]
    children = (
        text_item(ours.SUMMARY, summary(finding, request.run, request.sources.analysed, region_lines(request))),
        image_library(request.sources.analysed, frame_numbers(request.sources.analysed, finding.volume.frames)),
        container(codes.DCM.ImagingMeasurements, groups),
    )
    document = Document(children, (*analysed, *made.values()), others)
    label = Label("sr", Comprehensive3DSRStorage, "SR", 3, f"{algorithm_line(finding.algorithm)} anomaly report")
    return write_document(hd.Comprehensive3DSR, document, request, label)


def measurement_group(request: BuildRequest, finding: Finding, analysed: tuple[Reference, ...], made: Mapping[str, Reference], algorithm: Any) -> Any:
    """Return TID 1501 for the analysed series: identification, numbers, verdict, where it was seen, and what it was made from."""
    site, numbers = ours.finding_site(request.header), frame_numbers(request.sources.analysed, finding.volume.frames)
    tracking = hd.TrackingIdentifier(uid=tracking_uid(request), identifier=one_line(f"{request.run.pipeline} anomaly score"))
    group = hd.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        algorithm_id=algorithm,
        finding_sites=[hd.FindingSite(site)] if site is not None else None,
        measurements=[*score_measurements(finding), *slice_measurements(finding, request.sources.analysed)],
        qualitative_evaluations=evaluations(finding),
        source_images=[hd.SourceImageForMeasurementGroup(source.sop_class_uid, source.sop_uid, numbers.get(source.sop_uid)) for source in analysed],
    )
    content = group[0].ContentSequence
    if finding.calibration is not None:
        content.append(hd.DateContentItem(ours.CALIBRATION_DATE, finding.calibration.made_on, CONTAINS))
    for name, value in finding.parts.items():
        content.append(text_item(ours.SCORE_PART, f"{name} = {value:.6g}"))
    for kind, reference in made.items():
        content.append(image_item(COMPANION_NAMES[kind], reference))
    return group


def algorithm_identification(request: BuildRequest) -> Any:
    """Return TID 4019; the parameters say which bytes judged."""
    algorithm = finding_of(request, "sr").algorithm
    hashes = {"bundle": algorithm.bundle_hash, "configuration": algorithm.config_hash, "calibration": algorithm.calibration_hash}
    return hd.AlgorithmIdentification(
        name=one_line(algorithm.name),
        version=one_line(algorithm.version),
        manufacturer=one_line(algorithm.manufacturer),
        parameters=[f"{name} SHA-256 {value}" for name, value in hashes.items() if value],
        family=codes.cid7162.ArtificialIntelligence,
    )


def _measure(name: Code, value: float, unit: Code, images: list[Any] | None = None) -> Any:
    return hd.Measurement(name=name, value=float(f"{value:.6g}"), unit=unit, referenced_images=images)


def score_measurements(finding: Finding) -> list[Any]:
    """Return the numbers about the study: the score, and where it stands if that is known here."""
    measures = [_measure(ours.SCORE, finding.score, ours.NO_UNITS)]
    if finding.percentile is not None:
        measures.append(_measure(ours.PERCENTILE, finding.percentile, ours.PERCENT))
    if finding.p_value is not None:
        measures.append(_measure(ours.P_VALUE, finding.p_value, ours.NO_UNITS))
    return measures + (calibration_measurements(finding.calibration) if finding.calibration is not None else [])


def calibration_measurements(calibration: Calibration) -> list[Any]:
    """Return the numbers about the calibration that gave the verdict."""
    return [
        _measure(ours.THRESHOLD, calibration.threshold, ours.NO_UNITS),
        _measure(ours.CALIBRATION_STUDIES, calibration.studies, ours.STUDIES),
        _measure(ours.CALIBRATION_RATE, 100 * calibration.false_positive_rate, ours.PERCENT),
    ]


def slice_measurements(finding: Finding, headers: Sequence[Dataset]) -> list[Any]:
    """Return the scores of the slices that stand out, each inferred from its image or frame."""
    name, frames = manner_of(finding.volume).slice_score, finding.volume.frames
    return [_measure(name, top.score, ours.NO_UNITS, [_source_image(frames[top.index], headers)]) for top in top_slices(finding)]


def _source_image(frame: Frame, headers: Sequence[Dataset]) -> Any:
    return hd.SourceImageForMeasurement(frame.sop_class_uid, frame.sop_uid, frame_numbers(headers, [frame]).get(frame.sop_uid))


def evaluations(finding: Finding) -> list[Any]:
    """Return the coded statements: the verdict, and whose studies the calibration rests on."""
    coded = [hd.QualitativeEvaluation(ours.VERDICT, ours.VERDICTS[finding.verdict])]
    if finding.calibration is not None:
        coded.append(hd.QualitativeEvaluation(ours.CALIBRATION_POPULATION, ours.POPULATIONS[finding.calibration.population]))
    return coded
