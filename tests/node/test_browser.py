"""The status page in a real browser (Chromium), filled by a real run: studies over C-STORE, analysed, delivered, one of them refused."""

from __future__ import annotations

import itertools
import json
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread

from pacs_node.phantoms import PhantomSpec, write_study
from pacs_node.records import Verdict
from pacs_node.workbench.sending import send_folder
from tests.conftest import IN_CI
from tests.node.support import NodeProcess, free_port, wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.slow, pytest.mark.peers, pytest.mark.timeout(600), pytest.mark.xdist_group("page")]

MARKUP = "<script>document.title='hit'</script>"
RULES = """
rules:
  - name: head CT
    when: {Modality: CT, StudyDescription: {contains: head}}
    pipeline: ct-head
    send_to: [research, gone]
  - name: anything else
    otherwise: true
    pipeline: null
    results: [notice]
    send_to: [research]
"""
SIZES = {"desktop": (1280, 900), "phone": (375, 812)}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """Give a node with a page that has analysed a head and given a notice on another study; one destination is away."""
    folder = tmp_path_factory.mktemp("page")
    away = {"kind": "dicom", "ae_title": "GONE", "address": "127.0.0.1", "port": free_port(), "accepts_research": True}
    research = {"kind": "folder", "path": str(folder / "out")}
    page = {"address": "127.0.0.1", "port": free_port(), "patients": True}
    made = NodeProcess(folder, RULES, destinations={"research": research, "gone": away}, monitoring=page)
    try:
        made.start()
        write_study(PhantomSpec(modality="CT", region="head", seed=9002, lesion="ellipsoid", slices=12), folder / "head")
        rename(folder / "head", PatientName=f"Doe^Jane{MARKUP}", StudyDescription=f"head {MARKUP}", AccessionNumber="A-1234")
        write_study(PhantomSpec(modality="CT", region="head", seed=9003, slices=4), folder / "other")
        rename(folder / "other", StudyDescription="chest", AccessionNumber="A-1235")
        for name in ("head", "other"):
            assert not send_folder(folder / name, f"127.0.0.1:{made.port}", "PACS_NODE", "CT1").problems
        wait_until(lambda: len(made.jobs()) == 2 and all(job["state"] in ("done", "not_analysed") for job in made.jobs()), "both are judged", 400)
        wait_until(lambda: any(place["name"] == "gone" and place["state"].startswith("failing") for place in made.status()["destinations"]), "one is away", 120)
        wait_until(lambda: next(place for place in made.status()["destinations"] if place["name"] == "research")["waiting"] == 0, "the other has all", 120)
        yield made
    finally:
        made.stop()


def rename(folder: Path, **changes: str) -> None:
    for path in folder.rglob("*.dcm"):
        dataset = dcmread(path)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)


@pytest.fixture(scope="module")
def url(node: NodeProcess) -> str:
    return f"http://127.0.0.1:{node.settings.monitoring.port}"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Chrome]:
    """Give a headless Chromium, or skip the test; in CI its absence is a failure."""
    import shutil

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        reason = "chromium and chromium-driver are not installed: deploy/test.sh installs them when it runs as root"
        if IN_CI and os.geteuid() == 0:
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking", "--no-first-run"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    opened.set_page_load_timeout(120)
    yield opened
    opened.quit()


def show(chrome: Chrome, address: str, *, size: str = "desktop", dark: bool = False, scripts: bool = True) -> None:
    """Open a page in a window of a size, in the colours that the reader prefers, with or without scripts."""
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    chrome.get(address)


def complaints(chrome: Chrome) -> list[str]:
    """Return what the console says, errors and warnings alike (an intended answer other than 200 is none)."""
    return [entry["message"] for entry in chrome.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def text(chrome: Chrome) -> str:
    from selenium.webdriver.common.by import By

    return chrome.find_element(By.TAG_NAME, "body").text


def keep(chrome: Chrome, name: str) -> None:
    """Keep a picture of the whole page where PAGE_PICTURES names a folder: to be looked at."""
    folder = os.environ.get("PAGE_PICTURES")
    if folder:
        import base64

        shot = chrome.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


PAGES = {"overview": "/", "studies": "/studies", "study": "/studies/1", "jobs": "/jobs", "job": "/jobs/1", "deliveries": "/deliveries", "scores": "/scores"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_every_page_fits_its_window_and_the_console_is_silent(chrome: Chrome, url: str, name: str, size: str, dark: bool) -> None:
    show(chrome, url + PAGES[name], size=size, dark=dark)
    keep(chrome, f"{name}-{size}-{'dark' if dark else 'light'}")
    assert complaints(chrome) == []
    across, window = chrome.execute_script("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert across <= window, "the page is wider than its window"
    ground = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
    shade = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
    assert shade < 80 if dark else shade > 180


def test_markup_in_a_patients_name_is_shown_as_text(chrome: Chrome, url: str) -> None:
    for path in ("/studies", "/studies/1"):
        show(chrome, url + path)
        assert MARKUP.lower() in text(chrome).lower()
        assert "hit" not in chrome.title
    assert "Doe^Jane" in text(chrome) or "DOE^JANE" in text(chrome)
    assert complaints(chrome) == []


def test_the_job_shows_score_verdict_timeline_rule_heat_map_and_each_delivery(chrome: Chrome, url: str) -> None:
    from selenium.webdriver.common.by import By

    job = number_of(url, "ct-head")
    show(chrome, f"{url}/jobs/{job}")
    said = text(chrome)
    for part in ("Timeline", "Analysis started", "Heat map", "Why this job exists", "head CT", "Delivered to research"):
        assert part.lower() in said.lower(), part
    assert any(verdict.value in said for verdict in Verdict)
    assert "gone" in said and "delivered" in said and "waiting" in said
    wait_until(lambda: chrome.execute_script("return document.querySelector('.key img').complete"), "the picture is loaded")
    assert chrome.execute_script("return document.querySelector('.key img').naturalWidth") > 200
    assert chrome.find_elements(By.CSS_SELECTOR, "svg.strip rect")


def number_of(url: str, pipeline: str) -> str:
    with urllib.request.urlopen(f"{url}/jobs", timeout=60) as answer:
        found = re.search(r'/jobs/(\d+)">\1</a>(?:(?!</tr>).)*?' + pipeline, answer.read().decode(), re.S)
    assert found is not None
    return found[1]


def test_a_reader_finds_a_study_by_its_accession_number_with_the_keyboard_alone(chrome: Chrome, url: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    show(chrome, url)
    body = chrome.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    first = chrome.switch_to.active_element
    assert first.text == "Skip to content" and first.location["x"] >= 0  # it comes into sight
    for _ in range(30):
        if chrome.switch_to.active_element.get_attribute("id") == "q":
            break
        chrome.switch_to.active_element.send_keys(Keys.TAB)
        outline = chrome.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", chrome.switch_to.active_element.text
    chrome.switch_to.active_element.send_keys("A-1234", Keys.ENTER)
    wait_until(lambda: "/studies/" in chrome.current_url, "the study is shown")
    assert "A-1234" in text(chrome)


def test_the_page_refreshes_by_itself_and_a_reader_can_stop_it(chrome: Chrome, url: str) -> None:
    from selenium.webdriver.common.by import By

    show(chrome, url)
    before = chrome.find_element(By.ID, "as-of").text
    wait_until(lambda: chrome.find_element(By.ID, "as-of").text != before, "it was refreshed", 60)
    assert "refreshed every" in text(chrome)
    button = chrome.find_element(By.CSS_SELECTOR, "#refreshing button")
    button.click()
    assert button.text == "Refresh by itself" and "not refreshed" in text(chrome)
    assert complaints(chrome) == []


def test_the_page_is_whole_without_scripts(chrome: Chrome, url: str) -> None:
    with urllib.request.urlopen(f"{url}/jobs/1", timeout=60) as answer:
        whole = answer.read().decode()
        policy = answer.headers["Content-Security-Policy"]
    assert "Results and their deliveries" in whole and "<details" in whole
    assert "unsafe" not in policy


def test_every_name_of_the_accessibility_tree_is_there(chrome: Chrome, url: str) -> None:
    """Links, buttons, fields, pictures and charts have names, tables have column headers, and headings go down one level at a time."""
    for path in PAGES.values():
        show(chrome, url + path)
        nameless = [node for node in tree(chrome) if node["role"] in ("link", "button", "searchbox", "image", "img") and not node["name"].strip()]
        assert nameless == [], path
        levels = chrome.execute_script("return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
        assert levels[0] == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels)), path
        assert chrome.execute_script("return [...document.querySelectorAll('table')].every(t => t.querySelector('th[scope=col]'))"), path
        assert chrome.execute_script("return document.documentElement.lang") == "en"


def tree(chrome: Chrome) -> list[dict[str, str]]:
    nodes: list[dict[str, Any]] = chrome.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [{"role": str(node.get("role", {}).get("value")), "name": str(node.get("name", {}).get("value", ""))} for node in nodes if not node.get("ignored")]


def test_json_of_the_node_and_the_page_agree(node: NodeProcess, url: str) -> None:
    said = json.loads(node.command("jobs", "--json").stdout)
    with urllib.request.urlopen(f"{url}/jobs", timeout=60) as answer:
        page = answer.read().decode()
    for job in said:
        if job["score"] is not None:
            assert f"{job['score']:.3f}" in page
