"""The audit trail: whatever is done to its rows, whoever follows the chain finds it; and the database refuses to do it."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from pacs_node.database import audit
from pacs_node.database.alerts import audit as note
from pacs_node.database.engine import Store
from pacs_node.database.tables import AuditRow
from pacs_node.records import AuditChain

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
PROCESSES, EACH = 4, 25


def write(store: Store, rows: int, *, start: int = 0) -> None:
    for number in range(start, start + rows):
        with store.write() as session:
            note(session, "someone", "retry", f"job {number}", {"run": number, "deep": {"b": 1, "a": [1.5, None, "ä"]}}, NOW + timedelta(seconds=number))


def chain(store: Store, anchor: str = "") -> AuditChain:
    with store.read() as session:
        return audit.follow(audit.every(session), anchor)


def tamper(store: Store, *statements: str, **values: object) -> None:
    """Do what only the owner of the database can: take the triggers away, change rows, and put the triggers back."""
    off = [f"DROP TRIGGER audit_no_{what}" for what in ("update", "delete", "insert")] if store.kind == "sqlite" else ["ALTER TABLE audit DISABLE TRIGGER USER"]
    with store.engine.connect().execution_options(writes=True) as connection:
        for statement in off:
            connection.execute(sa.text(statement))
        for statement in statements:
            connection.execute(sa.text(statement), values)
        connection.commit()


def test_a_trail_that_nobody_touched_holds(store: Store) -> None:
    assert chain(store) == AuditChain(0, audit.GENESIS)
    write(store, 12)
    found = chain(store)
    assert (found.length, found.bad, found.fault) == (12, None, "")
    with store.read() as session:
        assert audit.last(session) == (12, found.head)
        assert [entry.number for entry in audit.after(session, 4, 3)] == [5, 6, 7]


def test_rows_of_one_transaction_stand_together_and_those_of_a_failed_one_nowhere(store: Store) -> None:
    with store.write() as session:
        for subject in ("one", "two", "three"):
            note(session, "a", "clear", subject, {}, NOW)
    with pytest.raises(ZeroDivisionError), store.write() as session:
        note(session, "a", "clear", "never", {}, NOW)
        raise ZeroDivisionError
    with store.read() as session:
        assert [(entry.number, entry.subject) for entry in audit.every(session)] == [(1, "one"), (2, "two"), (3, "three")]
    assert chain(store).length == 3


CHANGES = {
    "who": ("UPDATE audit SET actor = 'nobody' WHERE id = 5", 5),
    "when": ("UPDATE audit SET at = '2026-03-01 12:00:09.000001' WHERE id = 5", 5),
    "what": ("UPDATE audit SET action = 'cancel' WHERE id = 5", 5),
    "about what": ("UPDATE audit SET subject = 'job 99' WHERE id = 5", 5),
    "details": ("""UPDATE audit SET detail = '{"run": 5}' WHERE id = 5""", 5),
    "hash": ("UPDATE audit SET hash = '" + "ab" * 32 + "' WHERE id = 5", 5),
    "removed": ("DELETE FROM audit WHERE id = 5", 6),
    "the first removed": ("DELETE FROM audit WHERE id = 1", 2),
    "number": ("UPDATE audit SET id = 50 WHERE id = 12", 50),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_or_removed_row_is_found_and_named(store: Store, change: str) -> None:
    write(store, 12)
    statement, bad = CHANGES[change]
    tamper(store, statement)
    found = chain(store)
    assert found.bad == bad
    assert found.length == (4 if bad in (5, 6) else bad - 2 if bad == 2 else 11)
    assert f"row {bad} of " in found.fault


def test_rows_that_changed_places_are_found(store: Store) -> None:
    write(store, 12)
    tamper(store, "UPDATE audit SET id = 1000 WHERE id = 4", "UPDATE audit SET id = 4 WHERE id = 5", "UPDATE audit SET id = 5 WHERE id = 1000")
    assert chain(store).bad == 4


def test_an_inserted_row_is_found_though_it_has_the_right_hash_itself(store: Store) -> None:
    write(store, 3)
    tamper(store, "UPDATE audit SET id = 7 WHERE id = 3")  # room for one more
    with store.read() as session:
        second = audit.after(session, 1, 1)[0]
    forged = AuditRow(id=3, at=NOW, actor="x", action="retry", subject="job 1", detail={})
    forged.hash = audit.link(second.hash, audit.entry_of(forged))
    with store.write() as session:
        session.add(forged)
    assert chain(store).bad == 7


def test_an_end_that_was_cut_off_shows_with_the_anchor_only(store: Store) -> None:
    write(store, 12)
    anchor = chain(store).head
    tamper(store, "DELETE FROM audit WHERE id > 9")
    assert chain(store).fault == ""  # what is left is a whole chain
    found = chain(store, anchor)
    assert (found.length, found.bad) == (9, None)
    assert anchor in found.fault


def test_a_trail_written_anew_shows_with_an_anchor_of_any_age(store: Store) -> None:
    write(store, 6)
    anchor = chain(store).head
    write(store, 6, start=6)
    assert chain(store, anchor).fault == ""  # it need not be the last one
    with store.read() as session:
        rows = list(audit.every(session))
    before, hashes = audit.GENESIS, {}
    for entry in rows:
        changed = AuditRow(id=entry.number, at=entry.at, actor="x", action=entry.action, subject=entry.subject, detail=entry.detail)
        hashes[entry.number] = before = audit.link(before, audit.entry_of(changed))
    tamper(store, "UPDATE audit SET actor = 'x'", *(f"UPDATE audit SET hash = '{digest}' WHERE id = {number}" for number, digest in hashes.items()))
    assert chain(store).fault == ""
    assert anchor in chain(store, anchor).fault


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'x' WHERE id = 2", "DELETE FROM audit WHERE id = 2", "DELETE FROM audit"])
def test_the_database_refuses_to_change_and_to_remove(store: Store, statement: str) -> None:
    write(store, 3)
    with pytest.raises(IntegrityError, match="only ever added to"), store.write() as session:
        session.execute(sa.text(statement))
    assert chain(store).length == 3


@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE"])
@pytest.mark.parametrize("number", [0, 2])
def test_the_database_refuses_a_row_that_is_not_the_last(store: Store, verb: str, number: int) -> None:
    if store.kind == "postgresql" and verb != "INSERT":
        pytest.skip("PostgreSQL has no REPLACE")
    write(store, 3)
    row = f"{verb} INTO audit (id, at, actor, action, subject, detail, hash) VALUES ({number}, '2026-01-01 00:00:00.000000', 'x', 'x', 'x', '{{}}', 'x')"
    with pytest.raises(IntegrityError, match="only ever added to"), store.write() as session:
        session.execute(sa.text(row))
    assert (chain(store).length, chain(store).fault) == (3, "")


def test_postgresql_refuses_to_empty_the_table(store: Store) -> None:
    if store.kind == "sqlite":
        pytest.skip("SQLite has no TRUNCATE")
    with pytest.raises(IntegrityError, match="only ever added to"), store.write() as session:
        session.execute(sa.text("TRUNCATE audit"))


ODD: dict[str, dict[str, Any]] = {
    "numbers": {"nan": float("nan"), "inf": [float("inf")], "tiny": 5e-324, "large": 2**80, "third": 1 / 3, "minus nothing": -0.0},
    "texts": {"NUL": "a\0b", "quote": '"\\', "rare": "\N{PILE OF POO}\u202e\ufffe", "lone": "\ud800"},
    "shapes": {"tuple": (1, (2, 3)), "empty": {}, "keys": {1: "one", None: 2}},
}


@pytest.mark.parametrize("kind_of_detail", ODD)
def test_odd_content_comes_back_as_it_was_hashed(store: Store, kind_of_detail: str) -> None:
    with store.write() as session:
        note(session, "x" * 5000, "y\0" * 50, "z\0", ODD[kind_of_detail], NOW)
    assert chain(store).fault == ""
    with store.read() as session:
        (entry,) = audit.every(session)
    assert json.loads(json.dumps(audit.as_line(entry)))["hash"] == entry.hash


def _write_some(url: str, number: int) -> None:
    store = Store(url)
    for count in range(EACH):
        with store.write() as session:
            note(session, f"process {number}", "retry", f"job {count}", {"n": count}, datetime.now(UTC))
            if count % 5 == 0:
                note(session, f"process {number}", "clear", f"alert {count}", {}, datetime.now(UTC))
    store.close()


def test_several_processes_write_one_chain(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_some, args=(store.url, number)) for number in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    found = chain(store)
    assert (found.fault, found.length) == ("", PROCESSES * (EACH + EACH // 5))


def test_transactions_that_audit_early_do_not_wait_for_each_other(store: Store) -> None:
    """The lock of the trail is the last one: who noted something and goes on working holds up nobody who comes to the end first."""
    if store.kind == "sqlite":
        pytest.skip("one transaction writes at a time")
    with store.write() as slow:
        note(slow, "slow", "retry", "job 1", {}, NOW)
        slow.flush()
        with store.write() as quick:
            note(quick, "quick", "retry", "job 2", {}, NOW)
    with store.read() as session:
        assert [entry.actor for entry in audit.every(session)] == ["quick", "slow"]
    assert chain(store).fault == ""


def test_rows_of_the_time_before_are_linked_by_the_migration(kind: str, make_database: Callable[..., str]) -> None:
    from tests.database.test_migrations import upgrade_to

    store = Store(make_database(kind, empty=True))
    upgrade_to(store, "0010")
    rows = [{"id": 3 * n + 1, "at": f"2026-01-02 03:04:{n % 60:02d}.5", "actor": "a", "action": "sent", "subject": f"s {n}"} for n in range(2100)]
    with store.engine.connect().execution_options(writes=True) as connection:
        insert = """INSERT INTO audit (id, at, actor, action, subject, detail) VALUES (:id, :at, :actor, :action, :subject, '{"b": 1.50, "a": null}')"""
        connection.execute(sa.text(insert if kind == "sqlite" else insert.replace(":at", "CAST(:at AS timestamp)")), rows)
        connection.commit()
    store.upgrade()
    assert chain(store).length == 2100
    write(store, 2)
    assert (chain(store).length, chain(store).fault) == (2102, "")
    with pytest.raises(IntegrityError), store.write() as session:
        session.execute(sa.text("DELETE FROM audit WHERE id = 1"))
    store.close()
