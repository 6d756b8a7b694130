"""From the files of one series to a volume: what all modalities with slices have in common.

::

    files ─ headers ─► one series ─► frames ─► what may be used ─► one stack ─► one of each place ─► pixels in physical units ─► Volume
                                    (enhanced)    (skipped)        (geometry)     (separated)            (calibrate)

A modality brings a `Kind`: what it leaves out, what it takes apart and how its values become physical. Everything else is here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_node.analysis import enhanced, geometry, pixels
from pacs_node.analysis.decoding import Beat, Objects, decode_all
from pacs_node.analysis.stored import StoredPixels, StoredSlice, as_it_is
from pacs_node.dicom.header import has_pixels, is_synthetic, read_header, text_of
from pacs_node.errors import NotAnalysable, UnreadableObject
from pacs_node.records import Frame, Plane, Volume

_NAMED = 6  # groups of a series that a remark names one by one
_UNREAD = 1e9  # sorts what has no number behind what has one


@dataclass(frozen=True, slots=True)
class Slice:
    """One single-frame image, or one frame (``number`` from 1) whose functional groups are written as a single-frame header."""

    path: Path
    header: Dataset
    plane: Plane
    number: int | None = None

    @property
    def grid(self) -> tuple[int, int, float, float]:
        """Rows, columns and pixel spacing."""
        return int(self.header.Rows), int(self.header.Columns), round(self.plane.spacing[0], 3), round(self.plane.spacing[1], 3)

    @property
    def place_in_series(self) -> tuple[int, int, int]:
        """Acquisition number, instance number, frame number."""
        return integer(self.header, "AcquisitionNumber"), integer(self.header, "InstanceNumber"), self.number or 0


Calibrated = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Reasons = Mapping[str, Callable[[Dataset], bool]]


def as_they_are(slices: Sequence[Slice]) -> Calibrated:
    """Keep the values that the modality transform gave."""
    return lambda values: values


@dataclass(frozen=True, slots=True)
class Kind:
    """How one modality is read.

    ``skipped``: why an image is left out, the first reason that holds; ``separated``: what tells apart images that show the same place
    (name for people → number that is read from a header, `math.inf` where it has none); ``calibrate``: gets all usable slices and
    returns what turns values into ``unit``, pixel by pixel; ``weighting``: what contrast an image has, where the modality has several.
    """

    modality: str
    unit: str
    skipped: Reasons
    separated: Mapping[str, Callable[[Dataset], float]] = field(default_factory=dict)
    calibrate: Callable[[Sequence[Slice]], Calibrated] = as_they_are
    weighting: Callable[[Dataset], str] = lambda header: ""


# --- headers -----------------------------------------------------------------------------------------------------------


def integer(header: Dataset, keyword: str) -> int:
    """Return an attribute as a whole number, 0 where it is none."""
    text = text_of(header, keyword)
    return int(text) if text.lstrip("+-").isdigit() else 0


def numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    """Return the values of an attribute, empty where one of them is no finite number."""
    try:
        found = tuple(float(text) for text in text_of(header, keyword).split("\\"))
    except ValueError:
        return ()
    return found if all(math.isfinite(value) for value in found) else ()


def number(header: Dataset, keyword: str) -> float | None:
    """Return the (first) value of an attribute as a finite number, None where it is none."""
    return next(iter(numbers(header, keyword)), None)


def image_type(header: Dataset) -> list[str]:
    """Return the values of Image Type in capitals; of one frame its Frame Type."""
    return [part.strip().upper() for part in text_of(header, "ImageType").split("\\")]


def derived(header: Dataset) -> bool:
    """Tell whether the image was computed from others; compressing with loss makes an image DERIVED too (PS3.3 C.7.6.1.1.5), but not another."""
    return image_type(header)[0] == "DERIVED" and text_of(header, "LossyImageCompression") != "01"


def secondary(header: Dataset) -> bool:
    """Tell whether the image was made after the examination (Image Type value 2)."""
    return image_type(header)[1:2] == ["SECONDARY"]


def localizer(header: Dataset) -> bool:
    """Tell whether the image only serves planning."""
    return "LOCALIZER" in image_type(header)


def no_pixels(header: Dataset) -> bool:
    """Tell whether the object describes no pixels."""
    return not has_pixels(header) or integer(header, "Rows") < 1 or integer(header, "Columns") < 1


def no_geometry(header: Dataset) -> bool:
    """Tell whether the place of the image in the patient is unknown."""
    return geometry.plane_of(header) is None


NO_GEOMETRY = "their position, orientation or pixel spacing is missing or impossible"
SEPARATED: dict[str, Callable[[Dataset], float]] = {
    "stack": lambda header: _first(header, "StackID"),
    "temporal position": lambda header: _first(header, "TemporalPositionIndex", "TemporalPositionIdentifier"),
}
"""What tells images of one place apart in every modality (PS3.3 C.7.6.16.2.2)."""


def _first(header: Dataset, *keywords: str) -> float:
    """The first of the attributes that is there, as a number (text by its letters, so that the order is always the same)."""
    for keyword in keywords:
        text = text_of(header, keyword)
        if text:
            value = number(header, keyword)
            return value if value is not None else float(int.from_bytes(text.encode()[:6].ljust(6, b"\0"), "big"))
    return math.inf


WEIGHTING_REMARKS: dict[str, tuple[str, ...]] = {
    "": (),
    "unknown": ("the header does not say how the images are weighted",),
    "other": ("the images are weighted otherwise than T1, T2, FLAIR and DWI",),
}
"""What people are told of a weighting, where it is not its name."""


def read_headers(files: Iterable[Path], remarks: list[str]) -> list[tuple[Path, Dataset]]:
    """Read what can be read; raises `NotAnalysable` where that is nothing."""
    found, unreadable = [], 0
    for path in files:
        try:
            found.append((path, read_header(path)))
        except UnreadableObject:
            unreadable += 1
    if unreadable:
        remarks.append(f"{unreadable} files are no readable DICOM objects")
    if not found:
        raise NotAnalysable("none of the files is a readable DICOM object")
    return found


def one_series(headers: list[tuple[Path, Dataset]], remarks: list[str]) -> list[tuple[Path, Dataset]]:
    """Keep the series with most images."""
    sizes = Counter(str(header.SeriesInstanceUID) for _, header in headers)
    if len(sizes) > 1:
        remarks.append(f"{len(sizes)} series were given; the one with most images was analysed")
    chosen = min(sizes, key=lambda uid: (-sizes[uid], uid))
    return [(path, header) for path, header in headers if header.SeriesInstanceUID == chosen]


# --- reading -----------------------------------------------------------------------------------------------------------


def read(files: Sequence[Path], kind: Kind, beat: Beat = lambda fraction: None) -> Volume:
    """Read the images of ``kind`` among ``files`` (one series) as a volume; padding is NaN.

    Images that are no part of the stack are left out and named in ``remarks``. ``beat`` hears the fraction done and may raise to
    stop. Raises `NotAnalysable` where nothing is left, `UndecodablePixels` where more than 10 % of the slices cannot be decoded.
    """
    remarks: list[str] = []
    images = enhanced.frames(one_series(read_headers(files, remarks), remarks), remarks)
    found = usable(images, kind, remarks)
    calibrated = kind.calibrate(found)
    slices = without_repeats(one_of_each(largest_stack(found, remarks), kind, remarks), remarks)
    objects = Objects()
    made, kept = decode_all(slices, lambda one: _decoded(one, objects, calibrated), remarks, beat)
    described = geometry.stack([one.plane for one in kept])
    first = kept[0].header
    weighting = kind.weighting(first)
    return Volume(
        pixels=StoredPixels(made),
        unit=kind.unit,
        frames=tuple(Frame(str(one.header.SOPInstanceUID), str(one.header.SOPClassUID), one.number, one.plane) for one in kept),
        modality=kind.modality,
        series_uid=str(first.SeriesInstanceUID),
        frame_of_reference_uid=text_of(first, "FrameOfReferenceUID") or None,
        synthetic=all(is_synthetic(one.header) for one in kept),
        weighting=weighting,
        remarks=(*remarks, *described.remarks(), *WEIGHTING_REMARKS.get(weighting, ())),
    )


def _decoded(one: Slice, objects: Objects, calibrated: Calibrated) -> StoredSlice:
    source = objects.get(one.path, one.header, keep=one.number is not None)
    stored, header = pixels.stored_values(source, one.number or 1), source if one.number is None else one.header
    if header.get("ModalityLUTSequence"):  # a damaged table has to be found now
        return StoredSlice(calibrated(pixels.physical_values(stored, header)), as_it_is)
    rescaled = pixels.rescale_of(stored.dtype, header)
    return StoredSlice(stored, lambda part: calibrated(rescaled(part)))


def usable(images: Sequence[enhanced.Image], kind: Kind, remarks: list[str]) -> list[Slice]:
    """Keep what no reason speaks against, in the order of acquisition; raises `NotAnalysable` naming the reasons where nothing is left."""
    slices: list[Slice] = []
    skipped: Counter[str] = Counter()
    for path, header, frame in images:
        reason = next((text for text, holds in kind.skipped.items() if holds(header)), None)
        plane = geometry.plane_of(header)
        if reason is None and plane is not None:
            slices.append(Slice(path, header, plane, frame))
        elif reason is not None:
            skipped[reason] += 1
    for reason, count in skipped.items():
        remarks.append(f"{count} of {len(images)} images were left out because {reason}")
    if not slices:
        raise NotAnalysable(f"no image of the series can be analysed as {kind.modality}: {'; '.join(skipped)}")
    return sorted(slices, key=lambda one: one.place_in_series)


def largest_stack(slices: list[Slice], remarks: list[str]) -> list[Slice]:
    """Keep the slices of one orientation, matrix and pixel spacing that are most."""
    groups: list[list[Slice]] = []
    for one in slices:
        for group in groups:
            if group[0].grid == one.grid and geometry.parallel(group[0].plane, one.plane):
                group.append(one)
                break
        else:
            groups.append([one])
    largest = max(groups, key=len)
    if len(groups) > 1:
        remarks.append(
            f"the series holds {len(groups)} stacks of differing orientation, matrix or pixel spacing; "
            f"the largest ({len(largest)} of {len(slices)} images) was used"
        )
    return largest


def one_of_each(slices: list[Slice], kind: Kind, remarks: list[str]) -> list[Slice]:
    """Of several echoes, b-values, stacks, … keep the one that shows most places, of equals the first, and name the others."""
    groups: dict[tuple[float, ...], list[Slice]] = {}
    for one in slices:
        groups.setdefault(tuple(value(one.header) for value in kind.separated.values()), []).append(one)
    if len(groups) < 2:
        return slices
    chosen = min(groups, key=lambda key: (-len(geometry.stack([one.plane for one in groups[key]]).order), key))
    differing = [place for place in range(len(kind.separated)) if len({key[place] for key in groups}) > 1]
    names = list(kind.separated)
    others = ["; ".join(_said(names[place], key[place]) for place in differing) for key in sorted(groups) if key != chosen]
    listed = ", ".join(f"({other})" for other in others[:_NAMED]) + (f" and {len(others) - _NAMED} more" if len(others) > _NAMED else "")
    used = "; ".join(_said(names[place], chosen[place]) for place in differing)
    remarks.append(f"the series shows the same places {len(groups)} times; {used} was used, left out: {listed}")
    return groups[chosen]


def _said(name: str, value: float) -> str:
    return f"{name} {value:g}" if value < _UNREAD else f"no {name}" if math.isinf(value) else f"another {name}"


def without_repeats(slices: list[Slice], remarks: list[str]) -> list[Slice]:
    """Put the slices into geometric order; where places repeat, prefer one acquisition that covers most of them."""
    described = geometry.stack([one.plane for one in slices])
    if described.repeats:
        acquisitions: dict[int, list[Slice]] = {}
        for one in slices:
            acquisitions.setdefault(one.place_in_series[0], []).append(one)
        largest = max(acquisitions.values(), key=len)
        if len(acquisitions) > 1 and len(largest) >= 0.5 * len(described.order):
            remarks.append(f"{len(acquisitions)} acquisitions show the same places; the largest ({len(largest)} of {len(slices)} images) was used")
            slices = largest
            described = geometry.stack([one.plane for one in slices])
    if described.repeats:
        remarks.extend(described.remarks()[:1])
    return [slices[index] for index in described.order]
