"""The page about one series: everything a person needs to see why, and nothing of it in what goes to the PACS."""

from __future__ import annotations

import base64
import re
from dataclasses import fields, replace
from datetime import date
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import dcmread

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.pipeline import analyse_volume
from pacs_node.autoencoder.reference import EDGE, Reference
from pacs_node.config import load_settings
from pacs_node.records import Finding
from pacs_node.workbench import report
from pacs_node.workbench.offline import analyse_folder
from tests.analysis.conftest import ct_slice, made_once, make_bundle, tiny, volume

__all__ = ["made_once", "tiny"]

Folders = tuple[Path, Path]


def kept(folder: Path) -> Reference:
    """Give the bundle training slices whose pictures nobody could mistake for anything else."""
    loaded = bundles.load(folder)
    generator = torch.Generator().manual_seed(9)
    picture = torch.randint(0, 256, (6, EDGE, EDGE), dtype=torch.uint8, generator=generator)
    seen = analyse_volume(volume(1), loaded, today=date(2026, 6, 1)).embedding
    reference = Reference(torch.from_numpy(seen[:6]), picture, torch.tensor([0, 0, 1, 1, 2, 2]).int(), torch.arange(6).int())
    bundles.save(folder, loaded.network, loaded.normals, loaded.baselines, reference)
    return reference


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The folder of a bundle with kept slices, and what `analyse` wrote with it."""
    root = tmp_path_factory.mktemp("report")
    bundle = make_bundle(root / "tiny")
    kept(bundle)
    (root / "in").mkdir()
    for index in range(8):
        ct_slice(index, SeriesDescription="Axial <b>5 mm</b>", SeriesNumber=2).save_as(root / "in" / f"{index}.dcm", enforce_file_format=True)
    (row,) = analyse_folder(root / "in", str(bundle), root / "out", load_settings(None))
    assert row["report"] == str(Path(row["folder"]) / "report.html")
    return bundle, Path(row["folder"])


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words = ""
        self.open = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self.open += tag not in ("meta", "img", "br")

    def handle_endtag(self, tag: str) -> None:
        self.open -= 1

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_says_score_verdict_shares_and_research_use(analysed: Folders) -> None:
    page = Page((analysed[1] / "report.html").read_text())
    assert page.open == 0  # well formed
    for said in ("AI, research use, not for diagnosis", "Anomaly score", "uncalibrated", "What the score is made up of", "peak", "z ", "It is no diagnosis"):
        assert said in page.words, said


def test_the_page_needs_nothing_from_outside_and_runs_nothing(analysed: Folders) -> None:
    text = (analysed[1] / "report.html").read_text()
    page = Page(text)
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "script" not in page.tags
    assert not re.search(r"https?://|url\(", text)


def test_each_slice_that_stands_out_has_three_pictures_and_its_nearest_training_slices_with_distance(analysed: Folders) -> None:
    page = Page((analysed[1] / "report.html").read_text())
    slices = page.words.count("reconstruction, synthetic")
    assert slices == 5
    assert page.words.count("heat map") == 5
    assert len(re.findall(r"distance \d+\.\d\d", page.words)) == 5 * 3  # four are asked for, of three studies
    assert re.search(r"it is usually\s+\d+\.\d\d", page.words)
    assert "patient data of that site" in page.words
    assert page.tags.count("img") == 5 * 6 + 1  # the colours of the heat


def test_the_page_claims_nothing_about_health_and_says_how_the_pictures_are_shown(analysed: Folders) -> None:
    page = Page((analysed[1] / "report.html").read_text())
    assert not re.search("healthy|abnormal", page.words)
    assert "relative to this study only" in page.words and re.search(r"Window (\w+, )?W [\d.]+ L -?[\d.]+", page.words)


def test_the_pictures_of_the_page_have_their_orientation(analysed: Folders) -> None:
    page = Page((analysed[1] / "report.html").read_text())
    held = [Image.open(BytesIO(base64.b64decode(source.split(",", 1)[1]))) for source in page.sources]
    large = [np.asarray(one.convert("RGB")).astype(int) for one in held if one.size == (512, 512)]
    assert len(large) == 15
    edges = (np.s_[230:282, 4:40], np.s_[230:282, -40:-4], np.s_[4:40, 230:282], np.s_[-40:-4, 230:282])
    amber = [(picture[..., 0] - picture[..., 2] > 100) for picture in large]
    assert all(one[edge].any() for one in amber for edge in edges)


def test_what_a_header_says_cannot_become_part_of_the_page(analysed: Folders) -> None:
    text = (analysed[1] / "report.html").read_text()
    assert "Axial &lt;b&gt;5 mm&lt;/b&gt;" in text
    assert "<b>5 mm" not in text


def test_the_pictures_lie_beside_the_objects(analysed: Folders) -> None:
    names = sorted(path.name for path in analysed[1].glob("slice-*.png"))
    assert len(names) == 15
    assert {name.rsplit("-", 1)[1] for name in names} == {"original.png", "reconstruction.png", "heat.png"}
    shapes = {name.rsplit("-", 1)[1]: np.asarray(Image.open(analysed[1] / name)).ndim for name in names}
    assert shapes == {"original.png": 2, "reconstruction.png": 2, "heat.png": 3}


def test_no_dicom_object_holds_anything_of_the_training_slices(analysed: Folders) -> None:
    reference = bundles.load(analysed[0]).reference
    assert reference is not None
    objects = sorted(analysed[1].glob("*.dcm"))
    assert [path.name for path in objects] == ["pm.dcm", "sc.dcm", "sr.dcm"]
    rows = [bytes(row) for picture in reference.picture.numpy() for row in picture[:, :16]]
    for path in objects:
        content = path.read_bytes()
        assert not any(row in content for row in rows), path
        assert b"training s" not in content and b"nearest" not in content.lower(), path
    # the secondary capture is scaled: every page of it is the summary or one of the slices that stand out
    assert dcmread(analysed[1] / "sc.dcm").NumberOfFrames == 1 + 5


def test_a_finding_carries_no_training_slice_so_that_no_builder_can_reach_one(tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "tiny")
    without = analyse_volume(volume(2), bundles.load(plain), today=date(2026, 6, 1))
    kept(plain)
    with_them = analyse_volume(volume(2), bundles.load(plain), today=date(2026, 6, 1))
    for field in fields(Finding):
        one, other = getattr(without, field.name), getattr(with_them, field.name)
        if field.name == "algorithm":
            continue  # the model's bytes are others
        if field.name == "volume":
            assert np.array_equal(one.pixels, other.pixels, equal_nan=True)
        elif isinstance(one, np.ndarray):
            assert np.array_equal(one, other, equal_nan=True), field.name
        else:
            assert one == other, field.name


def test_a_bundle_without_kept_slices_and_a_finding_without_shares_still_have_a_page(tiny: Path, tmp_path: Path) -> None:
    loaded = bundles.load(tiny)
    finding = replace(analyse_volume(volume(2), loaded, today=date(2026, 6, 1)), contributions={}, hottest=(), remarks=("one & <two>",))
    text = report.write_report(finding, loaded, (), tmp_path).read_text()
    assert "most alike" not in text and "made up of" not in text and "patient data of that site" not in text
    assert "one &amp; &lt;two&gt;" in text


def test_the_bars_start_at_zero_and_fill_the_width() -> None:
    up, down, nothing = report.bars({"contributions": {"up": 3.0, "down": -1.0, "nothing": 0.0}})
    assert (up["left"], up["width"], up["less"]) == (25.0, 75.0, False)
    assert (down["left"], down["width"], down["less"]) == (0.0, 25.0, True)
    assert (nothing["width"], nothing["zero"]) == (0.0, 25.0)
    assert report.bars({}) == []
