"""The status page, read as a browser gets it: from a house whose studies went all the way."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image
from starlette.applications import Starlette

from pacs_node.database.alerts import raise_alert
from pacs_node.database.tables import DestinationRow, ObjectRow
from pacs_node.monitoring.page_lists import ROWS
from pacs_node.monitoring.sources import Sources
from pacs_node.monitoring.web import pages
from pacs_node.reception.pressure import Disk
from pacs_node.workbench.filling import fill
from tests.journey.support import RULES, Town, ct_study
from tests.monitoring.conftest import Browser, sources_of

Browse = Callable[[Town], Browser]
MARKUP = "<script>alert('x')</script>"


class Page(HTMLParser):
    """A page as its reader sees it: texts without tags, links, pictures, and the elements that it holds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        said = dict(attrs)
        if tag == "a":
            self.links.append(str(said["href"]))
        if tag == "img":
            self.pictures.append(str(said["src"]))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(client: Browser, path: str, status: int = 200) -> Page:
    answer = client.get(path)
    assert answer.status_code == status, answer.text[:500]
    return Page(answer.text)


# --- what each page shows --------------------------------------------------------------------------------------------------


def test_the_overview_of_a_new_node_says_that_nothing_has_come(town: Town, browse: Browse) -> None:
    page = read(browse(town), "/")
    assert "no open alerts" in page.text
    assert "None was received yet" in page.text
    assert "the queue is empty" in page.text
    assert "research" in page.text and "not tried yet" in page.text


def test_the_overview_shows_rate_states_destinations_disk_and_newest_studies(town: Town, browse: Browse) -> None:
    town.send(ct_study(20))
    town.settle()
    page = read(browse(town), "/")
    assert "2.0 instances a minute over the last 10 min; 1 study in 24 h" in page.text
    assert "complete 1" in page.text and "done 1" in page.text
    assert re.search(r"research up last answered", page.text)
    assert re.search(r"free of [0-9.]+ .B", page.text)
    assert "/studies/1" in page.links and "/deliveries?destination=research" in page.links


def test_the_overview_says_how_long_the_oldest_waits(town: Town, browse: Browse) -> None:
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.wait(minutes=7)
    assert "1 in the queue, the oldest for 7 min" in read(browse(town), "/").text
    town.send(ct_study(study="B"), released=None)
    town.gather()
    town.wait(minutes=2)
    assert "the longest has been gathering for 2 min" in read(browse(town), "/").text


def test_a_destination_that_is_down_says_since_when_and_what_it_said(town: Town, browse: Browse) -> None:
    with town.house.store.write() as session:
        session.add(DestinationRow(name="research", failures=3, down_since=town.clock, message="connection refused"))
    town.wait(minutes=5)
    page = read(browse(town), "/")
    assert "down since" in page.text and "(5 min)" in page.text and "connection refused" in page.text


def test_open_alerts_and_what_is_kept_aside_stand_on_the_overview(town: Town, browse: Browse) -> None:
    with town.house.store.write() as session:
        raise_alert(session, "parked", "job 4", f"job 4 was parked {MARKUP}", town.clock)
    town.send(ct_study(2))
    town.settle()
    town.send(ct_study(1, PixelData=bytes(512)))
    town.settle()
    page = read(browse(town), "/")
    assert "2 open alerts" in page.text or "1 open alert" in page.text
    assert f"job 4 was parked {MARKUP}" in page.text
    assert "Kept aside" in page.text and "conflict" in page.text


def test_a_full_disk_is_said_with_what_it_means(town: Town, browse: Browse) -> None:
    sources = Sources(town.settings, town.house.store, clock=lambda: town.clock, measure=lambda folder: Disk(0, 1_000_000_000_000))
    page = read(Browser(Starlette(routes=pages(sources))), "/")
    assert "100 % used" in page.text and "new instances are refused until there is room" in page.text


def test_a_study_that_waits_says_for_what(town: Town, browse: Browse) -> None:
    town.send(ct_study(), released=None)
    town.gather()
    page = read(browse(town), "/studies/1")
    assert "Study 1 receiving" in page.text
    assert "Waits for" in page.text and "looked at again in" in page.text
    assert "They have not been asked yet" in page.text


def test_a_held_study_says_why_on_its_page_and_in_the_list(town: Town, browse: Browse) -> None:
    town.send([*ct_study(2), *ct_study(4, patient="P2")[2:]])
    town.settle()
    client = browse(town)
    assert "its instances name 2 different patients" in read(client, "/studies?state=held").text
    page = read(client, "/studies/1")
    assert "Study 1 held" in page.text and "pacs-node release 1" in page.text


def test_the_page_of_a_study_shows_series_senders_jobs_and_what_each_rule_decided(town: Town, browse: Browse) -> None:
    town.send(ct_study(6))
    town.settle()
    page = read(browse(town), "/studies/1")
    for said in ("ACCA", "Head", "axial", "CT1 at 127.0.0.1, to PACS_NODE"):
        assert said in page.text, said
    assert "fires head CT" in page.text and "does not fire anything else otherwise, but a rule fired: head CT" in page.text
    assert "yes BodyPartExamined is HEAD found HEAD" in page.text
    assert "/jobs/1" in page.links


def test_the_page_of_a_job_tells_its_story(town: Town, browse: Browse) -> None:
    town.send(ct_study(6))
    town.settle()
    page = read(browse(town), "/jobs/1")
    for said in (
        "Job 1 done", "1.500 uncalibrated", "First instance received", "Complete, job queued", "Analysis started", "Analysed, results built",
        "Delivered to research", "fires head CT", "test:worker-0, attempt 1",
    ):  # fmt: skip
        assert said in page.text, said
    with town.house.store.read() as session:
        objects = session.query(ObjectRow).all()
    assert all(obj.sop_uid in page.text for obj in objects)
    assert f"{len(objects)} of {len(objects)} objects" in page.text
    assert page.text.count("delivered") >= 3
    assert "+ 11 s" in page.text  # that it waited for more


def test_the_verdict_of_a_job_that_could_not_be_judged_is_not_analysed(town: Town, browse: Browse) -> None:
    town.send(ct_study(3, ImagePositionPatient=None))
    town.settle()
    page = read(browse(town), "/jobs/1")
    assert "Job 1 not analysed" in page.text and "there are no pixels to judge" in page.text
    assert not re.search(r"\b(normal|abnormal|healthy)\b", page.text.lower().replace("priority normal", ""))


def test_a_refused_object_shows_what_the_destination_said(town: Town, browse: Browse, monkeypatch: pytest.MonkeyPatch) -> None:
    town.send(ct_study(3))
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.work()
    with town.house.store.write() as session:
        session.connection().exec_driver_sql("UPDATE deliveries SET state = 'refused', status = 49152, message = 'it cannot understand' WHERE id = 1")
    client = browse(town)
    assert "refused" in read(client, "/jobs/1").text and "0xC000 it cannot understand" in read(client, "/jobs/1").text
    stuck = read(client, "/deliveries?state=stuck&destination=research")
    assert "0xC000" in stuck.text and "waiting" not in stuck.text.split("What was said")[1]


def test_the_preview_is_the_key_frame_of_the_stored_capture(town: Town, browse: Browse) -> None:
    town.send(ct_study(6))
    town.settle()
    client = browse(town)
    first, *others = read(client, "/jobs/1").pictures
    assert first.endswith("/1.png") and any(other.endswith("/0.png") for other in others)  # the first slice, not the page of text
    answer = client.get(first)
    assert answer.headers["content-type"] == "image/png"
    with Image.open(BytesIO(answer.content)) as picture:
        assert picture.size[0] > 100 and picture.mode == "RGB"


def test_no_picture_comes_from_another_job_or_from_outside_of_the_results(town: Town, browse: Browse) -> None:
    town.send(ct_study(4))
    town.send(ct_study(4, study="B"))
    town.settle()
    client = browse(town)
    with town.house.store.read() as session:
        mine = session.query(ObjectRow).filter_by(job_id=1, kind="sc").one()
        report = session.query(ObjectRow).filter_by(job_id=1, kind="sr").one()
    assert client.get(f"/jobs/1/objects/{mine.id}/1.png").status_code == 200
    for path in (f"2/objects/{mine.id}/1.png", f"1/objects/{report.id}/0.png", f"1/objects/{mine.id}/99.png", f"1/objects/{mine.id}/-1.png"):
        assert client.get(f"/jobs/{path}").status_code == 404, path
    with town.house.store.write() as session:
        session.get_one(ObjectRow, mine.id).path = "../../../../../../etc/hostname"
    assert client.get(f"/jobs/1/objects/{mine.id}/1.png").status_code == 404
    assert "Heat map" not in read(client, "/jobs/1").text


# --- search ----------------------------------------------------------------------------------------------------------------


def test_a_study_is_found_by_accession_and_by_every_uid_of_it(town: Town, browse: Browse) -> None:
    images = ct_study(3)
    town.send(images)
    town.send(ct_study(2, study="B"))
    town.settle()
    with town.house.store.read() as session:
        result = session.query(ObjectRow).filter_by(job_id=1).first()
    assert result is not None
    client = browse(town)
    for word in ("ACCA", " ACCA ", images[0].StudyInstanceUID, images[0].SeriesInstanceUID, images[2].SOPInstanceUID, result.sop_uid):
        answer = client.get("/search", params={"q": word})
        assert (answer.status_code, answer.headers.get("location")) == (303, "/studies/1"), word


def test_several_studies_of_one_accession_are_listed(town: Town, browse: Browse) -> None:
    for name in ("A", "B"):
        town.send(ct_study(2, study=name, AccessionNumber="SAME"))
    town.settle()
    page = read(browse(town), "/search?q=SAME")
    assert "2 studies for SAME" in page.text and {"/studies/1", "/studies/2"} <= set(page.links)


def test_what_is_not_here_is_said_and_patients_are_not_searched_for(town: Town, browse: Browse) -> None:
    town.send(ct_study(2))
    town.settle()
    client = browse(town)
    for word in ("nobody", MARKUP, "%", "' OR 1=1 --", "\x00A", "9" * 500, "Test^P1", "P1"):
        answer = client.get("/search", params={"q": word})
        assert answer.status_code == 200, word
        page = Page(answer.text)
        assert page.tags.count("script") == 1  # ours
        assert "Nothing here is called" in page.text, word


# --- lists -----------------------------------------------------------------------------------------------------------------


def test_lists_go_on_page_by_page_and_leave_nothing_out(town: Town, browse: Browse) -> None:
    fill(town.house.store, 2 * ROWS + 5, 1, queued=0)
    client = browse(town)
    for path, count in (("/studies", 2 * ROWS + 5), ("/jobs", 2 * ROWS + 5), ("/studies?state=complete", 2 * ROWS + 5)):
        seen: list[str] = []
        link: str | None = path
        for _ in range(4):
            if link is None:
                break
            page = read(client, link)
            kind = path.partition("?")[0]
            seen += [one for one in page.links if re.fullmatch(kind + r"/\d+", one)]
            link = next((one for one in page.links if "after=" in one or "before=" in one), None)
        assert link is None
        assert len(seen) == len(set(seen)) == count, path


STRANGE = (
    "/studies/99", "/studies/0x1", "/studies/99999999999999999999", "/jobs/-1", "/jobs/x", "/studies?state=odd", "/studies?after=x",
    "/studies?after=999999999999999999-1", "/jobs?before=99999999999", "/jobs?state=%00", "/deliveries?destination=nowhere", "/deliveries?state=odd",
    "/jobs/1/objects/1/1.png",
)  # fmt: skip


def test_what_no_link_of_ours_holds_is_answered_with_a_page_that_says_so(town: Town, browse: Browse) -> None:
    client = browse(town)
    for path in STRANGE:
        assert "Not here" in read(client, path, 404).text, path


# --- what is shown of a patient --------------------------------------------------------------------------------------------

ASKS_FOR_NAMES = RULES.replace("BodyPartExamined: HEAD", "BodyPartExamined: HEAD, PatientName: {contains: secretname}, PatientSex: O")


def everything(client: Browser) -> str:
    paths = ["/", "/studies", "/studies/1", "/jobs", "/jobs/1", "/deliveries", "/scores", "/search?q=ACCA"]
    return "".join(client.get(path).text for path in paths)


def test_no_page_names_a_patient_by_default_not_even_where_a_rule_asks_for_it(make_town: Callable[..., Town], browse: Browse) -> None:
    town = make_town(rules=ASKS_FOR_NAMES)
    town.send(ct_study(3, PatientName="Secretname^Ann", PatientID="SECRETID", PatientBirthDate="19510203"))
    town.settle()
    said = everything(browse(town))
    assert "fires" in said and "not shown (monitoring.patients)" in said
    for secret in ("Secretname^", "SECRETNAME^", "Ann", "SECRETID", "19510203"):
        assert secret not in said, secret


def test_patients_are_named_where_the_configuration_says_so_and_markup_in_a_header_is_text(make_town: Callable[..., Town], browse: Browse) -> None:
    town = make_town(monitoring={"patients": True}, rules=ASKS_FOR_NAMES)
    name = "SECRETNAME<script>alert(1)</script>"
    markup = {"StudyDescription": MARKUP, "SeriesDescription": "<img src=x onerror=alert(1)>", "AccessionNumber": "<b>A</b>"}
    town.send(ct_study(3, PatientName=name, PatientID='"><svg onload=x>', **markup))
    town.settle()
    client = browse(town)
    page = read(client, "/studies/1")
    for said in (name, '"><SVG ONLOAD=X>', MARKUP, "<img src=x onerror=alert(1)>", "<b>A</b>"):
        assert said.lower() in page.text.lower(), said
    for path in ("/", "/studies", "/studies/1", "/jobs", "/jobs/1", "/deliveries", "/scores"):
        seen = read(client, path)
        assert seen.tags.count("script") == 1, path  # ours
        assert "b" not in seen.tags and not any(attribute.startswith("on") for attribute in seen.attributes), path
        assert "style" not in seen.attributes and "style" not in seen.tags, path  # a strict Content Security Policy holds


# --- faults ----------------------------------------------------------------------------------------------------------------


def test_a_database_that_is_away_is_a_page_that_says_so(town: Town, browse: Browse, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    from pacs_node.errors import DatabaseUnavailable

    @contextmanager
    def away():  # type: ignore[no-untyped-def]
        raise DatabaseUnavailable("postgresql://db", "connection refused")
        yield

    monkeypatch.setattr(town.house.store, "read", away)
    page = read(browse(town), "/", 503)
    assert "The database is away" in page.text and "connection refused" in page.text


def test_the_page_only_reads(town: Town, browse: Browse) -> None:
    client = browse(town)
    for path in ("/", "/studies", "/jobs/1", "/search"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert client.request(method, path).status_code == 405


def test_a_page_works_below_the_path_of_a_proxy(town: Town) -> None:
    client = Browser(Starlette(routes=pages(sources_of(town))), root_path="/pacs")
    assert all(link.startswith(("/pacs/", "#")) for link in read(client, "/pacs/").links)


def test_style_and_script_are_files_of_the_package(town: Town, browse: Browse) -> None:
    client = browse(town)
    for path, kind in (("/static/style.css", "text/css"), ("/static/refresh.js", "javascript"), ("/static/icon.svg", "image/svg+xml")):
        answer = client.get(path)
        assert answer.status_code == 200 and kind in answer.headers["content-type"]
    assert client.get("/static/../web.py").status_code == 404


# --- scores ----------------------------------------------------------------------------------------------------------------


def test_scores_are_drawn_for_each_bundle_and_scanner(town: Town, browse: Browse) -> None:
    from tests.journey.test_drift import judge

    judge(town, "none", [1.0, 2.0, 3.0], origin="ACME S3, station CT1, HEAD")
    judge(town, "none", [4.0], origin="ACME S3, station CT2, HEAD")
    page = read(browse(town), "/scores")
    assert "ct-test" in page.text and "ACME S3, station CT1, HEAD 3 scores" in page.text and "station CT2, HEAD 1 score," in page.text
    assert page.tags.count("circle") == 4
    assert "drift is not judged" in page.text


def test_drift_against_a_sites_calibration_is_on_the_page(town: Town, browse: Browse, monkeypatch: pytest.MonkeyPatch) -> None:
    from pacs_node.monitoring import web
    from tests.journey.test_drift import calibrate, judge, scores

    monkeypatch.setattr(web, "available", lambda folder: town.bundles)
    judge(town, calibrate(town.folder), scores(80, 4.0))
    page = read(browse(town), "/scores")
    assert re.search(r"all studies of the calibration DRIFT 80 \d+ % 24 %", page.text)
    assert "dashed: threshold" in page.text
