"""How slices are called: as the archive shows them."""

from dataclasses import replace

import pytest
from pydicom.uid import EnhancedMRImageStorage

from pacs_node.results import wording
from pacs_node.results.naming import name_of
from tests.results.modalities import enhanced, pet, ultrasound
from tests.results.studies import request


def names(made):
    volume, headers = made.finding.volume, made.sources.analysed
    return [name_of(volume, index, headers) for index in range(len(volume.frames))]


def sentences(made):
    return [name.sentence for name in names(made)]


def labels(made):
    return [name.label for name in names(made)]


def test_single_frame_slices_are_counted():
    assert sentences(request())[:2] == ["slice 1 of 6", "slice 2 of 6"]
    assert labels(pet())[3] == "slice 4"


def test_slices_of_an_enhanced_object_also_have_its_frame_numbers():
    made = enhanced("MR", EnhancedMRImageStorage, slices=3)  # stored from the last place to the first
    assert sentences(made) == ["slice 1 of 3, frame 3", "slice 2 of 3, frame 2", "slice 3 of 3, frame 1"]
    assert labels(made) == ["slice 1", "slice 2", "slice 3"]


def test_several_enhanced_objects_are_told_apart_by_image_number():
    made = enhanced("MR", EnhancedMRImageStorage, slices=4, objects=2)
    assert sentences(made) == [f"slice {index} of 4, image {image} frame {frame}" for index, image, frame in ((1, 1, 2), (2, 1, 1), (3, 2, 2), (4, 2, 1))]


def test_ultrasound_is_called_by_image_and_frame():
    made = ultrasound((None, 2))
    assert sentences(made) == ["image 1", "image 3, frame 1 of 2", "image 3, frame 2 of 2"]
    assert labels(made) == ["image 1", "3 frame 1", "3 frame 2"]


def test_image_numbers_that_do_not_tell_apart_are_not_said():
    made = ultrasound((None, None, 2))
    for header in made.sources.analysed:
        header.InstanceNumber = 1
    assert sentences(made) == ["image 1 of 4", "image 2 of 4", "image 3 of 4, frame 1 of 2", "image 4 of 4, frame 2 of 2"]
    assert len(set(labels(made))) == 4


def test_a_loop_without_an_image_number_is_called_by_its_frames():
    made = ultrasound((3,))
    del made.header.InstanceNumber
    assert sentences(made)[1] == "frame 2 of 3" and labels(made)[1] == "frame 2"


def test_without_headers_slices_still_have_names():
    assert name_of(ultrasound((3,)).finding.volume, 1, ()).sentence == "frame 2 of 3"
    assert name_of(request().finding.volume, 1, ()).sentence == "slice 2 of 6"


def test_labels_fit_their_attribute():
    made = ultrasound((None, 2))
    for header in made.sources.analysed:
        header.InstanceNumber = 2_000_000_000 + header.InstanceNumber
    assert all(len(label) <= 16 for label in labels(made))


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (request(), "CT, 6 slices"),
        (enhanced("MR", EnhancedMRImageStorage), "MR, T1 weighted, 4 slices"),
        (pet(3), "PT, 3 slices"),
        (ultrasound((None,)), "US, 1 image"),
        (ultrasound((5,)), "US, 5 frames"),
        (ultrasound((None, 4)), "US, 5 images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_analysed_is_said_in_words(made, line):
    assert wording.images_line(made.finding.volume) == line


@pytest.mark.parametrize(
    ("weighting", "words"), [("T2", "MR, T2 weighted, "), ("FLAIR", "MR, FLAIR, "), ("DWI", "MR, diffusion weighted, "), ("unknown", "MR, 4")]
)
def test_the_weighting_of_mr_is_named_where_it_is_known(weighting, words):
    volume = enhanced("MR", EnhancedMRImageStorage).finding.volume
    assert wording.images_line(replace(volume, weighting=weighting)).startswith(words)


@pytest.mark.parametrize(("made", "words"), [(pet(), "values in SUV by body weight."), (ultrasound(), "values in grey levels."), (request(), "")])
def test_the_summary_says_what_the_values_are_where_it_does_not_go_without_saying(made, words):
    text = wording.summary(made.finding, made.run, made.sources.analysed)
    assert words in text and ("Analysed:" in text) == bool(words)


def test_three_dimensional_ultrasound_gets_no_position_in_the_patient():
    made = pet()
    found = replace(made.finding, volume=replace(made.finding.volume, modality="US"))
    assert all(top.position is None for top in wording.top_slices(found))
