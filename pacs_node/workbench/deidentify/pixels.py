"""Burnt-in text: which objects may hold it, what is refused, and the blanking of regions that somebody has named."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from pacs_node.dicom.header import DAMAGED, PIXEL_KEYWORDS, number_of, text_of
from pacs_node.workbench.deidentify.options import Options, Region

_US = ("1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.6.2")
_SC = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame kinds, 7.1 to 7.4
_VL = "1.2.840.10008.5.1.4.1.1.77.1."  # photographs and other images in visible light
_WHOLE_SLIDE = f"{_VL}6"
_SCREENS = {"SCREEN SAVE", "SCREENSAVE", "SCREEN_SAVE", "SCREENSHOT"}


class Refused(Exception):
    """An object is not exported; the message says why, and what would help."""


def may_hold_text(dataset: Dataset, options: Options) -> str:
    """Return why an object's pixels may hold text that identifies; "" where nothing speaks for it."""
    if not any(keyword in dataset for keyword in PIXEL_KEYWORDS):
        return ""
    stated = text_of(dataset, "BurnedInAnnotation").upper()
    uid = text_of(dataset, "SOPClassUID")
    if stated == "YES":
        return "its pixels hold burnt-in text, as it says (Burned In Annotation)"
    types = _types(dataset)
    if _SCREENS & types:
        return "it is a picture of a screen (Image Type)"
    if uid == _WHOLE_SLIDE and "LABEL" in types:
        return "it is a picture of a slide's label (Image Type)"
    kind = _kind(dataset, uid, types)
    if kind and not (options.trust_stated and stated == "NO"):
        return f"it is {kind}, whose pixels may hold text{', although it says that they do not' if stated == 'NO' else ''}"
    return ""


def _types(dataset: Dataset) -> set[str]:
    return {value.strip().upper() for value in text_of(dataset, "ImageType").split("\\")}


def _kind(dataset: Dataset, uid: str, types: set[str]) -> str:
    """Return what an object is of the kinds that often have text in their pixels, "" where it is none of them."""
    if uid in _US or text_of(dataset, "Modality") == "US":
        return "ultrasound"
    if uid == _SC or uid.startswith(f"{_SC}."):
        return "a secondary capture"
    if uid.startswith(_VL) and (uid != _WHOLE_SLIDE or types & {"OVERVIEW", "THUMBNAIL"}):
        return "a photograph or an overview of a slide"
    if text_of(dataset, "ConversionType"):
        return "converted from something else (Conversion Type)"
    return ""


def clean_pixels(dataset: Dataset, options: Options) -> bool:
    """Blank the named regions of an object that may hold text; True where it was done. Raises `Refused` where it would be needed and cannot be.

    Compressed pixels are decoded for it, and stay uncompressed.
    """
    if _embedded_overlay(dataset):
        raise Refused("an overlay is kept in unused bits of its pixels, where text may be drawn")
    why = may_hold_text(dataset, options)
    if not why:
        return False
    if not options.regions:
        stated = text_of(dataset, "BurnedInAnnotation").upper() == "NO"
        trust = ", or believe it with --trust-stated" if stated else ""
        raise Refused(f"{why}: name the regions to be blanked with --clean-region X,Y,WIDTH,HEIGHT{trust}")
    try:
        _blank(dataset, options.regions)
    except (RuntimeError, *DAMAGED) as error:
        raise Refused(f"{why}, and they cannot be decoded to be blanked ({type(error).__name__}: {error})") from error
    return True


def _embedded_overlay(dataset: Dataset) -> bool:
    groups = (0x6000 + 2 * number for number in range(16))
    return any((group, 0x0102) in dataset and (group, 0x0010) in dataset and (group, 0x3000) not in dataset for group in groups)


def _blank(dataset: Dataset, regions: tuple[Region, ...]) -> None:
    colour = (number_of(dataset, "SamplesPerPixel") or 1) > 1
    pixels = np.array(pixel_array(dataset, raw=not colour))  # colour comes as RGB
    single = pixels.ndim == (3 if colour else 2)
    frames = pixels[np.newaxis] if single else pixels
    for region in regions:
        _fill(frames, region, _black(dataset, frames))
    photometric = "RGB" if colour else text_of(dataset, "PhotometricInterpretation")
    bits = number_of(dataset, "BitsStored") or pixels.dtype.itemsize * 8
    for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.set_pixel_data(frames[0] if single else frames, photometric, bits, generate_instance_uid=False)


def _fill(frames: NDArray[np.generic], region: Region, value: int) -> None:
    rows, columns = frames.shape[1:3]
    top, left = max(0, region.y), max(0, region.x)
    bottom, right = min(rows, region.y + region.height), min(columns, region.x + region.width)
    if top >= bottom or left >= right:
        box = f"{region.x},{region.y},{region.width},{region.height}"
        raise Refused(f"the region {box} lies outside its {columns} × {rows} pixels: nothing would be blanked")
    frames[:, top:bottom, left:right] = value


def _black(dataset: Dataset, frames: NDArray[np.generic]) -> int:
    return int(frames.max()) if text_of(dataset, "PhotometricInterpretation") == "MONOCHROME1" else min(0, int(frames.min())) if frames.dtype.kind == "i" else 0
