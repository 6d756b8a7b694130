"""JPEG with 12 bits a sample and loss: pydicom leaves it to nobody, GDCM decodes it (PS3.5 A.4.1; processes 2 and 4, 6 and 8, 10 and 12)."""

from __future__ import annotations

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import JPEGExtended12Bit

TRANSFER_SYNTAXES = frozenset((str(JPEGExtended12Bit), "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"))
"""Extended, spectral selection and full progression; with 8 bits a sample the first is read by pydicom."""


def is_needed(dataset: Dataset) -> bool:
    """Tell whether a grey image is in one of these encodings with more than 8 bits a sample."""
    syntax = str(getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID"))
    return syntax in TRANSFER_SYNTAXES and int(dataset.get("SamplesPerPixel") or 1) == 1 and int(dataset.get("BitsAllocated") or 8) == 16


def decode(dataset: Dataset, frame: int) -> NDArray[np.generic]:
    """Decode one frame (1-based) to stored values (rows, columns); raises `ValueError` where the stream is damaged.

    GDCM looks for 8 bits first and says so on standard error before it finds 12.
    """
    stream = get_frame(dataset.PixelData, frame - 1, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    buffer = _image(dataset, stream).GetBuffer()
    if buffer is None:
        raise ValueError("GDCM cannot read the JPEG stream")
    values = np.frombuffer(buffer.encode("utf-8", "surrogateescape"), dtype="<u2")
    if values.size != dataset.Rows * dataset.Columns:
        raise ValueError(f"the stream holds {values.size} values, the header says {dataset.Rows} × {dataset.Columns}")
    shaped = values.reshape(dataset.Rows, dataset.Columns)
    return shaped.view(np.int16) if dataset.PixelRepresentation == 1 else shaped


def _image(dataset: Dataset, stream: bytes) -> gdcm.Image:
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream + b"\0" * (len(stream) % 2))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType(str(dataset.PhotometricInterpretation))))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(dataset.file_meta.TransferSyntaxUID))))
    image.SetPixelFormat(gdcm.PixelFormat(1, dataset.BitsAllocated, dataset.BitsStored, dataset.BitsStored - 1, dataset.PixelRepresentation))
    return image
