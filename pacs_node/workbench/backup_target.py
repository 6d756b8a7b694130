"""Where a backup goes: a folder, or one tar file. Both appear under their name only when they are whole."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

PACKED = (".gz", ".tgz", ".zip", ".xz", ".zst", ".bz2")  # suffixes of what is not made: images hardly pack


class Target(Protocol):
    """Takes files by their name in the copy."""

    def put(self, stream: BinaryIO, name: str, facts: os.stat_result, *, data: bool = True) -> None:
        """Take a file; ``data``: below the copy of the data folder."""

    def put_text(self, name: str, text: str) -> None:
        """Take a text beside the copy of the data folder."""


class Folder:
    """A copy as a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, stream: BinaryIO, name: str, facts: os.stat_result, *, data: bool = True) -> None:
        """Take a file, with its time of change and who may read it."""
        path = self._root / "data" / name if data else self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        path.chmod(stat.S_IMODE(facts.st_mode))
        os.utime(path, ns=(facts.st_mtime_ns, facts.st_mtime_ns))

    def put_text(self, name: str, text: str) -> None:
        """Take a text."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Tar:
    """A copy as one tar file."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def put(self, stream: BinaryIO, name: str, facts: os.stat_result, *, data: bool = True) -> None:
        """Take a file, with its time of change."""
        self._add(f"data/{name}" if data else name, stream, facts.st_size, int(facts.st_mtime))

    def put_text(self, name: str, text: str) -> None:
        """Take a text."""
        content = text.encode()
        self._add(name, io.BytesIO(content), len(content), 0)

    def _add(self, name: str, stream: BinaryIO, size: int, changed: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = size, changed, 0o600
        self._archive.addfile(info, stream)


@contextmanager
def target_of(out: Path) -> Iterator[Target]:
    """Give the target that ``out`` asks for; it gets its name, synced, when the block ends well, and vanishes otherwise."""
    part = out.with_name(f"{out.name}.part")
    _clear(part)
    try:
        if out.suffix == ".tar":
            with part.open("xb") as file:
                os.chmod(part, 0o600)
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                    yield Tar(archive)
                file.flush()
                os.fsync(file.fileno())
        else:
            part.mkdir(mode=0o700)
            yield Folder(part)
            os.sync()  # the names of all that was written
        part.rename(out)
    except BaseException:
        _clear(part)
        raise
    descriptor = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    else:
        part.unlink(missing_ok=True)
