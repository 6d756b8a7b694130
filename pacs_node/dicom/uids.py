"""Unique identifiers that come out the same whenever they are made from the same facts (PS3.5 B.2)."""

from __future__ import annotations

import hashlib
import re
import uuid

_NAMESPACE = uuid.UUID("6f1f2a9e-4f0a-5a3c-9d57-0c6a3f1f7b11")


def derive_uid(*facts: object, root: str | None = None) -> str:
    """Return a UID that depends on ``facts`` only.

    Without ``root`` it is a UUID-derived UID (``2.25.`` and a name-based UUID, PS3.5 B.2); with one, ``root`` followed by 38
    decimal digits of a SHA-256. Facts are told apart by their text and position.
    """
    text = "\x1f".join(str(fact) for fact in facts)
    if root is None:
        return f"2.25.{uuid.uuid5(_NAMESPACE, text).int}"
    digits = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big") % 10**38
    return f"{root}.{digits or 1}"


def node_device_uid(node_name: str) -> str:
    """Return the Device UID of a node: never changes, marks everything that the node made (the loop guard)."""
    return derive_uid("node device", node_name)


def is_valid_uid(text: str) -> bool:
    """Tell whether ``text`` is a UID by PS3.5 9.1: at most 64 characters, numeric components without leading zeros."""
    return len(text) <= 64 and re.fullmatch(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*", text) is not None
