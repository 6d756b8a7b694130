"""Resampling keeps every point where it is."""

import numpy as np
import pytest

from pacs_node.analysis import geometry, grid
from pacs_node.records import Frame, Plane, Volume
from tests.analysis.conftest import volume


def gradient_volume(spacing: tuple[float, float], centre: tuple[float, float], orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0)) -> Volume:
    """Each pixel holds a linear function of its own patient coordinates (plus 100); a disc of it is body, the rest is air."""
    plane = Plane((-30.0, 17.0, 5.0), orientation, spacing)  # type: ignore[arg-type]
    rows, columns = np.mgrid[:160, :200]
    along_row, along_column, _ = geometry.axes(plane)
    points = np.asarray(plane.position) + rows[..., None] * spacing[0] * along_column + columns[..., None] * spacing[1] * along_row
    pixels = (100 + points @ np.array([0.3, 0.5, 0.2])).astype(np.float32)
    body = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 55**2
    return Volume(np.where(body, pixels, -1000)[None].astype(np.float32), "1", (Frame("1", "2", None, plane),), "CT", "3")


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.9, 0.7), (2.0, 2.0), (1.3, 2.6)])
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0.9483237, -0.3173047)])
def test_values_stay_at_their_place_in_the_patient(spacing: tuple[float, float], orientation: tuple[float, ...]) -> None:
    source = gradient_volume(spacing, (80, 90), orientation)
    made = grid.resample(source, grid.Grid(32, 1.7, -500))
    plane = made.planes[0]
    first = source.frames[0].plane
    assert plane is not None
    assert first is not None
    checked = 0
    for row in range(8, 24):
        for column in range(8, 24):
            point = np.asarray(geometry.place(plane, row, column))
            expected = 100 + point @ np.array([0.3, 0.5, 0.2])
            offset = point - np.asarray(first.position)
            source_row, source_column = offset @ geometry.axes(plane)[1] / spacing[0], offset @ geometry.axes(plane)[0] / spacing[1]
            if (source_row - 80) ** 2 + (source_column - 90) ** 2 < 45**2:
                assert made.view[0, row, column] == pytest.approx(expected, abs=0.001)
                checked += 1
    assert checked > 100


def test_the_grid_is_centred_on_the_body_to_a_coarse_pixel() -> None:
    source = gradient_volume((1.0, 1.0), (70, 120))
    made = grid.resample(source, grid.Grid(64, 2.0, -500))
    rows, columns = np.nonzero(made.view[0] > -500)
    assert rows.mean() == pytest.approx(31.5, abs=2.1)
    assert columns.mean() == pytest.approx(31.5, abs=2.1)


def test_padding_takes_no_part_and_outside_is_nan() -> None:
    source = gradient_volume((1.0, 1.0), (80, 90))
    source.pixels[0, :, 120:] = np.nan
    made = grid.resample(source, grid.Grid(200, 1.0, -500))
    assert np.isnan(made.view[0, :, -20:]).all()
    assert np.nanmin(made.view) >= -1000.001
    assert np.nanmax(made.view) <= np.nanmax(source.pixels) + 0.01


def test_fine_stripes_are_averaged_and_not_aliased() -> None:
    image = np.tile(np.array([0.0, 100.0], dtype=np.float32), (128, 64))
    matrix = grid.weights(128, 1.5, 4.0, 31)
    assert grid.sample(image, matrix, matrix)[2:-2, 2:-2] == pytest.approx(50, abs=0.01)


def test_the_rows_of_a_matrix_sum_to_one_inside() -> None:
    matrix = grid.weights(100, 10.3, 2.7, 20)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-5)
    assert grid.weights(10, -20, 1.0, 3).sum() == 0


def test_the_body_is_filled_and_freed_of_the_table() -> None:
    view = np.full((1, 64, 64), -1000.0, dtype=np.float32)
    view[0, 10:40, 10:50] = 30
    view[0, 20:30, 20:40] = -900  # lung
    view[0, 50:52, 5:60] = 200  # table
    body = grid.foreground_of(view, -500)
    assert body[0, 25, 30]
    assert not body[0, 50:52].any()
    assert not body[0, :8].any()


def test_a_mask_is_resampled_like_its_volume() -> None:
    source = volume()
    mask = source.pixels > -500
    made = grid.resample(source, grid.Grid(64, 4.0, -500))
    masked = grid.resample_mask(mask, source, grid.Grid(64, 4.0, -500))
    assert np.mean(masked == (made.view > -485)) > 0.99


def test_images_without_body_are_centred_on_the_image() -> None:
    source = volume(pixels=np.full((8, 96, 96), -1000, dtype=np.float32))
    assert grid.body_box(source, -500) is None
    plane = grid.resample(source, grid.Grid(64, 4.0, -500)).planes[0]
    assert plane is not None
    assert geometry.place(plane, 31.5, 31.5) == pytest.approx((-1.0, -1.0, 0.0))
