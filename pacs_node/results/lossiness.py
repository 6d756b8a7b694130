"""Whether pixels were ever compressed with loss: once said, it is never taken back (PS3.3 C.7.6.1.1.5)."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from pacs_node.dicom.header import text_of
from pacs_node.results.identity import copied_element

# Transfer syntaxes that always lose, and the method of Lossy Image Compression Method (0028,2114); JPEG 2000 may be without loss
METHODS = {JPEGBaseline8Bit: "ISO_10918_1", JPEGExtended12Bit: "ISO_10918_1", JPEGLSNearLossless: "ISO_14495_1"}


def is_lossy(header: Dataset) -> bool:
    """Tell whether the pixels of a received object have lost something: as it says itself, or as its encoding does where it says nothing."""
    said = text_of(header, "LossyImageCompression")
    return said == "01" or (not said and _transfer_syntax(header) in METHODS)


def _transfer_syntax(header: Dataset) -> str:
    meta = getattr(header, "file_meta", None)
    return text_of(meta, "TransferSyntaxUID") if isinstance(meta, Dataset) else ""


def add_lossiness(dataset: Dataset, sources: Iterable[Dataset]) -> None:
    """Say in ``dataset`` whether any source was lossy, with the ratio and method of the first that was."""
    lossy = next((header for header in sources if is_lossy(header)), None)
    dataset.LossyImageCompression = "00" if lossy is None else "01"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        dataset.pop(keyword, None)
        element = copied_element(lossy, keyword) if lossy is not None else None
        if element is not None:
            dataset.add(element)
    if lossy is not None and "LossyImageCompressionMethod" not in dataset and _transfer_syntax(lossy) in METHODS:
        dataset.LossyImageCompressionMethod = METHODS[UID(_transfer_syntax(lossy))]
