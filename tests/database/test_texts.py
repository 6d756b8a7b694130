"""What headers may hold and a database may refuse."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacs_node.database import alerts, studies
from pacs_node.database.engine import Store
from pacs_node.database.tables import AuditRow, StudyRow
from pacs_node.records import Arrival, Instance, PatientIdentity, Sender, Series

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("odd", ["\0", "a\0b\0", "x" * 5000, "\N{PILE OF POO}\u202e\ufffe"], ids=["only NUL", "NUL", "long", "rare letters"])
def test_no_text_of_a_header_is_refused(store: Store, odd: str) -> None:
    patient = PatientIdentity(odd, odd, odd, odd[:64])
    instance = Instance("1.2.3.4", odd[:64], odd[:64], "1.2.3", "1.2.3.1", odd[:16], patient, Path("x"))
    arrival = Arrival(Path("x"), "0001", NOW, Sender(odd[:16], odd[:16], odd, "a1"))
    with store.write() as session:
        study = studies.ensure_study(session, instance, arrival, {"accession": odd, "description": odd})
        series = studies.ensure_series(session, study, Series("1.2.3.1", odd, 1, odd, ()))
        studies.add_instance(session, series, instance, arrival, own=False)
        alerts.audit(session, odd, "test", odd, {"odd": odd}, NOW)
        assert alerts.raise_alert(session, "test", odd, odd, NOW)
        assert not alerts.raise_alert(session, "test", odd, odd, NOW)
    with store.read() as session:
        row = studies.get_study(session, 1)
        assert row is not None
        assert row.patient_name.replace("\0", "") == odd.replace("\0", "")
        assert len(row.accession) <= 64
        assert len(studies.identities(row)) == 1


@pytest.mark.parametrize(("number", "kept"), [(2**31 - 1, 2**31 - 1), (-5, -5), (2**31, None), (10**30, None)])
def test_a_series_number_that_no_series_number_can_be_is_left_out(store: Store, number: int, kept: int | None) -> None:
    instance = Instance("1.2.3.4", "1", "1", "1.2.3", "1.2.3.1", "CT", PatientIdentity("P", "", "", ""), Path("x"))
    arrival = Arrival(Path("x"), "0001", NOW, Sender())
    with store.write() as session:
        study = studies.ensure_study(session, instance, arrival, {})
        assert studies.ensure_series(session, study, Series("1.2.3.1", "CT", number, "", ())).number == kept


def test_numbers_that_json_lacks_become_nothing(store: Store) -> None:
    with store.write() as session:
        alerts.audit(session, "t", "test", "x", {"score": float("nan"), "parts": [1.5, float("inf")], "deep": {"p": float("-inf")}}, NOW)
    with store.read() as session:
        assert session.get_one(AuditRow, 1).detail == {"score": None, "parts": [1.5, None], "deep": {"p": None}}


def test_no_text_is_cut_that_fits(store: Store) -> None:
    row = StudyRow(accession="A" * 64, birth_date="1" * 33)
    assert (len(row.accession), len(row.birth_date)) == (64, 32)
