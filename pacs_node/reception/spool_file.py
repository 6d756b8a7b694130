"""One object on its way into the spool: written as it comes, acknowledged when it is durable."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pacs_node.errors import SpoolFull
from pacs_node.reception.files import Bytes, DurableFile, FileLayer, write_durably
from pacs_node.reception.part10 import Incoming, head

DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


@contextlib.contextmanager
def disk_faults(folder: Path) -> Iterator[None]:
    """Raise `SpoolFull` for what the disk does; other errors pass as they are."""
    try:
        yield
    except OSError as error:
        fault = _as_disk_fault(error, folder)
        if fault is error:
            raise
        raise fault from error


def _as_disk_fault(error: OSError, folder: Path) -> Exception:
    return SpoolFull(folder, error.strerror or str(error)) if error.errno in DISK_FAULTS else error


class SpoolFile:
    """A Part 10 file of the spool that is being written.

    Parameters
    ----------
    files
        the file operations
    path
        where it will stand once it is acknowledged
    quarantine
        the folder where it will stand if it is not accepted as it is
    incoming, address
        what goes into the file meta information

    Everything raises `SpoolFull` where the disk takes no more; nothing of the file stays behind then.
    """

    def __init__(self, files: FileLayer, path: Path, quarantine: Path, incoming: Incoming, address: str) -> None:
        self._files, self._quarantine, self._incoming, self.path = files, quarantine, incoming, path
        with disk_faults(path.parent):
            self._file = DurableFile(files, path)
            self._file.write(head(incoming, address))

    def write(self, part: Bytes) -> None:
        """Append the next bytes of the dataset."""
        try:  # no context manager: this is called for every piece that the socket gives
            self._file.write(part)
        except OSError as error:
            fault = _as_disk_fault(error, self.path.parent)
            if fault is error:
                raise
            raise fault from error

    def commit(self) -> Path:
        """Keep the instance; on return it is on the disk and success may be answered."""
        with disk_faults(self.path.parent):
            self._file.commit()
        return self.path

    def set_aside(self, reason: str) -> Path:
        """Keep the object in quarantine, with the reason."""
        target = self._quarantine / self.path.name
        note = target.with_suffix(".json")
        try:
            with disk_faults(self._quarantine):
                write_note(self._files, note, {"sender": asdict(self._incoming.sender), "reason": reason})
                self._file.commit(target)
        except BaseException:
            self._file.discard()
            with contextlib.suppress(OSError):
                self._files.remove(note)
            raise
        return target

    def discard(self) -> None:
        """Keep nothing of it."""
        self._file.discard()


def write_note(files: FileLayer, path: Path, content: object) -> None:
    """Write JSON as durably as an instance."""
    write_durably(files, path, (json.dumps(content, ensure_ascii=True).encode(),))
