"""The colour table of the heat overlays."""

import numpy as np

from pacs_node.results import colours


def test_neighbouring_colours_differ_equally_in_cielab():
    steps = np.linalg.norm(np.diff(colours.ramp_lab(), axis=0), axis=1)
    assert steps.max() / steps.min() < 1.02


def test_lightness_rises_all_the_way_so_that_the_table_survives_grey_printing():
    assert (np.diff(colours.ramp_lab()[:, 0]) > 0).all()


def test_every_colour_can_be_shown_on_a_screen():
    rgb = colours.lab_to_rgb(colours.ramp_lab())
    assert rgb.min() > -0.005 and rgb.max() < 1.005


def test_no_colour_of_the_table_can_be_taken_for_grey():
    table = colours.ramp().astype(int)
    assert (table.max(axis=1) - table.min(axis=1)).min() > 40


def test_white_black_and_red_convert_as_the_standard_says():
    lab = np.array([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0], [53.24, 80.09, 67.20]])
    assert np.allclose(colours.lab_to_rgb(lab), [[1, 1, 1], [0, 0, 0], [1, 0, 0]], atol=0.01)


def test_values_outside_the_range_get_the_ends_of_the_table():
    table = colours.ramp()
    chosen = colours.colour(np.array([-1.0, 0.0, 1.0, 7.0, np.nan], dtype=np.float32))
    assert np.array_equal(chosen, table[[0, 0, 255, 255, 0]])
