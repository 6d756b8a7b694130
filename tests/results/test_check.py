"""The gate: what must not leave."""

import copy
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from pacs_node.results import build, check, check_all
from tests.results.studies import Shape, request


@pytest.fixture(scope="module")
def made():
    return request(Shape(slices=3), kinds=("pm", "sc", "sr"))


@pytest.fixture(scope="module")
def results(made):
    return build(made)


def test_what_we_build_passes(made, results):
    assert check_all(results, made.sources) == ()


def drop(keyword):
    return lambda data: delattr(data, keyword)


def put(keyword, value):
    return lambda data: setattr(data, keyword, value)


def lose_algorithm(data):
    data.ContributingEquipmentSequence = data.ContributingEquipmentSequence[1:]


def lose_node(data):
    data.ContributingEquipmentSequence = data.ContributingEquipmentSequence[:1]


def other_purpose(data):
    data.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue = "109101"


def shift_frame(data):
    x, y, z = data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient
    data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient = [x, y, float(z) + 0.02]


def point_elsewhere(data):
    data.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def lose_frame(data):
    data.PerFrameFunctionalGroupsSequence = data.PerFrameFunctionalGroupsSequence[:-1]


def lose_evidence(data):
    data.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence.pop()


def double_evidence(data):
    data.PertinentOtherEvidenceSequence = data.CurrentRequestedProcedureEvidenceSequence


def other_class(data):
    data.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"


def other_version(data):
    def rename(item):
        if item.ConceptNameCodeSequence[0].CodeValue == "111003":
            item.TextValue = "9.9"
        for child in item.get("ContentSequence", ()):
            rename(child)

    for child in data.ContentSequence:
        rename(child)


FAULTS = [
    ("sr", drop("ContentDate"), "ContentDate is missing or empty"),
    ("sr", put("Manufacturer", ""), "Manufacturer is missing or empty"),
    ("sr", drop("PatientSex"), "PatientSex is missing (it may be empty)"),
    ("sr", put("VerificationFlag", "VERIFIED"), "VerificationFlag is not UNVERIFIED"),
    ("sr", put("PatientName", "Other^Patient"), "the patient is not the source's"),
    ("sr", put("AccessionNumber", "X"), "AccessionNumber is not the source's"),
    ("sr", put("StudyInstanceUID", "1.2.3"), "StudyInstanceUID is not the source's"),
    ("sr", lose_evidence, "which is not among the evidence"),
    ("sr", double_evidence, "listed twice as evidence"),
    ("sr", other_class, "another SOP class than it has"),
    ("sr", other_version, "names the algorithm differently: 9.9 instead of 1.2.0"),
    ("sr", lose_algorithm, "has no item for the algorithm"),
    ("sr", lose_node, "has no item for this node"),
    ("sr", other_purpose, "another purpose than (109102"),
    ("sr", put("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "is none that results have"),
    ("pm", put("ContentQualification", "PRODUCT"), "ContentQualification is not RESEARCH"),
    ("pm", drop("FrameOfReferenceUID"), "FrameOfReferenceUID is missing"),
    ("pm", shift_frame, "frame 2 does not lie in the plane of its source slice"),
    ("pm", point_elsewhere, "refers to 1.2.3, which is neither received nor of this build"),
    ("pm", lose_frame, "not one item of PerFrameFunctionalGroupsSequence for each frame"),
    ("pm", put("Rows", 5), "FloatPixelData holds"),
    ("pm", put("SeriesInstanceUID", "1.02.3"), "SeriesInstanceUID 1.02.3 is no valid UID"),
    ("sc", put("BurnedInAnnotation", "NO"), "BurnedInAnnotation is not YES"),
    ("sc", put("NumberOfFrames", 9), "PixelData holds"),
]


@pytest.mark.parametrize(("kind", "spoil", "fault"), FAULTS, ids=[f"{kind}: {fault}" for kind, _, fault in FAULTS])
def test_a_fault_is_found_and_told(made, results, kind, spoil, fault):
    data = {one.kind: one.dataset for one in results}
    spoilt = copy.deepcopy(data[kind])
    spoil(spoilt)
    faults = check(spoilt, made.sources, [other for name, other in data.items() if name != kind])
    assert any(fault in one for one in faults), faults


@pytest.mark.parametrize(("keyword", "words"), [("SOPInstanceUID", "that of a received instance"), ("SeriesInstanceUID", "that of a received series")])
def test_a_received_uid_is_never_used_again(made, results, keyword, words):
    spoilt = copy.deepcopy(results[-1].dataset)
    setattr(spoilt, keyword, made.header[keyword].value)
    assert any(words in fault for fault in check(spoilt, made.sources, [one.dataset for one in results[:-1]]))


def test_a_reference_to_an_object_that_is_not_sent_along_is_found(made, results):
    assert any("neither received nor of this build" in fault for fault in check(results[-1].dataset, made.sources))


def test_sources_of_two_studies_are_found(made, results):
    other = Dataset(made.header)
    other.StudyInstanceUID, other.SOPInstanceUID = "1.2.9", "1.2.9.1"
    mixed = replace(made.sources, others=(other,))
    assert any("more than one study" in fault for fault in check(results[0].dataset, mixed))


def test_objects_of_one_build_must_agree(made, results):
    pm, sc, sr = results
    double = replace(sc, dataset=copy.deepcopy(sc.dataset))
    double.dataset.SOPInstanceUID = pm.dataset.SOPInstanceUID
    assert "two objects of the build share one SOPInstanceUID" in check_all((pm, double), made.sources)
    other = replace(sc, dataset=copy.deepcopy(sc.dataset))
    other.dataset.ContributingEquipmentSequence[0].SoftwareVersions = "2"
    assert "the objects of the build name different algorithms" in check_all((pm, other), made.sources)
    assert "the objects are not in sending order" in check_all((sr, pm, sc), made.sources)
