"""Pictures: PNG and JPEG files of which nothing but the grey values is known, to train and to evaluate on.

::

    file ─ turned as EXIF says ─► grey 0…255 ─ very large: averaged ─► one slice without plane, scale and unit
           (colour: luminance; transparent: NaN; 16 bits: 0…65535 as 0…255)

A picture is a study of one slice; its longer edge fills the analysis grid. A screenshot has lost its unit and was windowed by whoever made
it, so it is not scaled again: its grey values run along the bundle's line of intensities (`in_unit`), black and white are the network's 0 and 1.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from pacs_node.analysis.manifest import Manifest
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import NotAnalysable
from pacs_node.records import Frame, Volume

UNIT = "1"  # UCUM: brightness 0…255, arbitrary
SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_PIXELS = 2**28  # of one picture: decoding it takes a gigabyte
EDGE = 2048  # pixels: larger pictures are averaged to less, which the analysis grid does anyway
WHITE = 255.0
_DEEP = 65535.0  # white of a PNG with 16 bits (W3C PNG, 13.12)
_OPAQUE = 128  # of 255; what is more transparent shows nothing
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)  # what the library raises for damaged files


def read(path: Path, modality: str) -> Volume:
    """Read a picture as a study of ``modality`` with one slice; raises `NotAnalysable` with the reason where the file is damaged or too large."""
    remarks: list[str] = []
    with _opened(path) as image:
        values = _reduced(_grey(image, remarks))
    uid = derive_uid("picture", path.resolve())
    frame = Frame(sop_uid=uid, sop_class_uid="", number=None, plane=None)
    return Volume(values[None], UNIT, (frame,), modality, uid, remarks=tuple(remarks), picture=True)


def read_mask(path: Path, picture: Path) -> NDArray[np.bool_]:
    """Read a mask (true where it is not black) onto the pixels that `read` gives of ``picture``.

    Raises `NotAnalysable` where the file is damaged or of another size than the picture's.
    """
    return _reduced(mask_of_size(path, _size(picture)).astype(np.float32)) >= 0.5


def mask_of_size(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read a mask that has to be of ``shape`` (rows, columns); raises `NotAnalysable` where it is not, or damaged."""
    with _opened(path) as image:
        values = np.nan_to_num(_grey(image, [])) > 0
    if values.shape != shape:
        raise NotAnalysable(f"the mask {path.name} has {_told(values.shape)} pixels, the image {_told(shape)}: masks are of the same size")
    return np.asarray(values)


def _size(path: Path) -> tuple[int, ...]:
    """Rows and columns of a picture as it is shown, without decoding it."""
    with _opened(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)  # rows and columns change places
        return (image.width, image.height) if turned else (image.height, image.width)


def _told(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} × {shape[0]}"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size is judged here
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise NotAnalysable(f"the picture has {image.width} × {image.height} pixels, more than {MOST_PIXELS}: make it smaller")
                yield image
    except _BROKEN as error:
        raise NotAnalysable(f"the picture cannot be read ({' '.join(str(error).split())})") from error


def _grey(image: Image.Image, remarks: list[str]) -> NDArray[np.float32]:
    """Return luminance 0…255 (ITU-R BT.601), NaN where the picture is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        remarks.append("the picture has 16 bits a pixel; its values 0…65535 were taken as 0…255")
        return np.asarray(image, dtype=np.float32) * np.float32(WHITE / _DEEP)
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        grey = np.asarray(image.convert("RGB").convert("L"), dtype=np.float32)
        return np.where(np.asarray(image.getchannel("A")) >= _OPAQUE, grey, np.float32(np.nan))
    return np.asarray((image if image.mode == "L" else image.convert("RGB").convert("L")), dtype=np.float32)


def _reduced(values: NDArray[np.float32]) -> NDArray[np.float32]:
    factor = -(-max(values.shape) // EDGE)
    if factor == 1:
        return values
    rows, columns = (edge // factor * factor for edge in values.shape)
    parts = values[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor)
    return np.asarray(parts.mean(axis=(1, 3)), dtype=np.float32)


def in_unit(volume: Volume, manifest: Manifest) -> Volume:
    """Return a picture in the unit that the bundle's numbers mean; as it is where they mean grey values."""
    how = manifest.preprocessing
    ends = how.intensity.physical[0], how.intensity.physical[-1]
    if ends == (0.0, WHITE):
        return volume
    grey = volume.pixels[:]
    values = how.intensity.to_physical(grey / np.float32(WHITE))
    remark = f"the picture has no unit: its grey values were laid along the model's intensities ({ends[0]:g} to {ends[1]:g}) and measure nothing"
    return replace(volume, pixels=np.where(np.isfinite(grey), values, np.float32(np.nan)), remarks=(*volume.remarks, remark))
