"""A small storage SCP that writes what it gets into a folder: the archive of the demonstration, and the fake archive of tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt

from pacs_node.delivery.query import STUDY_ROOT_FIND
from pacs_node.delivery.storage_scp import Rejection, StorageSCP
from pacs_node.dicom.sop_classes import accepted_classes
from pacs_node.dicom.statuses import SUCCESS
from pacs_node.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from pacs_node.dicom.uids import derive_uid, is_valid_uid


@dataclass(frozen=True)
class Script:
    """How the archive behaves where it is not to take everything."""

    statuses: Mapping[str, int | Dataset] = field(default_factory=dict)  # SOP class or instance UID → status; a warning is stored, a failure is not
    refused_classes: frozenset[str] = frozenset()  # no presentation context
    transfer_syntaxes: frozenset[str] = frozenset(TRANSFER_SYNTAXES)  # others get no presentation context
    hang: frozenset[str] = frozenset()  # instance UIDs that are answered only after the archive stops
    abort: frozenset[str] = frozenset()  # instance UIDs at which the association is aborted
    rejection: tuple[int, int, int] | None = None  # result, source, reason of every association request (PS3.8 9.3.4)
    find: Callable[[Dataset], Iterable[tuple[int, Dataset | None]]] | None = None  # identifier → statuses and answers to C-FIND; None: not accepted


class FolderArchive(StorageSCP):
    """A storage SCP on 127.0.0.1 that keeps each object as ``folder/<SOP Instance UID>.dcm``; a later one of the same UID replaces it.

    Parameters
    ----------
    folder
        where the objects go; made where it is missing
    ae_title
        its AE title; any called AE title is taken
    port
        0: any free port, in `port` once started
    script
        answers other than success, for tests
    """

    def __init__(self, folder: Path, ae_title: str, port: int = 0, script: Script = Script()) -> None:
        super().__init__(ae_title, port)
        self.folder, self.script = folder, script
        self.received: list[str] = []  # SOP Instance UIDs in the order in which they were stored
        self._stopped = threading.Event()

    def start(self) -> FolderArchive:  # type: ignore[override]  # for `with` and for one line
        """Listen; raises OSError where the port is taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stopped.clear()
        super().start()
        return self

    def stop(self) -> None:
        """Stop listening and abort what is open; a second call does nothing."""
        self._stopped.set()
        super().stop()

    def __enter__(self) -> FolderArchive:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def path_of(self, sop_uid: str) -> Path:
        """Return where an object lies; a UID that is none becomes a name made from it."""
        return self.folder / f"{sop_uid if is_valid_uid(sop_uid) else derive_uid('file name', sop_uid)}.dcm"

    def rejection(self, association: Any) -> Rejection | None:
        """Say what the script says."""
        return self.script.rejection

    def classes(self) -> Collection[str]:
        """Return what it stores, and queries where the script answers them."""
        return (accepted_classes() | ({STUDY_ROOT_FIND} if self.script.find is not None else set())) - self.script.refused_classes

    def syntaxes(self) -> Collection[str]:
        """Return what the script lets it take."""
        return self.script.transfer_syntaxes

    def more_handlers(self) -> Sequence[tuple[Any, Any]]:
        """Return the handler of queries."""
        return [(evt.EVT_C_FIND, self._on_find)]

    def _on_find(self, event: Any) -> Iterable[tuple[int, Dataset | None]]:
        assert self.script.find is not None
        yield from self.script.find(event.identifier)

    def store(self, event: Any) -> int | Dataset:
        """Keep an object, or do as the script says."""
        sop_uid, sop_class = str(event.request.AffectedSOPInstanceUID), str(event.request.AffectedSOPClassUID)
        if sop_uid in self.script.hang:
            self._stopped.wait()
        if sop_uid in self.script.abort:
            event.assoc.abort()
            return SUCCESS
        status = self.script.statuses.get(sop_uid, self.script.statuses.get(sop_class, SUCCESS))
        code = int(status.Status) if isinstance(status, Dataset) else status
        if code == SUCCESS or code >> 12 == 0xB:
            self._keep(event, sop_uid)
        return status

    def _keep(self, event: Any, sop_uid: str) -> None:
        target = self.path_of(sop_uid)
        part = target.with_name(f"{target.name}.{threading.get_ident()}-{time.monotonic_ns()}.part")
        part.write_bytes(event.encoded_dataset())
        part.replace(target)
        self.received.append(sop_uid)
