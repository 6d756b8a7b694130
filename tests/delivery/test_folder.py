from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pacs_node.config import FolderDestination
from pacs_node.delivery import deliver
from pacs_node.delivery.folder import harmless, target_of
from pacs_node.errors import TemporaryFailure
from pacs_node.records import Outcome, Parcel


def send(destination: FolderDestination, *parcels: Parcel) -> list[Outcome]:
    outcomes: list[Outcome] = []
    deliver(destination, parcels, "PACS_NODE", outcomes.append)
    return outcomes


@pytest.fixture
def out(tmp_path: Path) -> FolderDestination:
    return FolderDestination(kind="folder", path=tmp_path / "out")


def test_objects_lie_under_a_folder_for_people_named_by_their_uid(out: FolderDestination, parcel: Callable[..., Parcel]) -> None:
    one = parcel(folder="Doe^Jane CT head")
    (outcome,) = send(out, one)
    target = out.path / "Doe_Jane_CT_head" / f"{one.sop_uid}.dcm"
    assert outcome.delivered and outcome.message == str(target)
    assert target.read_bytes() == one.path.read_bytes()
    assert [path for path in out.path.rglob("*") if path.is_file()] == [target]


def test_delivering_again_changes_nothing(out: FolderDestination, parcel: Callable[..., Parcel]) -> None:
    one = parcel()
    send(out, one)
    before = target_of(out, one).stat()
    assert [outcome.delivered for outcome in send(out, one)] == [True]
    after = target_of(out, one).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_half_written_or_other_file_of_the_name_is_replaced(out: FolderDestination, parcel: Callable[..., Parcel]) -> None:
    one = parcel()
    target = target_of(out, one)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"half")
    target.with_name(f"{target.name}.part").write_bytes(b"left over")
    send(out, one)
    assert target.read_bytes() == one.path.read_bytes()
    assert not list(out.path.rglob("*.part"))


def test_a_missing_file_is_permanent_and_the_others_go_on(out: FolderDestination, parcel: Callable[..., Parcel]) -> None:
    gone, good = parcel(), parcel()
    gone.path.unlink()
    assert [(outcome.delivered, outcome.permanent) for outcome in send(out, gone, good)] == [(False, True), (True, False)]


def test_a_folder_that_cannot_be_written_is_a_temporary_failure(tmp_path: Path, parcel: Callable[..., Parcel]) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(TemporaryFailure, match="cannot write"):
        send(FolderDestination(kind="folder", path=tmp_path / "file"), parcel())


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2/3", "", "1..2", "x" * 300])
def test_what_is_no_uid_becomes_a_harmless_name(out: FolderDestination, parcel: Callable[..., Parcel], uid: str) -> None:
    target = target_of(out, replace(parcel(), sop_uid=uid, folder="../../.."))
    assert target.parent == out.path and target.suffix == ".dcm" and len(target.name) < 100


@pytest.mark.parametrize(
    ("text", "name"),
    [("a/b", "a_b"), ("..", ""), (".hidden", "hidden"), ("Müller^Jörg", "Müller_Jörg"), ("a\0b\n", "a_b"), ("", ""), ("x" * 500, "x" * 120)],
)
def test_a_folder_name_never_leaves_its_parent(text: str, name: str) -> None:
    assert harmless(text) == name
