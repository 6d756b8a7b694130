"""What the gate's rules look at, and how they walk through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from pacs_node.dicom.header import text_of
from pacs_node.records import Place
from pacs_node.results.identity import MODEL_NAME


@dataclass(frozen=True, slots=True)
class Case:
    """One object under judgement."""

    dataset: Dataset
    analysed: tuple[Dataset, ...]
    others: tuple[Dataset, ...]
    companions: tuple[Dataset, ...]  # other objects of the same build
    places: Mapping[tuple[str, int], Place] = field(default_factory=dict)  # of the analysis grid, by SOP Instance UID and frame number, where they are known

    @property
    def sources(self) -> tuple[Dataset, ...]:
        """All headers of the study."""
        return self.analysed + self.others

    @property
    def sop_class(self) -> str:
        """SOP Class UID of the object."""
        return text_of(self.dataset, "SOPClassUID")


def items(dataset: Dataset) -> Iterator[Dataset]:
    """Yield ``dataset`` and every item below it."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from items(item)


def children(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, none where it is absent or empty."""
    return list(dataset.get(keyword) or ())


def pointers(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Yield (SOP Instance UID, SOP Class UID) of every reference below ``dataset``."""
    for item in items(dataset):
        if "ReferencedSOPInstanceUID" in item:
            yield text_of(item, "ReferencedSOPInstanceUID"), text_of(item, "ReferencedSOPClassUID")


def code_of(item: Dataset, keyword: str = "ConceptNameCodeSequence") -> str:
    """Return the value of a coded entry, "" where there is none."""
    return next((text_of(code, "CodeValue") for code in children(item, keyword)), "")


def content(dataset: Dataset) -> Iterator[Dataset]:
    """Yield all content items below a document or an item."""
    for item in children(dataset, "ContentSequence"):
        yield item
        yield from content(item)


def algorithm_of(dataset: Dataset) -> tuple[str, ...] | None:
    """Return maker, name, version and device UID of the algorithm as Contributing Equipment says them, None without one."""
    for item in children(dataset, "ContributingEquipmentSequence"):
        if not is_node(item):
            return tuple(text_of(item, keyword) for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID"))
    return None


def is_node(item: Dataset) -> bool:
    """Tell whether an item of Contributing Equipment is the one of this node."""
    return text_of(item, "ManufacturerModelName") == MODEL_NAME and "StationName" in item
