"""What PS3.15 A.5 asks of an audit message, as tables to check one against: A.5.1 for its elements, A.5.3 for each kind of event."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

Check = Callable[[str], bool]


def one_of(*words: str) -> Check:
    return lambda value: value in words


def like(pattern: str) -> Check:
    return lambda value: re.fullmatch(pattern, value) is not None


def packed(value: str) -> bool:
    return base64.b64encode(base64.b64decode(value, validate=True)).decode() == value


anything = like(r"(?s).+")
uid = like(r"[0-2](\.(0|[1-9][0-9]*))+")
truth = one_of("true", "false")
moment = like(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class Rule:
    """Attributes (``?`` at the end: optional) and children in their order, each with how many there may be; ``text``: whether it may hold text."""

    attributes: dict[str, Check] = field(default_factory=dict)
    children: tuple[tuple[str, int, int], ...] = ()
    text: bool = False


MANY = 10**6
CODED = Rule({"csd-code": anything, "codeSystemName": anything, "originalText": anything, "displayName?": anything})

RULES: dict[str, Rule] = {
    "AuditMessage": Rule(
        children=(
            ("EventIdentification", 1, 1), ("ActiveParticipant", 1, MANY), ("AuditSourceIdentification", 1, 1), ("ParticipantObjectIdentification", 0, MANY),
        )
    ),
    "EventIdentification": Rule(
        {"EventActionCode?": one_of(*"CRUDE"), "EventDateTime": moment, "EventOutcomeIndicator": one_of("0", "4", "8", "12")},
        (("EventID", 1, 1), ("EventTypeCode", 0, MANY), ("EventOutcomeDescription", 0, 1)),
    ),
    "ActiveParticipant": Rule(
        {
            "UserID": anything, "AlternativeUserID?": anything, "UserName?": anything, "UserIsRequestor": truth, "NetworkAccessPointID?": anything,
            "NetworkAccessPointTypeCode?": one_of(*"12345"),
        },
        (("RoleIDCode", 0, MANY), ("MediaIdentifier", 0, 1)),
    ),
    "AuditSourceIdentification": Rule({"AuditEnterpriseSiteID?": anything, "AuditSourceID": anything}, (("AuditSourceTypeCode", 0, MANY),)),
    "ParticipantObjectIdentification": Rule(
        {
            "ParticipantObjectID": anything, "ParticipantObjectTypeCode?": one_of(*"1234"), "ParticipantObjectTypeCodeRole?": like("[1-9]|1[0-9]|2[0-6]"),
            "ParticipantObjectDataLifeCycle?": like("[1-9]|1[0-5]"), "ParticipantObjectSensitivity?": anything,
        },
        (
            ("ParticipantObjectIDTypeCode", 1, 1), ("ParticipantObjectName", 1, 1), ("ParticipantObjectDetail", 0, MANY),
            ("ParticipantObjectDescription", 0, MANY),
        ),
    ),
    "MediaIdentifier": Rule(children=(("MediaType", 1, 1),)),
    "ParticipantObjectDetail": Rule({"type": anything, "value": packed}),
    "ParticipantObjectDescription": Rule(
        children=(
            ("MPPS", 0, MANY), ("Accession", 0, MANY), ("SOPClass", 0, MANY), ("ParticipantObjectContainsStudy", 0, 1), ("Encrypted", 0, 1),
            ("Anonymized", 0, 1),
        )
    ),
    "SOPClass": Rule({"UID?": uid, "NumberOfInstances": like("[0-9]+")}, (("Instance", 0, MANY),)),
    "Instance": Rule({"UID": uid}),
    "EventOutcomeDescription": Rule(text=True),
    "ParticipantObjectName": Rule(text=True),
    **dict.fromkeys(("EventID", "EventTypeCode", "RoleIDCode", "MediaType", "ParticipantObjectIDTypeCode", "AuditSourceTypeCode"), CODED),
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What a table of A.5.3 makes mandatory."""

    code: str  # Event Action Codes
    types: tuple[str, ...] = ()  # of which one has to be among the event types
    roles: tuple[str, ...] = ()  # of active participants
    objects: tuple[str, ...] = ()  # (type, role, ID type) of participant objects
    access_point: bool = False  # some participant says where it is


STUDY, PATIENT = "2 3 110180", "1 1 2"
SECURITY = ("110126", "110127", "110128", "110129", "110130", "110131", "110132")  # of CID 403
KINDS: dict[str, Kind] = {
    "110100": Kind("E", ("110120", "110121"), ("110150",)),
    "110101": Kind("R", objects=("2 13 12",)),
    "110102": Kind("E", roles=("110153", "110152"), objects=(STUDY, PATIENT)),
    "110103": Kind("CRUD", objects=(STUDY, PATIENT)),
    "110104": Kind("CRU", roles=("110153", "110152"), objects=(STUDY, PATIENT)),
    "110105": Kind("D", objects=(STUDY, PATIENT)),
    "110106": Kind("R", roles=("110153", "110154")),
    "110113": Kind("E", SECURITY, objects=("2 13 110182",)),
    "110114": Kind("E", ("110122", "110123"), access_point=True),
}


def faults(text: str) -> list[str]:
    """Return what is wrong with a message, nothing where it is as the standard wants it."""
    root = ET.fromstring(text)
    found = [] if root.tag == "AuditMessage" else [f"the root is {root.tag}"]
    found += list(_of_element(root))
    return found or list(_of_kind(root))


def _of_element(element: ET.Element) -> list[str]:
    rule = RULES.get(element.tag)
    if rule is None:
        return [f"{element.tag} is no element of the schema"]
    found = []
    known = {name.rstrip("?"): check for name, check in rule.attributes.items()}
    found += [f"{element.tag} has no attribute {name}" for name in rule.attributes if not name.endswith("?") and name not in element.attrib]
    for name, value in element.attrib.items():
        if name not in known or not known[name](value):
            found.append(f"{element.tag}/@{name} may not be {value!r}")
    if (element.text or "").strip() and not rule.text:
        found.append(f"{element.tag} holds text")
    order = [name for name, _, _ in rule.children]
    places = [order.index(child.tag) if child.tag in order else -1 for child in element]
    if -1 in places or places != sorted(places):
        found.append(f"the children of {element.tag} are {[child.tag for child in element]}")
    for name, least, most in rule.children:
        if not least <= len(element.findall(name)) <= most:
            found.append(f"{element.tag} has {len(element.findall(name))} of {name}")
    for child in element:
        found += _of_element(child)
    return found


def _of_kind(root: ET.Element) -> list[str]:
    event = root.find("EventIdentification")
    assert event is not None
    name = event.find("EventID").get("csd-code")  # type: ignore[union-attr]
    kind = KINDS[str(name)]
    types = {code.get("csd-code") for code in event.findall("EventTypeCode")}
    roles = {code.get("csd-code") for code in root.iter("RoleIDCode")}
    objects = [
        f"{one.get('ParticipantObjectTypeCode')} {one.get('ParticipantObjectTypeCodeRole')} {one.find('ParticipantObjectIDTypeCode').get('csd-code')}"  # type: ignore[union-attr]
        for one in root.findall("ParticipantObjectIdentification")
    ]
    found = [] if event.get("EventActionCode") in kind.code else [f"{name}: action code {event.get('EventActionCode')}"]
    found += [] if not kind.types or types & set(kind.types) else [f"{name}: no type of {kind.types}"]
    found += [f"{name}: no participant with role {role}" for role in kind.roles if role not in roles]
    found += [f"{name}: no object {wanted} among {objects}" for wanted in kind.objects if wanted not in objects]
    requestors = [one for one in root.findall("ActiveParticipant") if one.get("UserIsRequestor") == "true"]
    found += [f"{name}: {len(requestors)} requestors"] if len(requestors) > 1 else []
    if kind.access_point and not any(one.get("NetworkAccessPointID") and one.get("NetworkAccessPointTypeCode") for one in root.findall("ActiveParticipant")):
        found.append(f"{name}: nobody says where he is")
    if name == "110113" and not any(one.get("type") == "Alert Description" for one in root.iter("ParticipantObjectDetail")):
        found.append("an alert without its description")
    return found
