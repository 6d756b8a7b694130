"""The simulated day: all of it is accounted for, and what is missing is found."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from sqlalchemy import delete, select, update
from typer.testing import CliRunner

from pacs_node.cli import app
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import AlertRow, DeliveryRow, ObjectRow
from pacs_node.journey.run_job import Worker
from pacs_node.records import Sender
from pacs_node.workbench.accounts import Accounts, account, at_rest
from pacs_node.workbench.hospital import KINDS, PIPELINES, DayStudy, Image, plan, rules
from pacs_node.workbench.stand_in import StandIn
from tests.journey.support import Town

EXPLICIT = "1.2.840.10008.1.2.1"


def acknowledged(study: DayStudy, wave: int) -> Sequence[Image]:
    """Return the images of a wave that get there: where the association breaks off, all but the last."""
    piece = study.waves[wave]
    return () if piece is None else piece.images[:-1] if piece.aborted else piece.images


class Day:
    """A day of one study of each kind in a town, not over the network."""

    def __init__(self, folder: Path) -> None:
        self.town = Town(
            folder,
            yaml.safe_dump(rules()),
            dict.fromkeys(PIPELINES.values(), folder),
            destinations={"archive": {"kind": "folder", "path": str(folder / "out")}},
        )
        self.town.worker = Worker("bench", StandIn())
        self.day, self.archive = plan(len(KINDS), 7), folder / "archive"
        self.acknowledged = Counter(hashlib.sha256(image.body).hexdigest() for wave in (0, 1) for study in self.day for image in acknowledged(study, wave))

    def pass_by(self) -> None:
        """Send it all and let it settle."""
        for wave in (0, 1):
            for number, study in enumerate(self.day):
                sender = Sender("CT1", "PACS_NODE", "127.0.0.1:4242", f"a{wave}{number}")
                for image in acknowledged(study, wave):
                    self.town.house.spool.store(sender, image.sop_class_uid, image.sop_uid, EXPLICIT, [image.body])
                self.town.house.spool.end_association(sender, released=True, stored=1, refused=0)
            self.town.clock = max(self.town.clock, datetime.now(UTC))  # sending takes real time, too
            self.town.settle()
        self.archive.mkdir()
        for path in (self.town.folder / "out").rglob("*.dcm"):
            shutil.copy(path, self.archive)

    def accounts(self) -> Accounts:
        return account(self.town.settings, self.day, self.acknowledged, self.archive, [path.stem for path in self.archive.iterdir()], forgiving=False)

    def files(self) -> list[Path]:
        return sorted((self.town.settings.node.data / "studies").rglob("*.dcm"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a day that is over."""
    made = Day(tmp_path_factory.mktemp("finished"))
    made.pass_by()
    made.town.house.store.close()
    return made.town.folder


@pytest.fixture
def day(finished: Path, tmp_path: Path) -> Iterator[Day]:
    """Give a copy of a finished day, to be tampered with."""
    shutil.copytree(finished, tmp_path / "day")
    made = Day(tmp_path / "day")
    yield made
    made.town.house.store.close()


def lose_a_file(day: Day) -> None:
    day.files()[0].unlink()


def keep_a_file_twice(day: Day) -> None:
    shutil.copy(day.files()[0], day.files()[0].with_name("99999.1.dcm"))


def lose_a_conflict(day: Day) -> None:
    next((day.town.settings.node.data / "aside").glob("*.dcm")).unlink()


def lose_a_result(day: Day) -> None:
    with day.town.house.store.read() as session:
        uid = session.scalars(select(ObjectRow.sop_uid).order_by(ObjectRow.id.desc())).first()  # of no run that a later one has replaced
    (day.archive / f"{uid}.dcm").unlink()


def forget_that_something_was_delivered(day: Day) -> None:
    with day.town.house.store.write() as session:
        session.execute(update(DeliveryRow).where(DeliveryRow.id == 1).values(state=DeliveryState.PARKED))


def tell_nobody_of_the_hold(day: Day) -> None:
    with day.town.house.store.write() as session:
        session.execute(delete(AlertRow).where(AlertRow.kind == "held"))


def take_one_for_another(day: Day) -> None:
    number = next(index for index, study in enumerate(day.day) if study.kind == "plain")
    study = day.day[number]
    day.day[number] = DayStudy(study.study_uid, study.kind, study.modality, "SOMEBODY ELSE", study.images, study.waves)


TAMPERING = {
    lose_a_file: "1 acknowledged instances are lost",
    keep_a_file_twice: "1 instances are kept more than once",
    lose_a_conflict: "1 acknowledged instances are lost",
    lose_a_result: "the archive lacks what was delivered",
    forget_that_something_was_delivered: "instead of 'results'",
    tell_nobody_of_the_hold: "it is held, and nobody is told",
    take_one_for_another: "under another study or patient",
}


def test_a_day_in_which_all_went_well_is_accounted_for(day: Day) -> None:
    assert at_rest(day.town.settings)
    accounts = day.accounts()
    assert accounts.wrong == []
    assert {ending.study.kind: ending.how for ending in accounts.endings} == {name: kind.ends for name, kind in KINDS.items()}
    assert accounts.instances["duplicates dropped"] == 6  # four sent twice, two of those before the association broke off
    assert (accounts.instances["superseded"], accounts.instances["conflict"], accounts.instances["quarantine"]) == (4, 1, 1)


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda tamper: tamper.__name__)
def test_what_is_not_as_it_has_to_be_is_found(day: Day, tamper: Callable[[Day], None]) -> None:
    tamper(day)
    assert any(TAMPERING[tamper] in sentence for sentence in day.accounts().wrong)


def test_a_study_of_which_nothing_arrived_is_missed(day: Day) -> None:
    day.day.append(plan(1, 8)[0])
    assert any("the node knows nothing of it" in sentence for sentence in day.accounts().wrong)


def test_the_same_seed_is_the_same_day_and_another_is_another() -> None:
    assert plan(25, 1) == plan(25, 1) != plan(25, 2)
    assert {study.kind for study in plan(len(KINDS), 1)} == set(KINDS)
    assert sum(kind.share for kind in KINDS.values()) == 100


@pytest.mark.slow
def test_a_short_day_over_the_network_is_accounted_for(tmp_path: Path) -> None:
    figures, work = tmp_path / "journey.json", tmp_path / "work"
    work.mkdir()
    done = CliRunner().invoke(app, ["bench", "journey", "--studies", "12", "--outage", "2", "--work", str(work), "--json", str(figures)])
    assert done.exit_code == 0, done.output
    found = json.loads(figures.read_text())
    assert found["wrong"] == [] and sum(row["studies"] for row in found["kinds"]) == 12
    assert all(row["ended"] == {KINDS[row["kind"]].ends: row["studies"]} for row in found["kinds"])
    assert found["objects"]["delivered"] == found["objects"]["in the archive"] > 0
    assert list(work.iterdir()) == []
