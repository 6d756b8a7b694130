"""From normal studies to a calibration: one study a patient, scanners apart, strangers named."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

import pytest
import typer
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from pacs_node.analysis.bundle import Bundle, load
from pacs_node.analysis.calibration_file import NamedScore
from pacs_node.analysis.pipeline import Prepared, analyse
from pacs_node.cli import models
from pacs_node.errors import OutOfScope
from pacs_node.phantoms import PhantomSpec, make_study
from pacs_node.records import Origin, Population, Verdict
from pacs_node.workbench import calibrating, check, training
from pacs_node.workbench.calibrating import Promise, Scored, calibrate
from pacs_node.workbench.material import SeriesFiles
from tests.analysis.conftest import MODEL_YAML
from tests.analysis.test_statement import calibration

TODAY = date(2026, 6, 1)
LAX = Promise(alpha=0.4)  # six studies are enough for it

WriteStudy = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    (folder / "model.yaml").write_text(MODEL_YAML)
    training.train(folder)
    return folder


@pytest.fixture
def bundle(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "tiny")


@cache
def images(seed: int) -> list[Dataset]:
    return list(make_study(PhantomSpec(region="head", seed=seed, slices=16, rows=64)))


@pytest.fixture
def write_study(tmp_path: Path) -> WriteStudy:
    """Give a function that writes a small study of a patient's, with header attributes as told, and returns the folder of all."""

    def write(seed: int, **header: str) -> Path:
        folder = tmp_path / "studies" / str(seed)
        folder.mkdir(parents=True)
        for number, image in enumerate(copy.deepcopy(images(seed))):
            del image.SyntheticData  # stands in for a patient's
            image.StudyDate = "20260525"
            for keyword, value in header.items():
                setattr(image, keyword, value)
            image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
        return tmp_path / "studies"

    return write


def test_several_studies_of_a_patient_count_once(bundle: Path, write_study: WriteStudy) -> None:
    for seed in range(9):
        studies = write_study(seed, PatientID="P0" if seed < 3 else f"P{seed}")
    done = calibrate(bundle, [studies], Population.SITE, today=TODAY, promise=LAX)
    assert (done.studies, done.found.repeats, done.nameless) == (7, 2, 0)
    assert "one study a patient: 2 further studies of the same patients were left out" in calibrating.told(done)


def test_which_study_of_a_patient_counts_depends_on_nothing_but_its_uid() -> None:
    series = [SeriesFiles(f"1.{index}", f"1.2.{index}", "/P", None, ()) for index in range(8)]
    chosen = [calibrating.patients_of(order, calibrating._Tally())[0][0].study_uid for order in (series, series[::-1], series[4:] + series[:4])]
    assert len(set(chosen)) == 1
    firsts = {
        calibrating.patients_of([SeriesFiles("1", f"1.{k}.{n}", "/P", None, ()) for n in range(2)], calibrating._Tally())[0][0].study_uid[-1] for k in range(20)
    }
    assert firsts == {"0", "1"}  # not always the one that comes first


def test_the_next_study_of_a_patient_counts_where_one_is_out_of_scope(bundle: Path, write_study: WriteStudy) -> None:
    for seed in range(7):
        studies = write_study(seed, PatientID="P0" if seed < 2 else f"P{seed}")
    order = calibrating.patients_of(calibrating.material.series_in([studies], "CT"), calibrating._Tally())
    first = next(group for group in order if len(group) == 2)[0]
    for path in first.files[2:]:
        path.unlink()
    done = calibrate(bundle, [studies], Population.SITE, today=TODAY, promise=LAX)
    assert (done.studies, done.found.repeats, len(done.refused)) == (6, 0, 1)
    assert "2 usable slices" in done.refused[0]


def test_what_the_gate_would_refuse_in_the_node_is_no_part_of_a_calibration(bundle: Path, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(7):
        studies = write_study(seed, PatientID=f"P{seed}")
    asked: list[str] = []

    def refuse_the_first(prepared: Prepared, loaded: Bundle) -> None:
        asked.append(prepared.volume.series_uid)
        if len(asked) == 1:
            raise OutOfScope("the noise is far above the usual")

    monkeypatch.setattr(calibrating, "refuse_unfamiliar", refuse_the_first)
    done = calibrate(bundle, [studies], Population.SITE, today=TODAY, promise=LAX)
    assert done.studies == 6
    assert done.refused == (f"{asked[0]}: the noise is far above the usual",)


def test_studies_that_name_no_patient_count_each_and_that_is_said(bundle: Path, write_study: WriteStudy) -> None:
    for seed in range(7):
        studies = write_study(seed, PatientID="", PatientName="")
    done = calibrate(bundle, [studies], Population.SITE, today=TODAY, promise=LAX)
    assert (done.studies, done.found.repeats, done.nameless) == (7, 0, 7)
    assert "7 studies name no patient and count each" in calibrating.told(done)[0]


def test_a_scanner_with_enough_studies_gets_a_threshold_of_its_own_and_judges_its_studies(bundle: Path, write_study: WriteStudy) -> None:
    for seed in range(9):
        studies = write_study(seed, PatientID=f"P{seed}", Manufacturer="ACME", ManufacturerModelName="S3", StationName="CT1" if seed < 7 else "CT2")
    done = calibrate(bundle, [studies], Population.SITE, today=TODAY, promise=LAX)
    large, small = done.found.bins
    assert (large.station, len(large.scores), large.threshold is None) == ("CT1", 7, False)
    assert (small.station, len(small.scores), small.threshold is None) == ("CT2", 2, True)
    own = analyse(sorted((studies / "1").iterdir()), load(bundle), today=TODAY)
    assert own.calibration is not None
    assert (own.calibration.studies, own.calibration.threshold) == (7, large.threshold)
    assert own.calibration.scanner.startswith("ACME S3, station CT1")
    other = analyse(sorted((studies / "8").iterdir()), load(bundle), today=TODAY)
    assert other.verdict in (Verdict.ABOVE, Verdict.NOT_ABOVE)
    assert other.calibration is not None
    assert (other.calibration.studies, other.calibration.scanner) == (9, "")
    assert any("2 of them are of this scanner" in remark for remark in other.remarks)


def test_studies_whose_header_names_no_scanner_are_in_no_bin() -> None:
    scored = [Scored(float(index), "1", Origin("HEAD")) for index in range(9)]
    assert calibrating.bins_of(scored, 0.4) == ()


def test_a_calibration_study_seen_again_is_not_above_a_threshold_that_is_its_own_score(bundle: Path, write_study: WriteStudy) -> None:
    for seed in range(6):
        studies = write_study(seed, PatientID=f"P{seed}")
    done = calibrate(bundle, [studies], Population.SITE, today=TODAY, promise=LAX)
    flagged = 0
    for seed in range(6):
        found = analyse(sorted((studies / str(seed)).iterdir()), load(bundle), today=TODAY)
        flagged += found.verdict is Verdict.ABOVE
    assert done.threshold is not None
    assert flagged == sum(score > done.threshold for score in done.found.scores)


def test_the_largest_scores_are_named_in_the_file_and_by_the_command(bundle: Path, write_study: WriteStudy) -> None:
    for seed in range(7):
        studies = write_study(seed, PatientID=f"P{seed}")
    app = typer.Typer()
    models.register(app)
    done = CliRunner().invoke(app, ["calibrate", "--bundle", str(bundle), "--population", "site", "--data", str(studies)])
    assert done.exit_code == 0, done.output
    written = json.loads((bundle / "calibration.json").read_text())
    assert [one["score"] for one in written["largest"]] == sorted(written["scores"], reverse=True)[:5]
    assert f"no score is larger than the others suggest; the largest: {written['largest'][0]['study']}" in done.output


def test_strangers_among_many_scores_are_named_and_none_is_left_out(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [float(index % 40) / 10 for index in range(40)] + [30.0, 31.0]

    def scored(*_: object) -> list[Scored]:
        tail = next(item for item in _ if isinstance(item, calibrating.arithmetic.PixelTail))
        tail._counts[:] = 1000
        return [Scored(value, f"study {index}", Origin()) for index, value in enumerate(drawn)]

    monkeypatch.setattr(calibrating, "_scored", scored)
    done = calibrate(bundle, [], Population.SYNTHETIC, today=TODAY)
    assert (done.studies, done.found.suspects) == (42, 2)
    assert {one.study for one in done.found.largest[:2]} == {"study 40", "study 41"}
    assert "SUSPECT: 2 scores are larger" in calibrating.told(done)[-1]


@pytest.mark.parametrize(
    ("today", "words"),
    [(date(2026, 6, 1), "the newest 0 days old"), (date(2026, 8, 1), "calibrate again before day 90"), (date(2026, 9, 1), "more than 90: calibrate again")],
)
def test_check_tells_how_old_a_site_calibration_is(bundle: Path, monkeypatch: pytest.MonkeyPatch, today: date, words: str) -> None:
    monkeypatch.setattr(check, "_today", lambda: today)
    found = replace(load(bundle), calibration=calibration(suspects=1, largest=(NamedScore(study="1.2.3", score=99.0),)))
    lines = [("ok", check._calibration(found)), *check._calibration_warnings("tiny", found.calibration)]
    assert any(words in text for _, text in lines), lines
    assert ("warning", "bundle tiny: SUSPECT: 1 score is larger than the others suggest; look at them, and calibrate again without those that are not normal: "
            "1.2.3 (99.000)") in lines  # fmt: skip
