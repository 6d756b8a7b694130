"""The measurement report."""

from dataclasses import replace

import highdicom.sr as hd
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from pacs_node.records import PriorReport, Verdict
from pacs_node.results import build
from pacs_node.results.codes import P_VALUE, PERCENTILE, SCHEME, SCORE, THRESHOLD, VERDICT, finding_site, procedure_reported
from tests.results.studies import ALGORITHM, RUN, Shape, request


def report_of(made):
    return {one.kind: one.dataset for one in build(made)}["sr"]


@pytest.fixture(scope="module")
def made():
    return request(Shape(slices=4), kinds=("pm", "sr"))


@pytest.fixture(scope="module")
def report(made):
    return report_of(made)


def items(dataset, code):
    """Return the content items whose concept name has a code, at any depth."""
    found = []
    for item in dataset.get("ContentSequence", ()):
        if item.ConceptNameCodeSequence and item.ConceptNameCodeSequence[0].CodeValue == code:
            found.append(item)
        found += items(item, code)
    return found


def value_of(dataset, code):
    (item,) = items(dataset, code)
    return float(item.MeasuredValueSequence[0].NumericValue), item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue


def test_it_is_a_comprehensive_3d_sr_with_the_title_and_template_of_a_measurement_report(report):
    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")


def test_highdicom_reads_it_back_as_tid_1500_with_one_group(report):
    read = hd.Comprehensive3DSR.from_dataset(report)
    (group,) = read.content.get_image_measurement_groups()
    assert group.tracking_identifier == "ct-head anomaly score"
    assert {measurement.name.value for measurement in group.get_measurements()} >= {"SCORE", "THRESHOLD", "121415"}
    assert [site.value.meaning for site in group.finding_sites] == ["Head"]
    assert len(group.source_images) == 4


def test_the_numbers_are_those_of_the_finding(report):
    assert value_of(report, SCORE.value) == (3.217, "1")
    assert value_of(report, PERCENTILE.value) == (99.2, "%")
    assert value_of(report, P_VALUE.value) == (0.0083, "1")
    assert value_of(report, THRESHOLD.value) == (2.5, "1")
    assert value_of(report, "CAL-STUDIES") == (120.0, "{studies}")
    assert str(items(report, "CAL-DATE")[0].Date) == "20260115"
    assert items(report, "CAL-POPULATION")[0].ConceptCodeSequence[0].CodeValue == "SITE"


@pytest.mark.parametrize(
    ("verdict", "code"),
    [(Verdict.ABOVE, "ABOVE"), (Verdict.NOT_ABOVE, "NOT-ABOVE"), (Verdict.UNCALIBRATED, "UNCALIBRATED"), (Verdict.NOT_ANALYSED, "NOT-ANALYSED")],
)
def test_the_verdict_is_a_code_of_our_scheme(made, verdict, code):
    report = report_of(replace(made, kinds=("sr",), finding=replace(made.finding, verdict=verdict)))
    value = items(report, VERDICT.value)[0].ConceptCodeSequence[0]
    assert (value.CodeValue, value.CodingSchemeDesignator, value.CodeMeaning) == (code, SCHEME, verdict.value)


def test_the_private_scheme_is_declared(report):
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == SCHEME and scheme.CodingSchemeName and scheme.CodingSchemeResponsibleOrganization


def test_without_calibration_there_are_no_calibrated_numbers():
    report = report_of(request(Shape(slices=2), calibrated=False, kinds=("sr",)))
    assert value_of(report, SCORE.value) == (3.217, "1")
    for code in (PERCENTILE.value, P_VALUE.value, THRESHOLD.value, "CAL-STUDIES", "CAL-DATE", "CAL-POPULATION"):
        assert items(report, code) == []


def test_algorithm_and_device_observer_are_the_contributing_equipment(report):
    equipment = report.ContributingEquipmentSequence[0]
    assert items(report, "111001")[0].TextValue == items(report, "121015")[0].TextValue == equipment.ManufacturerModelName
    assert items(report, "111003")[0].TextValue == equipment.SoftwareVersions
    assert items(report, "122405")[0].TextValue == items(report, "121014")[0].TextValue == equipment.Manufacturer
    assert equipment.DeviceUID == items(report, "121012")[0].UID
    assert items(report, "121016")[0].TextValue == equipment.DeviceSerialNumber
    assert items(report, "111000")[0].ConceptCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert f"bundle SHA-256 {ALGORITHM.bundle_hash}" in [item.TextValue for item in items(report, "111002")]


def test_each_slice_that_stands_out_has_its_score_inferred_from_its_image(made, report):
    scores = items(report, "SLICE-SCORE")
    expected = [made.finding.volume.frames[index].sop_uid for index in made.finding.top_slices]
    assert [item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in scores] == expected
    assert all(item.ContentSequence[0].RelationshipType == "INFERRED FROM" for item in scores)


def test_evidence_lists_what_is_referred_to_and_apart_what_else_was_there(made, report):
    current = [
        (study.StudyInstanceUID, series.SeriesInstanceUID, instance.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    pm = {one.kind: one.dataset for one in build(made)}["pm"]
    assert {uid for _, _, uid in current} == {one.SOPInstanceUID for one in made.sources.analysed} | {pm.SOPInstanceUID}
    assert len(current) == 5
    (other,) = report.PertinentOtherEvidenceSequence[0].ReferencedSeriesSequence
    assert other.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == made.sources.others[0].SOPInstanceUID


def test_it_never_points_at_an_object_that_the_destination_does_not_get(made):
    alone = report_of(replace(made, kinds=("sr",)))
    assert items(alone, "HEAT-MAP") == [] and items(alone, "PICTURES") == []


def test_a_partial_study_gives_a_partial_report(made, report):
    assert report.CompletionFlag == "COMPLETE"
    partial = report_of(replace(made, kinds=("sr",), run=replace(RUN, partial=True, complete_reason="deadline")))
    assert partial.CompletionFlag == "PARTIAL"


def test_a_rerun_names_its_predecessor(made, report):
    assert "PredecessorDocumentsSequence" not in report
    prior = PriorReport("1.2.3.1", Comprehensive3DSRStorage, "1.2.3.2", str(made.header.StudyInstanceUID))
    again = report_of(replace(made, kinds=("sr",), run=replace(RUN, number=2, predecessor=prior)))
    (study,) = again.PredecessorDocumentsSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"


def test_the_tracking_uid_stays_the_same_over_runs(made, report):
    again = report_of(replace(made, kinds=("sr",), run=replace(RUN, number=2, variant="sr")))
    assert items(again, "112040")[0].UID == items(report, "112040")[0].UID


def test_the_order_is_referred_to_where_there_is_one(report):
    (order,) = report.ReferencedRequestSequence
    assert order.AccessionNumber == "A4711"
    without = report_of(request(Shape(slices=2, attributes={"AccessionNumber": ""}), kinds=("sr",)))
    assert "ReferencedRequestSequence" not in without


def test_an_order_in_the_source_is_taken_over():
    order = Dataset()
    order.RequestedProcedureID, order.AccessionNumber, order.RequestedProcedureDescription = "RP-1", "A4711", "CT head"
    result = report_of(request(Shape(slices=2, attributes={"RequestAttributesSequence": [order]}), kinds=("sr",)))
    assert result.ReferencedRequestSequence[0].RequestedProcedureID == "RP-1"


def coded(value, scheme, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"Modality": "CT"}, Code("25045-6", "LN", "CT unspecified body region")),
        ({"Modality": "MR"}, Code("25056-3", "LN", "MRI unspecified body region")),
        ({"Modality": "OCT"}, Code("363679005", "SCT", "Imaging procedure")),
        ({"Modality": "CT", "ProcedureCodeSequence": [coded("CTH", "99HOSP", "CT head")]}, Code("CTH", "99HOSP", "CT head")),
        ({"Modality": "CT", "ProcedureCodeSequence": [coded("CTH", "", "CT head")]}, Code("25045-6", "LN", "CT unspecified body region")),
    ],
)
def test_the_procedure_reported_is_the_imaging_procedure(attributes, expected):
    source = Dataset()
    for keyword, value in attributes.items():
        setattr(source, keyword, value)
    assert procedure_reported(source) == expected


@pytest.mark.parametrize(("part", "meaning"), [("HEAD", "Head"), ("brain ", "Brain"), ("CHEST_ABD", None), ("ABDOMEN", "Abdomen"), ("", None)])
def test_the_finding_site_is_said_only_where_the_header_names_a_known_region(part, meaning):
    source = Dataset()
    source.BodyPartExamined = part
    site = finding_site(source)
    assert (site.meaning if site else None) == meaning


def test_an_unknown_region_leaves_the_finding_site_out():
    assert items(report_of(request(Shape(slices=2, attributes={"BodyPartExamined": None}), kinds=("sr",))), "363698007") == []
