"""The storage SCP of `pacs-node fetch`: takes what was asked for from who was asked, writes it durably, and refuses everything else."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from pacs_node.delivery.storage_scp import Rejection, StorageSCP
from pacs_node.dicom.header import read_header, text_of
from pacs_node.dicom.statuses import CANNOT_UNDERSTAND, CLASS_MISMATCH, OUT_OF_RESOURCES, SUCCESS
from pacs_node.errors import UnreadableObject
from pacs_node.reception.files import FileLayer, write_durably

NOT_AUTHORISED = 0x0124  # PS3.7 C.5.22
_WRONG_TITLE: Rejection = (1, 1, 7)  # called AE title not recognised (PS3.8 9.3.4)
_WRONG_PEER: Rejection = (1, 1, 3)  # calling AE title not recognised


@dataclass
class Wanted:
    """What may come at present: one study's series, into a folder of our own naming. ``stored`` holds the SOP Instance UIDs by series."""

    study_uid: str
    series: frozenset[str]
    folder: Path
    stored: dict[str, set[str]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many instances have come."""
        return sum(len(uids) for uids in self.stored.values())


class Collector(StorageSCP):
    """Listens for the archive's C-STORE sub-operations (PS3.4 C.4.2).

    Parameters
    ----------
    ae_title, port, address
        as whom and where it listens
    peers
        network addresses that may send
    files
        the file operations; others in tests
    """

    def __init__(self, ae_title: str, port: int, address: str, peers: Collection[str], files: FileLayer | None = None) -> None:
        super().__init__(ae_title, port, address)
        self.peers, self._files = frozenset(peers), files or FileLayer()
        self.turned_away: list[str] = []  # addresses whose associations were rejected
        self.refused = 0  # instances that nobody had asked for
        self.trouble: OSError | None = None  # the disk's, of the last instance that could not be written
        self._lock = threading.Lock()
        self._wanted: Wanted | None = None

    def expect(self, wanted: Wanted | None) -> None:
        """Take what is wanted from now on, and nothing else; None: nothing at all."""
        with self._lock:
            self._wanted = wanted

    def rejection(self, association: Any) -> Rejection | None:
        """Take associations that call us by our title from the addresses that were told."""
        peer = str(association.requestor.address).removeprefix("::ffff:")  # as a dual-stack socket writes an IPv4 address
        if peer not in self.peers:
            self.turned_away.append(peer)
            return _WRONG_PEER
        called = str(association.requestor.primitive.called_ae_title).strip()
        return None if called == self.ae_title else _WRONG_TITLE

    def store(self, event: Any) -> int:
        """Write an instance that is wanted; success is answered when file and name are on the disk."""
        encoded = event.encoded_dataset()
        try:
            header = read_header(BytesIO(encoded), "the instance received")
        except UnreadableObject:
            return CANNOT_UNDERSTAND
        study_uid, series_uid, sop_uid = (text_of(header, keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
        if sop_uid != str(event.request.AffectedSOPInstanceUID):
            return CLASS_MISMATCH
        with self._lock:
            wanted = self._wanted
            if wanted is None or study_uid != wanted.study_uid or series_uid not in wanted.series:
                self.refused += 1
                return NOT_AUTHORISED
            return self._keep(wanted, series_uid, sop_uid, encoded)

    def _keep(self, wanted: Wanted, series_uid: str, sop_uid: str, encoded: bytes) -> int:
        stored = wanted.stored.setdefault(series_uid, set())
        if sop_uid in stored:
            return SUCCESS
        try:
            write_durably(self._files, wanted.folder / f"{wanted.count + 1:06d}.dcm", [encoded])
        except OSError as error:
            self.trouble = error
            return OUT_OF_RESOURCES
        stored.add(sop_uid)
        return SUCCESS
