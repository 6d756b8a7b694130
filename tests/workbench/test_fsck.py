"""`fsck`: what differs between spool, study folders, results and database is found, and put right without losing anything."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from pacs_node import node
from pacs_node.database import studies
from pacs_node.database.tables import InstanceRow
from pacs_node.errors import DataFolderInUse, InputError
from pacs_node.journey.reconcile import catch_up
from pacs_node.workbench.fsck import Report, examine
from tests.journey.support import Town, ct_study, encode_body

Make = Callable[..., Town]


@pytest.fixture
def town(tmp_path: Path) -> Town:
    """A house in which one study of six instances has gone all the way."""
    built = Town(tmp_path)
    built.send(ct_study(6))
    built.settle()
    assert built.results()
    return built


def look(town: Town, *, repair: bool = False, deep: bool = False) -> Report:
    town.house.store.close()
    return examine(town.settings, repair=repair, deep=deep)


def whats(report: Report) -> list[str]:
    return [finding.what for finding in report.findings]


def files(town: Town) -> dict[str, Path]:
    """Return SOP Instance UID → file of everything in the index."""
    with town.house.store.read() as session:
        return {row.sop_uid: town.house.data / studies.instance_path(row) for row in session.scalars(select(InstanceRow))}


def assert_whole(town: Town, count: int = 6) -> None:
    """Every instance of the study is in the index once, with its bytes, and nothing is left to find."""
    found = files(town)
    bodies = {str(dataset.SOPInstanceUID): encode_body(dataset) for dataset in ct_study(count)}
    assert found.keys() == bodies.keys()
    assert all(found[uid].read_bytes().endswith(body) for uid, body in bodies.items())
    assert look(town, deep=True).findings == []


def test_a_house_in_order_has_nothing_to_find(town: Town) -> None:
    report = look(town, deep=True)
    assert report.findings == [] and report.open == 0
    assert report.sentence() == "spool, study folders, results and database agree"


def test_looking_changes_nothing(town: Town) -> None:
    next(iter(files(town).values())).unlink()
    (town.house.data / "spool/new/00/00.dcm.part").write_bytes(b"half")
    before = {path: path.stat().st_mtime_ns for path in town.house.data.rglob("*") if path.is_file() and "node.db" not in path.name}
    report = look(town, deep=True)
    after = {path: path.stat().st_mtime_ns for path in town.house.data.rglob("*") if path.is_file() and "node.db" not in path.name}
    assert {path: moment for path, moment in after.items() if "locks" not in path.parts} == before
    assert report.open == 2
    assert all("would be" in finding.line(False) for finding in report.findings)


def test_a_file_that_the_index_lost_is_indexed_again(town: Town) -> None:
    lost = list(files(town))[2]
    with town.house.store.write() as session:
        session.delete(session.scalars(select(InstanceRow).where(InstanceRow.sop_uid == lost)).one())
    assert whats(look(town)) == ["file that the index does not know"]
    report = look(town, repair=True)
    assert [finding.outcome(True) for finding in report.findings] == ["indexed again"]
    assert report.open == 0
    assert_whole(town)


def test_a_lost_database_is_made_again_from_the_files_and_the_study_is_judged_as_one(town: Town) -> None:
    town.house.store.close()
    for part in town.house.data.glob("node.db*"):
        part.unlink()
    assert whats(look(town)).count("file that the index does not know") == 6
    assert not (town.house.data / "node.db").exists()  # looking made none
    look(town, repair=True)
    assert_whole(town)
    town.restart()
    town.clock += timedelta(minutes=1)
    town.settle()
    assert town.engine.calls == ["ct-test", "ct-test"]  # once before, once after: one job for the whole study


def test_the_start_indexes_what_the_database_lacks_before_anything_is_judged(town: Town) -> None:
    town.house.store.close()
    for part in town.house.data.glob("node.db*"):
        part.unlink()
    town.restart()
    assert catch_up(town.house) == 6
    assert_whole(town)
    assert catch_up(town.house) == 0


def test_a_new_arrival_never_overwrites_a_file_of_a_lost_index(town: Town) -> None:
    old = {path.read_bytes() for path in files(town).values()}
    town.house.store.close()
    for part in town.house.data.glob("node.db*"):
        part.unlink()
    town.restart()
    town.send(ct_study(6, study="B", patient="P2"))  # gets the numbers that the old ones had
    town.gather()
    kept = {path.read_bytes() for path in town.house.data.rglob("*.dcm")}
    assert old <= kept
    look(town, repair=True)
    assert len(files(town)) == 12
    assert look(town, deep=True).findings == []


def test_a_missing_file_is_said_and_a_resend_brings_it_back(town: Town) -> None:
    uid, path = next(iter(files(town).items()))
    path.unlink()
    report = look(town, repair=True)
    assert whats(report) == ["missing file"] and uid not in report.findings[0].line(True)
    with town.house.store.read() as session:
        from pacs_node.database.alerts import open_alerts

        assert [alert.kind for alert in open_alerts(session)] == ["file"]
    town.send(ct_study(6))
    town.gather()
    assert_whole_after_resend(town)


def assert_whole_after_resend(town: Town) -> None:
    bodies = {str(dataset.SOPInstanceUID): encode_body(dataset) for dataset in ct_study(6)}
    assert all(files(town)[uid].read_bytes().endswith(body) for uid, body in bodies.items())


def test_a_damaged_file_goes_to_quarantine_and_is_never_deleted(town: Town) -> None:
    path = next(iter(files(town).values()))
    path.write_bytes(b"damaged by the disk")
    assert look(town).findings == []  # it is there: only a deep look reads it
    report = look(town, repair=True, deep=True)
    assert whats(report) == ["damaged file", "missing file"]
    (kept,) = town.house.spool.quarantined()
    assert kept.path.read_bytes() == b"damaged by the disk"
    town.send(ct_study(6))
    town.gather()
    assert_whole_after_resend(town)


def test_a_stranger_that_names_no_sender_goes_to_quarantine(town: Town) -> None:
    stranger = next(iter(files(town).values())).with_name("99.1.dcm")
    stranger.write_bytes(b"no object of ours")
    report = look(town, repair=True)
    assert [finding.outcome(True) for finding in report.findings] == ["moved to quarantine"]
    (kept,) = town.house.spool.quarantined()
    assert kept.path.read_bytes() == b"no object of ours"
    assert look(town).findings == []


def test_files_with_names_that_are_not_ours_are_left_alone(town: Town) -> None:
    for name in ("notes.txt", "image.dcm"):
        next(iter(files(town).values())).with_name(name).write_text("by hand")
    assert look(town, repair=True, deep=True).findings == []


def test_half_files_and_results_of_runs_that_were_not_committed_are_removed(town: Town) -> None:
    (town.house.data / "spool/new/03/1.dcm.part").write_bytes(b"half")
    attempt = town.house.data / "results/0000/1/1-7/sr"
    attempt.mkdir(parents=True)
    (attempt / "000-sr.dcm").write_bytes(b"never sent")
    report = look(town, repair=True)
    assert [finding.outcome(True) for finding in report.findings] == ["removed", "removed"]
    assert look(town).findings == []


def test_a_result_that_is_to_be_sent_and_is_not_what_was_built_is_said(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.send(ct_study(6))
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.work()
    built = sorted((town.house.data / "results").rglob("*.dcm"))
    built[0].unlink()
    built[1].write_bytes(b"something else")
    report = look(town, repair=True)
    assert sorted(whats(report)) == ["result to be sent that cannot be read (No such file or directory)", "result to be sent that is not what was built"]
    assert all("pacs-node retry job 1" in finding.line(True) for finding in report.findings)
    assert report.open == 2


def test_a_crash_between_row_and_move_is_no_loss(town: Town) -> None:
    path = next(iter(files(town).values()))
    with town.house.store.read() as session:
        arrival = session.scalars(select(InstanceRow.arrival).order_by(InstanceRow.id)).first()
    path.rename(town.house.spool.new / "00" / f"{arrival}.dcm")
    assert whats(look(town)) == ["file that is still in the spool"]
    look(town, repair=True)
    assert_whole(town)


def test_quarantine_and_list_are_brought_together(town: Town) -> None:
    for name in ("a", "b"):
        (town.house.spool.quarantine_folder / f"{name}.dcm").write_bytes(b"kept")
    assert whats(look(town, repair=True)) == ["quarantined file that is on no list"] * 2
    (town.house.spool.quarantine_folder / "a.dcm").unlink()
    report = look(town, repair=True)
    assert [(finding.what, finding.outcome(True)) for finding in report.findings] == [("missing file kept aside (quarantine)", "taken off the list")]
    assert look(town).findings == []


def test_a_damaged_database_is_said_with_what_to_do(town: Town) -> None:
    town.house.store.close()
    database = town.house.data / "node.db"
    content = bytearray(database.read_bytes())
    content[8192:12288] = os.urandom(4096)
    database.write_bytes(content)
    for rest in town.house.data.glob("node.db-*"):
        rest.unlink()
    first = next(iter(examine_as_far_as_possible(town)))
    assert first == "damaged database"


def examine_as_far_as_possible(town: Town) -> list[str]:
    said: list[str] = []
    try:
        examine(town.settings, repair=False, deep=False, said=lambda finding: said.append(finding.what))
    except Exception as error:  # what is damaged decides how far it gets
        assert said, error
    return said


def test_a_running_node_is_looked_at_and_not_repaired(town: Town) -> None:
    town.house.store.close()
    with node.locked(town.settings.node.data, node.ROLES["core"]):
        assert examine(town.settings, repair=False, deep=False).node_runs
        with pytest.raises(DataFolderInUse):
            examine(town.settings, repair=True, deep=False)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.house.store.close()
    settings = town.settings.model_copy(update={"node": town.settings.node.model_copy(update={"data": tmp_path / "nowhere"})})
    with pytest.raises(InputError, match="nowhere"):
        examine(settings, repair=False, deep=False)
    assert not (tmp_path / "nowhere").exists()


def test_only_what_was_abandoned_is_swept(town: Town) -> None:
    from pacs_node.journey.pressure import sweep

    fresh, old = (town.house.data / "spool/new" / name for name in ("01/1.dcm.part", "02/2.dcm.part"))
    for path in (fresh, old):
        path.write_bytes(b"half a file")
    hour_ago = time.time() - 3700
    os.utime(old, (hour_ago, hour_ago))
    assert sweep(town.house, town.clock).files == 1
    assert fresh.exists() and not old.exists()
    assert_whole_after_resend(town)
