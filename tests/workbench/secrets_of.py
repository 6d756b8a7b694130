"""The values by which objects tell who they are of, found without the code under test: what must not be in an exported byte. And an export to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydicom import dcmread
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pacs_node.config import Settings
from pacs_node.workbench.deidentify.options import Options
from pacs_node.workbench.exporting import Exported, Wanted, export

WHO = {
    "AccessionNumber", "AdmissionID", "DeviceSerialNumber", "InstitutionAddress", "InstitutionName", "IssuerOfPatientID", "OtherPatientIDs",
    "PatientAddress", "PatientID", "PatientTelephoneNumbers", "RequestedProcedureID", "StationName", "StudyID",
}  # fmt: skip
PUBLIC = {"ANONYMIZED", "ANONYMOUS", "REMOVED", "NONE", "UNKNOWN", "DEIDENTIFIED", "PATIENT"}  # a name in test files, and the meaning of public codes
LEAST = 6  # characters: shorter ones are in the pixels of any image


def every_element(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from every_element(item)


def texts(element: DataElement) -> list[str]:
    values = element.value if element.VM > 1 else [element.value]
    return [str(value).strip("\0 ") for value in values if value is not None]


def secrets(dataset: Dataset, *, uids: bool = True, dates: bool = True) -> set[str]:
    """Return names, numbers, places, UIDs and dates of a source, of every level."""
    found: set[str] = set()
    for element in every_element(dataset):
        if element.VR == "PN":
            found.update(part for text in texts(element) for part in (text, *text.replace("=", "^").split("^")))
        elif element.keyword in WHO:
            found.update(texts(element))
        elif uids and element.VR == "UI":
            found.update(text for text in texts(element) if not text.startswith("1.2.840.10008."))
        elif dates and element.VR in ("DA", "DT"):
            found.update(text[:8] for text in texts(element))
    found = {text for text in found if text.upper() not in PUBLIC}
    return {text for text in found if len(text) >= LEAST or (not text.isascii() and len(text) > 1)}


def spellings(text: str) -> set[bytes]:
    """Return a text in every encoding that could write it."""
    found = set()
    for encoding in {*python_encoding.values(), "utf-8", "utf-16-le"}:
        try:
            found.add(text.encode(encoding))
        except (UnicodeError, LookupError):
            continue
    return found


def left_in(folder: Path, wanted: Iterable[str]) -> list[tuple[str, str]]:
    """Return every (file, value) where a value stands in a file's name or bytes by itself."""
    needles = [(text, spelled) for text in wanted for spelled in spellings(text)]
    found = []
    for file in (path for path in folder.rglob("*") if path.is_file()):
        data = file.read_bytes()
        found += [(file.name, text) for text, spelled in needles if by_itself(spelled, data) or text in str(file.relative_to(folder))]
    return found


def by_itself(word: bytes, data: bytes) -> bool:
    """Tell whether a word stands somewhere, and is not just part of a longer number (of a UID that was made, say)."""
    start = data.find(word)
    while start >= 0:
        around = data[max(0, start - 1) : start] + data[start + len(word) : start + len(word) + 1]
        if not word.isdigit() or not (set(around) & set(b".0123456789")):
            return True
        start = data.find(word, start + 1)
    return False


def exported(folder: Path) -> list[Dataset]:
    """Return what was exported, in the order of the instances."""
    return sorted((dcmread(file) for file in folder.rglob("*.dcm")), key=lambda one: (str(one.SeriesInstanceUID), int(one.get("InstanceNumber") or 0)))


def save(folder: Path, *datasets: Dataset) -> Path:
    """Write objects into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(datasets):
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def run(tmp_path: Path, source: Path, options: Options | None = None, *, out: str = "out", map_file: str = "map.db") -> Exported:
    """Export a folder."""
    wanted = Wanted(tmp_path / out, tmp_path / map_file, folders=(source,))
    return export(Settings.model_validate({"node": {"data": str(tmp_path / "data")}}), wanted, options or Options())
