"""`backup`: a consistent copy of a node that runs; what is restored is whole, and goes on where the original was."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from pacs_node.config import Settings
from pacs_node.database.tables import InstanceRow, StudyRow
from pacs_node.errors import InputError
from pacs_node.journey.receive import receive
from pacs_node.journey.reconcile import catch_up
from pacs_node.journey.retire import retire
from pacs_node.reception.pressure import Disk
from pacs_node.retention.sweep import unpinned
from pacs_node.workbench import backup as making
from pacs_node.workbench.backup import Copied, back_up
from pacs_node.workbench.fsck import examine
from tests.journey.support import Town, ct_slice, ct_study, encode_body


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """A house in which one study has gone all the way, another gathers, and one object lies in quarantine."""
    folder = tmp_path / "town"
    folder.mkdir()
    built = Town(folder)
    built.send(ct_study(6))
    built.send([ct_slice(0, PixelData=bytes(512))])  # a conflict
    built.settle()
    built.house.spool.quarantine_folder.joinpath("a.dcm").write_bytes(b"no object")
    built.send(ct_study(3, study="B", patient="P2"))
    built.gather()
    assert built.results()
    yield built
    built.house.store.close()


def take(town: Town, out: Path, *, originals: bool = True) -> Copied:
    return back_up(town.settings, None, out, originals=originals)


def restored(town: Town, data: Path, tmp_path: Path) -> Town:
    """Return a house that lives in a copy of the backup's data folder, with the same destination."""
    folder = tmp_path / f"restored-{data.parent.name}"
    shutil.copytree(data, folder / "data")
    other = Town(folder, destinations={"research": {"kind": "folder", "path": str(town.folder / "out")}})
    other.clock = town.clock
    return other


def assert_in_order(settings: Settings) -> None:
    assert examine(settings, repair=False, deep=True).findings == []


def bodies(town: Town) -> dict[str, bytes]:
    """Return SOP Instance UID → bytes of what is in the index."""
    from pacs_node.database import studies

    with town.house.store.read() as session:
        rows = session.scalars(select(InstanceRow).where(InstanceRow.removed_at.is_(None)))
        return {row.sop_uid: (town.house.data / studies.instance_path(row)).read_bytes() for row in rows}


def test_a_copy_is_whole_and_goes_on_where_the_original_was(town: Town, tmp_path: Path) -> None:
    copied = take(town, tmp_path / "copy")
    assert copied.missing == [] and copied.newcomers == 0
    other = restored(town, tmp_path / "copy/data", tmp_path)
    assert_in_order(other.settings)
    assert bodies(other) == bodies(town) and len(bodies(other)) == 9
    assert catch_up(other.house) == 0
    before = {str(result.SOPInstanceUID) for result in town.results()}
    other.wait(seconds=11)
    other.settle()
    assert other.engine.calls == ["ct-test"], "the study that gathered is analysed, the other one is done"
    assert before < {str(result.SOPInstanceUID) for result in town.results()}
    other.house.store.close()


def content_of(root: Path) -> dict[str, int]:
    """Return name → size of all files but the list of them, which says when it was made."""
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file() and path.name != "backup.json"}


def test_a_tar_file_holds_the_same(town: Town, tmp_path: Path) -> None:
    take(town, tmp_path / "copy")
    take(town, tmp_path / "copy.tar")
    with tarfile.open(tmp_path / "copy.tar") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    folder, unpacked = (content_of(tmp_path / name) for name in ("copy", "unpacked"))
    assert folder == unpacked and {"data/node.db", "config/rules.yaml"} < folder.keys()
    assert (tmp_path / "copy.tar").stat().st_mode & 0o077 == 0


def test_what_arrives_and_moves_while_files_are_copied_is_in_the_copy(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    town.send(ct_study(4, study="C", patient="P3"))  # in the spool when the database is copied
    steps = {"spool": lambda: town.send(ct_study(2, study="D", patient="P4")), "kept": lambda: index(town), "newcomers": lambda: index(town)}
    for name, before in steps.items():
        interrupt(monkeypatch, name, before)
    copied = take(town, tmp_path / "copy")
    assert copied.missing == [] and copied.newcomers == 6
    other = restored(town, tmp_path / "copy/data", tmp_path)
    assert_in_order(other.settings)
    catch_up(other.house)
    index(other)
    assert bodies(other) == bodies(town) and len(bodies(other)) == 15
    assert_in_order(other.settings)
    other.house.store.close()


def index(town: Town) -> None:
    while receive(town.house, town.clock):
        pass


def interrupt(monkeypatch: pytest.MonkeyPatch, step: str, before: Callable[[], object]) -> None:
    """Let something happen before a step of the copying."""
    real = getattr(making._Copy, step)

    def run(self: object) -> None:
        before()
        real(self)

    monkeypatch.setattr(making._Copy, step, run)


def test_what_is_indexed_after_the_spool_was_copied_is_in_the_copy_once(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    town.send(ct_study(4, study="C", patient="P3"))
    interrupt(monkeypatch, "kept", lambda: index(town))  # moved between two looks
    copied = take(town, tmp_path / "copy")
    assert copied.newcomers == 4
    assert len(list((tmp_path / "copy/data/spool/new").rglob("*.dcm"))) == 4


def test_a_row_whose_file_is_still_in_the_spool_finds_it_at_its_place_in_the_copy(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pacs_node.journey import index as indexing

    town.send(ct_study(4, study="C", patient="P3"))
    with monkeypatch.context() as patch:
        patch.setattr(indexing, "_carry_out", lambda house, batch: None)  # killed between commit and move
        receive(town.house, town.clock)
    assert len(list(town.house.spool.new.rglob("*.dcm"))) == 4
    copied = take(town, tmp_path / "copy")
    assert copied.missing == [] and copied.newcomers == 0
    other = restored(town, tmp_path / "copy/data", tmp_path)
    assert_in_order(other.settings)
    assert len(bodies(other)) == 13
    other.house.store.close()


def test_a_correction_that_comes_meanwhile_leaves_the_copy_as_it_was_and_comes_with_it(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def correct() -> None:
        town.send(ct_study(3, study="B", patient="P9"))
        index(town)

    interrupt(monkeypatch, "kept", correct)
    assert take(town, tmp_path / "copy").missing == []
    other = restored(town, tmp_path / "copy/data", tmp_path)
    assert_in_order(other.settings)
    catch_up(other.house)
    index(other)
    with other.house.store.read() as session:
        assert {row.patient_id for row in session.scalars(select(StudyRow))} == {"P1", "P9"}
    other.house.store.close()


def test_retention_waits_until_the_copy_is_made(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[bool] = []

    def look() -> None:
        with unpinned(town.house.data) as one:
            free.append(one)
        town.house.measure = lambda folder: Disk(900 * 10**9, 10**12)
        assert retire(town.house, town.clock + timedelta(days=400)).files == 0

    interrupt(monkeypatch, "kept", look)
    assert take(town, tmp_path / "copy").missing == [] and free == [False]


def test_without_originals_finished_studies_are_tombstones_and_unfinished_ones_whole(town: Town, tmp_path: Path) -> None:
    whole, lean = take(town, tmp_path / "whole"), take(town, tmp_path / "lean", originals=False)
    assert lean.left_out == 1 and lean.files == whole.files - 6 and "without the originals of 1 finished studies" in lean.sentence()
    other = restored(town, tmp_path / "lean/data", tmp_path)
    assert_in_order(other.settings)
    assert len(bodies(other)) == 3
    with other.house.store.read() as session:
        study = session.get_one(StudyRow, 1)
        assert study.removed_at is not None and "left out of the backup" in study.removed_reason
    assert_in_order(town.settings)
    assert len(bodies(town)) == 9, "the node itself keeps them"
    other.send(ct_study(6))
    other.gather()
    assert len(bodies(other)) == 9
    other.house.store.close()


def test_a_file_that_is_gone_is_reported(town: Town, tmp_path: Path) -> None:
    lost = sorted((town.house.data / "studies").rglob("*.dcm"))[0]
    lost.unlink()
    copied = take(town, tmp_path / "copy")
    assert copied.missing == [str(lost.relative_to(town.house.data))] and "1 files are missing" in copied.sentence()


def test_a_retired_study_is_no_loss(town: Town, tmp_path: Path) -> None:
    town.house.measure = lambda folder: Disk(900 * 10**9, 10**12)
    assert retire(town.house, town.clock + timedelta(days=15)).files
    assert take(town, tmp_path / "copy").missing == []
    other = restored(town, tmp_path / "copy/data", tmp_path)
    assert_in_order(other.settings)
    other.house.store.close()


def test_a_bad_target_is_refused_and_nothing_is_left(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    for out, problem in [
        (tmp_path / "there", "never written over another"),
        (town.house.data / "copy", "in the data folder"),
        (tmp_path / "no" / "where", "there is no folder"),
        (tmp_path / "copy.tar.gz", "a folder or a .tar file"),
    ]:
        with pytest.raises(InputError, match=problem):
            take(town, out)
    monkeypatch.setattr(making.shutil, "disk_usage", lambda place: SimpleNamespace(free=0))
    with pytest.raises(InputError, match=r"0\.0 GB free"):
        take(town, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "town"]


@pytest.mark.parametrize("name", ["copy", "copy.tar"])
def test_a_backup_that_fails_in_the_middle_leaves_nothing(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail() -> None:
        raise OSError("the disk is gone")

    interrupt(monkeypatch, "newcomers", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        take(town, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["town"]
    with unpinned(town.house.data) as free:
        assert free


def test_a_damaged_database_is_not_copied(town: Town, tmp_path: Path) -> None:
    town.house.store.close()
    database = town.house.data / "node.db"
    content = bytearray(database.read_bytes())
    content[-8192:-4096] = bytes(4096 * [255])
    database.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        take(town, tmp_path / "copy")


def test_newcomers_have_the_bytes_that_were_acknowledged(town: Town, tmp_path: Path) -> None:
    town.send(ct_study(2, study="C", patient="P3"))
    take(town, tmp_path / "copy")
    arrived = {path.read_bytes() for path in (tmp_path / "copy/data/spool/new").rglob("*.dcm")}
    expected = [encode_body(dataset) for dataset in ct_study(2, study="C", patient="P3")]
    assert len(arrived) == 2 and all(any(one.endswith(body) for one in arrived) for body in expected)


def test_results_that_wait_go_out_of_the_copy_as_the_same_objects(tmp_path: Path) -> None:
    folder = tmp_path / "town"
    folder.mkdir()
    nobody = {"kind": "dicom", "ae_title": "DEAD", "address": "127.0.0.1", "port": 9, "accepts_research": True}
    town = Town(folder, destinations={"research": nobody})
    town.send(ct_study(6))
    town.settle()
    assert not town.results()
    take(town, tmp_path / "copy")
    town.settings = Town(folder).settings  # the archive is a folder from now on
    town.restart()
    other = restored(town, tmp_path / "copy/data", tmp_path)
    sent = []
    for one in (town, other):
        one.wait(hours=1)
        one.post()
        sent.append({path.name: path.read_bytes() for path in (town.folder / "out").rglob("*.dcm")})
        one.house.store.close()
    assert len(sent[0]) == 3 and sent[0] == sent[1]
    assert other.engine.calls == []


# --- PostgreSQL --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_postgres(tmp_path: Path, make_database: Callable[..., str]) -> Iterator[Town]:
    """A house on PostgreSQL with a study that went all the way and one that gathers."""
    folder = tmp_path / "town"
    folder.mkdir()
    built = Town(folder, database={"url": make_database("postgresql")})
    built.send(ct_study(6))
    built.settle()
    built.send(ct_study(3, study="B", patient="P2"))
    built.gather()
    yield built
    built.house.store.close()


def test_a_house_on_postgresql_is_copied_and_restored(
    on_postgres: Town, tmp_path: Path, make_database: Callable[..., str], tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("pg_dump")
    interrupt(monkeypatch, "kept", lambda: index_more(on_postgres))
    copied = take(on_postgres, tmp_path / "copy")
    assert copied.missing == [] and copied.database == "database.dump" and copied.newcomers == 2
    folder, url = tmp_path / "restored", make_database("postgresql", empty=True)
    shutil.copytree(tmp_path / "copy/data", folder / "data")
    parsed = make_url(url)
    place = ["--host", str(parsed.query["host"]), "--username", str(parsed.username), "--dbname", str(parsed.database)]
    subprocess.run([tool("pg_restore"), *place, str(tmp_path / "copy/database.dump")], check=True, timeout=60)
    other = Town(folder, database={"url": url})
    assert_in_order(other.settings)
    assert len(bodies(other)) == 9
    index(other)
    assert bodies(other) == bodies(on_postgres) and len(bodies(other)) == 11
    other.house.store.close()


def index_more(town: Town) -> None:
    town.send(ct_study(2, study="C", patient="P3"))
    index(town)


def test_what_postgresql_needs_is_said(on_postgres: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="works with SQLite only"):
        take(on_postgres, tmp_path / "copy", originals=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="pg_dump is not installed"):
        take(on_postgres, tmp_path / "copy")
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\necho 'pg_dump: error: server version mismatch' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(InputError, match="server version mismatch"):
        take(on_postgres, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
