"""Random events, crashes and restarts never break the promise: what was acknowledged is never lost, its results arrive or someone is told why not.

::

    python -m pytest tests/journey/test_state_machine.py                            a fixed set of stories
    python -m pytest tests/journey/test_state_machine.py --story-minutes 15 -s      others, for 15 minutes
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from pacs_node.database.alerts import open_alerts
from pacs_node.database.tables import DeliveryRow, JobRow, StudyRow
from pacs_node.errors import InputError
from pacs_node.journey import operate
from tests.journey.machine import (
    FILE_STEPS,
    LONG,
    LOOKS,
    PATIENTS,
    PAUSES,
    RULES,
    SERIES,
    SLICES,
    STEPS,
    STUDIES,
    Places,
    World,
    damaged,
    image,
    rejection_note,
)
from tests.journey.promises import Promises

STORIES = 40
EVENTS = 30  # of one story
_MOST_ROUNDS = 60  # until all has come to rest

DUTIES = ("gather", "gather", "watch", "reap", "retire", "deliver to archive", "deliver to research")
WORKERS = ("left", "right")
SPANS = [timedelta(seconds=seconds) for seconds in (1, 11, 61, 600, 7300, 90_000, 1_300_000)]
ACTIONS = ("pass through", *DUTIES, *WORKERS, "send")
WORKING = ("claimed", "analysing", "analysed", "built", "before a write", "after a write")
SENDING = ("offering", "taken", "sent", "before a write", "after a write")
SPELLS = ("correct", "mix", "late", "cancel", "retry", "release", "silence", "overtake", "rules")

studies, patients, looks = st.sampled_from(STUDIES), st.sampled_from(PATIENTS), st.sampled_from(LOOKS)
indices = st.sets(st.integers(0, SLICES - 1), min_size=1)
numbers = st.integers(0, 5)


class Story(RuleBasedStateMachine):
    """One node, two destinations, and whatever may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        shm = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="story-", dir=shm if shm.is_dir() else None))
        self.world = World(self.folder, self.patch, lambda name, parcel: self.promises.leaves(name, parcel))
        self.promises = Promises(self.world)

    # --- senders -----------------------------------------------------------------------------------------------------

    @rule(study=studies, series=st.sampled_from(SERIES), which=indices, patient=patients, look=looks, end=st.sampled_from(("released", "aborted", "open")))
    def send(self, study: str, series: int, which: set[int], patient: str, look: str, end: str) -> None:
        """New, more of it, again, corrected, with other pixels: what it is depends on what came before."""
        self.world.deliver_in([image(study, series, index, patient, look) for index in sorted(which)], end=end)

    @rule(study=studies, patient=patients)
    def send_a_whole_study(self, study: str, patient: str) -> None:
        self.world.deliver_in([image(study, series, index, patient) for series in SERIES for index in range(SLICES)])

    @rule(study=studies, index=st.integers(0, 2))
    def send_something_damaged(self, study: str, index: int) -> None:
        self.world.deliver_in([damaged(study, index), image(study, 1, index, PATIENTS[0])], end="aborted")

    @rule(study=studies, series=st.sampled_from(SERIES), index=st.integers(0, SLICES - 1), patient=patients)
    def a_slice_is_rejected(self, study: str, series: int, index: int, patient: str) -> None:
        self.world.deliver_in([rejection_note(study, series, index, patient)])

    @rule()
    def results_come_back(self) -> None:
        self.world.results_come_back()

    @rule()
    def associations_end(self) -> None:
        self.world.end_associations()

    # --- time and duties ---------------------------------------------------------------------------------------------

    @rule(span=st.sampled_from(SPANS))
    def time_passes(self, span: timedelta) -> None:
        self.world.clock += span

    @rule(span=st.sampled_from(SPANS))
    def the_clock_is_set_back(self, span: timedelta) -> None:
        self.world.clock -= span

    @rule(name=st.sampled_from(DUTIES))
    def a_duty_runs(self, name: str) -> None:
        self.world.do(name)

    @rule(side=st.sampled_from(WORKERS))
    def a_worker_runs(self, side: str) -> None:
        self.world.run_worker(side)

    @rule()
    def all_runs(self) -> None:
        self.world.pass_through()

    @rule()
    def the_node_starts_again(self) -> None:
        self.world.restart()

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    @rule(action=st.sampled_from(ACTIONS), step=st.sampled_from((*STEPS, *PAUSES)), count=st.integers(1, 4), data=st.data())
    def it_crashes_while(self, action: str, step: str, count: int, data: st.DataObject) -> None:
        if action == "send":
            step = data.draw(st.sampled_from(FILE_STEPS))
        self.world.seam.arm(step, count, self.world.die)
        self.world.survive(self._action(action))
        self.world.seam.disarm()

    @rule(side=st.sampled_from(WORKERS), step=st.sampled_from(("claimed", "analysing", "analysed", "built", "stored", "before a commit")))
    def a_worker_vanishes(self, side: str, step: str) -> None:
        """Its machine is gone for good: nobody gives its job back but the lease."""
        world = self.world
        world.seam.arm(step, 1, world.die)
        with suppress(BaseException):
            world.run_worker(side)
        if world.seam.step:
            world.seam.disarm()
        else:
            world.lose_worker(side)

    @rule(action=st.sampled_from(ACTIONS[:-1]), step=st.sampled_from(PAUSES), count=st.integers(1, 4), spell=st.sampled_from(SPELLS), study=studies, n=numbers)
    def something_happens_while(self, action: str, step: str, count: int, spell: str, study: str, n: int) -> None:
        self.world.seam.arm(step, count, lambda: self._cast(spell, study, n))
        self._action(action)()
        self.world.seam.disarm()

    @rule(step=st.sampled_from(WORKING), count=st.integers(1, 2), spell=st.sampled_from(SPELLS), study=studies, n=numbers)
    def something_happens_while_a_job_runs(self, step: str, count: int, spell: str, study: str, n: int) -> None:
        self._make_a_job(study)
        self.world.seam.arm(step, count, lambda: self._cast(spell, study, n))
        self.world.run_worker("left")
        self.world.seam.disarm()

    @rule(step=st.sampled_from(SENDING), count=st.integers(1, 2), spell=st.sampled_from(SPELLS), study=studies, n=numbers)
    def something_happens_while_results_are_sent(self, step: str, count: int, spell: str, study: str, n: int) -> None:
        self._make_a_job(study)
        for side in WORKERS:
            self.world.run_worker(side)
        for name in ("deliver to archive", "deliver to research"):
            self.world.seam.arm(step, count, lambda: self._cast(spell, study, n))
            self.world.do(name)
        self.world.seam.disarm()

    @rule(mood=st.sampled_from(Places.MOODS))
    def the_archive_changes(self, mood: str) -> None:
        self.world.places.mood = mood

    @rule(mood=st.sampled_from(("out of scope", "crashes", "unusable")))
    def the_next_analysis_goes_wrong(self, mood: str) -> None:
        self.world.engine.mood = mood  # type: ignore[attr-defined]

    # --- operators ---------------------------------------------------------------------------------------------------

    @rule(what=st.sampled_from(("retry job", "retry delivery", "retry parked", "cancel", "release", "clear")), number=numbers)
    def an_operator_acts(self, what: str, number: int) -> None:
        self._operate(what, number)

    @rule(name=st.sampled_from(sorted(RULES)))
    def the_rules_change(self, name: str) -> None:
        self.world.take_rules(name)

    # --- how -----------------------------------------------------------------------------------------------------------

    def _action(self, name: str) -> Callable[[], object]:
        world = self.world
        if name == "send":
            return lambda: world.deliver_in([image("A", 1, index, PATIENTS[0]) for index in range(SLICES)])
        if name in WORKERS:
            return lambda: world.run_worker(name)
        return world.pass_through if name == "pass through" else lambda: world.do(name)

    def _make_a_job(self, study: str) -> None:
        """Let a late slice of a study come, and the time after which it is complete again."""
        world = self.world
        world.late += 1
        known = self.promises.patients(image(study, 1, 0, PATIENTS[0]).study_uid)
        world.deliver_in([image(study, 1, SLICES + world.late, min(known, default=PATIENTS[0]))])
        world.do("gather")
        world.wait(seconds=31)
        world.do("gather")

    def _cast(self, spell: str, study: str, number: int) -> None:
        """Let something happen in the middle of something else, as another process or person would do it."""
        world = self.world
        match spell:
            case "correct":
                world.deliver_in([image(study, series, index, PATIENTS[number % 2]) for series in SERIES for index in range(SLICES)])
            case "mix":
                world.deliver_in([image(study, 1, 0, PATIENTS[number % 2])])
            case "late":
                world.deliver_in([image(study, 2, number % SLICES, PATIENTS[0])])
            case "cancel" | "retry" | "release":
                self._operate({"retry": "retry job"}.get(spell, spell), number)
            case "rules":
                world.take_rules(sorted(RULES)[number % len(RULES)])
            case "silence" | "overtake":
                world.wait(minutes=2)
                world.do("reap")
        if spell in ("correct", "mix", "late"):
            world.do("gather")
        if spell == "overtake":
            world.wait(minutes=2)
            for side in WORKERS:
                world.run_worker(side)

    def _operate(self, what: str, number: int) -> None:
        world, store = self.world, self.world.house.store
        with store.read() as session:
            of_jobs = list(session.scalars(select(JobRow.id).order_by(JobRow.id.desc())))
            of_deliveries = list(session.scalars(select(DeliveryRow.id).order_by(DeliveryRow.id.desc())))
            of_studies = list(session.execute(select(StudyRow.id, StudyRow.study_uid).order_by(StudyRow.id)))
            alerts = [alert.id for alert in open_alerts(session)]
        with suppress(InputError, IndexError):
            match what:
                case "retry job":
                    operate.retry_job(store, of_jobs[number], world.clock)
                    world.touched.add(("retried", of_jobs[number]))
                case "cancel":
                    operate.cancel_job(store, of_jobs[number], world.clock)
                    world.touched.add(("cancelled", of_jobs[number]))
                case "retry delivery":
                    operate.retry_delivery(store, of_deliveries[number], world.clock)
                case "retry parked":
                    with store.read() as session:
                        parked = list(session.scalars(select(JobRow.id).where(JobRow.state == "parked")))
                    operate.retry_parked(store, world.clock)
                    world.touched |= {("retried", job) for job in parked}
                case "release":
                    study_id, uid = of_studies[number % 2]
                    named = self.promises.patients(uid)
                    operate.release(store, study_id, world.clock)
                    world.released[uid] = named
                case "clear":
                    operate.clear(store, alerts[number], world.clock)
                    world.touched.add(("cleared", 0))

    # --- what has to hold ----------------------------------------------------------------------------------------------

    @invariant()
    def the_promise_holds(self) -> None:
        self.promises.hold()

    def teardown(self) -> None:
        try:
            self._come_to_rest()
            self.promises.hold()
            self.promises.kept()
        finally:
            self.patch.undo()
            self.world.house.store.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _come_to_rest(self) -> None:
        world = self.world
        world.seam.disarm()
        world.places.mood, world.engine.mood = "up", "well"  # type: ignore[attr-defined]
        world.end_associations()
        for _ in range(_MOST_ROUNDS):
            for name in world.duties():
                world.do(name)
            for side in WORKERS:
                for _ in range(5):
                    world.run_worker(side)
            if not self.promises.at_rest():
                return
            world.clock += LONG
        raise AssertionError(f"it does not come to rest: {self.promises.at_rest()}")


def tell(stories: int, number: int | None = None) -> None:
    """Run stories: a fixed set, or those of a seed."""
    chosen = settings(
        max_examples=stories,
        stateful_step_count=EVENTS,
        derandomize=number is None,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    machine = Story if number is None else seed(number)(type("Story", (Story,), {}))
    run_state_machine_as_test(machine, settings=chosen)  # type: ignore[no-untyped-call]


@pytest.mark.slow
def test_no_story_breaks_the_promise(request: pytest.FixtureRequest) -> None:
    minutes = request.config.getoption("--story-minutes", default=None)
    if minutes is None:
        tell(STORIES)
        return
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        number = random.SystemRandom().getrandbits(48)
        print(f"seed {number}")
        tell(20, number)
