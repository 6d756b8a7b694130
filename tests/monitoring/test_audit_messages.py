"""Rows of the audit trail as DICOM audit messages: as the tables of PS3.15 A.5 have them, whatever a row holds."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs_node.monitoring.audit_events import EVENTS, Family, event_of
from pacs_node.monitoring.audit_messages import WITHHELD, Source, message
from pacs_node.records import AuditEntry
from tests.conftest import ROOT
from tests.monitoring.audit_structure import faults

AT = datetime(2026, 3, 1, 12, 30, 0, 250, tzinfo=UTC)
SOURCE = Source("node-1", "PACS_NODE", "pacs-host", "St. Elsewhere")
FACTS = {
    "study_uid": "1.2.3", "sop_uid": "1.2.3.4", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "instances": 3, "calling_ae": "CT1", "address": "10.0.0.5:40112",
    "bundle": "ct-head 1.0", "bundle_hash": "ab" * 32, "destination": "archive", "ae_title": "ARCHIVE", "to": "/srv/shared",
}  # fmt: skip


def entry(action: str, subject: str = "study 12", detail: object = None) -> AuditEntry:
    return AuditEntry(7, AT, "ada", action, subject, FACTS if detail is None else detail, "cd" * 32)


def family_of(text: str) -> str:
    return str(ET.fromstring(text).find("EventIdentification/EventID").get("csd-code"))  # type: ignore[union-attr]


def details(text: str) -> dict[str, str]:
    return {one.get("type", ""): base64.b64decode(one.get("value", "")).decode() for one in ET.fromstring(text).iter("ParticipantObjectDetail")}


@pytest.mark.parametrize("name", EVENTS)
def test_every_row_of_the_table_makes_a_message_as_the_standard_wants_it(name: str) -> None:
    action, _, kind = name.rpartition(" ") if name.endswith((" job", " study", " delivery")) else (name, "", "thing")
    text = message(entry(action, f"{kind} 12"), SOURCE)
    assert faults(text) == []
    assert family_of(text) == EVENTS[name].family.value


@pytest.mark.parametrize("name", EVENTS)
def test_a_row_that_knows_nothing_makes_one_as_well(name: str) -> None:
    text = message(entry(name, "something", {}), SOURCE)
    assert faults(text) == []
    assert details(text).keys() >= {"audit row", "audit hash"}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(
    action=st.sampled_from([*EVENTS, "parked", "never heard of", ""]) | st.text(), subject=st.text(), actor=st.text(), patient=st.text(),
    detail=anything | st.fixed_dictionaries({}, optional=dict.fromkeys(FACTS, anything)),
)  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_no_content_of_a_row_makes_a_message_that_is_no_message(action: str, subject: str, actor: str, patient: str, detail: object) -> None:
    text = message(AuditEntry(1, AT, actor, action, subject, detail, "00"), SOURCE, patient)
    root = ET.fromstring(text.encode("utf-8"))
    assert root.tag == "AuditMessage"
    assert [child.tag for child in root][-1] == "ParticipantObjectIdentification"


def test_the_checker_finds_what_is_wrong() -> None:
    good = message(entry("sent"), SOURCE)
    assert faults(good) == []
    for wrong, instead in (
        ('EventActionCode="R"', 'EventActionCode="X"'),
        ('EventOutcomeIndicator="0"', 'EventOutcomeIndicator="1"'),
        ('csd-code="110153"', 'csd-code="110150"'),
        ('csd-code="110180"', 'csd-code="110181"'),
        (' AuditSourceID="node-1"', ""),
        ("<ParticipantObjectName>study 12</ParticipantObjectName>", ""),
        ('UserIsRequestor="false"', 'UserIsRequestor="true"'),
        ('<Instance UID="1.2.3.4" />', '<Instance UID="none" />'),
    ):
        assert wrong in good
        assert faults(good.replace(wrong, instead)), instead


def test_a_received_study_names_who_sent_it_from_where_and_how_much() -> None:
    root = ET.fromstring(message(entry("received"), SOURCE))
    sender, we = root.findall("ActiveParticipant")
    assert (sender.get("UserID"), sender.get("AlternativeUserID"), sender.get("NetworkAccessPointID")) == ("CT1", "AETITLES=CT1", "10.0.0.5")
    assert (sender.get("NetworkAccessPointTypeCode"), sender.get("UserIsRequestor")) == ("2", "true")
    assert (we.get("UserID"), we.get("AlternativeUserID")) == ("node-1", "AETITLES=PACS_NODE")
    assert root.find(".//SOPClass").get("NumberOfInstances") == "3"  # type: ignore[union-attr]


def test_an_analysis_names_the_model_and_its_digest() -> None:
    root = ET.fromstring(message(entry("analysed", "job 4"), SOURCE))
    model = root.findall("ActiveParticipant")[1]
    assert (model.get("UserID"), model.get("AlternativeUserID")) == ("ct-head 1.0", "ab" * 32)


def test_the_patient_is_withheld_unless_asked_for() -> None:
    assert f'ParticipantObjectID="{WITHHELD}"' in message(entry("sent"), SOURCE)
    named = message(entry("sent"), SOURCE, "PAT-1")
    assert 'ParticipantObjectID="PAT-1"' in named
    assert faults(named) == []


def test_every_message_carries_the_link_of_its_row() -> None:
    for action in EVENTS:
        found = details(message(entry(action), SOURCE))
        assert (found["audit row"], found["audit hash"]) == ("7", "cd" * 32)


def test_markup_and_control_characters_of_a_sender_stay_text() -> None:
    odd = {**FACTS, "calling_ae": "<b>&\x00\x1b\ufffe", "address": '"><x>'}
    text = message(entry("received", "study <1>", odd), SOURCE)
    assert faults(text) == []
    assert ET.fromstring(text).findall("ActiveParticipant")[0].get("UserID") == "<b>&\ufffd\ufffd\ufffd"


def test_a_long_fact_does_not_make_a_message_that_collectors_need_not_take() -> None:
    assert len(message(entry("rules", "rules.yaml", {"rules": ["x" * 100] * 10_000}), SOURCE)) < 32768


def test_an_address_of_any_form_is_told_apart_from_its_port() -> None:
    for address, host, kind in (
        ("[::1]:104", "::1", "2"), ("fe80::1%eth0", "fe80::1%eth0", "2"), ("pacs.example:104", "pacs.example", "1"),
        ("https://a.example/b", "https://a.example/b", "5"),
    ):  # fmt: skip
        there = ET.fromstring(message(entry("sent", detail={**FACTS, "address": address}), SOURCE)).findall("ActiveParticipant")[1]
        assert (there.get("NetworkAccessPointID"), there.get("NetworkAccessPointTypeCode")) == (host, kind)


def test_every_action_that_the_code_audits_has_its_row() -> None:
    calls = re.compile(r"""\baudit\(\s*session,\s*[^,]+?(?:\([^)]*\))?,\s*f?"([^"{]+)",""")
    found = {action for file in (ROOT / "pacs_node").rglob("*.py") for action in calls.findall(file.read_text())}
    assert len(found) > 12
    known = {name.removesuffix(" job").removesuffix(" delivery").removesuffix(" study") for name in EVENTS}
    assert found <= known


def test_the_same_word_about_a_job_and_a_delivery_are_two_events() -> None:
    assert event_of("parked", "job 3").family is Family.ACCESSED
    assert event_of("parked", "delivery 3").family is Family.TRANSFERRED
    assert event_of("retired", "study 1").family is Family.DELETED
    assert event_of("retired", "job 1").family is Family.ACCESSED
    assert event_of("something new", "x").family is Family.ALERT
