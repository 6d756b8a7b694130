"""Objects as files in a folder: ``PATH/<study and pipeline>/<SOP Instance UID>.dcm``, whole or not at all."""

from __future__ import annotations

import errno
import filecmp
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pacs_node.config import FolderDestination
from pacs_node.dicom.uids import derive_uid, is_valid_uid
from pacs_node.errors import TemporaryFailure
from pacs_node.records import Outcome, Parcel

_LONGEST_NAME = 120  # characters; file systems take 255 bytes


def deliver(
    destination: FolderDestination,
    parcels: Sequence[Parcel],
    calling_ae: str,
    on_outcome: Callable[[Outcome], None],
    wanted: Callable[[Parcel], bool] = lambda parcel: True,
) -> None:
    """Copy ``parcels`` in order and report each at once; doing it again changes nothing. What is not ``wanted`` any more is left out.

    Raises `TemporaryFailure` where the folder cannot be written. ``calling_ae`` is what every kind of destination is told.
    """
    for parcel in filter(wanted, parcels):
        if not parcel.path.is_file():
            on_outcome(Outcome(parcel.sop_uid, delivered=False, permanent=True, message=f"the stored file {parcel.path} is gone"))
            continue
        target = target_of(destination, parcel)
        try:
            if _copy(parcel.path, target):
                _sync_folder(target.parent)
                _sync_folder(destination.path)
        except OSError as error:
            raise TemporaryFailure(f"folder {destination.path}", f"cannot write {target.name} ({error.strerror or error})") from error
        on_outcome(Outcome(parcel.sop_uid, delivered=True, message=str(target)))


def target_of(destination: FolderDestination, parcel: Parcel) -> Path:
    """Return where an object goes. Names are made of harmless characters only, whatever was received."""
    name = parcel.sop_uid if is_valid_uid(parcel.sop_uid) else derive_uid("file name", parcel.sop_uid)
    return destination.path / harmless(parcel.folder) / f"{name}.dcm"


def harmless(text: str) -> str:
    """Turn a text into the name of one folder: letters, digits, dot, dash and underscore, never a way out of its parent."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._")[:_LONGEST_NAME]


def _copy(source: Path, target: Path) -> bool:
    """Put a synced copy of ``source`` in place; False where it is there already."""
    if target.is_file() and filecmp.cmp(source, target, shallow=False):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        with source.open("rb") as reading, part.open("wb") as writing:
            shutil.copyfileobj(reading, writing, 1 << 20)
            writing.flush()
            os.fsync(writing.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync names by themselves and refuse this
            raise
    finally:
        os.close(descriptor)
