"""Random stories about what is removed and what comes again, with processes killed in between: nothing goes that no tombstone stands for."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from pacs_node import crash
from pacs_node.database import removal, studies
from pacs_node.database.states import GOING_ON, StudyState
from pacs_node.database.tables import AsideRow, InstanceRow, JobRow, StudyRow
from pacs_node.journey.reconcile import catch_up
from pacs_node.journey.retire import retire
from tests.journey.retired import FULL, ROOM, whats
from tests.journey.support import Town, ct_slice, encode_body

STEPS = {"look": ("retired", "retired", "swept"), "send": ("indexed", "moved"), "settle": ("claimed", "built", "stored", "sent")}  # where each may be killed
EVENTS = 40
TOLD = """
rules:
  - {name: told, when: {Modality: CT}, pipeline: null, results: [notice], send_to: [research]}
"""
Make = Callable[..., Town]
Key = tuple[str, str, str]  # study and slice, patient, look: one content


class Killed(BaseException):
    """What a SIGKILL is to the code behind it."""


class Story:
    """A house, what it has acknowledged, and what may happen to both."""

    def __init__(self, town: Town, number: int, patch: pytest.MonkeyPatch) -> None:
        self.town, self.random, self.left, self.step = town, random.Random(number), 0, ""
        self.keys: dict[bytes, Key] = {}  # dataset's bytes → what it is
        self.owed: set[Key] = set()
        self.disk = ROOM
        self.killed: set[str] = set()
        patch.setattr(crash, "passed", self._passed)
        self._settle_in()

    def _settle_in(self) -> None:
        self.town.house.measure = lambda folder: self.disk

    def _passed(self, step: str) -> None:
        if step == self.step:
            self.left -= 1
            if self.left == 0:
                raise Killed

    # --- what happens --------------------------------------------------------------------------------------------------

    def happen(self) -> None:
        name = self.random.choice(("send", "send", "settle", "wait", "wait", "look", "look", "fill", "start"))
        if self.listed() and self.random.random() < 0.6:
            name = "send"  # before what was interrupted is finished
        if name in STEPS and self.random.random() < 0.5:
            self.step, self.left = self.random.choice(STEPS[name]), self.random.randint(1, 3)
        before, listed = self.files(), self.listed()
        try:
            getattr(self, name)()
        except Killed:
            self.killed.add(self.step)
            self.step = ""
            self.start()
        self.step = ""
        self.check(before, listed)

    def send(self) -> None:
        study, patient = self.random.choice("AB"), self.random.choice(("P1", "P1", "P1", "P2"))
        look = self.random.choice(("plain", "plain", "plain", "other"))
        chosen = [ct_slice(index, study=study, patient=patient, **({} if look == "plain" else {"PixelData": bytes(512)})) for index in self._some()]
        for dataset in chosen:
            key = str(dataset.SOPInstanceUID), patient, look
            self.keys[encode_body(dataset)] = key
        self.town.send(chosen)
        self.owed |= {self.keys[encode_body(dataset)] for dataset in chosen}
        self.town.gather()

    def _some(self) -> list[int]:
        return sorted(self.random.sample(range(4), self.random.randint(1, 4)))

    def settle(self) -> None:
        self.town.settle()

    def wait(self) -> None:
        self.town.wait(days=self.random.choice((0.01, 1, 12, 40)))

    def look(self) -> None:
        retire(self.town.house, self.town.clock)

    def fill(self) -> None:
        self.disk = self.random.choice((ROOM, FULL))

    def start(self) -> None:
        self.town.restart()
        self._settle_in()
        catch_up(self.town.house)

    # --- what has to hold ------------------------------------------------------------------------------------------------

    def files(self) -> dict[Path, Key]:
        found = {}
        for path in self.town.house.data.rglob("*.dcm"):
            if path.parts[-2] != "results" and "results" not in path.parts:
                content = path.read_bytes()
                found[path] = next(key for body, key in self.keys.items() if content.endswith(body))
        return found

    def listed(self) -> set[Path]:
        with self.town.house.store.read() as session:
            return {self.town.house.data / path for path in removal.listed(session)}

    def check(self, before: dict[Path, Key], listed: set[Path]) -> None:
        data, now = self.town.house.data, self.files()
        with self.town.house.store.read() as session:
            instances, aside = session.scalars(select(InstanceRow)).all(), session.scalars(select(AsideRow)).all()
            pending = {data / path for path in removal.listed(session)}
            gathering = set(session.scalars(select(StudyRow.id).where(StudyRow.state == StudyState.RECEIVING)))
            busy = set(session.scalars(select(JobRow.study_id).where(JobRow.state.in_(GOING_ON))))
        tombs = {data / studies.instance_path(row) for row in instances if row.removed_at} | {data / row.path for row in aside if row.removed_at}
        spooled = {path.stem for path in now if "spool" in path.parts}
        for row in instances:
            path = data / studies.instance_path(row)
            assert row.removed_at or path in now or row.arrival in spooled, f"the file of instance {row.id} is gone, and no tombstone stands for it"
            assert not row.removed_at or path not in now or path in pending, f"the file of tombstone {row.id} was left behind"
        gone = {path: key for path, key in before.items() if path not in now}
        removed = {path for path in gone if path in tombs | listed}
        for path in removed & {data / studies.instance_path(row) for row in instances if row.removed_at and row.study_id in gathering | busy}:
            assert path in listed, f"{path} was removed while its study is at work"
        missing = self.owed - set(now.values())
        assert missing <= {gone[path] for path in removed}, f"lost: {missing}"
        self.owed -= missing


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_nothing_goes_that_no_tombstone_stands_for(make_town: Make, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    town = make_town(rules=TOLD, reception={"reserve": "0B"}, retention={"keep": "10d", "held": "30d", "aside": "20d"})
    monkeypatch.setattr("pacs_node.results.dciodvfy", lambda *paths: ((), ()))  # of another maker, and slow: not what this is about
    story = Story(town, number, monkeypatch)
    for _ in range(EVENTS):
        story.happen()
    story.settle()
    for _ in range(2):
        town.wait(days=400)
        retire(town.house, town.clock)
        town.wait(days=2)  # what had to be said first
        retire(town.house, town.clock)
    assert story.files() == {} and story.listed() == set()
    assert whats(town) in ([], ["result file of a run that was not committed"])
