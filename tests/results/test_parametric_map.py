"""The parametric map: the right values at the right place."""

from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from pydicom.uid import EnhancedCTImageStorage

from pacs_node.results import build, save
from tests.results.studies import Shape, grid_plane, request, slice_plane

SHAPES = [
    pytest.param(Shape(slices=4), id="regular"),
    pytest.param(Shape(slices=4, tilt=22.5), id="gantry tilt"),
    pytest.param(Shape(slices=5, steps=(5.0, 1.08, 6.99, 5.0)), id="uneven"),
    pytest.param(Shape(slices=5, tilt=-17.0, steps=(2.0, 2.0, 7.5, 2.0)), id="tilted and uneven"),
    pytest.param(Shape(slices=4, steps=(-5.0, -5.0, -5.0)), id="from head to feet"),
    pytest.param(Shape(slices=3, steps=(5.0, 0.0)), id="two slices at one place"),
    pytest.param(Shape(slices=1), id="one slice"),
]


def map_of(made):
    (result,) = build(replace(made, kinds=("pm",)))
    return result


@pytest.mark.parametrize("shape", SHAPES)
def test_every_frame_lies_on_its_slice_to_a_hundredth_of_a_millimetre(shape, tmp_path):
    made = request(shape)
    save(map_of(made), tmp_path / "pm.dcm")
    read = hd.imread(tmp_path / "pm.dcm")
    shared = read.SharedFunctionalGroupsSequence[0]
    assert read.NumberOfFrames == shape.slices
    for index, frame in enumerate(read.PerFrameFunctionalGroupsSequence):
        expected = grid_plane(shape, slice_plane(shape, index))
        assert np.allclose(frame.PlanePositionSequence[0].ImagePositionPatient, expected.position, atol=0.01)
        assert np.allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, expected.orientation, atol=1e-6)
        assert np.allclose(shared.PixelMeasuresSequence[0].PixelSpacing, expected.spacing, atol=1e-6)
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == made.sources.analysed[index].SOPInstanceUID


def test_the_values_are_those_of_the_heat_frame_by_frame(tmp_path):
    made = request(Shape(slices=4, tilt=10.0))
    save(map_of(made), tmp_path / "pm.dcm")
    read = hd.imread(tmp_path / "pm.dcm")
    assert np.array_equal(read.get_frames(apply_real_world_transform=True), made.finding.heat)


@pytest.mark.parametrize(
    ("calibrated", "code", "label", "top"), [(True, "NEG-LOG10-TAIL", "-log10 tail", 4.0), (False, "RELATIVE-SCORE", "relative score", 1.0)]
)
def test_calibrated_and_relative_maps_have_quantities_of_their_own(calibrated, code, label, top):
    result = map_of(request(Shape(slices=2), calibrated=calibrated)).dataset
    mapping = result.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == code
    assert (mapping.LUTLabel, mapping.MeasurementUnitsCodeSequence[0].CodeValue) == (label, "1")
    assert (mapping.DoubleFloatRealWorldValueFirstValueMapped, mapping.DoubleFloatRealWorldValueLastValueMapped) == (0.0, top)
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)


def test_what_was_not_judged_is_stored_as_zero_and_nothing_leaves_the_declared_range():
    made = request(Shape(slices=2))
    heat = made.finding.heat.copy()
    heat[0, 0, :4] = [np.nan, np.inf, -np.inf, 9.0]
    result = map_of(replace(made, finding=replace(made.finding, heat=heat))).dataset
    stored = np.frombuffer(result.FloatPixelData, dtype="<f4").reshape(heat.shape)
    assert stored[0, 0, :4].tolist() == [0.0, 4.0, 0.0, 4.0]
    assert np.isnan(made.finding.heat[0, 0]).sum() == 0 and np.isnan(heat[0, 0, 0])  # the finding itself is not changed


def test_it_shares_the_frame_of_reference_and_is_for_research():
    made = request(Shape(slices=2))
    result = map_of(made).dataset
    assert result.FrameOfReferenceUID == made.header.FrameOfReferenceUID
    assert result.ContentQualification == "RESEARCH"


def test_slices_that_lean_differently_keep_their_own_planes():
    shape = Shape(slices=3)
    made = request(shape)
    leaning = tuple(grid_plane(Shape(slices=3, tilt=10.0 * index), slice_plane(Shape(slices=3, tilt=10.0 * index), index)) for index in range(3))
    frames = made.finding.volume.frames
    found = replace(made.finding, planes=leaning, volume=replace(made.finding.volume, frames=frames))
    result = map_of(replace(made, finding=found)).dataset
    assert "PlaneOrientationSequence" not in result.SharedFunctionalGroupsSequence[0]
    for frame, plane in zip(result.PerFrameFunctionalGroupsSequence, leaning, strict=True):
        assert np.allclose(frame.PlaneOrientationSequence[0].ImageOrientationPatient, plane.orientation, atol=1e-6)


def test_slices_of_different_thickness_keep_their_own_measures():
    made = request(Shape(slices=2))
    first, second = made.finding.planes
    result = map_of(replace(made, finding=replace(made.finding, planes=(first, replace(second, thickness=None))))).dataset
    measures = [frame.PixelMeasuresSequence[0] for frame in result.PerFrameFunctionalGroupsSequence]
    assert measures[0].SliceThickness == 5.0 and "SliceThickness" not in measures[1]


@pytest.mark.parametrize("lack", ["frame of reference", "planes"])
def test_without_a_place_in_the_patient_the_map_is_left_out(lack):
    made = request(Shape(slices=2), kinds=("pm", "sr"))
    found = made.finding
    found = replace(found, volume=replace(found.volume, frame_of_reference_uid=None)) if lack != "planes" else replace(found, planes=(None, None))
    assert [one.kind for one in build(replace(made, finding=found))] == ["sr"]


def test_frames_of_an_enhanced_object_are_named_by_number():
    made = request(Shape(slices=3))
    frames = tuple(replace(frame, sop_uid=made.finding.volume.frames[0].sop_uid, number=index + 1) for index, frame in enumerate(made.finding.volume.frames))
    found = replace(made.finding, volume=replace(made.finding.volume, frames=frames))
    made.header.NumberOfFrames = 3
    made.header.SOPClassUID = EnhancedCTImageStorage
    frames = tuple(replace(frame, sop_class_uid=EnhancedCTImageStorage) for frame in frames)
    found = replace(found, volume=replace(found.volume, frames=frames))
    result = map_of(replace(made, finding=found)).dataset
    numbers = [frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber for frame in result.PerFrameFunctionalGroupsSequence]
    assert numbers == [1, 2, 3]


def test_lossy_sources_are_never_forgotten():
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": 7.5, "LossyImageCompressionMethod": "ISO_10918_1"}
    result = map_of(request(Shape(slices=2, attributes=lossy))).dataset
    assert (result.LossyImageCompression, result.LossyImageCompressionRatio) == ("01", 7.5)
    assert map_of(request(Shape(slices=2))).dataset.LossyImageCompression == "00"
