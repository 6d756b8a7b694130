"""Segmentation and the regions of the report: the same regions, under the same tracking UIDs, at the right place."""

from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from pacs_node.results import build, check_all, possible_kinds, save
from pacs_node.results.regions import regions_of
from pacs_node.results.segmentation import SegmentFrame, packed
from tests.results.modalities import CASES, ultrasound
from tests.results.studies import RUN, Shape, request
from tests.results.test_regions import hot

LESIONS = (np.s_[1:3, 4:8, 10:13], np.s_[0, 20:22, 20:24])


def with_lesions(made, *places):
    return replace(made, finding=hot(made, *(places or LESIONS)), kinds=("seg", "sr"))


def built(made):
    return {one.kind: one.dataset for one in build(made)}


@pytest.fixture(scope="module")
def made():
    return with_lesions(request(Shape(slices=4, tilt=20.0, steps=(5.0, 1.1, 7.0))))


@pytest.fixture(scope="module")
def objects(made):
    return built(made)


def region_groups(report):
    read = hd.sr.Comprehensive3DSR.from_dataset(report).content
    return [*read.get_planar_roi_measurement_groups(), *read.get_volumetric_roi_measurement_groups()]


def test_each_region_is_a_segment_with_the_tracking_uid_that_the_report_gives_it(objects):
    segments = {segment.TrackingUID: segment for segment in objects["seg"].SegmentSequence}
    groups = {group.tracking_uid: group for group in region_groups(objects["sr"])}
    assert len(segments) == 2 and set(segments) == set(groups)
    for uid, group in groups.items():
        assert group.tracking_identifier == segments[uid].TrackingID
        (reference,) = (item.ReferencedSOPSequence[0] for item in group[0].ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "121191")
        assert (reference.ReferencedSOPInstanceUID, reference.ReferencedSegmentNumber) == (objects["seg"].SOPInstanceUID, segments[uid].SegmentNumber)


def test_highdicom_reads_the_pixels_of_every_segment_back(made, objects, tmp_path):
    (result,) = build(replace(made, kinds=("seg",)))
    save(result, tmp_path / "seg.dcm")
    read = hd.seg.segread(tmp_path / "seg.dcm")
    frames = dcmread(tmp_path / "seg.dcm").pixel_array
    assert read.number_of_segments == 2 and frames.shape == (read.NumberOfFrames, 32, 32)
    total = np.zeros_like(made.finding.heat, dtype=int)
    for frame, item in zip(frames, read.PerFrameFunctionalGroupsSequence, strict=True):
        uid = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        total[[one.sop_uid for one in made.finding.volume.frames].index(uid)] += frame
    assert np.array_equal(total, (made.finding.heat > 3).astype(int))


def test_every_frame_lies_on_its_slice_to_a_hundredth_of_a_millimetre(made, objects):
    planes = {frame.sop_uid: plane for frame, plane in zip(made.finding.volume.frames, made.finding.planes, strict=True)}
    for item in objects["seg"].PerFrameFunctionalGroupsSequence:
        plane = planes[item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert np.allclose(item.PlanePositionSequence[0].ImagePositionPatient, plane.position, atol=0.01)
    shared = objects["seg"].SharedFunctionalGroupsSequence[0]
    assert np.allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, made.finding.planes[0].orientation, atol=1e-6)


def test_the_property_of_a_segment_says_nothing_about_the_patient(objects):
    for segment in objects["seg"].SegmentSequence:
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Image Region"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"


def test_the_algorithm_of_every_segment_is_the_contributing_equipment(objects):
    equipment = objects["seg"].ContributingEquipmentSequence[0]
    for segment in objects["seg"].SegmentSequence:
        (said,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (said.AlgorithmName, said.AlgorithmVersion) == (equipment.ManufacturerModelName, equipment.SoftwareVersions)
        assert said.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"


def measured(group):
    found = {}
    for item in group.get_measurements():
        how = [child.ConceptCodeSequence[0].CodeMeaning for child in item[0].get("ContentSequence") or () if "ConceptCodeSequence" in child]
        found[" ".join([item.name.meaning, *how])] = (item.value, item.unit.value)
    return found


def test_the_report_measures_each_region(objects):
    deep, flat = sorted((measured(group) for group in region_groups(objects["sr"])), key=lambda found: "Area" in found)
    assert deep["Volume"][1] == "mm3" and "Area" not in deep
    assert flat["Area"] == (200.0, "mm2") and "Volume" not in flat
    assert flat["-log10 of the calibrated pixel tail Mean"] == flat["-log10 of the calibrated pixel tail Maximum"] == (3.5, "1")


def test_the_summary_tells_the_regions(objects):
    text = " ".join(str(item.get("TextValue", "")) for item in objects["sr"].ContentSequence)
    assert "Regions where fewer than 1 calibration pixel in 1000 is as unusual: 2." in text
    assert "Region 1: slice 2 of 4 to slice 3 of 4, volume " in text and "Region 2: slice 1 of 4, area 200 mm2" in text


def test_without_a_segmentation_the_report_outlines_the_regions_on_the_images(made):
    report = built(replace(made, kinds=("sr",)))["sr"]
    for group in region_groups(report):
        outlines = [item for item in group[0].ContentSequence if item.ValueType == "SCOORD"]
        assert outlines and all(item.GraphicType == "POLYLINE" for item in outlines)
        assert not any(item.ConceptNameCodeSequence[0].CodeValue == "121191" for item in group[0].ContentSequence)
        for item in outlines:
            assert item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID in {frame.sop_uid for frame in made.finding.volume.frames}


def test_the_tracking_uids_are_those_of_the_run_whatever_the_variant(made, objects):
    alone = built(replace(made, kinds=("sr",), run=replace(RUN, variant="sr")))["sr"]
    again = built(replace(made, run=replace(RUN, number=2)))["sr"]
    uids = [sorted(group.tracking_uid for group in region_groups(report)) for report in (objects["sr"], alone, again)]
    assert uids[0] == uids[1] and not set(uids[0]) & set(uids[2])


def test_without_a_region_there_is_no_segmentation_and_no_group(made):
    nothing = replace(made, finding=replace(made.finding, heat=np.zeros_like(made.finding.heat)))
    assert "seg" not in possible_kinds(nothing.finding)
    results = built(nothing)
    assert set(results) == {"sr"} and region_groups(results["sr"]) == []


def test_without_calibration_there_is_no_segmentation():
    assert "seg" not in possible_kinds(request(calibrated=False).finding)


def test_without_a_frame_of_reference_there_is_a_report_with_outlines_but_no_segmentation():
    made = with_lesions(request(Shape(slices=4, attributes={"FrameOfReferenceUID": None})))
    results = build(made)
    assert [one.kind for one in results] == ["sr"] and len(region_groups(results[0].dataset)) == 2
    assert check_all(results, made.sources) == ()


def test_the_segmentation_of_ultrasound_lies_pixel_by_pixel_on_its_frames():
    made = with_lesions(ultrasound((None, 3)), np.s_[0, 4:16, 4:16], np.s_[2, 6:18, 8:20])
    results = build(made)
    assert check_all(results, made.sources) == ()
    seg, report = results[0].dataset, results[1].dataset
    assert (seg.Rows, seg.Columns, seg.NumberOfFrames) == (96, 128, 2)
    assert not {"FrameOfReferenceUID", "ImagePositionPatient", "PixelSpacing"} & {element.keyword for element in seg.iterall()}
    frames = {}
    for item, frame in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        frames[source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")] = frame
    still, loop = (header.SOPInstanceUID for header in made.sources.analysed)
    rows, columns = np.nonzero(frames[still, None])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (17, 40, 37, 60)  # two pixels for each of the grid, around 18…40 and 38…60
    assert frames[loop, 2].any()
    for group in region_groups(report):
        assert [item.ValueType for item in group[0].ContentSequence].count("SCOORD") == 1


def test_a_region_between_the_centres_of_coarser_pixels_marks_the_nearest_one():
    made = with_lesions(ultrasound((None, 3)), np.s_[0, 4:16, 4:16])
    (region,) = regions_of(made.finding)
    mask = np.zeros_like(region.mask)
    mask[:, 0, 0] = True  # one pixel of the grid
    marked = [
        SegmentFrame(replace(region, mask=mask, box=(region.box[0], slice(row, row + 12), slice(4, 16))), 0).source(coarse(made.finding)).sum()
        for row in (4, 5, 6)
    ]
    assert all(marked), "wherever it lies"


def coarse(finding):
    """Return a finding whose source has a fifth of the pixels."""
    places = tuple(
        replace(place, row_step=place.row_step / 5, column_step=place.column_step / 5, row=place.row / 5, column=place.column / 5) for place in finding.places
    )
    return replace(finding, places=places, volume=replace(finding.volume, pixels=finding.volume.pixels[:, ::5, ::5]))


@pytest.mark.parametrize("shape", [(3, 5), (1, 7), (8, 8), (9, 31)])
def test_frames_follow_each_other_bit_by_bit_whatever_their_size(shape):
    masks = np.random.default_rng(6).random((7, *shape)) > 0.5
    expected = np.packbits(masks.ravel(), bitorder="little").tobytes()
    assert packed(iter(masks)) == expected + b"\0" * (len(expected) % 2)


@pytest.mark.parametrize("name", [name for name in CASES if "ultrasound" not in name])
def test_the_segmentation_of_enhanced_objects_names_the_frame_that_it_lies_on(name):
    made = with_lesions(CASES[name]())
    results = build(made)
    assert check_all(results, made.sources) == ()
    places = {(frame.sop_uid, frame.number): plane for frame, plane in zip(made.finding.volume.frames, made.finding.planes, strict=True)}
    for item in results[0].dataset.PerFrameFunctionalGroupsSequence:
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        plane = places[source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")]
        assert np.allclose(item.PlanePositionSequence[0].ImagePositionPatient, plane.position, atol=0.01)
