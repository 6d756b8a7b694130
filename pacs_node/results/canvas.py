"""A black page to write on, with every text inside its place."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pacs_node.results.lettering import font, lettering

Page = NDArray[np.uint8]
Colour = tuple[int, int, int]

WHITE, GREY, AMBER, CYAN, BLACK = (255, 255, 255), (185, 185, 185), (255, 190, 60), (110, 235, 255), (0, 0, 0)
LARGE, MEDIUM, SMALL = 30, 25, 22  # pixels of an em


class Canvas:
    """A page of ``width`` × ``height`` pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), BLACK)
        self._draw = ImageDraw.Draw(self.image)

    def write(self, place: tuple[int, int], text: str, size: int = MEDIUM, colour: Colour = WHITE, anchor: str = "ls") -> None:
        """Write one line; ``anchor`` as in Pillow (ls: place is where its base line begins, rs: where it ends, ms: its middle)."""
        drawn = lettering(text)
        self._draw.text(place, drawn.text, fill=colour, font=font(size, drawn.wide), anchor=anchor)

    def mark(self, place: tuple[int, int], text: str, anchor: str = "mm", size: int = MEDIUM) -> None:
        """Write a mark on a picture with an outline, so that it is seen on any ground."""
        self._draw.text(place, text, fill=AMBER, font=font(size), anchor=anchor, stroke_width=3, stroke_fill=BLACK)

    def mark_region(self, place: tuple[int, int], text: str) -> None:
        """Write the number of a region, from ``place`` (left, middle) on, in the colour of its outline."""
        self._draw.text(place, text, fill=CYAN, font=font(SMALL), anchor="lm", stroke_width=3, stroke_fill=BLACK)

    def outline(self, points: Sequence[tuple[float, float]]) -> None:
        """Draw a closed outline: light on black, so that it is seen on any ground."""
        for colour, width in ((BLACK, 6), (CYAN, 2)):
            self._draw.line([*points, points[1]], fill=colour, width=width, joint="curve")

    def bar(self, box: tuple[int, int, int, int], colour: Colour) -> None:
        """Fill a rectangle: left, top, right and bottom, all inclusive."""
        self._draw.rectangle(box, fill=colour)

    def paste(self, place: tuple[int, int], picture: Page) -> None:
        """Lay a grey or colour picture on the page."""
        self.image.paste(Image.fromarray(picture).convert("RGB"), place)

    def page(self) -> Page:
        """Return the page, (height, width, 3)."""
        return np.asarray(self.image, dtype=np.uint8)


def width_of(text: str, size: int) -> int:
    """Return the width of a line in pixels."""
    drawn = lettering(text)
    return round(font(size, drawn.wide).getlength(drawn.text) + 0.5)


def shortened(text: str, size: int, width: int) -> str:
    """Return ``text`` cut so that it fits into ``width`` pixels."""
    if width_of(text, size) <= width:
        return text
    kept = bisect_right(range(len(text)), width, key=lambda count: width_of(f"{text[:count].rstrip()}...", size)) - 1
    return f"{text[: max(kept, 0)].rstrip()}..."


def wrapped(text: str, size: int, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` pixels; a longer word is broken too."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if width_of(longer, size) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        while width_of(word, size) > width:
            cut = _longest_start(word, size, width)
            lines.append(word[:cut])
            word = word[cut:]
        line = word
    return [*lines, line] if line else lines


def fitted(text: str, size: int, width: int, most: int) -> list[str]:
    """Return at most ``most`` lines of a text; what does not fit is cut with dots."""
    lines = wrapped(text, size, width)
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], shortened(f"{lines[most - 1]} {lines[most]}", size, width)]


def _longest_start(word: str, size: int, width: int) -> int:
    """Return how many characters of a word fit into ``width`` pixels, at least one: as far as a joint in its second half, if there is one."""
    most = max(1, bisect_right(range(1, len(word)), width, key=lambda count: width_of(word[:count], size)))
    joint = max(word.rfind(sign, 0, most) for sign in "-_/.,") + 1
    return joint if joint > most // 2 else most
