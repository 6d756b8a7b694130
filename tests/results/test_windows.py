"""The display window: by what a slice shows, the same for original and reconstruction."""

from dataclasses import replace

import numpy as np
import pytest

from pacs_node.results import panels
from pacs_node.results.windows import BONE, BRAIN, LUNG, Window, window_of
from tests.results.modalities import pet, ultrasound
from tests.results.studies import Shape, request

SHAPE = Shape(slices=4, grid=64, grid_spacing=3.0)
SOFT = Window(40.0, 400.0, "soft tissue")
Y, X = np.mgrid[:64, :64]
BODY = np.hypot((X - 32) / 28, (Y - 32) / 22) < 1
LUNGS = (np.hypot((X - 20) / 9, (Y - 32) / 14) < 1) | (np.hypot((X - 44) / 9, (Y - 32) / 14) < 1)
SKULL = np.hypot((X - 32) / 28, (Y - 32) / 22)


def slices_of(**parts):
    """Return a slice of air with parts in HU painted one after the other."""
    view = np.full((64, 64), -1000.0, np.float32)
    for name, value in parts.items():
        view[{"body": BODY, "lungs": LUNGS, "bone": (SKULL < 1) & (SKULL > 0.85), "spine": np.hypot(X - 32, Y - 46) < 6}[name]] = value
    return view


CHEST, BELLY = slices_of(body=40, lungs=-800, spine=500), slices_of(body=40, spine=500)
HEAD = slices_of(body=35, bone=900)


def showing(view, window=(40.0, 400.0), heat=None):
    found = request(SHAPE).finding
    hot = np.zeros((4, 64, 64), np.float32)
    if heat is not None:
        hot[1][heat] = 3.5
    return replace(found, view=np.stack([view] * 4), window=window, heat=hot)


@pytest.mark.parametrize(
    ("view", "window", "expected"),
    [
        (CHEST, (40.0, 400.0), LUNG),
        (BELLY, (40.0, 400.0), SOFT),
        (HEAD, (40.0, 400.0), BRAIN),
        (HEAD, (40.0, 80.0), BRAIN),
        (BELLY, (35.0, 100.0), Window(35.0, 100.0, "brain")),
        (slices_of(body=600), (40.0, 400.0), BONE),
        (np.full((64, 64), np.nan, np.float32), (40.0, 400.0), Window(40.0, 400.0)),
        (slices_of(), (40.0, 400.0), Window(40.0, 400.0)),
    ],
    ids=["chest", "belly", "head and a bundle for the body", "head", "skull base and a bundle for the head", "bone", "nothing", "air"],
)
def test_a_slice_without_heat_has_the_window_of_what_it_shows(view, window, expected):
    assert window_of(showing(view, window), 1, 1.301) == expected


@pytest.mark.parametrize(
    ("heat", "expected"),
    [(LUNGS, LUNG), (np.hypot(X - 32, Y - 30) < 2, SOFT), (np.hypot(X - 32, Y - 46) < 5, BONE), (np.hypot(X - 30, Y - 24) < 1, LUNG)],
    ids=["lung", "between the lungs", "spine", "too small to tell"],
)
def test_what_stands_out_decides_the_window(heat, expected):
    assert window_of(showing(CHEST, heat=heat), 1, 1.301) == expected


def test_lung_is_not_shown_black_by_a_bundle_for_soft_tissue():
    found = showing(CHEST)
    low, high = window_of(found, 1, 1.301).edges
    assert 60 < (-800 - low) / (high - low) * 255 < 120


def test_all_slices_together_have_one_window():
    found = replace(showing(BELLY), view=np.stack([CHEST, CHEST, CHEST, BELLY]))
    assert window_of(found) == LUNG
    assert window_of(showing(BELLY)) == SOFT


@pytest.mark.parametrize("make", [lambda: showing(CHEST, heat=LUNGS), lambda: replace(showing(BELLY), window=(float("nan"), 1.0)), lambda: pet().finding])
def test_original_and_reconstruction_of_a_page_share_their_window(make):
    found = make()
    value = np.float32(np.mean(panels.slice_window(found, 1).edges) * 0.9)
    pixels, model = (np.full_like(grid, value) for grid in (found.volume.pixels, found.reconstruction))
    flat = replace(found, volume=replace(found.volume, pixels=pixels), reconstruction=model)
    assert panels.anatomy(flat, 1)[256, 256] == panels.reconstruction(flat, 1)[256, 256]


def scaled(view, made=request(SHAPE), modality="MR"):
    found = made.finding
    return replace(found, volume=replace(found.volume, modality=modality), view=view.astype(np.float32), window=(50.0, 100.0))


def test_the_window_of_mr_is_that_of_its_series_and_no_bright_vessel_moves_it():
    view = np.where(BODY, np.random.default_rng(1).uniform(40, 90, (4, 64, 64)), 0.5)
    plain = window_of(scaled(view))
    bright = view.copy()
    bright[:, 32, 30:32] = 5000.0
    assert plain.edges == pytest.approx((41, 90), abs=2)
    assert window_of(scaled(bright)) == plain and window_of(scaled(view), 2, 1.301) == plain


@pytest.mark.parametrize(("uptake", "top"), [(0.6, 5.0), (6.3, 7.0), (80.0, 15.0)])
def test_the_window_of_pet_begins_at_zero_and_ends_at_a_whole_unit(uptake, top):
    view = np.where(LUNGS, uptake, np.where(BODY, 0.5, 0.0))
    assert window_of(scaled(np.stack([view] * 4), modality="PT")).edges == (0.0, top)


def test_series_without_contrast_and_other_modalities_keep_the_window_of_their_bundle():
    assert window_of(scaled(np.ones((4, 64, 64)))) == window_of(scaled(np.zeros((4, 64, 64)), modality="PT")) == Window(50.0, 100.0)
    assert window_of(ultrasound().finding, 0, 1.301) == Window(128.0, 256.0)


def test_a_window_is_told_as_viewers_write_it():
    assert (LUNG.words, Window(3.5, 7.0).words) == ("lung, W 1500 L -600", "W 7 L 3.5")
