"""A DIMSE-N request as a file of the spool: the only way from a receiver to the core is by files.

::

    N-CREATE, N-SET, N-ACTION, N-EVENT-REPORT ─► spool/new/SHARD/NAME.note     JSON, synced before success is answered

The dataset stands in it as it was received, base64; `dataset_of` decodes it.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import asdict
from datetime import datetime
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from pacs_node.dicom.header import DAMAGED, nested_deeper
from pacs_node.dicom.statuses import INVALID_INSTANCE, PROCESSING_FAILURE, RESOURCE_LIMITATION, SUCCESS
from pacs_node.errors import UnreadableObject
from pacs_node.reception.conversation import NoteRequest
from pacs_node.records import Note, Sender

MOST_CONTENT = 8 << 20  # bytes of the dataset of a request: some 50 000 references to instances
_MOST_NESTING = 32
_UID = re.compile(r"[0-9.]{1,64}")


def problem_of(request: NoteRequest) -> tuple[int, str]:
    """Return the status and the reason with which a request is refused before it is kept; success where it is not (PS3.7 Annex C)."""
    if not _UID.fullmatch(request.sop_instance):
        return INVALID_INSTANCE, "its SOP Instance UID is missing or no UID"
    if len(request.content) > MOST_CONTENT:
        return RESOURCE_LIMITATION, f"its dataset is larger than {MOST_CONTENT >> 20} MiB"
    try:
        decode(request.content, request.transfer_syntax)
    except UnreadableObject as error:
        return PROCESSING_FAILURE, error.reason
    return SUCCESS, ""


def content_of(sender: Sender, service: str, request: NoteRequest) -> dict[str, object]:
    """Return what stands in the file of a note."""
    return {
        "sender": asdict(sender),
        "service": service,
        "operation": request.operation,
        "sop_class": request.sop_class,
        "sop_instance": request.sop_instance,
        "number": request.number,
        "transfer_syntax": request.transfer_syntax,
        "content": base64.b64encode(request.content).decode(),
    }


def read_note(path: Path, received_at: datetime) -> Note:
    """Read a note back; raises `UnreadableObject` where it is damaged, FileNotFoundError where it is gone."""
    try:
        found = json.loads(path.read_bytes())
        number = found["number"]
        return Note(
            path=path,
            name=path.stem,
            received_at=received_at,
            sender=Sender(**found["sender"]),
            service=str(found["service"]),
            operation=str(found["operation"]),
            sop_class_uid=str(found["sop_class"]),
            sop_uid=str(found["sop_instance"]),
            number=None if number is None else int(number),
            transfer_syntax_uid=str(found["transfer_syntax"]),
            content=base64.b64decode(found["content"], validate=True),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableObject(path.name, f"the note of a request is damaged ({type(error).__name__}: {error})") from error


def dataset_of(note: Note) -> Dataset:
    """Return the dataset of a request; raises `UnreadableObject`."""
    return decode(note.content, note.transfer_syntax_uid)


def decode(content: bytes, transfer_syntax: str) -> Dataset:
    """Decode a dataset in one of the uncompressed transfer syntaxes; raises `UnreadableObject` where it cannot be read to its end."""
    syntax = UID(transfer_syntax)
    try:
        if syntax.is_deflated or syntax.is_encapsulated:
            raise ValueError(f"transfer syntax {transfer_syntax} does not suit a request")
        if len(content) % 2:
            raise ValueError("it ends in the middle of a value")  # all values have an even length (PS3.5 7.1.1)
        dataset = read_dataset(BytesIO(content), is_implicit_VR=syntax.is_implicit_VR, is_little_endian=syntax.is_little_endian)
        for _ in dataset.iterall():  # converts every value: what cannot be read is found here
            pass
    except DAMAGED as error:
        raise UnreadableObject("the request", f"its dataset cannot be read ({type(error).__name__}: {error})") from error
    if nested_deeper(dataset, _MOST_NESTING):
        raise UnreadableObject("the request", f"its sequences are nested more than {_MOST_NESTING} deep")
    return dataset
