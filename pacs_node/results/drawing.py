"""The pages of the secondary capture: a page of text, and a page for each slice that stands out.

::

    ┌──────────────────────────────────────────┐   ┌──────────────────────────────────────────┐
    │ AI · research use          PARTIAL study │   │ AI · research use          PARTIAL study │
    │ score · verdict · standing               │   │ score · verdict                          │
    │ what was analysed, by what, how          │   │ series, slice, position      slice score │
    │ which slices stand out                   │   │ ┌────────────────────────┐ ┌───────────┐ │
    │ remarks                                  │   │ │                        │ │ original  │ │
    │                                          │   │ │    original + heat     │ └───────────┘ │
    │                                          │   │ │                        │ ┌───────────┐ │
    │                                          │   │ │                        │ │  reconstr.│ │
    │ ▁▁▂▁▅█▃▁▁ slice scores                   │   │ └────────────────────────┘ └───────────┘ │
    │                                          │   │ ▒▒ colour bar, what the colours mean ▒▒  │
    └──────────────────────────────────────────┘   └──────────────────────────────────────────┘

The page is nearly square, and its smallest type is read without effort when a viewer shows it at 512 pixels. No patient is named:
the viewer does that from the header, and pixels cannot be corrected later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pacs_node.records import Finding
from pacs_node.results import panels
from pacs_node.results.canvas import AMBER, GREY, LARGE, MEDIUM, SMALL, WHITE, Canvas, Page, fitted, shortened, width_of, wrapped
from pacs_node.results.marks import draw_regions, on_slice, regions_line
from pacs_node.results.modalities import manner_of
from pacs_node.results.panels import SIZE
from pacs_node.results.regions import Region
from pacs_node.results.wording import Slice, algorithm_line, number, score_line

MARGIN = 20
ASIDE = 256  # pixels of the small panels
LEFT, RIGHT = MARGIN, SIZE + 2 * MARGIN  # of the large panel, of the small ones
PANEL_TOP, LOWER_TOP = 144, 144 + ASIDE + 32  # of large and upper, of lower panel
WIDTH, HEIGHT = RIGHT + ASIDE + MARGIN, 820
BANNER = "AI · research use · not for diagnosis"

_ROOM = WIDTH - 2 * MARGIN
_LINE, _SMALL_LINE, _GAP = 36, 28, 4  # from one line of type to the next; more between groups of them
_BAR_TOP = PANEL_TOP + SIZE + 12
_STRIP, _BAR = 84, 24  # height of the strip of slice scores, largest width of a bar


@dataclass(frozen=True, slots=True)
class Heading:
    """What every page says of the run."""

    series: str = ""  # which series the slices are of, "" where it has no number
    partial: bool = False  # the study was not complete


def _banner(canvas: Canvas, heading: Heading) -> None:
    canvas.write((LEFT, 32), BANNER, MEDIUM, AMBER)
    if heading.partial:
        canvas.write((WIDTH - MARGIN, 32), "PARTIAL study", MEDIUM, AMBER, "rs")


# --- text page ---------------------------------------------------------------------------------------------------------


def text_page(title: str, standing: str, rows: Sequence[tuple[str, str]], heading: Heading, finding: Finding) -> Page:
    """Draw the first page: what was found in large type, then names and values; what does not fit is said to be in the report."""
    canvas = Canvas(WIDTH, HEIGHT)
    _banner(canvas, heading)
    y = _write_lines(canvas, 32 + _LINE + 4, fitted(title, LARGE, _ROOM, 2), WHITE)
    y = _write_lines(canvas, y, fitted(standing, LARGE, _ROOM, 2), AMBER)
    strip = len(finding.slice_scores) > 2
    _write_rows(canvas, y + 6, rows, HEIGHT - MARGIN - (_STRIP + 2 * _SMALL_LINE if strip else 0))
    if strip:
        _draw_strip(canvas, finding)
    return canvas.page()


def _write_lines(canvas: Canvas, y: int, lines: Sequence[str], colour: tuple[int, int, int]) -> int:
    """Write lines of large type from base line ``y`` down; returns the next base line."""
    for row, line in enumerate(lines):
        canvas.write((MARGIN, y + row * _LINE), line, LARGE, colour)
    return y + len(lines) * _LINE


def _write_rows(canvas: Canvas, y: int, rows: Sequence[tuple[str, str]], bottom: int) -> None:
    """Write names and values between the base lines ``y`` and ``bottom``; a name is not repeated under itself."""
    column = MARGIN + 20 + max((width_of(name, SMALL) for name, _ in rows), default=0)
    above = ""
    for place, (name, value) in enumerate(rows):
        lines = wrapped(value, SMALL, WIDTH - MARGIN - column) or ["-"]
        last = place == len(rows) - 1
        if y + _GAP + _SMALL_LINE * (len(lines) - last) > bottom:  # the line that says so has to fit, too
            canvas.write((MARGIN, y), "more in the structured report", SMALL, GREY)
            return
        if name != above:
            y += _GAP if above else 0
            canvas.write((MARGIN, y), name, SMALL, GREY)
        for line in lines:
            canvas.write((column, y), line, SMALL)
            y += _SMALL_LINE
        above = name


def _draw_strip(canvas: Canvas, finding: Finding) -> None:
    """Draw a bar for each slice of the series in its order, in amber those that stand out."""
    scores = np.nan_to_num(np.asarray(finding.slice_scores, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = min(0.0, float(scores.min())), max(float(scores.max()), 1e-6)
    floor = HEIGHT - MARGIN - _SMALL_LINE
    edges = LEFT + np.arange(len(scores) + 1) * min(_ROOM / len(scores), _BAR)
    order = [*np.setdiff1d(np.arange(len(scores)), finding.top_slices), *finding.top_slices]  # where bars are narrower than a pixel, those stay in sight
    for index in order:
        left, right = int(edges[index]), max(int(edges[index]), int(edges[index + 1]) - 2)
        top = floor - round(_STRIP * (scores[index] - low) / (high - low))
        canvas.bar((left, min(top, floor - 1), right, floor), AMBER if index in finding.top_slices else GREY)
    item = manner_of(finding.volume).item
    canvas.write((LEFT, HEIGHT - MARGIN), f"{item} scores from first to last {item}, largest {number(high)}; amber: stands out", SMALL, GREY)


# --- slice page --------------------------------------------------------------------------------------------------------


def slice_page(finding: Finding, top: Slice, heading: Heading, regions: Sequence[Region] = ()) -> Page:
    """Draw the page of one slice; ``regions`` are all of the finding."""
    canvas, scale = Canvas(WIDTH, HEIGHT), panels.SCALES[finding.heat_calibrated]
    original, heat, found = panels.anatomy(finding, top.index), panels.heat(finding, top.index), on_slice(regions, top.index)
    _write_head(canvas, finding, top, heading)
    canvas.write((LEFT, PANEL_TOP - 10), "original with heat and regions" if found else "original with heat", SMALL, GREY)
    canvas.write((RIGHT, PANEL_TOP - 10), "original", SMALL, GREY)
    canvas.write((RIGHT, LOWER_TOP - 10), "reconstruction, synthetic", SMALL, GREY)
    canvas.paste((LEFT, PANEL_TOP), panels.overlay(original, heat, scale))
    canvas.paste((RIGHT, PANEL_TOP), _reduced(original))
    canvas.paste((RIGHT, LOWER_TOP), _reduced(panels.reconstruction(finding, top.index)))
    numbered = draw_regions(canvas, (LEFT, PANEL_TOP), finding, top.index, found)
    letters = panels.letters_of(finding, top.index)
    for corner, size in (((LEFT, PANEL_TOP), SIZE), ((RIGHT, PANEL_TOP), ASIDE), ((RIGHT, LOWER_TOP), ASIDE)):
        _write_letters(canvas, corner, size, letters)
    _draw_scale(canvas, (LEFT, _BAR_TOP), scale)
    _write_legend(canvas, finding, top.index, scale, ("" if (heat >= scale.shown_from).any() else "None on this picture.", regions_line(found, numbered)))
    return canvas.page()


def lettered(picture: panels.Image, finding: Finding, index: int) -> Page:
    """Return a panel of a slice, grey or colour, with the orientation at its edges: (SIZE, SIZE, 3)."""
    canvas = Canvas(SIZE, SIZE)
    canvas.paste((0, 0), picture)
    _write_letters(canvas, (0, 0), SIZE, panels.letters_of(finding, index))
    return canvas.page()


def colour_key(scale: panels.Scale) -> Page:
    """Return the colour bar with its ticks as a picture of its own."""
    canvas = Canvas(SIZE + 2 * MARGIN, 72)
    _draw_scale(canvas, (MARGIN, 12), scale)
    return canvas.page()


def window_line(finding: Finding, index: int) -> str:
    """Say the display window of a slice, with what its numbers are."""
    manner = manner_of(finding.volume)
    unit = f" {manner.unit}" if manner.unit else ""
    return f"Window {panels.slice_window(finding, index).words}{unit}{', dark is high' if manner.dark_is_high else ''}."


def _write_head(canvas: Canvas, finding: Finding, top: Slice, heading: Heading) -> None:
    _banner(canvas, heading)
    canvas.write((LEFT, 32 + _LINE), shortened(score_line(finding), MEDIUM, _ROOM), MEDIUM)
    score = f"{top.score_name} {number(top.score)}"
    name = ", ".join(part for part in (heading.series, top.name.replace(", position", " at")) if part)
    canvas.write((LEFT, 32 + 2 * _LINE), shortened(name, MEDIUM, _ROOM - MARGIN - width_of(score, MEDIUM)), MEDIUM)
    canvas.write((WIDTH - MARGIN, 32 + 2 * _LINE), score, MEDIUM, anchor="rs")


def _reduced(panel: panels.Image) -> panels.Image:
    """Return a panel at the size of the small ones."""
    return np.asarray(Image.fromarray(panel).resize((ASIDE, ASIDE), Image.Resampling.BOX))


def _write_letters(canvas: Canvas, corner: tuple[int, int], size: int, letters: dict[str, str]) -> None:
    """Write the orientation at the edges of a panel."""
    (x, y), middle, near, far = corner, size // 2, 8, size - 9
    type_size = MEDIUM if size == SIZE else SMALL
    places = {"left": (near, middle, "lm"), "right": (far, middle, "rm"), "top": (middle, near, "mt"), "bottom": (middle, far, "mb")}
    for edge, letter in letters.items():
        across, down, anchor = places[edge]
        canvas.mark((x + across, y + down), letter, anchor, type_size)


def _draw_scale(canvas: Canvas, corner: tuple[int, int], scale: panels.Scale) -> None:
    left, top = corner
    canvas.paste(corner, panels.colour_bar(scale, SIZE, 20))
    for value, name in scale.ticks:
        share = (value - scale.shown_from) / (scale.top - scale.shown_from)
        anchor = "ls" if share < 0.05 else "rs" if share > 0.95 else "ms"
        across = left + min(round(share * SIZE), SIZE - 1)
        canvas.bar((across, top + 20, across, top + 25), WHITE)
        canvas.write((across, top + 46), name, SMALL, anchor=anchor)


def _write_legend(canvas: Canvas, finding: Finding, index: int, scale: panels.Scale, seen: Sequence[str]) -> None:
    """Say what the colours mean, what of it is ``seen``, and how the pictures are shown."""
    parts = (scale.caption, *seen, window_line(finding, index), f"{algorithm_line(finding.algorithm)}.", "Not for measurements.")
    for row, line in enumerate(fitted(" ".join(filter(None, parts)), SMALL, _ROOM, 3)):
        canvas.write((LEFT, _BAR_TOP + 46 + (row + 1) * _SMALL_LINE), line, SMALL, GREY)
