"""STOW-RS against a server that behaves as the test says; a real archive is in tests/node/test_orthanc_web.py."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import MRImageStorage

from pacs_node.config import StowDestination
from pacs_node.delivery import deliver, stow
from pacs_node.delivery.multipart import body_of, part_of
from pacs_node.delivery.store_answer import Answer, read_answer
from pacs_node.delivery.stow import batches, probe, row_of
from pacs_node.delivery.web import Timeouts, retry_after
from pacs_node.errors import TemporaryFailure
from pacs_node.records import Outcome, Parcel
from tests.delivery.places import free_port
from tests.delivery.web_archive import CT, OnStore, Reply, Request, Reset, WebArchive, item, said, xml_document
from tests.reception.peers import dataset_bytes, make_ct, save

MakeParcel = Callable[..., Parcel]
QUICK = Timeouts(connect=5.0, response=1.0)


@pytest.fixture
def web() -> Iterator[WebArchive]:
    archive = WebArchive()
    yield archive
    archive.stop()


def send(place: WebArchive | StowDestination, parcels: Sequence[Parcel], timeouts: Timeouts = Timeouts(5.0, 20.0)) -> list[Outcome]:
    outcomes: list[Outcome] = []
    stow.deliver(place.place() if isinstance(place, WebArchive) else place, parcels, "PACS_NODE", outcomes.append, timeouts)
    return outcomes


def fate(outcome: Outcome) -> str:
    return "delivered" if outcome.delivered else "refused" if outcome.permanent else "later"


def fates(outcomes: Sequence[Outcome]) -> dict[str, str]:
    assert len({outcome.sop_uid for outcome in outcomes}) == len(outcomes)  # each is reported once
    assert all(outcome.message for outcome in outcomes)
    return {outcome.sop_uid: fate(outcome) for outcome in outcomes}


# --- what goes out -------------------------------------------------------------------------------------------------------


def test_objects_arrive_in_order_with_the_dataset_byte_for_byte(web: WebArchive, parcel: MakeParcel) -> None:
    parcels = [parcel(), parcel(SOPClassUID=MRImageStorage), parcel()]
    outcomes = send(web, parcels)
    assert [(outcome.sop_uid, outcome.delivered, outcome.status) for outcome in outcomes] == [(one.sop_uid, True, 0x0000) for one in parcels]
    assert list(web.kept) == [one.sop_uid for one in parcels]
    assert all(web.kept[one.sop_uid].endswith(dataset_bytes(one.path)) for one in parcels)
    assert web.queries == []


def test_neighbours_of_one_class_share_a_request_and_what_may_refer_to_another_class_waits_for_its_own(web: WebArchive, parcel: MakeParcel) -> None:
    parcels = [parcel(), parcel(), parcel(SOPClassUID=MRImageStorage), parcel()]
    send(web, parcels)
    assert [len(request.objects) for request in web.requests] == [2, 1, 1]


def test_requests_are_bounded_in_objects_and_bytes(parcel: MakeParcel, monkeypatch: pytest.MonkeyPatch) -> None:
    parcels = [parcel() for _ in range(7)]
    monkeypatch.setattr(stow, "MOST_OBJECTS", 3)
    assert [len(batch) for batch in batches(parcels)] == [3, 3, 1]
    monkeypatch.setattr(stow, "MOST_BYTES", 2 * parcels[0].path.stat().st_size)
    assert [len(batch) for batch in batches(parcels)] == [2, 2, 2, 1]
    monkeypatch.setattr(stow, "MOST_BYTES", 1)
    assert [len(batch) for batch in batches(parcels)] == [1] * 7


def test_the_file_meta_information_names_the_object_and_nobody_who_sent_it(web: WebArchive, parcel: MakeParcel, tmp_path: Path) -> None:
    image = make_ct()
    image.file_meta.SendingApplicationEntityTitle = "CT1"
    image.file_meta.SourceApplicationEntityTitle = "SECRET"
    one = parcel(image)
    send(web, [one])
    (tmp_path / "got.dcm").write_bytes(web.kept[one.sop_uid])
    got = dcmread(tmp_path / "got.dcm")
    assert isinstance(got.file_meta, FileMetaDataset) and "SendingApplicationEntityTitle" not in got.file_meta and b"SECRET" not in web.kept[one.sop_uid]
    assert got.file_meta.MediaStorageSOPInstanceUID == one.sop_uid and got.file_meta.TransferSyntaxUID == one.transfer_syntax_uid
    assert dataset_bytes(tmp_path / "got.dcm") == dataset_bytes(one.path)


def test_a_body_is_as_long_as_it_says_and_never_in_memory_as_a_whole(parcel: MakeParcel, tmp_path: Path) -> None:
    one = parcel(make_ct(4096, PixelData=bytes(4096 * 4096 * 2)))  # 32 MiB
    body = body_of([part_of(one)] * 3)
    tracemalloc.start()
    assert sum(len(chunk) for chunk in body) == body.size > 96 << 20
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_what_is_not_wanted_any_more_is_left_out(web: WebArchive, parcel: MakeParcel) -> None:
    parcels, outcomes = [parcel(), parcel(), parcel()], list[Outcome]()
    deliver(web.place(), parcels, "PACS_NODE", outcomes.append, lambda one: one is not parcels[1])
    assert list(web.kept) == [outcome.sop_uid for outcome in outcomes] == [parcels[0].sop_uid, parcels[2].sop_uid]


def test_a_file_that_is_gone_damaged_or_another_object_is_refused_and_the_others_go_on(web: WebArchive, parcel: MakeParcel) -> None:
    gone, damaged, other, good = parcel(), parcel(), parcel(), parcel()
    gone.path.unlink()
    damaged.path.write_bytes(b"no DICOM")
    other.path.write_bytes(parcel().path.read_bytes())
    assert list(fates(send(web, [gone, damaged, other, good])).values()) == ["refused", "refused", "refused", "delivered"]
    assert list(web.kept) == [good.sop_uid]


# --- what is answered about each instance ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [bytes, xml_document], ids=["json", "xml"])
@pytest.mark.parametrize("status", [200, 202, 409])
def test_each_object_gets_the_outcome_of_its_own_reason(web: WebArchive, parcel: MakeParcel, status: int, form: Callable[[bytes], bytes]) -> None:
    expected = {0x0110: "later", 0x0122: "refused", 0xA700: "later", 0xA7FF: "later", 0xA900: "refused", 0xC000: "refused", 0xC122: "refused", 0x0124: "later"}
    expected |= {0x4711: "later"}
    warned = [0xB000, 0xB006, 0xB007]
    parcels = [parcel() for _ in (*expected, *warned, "well")]
    reasons = dict(zip([one.sop_uid for one in parcels], (*expected, *warned, 0), strict=True))
    stored = [item(uid, **({"warning": reason} if reason else {})) for uid, reason in reasons.items() if reason in (*warned, 0)]
    failed = [item(uid, reason=reason) for uid, reason in reasons.items() if reason in expected]
    web.on_store = lambda request: Reply(status, form(said(stored, failed)))
    outcomes = send(web, parcels)
    assert fates(outcomes) == {uid: expected.get(reason, "delivered") for uid, reason in reasons.items()}
    assert {outcome.sop_uid: outcome.status for outcome in outcomes} == reasons
    assert all(outcome.unsupported is outcome.permanent for outcome in outcomes)
    assert len(web.queries) == 1 and len(web.requests) == 1  # it is asked about what it says that it changed


def test_an_object_that_was_stored_with_changes_is_looked_for_under_its_patient(web: WebArchive, parcel: MakeParcel, tmp_path: Path) -> None:
    one = parcel()
    web.on_store = lambda request: Reply(200, said([item(one.sop_uid, warning=0xB000)]))
    for patient, words in [("P1", ""), ("P2", "under another Patient ID")]:
        changed = dcmread(one.path)
        changed.PatientID = patient
        web.kept[one.sop_uid] = save(changed, tmp_path / "changed.dcm").read_bytes()
        (outcome,) = send(web, [one])
        assert outcome.delivered and words in outcome.coerced and bool(outcome.coerced) is bool(words)
    web.on_query = lambda path, query: Reply(500)
    (outcome,) = send(web, [one])
    assert outcome.delivered and outcome.coerced == ""


def test_a_failure_inside_a_200_is_no_delivery(web: WebArchive, parcel: MakeParcel) -> None:
    good, bad = parcel(), parcel()
    web.on_store = lambda request: Reply(200, said([item(good.sop_uid)], [item(bad.sop_uid, reason=0x0122)]))
    assert fates(send(web, [good, bad])) == {good.sop_uid: "delivered", bad.sop_uid: "refused"}


@pytest.mark.parametrize(("original", "requests"), [(False, 1), (True, 4)])
def test_one_original_that_is_to_be_tried_again_holds_up_no_other(
    web: WebArchive, parcel: MakeParcel, monkeypatch: pytest.MonkeyPatch, original: bool, requests: int
) -> None:
    monkeypatch.setattr(stow, "MOST_OBJECTS", 1)
    parcels = [replace(parcel(), original=original) for _ in range(4)]
    usual, sick = web.on_store, parcels[0].sop_uid
    web.on_store = lambda request: Reply(409, said((), [item(sick, reason=0xA700)])) if sick in request.objects else usual(request)
    outcomes = fates(send(web, parcels))
    assert outcomes[sick] == "later" and len(web.requests) == requests
    assert set(list(outcomes.values())[1:]) == ({"delivered"} if original else set())


def test_stored_and_failed_in_one_answer_is_decided_by_a_query(web: WebArchive, parcel: MakeParcel) -> None:
    one = parcel()
    web.on_store = lambda request: Reply(202, said([item(one.sop_uid)], [item(one.sop_uid, reason=0xC000)]))
    assert fates(send(web, [one])) == {one.sop_uid: "later"}
    assert len(web.queries) == 1
    web.kept[one.sop_uid] = one.path.read_bytes()
    assert fates(send(web, [one])) == {one.sop_uid: "delivered"}


@pytest.mark.parametrize("status", [200, 202, 204, 409])
def test_a_duplicate_counts_only_where_a_query_shows_the_very_object(web: WebArchive, parcel: MakeParcel, status: int) -> None:
    there, absent = parcel(), parcel()
    body = said([], [item(there.sop_uid, reason=0x0111), item(absent.sop_uid, reason=0x0111)])
    web.kept[there.sop_uid] = there.path.read_bytes()
    web.on_store = lambda request: Reply(status, body if status != 204 else b"")
    outcomes = send(web, [there, absent])
    assert fates(outcomes) == {there.sop_uid: "delivered", absent.sop_uid: "later"}
    assert [outcome.status for outcome in outcomes] == ([0x0111, 0x0111] if status != 204 else [None, None])


def test_an_instance_of_the_uid_under_another_patient_or_in_another_study_is_not_the_object(web: WebArchive, parcel: MakeParcel, tmp_path: Path) -> None:
    web.on_store = lambda request: Reply(409)
    one = parcel()
    for values, expected in [({"PatientID": "P2"}, "refused"), ({"StudyInstanceUID": "1.2.3"}, "later"), ({}, "delivered")]:
        other = dcmread(one.path)
        for keyword, value in values.items():
            setattr(other, keyword, value)
        web.kept[one.sop_uid] = save(other, tmp_path / "other.dcm").read_bytes()
        assert fates(send(web, [one])) == {one.sop_uid: expected}


def test_a_409_for_all_without_a_word_blocks_only_whom_it_fits(web: WebArchive, parcel: MakeParcel) -> None:
    parcels = [parcel() for _ in range(3)]
    bad = parcels[0].sop_uid

    def refuse(request: Request) -> Reply:
        return Reply(409, said(other=[0x0122]) if list(request.objects) == [bad] else b"") if bad in request.objects else web.keep(request)

    web.on_store = refuse
    outcomes = send(web, parcels)
    assert fates(outcomes) == {one.sop_uid: "refused" if one.sop_uid == bad else "delivered" for one in parcels}
    assert [len(request.objects) for request in web.requests] == [3, 1, 1, 1]


def test_a_409_that_never_gives_a_reason_is_tried_again_later(web: WebArchive, parcel: MakeParcel) -> None:
    parcels = [parcel(), parcel()]
    web.on_store = lambda request: Reply(409)
    outcomes = send(web, parcels)
    assert fates(outcomes) == {parcels[0].sop_uid: "later"}  # what may refer to it stays behind it
    assert "HTTP 409" in outcomes[0].message and "not there" in outcomes[0].message


@pytest.mark.parametrize(
    "lie",
    [
        lambda uid: said([item("1.2.3.4")]),
        lambda uid: said([item(uid, sop_class=MRImageStorage)]),
        lambda uid: said([item(uid, warning=0xA700)]),
        lambda uid: said([], [item(uid)]),
        lambda uid: said([], [item(uid, reason=0)]),
        lambda uid: said([], [item(uid, reason=0xB000)]),
        lambda uid: said(),
        lambda uid: b"",
        lambda uid: b"OK",
        lambda uid: b"\xff\xfe\x00garbage",
        lambda uid: b"[" * 100_000,
        lambda uid: b"[1, 2]",
        lambda uid: json.dumps({"00081199": {"vr": "SQ", "Value": uid}}).encode(),
        lambda uid: json.dumps({"00081199": {"vr": "SQ", "Value": [{"00081155": {"Value": [[uid]]}}, None, 7]}, "00081198": 3}).encode(),
        lambda uid: json.dumps([{"00081199": {"vr": "SQ", "Value": [item(uid)]}}] * 2).encode(),
        lambda uid: xml_document(said([item(uid)]))[:-9],
        lambda uid: b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + xml_document(said([item(uid)])).partition(b"?>")[2],
        lambda uid: xml_document(said([item(uid)])).decode().replace("utf-8", "utf-16").encode("utf-16"),
        lambda uid: b"<a>" * 50_000 + b"</a>" * 50_000,
        lambda uid: b'<N><DicomAttribute tag="00081199"><Item>' * 30 + b"</Item></DicomAttribute></N>" * 30,
    ],
)
def test_an_answer_that_does_not_say_stored_about_this_very_object_is_none(web: WebArchive, parcel: MakeParcel, lie: Callable[[str], bytes]) -> None:
    one = parcel()
    web.on_store = lambda request: Reply(200, lie(one.sop_uid))
    assert fates(send(web, [one])) == {one.sop_uid: "later"}
    assert len(web.queries) == 1
    web.kept[one.sop_uid] = one.path.read_bytes()
    assert fates(send(web, [one])) == {one.sop_uid: "delivered"}


def test_a_list_with_one_answer_and_numbers_as_text_are_understood() -> None:
    body = said([item("1.2", warning="0xB007")], [item("1.3", reason="290")])
    answer = read_answer(b"\xef\xbb\xbf [" + body + b"]")
    assert answer == read_answer(xml_document(body)) != Answer()
    assert (answer.stored["1.2"].reason, answer.failed["1.3"].reason, answer.stored["1.2"].sop_class_uid) == (0xB007, 0x0122, CT)


@pytest.mark.parametrize("reply", [Reply(500), Reply(403), Reply(200, b"nonsense"), Reply(301, headers={"Location": "http://127.0.0.1:1/"})])
def test_where_a_query_cannot_tell_it_is_tried_again_later(web: WebArchive, parcel: MakeParcel, reply: Reply) -> None:
    one = parcel()
    web.kept[one.sop_uid] = one.path.read_bytes()
    web.on_store = lambda request: Reply(409, said([], [item(one.sop_uid, reason=0x0111)]))
    web.on_query = lambda path, query: reply
    assert fates(send(web, [one])) == {one.sop_uid: "later"}


# --- what is answered about the request ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_request_that_is_refused_is_taken_apart_so_that_one_bad_object_blocks_no_other(web: WebArchive, parcel: MakeParcel, status: int) -> None:
    parcels = [parcel() for _ in range(3)]
    bad = parcels[1].sop_uid
    web.on_store = lambda request: Reply(status) if bad in request.objects else web.keep(request)
    outcomes = send(web, parcels)
    assert fates(outcomes) == {one.sop_uid: "refused" if one.sop_uid == bad else "delivered" for one in parcels}
    assert f"HTTP {status}" in outcomes[1].message


@pytest.mark.parametrize("status", [500, 502, 504, 418])
def test_an_object_that_the_server_fails_on_blocks_neither_the_server_nor_what_went_before(web: WebArchive, parcel: MakeParcel, status: int) -> None:
    parcels = [parcel() for _ in range(3)]
    web.on_store = lambda request: Reply(status) if parcels[1].sop_uid in request.objects else web.keep(request)
    outcomes = send(web, parcels)
    assert fates(outcomes) == {parcels[0].sop_uid: "delivered", parcels[1].sop_uid: "later"}
    assert f"HTTP {status}" in outcomes[1].message


def test_an_object_that_is_there_although_the_server_failed_is_delivered(web: WebArchive, parcel: MakeParcel) -> None:
    one = parcel()
    web.on_store = lambda request: replace(web.keep(request), status=500)
    assert fates(send(web, [one])) == {one.sop_uid: "delivered"}


def test_a_server_that_fails_on_everything_is_a_temporary_failure(web: WebArchive, parcel: MakeParcel) -> None:
    web.on_store, web.on_query = lambda request: Reply(500), lambda path, query: Reply(500)
    with pytest.raises(TemporaryFailure, match="HTTP 500"):
        send(web, [parcel(), parcel()])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (301, "url to where the service is"),
        (308, "url to where the service is"),
        (401, "check the destination's auth"),
        (403, "right to store"),
        (404, "check the destination's url"),
        (405, "check the destination's url"),
        (429, "too much at a time"),
        (501, "check the destination's url"),
        (503, "not available at present"),
        (507, "no room left"),
    ],
)
def test_what_concerns_the_server_as_a_whole_is_a_temporary_failure_with_a_remedy(web: WebArchive, parcel: MakeParcel, status: int, words: str) -> None:
    elsewhere = WebArchive()
    try:
        web.on_store = lambda request: Reply(status, headers={"Location": f"http://127.0.0.1:{elsewhere.port}/dicom-web/studies", "Retry-After": "90"})
        with pytest.raises(TemporaryFailure, match=words) as caught:
            send(web, [parcel(), parcel()])
        assert caught.value.retry_after == timedelta(seconds=90) and f"HTTP {status}" in str(caught.value)
        assert elsewhere.requests == [] and len(web.requests) == 1
    finally:
        elsewhere.stop()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": " 0 "}, 0),
        ({"Retry-After": "9" * 400}, 10**9),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT", "Date": "Fri, 31 Dec 1999 23:59:29 GMT"}, 30),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT", "Date": "Sat, 01 Jan 2000 00:00:00 GMT"}, 0),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({}, None),
    ],
)
def test_how_long_a_server_wants_to_be_left_alone(headers: dict[str, str], seconds: int | None) -> None:
    assert retry_after(headers) == (None if seconds is None else timedelta(seconds=seconds))


def test_every_status_has_one_meaning() -> None:
    assert [row_of(status).first for status in (200, 202, 409, 400)] == [200, 200, 409, 400]
    assert all(row_of(status).text for status in range(100, 600))


# --- a server that misbehaves ----------------------------------------------------------------------------------------------


def hang(web: WebArchive) -> Callable[[Request], Reply]:
    def wait(request: Request) -> Reply:
        web.stopped.wait(20)
        return Reply(200)

    return wait


def tear(web: WebArchive) -> Callable[[Request], bytes]:
    def reset(request: Request) -> bytes:
        raise Reset

    return reset


MISBEHAVIOUR: dict[str, Callable[[WebArchive], OnStore]] = {
    "hangs": hang,
    "resets": tear,
    "ends before the answer is whole": lambda web: lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{",
    "closes without a word": lambda web: lambda request: b"",
    "speaks something else": lambda web: lambda request: b"SSH-2.0-OpenSSH_9.2\r\n" * 10,
    "sends headers without end": lambda web: lambda request: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
}


@pytest.mark.parametrize("how", MISBEHAVIOUR)
def test_a_server_that_misbehaves_is_a_temporary_failure_and_what_was_reported_before_stays(web: WebArchive, parcel: MakeParcel, how: str) -> None:
    first, second = parcel(), parcel(SOPClassUID=MRImageStorage)
    misbehave = MISBEHAVIOUR[how](web)
    web.on_store = lambda request: web.keep(request) if first.sop_uid in request.objects else misbehave(request)
    outcomes: list[Outcome] = []
    with pytest.raises(TemporaryFailure, match=str(web.port)):
        stow.deliver(web.place(), [first, second], "PACS_NODE", outcomes.append, QUICK)
    assert fates(outcomes) == {first.sop_uid: "delivered"}


def test_an_answer_without_end_is_read_only_so_far_and_means_nothing(web: WebArchive, parcel: MakeParcel) -> None:
    one = parcel()
    huge = said([item(one.sop_uid)]).ljust(64 << 20)
    web.on_store = lambda request: Reply(200, huge)
    tracemalloc.start()
    assert fates(send(web, [one])) == {one.sop_uid: "later"}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20


def test_a_packed_answer_is_not_unpacked(web: WebArchive, parcel: MakeParcel) -> None:
    one = parcel()
    web.on_store = lambda request: Reply(200, b"\x1f\x8b\x08" + bytes(100), {"Content-Encoding": "gzip"})
    assert fates(send(web, [one])) == {one.sop_uid: "later"}
    assert web.requests[0].headers["Accept-Encoding"] == "identity"


def test_an_answer_that_comes_byte_by_byte_is_given_up_in_the_end(web: WebArchive, parcel: MakeParcel) -> None:
    def slowly(request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        while not web.stopped.wait(0.1):
            yield b" "

    web.on_store = slowly
    with pytest.raises(TemporaryFailure, match="too slowly"):
        send(web, [parcel()], Timeouts(connect=0.5, response=0.5))


def test_an_early_refusal_of_a_large_object_is_read_although_it_was_not_sent_to_its_end(parcel: MakeParcel) -> None:
    one = parcel(make_ct(4096, PixelData=bytes(4096 * 4096 * 2)))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                peer.settimeout(5)
                while peer.recv(1 << 20):
                    continue

        thread = threading.Thread(target=refuse)
        thread.start()
        place = StowDestination(kind="stow", url=f"http://127.0.0.1:{listening.getsockname()[1]}")
        (outcome,) = send(place, [one])
        thread.join(10)
    assert fate(outcome) == "refused" and "larger than the server takes" in outcome.message


def test_a_server_that_is_off_is_a_temporary_failure_that_names_it(parcel: MakeParcel) -> None:
    place = StowDestination(kind="stow", url=f"http://127.0.0.1:{free_port()}/dicom-web")
    with pytest.raises(TemporaryFailure, match=rf"{place.url}.*cannot be reached \(Connection refused\)"):
        send(place, [parcel()])
    with pytest.raises(TemporaryFailure, match=r"no\.such\.host\.invalid"):
        send(StowDestination(kind="stow", url="http://no.such.host.invalid/"), [parcel()])


def test_a_proxy_in_the_environment_is_not_asked(web: WebArchive, parcel: MakeParcel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert [outcome.delivered for outcome in send(web, [parcel()])] == [True]


def test_a_file_that_becomes_shorter_while_it_is_sent_is_a_temporary_failure(web: WebArchive, parcel: MakeParcel, monkeypatch: pytest.MonkeyPatch) -> None:
    one = parcel()
    longer = replace(part_of(one), dataset=part_of(one).dataset + 10)
    monkeypatch.setattr(stow, "part_of", lambda parcel: longer)
    with pytest.raises(TemporaryFailure, match="could not be read to its end"):
        send(web, [one])
    assert web.kept == {}


# --- who we are ------------------------------------------------------------------------------------------------------------


def test_user_and_password_come_from_a_file_or_the_environment(
    web: WebArchive, parcel: MakeParcel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "geheim: ä"
    wanted = "Basic " + base64.b64encode(f"node:{secret}".encode()).decode()
    web.authorised = lambda header: header == wanted
    (tmp_path / "password").write_text(f"{secret}\n", encoding="utf-8")
    monkeypatch.setenv("STOW_PASSWORD", secret)
    caplog.set_level(logging.DEBUG)
    for source in ({"password_file": str(tmp_path / "password")}, {"password_env": "STOW_PASSWORD"}):
        assert [outcome.delivered for outcome in send(web.place(auth={"basic": {"user": "node", **source}}), [parcel()])] == [True]
    with pytest.raises(TemporaryFailure, match="check the destination's auth") as caught:
        (tmp_path / "password").write_text("another")
        send(web.place(auth={"basic": {"user": "node", "password_file": str(tmp_path / "password")}}), [parcel()])
    for text in (caplog.text, str(caught.value)):
        assert secret not in text and wanted.split()[1] not in text and "another" not in text


def test_a_token_comes_from_a_file_and_is_read_anew_each_time(web: WebArchive, parcel: MakeParcel, tmp_path: Path) -> None:
    file = tmp_path / "token"
    for token in ("abc.def-1", "abc.def-2"):
        web.authorised = lambda header, token=token: header == f"Bearer {token}"  # type: ignore[misc]
        file.write_text(f"{token}\n")
        assert [outcome.delivered for outcome in send(web.place(auth={"bearer_file": str(file)}), [parcel()])] == [True]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), (b"", "holds no secret"), (b"two\nlines\n", "no secret"), (b"a b\n", "holds no token"), (b"\xff", "not UTF-8")],
)
def test_a_secret_that_cannot_be_used_is_said_with_key_and_file(web: WebArchive, parcel: MakeParcel, tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TemporaryFailure, match=rf"auth\.bearer_file: .*{words}|auth\.bearer_file: {words}"):
        send(web.place(auth={"bearer_file": str(file)}), [parcel()])
    assert web.requests == []


# --- asking without sending --------------------------------------------------------------------------------------------


def test_a_probe_says_whether_the_server_is_there_and_knows_us(web: WebArchive) -> None:
    assert probe(web.place(), QUICK) == (True, "")
    assert web.queries == ["/dicom-web/studies?limit=1"]
    web.on_query = lambda path, query: Reply(404)
    there, remark = probe(web.place(), QUICK)
    assert there and "cannot be verified" in remark
    web.authorised = lambda header: False
    there, remark = probe(web.place(), QUICK)
    assert not there and "check the destination's auth" in remark
    web.stop()
    there, remark = probe(web.place(), QUICK)
    assert not there and "cannot be reached" in remark
