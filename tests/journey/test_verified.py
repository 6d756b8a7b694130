"""`verify_with`: before quiet time counts, an archive is asked how many instances the study has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as FIND
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as MOVE

from pacs_node.database import jobs
from pacs_node.delivery import counting
from pacs_node.delivery.association import Timeouts
from pacs_node.journey.count import MOST_FETCHES, ask
from pacs_node.workbench import tables
from tests.journey.counting_peer import CountingPeer
from tests.journey.support import RULES, Town, ct_study
from tests.journey.test_adversity import alert_kinds
from tests.journey.test_announced import reasons, waits_for
from tests.node.support import free_port

Make = Callable[..., Town]
IMAGES = ct_study()
SERIES, STUDY = str(IMAGES[0].SeriesInstanceUID), str(IMAGES[0].StudyInstanceUID)


@pytest.fixture
def peer() -> Iterator[CountingPeer]:
    made = CountingPeer([{SERIES: 6}]).start()
    yield made
    made.stop()


@pytest.fixture
def town(make_town: Make, peer: CountingPeer, tmp_path: Path) -> Town:
    return asking(make_town, peer.port, tmp_path)


def asking(make_town: Make, port: int, folder: Path, rules: str = RULES, **assembly: object) -> Town:
    destinations = {
        "archive": {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": port},
        "research": {"kind": "folder", "path": str(folder / "out")},
    }
    return make_town(rules=rules, destinations=destinations, assembly={"quiet": "10s", "deadline": "1h", "verify_with": "archive", **assembly})


def pass_time(town: Town, rounds: int = 1, **span: float) -> None:
    """Let time pass as the clock would: gather, ask, gather."""
    for _ in range(rounds):
        town.gather()
        town.wait(**span)
        town.gather()
        ask(town.house, "archive", town.clock)
        town.gather()


def test_a_study_is_complete_when_two_counts_in_a_row_are_what_is_here(town: Town, peer: CountingPeer) -> None:
    town.send(IMAGES)
    pass_time(town, seconds=9)
    assert peer.asked == []  # nobody is asked before quiet time is over
    pass_time(town, seconds=2)
    assert peer.asked == [STUDY] and reasons(town) == [] and "a second count of archive" in waits_for(town)
    pass_time(town, seconds=6)
    assert peer.asked == [STUDY] * 2
    assert reasons(town) == [("no instance came for 10 s; archive counts 6 instances, and all are here", False)]
    pass_time(town, 5, minutes=5)
    assert len(peer.asked) == 2  # the study is complete


def test_more_instances_in_the_archive_are_waited_for(town: Town, peer: CountingPeer) -> None:
    town.send(IMAGES[:4])
    pass_time(town, 5, seconds=30)
    assert reasons(town) == [] and "2 more instances that archive has" in waits_for(town)
    assert peer.moved == []  # nobody allowed it
    town.send(IMAGES[4:])
    pass_time(town, 2, seconds=11)
    assert reasons(town) == [("no instance came for 10 s; archive counts 6 instances, and all are here", False)]


def test_a_series_that_is_in_the_archive_and_not_here_at_all_is_waited_for(town: Town, peer: CountingPeer) -> None:
    peer.answers = [{SERIES: 6, "1.2.3.4": 20}]
    town.send(IMAGES)
    pass_time(town, 3, seconds=30)
    assert reasons(town) == [] and "20 more instances that archive has" in waits_for(town)


def test_a_series_of_another_modality_is_none_that_the_rule_wants(town: Town, peer: CountingPeer) -> None:
    peer.answers, peer.modality = [{"1.2.3.4": 1}], "SR"
    town.send(IMAGES)
    pass_time(town, 2, seconds=11)
    assert reasons(town) == [("no instance came for 10 s; archive knows nothing of it", False)]


def test_our_own_results_in_the_archive_do_not_count(town: Town, peer: CountingPeer) -> None:
    town.send(IMAGES[:5])
    peer.answers = [{SERIES: 5}]
    pass_time(town, 2, seconds=11)
    town.work()
    town.post()
    ours = {str(result.SeriesInstanceUID): 1 for result in town.results()}
    assert ours
    peer.answers = [{SERIES: 6, **ours}]  # with the modality of the images
    town.send(IMAGES[5:])
    pass_time(town, 2, seconds=11)
    assert [reason for reason, _ in reasons(town)][1] == "no instance came for 10 s; archive counts 6 instances, and all are here"


def test_a_count_that_still_grows_is_not_believed(town: Town, peer: CountingPeer) -> None:
    peer.answers = [{SERIES: 2}, {SERIES: 4}, {SERIES: 6}, {SERIES: 6}]
    town.send(IMAGES)
    pass_time(town, 3, seconds=12)
    assert reasons(town) == []
    pass_time(town, 1, seconds=60)
    assert len(reasons(town)) == 1 and len(peer.asked) == 4


def test_without_the_number_quiet_time_decides(town: Town, peer: CountingPeer) -> None:
    peer.answers = [{SERIES: None}]
    town.send(IMAGES)
    pass_time(town, seconds=11)
    assert reasons(town) == [("no instance came for 10 s; archive does not count its instances", False)]


@pytest.mark.parametrize("way", ["away", "refuses", "takes no queries"])
def test_an_archive_that_gives_no_count_is_said_and_the_deadline_ends_the_wait(make_town: Make, tmp_path: Path, way: str) -> None:
    peer = CountingPeer([{SERIES: 6}], status=0xA700 if way == "refuses" else 0, classes=(MOVE,) if way == "takes no queries" else (MOVE, FIND))
    peer.start()
    words = {"away": "cannot be reached", "refuses": "0xA700", "takes no queries": "takes no queries"}[way]
    town = asking(make_town, free_port() if way == "away" else peer.port, tmp_path)
    town.send(IMAGES)
    pass_time(town, 3, seconds=20)
    peer.stop()
    assert reasons(town) == [] and "the count of archive, which gave none" in waits_for(town) and words in waits_for(town)
    town.wait(hours=1)
    town.gather()
    ((reason, partial),) = reasons(town)
    assert partial and "the deadline of 1 h came" in reason


def test_an_archive_that_comes_back_is_asked_again(make_town: Make, tmp_path: Path) -> None:
    port = free_port()
    town = asking(make_town, port, tmp_path)
    town.send(IMAGES)
    pass_time(town, 2, seconds=20)
    peer = CountingPeer([{SERIES: 6}])
    peer.start()
    try:
        destination = town.settings.destinations["archive"].model_copy(update={"port": peer.port})
        town.house.settings = town.settings.model_copy(update={"destinations": {**town.settings.destinations, "archive": destination}})
        pass_time(town, 2, minutes=2)
    finally:
        peer.stop()
    assert len(reasons(town)) == 1


@pytest.mark.slow
def test_an_archive_that_hangs_delays_no_other_study(make_town: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = RULES.replace("BodyPartExamined: HEAD}", "BodyPartExamined: HEAD}\n    complete: {verify_with: archive}").replace(
        "  - name: anything", "  - name: chest\n    when: {BodyPartExamined: CHEST}\n    pipeline: ct-test\n    send_to: [research]\n  - name: anything"
    )
    peer = CountingPeer([{SERIES: 6}], hang=threading.Event()).start()
    monkeypatch.setattr(counting.count_series, "__defaults__", (Timeouts(2.0, 2.0, 3.0),))
    town = asking(make_town, peer.port, tmp_path, rules, verify_with=None)
    town.send(IMAGES)
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.send(ct_study(study="B", BodyPartExamined="CHEST"))
    thread = threading.Thread(target=ask, args=(town.house, "archive", town.clock))  # as a duty of its own
    begun = time.monotonic()
    thread.start()
    town.gather()
    town.wait(seconds=11)
    town.gather()
    assert thread.is_alive() and len(reasons(town)) == 1  # the other study
    thread.join(15)
    peer.stop()
    assert not thread.is_alive() and time.monotonic() - begun < 15
    town.gather()
    assert "gave no answer to C-FIND" in str(tables.status_tables(town.settings)["studies"])


def test_a_restart_between_two_counts_keeps_the_first(town: Town, peer: CountingPeer) -> None:
    town.send(IMAGES)
    pass_time(town, seconds=11)
    town.restart()
    pass_time(town, seconds=6)
    assert len(peer.asked) == 2 and len(reasons(town)) == 1


def test_a_rule_may_ask_nobody_where_the_house_asks(make_town: Make, peer: CountingPeer, tmp_path: Path) -> None:
    town = asking(make_town, peer.port, tmp_path, RULES.replace("pipeline: ct-test", "pipeline: ct-test\n    complete: {verify_with: null}"))
    town.send(IMAGES)
    pass_time(town, seconds=11)
    assert reasons(town) == [("no instance came for 10 s", False)] and peer.asked == []


# --- fetching ----------------------------------------------------------------------------------------------------------------


def test_where_it_is_allowed_what_is_missing_is_fetched_and_taken_in_like_any_arrival(make_town: Make, peer: CountingPeer, tmp_path: Path) -> None:
    town = asking(make_town, peer.port, tmp_path, fetch=True)

    def send_all(series: str) -> int:
        town.send(IMAGES, calling="ARCHIVE")
        return 0

    peer.move = send_all
    town.send(IMAGES[:4])
    pass_time(town, seconds=11)
    assert peer.moved == []  # one count is not believed
    pass_time(town, 3, seconds=11)
    assert peer.moved == [(SERIES, "PACS_NODE")]
    assert reasons(town) == [("no instance came for 10 s; archive counts 6 instances, and all are here", False)]
    with town.house.store.read() as session:
        assert len(jobs.jobs_of(session, 1)) == 1


def test_what_does_not_come_is_not_asked_for_without_end(make_town: Make, peer: CountingPeer, tmp_path: Path) -> None:
    town = asking(make_town, peer.port, tmp_path, fetch=True)
    peer.move = lambda series: 0
    town.send(IMAGES[:4])
    pass_time(town, 12, minutes=2)
    assert len(peer.moved) == MOST_FETCHES and reasons(town) == []
    town.wait(hours=1)
    town.gather()
    assert [partial for _, partial in reasons(town)] == [True]


def test_an_archive_that_does_not_know_us_is_said_with_the_remedy(make_town: Make, peer: CountingPeer, tmp_path: Path) -> None:
    town = asking(make_town, peer.port, tmp_path, fetch=True)
    town.send(IMAGES[:4])
    pass_time(town, 3, seconds=30)
    assert alert_kinds(town) == ["fetch"]
    assert "enter this node there" in str(tables.status_tables(town.settings)["alerts"])
