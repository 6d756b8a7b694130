"""The denoised reconstruction as pictures: what the model makes of each slice, "SYNTHETIC" burnt into every one (PS3.3 A.8.3).

::

    ┌──────────────────────────────────┐
    │ SYNTHETIC · AI · research use    │
    │ not for diagnosis                │
    │ ┌──────────────────────────────┐ │
    │ │              A               │ │
    │ │ R       reconstruction     L │ │   enlarged by whole pixels, with the orientation at its edges
    │ │              P               │ │
    │ └──────────────────────────────┘ │
    │ slice 4 of 28                    │
    │ lung, W 1500 L -600              │
    └──────────────────────────────────┘

Eight-bit grey values in one window for all slices; no spacing and no place in the patient: it is no image of the patient, and nobody shall
measure in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset
from pydicom.uid import MultiFrameGrayscaleByteSecondaryCaptureImageStorage

from pacs_node.records import Finding
from pacs_node.results import panels
from pacs_node.results.capture import add_image
from pacs_node.results.files import even
from pacs_node.results.identity import Label, finish
from pacs_node.results.lettering import font
from pacs_node.results.modalities import manner_of
from pacs_node.results.request import BuildRequest, finding_of
from pacs_node.results.windows import Window, window_of
from pacs_node.results.wording import algorithm_line

BANNER = ("SYNTHETIC · AI · research use", "not for diagnosis")
BAND = 40  # rows above and below a picture of `LEAST` columns, for two lines each; wider pictures have larger type
LEAST = 256  # pixels of the longer side: the banner has to be read
_TYPE, _LINE = 16, 18  # pixels of an em, from line to line

Picture = NDArray[np.uint8]


def build_denoised(request: BuildRequest, companions: Mapping[str, Dataset]) -> Dataset:
    """Build the pictures of a finding's reconstruction, in the order of its slices."""
    del companions
    finding = finding_of(request, "denoised")
    label = Label("denoised", MultiFrameGrayscaleByteSecondaryCaptureImageStorage, "OT", 9, f"{algorithm_line(finding.algorithm)} synthetic reconstruction")
    dataset = Dataset()
    add_image(dataset, request)
    dataset.DerivationDescription = "Denoised reconstruction by an AI algorithm, synthetic, research use"
    _add_pixels(dataset, frames_of_model(finding))
    return finish(dataset, request, label)


def frames_of_model(finding: Finding) -> Picture:
    """Return the reconstruction as pictures (slices, rows, columns), enlarged by whole pixels, with words above and below."""
    window = window_of(finding)
    factor = max(1, -(-LEAST // max(finding.reconstruction.shape[1:])))
    large = _grey(finding, window).repeat(factor, axis=1).repeat(factor, axis=2)
    for index, picture in enumerate(large):
        _write_letters(picture, panels.letters_of(finding, index))
    count, width = len(large), large.shape[2]
    head = np.broadcast_to(_band(width, BANNER), (count, *_band(width, BANNER).shape))
    item = manner_of(finding.volume).item
    foot = np.stack([_band(width, (f"{item} {index + 1} of {count}", window.words)) for index in range(count)])
    return np.concatenate([head, large, foot], axis=1)


def _grey(finding: Finding, window: Window) -> Picture:
    low, high = window.edges
    known = np.nan_to_num(finding.reconstruction, nan=low)
    grey = np.round((known - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)
    return 255 - grey if manner_of(finding.volume).dark_is_high else grey


def _size(width: int) -> float:
    return max(width / LEAST, 1.0)


@lru_cache(maxsize=8)
def _band(width: int, lines: tuple[str, ...]) -> Picture:
    """Return lines of white type on black, as wide as a picture."""
    size = _size(width)
    image = Image.new("L", (width, round(BAND * size)), 0)
    for row, line in enumerate(lines):
        ImageDraw.Draw(image).text((round(3 * size), round((_LINE * (row + 1) - 3) * size)), line, fill=255, font=font(round(_TYPE * size)), anchor="ls")
    return np.asarray(image, dtype=np.uint8)


def _write_letters(picture: Picture, letters: Mapping[str, str]) -> None:
    """Write the orientation at the edges of a picture, in white with a black rim, into its pixels."""
    if letters:
        rim, ink = _letters(picture.shape[1], picture.shape[0], tuple(sorted(letters.items())))
        np.copyto(picture, ink, where=rim)


@lru_cache(maxsize=8)
def _letters(width: int, height: int, letters: tuple[tuple[str, str], ...]) -> tuple[NDArray[np.bool_], Picture]:
    """Return which pixels the letters of the edges take, and their grey values."""
    type_size, near = font(round(_TYPE * _size(width))), round(4 * _size(width))
    right, low, across_middle, down_middle = width - near, height - near, width // 2, height // 2
    places = {
        "left": (near, down_middle, "lm"),
        "right": (right, down_middle, "rm"),
        "top": (across_middle, near, "mt"),
        "bottom": (across_middle, low, "mb"),
    }
    rim, ink = Image.new("L", (width, height), 0), Image.new("L", (width, height), 0)
    for edge, text in letters:
        across, down, anchor = places[edge]
        ImageDraw.Draw(rim).text((across, down), text, fill=255, font=type_size, anchor=anchor, stroke_width=2)
        ImageDraw.Draw(ink).text((across, down), text, fill=255, font=type_size, anchor=anchor)
    return np.asarray(rim) > 0, np.asarray(ink, dtype=np.uint8)


def _add_pixels(dataset: Dataset, frames: Picture) -> None:
    """Image Pixel, Multi-frame, SC Multi-frame Image and Vector (PS3.3 C.7.6.3, C.7.6.6, C.8.6.3, C.8.6.4)."""
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PresentationLUTShape, dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "IDENTITY", 0, 1, "US"
    if len(frames) > 1:
        dataset.FrameIncrementPointer = 0x00182001  # Page Number Vector
        dataset.PageNumberVector = list(range(1, len(frames) + 1))
    content = frames.tobytes()
    dataset.PixelData = even(content)
    dataset["PixelData"].VR = "OB"
