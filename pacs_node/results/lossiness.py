"""Whether pixels were ever compressed with loss: once said, it is never taken back (PS3.3 C.7.6.1.1.5)."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset

from pacs_node.dicom.header import text_of
from pacs_node.results.identity import copied_element


def add_lossiness(dataset: Dataset, sources: Iterable[Dataset]) -> None:
    """Say in ``dataset`` whether any source was lossy, with the ratio and method of the first that was."""
    lossy = next((header for header in sources if text_of(header, "LossyImageCompression") == "01"), None)
    dataset.LossyImageCompression = "00" if lossy is None else "01"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        dataset.pop(keyword, None)
        element = copied_element(lossy, keyword) if lossy is not None else None
        if element is not None:
            dataset.add(element)
