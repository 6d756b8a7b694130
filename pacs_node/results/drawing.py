"""The pages of the secondary capture: a page of text, and a page for each slice that stands out.

::

    ┌───────────────────────────────────────────────┐
    │ AI · research use            slice, position  │
    │ score · verdict              algorithm        │
    │ ┌─────────────────┐   ┌─────────────────┐     │
    │ │ original + heat │   │ reconstruction  │     │
    │ └─────────────────┘   └─────────────────┘     │
    │ ▒▒ colour bar ▒▒      what the colours mean   │
    └───────────────────────────────────────────────┘

Type is large enough to be read when a viewer shows the page at 512 pixels.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pacs_node.records import Finding
from pacs_node.results import panels
from pacs_node.results.modalities import manner_of
from pacs_node.results.panels import SIZE
from pacs_node.results.wording import Slice, algorithm_line, number, score_line, to_ascii

MARGIN = 24
WIDTH = 2 * SIZE + 3 * MARGIN
HEIGHT = 812
PANEL_TOP = 136
LEFT, RIGHT = MARGIN, SIZE + 2 * MARGIN  # of the two panels
BANNER = "AI · research use · not for diagnosis"

_WHITE, _GREY, _AMBER, _BLACK = (255, 255, 255), (170, 170, 170), (255, 190, 60), (0, 0, 0)
_LARGE, _MEDIUM, _SMALL = 32, 28, 25
_KNOWN = frozenset("·°±")  # beyond ASCII, what the font has

Page = panels.Image


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=size))


def drawable(text: str) -> str:
    """Return ``text`` with the characters that the font has."""
    return "".join(char if char in _KNOWN else to_ascii(char) for char in text)


class Canvas:
    """A black page to write on."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH, HEIGHT), _BLACK)
        self._draw = ImageDraw.Draw(self.image)

    def write(self, place: tuple[int, int], text: str, size: int = _MEDIUM, colour: tuple[int, int, int] = _WHITE, anchor: str = "la") -> None:
        """Write one line; ``anchor`` as in Pillow (la: place is its upper left, ra: its upper right)."""
        self._draw.text(place, drawable(text), fill=colour, font=_font(size), anchor=anchor)

    def mark(self, place: tuple[int, int], text: str) -> None:
        """Write a mark on a picture, around its middle ``place``, with an outline so that it is seen on any ground."""
        self._draw.text(place, drawable(text), fill=_AMBER, font=_font(_MEDIUM), anchor="mm", stroke_width=2, stroke_fill=_BLACK)

    def width_of(self, text: str, size: int) -> int:
        """Return the width of a line in pixels."""
        return int(self._draw.textlength(drawable(text), font=_font(size)))

    def shortened(self, text: str, size: int, width: int) -> str:
        """Return ``text`` cut so that it fits into ``width`` pixels."""
        while len(text) > 4 and self.width_of(text, size) > width:
            text = text[:-4].rstrip() + "..."
        return text

    def wrapped(self, text: str, size: int, width: int) -> list[str]:
        """Break a text into lines of at most ``width`` pixels; a longer word is broken too."""
        lines: list[str] = []
        line = ""
        for word in text.split():
            longer = f"{line} {word}".strip()
            if self.width_of(longer, size) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            while self.width_of(word, size) > width:
                cut = self._longest_start(word, size, width)
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        return [*lines, line] if line else lines

    def _longest_start(self, word: str, size: int, width: int) -> int:
        """Return how many characters of a word fit into ``width`` pixels, at least one."""
        return max(1, bisect_right(range(1, len(word)), width, key=lambda count: self.width_of(word[:count], size)))

    def paste(self, place: tuple[int, int], picture: Page) -> None:
        """Lay a grey or colour picture on the page."""
        self.image.paste(Image.fromarray(picture).convert("RGB"), place)

    def page(self) -> Page:
        """Return the page, (HEIGHT, WIDTH, 3)."""
        return np.asarray(self.image, dtype=np.uint8)


# --- text page ---------------------------------------------------------------------------------------------------------


def text_page(title: str, verdict: str, rows: Sequence[tuple[str, str]]) -> Page:
    """Draw the first page: what was found in large type, then names and values; what does not fit is said to be in the report."""
    canvas = Canvas()
    canvas.write((MARGIN, 22), BANNER, _MEDIUM, _AMBER)
    canvas.write((MARGIN, 66), canvas.shortened(title, _LARGE, WIDTH - 2 * MARGIN), _LARGE)
    canvas.write((MARGIN, 110), canvas.shortened(verdict, _LARGE, WIDTH - 2 * MARGIN), _LARGE, _AMBER)
    y, column, step = 168, MARGIN + 210, _SMALL + 7
    for name, value in rows:
        lines = canvas.wrapped(value, _SMALL, WIDTH - MARGIN - column) or ["-"]
        if y + step * len(lines) > HEIGHT - MARGIN - step:
            canvas.write((MARGIN, HEIGHT - MARGIN - _SMALL), "more in the structured report", _SMALL, _GREY)
            break
        canvas.write((MARGIN, y), name, _SMALL, _GREY)
        for line in lines:
            canvas.write((column, y), line, _SMALL)
            y += step
        y += 4
    return canvas.page()


# --- slice page --------------------------------------------------------------------------------------------------------


def slice_page(finding: Finding, top: Slice) -> Page:
    """Draw the page of one slice."""
    canvas, scale, manner = Canvas(), panels.SCALES[finding.heat_calibrated], manner_of(finding.volume)
    _write_head(canvas, finding, top)
    grey = panels.anatomy(finding, top.index)
    canvas.paste((LEFT, PANEL_TOP), panels.overlay(grey, panels.heat(finding, top.index), scale))
    canvas.paste((RIGHT, PANEL_TOP), panels.reconstruction(finding, top.index))
    canvas.write((LEFT, PANEL_TOP - 34), "original with heat", _SMALL, _GREY)
    canvas.write((RIGHT, PANEL_TOP - 34), "reconstruction by the model (synthetic)", _SMALL, _GREY)
    plane = finding.volume.frames[top.index].plane
    if plane is not None and manner.in_patient:
        for left in (LEFT, RIGHT):
            _write_letters(canvas, left, panels.edge_letters(plane))
    _draw_scale(canvas, scale)
    caption = f"{scale.caption} {window_line(finding)} Not for measurements."
    for row, line in enumerate(canvas.wrapped(caption, _SMALL, SIZE)[:4]):
        canvas.write((RIGHT, PANEL_TOP + SIZE + 14 + row * (_SMALL + 7)), line, _SMALL, _GREY)
    return canvas.page()


def window_line(finding: Finding) -> str:
    """Say the display window, with what its numbers are."""
    (centre, width), manner = finding.window, manner_of(finding.volume)
    unit = f" {manner.unit}" if manner.unit else ""
    return f"Window centre {number(centre)}, width {number(width)}{unit}{', dark is high' if manner.dark_is_high else ''}."


def _write_head(canvas: Canvas, finding: Finding, top: Slice) -> None:
    canvas.write((LEFT, 14), BANNER, _MEDIUM, _AMBER)
    name, room = top.name.replace(", position", " ·"), WIDTH - 3 * MARGIN - canvas.width_of(BANNER, _MEDIUM)
    canvas.write((WIDTH - MARGIN, 14), canvas.shortened(name, _MEDIUM, room), _MEDIUM, anchor="ra")
    canvas.write((LEFT, 54), score_line(finding), _MEDIUM)
    text = f"{top.score_name} {number(top.score)} · {algorithm_line(finding.algorithm)}"
    room = WIDTH - 3 * MARGIN - canvas.width_of(score_line(finding), _MEDIUM)
    canvas.write((WIDTH - MARGIN, 54), canvas.shortened(text, _MEDIUM, room), _MEDIUM, anchor="ra")


def _write_letters(canvas: Canvas, left: int, letters: dict[str, str]) -> None:
    middle, inset = SIZE // 2, 20
    places = {"left": (inset, middle), "right": (SIZE - inset, middle), "top": (middle, inset), "bottom": (middle, SIZE - inset)}
    for edge, (x, y) in places.items():
        canvas.mark((left + x, PANEL_TOP + y), letters[edge])


def _draw_scale(canvas: Canvas, scale: panels.Scale) -> None:
    y = PANEL_TOP + SIZE + 18
    canvas.paste((LEFT, y), panels.colour_bar(scale, SIZE, 28))
    for value, name in scale.ticks:
        share = (value - scale.shown_from) / (scale.top - scale.shown_from)
        anchor = "la" if share < 0.05 else "ra" if share > 0.95 else "ma"
        canvas.write((LEFT + round(share * SIZE), y + 38), name, _SMALL, anchor=anchor)
