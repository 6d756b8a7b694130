"""`export` of what a node holds, its results, and the map that leads back."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, ParametricMapStorage
from sqlalchemy import select

from pacs_node.database.tables import AuditRow, InstanceRow, JobRow, ObjectRow, StudyRow
from pacs_node.errors import InputError
from pacs_node.phantoms import PhantomSpec, make_study
from pacs_node.workbench import check, fsck
from pacs_node.workbench.backup import back_up
from pacs_node.workbench.deidentify.options import Dates, Options, Region
from pacs_node.workbench.deidentify.pseudonyms import MAP
from pacs_node.workbench.exporting import Exported, Wanted, export
from tests.journey.support import Town, ct_slice, ct_study
from tests.workbench.secrets_of import every_element, exported, left_in, run, save, secrets


@pytest.fixture
def town(tmp_path: Path) -> Town:
    """A house in which one study has gone all the way."""
    built = Town(tmp_path)
    built.send(ct_study(4, patient="PAT-778899", StudyDescription="Head of Mustermann"))
    built.settle()
    return built


def from_node(town: Town, *names: str, options: Options | None = None, results: bool = False) -> Exported:
    wanted = Wanted(town.folder / "shared", town.folder / "data" / "export-map.db", names, results=results)
    return export(town.settings, wanted, options or Options())


def uid_of(town: Town) -> str:
    return str(ct_slice(0).StudyInstanceUID)


@pytest.mark.parametrize("name", ["1", "ACCA", "uid"])
def test_a_study_is_named_by_its_number_its_accession_number_or_its_uid(town: Town, name: str) -> None:
    report = from_node(town, uid_of(town) if name == "uid" else name)
    assert (report.studies, report.written, report.left_out) == (1, 4, [])


def test_an_unknown_study_is_named(town: Town) -> None:
    with pytest.raises(InputError, match=r"no study 1\.2\.3"):
        from_node(town, "1.2.3")


def test_an_export_is_audited_before_and_afterwards_without_saying_who(town: Town) -> None:
    from_node(town, "1", options=Options(retain_uids=True, dates=Dates.SHIFT))
    with town.house.store.read() as session:
        begun, done = session.scalars(select(AuditRow).where(AuditRow.action.like("export%")).order_by(AuditRow.id))
    assert (begun.action, begun.subject, begun.detail) == ("export begun", "study 1", {"dates": "shift", "options": ["retain_uids"]})
    assert (done.action, done.subject, done.detail) == ("exported", "study 1", {"objects": 4, "dates": "shift", "options": ["retain_uids"]})


def test_an_export_of_a_folder_is_audited_where_a_node_has_run(town: Town) -> None:
    folder = save(town.folder / "elsewhere", ct_slice(0, study="B", patient="P2"))
    wanted = Wanted(town.folder / "shared", town.folder / "map.db", folders=(folder,))
    told = export(town.settings, wanted, Options())
    with town.house.store.read() as session:
        begun, done = session.scalars(select(AuditRow).where(AuditRow.action.like("export%")).order_by(AuditRow.id))
    detail = {"dates": "remove", "options": []}
    assert (begun.action, begun.subject, begun.detail) == ("export begun", "a study in a folder", detail)
    assert (done.action, done.subject, done.detail) == ("exported", "a study in a folder", {"objects": 1, **detail})
    assert not [warning for warning in told.warnings if "audit" in warning]


def test_an_export_that_breaks_off_is_audited(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, to: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pacs_node.workbench.exporting.os.replace", full)
    with pytest.raises(InputError, match="No space left"):
        from_node(town, "1")
    with town.house.store.read() as session:
        assert [(row.action, row.detail.get("objects")) for row in session.scalars(select(AuditRow).where(AuditRow.action.like("export%")))] == [
            ("export begun", None),
            ("exported", 0),
        ]


def test_a_number_names_the_study_of_that_number_and_no_accession_number(town: Town) -> None:
    with town.house.store.write() as session:
        session.get_one(StudyRow, 1).accession = "2"
    town.send(ct_study(3, study="B", patient="P2"))
    town.settle()
    report = from_node(town, "2")
    assert (report.studies, report.written) == (1, 3)
    assert [warning for warning in report.warnings if "accession number" in warning] == [
        "2 is the number of study 2, and the accession number of study 1, which `accession:2` names"
    ]
    assert from_node(town, "accession:2").written == 4


def test_several_studies_of_one_accession_number_are_told_of(town: Town) -> None:
    town.send(ct_study(3, study="B", patient="P2", AccessionNumber="ACCA"))
    town.settle()
    report = from_node(town, "ACCA")
    assert report.studies == 2
    assert "2 studies have the accession number ACCA: 1, 2" in report.warnings


def test_a_study_that_is_still_being_received_is_told_of(town: Town) -> None:
    town.send(ct_study(3, study="B", patient="P2"))
    town.gather()
    report = from_node(town, "ACCB")
    assert report.written == 3
    assert "study 2: it is still being received: what is here so far is exported" in report.warnings


def test_a_held_study_is_not_exported(town: Town) -> None:
    town.send([ct_slice(9, patient="P2")])
    town.settle()
    report = from_node(town, "1")
    assert report.written == 0
    assert "pacs-node release 1" in report.left_out[0].reason


def test_a_study_whose_files_are_gone_says_so(town: Town) -> None:
    with town.house.store.write() as session:
        study = session.get_one(StudyRow, 1)
        study.removed_at, study.removed_reason = town.clock, "the study is finished, for longer than 14d"
        for series in study.series:
            for row in series.instances:
                row.removed_at = town.clock
    assert "for longer than 14d" in from_node(town, "1").left_out[0].reason


def test_results_go_along_and_still_refer_to_the_images(town: Town) -> None:
    report = from_node(town, "1", results=True)
    made = exported(town.folder / "shared")
    classes = [one.SOPClassUID for one in made]
    assert Comprehensive3DSRStorage in classes and ParametricMapStorage in classes
    pictures, packed = (one.reason for one in report.left_out)  # the secondary capture; what holds the images
    assert "burnt-in" in pictures and "may hold the originals" in packed
    images = {one.SOPInstanceUID for one in made if one.Modality == "CT"}
    referenced = {
        element.value
        for one in made
        if one.Modality != "CT"
        for element in every_element(one)
        if element.keyword == "ReferencedSOPInstanceUID"
    }  # fmt: skip
    assert images <= referenced
    wanted = {secret for file in (town.folder / "out").rglob("*.dcm") for secret in secrets(dcmread(file))} | {"Mustermann"}
    assert left_in(town.folder / "shared", wanted) == []


def result_uids(town: Town) -> set[str]:
    """Return what the newest run has made, as it is called in an export that keeps UIDs."""
    report = from_node(town, "1", options=Options(retain_uids=True), results=True)
    assert report.written
    return {str(one.SOPInstanceUID) for one in exported(town.folder / "shared") if one.Modality != "CT"}


def test_results_of_the_study_as_it_was_before_a_correction_do_not_go_along(town: Town) -> None:
    with town.house.store.read() as session:
        before = set(session.scalars(select(ObjectRow.sop_uid)))
    town.send(ct_study(4, patient="P7"))
    town.settle()
    with town.house.store.read() as session:
        after = set(session.scalars(select(ObjectRow.sop_uid))) - before
    made = result_uids(town)
    assert made and made <= after
    assert len({one.PatientID for one in exported(town.folder / "shared")}) == 1


def test_results_of_rejected_instances_and_of_rules_under_trial_do_not_go_along(town: Town) -> None:
    assert result_uids(town)
    shutil.rmtree(town.folder / "shared")
    with town.house.store.write() as session:
        session.get_one(JobRow, 1).shadow = True
    assert not result_uids(town)
    with town.house.store.write() as session:
        session.get_one(JobRow, 1).shadow = False
        session.get_one(InstanceRow, 2).rejected = "113037"
    assert not result_uids(town)


def test_an_object_that_names_another_patient_than_the_study_is_left_out(town: Town) -> None:
    with town.house.store.read() as session:
        path = town.settings.node.data / session.scalars(select(ObjectRow).where(ObjectRow.sop_class_uid == Comprehensive3DSRStorage)).one().path
    report = dcmread(path)
    report.PatientID = "P7"
    report.save_as(path)
    told = from_node(town, "1", results=True)
    assert "another patient" in {one.source: one.reason for one in told.left_out}[str(path)]
    assert Comprehensive3DSRStorage not in [one.SOPClassUID for one in exported(town.folder / "shared")]


def test_the_text_of_a_report_keeps_what_was_found_and_loses_the_rest(town: Town) -> None:
    from_node(town, "1", results=True)
    report = next(one for one in exported(town.folder / "shared") if one.SOPClassUID == Comprehensive3DSRStorage)
    assert "113104" in [one.CodeValue for one in report.DeidentificationMethodCodeSequence]
    numbers = [float(one.value) for one in every_element(report) if one.keyword == "NumericValue"]
    assert 1.5 in numbers
    said = " ".join(str(one.value) for one in every_element(report) if one.keyword == "TextValue").casefold()
    assert "research" in said
    assert "mustermann" not in said


@pytest.mark.peers
def test_an_exported_report_still_reads(town: Town, tool: Callable[[str], str]) -> None:
    from_node(town, "1", results=True)
    file = next(file for file in (town.folder / "shared").rglob("*.dcm") if dcmread(file).SOPClassUID == Comprehensive3DSRStorage)
    answer = subprocess.run([tool("dsr2html"), str(file)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0 and "anomaly score" in answer.stdout.casefold()
    assert answer.stderr == ""


# --- the map -----------------------------------------------------------------------------------------------------------------


def test_the_map_is_for_its_owner_only_and_leads_back(tmp_path: Path) -> None:
    source = ct_slice(0)
    run(tmp_path, save(tmp_path / "in", source))
    (made,) = exported(tmp_path / "out")
    path = tmp_path / "map.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT old FROM uids WHERE new = ?", [made.SOPInstanceUID]).fetchone() == (source.SOPInstanceUID,)
        assert "P1" in database.execute("SELECT identity FROM patients WHERE pseudonym = ?", [made.PatientID]).fetchone()[0]


def test_a_map_that_others_may_read_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "in", ct_slice(0))
    run(tmp_path, folder)
    (tmp_path / "map.db").chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        run(tmp_path, folder)


def test_a_map_among_the_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must not lie in"):
        run(tmp_path, save(tmp_path / "in", ct_slice(0)), map_file="out/map.db")
    assert not (tmp_path / "out/map.db").exists()


def test_a_file_that_is_no_map_is_named(tmp_path: Path) -> None:
    (tmp_path / "map.db").write_text("no database")
    (tmp_path / "map.db").chmod(0o600)
    with pytest.raises(InputError, match=r"map\.db"):
        run(tmp_path, save(tmp_path / "in", ct_slice(0)))


def test_check_and_fsck_find_a_map_that_others_may_read_and_fsck_closes_it(town: Town) -> None:
    from_node(town, "1")
    path = town.folder / "data" / MAP
    path.chmod(0o640)
    said = check.examine(None, lambda _: town.settings, echo=False).lines
    assert [mark for mark, line in said if MAP in line] == ["fault"]
    town.house.store.close()
    found = fsck.examine(town.settings, repair=True, deep=False)
    assert [finding.where for finding in found.findings] == [MAP]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_backup_holds_the_map_and_keeps_it_closed(town: Town, tmp_path: Path) -> None:
    before = from_node(town, "1").pseudonyms
    back_up(town.settings, None, tmp_path / "copy")
    kept = tmp_path / "copy/data" / MAP
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    wanted = Wanted(tmp_path / "again", kept, ("1",))
    assert export(town.settings, wanted, Options()).pseudonyms == before


# --- the validator -----------------------------------------------------------------------------------------------------------

SPECS = [
    PhantomSpec(modality="CT", slices=3, rows=64),
    PhantomSpec(modality="CT", slices=3, rows=64, enhanced=True),
    PhantomSpec(modality="MR", region="brain", slices=3, rows=64),
    PhantomSpec(modality="MR", region="brain", slices=3, rows=64, enhanced=True),
    PhantomSpec(modality="PT", region="body", slices=3, rows=64),
    PhantomSpec(modality="US", region="breast", slices=1, rows=192, colour=True),
]
RICH = Options(True, True, True, True, True, Dates.SHIFT, (Region(0, 0, 60, 12),))


def errors(file: Path) -> set[str]:
    answer = subprocess.run([shutil.which("dciodvfy") or "", str(file)], capture_output=True, text=True, check=False)
    return {line for line in (answer.stdout + answer.stderr).splitlines() if line.startswith("Error")}


@pytest.mark.peers
@pytest.mark.parametrize("options", [Options(regions=RICH.regions), RICH], ids=["basic", "with options"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.modality}{' enhanced' * spec.enhanced}")
def test_the_validator_finds_no_error_that_the_source_had_not(tmp_path: Path, tool: Callable[[str], str], spec: PhantomSpec, options: Options) -> None:
    tool("dciodvfy")
    source = save(tmp_path / "in", make_study(spec)[0])
    report = run(tmp_path, source, options)
    assert report.left_out == []
    (made,) = (tmp_path / "out").rglob("*.dcm")
    assert errors(made) - errors(source / "0.dcm") == set()


@pytest.mark.peers
def test_the_validator_finds_no_error_in_exported_results(town: Town, tool: Callable[[str], str]) -> None:
    tool("dciodvfy")
    from_node(town, "1", results=True)
    before = set.union(*(errors(file) for file in (town.folder / "out").rglob("*.dcm")))
    after = set.union(*(errors(file) for file in (town.folder / "shared").rglob("*.dcm")))
    assert after - before == set()


def test_a_report_of_an_export_can_be_read_by_programs(town: Town) -> None:
    assert json.loads(json.dumps(from_node(town, "1").as_json()))["written"] == 4
