"""Key objects and the denoised reconstruction."""

from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest

from pacs_node.results import build, check_all, denoised
from pacs_node.results.denoised import BAND, LEAST, frames_of_model
from tests.results.modalities import CASES, pet, ultrasound
from tests.results.studies import Shape, request


def one(made, kind):
    (result,) = build(replace(made, kinds=(kind,)))
    return result.dataset


def test_key_objects_are_the_images_of_the_slices_that_stand_out():
    made = request(Shape(slices=6))
    document = hd.ko.KeyObjectSelectionDocument.from_dataset(one(made, "ko"))
    expected = [made.finding.volume.frames[index].sop_uid for index in made.finding.top_slices]
    assert [str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in document.content.get_references()] == expected
    assert document.ConceptNameCodeSequence[0].CodeValue == "113000" and document.Modality == "KO"
    assert all(document.resolve_reference(uid)[0] == made.header.StudyInstanceUID for uid in expected)


def test_key_objects_name_the_frames_of_a_multi_frame_object():
    made = ultrasound((6,))
    items = [item for item in one(made, "ko").ContentSequence if item.ValueType == "IMAGE"]
    assert [sorted(item.ReferencedSOPSequence[0].ReferencedFrameNumber) for item in items] == [sorted(index + 1 for index in made.finding.top_slices)]


def test_key_objects_say_why_and_who():
    document = one(request(Shape(slices=6)), "ko")
    text = " ".join(str(item.get("TextValue", "")) for item in document.ContentSequence)
    assert "Anomaly score 3.217: above the threshold" in text and "not for diagnosis" in text and "ct-head" in text


def test_without_slices_that_stand_out_there_are_no_key_objects():
    made = request(Shape(slices=2))
    assert build(replace(made, finding=replace(made.finding, top_slices=()), kinds=("ko",))) == ()


@pytest.mark.parametrize("make", [lambda: request(Shape(slices=3)), pet, lambda: ultrasound((None, 3)), CASES["enhanced MR"]])
def test_key_objects_and_denoised_pictures_pass_the_gate(make):
    made = replace(make(), kinds=("ko", "denoised", "sr"))
    results = build(made)
    assert check_all(results, made.sources) == ()
    assert [result.kind for result in results] == ["denoised", "sr", "ko"]


def test_the_denoised_pictures_show_the_reconstruction_in_its_window():
    made = request(Shape(slices=3))
    model = np.zeros_like(made.finding.reconstruction)
    model[1], model[2, :, :16] = 80.0, 40.0  # the window is 0…80
    frames = frames_of_model(replace(made.finding, reconstruction=model))
    assert frames.shape == (3, BAND + LEAST + BAND, LEAST)
    inner = frames[:, BAND + 30 : -BAND - 30, 30:-30]  # clear of the letters
    assert (inner[0].max(), inner[1].min()) == (0, 255) and set(np.unique(inner[2])) == {0, 128}


def test_denoised_pictures_are_derived_synthetic_and_never_pose_as_the_originals():
    made = request(Shape(slices=3))
    dataset = one(made, "denoised")
    assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"] and dataset.BurnedInAnnotation == "YES"
    assert dataset.NumberOfFrames == 3 and dataset.SOPInstanceUID not in {header.SOPInstanceUID for header in made.sources.analysed}
    assert not {"PixelSpacing", "ImagePositionPatient", "FrameOfReferenceUID"} & {element.keyword for element in dataset.iterall()}
    banner = dataset.pixel_array[:, :BAND]
    assert (banner == banner[0]).all() and 200 < (banner[0] > 128).sum() < 4000  # burnt into every frame


def test_pet_is_drawn_dark_on_light():
    made = pet()
    frames = frames_of_model(replace(made.finding, reconstruction=made.finding.reconstruction * 0))
    assert frames[:, :BAND].min() == 0  # the banner's ground
    assert (frames[:, BAND + 30 : -BAND - 30, 30:-30] == 255).all()


@pytest.mark.parametrize("grid", [32, 100, 256, 384])
def test_words_and_letters_of_denoised_pictures_keep_clear_of_the_middle_and_are_read_at_512_pixels(grid, monkeypatch):
    made = request(Shape(slices=2, grid=grid))
    written = []
    monkeypatch.setattr(denoised, "_band", lambda width, lines, band=denoised._band: written.append(lines) or band(width, lines))
    flat = replace(made.finding, reconstruction=np.full_like(made.finding.reconstruction, 40.0))
    frames = frames_of_model(flat)
    rows, columns = frames.shape[1:]
    shown, band = 512 / max(rows, columns), round(BAND * max(columns / LEAST, 1))
    picture = frames[0, band:-band]
    touched = np.argwhere(picture != 128)
    assert len(touched) and (np.abs(touched - (np.array(picture.shape) - 1) / 2).max(axis=1) > 0.38 * columns).all()
    (tall,) = [np.ptp(np.flatnonzero((frames[0, : band // 2] > 128).any(axis=1))) + 1]
    assert tall * shown >= 11  # a capital letter
    expected = {"SYNTHETIC · AI · research use", "not for diagnosis", "slice 1 of 2", "slice 2 of 2", "brain, W 80 L 40"}
    assert {line for lines in written for line in lines} >= expected


def test_denoised_pictures_carry_the_letters_of_their_slices_and_none_without_a_place():
    made, pictures = request(Shape(slices=2, tilt=20.0)), ultrasound()
    middle = [frames_of_model(one.finding)[0, BAND + LEAST // 2 - 12 : BAND + LEAST // 2 + 12] for one in (made, pictures)]
    left, right = middle[0][:, :24], middle[0][:, -24:]
    assert left.min() == right.min() == 0 and left.max() == right.max() == 255
    assert np.ptp(middle[1]) == 0


def test_the_report_points_at_the_denoised_pictures_of_its_build():
    made = request(Shape(slices=3))
    objects = {result.kind: result.dataset for result in build(replace(made, kinds=("sr", "denoised")))}
    assert objects["denoised"].SOPInstanceUID in {element.value for element in objects["sr"].iterall() if element.keyword == "ReferencedSOPInstanceUID"}
