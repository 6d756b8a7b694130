"""Studies from an archive into a folder: only what was asked for, whole or not at all, and again where it was interrupted."""

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context
from pynetdicom.sop_class import CTImageStorage
from typer.testing import CliRunner

from pacs_node.cli import app
from pacs_node.config import Settings, load_settings
from pacs_node.errors import InputError
from pacs_node.reception.files import Bytes, FileLayer
from pacs_node.workbench.collecting import Collector, Wanted
from pacs_node.workbench.fetching import Errand, Fetcher, Report, archive_of, fetch, title_for
from pacs_node.workbench.wishes import LEDGER, Ledger
from tests.journey.support import ct_slice, ct_study
from tests.node.orthanc import Orthanc
from tests.node.support import free_port
from tests.workbench.moving_archive import MovingArchive

TITLE = "PACS_NODE_FETCH"

Make = Callable[..., MovingArchive]


@pytest.fixture
def archive() -> Iterator[Make]:
    """Give a function that starts an archive which holds the images given; it is stopped at the end."""
    started: list[MovingArchive] = []

    def start(images: list[Dataset], **how: Any) -> MovingArchive:
        started.append(MovingArchive(images, **how).start())
        return started[-1]

    yield start
    for one in started:
        one.stop()


class Desk:
    """Fetches from a fake archive with a clock that only moves when somebody waits."""

    def __init__(self, settings: Settings, archive: MovingArchive, out: Path, **what: Any) -> None:
        self.waited: list[float] = []
        self.archive, out_folder = archive, out
        out_folder.mkdir(exist_ok=True)
        self.errand = Errand("archive", what.pop("accessions"), out_folder, TITLE, **what)
        self.collector = Collector(TITLE, 0, "127.0.0.1", ["127.0.0.1"], what.get("files"))
        self.place = archive_of(settings, "archive").model_copy(update={"port": archive.port})

    def run(self) -> Report:
        self.collector.start()
        self.archive.ports.setdefault(TITLE, self.collector.port)
        try:
            ledger = Ledger(self.errand.out)
            return Fetcher(self.errand, self.place, self.collector, ledger, wait=self.waited.append, clock=lambda: 0.0).run()
        finally:
            self.collector.stop()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    place = {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": 1}
    folder = {"kind": "folder", "path": str(tmp_path / "folder")}
    path = tmp_path / "node.yaml"
    node = {"data": str(tmp_path / "data"), "address": "127.0.0.1"}
    path.write_text(yaml.safe_dump({"node": node, "destinations": {"archive": place, "research": folder}}))
    return load_settings(path)


def contents(out: Path) -> dict[str, list[Dataset]]:
    """Return accession number → what lies in that study's folder."""
    rows = [json.loads(line) for line in (out / LEDGER).read_text().splitlines()]
    return {row["accession"]: [dcmread(path) for path in sorted((out / row["folder"]).iterdir())] for row in rows}


def test_studies_come_whole_under_names_of_our_own(settings: Settings, archive: Make, tmp_path: Path) -> None:
    images = [*ct_study(3, study="A"), *ct_study(2, study="B"), *ct_study(2, study="C")]
    desk = Desk(settings, archive(images), tmp_path / "out", accessions=("ACCA", "ACCB"))
    report = desk.run()
    assert report.sentence() == "2 studies fetched (5 instances)"
    found = contents(tmp_path / "out")
    assert {name: len(here) for name, here in found.items()} == {"ACCA": 3, "ACCB": 2}
    assert sorted(found["ACCA"], key=lambda one: one.InstanceNumber) == images[:3]
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert not any(str(image.StudyInstanceUID) in name or str(image.SOPInstanceUID) in name for image in images for name in names)
    assert not any(name.endswith(".part") for name in names)


def test_what_is_here_is_not_asked_for_again_and_another_modality_is(settings: Settings, archive: Make, tmp_path: Path) -> None:
    images = [*ct_study(3, study="A"), *ct_study(2, study="A", series=2, Modality="SR")]
    there = archive(images)
    first = Desk(settings, there, tmp_path / "out", accessions=("ACCA",), modalities=frozenset({"CT"})).run()
    assert (len(first.fetched), first.fetched[0].instances) == (1, 3)
    moves = len(there.moved)
    again = Desk(settings, there, tmp_path / "out", accessions=("ACCA",), modalities=frozenset({"CT"})).run()
    assert again.sentence() == "0 studies fetched (0 instances), 1 were here already"
    assert (len(there.moved), len(there.asked)) == (moves, 1)
    there.ports.clear()
    other = Desk(settings, there, tmp_path / "out", accessions=("ACCA",)).run()
    assert other.fetched[0].instances == 5


def test_a_study_without_a_series_of_the_modality_says_what_there_is(settings: Settings, archive: Make, tmp_path: Path) -> None:
    report = Desk(settings, archive(ct_study(2)), tmp_path / "out", accessions=("ACCA",), modalities=frozenset({"MR"})).run()
    assert report.problems == ["ACCA: the study has no series of MR (the archive names CT)"]


def test_what_is_unknown_or_matched_twice_is_said_and_the_others_are_fetched(settings: Settings, archive: Make, tmp_path: Path) -> None:
    images = [*ct_study(2, study="A"), *ct_study(2, study="B"), *ct_study(2, study="TWICE", AccessionNumber="ACCB")]
    report = Desk(settings, archive(images), tmp_path / "out", accessions=("NONE", "ACCB", "ACCA")).run()
    assert [one.accession for one in report.fetched] == ["ACCA"]
    assert report.problems[0] == "NONE: the archive knows no study of this accession number"
    assert report.problems[1].startswith("ACCB: the archive has 2 studies of this accession number")
    assert report.sentence() == "1 studies fetched (2 instances), 2 failed"


def test_an_archive_that_answers_with_everything_gives_only_what_was_asked_for(settings: Settings, archive: Make, tmp_path: Path) -> None:
    images = [*ct_study(2, study="A"), *ct_study(2, study="B")]
    report = Desk(settings, archive(images, ignore_keys=True), tmp_path / "out", accessions=("ACCB", "ACCX")).run()
    assert [one.accession for one in report.fetched] == ["ACCB"]
    assert contents(tmp_path / "out")["ACCB"][0].StudyInstanceUID == images[2].StudyInstanceUID
    assert len(report.problems) == 1


def test_an_archive_that_does_not_know_our_title_is_told_of_once_with_what_to_enter(settings: Settings, archive: Make, tmp_path: Path) -> None:
    there = archive([*ct_study(2, study="A"), *ct_study(2, study="B")], ports={TITLE: None})
    desk = Desk(settings, there, tmp_path / "out", accessions=("ACCA", "ACCB"))
    report = desk.run()
    assert len(report.problems) == 1
    assert f"ARCHIVE knows no destination {TITLE}: enter it there with this machine's address and port {desk.collector.port}" in report.problems[0]
    assert "1 not asked for: give the same command again" in report.sentence()


def test_a_study_of_which_something_is_missing_leaves_nothing_and_is_repeated(settings: Settings, archive: Make, tmp_path: Path) -> None:
    there = archive(ct_study(3), keep_back=1)
    report = Desk(settings, there, tmp_path / "out", accessions=("ACCA",)).run()
    assert report.problems == ["ACCA: only 2 of 3 instances of a series came"]
    assert list((tmp_path / "out").iterdir()) == []
    there.keep_back = 0
    there.ports.clear()
    assert Desk(settings, there, tmp_path / "out", accessions=("ACCA",)).run().sentence() == "1 studies fetched (3 instances)"


def test_what_an_interrupted_run_left_is_fetched_anew(settings: Settings, archive: Make, tmp_path: Path) -> None:
    there = archive(ct_study(3))
    desk = Desk(settings, there, tmp_path / "out", accessions=("ACCA",))
    folder = desk.run().fetched[0].folder
    (tmp_path / "out" / LEDGER).unlink()  # killed before it was written down
    (tmp_path / "out" / f"{folder}.part").mkdir()
    (tmp_path / "out" / f"{folder}.part" / "000001.dcm.part").write_bytes(b"half")
    there.ports.clear()
    assert len(Desk(settings, there, tmp_path / "out", accessions=("ACCA",)).run().fetched) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([LEDGER, folder])
    assert len(contents(tmp_path / "out")["ACCA"]) == 3


def test_images_of_another_study_are_not_taken_although_the_archive_sends_them(settings: Settings, archive: Make, tmp_path: Path) -> None:
    there = archive(ct_study(3), instead=lambda image: ct_slice(int(image.InstanceNumber), study="FOREIGN"))
    desk = Desk(settings, there, tmp_path / "out", accessions=("ACCA",))
    report = desk.run()
    assert (report.fetched, desk.collector.refused) == ([], 3)
    assert report.problems[0].startswith("ACCA: destination ARCHIVE at 127.0.0.1")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_archive_that_is_off_is_one_line_and_is_not_asked_without_end(settings: Settings, archive: Make, tmp_path: Path) -> None:
    there = archive(ct_study(3))
    desk = Desk(settings, there, tmp_path / "out", accessions=tuple(f"A{number}" for number in range(9)))
    there.stop()
    there.server = type("Gone", (), {"server_address": ("127.0.0.1", 1), "shutdown": lambda self: None})()
    report = desk.run()
    assert len(report.problems) == 3
    assert all("cannot be reached" in line for line in report.problems)
    assert report.left == 6


class FullDisk(FileLayer):
    """A disk that is full after some files."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, descriptor: int, part: Bytes) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(descriptor, part)


def test_a_full_disk_is_one_line_and_ends_the_errand(settings: Settings, archive: Make, tmp_path: Path) -> None:
    desk = Desk(settings, archive([*ct_study(3, study="A"), *ct_study(3, study="B")]), tmp_path / "out", accessions=("ACCA", "ACCB"))
    desk.collector._files = FullDisk(2)
    report = desk.run()
    assert report.problems == [f"ACCA: {tmp_path / 'out'} takes no more (No space left on device): make room, and give the same command again"]
    assert (report.left, list((tmp_path / "out").iterdir())) == (1, [])


def test_a_disk_that_takes_nothing_at_all_is_not_taken_for_the_archives_fault(settings: Settings, archive: Make, tmp_path: Path) -> None:
    desk = Desk(settings, archive(ct_study(3)), tmp_path / "out", accessions=("ACCA",))
    desk.collector._files = FullDisk(0)
    assert "takes no more (No space left on device)" in desk.run().problems[0]


def test_studies_are_asked_for_at_the_rate_given(settings: Settings, archive: Make, tmp_path: Path) -> None:
    images = [image for name in "ABC" for image in ct_study(1, study=name)]
    desk = Desk(settings, archive(images), tmp_path / "out", accessions=("ACCA", "ACCB", "ACCC"), rate=12.0)
    desk.run()
    assert desk.waited == [5.0, 5.0]


# --- who may send ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    one = Collector(TITLE, 0, "127.0.0.1", ["127.0.0.1"])
    one.start()
    yield one
    one.stop()


def offer(collector: Collector, image: Dataset, called: str = TITLE) -> int | None:
    """Send one image; returns the status, None where the association was not taken."""
    entity = AE("SOMEBODY")
    association = entity.associate("127.0.0.1", collector.port, [build_context(CTImageStorage, image.file_meta.TransferSyntaxUID)], called)
    if not association.is_established:
        return None
    status = association.send_c_store(image)
    association.release()
    return int(status.Status)


def test_nothing_is_taken_while_nothing_is_wanted(collector: Collector, tmp_path: Path) -> None:
    assert offer(collector, ct_slice(0)) == 0x0124
    wanted = Wanted(str(ct_slice(0).StudyInstanceUID), frozenset({str(ct_slice(0).SeriesInstanceUID)}), tmp_path)
    collector.expect(wanted)
    assert [offer(collector, ct_slice(index)) for index in (0, 1, 0)] == [0, 0, 0]
    assert offer(collector, ct_slice(0, series=2)) == 0x0124
    assert offer(collector, ct_slice(0, study="B")) == 0x0124
    collector.expect(None)
    assert offer(collector, ct_slice(2)) == 0x0124
    assert (wanted.count, collector.refused) == (2, 4)
    assert sorted(path.name for path in tmp_path.glob("*.dcm")) == ["000001.dcm", "000002.dcm"]


def test_who_was_not_asked_and_who_calls_another_title_is_turned_away(collector: Collector) -> None:
    assert offer(collector, ct_slice(0), called="OTHER") is None
    collector.peers = frozenset({"10.0.0.9"})
    assert offer(collector, ct_slice(0)) is None
    assert collector.turned_away == ["127.0.0.1"]


def test_an_archive_that_sends_from_another_address_is_named(settings: Settings, archive: Make, tmp_path: Path) -> None:
    desk = Desk(settings, archive(ct_study(2)), tmp_path / "out", accessions=("ACCA",))
    desk.collector.peers = frozenset({"10.0.0.9"})
    assert "associations from 127.0.0.1 were rejected: name the archive's other addresses with --peer" in desk.run().problems[0]


# --- the command -----------------------------------------------------------------------------------------------------------


def test_the_title_is_the_nodes_own_with_an_ending_that_fits(settings: Settings) -> None:
    assert title_for(settings) == TITLE
    long = settings.model_copy(update={"node": settings.node.model_copy(update={"ae_titles": ("A_VERY_LONG_NAME",)})})
    assert title_for(long) == "A_VERY_LON_FETCH"


def test_what_cannot_be_fetched_from_is_named(settings: Settings, tmp_path: Path) -> None:
    for name in ("research", "nowhere"):
        with pytest.raises(InputError, match=f"no destination {name} of kind dicom in the configuration; there are: archive"):
            fetch(settings, Errand(name, ("A",), tmp_path / "out", TITLE))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        fetch(settings, Errand("archive", ("A",), tmp_path / "file" / "out", TITLE))


def test_a_port_that_is_taken_is_named(settings: Settings, archive: Make, tmp_path: Path) -> None:
    taken = archive([]).port
    with pytest.raises(InputError, match=rf"cannot listen on 127.0.0.1:{taken} \(another program listens there\): choose another port with --port"):
        fetch(settings, Errand("archive", ("A",), tmp_path / "out", TITLE, taken))


@pytest.mark.slow
@pytest.mark.peers
def test_studies_come_from_orthanc_by_the_command_and_a_second_run_fetches_what_was_missing(tool: Callable[[str], str], tmp_path: Path) -> None:
    port = free_port()
    orthanc = Orthanc(tmp_path / "orthanc", tool("Orthanc"), DicomModalities={"node": [TITLE, "127.0.0.1", port]}).start()
    try:
        _hand_in(orthanc, tmp_path, [*ct_study(3, study="A"), *ct_study(1, study="A", series=2, Modality="SR"), *ct_study(2, study="C")])
        config, wishes, out = tmp_path / "node.yaml", tmp_path / "wishes.csv", tmp_path / "out"
        place = {**orthanc.place, "accepts_research": False}
        config.write_text(yaml.safe_dump({"node": {"data": str(tmp_path / "data"), "address": "127.0.0.1"}, "destinations": {"pacs": place}}))
        wishes.write_text("accession\nACCA\nACCB\n")
        line = ["fetch", "--from", "pacs", "--accessions", str(wishes), "--out", str(out), "--modality", "ct", "--port", str(port), "--config", str(config)]
        first = CliRunner().invoke(app, line)
        assert first.exit_code == 1, first.output
        assert f"listening as {TITLE} on port {port}" in first.output
        assert "ACCB: the archive knows no study of this accession number" in first.output
        assert "1 studies fetched (3 instances), 1 failed" in first.output
        _hand_in(orthanc, tmp_path, ct_study(2, study="B"))
        second = CliRunner().invoke(app, line)
        assert second.exit_code == 0, second.output
        assert "1 studies fetched (2 instances), 1 were here already" in second.output
        found = contents(out)
        assert {name: {image.Modality for image in images} for name, images in found.items()} == {"ACCA": {"CT"}, "ACCB": {"CT"}}
        assert {str(image.SOPInstanceUID) for image in found["ACCA"]} == {str(image.SOPInstanceUID) for image in ct_study(3, study="A")}
        stranger = CliRunner().invoke(app, [*line[:-4], "--port", "0", "--aet", "STRANGER", "--out", str(tmp_path / "other"), "--config", str(config)])
        assert stranger.exit_code == 1
        assert "gave no answer to C-FIND: see that it knows our AE title, and lets it query" in stranger.output
    finally:
        orthanc.close()


def _hand_in(orthanc: Orthanc, folder: Path, images: list[Dataset]) -> None:
    for image in images:
        image.save_as(folder / "handed-in.dcm", enforce_file_format=True)
        orthanc._client.post("/instances", content=(folder / "handed-in.dcm").read_bytes()).raise_for_status()
