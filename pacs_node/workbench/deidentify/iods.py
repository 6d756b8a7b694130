"""How badly an IOD needs an attribute: PS3.15 leaves it to the IOD's type whether something is removed, emptied or replaced.

The tables of PS3.3 come with highdicom.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from highdicom import _standard_utils as standard  # its tables of PS3.3; no public function gives an attribute's type

Path = tuple[str, ...]  # keywords of the sequences around an attribute, then its own


@lru_cache(maxsize=64)
def _types(sop_class_uid: str) -> dict[Path, str] | None:
    """Return the strictest type ("1", "2" or "3") of each attribute of an IOD; None for a SOP class that is not known."""
    iod = standard.get_sop_class_iod_map().get(sop_class_uid)
    if iod is None:
        return None
    types: dict[Path, str] = {}
    attributes: dict[str, list[dict[str, Any]]] = standard.get_module_attribute_map()
    for module in standard.get_iod_module_map()[iod]:
        for attribute in attributes.get(module["key"], ()):
            path = (*attribute["path"], attribute["keyword"])
            types[path] = min(types.get(path, "3"), attribute["type"][0])
    return types


def stated(sop_class_uid: str, path: Path) -> str | None:
    """Return the type ("1", "2" or "3") that the tables give an attribute; None where they do not name it there."""
    return (_types(sop_class_uid) or {}).get(path)


def needed(sop_class_uid: str, path: Path) -> str:
    """Return the type by which an attribute has to be there: "1", "2" or "3"; "1" where it cannot be told.

    At the top level, what the IOD does not name is not needed. In sequences the tables do not go everywhere.
    """
    absent = "3" if len(path) == 1 and _types(sop_class_uid) is not None else "1"
    return stated(sop_class_uid, path) or absent
