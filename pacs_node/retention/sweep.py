"""Files off the disk, and the pin with which a backup keeps them on it. Knows paths only: what may go was decided before."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pacs_node import crash

_ROOTS = ("studies", "results", "aside", "quarantine")  # nothing elsewhere is ever removed
_KEPT_LEVELS = 2  # of folders below the data folder that stay when they are empty: studies/0000, results/0000


@dataclass(frozen=True, slots=True)
class Swept:
    """What was removed."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Swept) -> Swept:
        """Return both together."""
        return Swept(self.files + other.files, self.bytes + other.bytes)


def remove(data: Path, relative: Iterable[str]) -> Swept:
    """Remove files of the data folder and the folders that are empty then; on return the removal is on the disk.

    Files that are not there are fine. Raises ValueError for a path outside the folders of kept files, OSError where the disk refuses.
    """
    files = size = 0
    folders: dict[Path, None] = {}
    for name in relative:
        path = _safe(data, name)
        with contextlib.suppress(FileNotFoundError):
            length = path.stat().st_size
            path.unlink()
            files, size = files + 1, size + length
            folders[path.parent] = None
            crash.passed("swept")
    for folder in folders:
        _sync(folder)
        _remove_empty(data, folder)
    return Swept(files, size)


def _safe(data: Path, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if len(parts) < 2 or parts[0] not in _ROOTS or ".." in parts:
        raise ValueError(f"{name!r} is no kept file")
    return data / name


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_empty(data: Path, folder: Path) -> None:
    while len(folder.relative_to(data).parts) > _KEPT_LEVELS:
        try:
            folder.rmdir()
        except OSError:
            return  # something is in it, or comes into it just now
        folder = folder.parent


# --- the pin -------------------------------------------------------------------------------------------------------------


@contextmanager
def pinned(data: Path) -> Iterator[None]:
    """Keep all files where they are as long as the block runs: what a backup needs. Waits for a sweep that runs."""
    with _lock(data) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


@contextmanager
def unpinned(data: Path) -> Iterator[bool]:
    """Tell whether files may be removed in the block; False while they are pinned. A pin ends with its process, however that ends."""
    with _lock(data) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def _lock(data: Path) -> Iterator[int]:
    (data / "locks").mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data / "locks" / "files.pin", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
