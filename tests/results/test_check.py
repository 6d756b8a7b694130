"""The gate: what must not leave."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pacs_node.errors import ResultRejected
from pacs_node.records import Place, Population
from pacs_node.results import build, check, check_all
from pacs_node.results.demands import DEMANDS
from pacs_node.results.modules import TYPE_2
from tests.results.studies import Shape, request


@pytest.fixture(scope="module")
def made():
    return request(Shape(slices=4), kinds=("pm", "seg", "sc", "denoised", "sr", "ko"))


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


def shift_all_frames(data, by):
    for frame in data.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0]
        place.ImagePositionPatient = [float(part) + step for part, step in zip(place.ImagePositionPatient, by, strict=True)]


def shift_right(data):
    shift_all_frames(data, (150, 0, 0))


def shift_up(data):
    shift_all_frames(data, (0, -150, 0))


def blank(data):
    data.PixelData = bytes(len(data.PixelData))


def blank_last_frame(data):
    bits = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")
    size = data.Rows * data.Columns
    bits[(data.NumberOfFrames - 1) * size :] = 0
    data.PixelData = np.packbits(bits, bitorder="little").tobytes()


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


def tilt_map(data):
    data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 0.98, -0.2]


def lose_derivation(data):
    del data.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence


def renumber_segment(data):
    data.SegmentSequence[0].SegmentNumber = 2


def other_segment_algorithm(data):
    data.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion = "9.9"


def no_family(data):
    del data.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmFamilyCodeSequence


def group(data, number):
    found = [item for item in data.ContentSequence[-1].ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "125007"]
    return found[number]


def without(code, number=None):
    """Return what takes the items of a concept out of the root, or out of a measurement group."""

    def spoil(data):
        place = data if number is None else group(data, number)
        place.ContentSequence = [item for item in place.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue != code]

    return spoil


def wrong_segment(data):
    for item in group(data, 1).ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "121191":
            item.ReferencedSOPSequence[0].ReferencedSegmentNumber = 7


def no_measurements(data):
    place = group(data, 1)
    place.ContentSequence = [item for item in place.ContentSequence if item.ValueType != "NUM"]


def no_groups(data):
    data.ContentSequence[-1].ContentSequence = []


def other_purpose_and_no_version(data):
    data.ContributingEquipmentSequence[0].SoftwareVersions = ""


def other_meta(data):
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"


FAULTS = [
    ("sr", put("PatientBirthDate", "19600505"), "the patient is not the source's"),
    ("sr", put("PatientSex", "M"), "PatientSex is not the source's"),
    ("seg", put("OtherPatientIDs", "4711"), "OtherPatientIDs is not the source's"),
    ("ko", put("StudyDescription", "another"), "StudyDescription is not the source's"),
    ("ko", put("PatientID", "P-2"), "the patient is not the source's"),
    ("ko", drop("CurrentRequestedProcedureEvidenceSequence"), "CurrentRequestedProcedureEvidenceSequence is missing"),
    ("ko", other_meta, "the file meta information names another object"),
    ("sr", other_purpose_and_no_version, "lacks SoftwareVersions"),
    ("sr", drop("PerformedProcedureCodeSequence"), "PerformedProcedureCodeSequence is missing (it may be empty)"),
    ("sr", without("121049"), "lacks the language"),
    ("sr", without("121012"), "lacks the device observer UID"),
    ("sr", without("121016"), "lacks the device observer serial number"),
    ("sr", without("121058"), "lacks the procedure reported"),
    ("sr", without("111028"), "lacks the image library"),
    ("sr", no_groups, "has no measurement group"),
    ("sr", without("112039", 0), "measurement group 1 lacks the tracking identifier"),
    ("sr", without("112040", 1), "measurement group 2 lacks the tracking unique identifier"),
    ("sr", without("111001", 1), "measurement group 2 lacks the algorithm name"),
    ("sr", without("111003", 0), "measurement group 1 lacks the algorithm version"),
    ("sr", without("111000", 0), "measurement group 1 lacks the algorithm family"),
    ("sr", without("121191", 1), "measurement group 2 is about a region and does not say where it lies"),
    ("sr", no_measurements, "measurement group 2 holds no measurement"),
    ("sr", wrong_segment, "there is no segment 7 in"),
    ("pm", tilt_map, "frame 1 is not parallel to its source slice"),
    ("pm", lose_derivation, "frame 1 does not say which image it was made from"),
    ("seg", lose_derivation, "frame 1 does not say which image it was made from"),
    ("seg", renumber_segment, "the segments are not numbered from 1"),
    ("seg", renumber_segment, "the segments are not those that the frames show"),
    ("seg", other_segment_algorithm, "segment 1 names the algorithm differently"),
    ("seg", no_family, "segment 1 names no algorithm family"),
    ("seg", put("SegmentationType", "FRACTIONAL"), "SegmentationType is not BINARY"),
    ("seg", put("NumberOfFrames", 9), "PixelData holds"),
    ("denoised", put("BurnedInAnnotation", "NO"), "BurnedInAnnotation is not YES"),
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
    ("pm", shift_right, "frame 1 lies beside its source slice"),
    ("pm", shift_up, "frame 4 lies beside its source slice"),
    ("seg", shift_right, "frame 1 lies beside its source slice"),
    ("seg", blank, "frame 1 marks no pixel"),
    ("seg", blank_last_frame, "marks no pixel"),
]


@pytest.mark.parametrize(("kind", "spoil", "fault"), FAULTS, ids=[f"{kind}: {fault}" for kind, _, fault in FAULTS])
def test_a_fault_is_found_and_told(made, results, kind, spoil, fault):
    data = {one.kind: one.dataset for one in results}
    spoilt = copy.deepcopy(data[kind])
    spoil(spoilt)
    faults = check(spoilt, made.sources, [other for name, other in data.items() if name != kind])
    assert any(fault in one for one in faults), faults


# --- where frames lie --------------------------------------------------------------------------------------------------


def in_frames(change, first=0):
    """Return what changes the position, from frame ``first`` on."""

    def spoil(data):
        for frame in data.PerFrameFunctionalGroupsSequence[first:]:
            place = frame.PlanePositionSequence[0]
            place.ImagePositionPatient = [float(part) + step for part, step in zip(place.ImagePositionPatient, change, strict=True)]

    return spoil


def measured(spacing):
    return lambda data: setattr(data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "PixelSpacing", list(spacing))


def directed(*orientation):
    return lambda data: setattr(data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0], "ImageOrientationPatient", list(orientation))


def fill(data):
    """Heat on all pixels of a map, or all pixels of all segments."""
    keyword = "FloatPixelData" if "FloatPixelData" in data else "PixelData"
    value = np.ones(1, "<f4").tobytes() if keyword == "FloatPixelData" else b"\xff"
    setattr(data, keyword, value * (len(data[keyword].value) // len(value)))


ELSEWHERE, TURNED, OUTSIDE = "lies elsewhere on its source slice", "is turned against its source slice", "shows something outside its source slice"
PLACES = {
    "a fiftieth of a millimetre to the left": (in_frames((0.02, 0, 0)), ELSEWHERE),
    "a fiftieth of a millimetre down": (in_frames((0, 0.02, 0)), ELSEWHERE),
    "a third of the slice": (in_frames((60, 0, 0)), ELSEWHERE),
    "one frame alone": (in_frames((0.5, 0, 0), first=-1), ELSEWHERE),
    "larger pixels": (measured((5.002, 5.002)), ELSEWHERE),
    "pixels that are not square": (measured((5.0, 4.9)), ELSEWHERE),
    "turned in its plane": (directed(0.9999995, 0.001, 0, -0.001, 0.9999995, 0), TURNED),
    "mirrored": (directed(-1, 0, 0, 0, 1, 0), TURNED),
    "rows for columns": (directed(0, 1, 0, 1, 0, 0), TURNED),
}


def placed(made):
    """Return the finding of `studies.request` with the place of its grid: 160 mm over the middle of 96 × 128 pixels of 2 mm, in steps of 5 mm."""
    return replace(made.finding, places=(Place(47.5 - 15.5 * 2.5, 63.5 - 15.5 * 2.5, 2.5, 2.5),) * len(made.finding.volume.frames))


@pytest.mark.parametrize("kind", ["pm", "seg"])
@pytest.mark.parametrize("name", PLACES)
def test_a_frame_that_lies_elsewhere_on_its_slice_is_found(made, results, kind, name):
    spoil, fault = PLACES[name]
    spoilt = copy.deepcopy(next(one.dataset for one in results if one.kind == kind))
    spoil(spoilt)
    faults = check(spoilt, made.sources, [one.dataset for one in results], placed(made))
    assert any(fault in one for one in faults), faults


@pytest.mark.parametrize("tilt", [0.0, 17.0])
def test_frames_on_their_slices_pass_with_the_place_of_the_grid(tilt):
    made = request(Shape(slices=4, tilt=tilt), kinds=("pm", "seg", "sr"))
    assert check_all(build(made), made.sources, placed(made)) == ()


def test_a_frame_that_lies_elsewhere_than_the_others_is_found_without_the_place_of_the_grid(made, results):
    spoilt = copy.deepcopy(results[0].dataset)
    in_frames((0.02, 0, 0), first=2)(spoilt)
    assert check(spoilt, made.sources) == tuple(f"frame {number} lies elsewhere on its source slice than the first frame" for number in (3, 4))


@pytest.mark.parametrize("kind", ["pm", "seg"])
def test_a_grid_may_reach_beyond_its_slice_but_shows_nothing_there(kind):
    made = request(Shape(slices=2, columns=64), kinds=("pm", "seg"))  # the grid of 160 mm on a slice of 128 mm
    objects = {one.kind: one.dataset for one in build(made)}
    assert check(objects[kind], made.sources, objects.values()) == ()
    spoilt = copy.deepcopy(objects[kind])
    fill(spoilt)
    assert any(OUTSIDE in fault for fault in check(spoilt, made.sources, objects.values()))


def test_axes_that_are_not_quite_square_to_each_other_are_no_fault():
    shape = Shape(slices=2, attributes={"ImageOrientationPatient": [1, 0, 0, 0.005, 0.9999875, 0]})
    made = request(shape, kinds=("pm",))
    right, down = np.array([1.0, 0, 0]), np.array([0.005, 0.9999875, 0])
    frames, planes = made.finding.volume.frames, []
    for frame in frames:
        middle = np.array(frame.plane.position) + (47.5 - 15.5 * 2.5) * 2 * down + (63.5 - 15.5 * 2.5) * 2 * right
        planes.append(replace(frame.plane, position=tuple(middle.tolist()), orientation=(1, 0, 0, 0.005, 0.9999875, 0), spacing=(5.0, 5.0)))
    found = replace(placed(made), planes=tuple(planes))
    assert check_all(build(replace(made, finding=found)), made.sources, found) == ()


def population_of(value):
    """Return what puts another calibration population into a report."""

    def spoil(data):
        for item in group(data, 0).ContentSequence:
            if item.ConceptNameCodeSequence[0].CodeValue == "CAL-POPULATION":
                item.ConceptCodeSequence[0].CodeValue = value

    return spoil


@pytest.mark.parametrize("spoil", [population_of("SYNTHETIC"), population_of("FOREIGN"), without("CAL-POPULATION", 0)], ids=["synthetic", "foreign", "none"])
def test_a_report_of_a_patient_is_judged_by_the_sites_own_calibration_only(made, results, spoil):
    data = {one.kind: one.dataset for one in results}
    report, companions = copy.deepcopy(data["sr"]), [other for kind, other in data.items() if kind != "sr"]
    spoil(report)
    words = [f"the content gives {what} that does not rest on this site's own calibration" for what in ("a percentile", "a p-value", "a verdict")]
    assert check(report, made.sources, companions) == tuple(words)
    report.SyntheticData = "YES"
    assert check(report, made.sources, companions) == ()


@pytest.mark.parametrize("kind", ["sr", "sc", "ko"])
@pytest.mark.parametrize("population", [Population.SYNTHETIC, Population.FOREIGN, None])
def test_no_kind_tells_a_patient_what_another_calibration_says(kind, population):
    made = request(Shape(slices=2), kinds=(kind,))
    other = replace(made.finding.calibration, population=population) if population else None
    with pytest.raises(ResultRejected, match="no calibration of this site"):
        build(replace(made, finding=replace(made.finding, calibration=other)))


@pytest.mark.parametrize(("keyword", "words"), [("SOPInstanceUID", "that of a received instance"), ("SeriesInstanceUID", "that of a received series")])
def test_a_received_uid_is_never_used_again(made, results, keyword, words):
    spoilt = copy.deepcopy(results[-1].dataset)
    setattr(spoilt, keyword, made.header[keyword].value)
    assert any(words in fault for fault in check(spoilt, made.sources, [one.dataset for one in results[:-1]]))


def test_a_reference_to_an_object_that_is_not_sent_along_is_found(made, results):
    report = next(one.dataset for one in results if one.kind == "sr")
    assert any("neither received nor of this build" in fault for fault in check(report, made.sources))


def test_sources_of_two_studies_are_found(made, results):
    other = Dataset(made.header)
    other.StudyInstanceUID, other.SOPInstanceUID = "1.2.9", "1.2.9.1"
    mixed = replace(made.sources, others=(other,))
    assert any("more than one study" in fault for fault in check(results[0].dataset, mixed))


def test_objects_of_one_build_must_agree(made, results):
    pm, _, sc, _, sr, _ = results
    double = replace(sc, dataset=copy.deepcopy(sc.dataset))
    double.dataset.SOPInstanceUID = pm.dataset.SOPInstanceUID
    assert "two objects of the build share one SOPInstanceUID" in check_all((pm, double), made.sources)
    other = replace(sc, dataset=copy.deepcopy(sc.dataset))
    other.dataset.ContributingEquipmentSequence[0].SoftwareVersions = "2"
    assert "the objects of the build name different algorithms" in check_all((pm, other), made.sources)
    assert "the objects are not in sending order" in check_all((sr, pm, sc), made.sources)


def test_the_regions_of_report_and_segmentation_must_be_the_same(made, results):
    seg, sr = (next(one for one in results if one.kind == kind) for kind in ("seg", "sr"))
    other = replace(seg, dataset=copy.deepcopy(seg.dataset))
    other.dataset.SegmentSequence[0].TrackingUID = "1.2.3"
    assert "the tracking UIDs of report and segmentation differ" in check_all((other, sr), made.sources)


def test_objects_of_different_times_are_not_of_one_build(made, results):
    late = replace(results[0], dataset=copy.deepcopy(results[0].dataset))
    late.dataset.ContentTime = "111111"
    assert "the objects of the build are of different times" in check_all((late, *results[1:]), made.sources)


def test_an_object_made_of_synthetic_images_says_so(made, results):
    phantom = copy.deepcopy(made.sources.analysed[0])
    phantom.SyntheticData = "YES"
    assert any("SyntheticData is not YES" in fault for fault in check(results[0].dataset, replace(made.sources, analysed=(phantom,))))


def test_whatever_top_level_attribute_is_lost_the_gate_answers_and_never_breaks(made, results):
    datasets = {one.kind: one.dataset for one in results}
    for kind, dataset in datasets.items():
        companions = [other for name, other in datasets.items() if name != kind]
        demanded = {*DEMANDS[dataset.SOPClassUID].type_1, *DEMANDS[dataset.SOPClassUID].type_2, *TYPE_2}
        for keyword in [element.keyword for element in dataset]:
            spoilt = Dataset()
            spoilt.update(dataset)
            spoilt.file_meta = dataset.file_meta
            del spoilt[keyword]
            assert bool(check(spoilt, made.sources, companions)) >= (keyword in demanded), (kind, keyword)
