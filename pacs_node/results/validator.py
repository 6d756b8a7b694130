"""The judge from outside: ``dciodvfy`` of dicom3tools, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from pydicom.datadict import keyword_for_tag

from pacs_node.results.modules import COPIED

_PROGRAM = "dciodvfy"
_SECONDS = 120
_ODD_UID = re.compile(r"Illegal root for UID = <(\d+\.\d+)\.")
_TAKEN_OVER = frozenset((*COPIED, "SyntheticData"))


def dciodvfy(path: Path, source: Path | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the Error lines about a stored object: (of our making, inherited from the source).

    An Error is inherited where it is about an attribute that we take over as received, and the file ``source`` of the same
    study gets it too; or where a reference leads to a UID of a root that may not be, and ``source`` has such UIDs. Both are empty
    where the program is not installed; a run that does not end in two minutes is an Error.
    """
    errors = _errors(path)
    known = set(_errors(source)) if errors and source is not None else set()
    inherited = tuple(line for line in errors if (line in known and _is_taken_over(line)) or _points_at_odd_uid(line, known))
    return tuple(line for line in errors if line not in inherited), inherited


def _errors(path: Path) -> tuple[str, ...]:
    program = shutil.which(_PROGRAM)
    if program is None:
        return ()
    try:
        ended = subprocess.run([program, "-new", str(path)], capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return (f"Error - {_PROGRAM} did not end within {_SECONDS} s",)
    lines = (ended.stdout + ended.stderr).decode("utf-8", "replace").splitlines()
    return tuple(dict.fromkeys(line.strip() for line in lines if line.startswith("Error")))


def _is_taken_over(line: str) -> bool:
    """Tell whether an Error line is about an attribute that was copied. Lines name it as ``</PatientSex(0010,0040)[1]>``, or without the keyword."""
    tags = re.findall(r"\(([0-9a-f]{4}),([0-9a-f]{4})\)", line.lower())
    return bool(tags) and keyword_for_tag(int("".join(tags[0]), 16)) in _TAKEN_OVER


def _points_at_odd_uid(line: str, known: Collection[str]) -> bool:
    """Tell whether an Error line is about the root of a UID to which a reference must lead, and the source has UIDs of that root."""
    found = _ODD_UID.search(line)
    roots = {odd[1] for other in known if (odd := _ODD_UID.search(other)) is not None}
    return found is not None and found[1] in roots and "Sequence(" in line
