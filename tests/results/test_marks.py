"""The outlines of regions on the pictures: where they lie, what number they carry, and that both are seen."""

from dataclasses import replace

import numpy as np
import pytest

from pacs_node.results import build, drawing, marks, panels
from pacs_node.results.canvas import CYAN, Canvas
from pacs_node.results.marks import draw_regions, free_place, on_slice, panel_outlines, regions_line
from pacs_node.results.regions import regions_of
from tests.results.modalities import ultrasound
from tests.results.studies import Shape, request

SHAPE = Shape(slices=4, grid=48, grid_spacing=4.0)


def hot(*places, shape=SHAPE, grey=None):
    """Return a finding with a square of 4 × 4 hot pixels at each (slice, row, column), the first the hottest; ``grey`` on all pixels."""
    found = request(shape).finding
    heat = np.zeros((shape.slices, shape.grid, shape.grid), np.float32)
    for number, (index, row, column) in enumerate(places):
        heat[index, row : row + 4, column : column + 4] = 3.9 - number / 1000
    volume = found.volume if grey is None else replace(found.volume, pixels=np.full_like(found.volume.pixels, grey))
    return replace(found, heat=heat, volume=volume)


def drawn_on(found, index=1, ground=0):
    canvas = Canvas(panels.SIZE, panels.SIZE)
    canvas.paste((0, 0), np.full((panels.SIZE, panels.SIZE, 3), ground, np.uint8))
    regions = on_slice(regions_of(found), index)
    return canvas, regions, draw_regions(canvas, (0, 0), found, index, regions)


@pytest.mark.parametrize("tilt", [0.0, 17.5])
def test_an_outline_lies_where_the_heat_of_its_region_is_drawn(tilt):
    found = hot((1, 20, 26), shape=replace(SHAPE, tilt=tilt))
    (region,) = regions_of(found)
    (points,) = panel_outlines(found, region, 1, panels.slice_view(found, 1))
    matrix, offset = panels.slice_view(found, 1).grid  # panel to grid, (row, column)
    corners = points[:, ::-1] @ matrix.T + offset
    assert corners.min(axis=0) == pytest.approx([19.5, 25.5], abs=0.01) and corners.max(axis=0) == pytest.approx([23.5, 29.5], abs=0.01)
    heat = np.argwhere(panels.heat(found, 1) > 3.5)
    assert (heat.min(axis=0) >= points.min(axis=0)[::-1] - 1).all() and (heat.max(axis=0) <= points.max(axis=0)[::-1] + 1).all()


def test_an_outline_of_ultrasound_lies_on_its_picture():
    found = ultrasound((None,)).finding
    found = replace(found, heat=np.pad(np.full((1, 10, 10), 3.5, np.float32), ((0, 0), (8, 14), (6, 16))))
    (region,) = regions_of(found)
    (points,) = panel_outlines(found, region, 0, panels.slice_view(found, 0))
    heat = np.argwhere(panels.heat(found, 0) > 3.4)
    assert np.abs(points[:-1].mean(axis=0) - heat.mean(axis=0)[::-1]).max() < 2


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_outline_and_number_stand_out_from_any_ground(ground):
    canvas, _, numbered = drawn_on(hot((1, 20, 26)), ground=ground)
    page = canvas.page().astype(int)
    line = (page == CYAN).all(axis=-1)
    assert numbered == (1,) and line.sum() > 150
    beside = np.zeros_like(line)
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        beside |= np.roll(line, step, axis)
    assert (page[beside & ~line].mean(axis=-1) < 215).all()  # a dark rim, never bright ground


def test_the_page_outlines_the_regions_of_its_slice_with_their_numbers_in_the_report(monkeypatch):
    made = request(SHAPE, kinds=("sc", "sr"))
    made = replace(made, finding=replace(hot((2, 8, 8), (1, 20, 26), (1, 36, 10)), top_slices=(1,)))
    marked, written = [], []
    monkeypatch.setattr(Canvas, "mark_region", lambda canvas, place, text: marked.append(text))
    monkeypatch.setattr(Canvas, "write", lambda canvas, place, text, *rest, **options: written.append(text))
    build(replace(made, kinds=("sc",)))
    assert marked == ["2", "3"]  # the hottest lies on another slice
    assert any("Outlined: regions 2, 3 of the report." in text for text in [" ".join(written)])


def test_the_plain_original_and_the_reconstruction_stay_as_they_are(monkeypatch):
    made = request(SHAPE)
    made = replace(made, finding=replace(hot((1, 20, 26)), top_slices=(1,)))

    def pages():
        return build(replace(made, kinds=("sc",)))[0].dataset.pixel_array[1]

    with_regions = pages()
    monkeypatch.setattr(Canvas, "outline", lambda canvas, points: None)
    monkeypatch.setattr(Canvas, "mark_region", lambda canvas, place, text: None)
    rows, columns = np.nonzero((with_regions != pages()).any(axis=-1))
    assert len(rows) and columns.max() < drawing.LEFT + panels.SIZE and rows.min() >= drawing.PANEL_TOP and rows.max() < drawing.PANEL_TOP + panels.SIZE


def test_numbers_cover_neither_each_other_nor_the_letters_of_the_orientation():
    places = [(1, row, column) for row in range(6, 42, 6) for column in range(0, 42, 6)]
    _, regions, numbered = drawn_on(hot(*places))
    assert len(regions) > 30 and 0 < len(numbered) <= 24
    assert regions_line(regions, numbered) == f"{len(regions)} regions outlined, {len(numbered)} numbered as in the report."
    assert free_place(np.array([[200.0, 200.0], [240.0, 240.0]]), 12.0, [(0.0, 0.0, 512.0, 512.0)]) is None
    right = free_place(np.array([[200.0, 200.0], [240.0, 240.0]]), 12.0, [])
    left = free_place(np.array([[200.0, 200.0], [240.0, 240.0]]), 12.0, [right])
    assert right[0] > 240 and left[2] < 200


def test_a_slice_is_looked_at_once_however_many_regions_it_has(monkeypatch):
    looked = []
    monkeypatch.setattr(marks, "slice_view", lambda finding, index: looked.append(index) or panels.slice_view(finding, index))
    _, regions, _ = drawn_on(hot(*[(1, row, column) for row in range(0, 42, 6) for column in range(0, 42, 6)]))
    assert len(regions) > 30 and looked == [1]


def test_a_region_at_the_edge_has_its_number_on_the_picture():
    box = free_place(np.array([[490.0, 2.0], [510.0, 20.0]]), 24.0, [])
    assert min(box) >= 2 and max(box) <= panels.SIZE - 2


def test_a_slice_without_regions_says_nothing_of_them():
    found = hot((1, 20, 26))
    assert on_slice(regions_of(found), 0) == () and regions_line((), ()) == ""
    assert draw_regions(Canvas(512, 512), (0, 0), found, 0, ()) == ()
