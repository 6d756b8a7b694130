"""Who and what every result belongs to: patient, study, series, equipment, UIDs and dates.

The builders make the contents; `finish` then takes over patient and study as received, and replaces whatever a library
invented (UIDs, the present time, its own name) by the facts of the request.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, version
from zoneinfo import ZoneInfo

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from pacs_node.config import Equipment
from pacs_node.dicom.header import is_synthetic, text_of
from pacs_node.dicom.uids import derive_uid, node_device_uid
from pacs_node.records import Algorithm
from pacs_node.results.modules import COPIED, TYPE_2
from pacs_node.results.request import BuildRequest
from pacs_node.results.wording import LONG_STRING, encodings_of, fit, one_line

MODEL_NAME = "pacs-node"
IMPLEMENTATION_CLASS_UID = derive_uid("implementation class")
_TEXT_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_SERIES_BASE = 9000  # our series stand behind those of the scanner
_NUMBERS = 20  # to a run


@dataclass(frozen=True, slots=True)
class Label:
    """What tells one object of a build from the others."""

    kind: str
    sop_class_uid: str
    modality: str
    number: int  # 1…19: what is added to the run's Series Number; below 10 where there is a stand-in
    description: str  # of the series, before run number and time are added


def software_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("pacs-node")
    except PackageNotFoundError:
        return "0"


# --- UIDs --------------------------------------------------------------------------------------------------------------


def _facts(request: BuildRequest) -> tuple[object, ...]:
    """All that tells one build from another. The job's time is among them: a run repeated with a new database is another object."""
    run, algorithm = request.run, request.algorithm
    hashes = (algorithm.bundle_hash, algorithm.config_hash, algorithm.calibration_hash) if algorithm else ("", "", "")
    series = request.finding.volume.series_uid if request.finding else text_of(request.header, "SeriesInstanceUID")
    study = text_of(request.header, "StudyInstanceUID")
    return (run.node_name, study, series, run.pipeline, *hashes, run.number, run.created_at.isoformat(), run.variant)


def series_uid(request: BuildRequest, label: Label) -> str:
    """Return the Series Instance UID: one new series for each kind and build."""
    return derive_uid("series", *_facts(request), label.kind, root=request.uid_root)


def sop_uid(request: BuildRequest, label: Label, index: int = 1) -> str:
    """Return the SOP Instance UID of the ``index``-th object of a kind."""
    return derive_uid("instance", *_facts(request), label.sop_class_uid, label.kind, index, root=request.uid_root)


def tracking_uid(request: BuildRequest) -> str:
    """Return the Tracking UID of the analysed series: the same in every variant and run, so that re-runs are seen as one finding."""
    study, series = text_of(request.header, "StudyInstanceUID"), text_of(request.header, "SeriesInstanceUID")
    return derive_uid("tracking", request.run.node_name, study, series, request.run.pipeline, root=request.uid_root)


def region_tracking_uid(request: BuildRequest, number: int) -> str:
    """Return the Tracking UID of a region: the same in every variant of a run. Runs number their regions anew, so it is another in each."""
    run = request.run
    return derive_uid("region", tracking_uid(request), run.number, run.created_at.isoformat(), number, root=request.uid_root)


# --- dates -------------------------------------------------------------------------------------------------------------


def source_offset(header: Dataset) -> timezone | None:
    """Return Timezone Offset From UTC (0008,0201) of the source, None where it is absent or no offset."""
    match = re.fullmatch(r"([+-])(\d{2})(\d{2})", text_of(header, "TimezoneOffsetFromUTC"))
    if not match or int(match[2]) > 14 or int(match[3]) > 59:
        return None
    span = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-span if match[1] == "-" else span)


def local_time(request: BuildRequest) -> datetime:
    """Return the job's time as the study tells time: in the source's offset, else in the configured zone, else in the system's."""
    zone = source_offset(request.header) or (ZoneInfo(request.timezone) if request.timezone else None)
    return request.run.created_at.astimezone(zone)


def _stamp(dataset: Dataset, request: BuildRequest) -> None:
    when = local_time(request)
    date, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S.%f")
    for prefix in ("InstanceCreation", "Series", "Content"):
        setattr(dataset, f"{prefix}Date", date)
        setattr(dataset, f"{prefix}Time", time)


# --- patient and study -------------------------------------------------------------------------------------------------


def copied_element(header: Dataset, keyword: str) -> DataElement | None:
    """Return a deep copy of an element of the source, None where it is absent or cannot be read."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in header:
        return None
    try:
        return copy.deepcopy(header[tag])
    except (ValueError, TypeError, AttributeError, KeyError, LookupError, NotImplementedError, OverflowError):
        return None


def add_request_attributes(dataset: Dataset, header: Dataset) -> None:
    """Take over Request Attributes Sequence (0040,0275, Type 3): the order that asked for the images; never empty."""
    element = copied_element(header, "RequestAttributesSequence")
    if element is not None and element.value:
        dataset.add(element)


def copy_identity(dataset: Dataset, header: Dataset) -> None:
    """Give ``dataset`` the Patient and Study modules of ``header`` as received, and nothing else of those modules."""
    for keyword in COPIED:
        if keyword in dataset:
            delattr(dataset, keyword)
        element = copied_element(header, keyword)
        if element is not None:
            dataset.add(element)
    for keyword in TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    _mend_deidentification(dataset)
    if source_offset(header) is None:
        dataset.pop("TimezoneOffsetFromUTC", None)


def _mend_deidentification(dataset: Dataset) -> None:
    """Drop an empty De-identification Method (Type 1C: never empty). Where identity was removed the module demands one: say that the source has none."""
    if "DeidentificationMethod" in dataset and not text_of(dataset, "DeidentificationMethod"):
        del dataset.DeidentificationMethod
        if text_of(dataset, "PatientIdentityRemoved") == "YES" and not dataset.get("DeidentificationMethodCodeSequence"):
            dataset.DeidentificationMethod = "not stated by the source"


# --- equipment ---------------------------------------------------------------------------------------------------------


def serial_of(algorithm: Algorithm) -> str:
    """Return what stands for a model's serial number: it changes with the model's bytes."""
    return algorithm.bundle_hash[:16] or "0"


def _equipment_item(manufacturer: str, model: str, software: str, serial: str, device_uid: str) -> Dataset:
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109102", "DCM", "Processing Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = one_line(manufacturer)
    item.ManufacturerModelName = one_line(model)
    item.DeviceSerialNumber = one_line(serial)
    item.SoftwareVersions = one_line(software)
    item.DeviceUID = device_uid
    return item


def node_equipment(equipment: Equipment, node_name: str) -> Dataset:
    """Return the item of Contributing Equipment that says that this node made an object: the loop guard."""
    node = _equipment_item(equipment.manufacturer, MODEL_NAME, software_version(), equipment.serial, node_device_uid(node_name))
    node.StationName = one_line(node_name, 16)
    if equipment.institution:
        node.InstitutionName = one_line(equipment.institution)
    return node


def contributing_equipment(request: BuildRequest) -> list[Dataset]:
    """Return the items of Contributing Equipment (PS3.3 C.12.1.1.5): the algorithm, where one judged, and this node (the loop guard)."""
    algorithm, node = request.algorithm, node_equipment(request.equipment, request.run.node_name)
    if algorithm is None:
        return [node]
    return [_equipment_item(algorithm.manufacturer, algorithm.name, algorithm.version, serial_of(algorithm), algorithm.device_uid), node]


def _add_equipment(dataset: Dataset, request: BuildRequest) -> None:
    """General and Enhanced General Equipment (PS3.3 C.7.5.1, C.7.5.2): nothing empty."""
    dataset.Manufacturer = one_line(request.equipment.manufacturer)
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = one_line(request.equipment.serial)
    dataset.SoftwareVersions = software_version()
    if request.equipment.institution:
        dataset.InstitutionName = one_line(request.equipment.institution)
    dataset.ContributingEquipmentSequence = contributing_equipment(request)


# --- all together ------------------------------------------------------------------------------------------------------


def series_description(request: BuildRequest, label: Label) -> str:
    """Name algorithm and version; a re-run also says its number and time."""
    suffix = f", run {request.run.number} {local_time(request):%Y-%m-%d %H:%M}" if request.run.number > 1 else ""
    return one_line(label.description, LONG_STRING - len(suffix)) + suffix


def finish(dataset: Dataset, request: BuildRequest, label: Label) -> Dataset:
    """Make an object of ours out of ``dataset``, which holds the contents of its IOD; returns it.

    Texts of ours that the source's character set cannot hold are written in ASCII; what is taken over stays as received.
    """
    _add_series(dataset, request, label)
    _add_equipment(dataset, request)
    _stamp(dataset, request)
    _make_encodable(dataset, encodings_of(request.header.get("SpecificCharacterSet")))
    copy_identity(dataset, request.header)
    sources = request.sources.analysed + request.sources.others
    if any(is_synthetic(header) for header in sources) or (request.finding is not None and request.finding.volume.synthetic):
        dataset.SyntheticData = "YES"
    if is_plain(dataset):
        dataset.pop("SpecificCharacterSet", None)  # Type 1C: needed only for what is not ASCII (PS3.3 C.12.1.1.2); old readers warn of others
    dataset.SOPClassUID, dataset.SOPInstanceUID = label.sop_class_uid, sop_uid(request, label)
    dataset.file_meta = _file_meta(dataset)
    return dataset


def series_number(run: int, number: int) -> int:
    """Return the Series Number (0020,0011) of the ``number``-th kind (1…19) of a run."""
    return _SERIES_BASE + _NUMBERS * run + number


def _add_series(dataset: Dataset, request: BuildRequest, label: Label) -> None:
    dataset.Modality = label.modality
    dataset.SeriesInstanceUID = series_uid(request, label)
    dataset.SeriesNumber = series_number(request.run.number, label.number)
    dataset.SeriesDescription = series_description(request, label)
    dataset.InstanceNumber = 1


def _file_meta(dataset: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(dataset.SOPClassUID), UID(dataset.SOPInstanceUID)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = one_line(f"PACS_NODE_{software_version()}", 16)
    return meta


def is_plain(dataset: Dataset) -> bool:
    """Tell whether all texts of a dataset are ASCII, so that no character set has to be declared."""
    for element in dataset:
        if element.VR == "SQ":
            if not all(is_plain(item) for item in element.value):
                return False
        elif (element.VR in _TEXT_VRS or element.VR == "PN") and not str(element.value).isascii():
            return False
    return True


def _make_encodable(dataset: Dataset, encodings: list[str]) -> None:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _make_encodable(item, encodings)
        elif element.VR in _TEXT_VRS and isinstance(element.value, str) and not element.value.isascii():
            element.value = fit(element.value, encodings)
