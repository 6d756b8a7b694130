"""Ultrasound: a series of stills and cine loops becomes a stack of grey pictures (PS3.3 A.6, A.7, A.59; C.8.5.5, C.8.5.6).

::

    frame ─ colour to grey ─► region of the B-mode picture ─► what the transducer sees (the fan) ─► 0…255, NaN elsewhere
            (Doppler: NaN)    (Sequence of Ultrasound Regions)      (by content)

Plain ultrasound has no place in the patient: frames have no plane, at most a pixel spacing. Three-dimensional objects (enhanced US
volumes) are read like other slices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedUSVolumeStorage, UltrasoundImageStorage, UltrasoundMultiFrameImageStorage

from pacs_node.analysis import pixels, stack
from pacs_node.analysis.decoding import Beat, Objects, decode_all
from pacs_node.analysis.stored import StoredPixels, StoredSlice, as_it_is
from pacs_node.analysis.us_picture import Region, fan, region_of, to_grey
from pacs_node.dicom.header import is_synthetic, text_of
from pacs_node.errors import NotAnalysable
from pacs_node.records import Frame, Volume

UNIT = "1"  # UCUM: brightness 0…255, arbitrary
CLASSES = (
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    "1.2.840.10008.5.1.4.1.1.6",  # retired predecessors of the two
    "1.2.840.10008.5.1.4.1.1.3",
)
MOST_VALUES = 2**28  # of one series in memory (1 GiB): of longer loops every n-th frame is taken
MOST_FRAMES = 100_000  # of one loop: an hour; a header that claims more is wrong


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame of a series: its file, header, number (None: single-frame object) and region."""

    path: Path
    header: Dataset
    number: int | None
    region: Region

    @property
    def format(self) -> tuple[int, int, tuple[float, float] | None]:
        """What the pictures of one stack have in common: rows, columns and pixel spacing to 1 %."""
        spacing = self.region.spacing
        return int(self.header.Rows), int(self.header.Columns), None if spacing is None else (float(f"{spacing[0]:.3g}"), float(f"{spacing[1]:.3g}"))


def _no_tissue(header: Dataset) -> bool:
    return bool(header.get("SequenceOfUltrasoundRegions")) and region_of(header) is None


SKIPPED: stack.Reasons = {
    "they are no ultrasound images": lambda header: header.SOPClassUID not in CLASSES,
    "they hold no pixels": stack.no_pixels,
    "they show no two-dimensional picture of tissue (M-mode or spectral Doppler)": _no_tissue,
}
"""Why an object of an ultrasound series is not part of the stack: the first reason that holds."""

VOLUME_KIND = stack.Kind(
    "US",
    UNIT,
    {
        "they are no ultrasound volumes": lambda header: header.SOPClassUID != EnhancedUSVolumeStorage,
        "they hold no grey pixels": lambda header: stack.no_pixels(header) or text_of(header, "SamplesPerPixel") != "1",
        "they show flow, not tissue": lambda header: text_of(header, "DataType") not in ("", "TISSUE_INTENSITY"),
        stack.NO_GEOMETRY: stack.no_geometry,
    },
    stack.SEPARATED,
)
"""How three-dimensional ultrasound is read (PS3.3 A.59): slices with a place in the frame of reference of the volume."""


def read(files: Sequence[Path], beat: Beat = lambda fraction: None) -> Volume:
    """Read the ultrasound pictures among ``files`` (one series) as a stack of grey values 0…255 in the order of acquisition.

    Surroundings of the B-mode picture and coloured pixels are NaN. Pictures of another size are left out and named in ``remarks``.
    ``beat`` hears the fraction done and may raise to stop. Raises `NotAnalysable` or `UndecodablePixels`.
    """
    remarks: list[str] = []
    headers = stack.one_series(stack.read_headers(files, remarks), remarks)
    if any(header.SOPClassUID == EnhancedUSVolumeStorage for _, header in headers):
        return stack.read(files, VOLUME_KIND, beat)
    pictures = _one_format(_usable(headers, remarks), remarks)
    decoder = _Decoder()
    values, kept = decode_all(pictures, decoder.grey, remarks, beat)
    remarks.extend(decoder.remarks(len(kept)))
    _mask(values, kept)
    first = kept[0].header
    return Volume(
        pixels=StoredPixels([StoredSlice(one, as_it_is) for one in values]),
        unit=UNIT,
        frames=tuple(Frame(str(one.header.SOPInstanceUID), str(one.header.SOPClassUID), one.number, None, one.region.spacing) for one in kept),
        modality="US",
        series_uid=str(first.SeriesInstanceUID),
        synthetic=all(is_synthetic(one.header) for one in kept),
        remarks=tuple(remarks),
    )


# --- which pictures ----------------------------------------------------------------------------------------------------


def _usable(headers: Sequence[tuple[Path, Dataset]], remarks: list[str]) -> list[Picture]:
    pictures: list[Picture] = []
    skipped: Counter[str] = Counter()
    for path, header in sorted(headers, key=lambda one: stack.integer(one[1], "InstanceNumber")):
        reason = next((text for text, holds in SKIPPED.items() if holds(header)), None)
        region = None if reason else region_of(header)
        if region is not None:
            count = min(stack.integer(header, "NumberOfFrames"), MOST_FRAMES)
            pictures.extend(Picture(path, header, number, region) for number in (range(1, count + 1) if count > 0 else (None,)))
        else:
            skipped[reason or ""] += 1
    remarks.extend(f"{count} of {len(headers)} objects were left out because {reason}" for reason, count in skipped.items())
    if not pictures:
        raise NotAnalysable(f"no image of the series can be analysed as US: {'; '.join(skipped)}")
    return pictures


def _one_format(pictures: list[Picture], remarks: list[str]) -> list[Picture]:
    """Keep the pictures of one size and scale that are most, and of those no more than the memory holds."""
    groups: dict[object, list[Picture]] = {}
    for one in pictures:
        groups.setdefault(one.format, []).append(one)
    largest = max(groups.values(), key=len)
    if len(groups) > 1:
        remarks.append(f"the series holds pictures of {len(groups)} sizes or depths; those of the most frequent ({len(largest)} of {len(pictures)}) were used")
    rows, columns, _ = largest[0].format
    step = -(-len(largest) * rows * columns // MOST_VALUES)
    if step > 1:
        remarks.append(f"of {len(largest)} frames one in {step} was used")
    return largest[::step]


# --- pixels ------------------------------------------------------------------------------------------------------------


class _Decoder:
    """Decodes pictures to grey and remembers which had colour."""

    def __init__(self) -> None:
        self._objects = Objects()
        self._coloured: set[tuple[Path, int | None]] = set()
        self._tinted: set[tuple[Path, int | None]] = set()

    def grey(self, one: Picture) -> NDArray[np.float32]:
        """Return the picture as grey values 0…255, coloured pixels as NaN; raises `UndecodablePixels`."""
        values = pixels.shown_values(self._objects.get(one.path, one.header, keep=one.number is not None), one.number or 1)
        if values.ndim == 2:
            return values
        grey, tinted = to_grey(values, one.region)
        if tinted:
            self._tinted.add((one.path, one.number))
        elif np.isnan(grey[slice(*one.region.rows), slice(*one.region.columns)]).any():
            self._coloured.add((one.path, one.number))
        return grey

    def remarks(self, count: int) -> tuple[str, ...]:
        """Return what people should know about colour."""
        said = []
        if self._coloured:
            said.append(f"coloured pixels (Doppler, marks) in {len(self._coloured)} of {count} pictures were left out")
        if self._tinted:
            said.append(f"{len(self._tinted)} of {count} pictures are tinted and were taken as grey")
        return tuple(said)


def _mask(values: Sequence[NDArray[np.float32]], pictures: Sequence[Picture]) -> None:
    """Set what lies outside the region, and within it outside the fan, to NaN; the frames of one loop share a fan."""
    places: dict[Path, list[int]] = {}
    for index, one in enumerate(pictures):
        places.setdefault(one.path, []).append(index)
    for indices in places.values():
        region = pictures[indices[0]].region
        inside = (slice(*region.rows), slice(*region.columns))
        brightest = np.zeros(values[0][inside].shape, dtype=np.float32)
        for index in indices:
            np.maximum(brightest, np.nan_to_num(values[index][inside], nan=255.0), out=brightest)
        mask = np.zeros(values[0].shape, dtype=np.bool_)
        mask[inside] = fan(brightest)
        for index in indices:
            values[index][~mask] = np.nan
