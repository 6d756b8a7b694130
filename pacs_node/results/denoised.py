"""The denoised reconstruction as pictures: what the model makes of each slice, "SYNTHETIC" burnt into every one (PS3.3 A.8.3).

Eight-bit grey values in the finding's window; no spacing and no place in the patient: it is no image of the patient, and nobody shall measure in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import MultiFrameGrayscaleByteSecondaryCaptureImageStorage

from pacs_node.records import Finding
from pacs_node.results.capture import add_image
from pacs_node.results.files import even
from pacs_node.results.identity import Label, finish
from pacs_node.results.modalities import manner_of
from pacs_node.results.request import BuildRequest, finding_of
from pacs_node.results.wording import algorithm_line

BANNER = "SYNTHETIC · AI · research use"
_LEAST = 256  # pixels of the longer side: the banner has to be read
_HEAD = 20  # rows above the picture, for the banner


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


def frames_of_model(finding: Finding) -> NDArray[np.uint8]:
    """Return the reconstruction as pictures (slices, rows, columns), enlarged by whole pixels, with the banner above."""
    centre, width = finding.window
    known = np.nan_to_num(finding.reconstruction, nan=centre - width / 2)
    grey = np.round((known - (centre - width / 2)) / max(width, 1e-6) * 255).clip(0, 255).astype(np.uint8)
    if manner_of(finding.volume).dark_is_high:
        grey = 255 - grey
    factor = max(1, -(-_LEAST // max(grey.shape[1:])))
    large = grey.repeat(factor, axis=1).repeat(factor, axis=2)
    head = np.broadcast_to(_banner(large.shape[2]), (len(large), _HEAD, large.shape[2]))
    return np.concatenate([head, large], axis=1)


@lru_cache(maxsize=4)
def _banner(width: int) -> NDArray[np.uint8]:
    image = Image.new("L", (width, _HEAD), 0)
    ImageDraw.Draw(image).text((3, 3), BANNER, fill=255, font=ImageFont.load_default(size=14))
    return np.asarray(image, dtype=np.uint8)


def _add_pixels(dataset: Dataset, frames: NDArray[np.uint8]) -> None:
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
