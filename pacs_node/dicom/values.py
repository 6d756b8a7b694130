"""Looking attributes up by the keys that people write in rules, and comparing their values by what they are.

::

    "SliceThickness"                              a keyword of PS3.6
    "RequestAttributesSequence.ScheduledProcedureStepID"   inside a sequence, in any of its items
    "(0029,SIEMENS CSA HEADER,10)"                private: group, private creator, last two digits of the element (PS3.5 7.8.1)

What an enhanced multi-frame object keeps in its functional groups (PS3.3 C.7.6.16) is found by the same keyword, once for each frame.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag, Tag

Value = str | int | float | bytes
Places = tuple[tuple[Value, ...], ...]

_PART = re.compile(r"\([^()]*(?:\([^()]*\)[^()]*)*\)|[^.]+")
_PRIVATE = re.compile(r"\(\s*([0-9A-Fa-f]{4})\s*,\s*(.+?)\s*,\s*(?:xx)?([0-9A-Fa-f]{2})\s*\)")
_TAG = re.compile(r"\(?\s*([0-9A-Fa-f]{4})\s*,?\s*([0-9A-Fa-f]{4})\s*\)?")
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

_NUMBERS = ("DS", "IS", "FL", "FD", "SL", "SS", "UL", "US", "SV", "UV", "OF", "OD")

# What reading one damaged value may raise in pydicom; such a value counts as missing.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, IndexError, ArithmeticError, RecursionError, BytesLengthException)


@dataclass(frozen=True, slots=True)
class Part:
    """One step of a key: a tag, or a private element that is found by its creator (``tag`` then holds group and last two digits)."""

    tag: int
    creator: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key as written, its steps, and the value representation of its last step (None where only the object can tell: private ones)."""

    text: str
    parts: tuple[Part, ...]
    vr: str | None


# --- keys --------------------------------------------------------------------------------------------------------------


def parse_key(text: str) -> Key:
    """Read a key; raises ValueError with a sentence that says what to write instead."""
    pieces = _PART.findall(text.strip())
    if not pieces or "".join(pieces).count("(") != text.count("(") or ".".join(pieces) != text.strip():
        raise ValueError(_no_attribute(text))
    steps = [_parse_part(piece) for piece in pieces]
    for (_, vr), piece in zip(steps[:-1], pieces, strict=False):
        if vr not in ("SQ", None):
            raise ValueError(f"{piece!r} is no sequence, so nothing can follow it: remove what comes after the dot")
    return Key(text.strip(), tuple(part for part, _ in steps), steps[-1][1])


def _parse_part(text: str) -> tuple[Part, str | None]:
    text = text.strip()
    if (private := _PRIVATE.fullmatch(text)) is not None:
        group = int(private[1], 16)
        if group % 2 == 0:
            raise ValueError(f"{text!r} has the even group {private[1]}, but private groups are odd (PS3.5 7.8): use the keyword of a standard attribute")
        return Part(group << 16 | int(private[3], 16), private[2]), None
    tag = tag_for_keyword(text)
    if tag is None:
        raise ValueError(_unknown(text))
    return Part(tag), dictionary_VR(tag).split(" or ")[0]


def _no_attribute(text: str) -> str:
    return f'{text!r} is no attribute: write a keyword such as BodyPartExamined, or "(gggg,creator,ee)" in quotes for a private one'


def _unknown(text: str) -> str:
    if (tag := _TAG.fullmatch(text)) is not None:
        group, element = int(tag[1], 16), int(tag[2], 16)
        if keyword := keyword_for_tag(Tag(group, element)):
            return f"{text!r} is written as a number: write its keyword {keyword}"
        return f"{text!r} is in no part of PS3.6: write a keyword, or (gggg,creator,ee) for a private attribute"
    if "(" in text or not text:
        return _no_attribute(text)
    known = [entry[4] for entry in DicomDictionary.values() if entry[4]]
    by_case = [word for word in known if word.casefold() == text.casefold()]
    close = by_case or difflib.get_close_matches(text, known, n=1, cutoff=0.75)
    return f"{text!r} is no keyword of PS3.6" + (f"; did you mean {close[0]}?" if close else ": look it up in the DICOM data dictionary")


# --- looking up --------------------------------------------------------------------------------------------------------


def values(dataset: Dataset, key: Key) -> list[Value]:
    """Return every value of an attribute, ``[]`` where it is missing, empty or unreadable.

    Numbers come as int or float, everything that is text (names, dates, UIDs, …) as trimmed str, binary values as bytes.
    """
    return [value for place in places(dataset, key) for value in place]


def places(dataset: Dataset, key: Key) -> Places:
    """Return the values place by place: one place for the object, or one for each frame where the frames' functional groups hold the attribute."""
    found = tuple(_along(_holder(dataset, key.parts[0]), key.parts))
    if found or (len(key.parts) > 1 and _step(dataset, key.parts[0]) is not None):
        return (found,)
    return _framewise(dataset, key)


def _holder(dataset: Dataset, first: Part) -> Dataset:
    """Return the file meta information for attributes of group 0002, the dataset for all others."""
    meta = getattr(dataset, "file_meta", None)
    return meta if first.tag >> 16 == 0x0002 and isinstance(meta, Dataset) else dataset


def _framewise(dataset: Dataset, key: Key) -> Places:
    shared = [value for group in _groups(dataset, _FUNCTIONAL_GROUPS[0]) for value in _in_macros(group, key)]
    if shared:
        return (tuple(shared),)  # an attribute stands either in the shared groups or in those of the frames (C.7.6.16.1.1)
    frames = tuple(tuple(_in_macros(group, key)) for group in _groups(dataset, _FUNCTIONAL_GROUPS[1]))
    return frames if any(frames) else ((),)


def _groups(dataset: Dataset, keyword: str) -> Iterable[Dataset]:
    try:
        return dataset.get(keyword) or ()
    except _UNREADABLE:
        return ()


def _in_macros(group: Dataset, key: Key) -> Iterator[Value]:
    """Yield what one item of functional groups holds: directly (a key that begins with the macro's sequence), or one level below."""
    direct = list(_along(group, key.parts))
    if direct:
        yield from direct
        return
    for tag in list(group.keys()):
        if tag.is_private and key.parts[0].creator is None:
            continue  # some makers keep whole datasets of other objects in private macros
        for item in _items(_element(group, tag)):
            yield from _along(item, key.parts)


def _along(dataset: Dataset, parts: tuple[Part, ...]) -> Iterator[Value]:
    element = _step(dataset, parts[0])
    if element is None:
        return
    if len(parts) == 1:
        yield from _python(element)
        return
    for item in _items(element):
        yield from _along(item, parts[1:])


def _step(dataset: Dataset, part: Part) -> DataElement | None:
    if part.creator is None:
        return _element(dataset, BaseTag(part.tag))
    group, low = part.tag >> 16, part.tag & 0xFF
    for block in range(0x10, 0x100):  # PS3.5 7.8.1: (gggg,0010–00FF) reserve the blocks
        creator = _element(dataset, Tag(group, block)) if Tag(group, block) in dataset else None
        if creator is not None and str(creator.value).strip().casefold() == part.creator.casefold():
            return _element(dataset, Tag(group, block << 8 | low))
    return None


def _element(dataset: Dataset, tag: BaseTag) -> DataElement | None:
    try:
        return dataset.get(tag)
    except _UNREADABLE:
        return None


def _items(element: DataElement | None) -> Iterable[Dataset]:
    return element.value or () if element is not None and element.VR == "SQ" else ()


def _python(element: DataElement) -> list[Value]:
    if element.VR == "SQ":
        return [f"{len(element.value)} items"] if element.value else []
    try:
        raw = element.value
        several = isinstance(raw, Iterable) and not isinstance(raw, str | bytes) and not hasattr(raw, "original_string")
        converted = [_one(value, element.VR) for value in (raw if several else [raw])]
    except _UNREADABLE:
        return []
    return [value for value in converted if value not in ("", None, b"")]


def _one(value: object, vr: str) -> Value | None:
    if value is None or isinstance(value, bytes):
        return _text_in(value) if value else None
    if isinstance(value, int) and vr != "AT":
        return int(value)
    if isinstance(value, float) or vr in _NUMBERS:
        number = float(str(value))  # raises ValueError where the value is no number after all
        return number if math.isfinite(number) else None
    text = str(value).strip().strip("\0").strip()
    return text.rstrip("^=") if vr == "PN" else text


def _text_in(value: bytes) -> Value:
    """Return the text in a value of unknown representation (private attributes read as UN), or its bytes where it is no text."""
    text = value.rstrip(b"\0 ").decode("ascii", errors="replace")
    return text.strip() if text.isprintable() and "\ufffd" not in text else value


# --- comparing ---------------------------------------------------------------------------------------------------------


class Kind(Enum):
    """How values of an attribute compare."""

    NUMBER = "a number"
    AGE = "an age such as 018Y or 18 (years)"
    DATE = "a date such as 20240131"
    TIME = "a time such as 22:30"
    TEXT = "text"
    UNKNOWN = "a number or text"  # private attributes: told by the value itself


_KINDS = dict.fromkeys(_NUMBERS, Kind.NUMBER)
_KINDS |= {"AS": Kind.AGE, "DA": Kind.DATE, "TM": Kind.TIME}

Comparable = float | str


def kind_of(vr: str | None) -> Kind:
    """Return how values of a value representation compare; None: known only from the value."""
    return Kind.UNKNOWN if vr is None else _KINDS.get(vr, Kind.TEXT)


def comparable(value: object, kind: Kind) -> Comparable | None:
    """Turn a found or a wanted value into what compares by ``==`` and ``<``; None where it is nothing of that kind."""
    return None if isinstance(value, bytes) else _READERS[kind](plain_text(value))


def plain_text(value: object) -> str:
    """Return a value as people write it: trimmed, in one Unicode form, whole numbers without decimal point."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return unicodedata.normalize("NFC", str(value)).strip()


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _age(text: str) -> float | None:
    years = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
    match = re.fullmatch(r"([0-9]{1,3})([YMWD]?)", text.upper())
    return int(match[1]) * years[match[2] or "Y"] if match else None


def _date(text: str) -> str | None:
    match = re.fullmatch(r"([0-9]{4})([-./]?)([0-9]{2})\2([0-9]{2})", text)
    return match[1] + match[3] + match[4] if match else None


def _time(text: str) -> float | None:
    match = re.fullmatch(r"([0-9]{2}):?([0-9]{2})?:?([0-9]{2}(?:\.[0-9]+)?)?", text)
    return int(match[1]) * 3600 + int(match[2] or 0) * 60 + float(match[3] or 0) if match else None


def _folded(text: str) -> str:
    return text.casefold()


def _number_or_text(text: str) -> Comparable:
    number = _number(text)
    return _folded(text) if number is None else number


_READERS: dict[Kind, Callable[[str], Comparable | None]] = {
    Kind.NUMBER: _number,
    Kind.AGE: _age,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.TEXT: _folded,
    Kind.UNKNOWN: _number_or_text,
}
