"""`pacs-node send`: a C-STORE SCU for folders."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom.dataset import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_file_meta_info
from rich.progress import Progress

from pacs_node.config import DicomDestination
from pacs_node.delivery import cstore
from pacs_node.errors import DeliveryError, InputError
from pacs_node.records import Outcome, Parcel
from pacs_node.workbench.studies import files_below, readable

_BEFORE_META = 144  # bytes: preamble, prefix and the group length element (PS3.10 7.1)


@dataclass
class SendReport:
    """What became of the files."""

    sent: int = 0
    passed_over: int = 0  # files that are no DICOM objects
    problems: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """Return the report in one sentence."""
        text = f"{self.sent} instances sent"
        if self.passed_over:
            text += f", {self.passed_over} files passed over that are no DICOM objects"
        return text + (f", {len(self.problems)} not taken" if self.problems else "")


def destination_of(to: str, aet: str) -> DicomDestination:
    """Turn HOST:PORT and an AE title into a destination; raises `InputError`."""
    host, _, port = to.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"--to {to!r}: write HOST:PORT, e.g. 127.0.0.1:11112")
    return DicomDestination(kind="dicom", ae_title=aet, address=host.strip("[]"), port=int(port), accepts_research=True)


def send_folder(folder: Path, to: str, aet: str, calling: str) -> SendReport:
    """Send all DICOM objects below a folder; raises `InputError` where there is none."""
    destination = destination_of(to, aet)
    found = list(readable(folder))
    report = SendReport(passed_over=len(files_below(folder)) - len(found))
    if not found:
        raise InputError(f"no DICOM object was found below {folder}")
    reported: set[str] = set()
    with TemporaryDirectory(prefix="pacs-node-send-") as corrected, Progress(transient=True) as progress:
        parcels = [_parcel(file, header, Path(corrected) / f"{number}.dcm") for number, (file, header) in enumerate(found)]
        task = progress.add_task("sending", total=len(parcels))

        def note(outcome: Outcome) -> None:
            reported.add(outcome.sop_uid)
            progress.advance(task)
            if outcome.delivered:
                report.sent += 1
            else:
                report.problems.append(f"{outcome.sop_uid}: {outcome.message}")

        try:
            while parcels:  # `deliver` stops at an object that the destination may take later: go on with the next
                before = len(reported)
                cstore.deliver(destination, parcels, calling, note)
                parcels = [parcel for parcel in parcels if parcel.sop_uid not in reported] if len(reported) > before else []
        except DeliveryError as error:
            report.problems.append(str(error))
    return report


def _parcel(file: Path, header: Dataset, corrected: Path) -> Parcel:
    """Return what is sent of a file: itself, or a copy in ``corrected`` whose file meta information names the object that is in it.

    De-identified files often keep the old names there; an archive takes them by the names in the dataset.
    """
    meta = header.file_meta
    sop_uid, sop_class, length = str(header.SOPInstanceUID), str(header.SOPClassUID), meta.get("FileMetaInformationGroupLength")
    if (meta.get("MediaStorageSOPInstanceUID"), meta.get("MediaStorageSOPClassUID")) != (sop_uid, sop_class) and length is not None:
        named = copy.deepcopy(meta)
        named.MediaStorageSOPInstanceUID, named.MediaStorageSOPClassUID = header.SOPInstanceUID, header.SOPClassUID
        with corrected.open("wb") as target, file.open("rb") as source:
            target.write(bytes(128) + b"DICM")
            write_file_meta_info(DicomFileLike(target), named)
            source.seek(_BEFORE_META + int(length))
            shutil.copyfileobj(source, target)
        file = corrected
    return Parcel(sop_uid, sop_class, str(meta.get("TransferSyntaxUID", "")), file)
