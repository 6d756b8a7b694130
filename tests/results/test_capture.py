"""The secondary capture: pages that a radiologist can read, drawn on real pixels."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from pacs_node.results import build, drawing, panels
from pacs_node.results.canvas import Canvas
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


def large(page):
    return page[drawing.PANEL_TOP : drawing.PANEL_TOP + drawing.SIZE, drawing.LEFT : drawing.LEFT + drawing.SIZE].astype(int)


def small(page, top):
    return page[top : top + drawing.ASIDE, drawing.RIGHT : drawing.RIGHT + drawing.ASIDE].astype(int)


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
def test_heat_is_drawn_on_the_lesion_and_nowhere_else(tilt, monkeypatch):
    monkeypatch.setattr(drawing, "draw_regions", lambda *facts: ())  # their outlines have colours, too
    pages = capture_of(request(Shape(tilt=tilt))).pixel_array
    drawn = coloured(large(pages[1]))
    # grid (12, 20) of 32 × 5 mm over the middle: 22.5 mm to the left of the patient, 17.5 mm above the middle; the panel shows 0.5 mm a pixel
    assert np.allclose(drawn.mean(axis=0), (255.5 - 17.5 / 0.5, 255.5 + 22.5 / 0.5), atol=1.0)
    assert np.abs(drawn - drawn.mean(axis=0)).max() < 20
    assert coloured(small(pages[1], drawing.PANEL_TOP)).size == 0
    assert coloured(small(pages[1], drawing.LOWER_TOP)).size == 0
    assert coloured(large(pages[2])).size == 0


def test_heat_below_the_drawn_tail_leaves_the_anatomy_as_it_is(made):
    faint = replace(made.finding, heat=np.full_like(made.finding.heat, 1.2))
    pages = capture_of(replace(made, finding=faint)).pixel_array
    assert coloured(large(pages[1])).size == 0


def test_the_anatomy_is_shown_in_its_window(made, capture):
    picture = large(capture.pixel_array[1])[..., 0]
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
    for top in (drawing.PANEL_TOP, drawing.LOWER_TOP):
        assert (small(pages[1], top).max(axis=-1) == small(pages[1], top).min(axis=-1)).all()
    assert coloured(large(pages[1])).size > 0  # the heat
    assert (large(pages[1])[:40].max(axis=-1) == large(pages[1])[:40].min(axis=-1)).all()


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


def test_the_plain_original_stands_beside_the_heat_and_above_the_reconstruction(made, capture):
    page = capture.pixel_array[1]
    plain = panels.anatomy(made.finding, 3).reshape(256, 2, 256, 2).mean(axis=(1, 3))
    middle = slice(40, -40)  # clear of the letters
    assert np.abs(small(page, drawing.PANEL_TOP)[middle, middle, 0] - plain[middle, middle]).max() <= 1
    reconstructed = small(page, drawing.LOWER_TOP)[128, 128]
    assert reconstructed.tolist() == pytest.approx([37 / 80 * 255] * 3, abs=1)  # 37 HU in a window of 0…80


def test_every_page_says_research_use_and_a_partial_study_says_so_on_every_page(made):
    complete, partial = (
        capture_of(replace(made, run=replace(RUN, partial=partial))).pixel_array[:, : drawing.MARGIN + 20].astype(int) for partial in (False, True)
    )
    amber = [(pages.max(axis=-1) - pages.min(axis=-1)) > 100 for pages in (complete, partial)]
    half = drawing.WIDTH // 2
    for pages, said in zip(amber, (False, True), strict=True):
        assert pages[:, :, :half].any(axis=(1, 2)).all()
        assert pages[:, :, -half // 2 :].any(axis=(1, 2)).tolist() == [said] * 4


def test_the_pages_name_their_series_and_no_patient(made, monkeypatch):
    written = []
    monkeypatch.setattr(Canvas, "write", lambda canvas, place, text, *rest, **options: written.append(text))
    build(replace(made, kinds=("sc",)))
    assert [text for text in written if text.startswith("series ")] == [
        "series 2, slice 4 of 6 at +15.0 mm",
        "series 2, slice 6 of 6 at +25.0 mm",
        "series 2, slice 5 of 6 at +20.0 mm",
    ]
    assert not [text for text in written if any(word in text for word in ("Phantom", "P-1", "19600504", "A4711"))]


def test_a_slice_without_drawn_heat_says_that_there_is_none(made, monkeypatch):
    written = []
    monkeypatch.setattr(Canvas, "write", lambda canvas, place, text, *rest, **options: written.append(text))
    build(replace(made, kinds=("sc",)))
    assert [text for text in written if text.startswith("Heat:")] == [
        "Heat: calibrated pixel tail, drawn where p<0.05. Outlined: region 1 of the",
        "Heat: calibrated pixel tail, drawn where p<0.05. None on this picture. Window",
        "Heat: calibrated pixel tail, drawn where p<0.05. None on this picture. Window",
    ]


@pytest.mark.parametrize("rows", [40, 12, 3])
def test_texts_stay_on_the_page_and_clear_of_the_strip_of_scores(made, rows):
    page = drawing.text_page("title " * 40, "verdict " * 40, [("Remark", "many words " * 12)] * rows, drawing.Heading(), made.finding)
    assert page.shape == (drawing.HEIGHT, drawing.WIDTH, 3)
    assert page[-12:].max() == 0 and page[:, -drawing.MARGIN // 2 :].max() == 0
    plain = drawing.text_page("", "", [], drawing.Heading(), made.finding)
    strip = slice(drawing.HEIGHT - 140, None)
    assert np.array_equal(page[strip], plain[strip])


def test_the_strip_of_scores_marks_the_slices_that_stand_out(made):
    scores = np.linspace(1, 2, 300).astype(np.float32)
    found = replace(made.finding, slice_scores=scores, top_slices=(299, 7))
    strip = drawing.text_page("", "", [], drawing.Heading(), found)[-130:-50].astype(int)
    amber = np.flatnonzero((strip.max(axis=-1) - strip.min(axis=-1) > 100).any(axis=0))
    step = (drawing.WIDTH - 2 * drawing.MARGIN) / 300
    assert sorted({round((place - drawing.LEFT) / step) for place in amber.tolist()}) == [7, 299]


def test_a_window_without_numbers_is_told_as_it_is_drawn(made):
    found = replace(made.finding, window=(float("nan"), 0.0))
    assert drawing.window_line(found, 3) == "Window soft tissue, W 1900 L -50."
