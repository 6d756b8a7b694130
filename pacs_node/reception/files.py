"""The few file operations of the spool, one method each, so that a test can record their order or make one fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

Bytes = bytes | bytearray | memoryview

_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class FileLayer:
    """The operating system's files. Every method raises OSError as the system gives it."""

    def create(self, path: Path) -> int:
        """Make a new file for writing and return its descriptor; an existing one is an error."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def write(self, descriptor: int, part: Bytes) -> None:
        """Write all bytes of ``part``."""
        rest = memoryview(part).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def sync(self, descriptor: int) -> None:
        """Wait until the file's bytes and length are on the disk."""
        _sync_data(descriptor)

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


def write_durably(files: FileLayer, path: Path, parts: Iterable[Bytes]) -> None:
    """Write ``path`` so that after a power cut it is there as a whole or not at all.

    The order matters: bytes into ``NAME.part``, sync the file, rename, sync the folder. Where one of these fails, nothing of the
    file stays behind and the error is raised.
    """
    part = path.with_name(path.name + ".part")
    try:
        descriptor = files.create(part)
        try:
            for piece in parts:
                files.write(descriptor, piece)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(part, path)
        files.sync_folder(path.parent)
    except BaseException:
        for leftover in (part, path):
            with contextlib.suppress(OSError):
                files.remove(leftover)
        raise
