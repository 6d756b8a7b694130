"""The file layer of a spool; where a test has ordered a crash (`pacs_node.crash`), one in which the process can end between any two operations."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pacs_node import crash
from pacs_node.reception.files import Bytes, FileLayer


class CrashingLayer(FileLayer):
    """Passes the named steps of writing an object; what else the spool does with files passes none."""

    def __init__(self) -> None:
        self._here = threading.local()  # associations write in threads of their own

    def write(self, descriptor: int, part: Bytes) -> None:
        """Write half of ``part``, pass ``part-written``, write the rest."""
        view = memoryview(part).cast("B")
        super().write(descriptor, view[: len(view) // 2])
        crash.passed("part-written")
        super().write(descriptor, view[len(view) // 2 :])

    def sync(self, descriptor: int) -> None:
        """Sync the file and pass ``file-synced``."""
        super().sync(descriptor)
        crash.passed("file-synced")

    def rename(self, source: Path, target: Path) -> None:
        """Rename, and pass ``renamed`` where a file has become whole."""
        super().rename(source, target)
        self._here.whole = source.suffix == ".part"
        if self._here.whole:
            crash.passed("renamed")

    def sync_folder(self, folder: Path) -> None:
        """Sync the folder, and pass ``folder-synced`` where a file has just become whole in it."""
        super().sync_folder(folder)
        if getattr(self._here, "whole", False):
            self._here.whole = False
            crash.passed("folder-synced")


def file_layer() -> FileLayer:
    """Return the layer that a spool uses unless it is given one."""
    return CrashingLayer() if crash.VARIABLE in os.environ else FileLayer()
