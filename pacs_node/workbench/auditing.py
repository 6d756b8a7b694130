"""`pacs-node audit`: whether the trail holds, what stands in it, and a copy of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from pacs_node.config import Settings
from pacs_node.database import audit
from pacs_node.errors import InputError
from pacs_node.journey import now
from pacs_node.journey.operate import operator
from pacs_node.journey.trail import source_of
from pacs_node.monitoring.audit_messages import message
from pacs_node.records import AuditChain
from pacs_node.workbench.tables import open_store


class Form(StrEnum):
    """What a row of a copy is."""

    JSON = "json"
    DICOM = "dicom"  # an audit message of PS3.15 A.5, without the patient


def verify(settings: Settings, anchor: str = "") -> AuditChain:
    """Follow the trail from its first row to its last; raises `InputError` for an ``anchor`` that is no hash."""
    if anchor and not re.fullmatch(r"[0-9a-fA-F]{64}", anchor):
        raise InputError(f"{anchor!r} is no anchor: give the 64 hexadecimal digits that `audit verify` printed, or that stand in the log")
    with open_store(settings) as store, store.read() as session:
        return audit.follow(audit.every(session), anchor.lower())


def sentence(chain: AuditChain) -> str:
    """Say for people how far the trail holds."""
    if chain.fault:
        return f"the audit trail does NOT hold: {chain.fault}. The {chain.length} rows before are whole; their anchor is {chain.head}"
    return f"the audit trail holds: {chain.length} rows, anchor {chain.head}"


def listed(settings: Settings, limit: int) -> list[dict[str, Any]]:
    """Return the newest rows, newest first; that somebody reads them is audited itself."""
    with open_store(settings) as store:
        with store.write() as session:
            audit.note(session, operator(), "audit read", "audit trail", {"rows": limit}, now())
        with store.read() as session:
            return [audit.as_line(entry) for entry in audit.newest(session, limit)]


def exported(settings: Settings, form: Form = Form.JSON) -> Iterator[str]:
    """Yield all rows as lines, oldest first; that somebody copies them is audited itself."""
    source = source_of(settings)
    with open_store(settings) as store:
        with store.write() as session:
            audit.note(session, operator(), "audit read", "audit trail", {"rows": "all"}, now())
        with store.read() as session:
            for entry in audit.every(session):
                yield message(entry, source) if form is Form.DICOM else json.dumps(audit.as_line(entry), ensure_ascii=False)
