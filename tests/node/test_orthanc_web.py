"""A real DICOMweb server: Orthanc gets results over STOW-RS, with a password where it asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import select

from pacs_node.config import StowDestination
from pacs_node.database.tables import DeliveryRow, ObjectRow
from pacs_node.delivery import stow
from pacs_node.delivery.web import Service, Timeouts
from pacs_node.errors import TemporaryFailure
from pacs_node.records import Outcome, Parcel
from pacs_node.workbench.tables import open_store
from tests.conftest import IN_CI
from tests.journey.support import ct_study
from tests.node.orthanc import PLUGIN, Orthanc
from tests.node.support import NOTICE_RULES, NodeProcess, wait_until
from tests.node.test_crash_points import send_until_all_are_acknowledged
from tests.node.test_processes import write
from tests.reception.peers import dataset_bytes, make_ct, save

Tool = Callable[[str], str]
pytestmark = [pytest.mark.peers, pytest.mark.slow]  # each starts an Orthanc that takes seconds to stop


@pytest.fixture
def make_orthanc(tmp_path: Path, tool: Tool) -> Iterator[Callable[..., Orthanc]]:
    """Give a function that makes an Orthanc with DICOMweb (not started); all are stopped at the end."""
    made: list[Orthanc] = []

    def make(**values: object) -> Orthanc:
        if not PLUGIN.is_file():
            reason = f"{PLUGIN} is not there: deploy/test.sh installs orthanc-dicomweb when it runs as root"
            (pytest.fail if IN_CI else pytest.skip)(reason)
        made.append(Orthanc(tmp_path / f"orthanc{len(made)}", tool("Orthanc"), [PLUGIN], **values))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for orthanc in made:
        orthanc.close()


def place(orthanc: Orthanc, **values: object) -> StowDestination:
    return StowDestination.model_validate({"kind": "stow", "url": orthanc.web, "accepts_research": True, **values})


def send(destination: StowDestination, parcels: list[Parcel]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    stow.deliver(destination, parcels, "PACS_NODE", outcomes.append, Timeouts(10.0, 60.0))
    return outcomes


def parcel_of(path: Path) -> Parcel:
    meta = dcmread(path, stop_before_pixels=True).file_meta
    return Parcel(str(meta.MediaStorageSOPInstanceUID), str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID), path)


def test_objects_arrive_with_the_dataset_byte_for_byte_and_a_query_finds_them(make_orthanc: Callable[..., Orthanc], tmp_path: Path) -> None:
    orthanc = make_orthanc().start()
    large = save(make_ct(4096, PixelData=bytes(range(256)) * (4096 * 4096 * 2 // 256)), tmp_path / "large.dcm")  # 32 MiB
    parcels = [*write(tmp_path / "in", ct_study(5)), parcel_of(large)]
    with Service(place(orthanc)) as service:
        assert {stow.look_up(service, parcel) for parcel in parcels} == {stow.Found.ABSENT}
        assert all(outcome.delivered for outcome in send(place(orthanc), parcels))
        assert {stow.look_up(service, parcel) for parcel in parcels} == {stow.Found.THERE}
    kept = orthanc.instances()
    assert set(kept) == {parcel.sop_uid for parcel in parcels}
    for parcel in parcels:
        (tmp_path / "got.dcm").write_bytes(orthanc.file(kept[parcel.sop_uid]))
        assert dataset_bytes(tmp_path / "got.dcm") == dataset_bytes(parcel.path)
    assert all(outcome.delivered for outcome in send(place(orthanc), parcels))  # once more changes nothing
    assert orthanc.instances() == kept
    assert stow.probe(place(orthanc)) == (True, "")


def test_an_object_that_it_cannot_read_blocks_no_other(make_orthanc: Callable[..., Orthanc], tmp_path: Path) -> None:
    orthanc = make_orthanc().start()
    parcels = write(tmp_path / "in", ct_study(3))
    whole = parcels[1].path.read_bytes()
    parcels[1].path.write_bytes(whole[: whole.index(b"DICM") + 400])  # the head is there, the dataset ends in the middle of an element
    outcomes = {outcome.sop_uid: outcome for outcome in send(place(orthanc), parcels)}
    assert [outcomes[parcel.sop_uid].delivered for parcel in parcels] == [True, False, True]
    assert outcomes[parcels[1].sop_uid].permanent


def test_a_password_is_asked_for_and_given(make_orthanc: Callable[..., Orthanc], tmp_path: Path) -> None:
    orthanc = make_orthanc(auth=("node", "geheim"), AuthenticationEnabled=True, RegisteredUsers={"node": "geheim"}).start()
    parcels = write(tmp_path / "in", ct_study(2))
    (tmp_path / "right").write_text("geheim\n")
    (tmp_path / "wrong").write_text("falsch\n")
    auths = {name: {"basic": {"user": "node", "password_file": str(tmp_path / name)}} for name in ("right", "wrong")}
    for auth in (None, auths["wrong"]):
        with pytest.raises(TemporaryFailure, match="check the destination's auth"):
            send(place(orthanc, auth=auth), parcels)
        assert stow.probe(place(orthanc, auth=auth))[0] is False
    assert orthanc.instances() == {}
    assert all(outcome.delivered for outcome in send(place(orthanc, auth=auths["right"]), parcels))
    assert len(orthanc.instances()) == 2


def test_results_of_a_node_arrive_once_although_the_server_is_stopped_and_started(
    make_orthanc: Callable[..., Orthanc], make_node: Callable[..., NodeProcess], tool: Tool, tmp_path: Path
) -> None:
    orthanc = make_orthanc().start()
    node = make_node(rules=NOTICE_RULES.replace("research", "web"), destinations={"web": place(orthanc).model_dump(mode="json")}).start()
    assert "destination web answers" in node.command("check", "--echo").stdout
    for number in range(3):
        if number == 1:
            orthanc.stop()
            assert "cannot be reached" in node.command("check", "--echo").stdout
        parcels = write(tmp_path / f"in{number}", ct_study(3, study=f"S{number}", patient=f"P{number}"))
        assert len(send_until_all_are_acknowledged(tool, node, parcels)) == 3
        wait_until(lambda number=number: len(node.jobs()) == number + 1, "the study has its job")  # type: ignore[misc]
    with open_store(node.settings) as store:
        wait_until(lambda: _attempts(store) > 1, "it was tried in vain")
    orthanc.start()
    wait_until(lambda: len(orthanc.instances()) == 3 and node.settled(), "all results are there", 120)
    with open_store(node.settings) as store, store.read() as session:
        objects = {row.sop_uid: node.folder / "data" / row.path for row in session.scalars(select(ObjectRow))}
        assert {row.state.value for row in session.scalars(select(DeliveryRow))} == {"delivered"}
    kept = orthanc.instances()
    assert set(kept) == set(objects)
    for uid, path in objects.items():
        (tmp_path / "got.dcm").write_bytes(orthanc.file(kept[uid]))
        assert dataset_bytes(tmp_path / "got.dcm") == dataset_bytes(path)


def _attempts(store: object) -> int:
    with store.read() as session:  # type: ignore[attr-defined]
        return max((row.attempts for row in session.scalars(select(DeliveryRow))), default=0)
