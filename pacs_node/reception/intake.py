"""What becomes of an object: kept, set aside or refused, and every fault of ours turns into a logged answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from pacs_node import crash
from pacs_node.dicom.header import leading_uids
from pacs_node.dicom.leading import quick_uids
from pacs_node.dicom.statuses import CANNOT_UNDERSTAND, CLASS_MISMATCH, OUT_OF_RESOURCES, SUCCESS
from pacs_node.errors import SpoolFull, UnreadableObject
from pacs_node.reception.files import Bytes
from pacs_node.reception.part10 import Incoming
from pacs_node.reception.spool_file import SpoolFile

if TYPE_CHECKING:
    from pacs_node.reception.receiver import ReceiverConversation

log = structlog.get_logger(__name__)

_HEAD = 256 * 1024  # bytes of a dataset in which its two UIDs must stand
_ROOM_EVERY = 64 << 20  # bytes of one object after which the disk is looked at again
_NO_ROOM = "the disk of the spool is filled up to reception.reserve"


class Intake:
    """One object on its way in (see `conversation.Sink`): written as it comes, judged by its first bytes, kept or refused at its end.

    ::

        open: room? ─► write: first bytes ─► judge ┐      ┌─ as its command says ─► spool      0x0000
                              all bytes ─► .part ──┴─ end ┼─ anything else ───────► quarantine 0xC000, 0xA900
                                                          └─ no room, a fault of ours ─► gone  0xA700
    """

    def __init__(self, conversation: ReceiverConversation, incoming: Incoming) -> None:
        self._conversation, self._incoming = conversation, incoming
        self._file: SpoolFile | None = None
        self._verdict: tuple[int, str] | None = None
        self._head, self._size, self._next_look = bytearray(), 0, _ROOM_EVERY
        try:
            self._open()
        except Exception as error:
            self._fail(error)

    def write(self, part: Bytes) -> None:
        """Judge and keep the next bytes; after a refusal they are dropped."""
        if self._file is None:
            return
        try:
            self._write(part)
        except Exception as error:
            self._fail(error)

    def commit(self) -> int:
        """Make the object durable, or keep it in quarantine; return the status to answer, later where its sender is too fast."""
        crash.passed("received")
        begin = time.perf_counter()
        if self._file is not None:
            try:
                self._keep()
            except Exception as error:
                self._fail(error)
        assert self._verdict is not None
        self._conversation.receiver.tally.answered(self._verdict[0], self._size, time.perf_counter() - begin if self._file is not None else None)
        pacer, sender = self._conversation.receiver.pacer, self._incoming.sender
        if pacer is not None:
            self._conversation.guarded(lambda: pacer.took(sender.calling_ae, sender.address.rpartition(":")[0], self._size), 0.0)
        return self._conversation.count(*self._verdict)

    def discard(self) -> None:
        """Keep nothing of it."""
        file, self._file = self._file, None
        if file is not None:
            self._conversation.guarded(file.discard, None)

    def _fail(self, error: Exception) -> None:
        """Turn whatever went wrong into a refusal after which the sender keeps the object."""
        if isinstance(error, SpoolFull):
            self._refuse(str(error))
            return
        log.error("reception failed", association=self._incoming.sender.association, calling_ae=self._incoming.sender.calling_ae, exc_info=error)
        self._refuse("a fault of this node; the log has the details")

    def _refuse(self, reason: str) -> None:
        self._verdict = (OUT_OF_RESOURCES, reason)
        self.discard()

    def _open(self) -> None:
        receiver = self._conversation.receiver
        if not receiver.has_room():
            self._refuse(_NO_ROOM)
            return
        self._file = receiver.spool.open(self._incoming)

    def _write(self, part: Bytes) -> None:
        assert self._file is not None
        if self._verdict is None:
            self._look(part)
        limit = self._conversation.receiver.max_object
        if self._size + len(part) > limit:
            self._verdict = (CANNOT_UNDERSTAND, f"it is larger than the {limit} bytes of reception.max_object: only its beginning was kept")
            part = memoryview(part)[: limit - self._size]
        self._size += len(part)
        self._file.write(part)
        if self._size >= self._next_look:
            self._next_look += _ROOM_EVERY
            if not self._conversation.receiver.has_room():
                self._refuse(_NO_ROOM)

    def _look(self, part: Bytes) -> None:
        """Judge by the first bytes as soon as they tell; most often the first part does."""
        if self._head or (uids := quick_uids(part, self._incoming.transfer_syntax)) is None:
            self._head += memoryview(part)[: _HEAD - len(self._head)]
            if len(self._head) < _HEAD:
                return  # `_keep` judges where no more comes
            self._verdict = judge(bytes(self._head), self._incoming)
            self._head = bytearray()
            return
        self._verdict = compare(*uids, self._incoming)

    def _keep(self) -> None:
        assert self._file is not None
        status, reason = self._verdict or judge(bytes(self._head), self._incoming)
        if status == SUCCESS:
            self._file.commit()
        else:
            self._file.set_aside(reason)
        self._verdict = (status, reason)


def judge(head: bytes, incoming: Incoming) -> tuple[int, str]:
    """Compare the first bytes of a dataset with its C-STORE command; return the status to answer and why (PS3.4 B.2.3)."""
    try:
        return compare(*leading_uids(head, incoming.transfer_syntax), incoming)
    except UnreadableObject as error:
        return CANNOT_UNDERSTAND, str(error)


def compare(sop_class: str, sop_instance: str, incoming: Incoming) -> tuple[int, str]:
    """Compare what a dataset says it is with its command, which may say nothing either."""
    if not sop_class or not sop_instance:
        return CANNOT_UNDERSTAND, "the dataset has no SOP Class UID or no SOP Instance UID"
    if sop_instance != incoming.sop_instance:
        return CANNOT_UNDERSTAND, "the SOP Instance UID of the dataset is not the one of the C-STORE command"
    if sop_class != incoming.sop_class:
        return CLASS_MISMATCH, "the SOP Class UID of the dataset is not the one of the C-STORE command"
    return SUCCESS, ""
