"""The few file operations of the spool, one method each, so that a test can record their order or make one fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

Bytes = bytes | bytearray | memoryview

_KEPT = 64 * 1024  # bytes at the beginning of a file: more than the header of nearly every image
_AHEAD = 256 * 1024  # bytes of a file after which writing begins, so that `sync` finds less to do
_dont_need: int | None = getattr(os, "POSIX_FADV_DONTNEED", None)  # macOS takes no advice
_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


def _advise(descriptor: int, start: int, size: int) -> None:
    """Tell the system that these bytes of a file, up to its end where ``size`` is 0, are not needed in memory."""
    if _dont_need is not None:
        with contextlib.suppress(OSError):  # advice, nothing more
            os.posix_fadvise(descriptor, start, size, _dont_need)


class FileLayer:
    """The operating system's files. Every method raises OSError as the system gives it."""

    def create(self, path: Path) -> int:
        """Make a new file for writing and return its descriptor; an existing one is an error."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def write(self, descriptor: int, part: Bytes) -> None:
        """Write all bytes of ``part``."""
        written = os.write(descriptor, part)
        while written < len(part):  # a part is bytes: its length is its size
            written += os.write(descriptor, memoryview(part)[written:])

    def begin_writing(self, descriptor: int, start: int, size: int) -> None:
        """Let the system begin to bring these bytes to the disk while more of the file comes; `sync` has less to wait for then.

        On Linux the advice not to need them does that; what is not written yet stays in memory.
        """
        _advise(descriptor, start, size)

    def sync(self, descriptor: int) -> None:
        """Wait until the file's bytes and length are on the disk."""
        _sync_data(descriptor)

    def release(self, descriptor: int) -> None:
        """Let the system forget all but the beginning of a synced file, which is what will be asked for next.

        Images pass through by the gigabyte; kept in memory they push out what is in use, and on a virtual machine every page of new memory
        has its price. Whoever analyses the pixels reads them from the disk, once.
        """
        _advise(descriptor, _KEPT, 0)

    def close(self, descriptor: int) -> None:
        """Close the descriptor."""
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its final name, in one step."""
        source.rename(target)

    def sync_folder(self, folder: Path) -> None:
        """Wait until the names in ``folder`` are on the disk."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file; none there is fine."""
        path.unlink(missing_ok=True)


class DurableFile:
    """A file in the making: after a power cut it is there as a whole under its name, or not at all.

    The order matters: bytes into ``NAME.part``, sync the file, rename, sync the folder. Where one of these fails, nothing of the
    file stays behind and the error is raised.
    """

    def __init__(self, files: FileLayer, path: Path) -> None:
        self.path, self._files = path, files
        self._part = path.with_name(path.name + ".part")
        self._descriptor: int | None = files.create(self._part)
        self._size = self._begun = 0  # bytes written, and those of them that are on their way to the disk

    def write(self, part: Bytes) -> None:
        """Append all bytes of ``part``."""
        assert self._descriptor is not None
        try:
            self._files.write(self._descriptor, part)
            self._size += len(part)
            if self._size - self._begun >= _AHEAD:
                self._files.begin_writing(self._descriptor, self._begun, self._size - self._begun)
                self._begun = self._size
        except BaseException:
            self.discard()
            raise

    def commit(self, target: Path | None = None) -> None:
        """Make it durable under its name, or as ``target`` on the same disk; success may be told when this returns."""
        assert self._descriptor is not None
        if target is not None:
            self.path = target
        try:
            self._files.sync(self._descriptor)
            self._files.release(self._descriptor)
            self._close()
            self._files.rename(self._part, self.path)
            self._files.sync_folder(self.path.parent)
        except BaseException:
            self.discard()
            with contextlib.suppress(OSError):
                self._files.remove(self.path)
            raise

    def discard(self) -> None:
        """Take it away, as far as it got; does nothing the second time."""
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._files.remove(self._part)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._files.close(descriptor)


def write_durably(files: FileLayer, path: Path, parts: Iterable[Bytes]) -> None:
    """Write a whole `DurableFile`."""
    file = DurableFile(files, path)
    try:
        for part in parts:
            file.write(part)
    except BaseException:  # of whoever makes the parts
        file.discard()
        raise
    file.commit()
