"""The pages as they were looked at by eye: each is drawn anew and compared, tile by tile, with the kept picture.

The threshold lies between what may differ from machine to machine and what a person would notice (measured on these pages): a rounding of one
grey level everywhere leaves the least alike tile at 0.96, letters of another rasteriser that lie a third of a pixel aside at 0.88;
one other digit in a line brings it to 0.76, all text a pixel aside to 0.44, a missing or flipped letter to 0.45, moved heat to 0.26.
"""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import shift

from pacs_node.results import panels
from pacs_node.results.canvas import Canvas
from pacs_node.results.windows import Window
from tests.results.golden_cases import FOLDER, GOLDEN, a_slice, saved, seen
from tests.results.similarity import least, ssim
from tests.results.studies import request

ALIKE = 0.85
ANEW = "if that is meant: python -m tests.results.golden_cases, and look at the pictures that changed"


def kept(name):
    return np.asarray(Image.open(FOLDER / f"{name}.png").convert("RGB"))


@pytest.mark.parametrize("name", GOLDEN)
def test_a_page_looks_as_it_did_when_it_was_looked_at(name):
    alike, (row, column) = least(kept(name), GOLDEN[name]())
    assert alike >= ALIKE, f"{name} differs most at row {row}, column {column}; {ANEW}"


def test_every_kept_picture_has_its_page_and_all_are_small():
    files = list(FOLDER.glob("*.png"))
    assert {file.stem for file in files} == set(GOLDEN)
    assert sum(file.stat().st_size for file in files) < 1_000_000


def test_a_picture_of_few_colours_is_kept_with_few_bytes_and_looks_the_same(tmp_path):
    page = GOLDEN["summary-above"]()
    saved(page, tmp_path / "page.png")
    assert least(np.asarray(Image.open(tmp_path / "page.png").convert("RGB")), page)[0] > 0.999


# --- a test that cannot fail shows nothing ------------------------------------------------------------------------------


def flipped(plane, letters=panels.edge_letters):
    found = letters(plane)
    return found | {"left": found["right"], "right": found["left"]}


def lettered(edge):
    return lambda plane, letters=panels.edge_letters: letters(plane) | {edge: " "}


def moved(canvas, place, *rest, write=Canvas.write, **options):
    write(canvas, (place[0] + 1, place[1]), *rest, **options)


def other_digit(canvas, place, text, *rest, write=Canvas.write, **options):
    write(canvas, place, text.replace("0.05", "0.01"), *rest, **options)


CHANGES = {
    "letters flipped": (panels, "edge_letters", flipped),
    "a letter left out": (panels, "edge_letters", lettered("top")),
    "no heat": (panels, "overlay", lambda grey, heat, scale: np.repeat(grey[..., None], 3, axis=-1)),
    "heat moved by a grid pixel": (panels, "heat", lambda finding, index, heat=panels.heat: np.roll(heat(finding, index), 8, axis=1)),
    "anatomy mirrored": (panels, "anatomy", lambda finding, index, anatomy=panels.anatomy: anatomy(finding, index)[:, ::-1]),
    "another window": (panels, "slice_window", lambda finding, index: Window(45.0, 80.0)),
    "another end of the scale": (panels, "SCALES", {True: replace(panels.SCALES[True], shown_from=1.5)}),
    "colours reversed": (panels, "colour", lambda values, colour=panels.colour: colour(1 - values)),
    "text moved by a pixel": (Canvas, "write", moved),
    "one digit changed": (Canvas, "write", other_digit),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_a_person_would_notice_is_noticed(monkeypatch, change):
    monkeypatch.setattr(*CHANGES[change])
    assert least(kept("slice-ct"), GOLDEN["slice-ct"]())[0] < ALIKE - 0.05


def test_what_differs_from_machine_to_machine_is_not():
    page = kept("slice-ct")
    rounded = np.clip(page.astype(int) + np.random.default_rng(1).integers(-1, 2, page.shape), 0, 255).astype(np.uint8)
    aside = np.clip(np.round(shift(page.astype(float), (0, 0.3, 0), order=1)), 0, 255).astype(np.uint8)
    assert least(page, rounded)[0] > ALIKE + 0.1 and least(page, aside)[0] > ALIKE


def test_similarity_is_one_for_the_same_page_and_falls_with_what_differs():
    page = a_slice(seen(request()))
    assert least(page, page)[0] == pytest.approx(1.0)
    darker = (page * 0.5).astype(np.uint8)
    assert -1 <= ssim(page, 255 - page).min() < 0 < least(page, darker)[0] < 0.9
    assert least(page, page[:-1]) == (-1.0, (0, 0))
