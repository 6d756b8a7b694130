"""Time spans, sizes, AE titles and ports as an administrator writes them, and the base of every section."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_TIME_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _split_number(text: object, units: Sequence[str], what: str) -> tuple[float, str]:
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z%]+)\s*", str(text))
    if not match or match[2] not in units:
        raise ValueError(f"{text!r} is no {what}: write a number and one of {', '.join(units)}")
    return float(match[1]), match[2]


def parse_duration(text: object) -> timedelta:
    """Turn ``10s``, ``2h`` or ``14d`` into a time span; raises ValueError otherwise."""
    if isinstance(text, timedelta):
        return text
    number, unit = _split_number(text, list(_TIME_UNITS), "time span")
    return timedelta(seconds=number * _TIME_UNITS[unit])


class Size(BaseModel):
    """An amount of disk: bytes, or a percentage of the disk."""

    model_config = ConfigDict(frozen=True)
    number: float
    percent: bool = False

    def bytes_of(self, total: int) -> int:
        """Return the size in bytes on a disk of ``total`` bytes."""
        return int(total * self.number / 100) if self.percent else int(self.number)


def parse_size(text: object) -> Size:
    """Turn ``5GB``, ``512MiB`` or ``85%`` into a `Size`; raises ValueError otherwise."""
    if isinstance(text, Size):
        return text
    number, unit = _split_number(text, [*_SIZE_UNITS, "%"], "size")
    if unit == "%":
        if number > 100:
            raise ValueError(f"{text!r} is more than the whole disk")
        return Size(number=number, percent=True)
    return Size(number=number * _SIZE_UNITS[unit])


def _ae_title(text: object) -> str:
    title = str(text).strip()
    if not 1 <= len(title) <= 16 or "\\" in title or not title.isascii() or not title.isprintable():
        raise ValueError(f"{text!r} is no AE title: 1 to 16 printable ASCII characters without backslash (PS3.5 6.2)")
    return title


def _byte_count(text: object) -> int:
    size = Size(number=text) if isinstance(text, int) and not isinstance(text, bool) else parse_size(text)
    if size.percent or size.number < 1:
        raise ValueError(f"{text!r}: write a number of bytes above zero, such as 100MB; a share of the disk has no meaning here")
    return int(size.number)


def _sop_class(text: object) -> str:
    """Return the UID of a SOP class given as UID or as keyword (PS3.6 Table A-1)."""
    from pydicom._uid_dict import UID_dictionary  # only where a class is named: commands start faster without pydicom

    word = str(text).strip()
    if word in UID_dictionary or re.fullmatch(r"[0-2](\.(0|[1-9][0-9]*))+", word):
        return word
    keywords = {entry[4]: uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class" and entry[4]}
    if word not in keywords:
        close = difflib.get_close_matches(word, keywords, n=1)
        raise ValueError(f"{text!r} is no SOP class: write a UID or a keyword such as {close[0] if close else 'EncapsulatedPDFStorage'}")
    return keywords[word]


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
DiskSize = Annotated[Size, BeforeValidator(parse_size)]
ByteCount = Annotated[int, BeforeValidator(_byte_count)]
SOPClass = Annotated[str, BeforeValidator(_sop_class)]
AETitle = Annotated[str, BeforeValidator(_ae_title)]
Port = Annotated[int, Field(ge=0, le=65535)]  # 0: any free port


class Section(BaseModel):
    """Base of every part of the configuration: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
