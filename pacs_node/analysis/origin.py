"""Which scanner made a series, of which region: studies are judged by those of their own kind where there are enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from pacs_node.dicom.header import read_header, text_of
from pacs_node.errors import UnreadableObject
from pacs_node.records import Origin

_LENGTH = 64  # characters of an LO value (PS3.5 6.2); damaged headers hold anything


def origin_of(header: Dataset) -> Origin:
    """Read region and scanner from a header (PS3.3 C.7.3.1, C.7.5.1): spaces and case make no difference."""
    region, manufacturer, model, station = (
        " ".join(text_of(header, keyword).split()).upper()[:_LENGTH] for keyword in ("BodyPartExamined", "Manufacturer", "ManufacturerModelName", "StationName")
    )
    return Origin(region, manufacturer, model, station)


def origin_in(files: Sequence[Path]) -> Origin:
    """Return the origin that the first readable file of a series names."""
    for file in files:
        try:
            return origin_of(read_header(file))
        except UnreadableObject:
            continue
    return Origin()


def is_known(origin: Origin) -> bool:
    """Tell whether the header names a scanner."""
    return bool(origin.manufacturer or origin.model or origin.station)


def words(origin: Origin) -> str:
    """Name an origin for people: ``ACME SCAN 3, station CT1, HEAD``."""
    scanner = " ".join(part for part in (origin.manufacturer, origin.model) if part)
    station = f"station {origin.station}" if origin.station else ""
    return ", ".join(part for part in (scanner, station, origin.region) if part) or "an unnamed scanner"
