"""The letters on a page: which font draws a text, and what stands for a character that no font here has.

::

    text ─► composed (NFC) ─► Pillow's own font has it all? ────────────────► drawn with it
                              the wide font (extra `fonts`) has the rest? ──► drawn with that
                              else ─► each character that is missing is written in Latin letters (anyascii)

So a page never shows the empty boxes of missing glyphs. Romanised text tells Cyrillic, Greek, kana and Hangul well; Arabic and
Hebrew lose their vowels, and Chinese characters get their Chinese reading, in Japanese texts too.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import cast

from anyascii import anyascii
from PIL import ImageFont

_OWN = frozenset(map(chr, range(32, 127))) | frozenset("°±«»·…“”‘’™")  # what Pillow's font (Aileron, CC0) has of what we write
_UNLIKE = {"×": "x", "\u2212": "-", "–": "-", "—": "-", "µ": "u", "μ": "u"}  # where anyascii has something else, or more than one sign
_WIDE_PACKAGE, _WIDE_FILE = "noto_cjk_sans_otc", "NotoSansCJK-Regular.ttc"  # Noto Sans CJK, SIL OFL 1.1: Latin, Greek, Cyrillic, Chinese, Japanese, Korean
_NO_CHARACTER = "\U0010fffd"  # private use: every font draws the glyph for what it lacks


@dataclass(frozen=True, slots=True)
class Lettering:
    """A text as it can be drawn, and whether the wide font is needed for that."""

    text: str
    wide: bool = False


@lru_cache(maxsize=16)
def font(size: int, wide: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font of an em of ``size`` pixels."""
    path = wide_font() if wide else None
    if path is None:
        return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=size))
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=1)
def wide_font() -> Path | None:
    """Return the file of the wide font, None where the extra ``fonts`` is not installed."""
    try:
        found = Path(str(files(_WIDE_PACKAGE).joinpath(_WIDE_FILE)))
    except ModuleNotFoundError:
        return None
    return found if found.is_file() else None


@lru_cache(maxsize=256)
def lettering(text: str) -> Lettering:
    """Return ``text`` as it is drawn: one line, of characters that its font has."""
    line = " ".join(unicodedata.normalize("NFC", text).split())
    if all(char in _OWN for char in line):
        return Lettering(line)
    if wide_font() is None:
        return Lettering(romanised(line))
    kept = "".join(char if char in _OWN or _wide_has(char) else romanised(char) for char in line)
    return Lettering(kept, wide=not all(char in _OWN for char in kept))


def romanised(text: str) -> str:
    """Write a text with the characters of Pillow's font only; marks without a sound of their own fall away, what is unknown becomes ``?``."""
    return "".join(char if char in _OWN else _romanised(char) for char in text)


def _romanised(char: str) -> str:
    silent = unicodedata.category(char) in ("Mn", "Mc", "Me", "Cf", "Cc")
    return _UNLIKE.get(char) or anyascii(char) or ("" if silent else "?")


@lru_cache(maxsize=4096)
def _wide_has(char: str) -> bool:
    """Say whether the wide font has a glyph for a character: what it draws is not the glyph for missing ones."""
    if unicodedata.category(char)[0] in "CZM":  # controls, spaces and marks draw nothing, or belong to the letter before
        return False
    known = font(24, wide=True)
    return bytes(known.getmask(char)) != bytes(known.getmask(_NO_CHARACTER))
