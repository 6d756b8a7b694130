"""The values by which a source tells who it is of, and whether they still stand anywhere in what was made of it.

``Traces`` hold whole values (numbers, names, places, dates, UIDs) of every attribute that the profile takes away, wherever it is nested,
and the parts of names. Descriptions are no traces: their words stand in many places and identify nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from pydicom.charset import convert_encodings
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs_node.dicom.header import DAMAGED, text_of
from pacs_node.workbench.deidentify.options import Options
from pacs_node.workbench.deidentify.profile import DESCRIPTORS, DEVICE, INSTITUTION, Action, action_for

_SHORTEST = 3  # characters of a value that is looked for in texts
_SHORTEST_IN_BYTES = 6  # characters of a value that is looked for in everything, pixels included
_LEAST_IDEOGRAPHS = 2
DUMMY_DATE = "19000101"  # stands for dates that have to be there; and means nothing where a source has it
_SWITCHING = "iso2022"  # encodings of Python
_ESCAPE = re.compile(rb"\x1b(?:\$[()]?|[(.)-])[@-~]")  # to another set of characters (ISO 2022, PS3.3 C.12.1.1.2)
_LAST_ESCAPE = re.compile(_ESCAPE.pattern + rb"\Z")
_NAMES = re.compile(r"[\^=\s,.;\\/()-]+")
_TEXT = ("AE", "LO", "SH", "ST", "LT", "UC", "UT", "UR")
_NEUTRAL = frozenset({"ANON", "ANONYMISED", "ANONYMIZED", "ANONYMOUS", "DEIDENTIFIED", "NONE", "REMOVED", "UNKNOWN"})  # of what was de-identified before
_GONE = (Action.REMOVE, Action.EMPTY, Action.REPLACE, Action.UID, Action.SHIFT)


@dataclass
class Traces:
    """What must not be found again."""

    texts: set[str] = field(default_factory=set)  # values and parts of names
    dates: set[str] = field(default_factory=set)  # YYYYMMDD
    uids: set[str] = field(default_factory=set)
    retained: set[str] = field(default_factory=set)  # texts and dates that stay as an option says, whatever else they stand for
    said_in: dict[str, str] = field(default_factory=dict)  # keyword of the attribute in which each stands
    encodings: set[str] = field(default_factory=lambda: {"utf-8", "ascii"})  # in which the texts may stand in a file

    def __or__(self, other: Traces) -> Traces:
        """Return both together."""
        return Traces(*(getattr(self, one.name) | getattr(other, one.name) for one in fields(self)))

    def add(self, other: Traces) -> None:
        """Take over those of another."""
        for one in fields(self):
            mine = getattr(self, one.name)
            mine |= getattr(other, one.name)

    @cached_property
    def gone(self) -> frozenset[str]:
        """The texts that are not to be found."""
        return frozenset(self.texts - self.retained)

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """A pattern that finds the texts and dates as whole words, None where there is nothing to look for."""
        words = sorted({*self.gone, *self._days, *(text for date in self._days for text in _spelled(date))}, key=len, reverse=True)
        by_itself, anywhere = ("|".join(re.escape(word) for word in words if word.isascii() is ascii) for ascii in (True, False))
        found = [rf"(?<![^\W_])(?:{by_itself})(?![^\W_])"] * bool(by_itself) + [f"(?:{anywhere})"] * bool(anywhere)  # names without blanks around them
        return re.compile("|".join(reversed(found)), re.IGNORECASE) if found else None

    @cached_property
    def _days(self) -> frozenset[str]:
        return frozenset(self.dates - self.retained - {DUMMY_DATE})

    def is_one(self, text: str) -> bool:
        """Tell whether a value as a whole is a trace, and too long to be one by chance: a number that stands in another attribute as well."""
        return len(text) >= _SHORTEST_IN_BYTES and text in self.gone | self._days

    def left_in(self, data: bytes, public: str = "") -> str:
        """Return the keyword of a UID, a date, or a text too long to be there by chance, that stands in the bytes of a file by itself; "" where there is none.

        Texts that are words of ``public``, of the public codes that the file holds, are not looked for: a patient may be called Head.
        """
        words = public.casefold()
        texts = (text for text in self.gone if text.casefold() not in words)
        for text in (*self.uids, *self._days, *texts):
            spelled = {encoded for encoding in self.encodings for encoded in [_encoded(text, encoding)] if len(encoded) >= _SHORTEST_IN_BYTES}
            if any(_stands_in(encoded, data) for encoded in spelled) or any(form in data for form in self._switched(text)):
                return self.said_in.get(text, "an attribute")
        return ""

    def _switched(self, text: str) -> set[bytes]:
        """Return how a text stands in the encodings that switch between sets of characters (ISO 2022), inside other characters and at their begin."""
        forms = set()
        for encoding in self.encodings if not text.isascii() else ():
            if encoding.startswith(_SWITCHING):
                encoded = _LAST_ESCAPE.sub(b"", _encoded(text, encoding))
                forms |= {encoded, _ESCAPE.sub(b"", encoded)}
        return {form for form in forms if len(form) >= _SHORTEST_IN_BYTES}

    def left_in_texts(self, dataset: Dataset, public: str = "") -> str:
        """Return as `left_in` does of the texts of a dataset, decoded: however one is written there, it is found. ASCII reads the same in every encoding."""
        words = public.casefold()
        wanted = {folded: text for text in self.gone if not text.isascii() and (folded := text.casefold()) not in words}
        for element, _ in elements_of(dataset) if wanted else ():
            if element.VR in (*_TEXT, "PN"):
                said = "\\".join(map(str, values_of(element))).casefold()
                for folded, text in wanted.items():
                    if folded in said:
                        return self.said_in.get(text, "an attribute")
        return ""


def _spelled(date: str) -> Iterator[str]:
    """Give the ways in which people write a date, most of which begin with the day."""
    year, month, day = date[:4], date[4:6], date[6:8]
    for mark in "-/.":
        for one in (year, month, day), (day, month, year), (month, day, year), (day, month, year[2:]), (day.lstrip("0"), month.lstrip("0"), year):
            yield mark.join(one)


def _encoded(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding)
    except (UnicodeError, LookupError):
        return b""


def _stands_in(word: bytes, data: bytes) -> bool:
    """Tell whether a word stands in some bytes, and not only as part of a longer number or word."""
    start = data.find(word)
    while start >= 0:
        around = data[start - 1 : start] + data[start + len(word) : start + len(word) + 1]
        if not any((byte < 128 and chr(byte).isalnum()) or byte == ord(".") for byte in around):
            return True
        start = data.find(word, start + 1)
    return False


def traces_of(dataset: Dataset, options: Options) -> Traces:
    """Collect the traces of a source, nested ones included; what cannot be read is passed over (it does not stay either)."""
    traces = Traces()
    traces.encodings |= _encodings(dataset.get("SpecificCharacterSet"))
    for element, path in elements_of(dataset):
        try:
            if element.keyword == "SpecificCharacterSet":  # of an item, perhaps
                traces.encodings |= _encodings(element.value)
            action = action_for(element.tag, element.VR, text_of(dataset, "SOPClassUID"), path, options)
            keyword = keyword_for_tag(element.tag)
            if action in _GONE and keyword not in DESCRIPTORS:
                traces.add(_of(element))
            elif action is Action.KEEP and keyword in DEVICE | INSTITUTION:
                traces.retained |= {text for value in values_of(element) if (text := _text(value))}
            elif action is Action.KEEP and element.VR in ("DA", "DT"):
                traces.retained |= {_text(value)[:8] for value in values_of(element)}
        except DAMAGED:
            continue
    return traces


def elements_of(dataset: Dataset, path: tuple[str, ...] = ()) -> Iterator[tuple[DataElement, tuple[str, ...]]]:
    """Give every element of a dataset, nested ones included, with the keywords of the sequences around it; what cannot be read is passed over."""
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
        except DAMAGED:
            continue
        yield element, path
        if element.VR == "SQ" and isinstance(element.value, Sequence):
            for item in element.value:
                yield from elements_of(item, (*path, element.keyword))


def _of(element: DataElement) -> Traces:
    """Return what an element tells."""
    found = Traces()
    if element.tag.is_private:
        return found  # what it means is not known: it goes as a whole, and its words may be anybody's
    for text in map(_text, values_of(element)):
        if text.upper() in _NEUTRAL:
            continue
        if element.VR == "PN":
            found.texts |= {part for part in _NAMES.split(text) if _telling(part)} | ({text} if len(text) >= _SHORTEST else set())
        elif element.VR in _TEXT and len(text) >= _SHORTEST:
            found.texts.add(text)
        elif element.VR in ("DA", "DT") and re.match(r"\d{8}", text):
            found.dates.add(text[:8])
        elif element.VR == "UI" and len(text) >= _SHORTEST_IN_BYTES and not text.startswith("1.2.840.10008."):
            found.uids.add(text)
    found.said_in = dict.fromkeys(found.texts | found.dates | found.uids, element.keyword)
    return found


def values_of(element: DataElement) -> list[object]:
    """Return an element's values; none of a sequence."""
    if element.VR == "SQ" or element.value is None or element.value == "":
        return []
    return list(element.value) if element.VM > 1 else [element.value]


def _text(value: object) -> str:
    return str(value or "").strip("\0 ")


def _telling(part: str) -> bool:
    return len(part) >= (_SHORTEST if part.isascii() else _LEAST_IDEOGRAPHS)


def _encodings(declared: Any) -> set[str]:
    try:
        return {*convert_encodings(declared or "ISO_IR 6"), "utf-8"}
    except DAMAGED:
        return set()
