"""Taking a kept object back into the spool, so that it is indexed again like any arrival: for files that the index knows nothing of."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

from pacs_node.reception.files import FileLayer
from pacs_node.reception.part10 import sender_of

_MARK = "back"  # in the names of what came back: never the name of an arrival that the index may know


def take_back(new: Path, path: Path, files: FileLayer | None = None) -> Path:
    """Move ``path``, a file that a receiver once wrote, into the spool folder ``new`` as the newest arrival; returns where it lies.

    Its bytes and its modification time stay. Raises `UnreadableObject` where its file meta information does not name a sender.
    """
    layer = files or FileLayer()
    association = re.sub("[^0-9a-z]", "", sender_of(path).association)[: 32 - len(_MARK)]
    moment = time.time_ns()
    names = (f"{moment:020d}-{association}{_MARK}-{number:06d}.dcm" for number in itertools.count(1))
    target = next(place for name in names if not (place := new / "00" / name).exists())
    layer.rename(path, target)
    layer.sync_folder(target.parent)
    layer.sync_folder(path.parent)
    return target
