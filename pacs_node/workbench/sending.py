"""`pacs-node send`: a C-STORE SCU for folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import Progress

from pacs_node.config import DicomDestination
from pacs_node.delivery import cstore
from pacs_node.errors import DeliveryError, InputError
from pacs_node.records import Outcome, Parcel
from pacs_node.workbench.studies import files_below, readable


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
    parcels = [Parcel(str(h.SOPInstanceUID), str(h.SOPClassUID), str(h.file_meta.get("TransferSyntaxUID", "")), file) for file, h in found]
    reported: set[str] = set()
    with Progress(transient=True) as progress:
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
