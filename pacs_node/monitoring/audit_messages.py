"""A row of the audit trail as a DICOM audit message (PS3.15 A.5): the XML of A.5.1, filled as the tables of A.5.3 say.

::

    AuditMessage ─┬─ EventIdentification         what happened, when, how it went
                  ├─ ActiveParticipant 1…n       who did it, from where
                  ├─ AuditSourceIdentification   this node
                  └─ ParticipantObjectIdentification 0…n   the study, the patient, or what else it was about

The first object carries the row's number and hash, so that who collects the messages holds the chain as well. A patient is named by the Patient ID
where that is asked for, else by the word `WITHHELD`; never by name.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from xml.etree import ElementTree as ET

from pacs_node.monitoring import audit_events as events
from pacs_node.monitoring.audit_events import Code, Event, Family
from pacs_node.records import AuditEntry

WITHHELD = "withheld"
"""In the place of a Patient ID, which the message has to hold."""

_MOST = 2000  # characters of one fact: collectors take messages of 32 KiB (PS3.15 A.6)
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Source:
    """Who reports."""

    node: str  # node.name
    ae_title: str
    host: str
    site: str = ""  # institution


def message(entry: AuditEntry, source: Source, patient_id: str = "") -> str:
    """Return the message of a row, XML without declaration; ``patient_id``: of its study, ``""`` to leave it out."""
    facts: Mapping[str, Any] = entry.detail if isinstance(entry.detail, dict) else {"facts": entry.detail}
    event = events.event_of(entry.action, entry.subject)
    if event.family in events.OF_STUDIES and not facts.get("study_uid"):
        event = Event(Family.ALERT, "E", event.outcome, events.RESTRICTED, operator=event.operator)
    root = ET.Element("AuditMessage")
    _identify(root, entry, event)
    _PARTICIPANTS[event.family](root, entry, source, facts, event)
    ET.SubElement(root, "AuditSourceIdentification", _known({"AuditEnterpriseSiteID": source.site, "AuditSourceID": source.node}))
    trail = {"audit row": entry.number, "audit hash": entry.hash}
    _objects(root, entry, source, event, {**facts, **trail}, patient_id)
    return ET.tostring(root, encoding="unicode")


def _identify(root: ET.Element, entry: AuditEntry, event: Event) -> None:
    at = entry.at.isoformat(timespec="microseconds")
    attributes = {"EventActionCode": event.code, "EventDateTime": at, "EventOutcomeIndicator": str(event.outcome)}
    element = ET.SubElement(root, "EventIdentification", attributes)
    _code(element, "EventID", (event.family.value, "DCM", events.MEANINGS[event.family]))
    if event.type is not None:
        _code(element, "EventTypeCode", event.type)
    if event.family is not Family.LOGIN:
        _code(element, "EventTypeCode", (entry.action, events.OWN_SCHEME, entry.action))
    if event.outcome:
        ET.SubElement(element, "EventOutcomeDescription").text = _text(f"{entry.action}: {entry.subject}")


# --- who -----------------------------------------------------------------------------------------------------------------


def _application(root: ET.Element, entry: AuditEntry, source: Source, facts: Mapping[str, Any], event: Event) -> None:
    _we(root, source, events.APPLICATION)
    _participant(root, entry.actor, [events.LAUNCHER], requestor=True)


def _transfer(root: ET.Element, entry: AuditEntry, source: Source, facts: Mapping[str, Any], event: Event) -> None:
    """Name the side that sent, which is the requestor of every transfer, and the one that received."""
    if event.inward:
        title, address = str(facts.get("calling_ae", "")), str(facts.get("address", ""))
        _participant(root, title or address or "unknown", [events.SOURCE], requestor=True, ae_title=title, address=address)
        _we(root, source, events.DESTINATION)
        return
    _we(root, source, events.SOURCE, requestor=True)
    title, address = str(facts.get("ae_title", "")), str(facts.get("address", ""))
    _participant(root, str(facts.get("destination", "unknown")), [events.DESTINATION], ae_title=title, address=address)


def _actor(root: ET.Element, entry: AuditEntry, source: Source, facts: Mapping[str, Any], event: Event) -> None:
    """Name who did it, and the model that did it with its digest."""
    _participant(root, entry.actor, [] if event.operator else [events.APPLICATION], requestor=True)
    if facts.get("bundle"):
        _participant(root, str(facts["bundle"]), [events.APPLICATION], alternative=str(facts.get("bundle_hash", "")))


def _export(root: ET.Element, entry: AuditEntry, source: Source, facts: Mapping[str, Any], event: Event) -> None:
    _participant(root, entry.actor, [events.SOURCE], requestor=True)
    media = _participant(root, str(facts.get("to", "a folder")), [events.MEDIA])
    _code(ET.SubElement(media, "MediaIdentifier"), "MediaType", events.MEDIA_URI)


def _alert(root: ET.Element, entry: AuditEntry, source: Source, facts: Mapping[str, Any], event: Event) -> None:
    _we(root, source, events.APPLICATION)
    title = str(facts.get("calling_ae", ""))
    _participant(root, title or entry.actor, [], ae_title=title, address=str(facts.get("address", "")))


def _login(root: ET.Element, entry: AuditEntry, source: Source, facts: Mapping[str, Any], event: Event) -> None:
    _participant(root, entry.actor, [], requestor=True, address=str(facts.get("address", "")) or "unknown")
    _we(root, source, events.APPLICATION)


_PARTICIPANTS = {
    Family.APPLICATION: _application,
    Family.LOG_USED: _actor,
    Family.BEGIN: _transfer,
    Family.ACCESSED: _actor,
    Family.TRANSFERRED: _transfer,
    Family.DELETED: _actor,
    Family.EXPORT: _export,
    Family.ALERT: _alert,
    Family.LOGIN: _login,
}
"""Family → what writes its active participants (PS3.15 Tables A.5.3.1-1 to A.5.3.12-1)."""


def _we(root: ET.Element, source: Source, role: Code, *, requestor: bool = False) -> None:
    _participant(root, source.node, [role], requestor=requestor, ae_title=source.ae_title, address=source.host)


def _participant(
    root: ET.Element, user: str, roles: list[Code], *, requestor: bool = False, ae_title: str = "", alternative: str = "", address: str = ""
) -> ET.Element:
    """Add one; ``ae_title`` as A.5.2.2 writes titles, ``address``: host, host:port or URL."""
    host = _host(address)
    other = f"AETITLES={ae_title}" if ae_title else alternative
    attributes = {"UserID": user or "unknown", "AlternativeUserID": other, "UserIsRequestor": "true" if requestor else "false"}
    if host:
        attributes |= {"NetworkAccessPointID": host, "NetworkAccessPointTypeCode": _kind_of_host(host)}
    element = ET.SubElement(root, "ActiveParticipant", _known(attributes))
    for role in roles:
        _code(element, "RoleIDCode", role)
    return element


def _host(address: str) -> str:
    """Return the host of an address; a URL stays whole."""
    if "://" in address:
        return address
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def _kind_of_host(host: str) -> str:
    if "://" in host:
        return "5"
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return "1"
    return "2"


# --- about what ------------------------------------------------------------------------------------------------------------


def _objects(root: ET.Element, entry: AuditEntry, source: Source, event: Event, facts: Mapping[str, Any], patient_id: str) -> None:
    if event.family in events.OF_STUDIES or (event.family is Family.EXPORT and facts.get("study_uid")):
        study = _object(root, ("2", "3"), events.STUDY_UID, str(facts["study_uid"]), entry.subject, facts)
        _describe(study, facts)
        _object(root, ("1", "1"), events.PATIENT_NUMBER, patient_id or WITHHELD, WITHHELD, {})
    elif event.family is Family.ALERT:
        _object(root, ("2", "13"), events.NODE_ID, source.host, entry.subject, {"Alert Description": f"{entry.action}: {entry.subject}", **facts})
    else:
        name = "Security Audit Log" if event.family is Family.LOG_USED else entry.subject
        _object(root, ("2", "13"), events.URI, f"urn:pacs-node:{source.node}:audit", name, facts)


def _object(root: ET.Element, kind: tuple[str, str], id_type: Code, identifier: str, name: str, facts: Mapping[str, Any]) -> ET.Element:
    attributes = {"ParticipantObjectID": _text(identifier), "ParticipantObjectTypeCode": kind[0], "ParticipantObjectTypeCodeRole": kind[1]}
    element = ET.SubElement(root, "ParticipantObjectIdentification", attributes)
    _code(element, "ParticipantObjectIDTypeCode", id_type)
    ET.SubElement(element, "ParticipantObjectName").text = _text(name)
    for fact, value in facts.items():
        if fact != "study_uid":
            words = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            packed = base64.b64encode(words[:_MOST].encode(errors="replace")).decode()
            ET.SubElement(element, "ParticipantObjectDetail", {"type": _text(fact), "value": packed})
    return element


def _describe(study: ET.Element, facts: Mapping[str, Any]) -> None:
    """Add the instances that it was about, where the row says how many."""
    count = facts.get("instances", 1 if facts.get("sop_uid") else 0)
    if not isinstance(count, int) or count < 1:
        return
    description = ET.SubElement(study, "ParticipantObjectDescription")
    attributes = {"UID": str(facts.get("sop_class_uid", "")), "NumberOfInstances": str(count)}
    sop_class = ET.SubElement(description, "SOPClass", _known(attributes))
    if facts.get("sop_uid"):
        ET.SubElement(sop_class, "Instance", {"UID": _text(str(facts["sop_uid"]))})


# --- words ---------------------------------------------------------------------------------------------------------------


def _code(parent: ET.Element, name: str, code: Code) -> None:
    value, scheme, meaning = code
    ET.SubElement(parent, name, {"csd-code": _text(value), "codeSystemName": scheme, "originalText": _text(meaning)})


def _known(attributes: Mapping[str, str]) -> dict[str, str]:
    return {name: _text(value) for name, value in attributes.items() if value}


def _text(words: str) -> str:
    """Return a text in one line, without what XML 1.0 cannot hold."""
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", re.sub("[\t\r\n]", " ", words))
