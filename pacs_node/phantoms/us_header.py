"""What an ultrasound image says about itself, and what is burnt into it (PS3.3 C.8.5.5, C.8.5.6)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pacs_node.phantoms.spec import PhantomSpec

Region = tuple[slice, slice]

_TEXT = 200  # grey level
_TINT = np.array([1.0, 0.85, 0.35], dtype=np.float32)  # of the text in colour images
_FRAME_TIME = 40.0  # ms
_CENTIMETRES = 3  # Physical Units X and Y Direction (0018,6024)


def region_item(region: Region, pixel: float) -> Dataset:
    """Return the item of the Sequence of Ultrasound Regions: a two-dimensional picture of tissue, ``pixel`` in mm."""
    item = Dataset()
    item.RegionSpatialFormat = 1  # 2D
    item.RegionDataType = 1  # tissue
    item.RegionFlags = 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = region[1].start, region[0].start
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = region[1].stop - 1, region[0].stop - 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = _CENTIMETRES
    item.PhysicalDeltaX = item.PhysicalDeltaY = pixel / 10
    item.ReferencePixelX0, item.ReferencePixelY0 = 0, 0
    return item


def describe(spec: PhantomSpec, dataset: Dataset, region: Region, pixel: float) -> None:
    """Set what is particular to US: General Series, General Image, Image Pixel, US Image and US Region Calibration attributes."""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "", "0001"]
    dataset.BodyPartExamined = "BREAST"
    dataset.Laterality = "LR"[spec.seed % 2]
    dataset.ProtocolName = "Phantom breast"
    dataset.PatientOrientation = ""
    dataset.BurnedInAnnotation = "YES"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.UltrasoundColorDataPresent = 0
    dataset.SequenceOfUltrasoundRegions = [region_item(region, pixel)]
    if spec.colour:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0


def describe_loop(dataset: Dataset) -> None:
    """Set the Cine and Multi-frame modules (PS3.3 C.7.6.5, C.7.6.6)."""
    dataset.FrameTime = _FRAME_TIME
    dataset.FrameIncrementPointer = Tag("FrameTime")


@lru_cache(maxsize=16)
def annotation(rows: int, first_row: int, title: str) -> NDArray[np.uint8]:
    """Return the text above the image region and the depth marks beside it, (rows, rows), 0 where there is none."""
    picture = Image.new("L", (rows, rows))
    draw = ImageDraw.Draw(picture)
    draw.text((round(0.06 * rows), round(0.02 * rows)), title, fill=_TEXT, font=ImageFont.load_default(max(8, round(0.045 * rows))))
    marks = np.asarray(picture).copy()
    marks[first_row:] = 0
    marks[first_row :: rows // 10, -max(3, rows // 40) :] = _TEXT
    return marks


def burnt_in(spec: PhantomSpec, values: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
    """Return the picture with text and depth marks outside the region; (rows, columns), or (rows, columns, 3) where colour is asked for."""
    marks = annotation(spec.rows, region[0].start, f"PHANTOM {spec.seed} shows no patient")
    marks = np.where(values > 0, np.uint8(0), marks)
    marks[region] = 0
    if not spec.colour:
        return np.maximum(values, marks)
    return np.maximum(values[..., None], (marks[..., None] * _TINT).astype(np.uint8))
