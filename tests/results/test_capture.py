"""The secondary capture: pages that a radiologist can read, drawn on real pixels."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from pacs_node.results import build, drawing
from pacs_node.results.capture import summary_rows
from pacs_node.results.files import encode
from tests.results.studies import RUN, Shape, finding, header, request


def capture_of(made):
    (result,) = build(replace(made, kinds=("sc",)))
    return dcmread(BytesIO(encode(result.dataset)))


@pytest.fixture(scope="module")
def made():
    return request()


@pytest.fixture(scope="module")
def capture(made):
    return capture_of(made)


def panel(page, left):
    return page[drawing.PANEL_TOP : drawing.PANEL_TOP + drawing.SIZE, left : left + drawing.SIZE].astype(int)


def coloured(picture):
    """Return the places that are neither grey nor the amber of the letters."""
    edge = 40
    inner = picture[edge:-edge, edge:-edge]
    return np.argwhere(inner.max(axis=-1) - inner.min(axis=-1) > 8) + edge


def test_it_is_a_multi_frame_true_colour_secondary_capture_with_a_page_of_text_first(capture):
    assert capture.SOPClassUID == MultiFrameTrueColorSecondaryCaptureImageStorage
    assert capture.NumberOfFrames == 4 and capture.pixel_array.shape == (4, drawing.HEIGHT, drawing.WIDTH, 3)
    assert capture.PhotometricInterpretation == "RGB"
    assert list(capture.PageNumberVector) == [1, 2, 3, 4]
    assert list(capture.FrameLabelVector) == ["summary", "slice 4", "slice 6", "slice 5"]
    assert [str(tag) for tag in capture.FrameIncrementPointer] == ["(0018,2001)", "(0018,2002)"]


def test_nobody_can_measure_in_it(capture):
    assert capture.BurnedInAnnotation == "YES"
    spatial = {"PixelSpacing", "NominalScannedPixelSpacing", "ImagePositionPatient", "FrameOfReferenceUID", "ImagerPixelSpacing", "SliceThickness"}
    assert not spatial & {element.keyword for element in capture.iterall()}


@pytest.mark.parametrize("tilt", [0.0, 15.0])
def test_heat_is_drawn_on_the_lesion_and_nowhere_else(tilt):
    pages = capture_of(request(Shape(tilt=tilt))).pixel_array
    drawn = coloured(panel(pages[1], drawing.LEFT))
    # grid (12, 20) of 32 × 5 mm over the middle: 22.5 mm to the left of the patient, 17.5 mm above the middle; the panel shows 0.5 mm a pixel
    assert np.allclose(drawn.mean(axis=0), (255.5 - 17.5 / 0.5, 255.5 + 22.5 / 0.5), atol=1.0)
    assert np.abs(drawn - drawn.mean(axis=0)).max() < 20
    assert coloured(panel(pages[1], drawing.RIGHT)).size == 0
    assert coloured(panel(pages[2], drawing.LEFT)).size == 0


def test_heat_below_the_drawn_tail_leaves_the_anatomy_as_it_is(made):
    faint = replace(made.finding, heat=np.full_like(made.finding.heat, 1.2))
    pages = capture_of(replace(made, finding=faint)).pixel_array
    assert coloured(panel(pages[1], drawing.LEFT)).size == 0


def test_the_anatomy_is_shown_in_its_window(made, capture):
    picture = panel(capture.pixel_array[1], drawing.LEFT)[..., 0]
    assert picture[256, 256] == pytest.approx((made.finding.volume.pixels[3, 48, 64] - 0) / 80 * 255, abs=8)
    assert picture[5, 5] == 0  # air


def test_at_most_five_slices_are_shown():
    shape = Shape(slices=9)
    headers = tuple(header(shape, index) for index in range(9))
    found = replace(finding(shape, headers), top_slices=tuple(range(8)))
    assert capture_of(replace(request(shape), finding=found)).NumberOfFrames == 6


def test_without_slices_that_stand_out_there_is_the_page_of_text_alone(made):
    result = capture_of(replace(made, finding=replace(made.finding, top_slices=())))
    assert result.NumberOfFrames == 1 and "FrameIncrementPointer" not in result


def test_a_finding_without_places_in_the_patient_is_drawn_without_letters(made):
    frames = tuple(replace(frame, plane=None) for frame in made.finding.volume.frames)
    found = replace(made.finding, planes=(None,) * 6, volume=replace(made.finding.volume, frames=frames))
    pages = capture_of(replace(made, finding=found)).pixel_array
    assert panel(pages[1], drawing.RIGHT)[:40].max(axis=-1).tolist() == panel(pages[1], drawing.RIGHT)[:40].min(axis=-1).tolist()


def test_the_text_says_date_series_algorithm_calibration_completeness_and_remarks(made):
    rows = dict(summary_rows(made, made.finding))
    assert rows["Study"] == "2026-02-03 · CT head"
    assert rows["Series"] == "2 · Axial 5 mm · CT, 6 slices"
    assert rows["Algorithm"] == "ct-head 1.2.0 · pacs-node open source project"
    assert rows["Calibration"].startswith("120 studies of this site")
    assert rows["Run"] == "1 · 2026-02-03 23:30 · pipeline ct-head"
    assert rows["Completeness"] == "study complete: no new instance for 10 s"
    assert rows["Remark"] == "2 slices at the vertex were left out"


def test_an_uncalibrated_finding_says_so_on_the_page():
    made = request(calibrated=False)
    assert dict(summary_rows(made, made.finding))["Calibration"] == "uncalibrated here: no percentile, p-value or verdict"


def test_a_rerun_says_its_number_on_the_page(made):
    again = replace(made, run=replace(RUN, number=3))
    assert dict(summary_rows(again, made.finding))["Run"].startswith("3 · ")


# --- drawing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a few words that need more than one line of the page", "w" * 300, "", "short"])
def test_wrapped_lines_fit_and_lose_nothing(text):
    canvas = drawing.Canvas()
    lines = canvas.wrapped(text, 25, 200)
    assert all(canvas.width_of(line, 25) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_line_that_is_too_long_is_cut_with_dots():
    canvas = drawing.Canvas()
    cut = canvas.shortened("m" * 200, 28, 300)
    assert cut.endswith("...") and canvas.width_of(cut, 28) <= 300


@pytest.mark.parametrize(("text", "drawn"), [("AI · 3°", "AI · 3°"), ("Größe", "Grosse"), ("山", "?"), ("−1", "-1")])
def test_only_characters_that_the_font_has_are_drawn(text, drawn):
    assert drawing.drawable(text) == drawn


def test_many_remarks_do_not_run_off_the_page():
    page = drawing.text_page("title", "verdict", [("Remark", "many words " * 12)] * 40)
    assert page.shape == (drawing.HEIGHT, drawing.WIDTH, 3)
    assert page[-12:].max() == 0
