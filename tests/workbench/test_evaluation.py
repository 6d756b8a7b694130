"""Evaluating a bundle: every score a row beside the baselines, strata with a verdict, an interruption, and the card."""

import io
import json
import shutil
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.bundle import Bundle
from pacs_node.autoencoder.baselines import BASELINES
from pacs_node.cli import models
from pacs_node.errors import InputError
from pacs_node.phantoms import PhantomSpec, make_study
from pacs_node.records import Population
from pacs_node.workbench import (
    calibrating,
    card,
    card_tables,
    evaluation,
    evaluation_drawings,
    evaluation_readings,
    evaluation_tables,
    evaluation_words,
    map_metrics,
    training,
)
from pacs_node.workbench.evaluation_readings import KEPT, MapReading, Reading
from pacs_node.workbench.evaluation_request import Request, run, sets_of
from pacs_node.workbench.evaluation_sets import STRATA, PhantomSet, Stratum, Subject
from tests.analysis.conftest import MODEL_YAML, make_bundle

TODAY = date(2026, 6, 1)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    (folder / "model.yaml").write_text(MODEL_YAML)
    training.train(folder)
    calibrating.calibrate(folder, [], Population.SYNTHETIC, today=TODAY, promise=calibrating.Promise(0.4))
    return folder


@pytest.fixture
def tiny(calibrated: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(calibrated, tmp_path / "tiny")
    (folder / "model.yaml").write_text((folder / "model.yaml").read_text().replace("slices: 16", "slices: 6"))  # phantoms that are made in a moment
    return folder


def few(bundle: Bundle) -> PhantomSet:
    part = bundle.manifest.recipe.phantoms
    assert part is not None
    return PhantomSet(part, bundle.manifest, tuple(evaluation.cases(4, 1)[:10]))


class Interrupted(Exception):
    pass


def reading(number: int, *, planted: Stratum | None = None, label: str = "normal", **changes: object) -> Reading:
    """A reading whose study score is ``number``; the baseline's is its opposite."""
    subject = Subject(name=str(number), patient=str(number), label=planted.family if planted else label, planted=planted)
    shown = {name: MapReading(pixel_ap=ap, hit=ap > 0.5, dice=(ap,) * len(map_metrics.THRESHOLDS)) for name, ap in (("study", 0.9), ("intensity", 0.1))}
    fields: dict[str, object] = {
        "subject": subject,
        "scores": {"study": float(number), "peak": float(number), "intensity": -float(number)},
        "maps": shown if subject.positive else {},
        "p_value": 0.5,
        "flagged": number > 50,
        "brightness": 0.5,
        "error": 0.1,
        "similarity": 0.9,
        "embedding": (0.0, 1.0),
    }
    return Reading(**{**fields, **changes})


def normal_and_planted() -> list[Reading]:
    return [reading(number) for number in range(20)] + [reading(100 + index, planted=STRATA[index % 36]) for index in range(108)]


def test_each_stratum_has_a_row_and_the_worst_is_named() -> None:
    readings = normal_and_planted()
    worst = STRATA.index(Stratum("texture", 1.0, 0.02))
    for index in range(20 + worst, 128, 36):
        readings[index] = reading(-index, planted=STRATA[worst])
    table = evaluation_tables.table(readings)
    assert [(row["family"], row["contrast"], row["size"]) for row in table["strata"]] == [tuple(one) for one in STRATA]
    assert all(row["n"] == 3 for row in table["strata"])
    assert table["verdict"]["auroc"]["worst"] == {"stratum": "texture, 1 σ, 2 %", "value": 0.0}
    assert [one["stratum"] for one in table["verdict"]["auroc"]["below_a_baseline"]] == ["texture, 1 σ, 2 %"]
    assert not table["verdict"]["auroc"]["passed"]
    assert table["verdict"]["pixel_ap"]["passed"]
    assert table["verdict"]["auroc"]["means"]["study"] == pytest.approx(35 / 36)


def test_one_lesion_alone_tells_nothing_beyond_an_interval() -> None:
    readings = [reading(number) for number in range(20)] + [reading(-100, planted=STRATA[0])]
    table = evaluation_tables.table(readings)
    assert table["strata"][0]["scores"]["study"]["auroc"] == 0.0
    verdict = table["verdict"]["auroc"]
    assert (verdict["below_a_baseline"], verdict["untold"], verdict["passed"]) == ([], 1, False)
    assert any("1 of 1 strata have too few lesions" in one for one in evaluation_words.sentences({"set": "s", "unit": "phantom", **table}))


def test_the_study_score_is_compared_with_each_part_and_baseline_on_the_same_studies() -> None:
    table = evaluation_tables.table(normal_and_planted())
    assert table["differences"]["intensity"]["auroc_ci95"][0] > 0
    assert table["differences"]["peak"] == {"auroc": 0.0, "auroc_ci95": [0.0, 0.0]}
    assert table["fusion"]["below_best"] == 0.0
    assert table["score"]["study"]["oracle_dice"] == pytest.approx(0.9)
    assert table["score"]["study"]["sensitivity_at_95_specificity"] == 1.0
    turned = [one.model_copy(update={"scores": {**one.scores, "peak": 2.0 if one.subject.positive else 1.0, "study": 0.0}}) for one in normal_and_planted()]
    assert evaluation_tables.table(turned)["fusion"] == {"best": "peak", "auroc": 1.0, "below_best": 0.5}


def test_a_narrow_console_cuts_no_number_off() -> None:
    told = {"set": "s", "unit": "patient", **evaluation_tables.table(normal_and_planted())}
    console = Console(width=80, file=io.StringIO(), record=True)
    for item in evaluation_words.shown([told]):
        console.print(item)
    text = console.export_text()
    assert "…" not in text
    assert "strata" in text and "pixel AP: mean over 36 strata" in " ".join(text.split())


def test_what_brightness_alone_tells_is_gone_in_the_matched_subset() -> None:
    rng = np.random.default_rng(0)
    readings = []
    for number in range(300):
        positive = number % 2 == 1
        brightness = float(rng.normal() + positive)
        scores = {"study": brightness, "intensity": float(rng.normal() + 2 * positive)}
        readings.append(reading(number, label="tumour" if positive else "normal", scores=scores, brightness=brightness, maps={}))
    table = evaluation_tables.table(readings)
    assert table["score"]["study"]["auroc"] > 0.7
    assert table["matched"]["scores"]["study"]["auroc"] == pytest.approx(0.5, abs=0.06)
    assert table["matched"]["scores"]["intensity"]["auroc"] > 0.85
    assert table["matched"]["n"] % 2 == 0


def test_labels_are_told_apart_where_there_are_several() -> None:
    readings = [reading(number) for number in range(30)]
    readings += [reading(number + 0, label="benign", scores={"study": 10.5, "peak": 0.0, "intensity": 0.0}) for number in range(100, 120)]
    readings += [reading(number, label="malignant") for number in range(200, 220)]
    found = evaluation_tables.table(readings)["labels"]
    assert set(found) == {"benign", "malignant"}
    assert found["malignant"]["scores"]["study"]["auroc"] == 1.0
    assert found["benign"]["scores"]["study"]["auroc"] == pytest.approx(11 / 30)


def test_studies_without_any_label_give_reconstruction_and_flags_and_valid_json() -> None:
    table = evaluation_tables.table([reading(number, error=0.01, p_value=number / 100) for number in range(41, 61)])
    assert table["score"]["study"]["auroc"] is None
    assert table["healthy"]["psnr_db"] == pytest.approx(40.0)
    assert table["false_positive_rate"] == 0.5
    assert dict(table["promised_and_seen"])[0.5] == 0.5
    json.dumps(table, allow_nan=False)
    told = {"set": "s", "unit": "patient", **table}
    assert any("PSNR 40.0 dB" in one for one in evaluation_words.sentences(told))


@pytest.mark.slow
def test_an_evaluation_compares_with_the_baselines_and_writes_the_card(tiny: Path, tmp_path: Path) -> None:
    result = evaluation.evaluate(tiny, tmp_path / "table.json", normal=4, rounds=1)
    assert json.loads((tmp_path / "table.json").read_text()) == result
    assert (result["n"], result["lesions"]) == (40, 36)
    assert set(result["baselines"]) == set(BASELINES)
    assert {"study", "peak"} <= set(result["score"])
    low, high = result["score"]["study"]["ci95"]
    assert 0 <= low <= result["score"]["study"]["auroc"] <= high <= 1
    assert set(result["families"]) == set(evaluation.FAMILIES)
    assert result["score"]["study"]["dice_at_p_0.001"] is not None
    text = card.write_card(bundles.load(tiny), result).read_text()
    assert "research use only" in text
    assert result["weights_sha256"] in text
    assert "former weights" not in text
    assert all(path.stat().st_size < 100_000 for path in (tiny / "card").glob("*.png"))
    assert {path.name for path in (tiny / "card").glob("*.png")} == {f"{family}.png" for family in evaluation.FAMILIES}


def test_an_interrupted_evaluation_goes_on_where_it_was_and_other_code_begins_anew(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(what: str, fraction: float) -> None:
        if fraction >= 0.5:
            raise Interrupted

    bundle = bundles.load(tiny)
    with pytest.raises(Interrupted):
        evaluation.evaluate_set(bundle, few(bundle), report=stop)
    lines = (tiny / KEPT).read_text().splitlines()
    assert len(lines) == 5
    (tiny / KEPT).write_text("\n".join([*lines[:4], lines[4][:100]]))  # the machine stopped while it wrote the last one
    calls: list[float] = []
    whole = evaluation.evaluate_set(bundle, few(bundle), report=lambda what, fraction: calls.append(fraction))
    assert len(calls) == 10 - 4
    (tiny / KEPT).unlink()
    assert whole.table == evaluation.evaluate_set(bundle, few(bundle)).table
    monkeypatch.setattr(evaluation_readings, "_code", lambda: "of another version")
    assert evaluation_readings.Kept(bundle).get(few(bundle), few(bundle).subjects[0]) is None


@pytest.mark.slow
def test_two_processes_tell_the_same_as_one(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_LEAST_FOR_A_POOL", 2)
    bundle = bundles.load(tiny)
    one = evaluation.evaluate_set(bundle, few(bundle))
    (tiny / KEPT).unlink()
    assert evaluation.evaluate_set(bundle, few(bundle), processes=2).readings == one.readings


@pytest.fixture(scope="module")
def normal_studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("normal")
    for seed in range(4):
        (folder / str(seed)).mkdir()
        for number, dataset in enumerate(make_study(PhantomSpec(region="head", seed=seed, slices=6 if seed else 2, rows=64))):
            dataset.save_as(folder / str(seed) / f"{number}.dcm", enforce_file_format=True)
    yield folder


def test_unlabelled_studies_are_a_set_of_their_own_and_those_out_of_scope_are_named(tiny: Path, normal_studies: Path) -> None:
    bundle = bundles.load(tiny)
    done = evaluation.evaluate_set(bundle, next(sets_of(bundle, Request(data=(normal_studies,)), lambda what, fraction: None))[0])
    assert (done.table["n"], done.table["lesions"], done.table["unit"]) == (3, 0, "patient")
    assert len(done.refused) == 1 and "2 usable slices" in done.refused[0]


def test_labels_without_a_folder_and_a_recipe_without_phantoms_are_refused(tiny: Path, tmp_path: Path) -> None:
    bundle = bundles.load(tiny)
    with pytest.raises(InputError, match="name the folder that holds them with --data"):
        list(sets_of(bundle, Request(labels=(tmp_path / "labels.csv",)), lambda what, fraction: None))
    lines = (tiny / "model.yaml").read_text().splitlines()
    (tiny / "model.yaml").write_text("\n".join(line for line in lines if not line.startswith("  phantoms:")))
    with pytest.raises(InputError, match="names no phantoms: give studies with --data"):
        next(sets_of(bundles.load(tiny), Request(), lambda what, fraction: None))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures of two patients each, a third of them with a bright square and its mask."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = ["file,label,patient,mask"]
    for number in range(18):
        rng = np.random.default_rng(number)
        picture, mask = rng.integers(60, 90, (64, 64)).astype(np.uint8), np.zeros((64, 64), np.uint8)
        label = "normal" if number % 3 else "benign" if number % 2 else "malignant"
        if label != "normal":
            mask[20:32, 24:36] = 255
            picture[mask > 0] = 250
            Image.fromarray(mask).save(folder / f"{number}.mask.png")
        Image.fromarray(picture).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{label},P{number // 2},{f'{number}.mask.png' if label != 'normal' else ''}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_labelled_pictures_with_masks_give_every_table(tiny: Path, pictures: Path) -> None:
    bundle = bundles.load(tiny)
    (done,) = run(bundle, Request(data=(pictures,), labels=(pictures / "labels.csv",)), processes=2, report=lambda what, fraction: None)
    table = done.table
    assert (table["n"], table["lesions"], table["unit"]) == (18, 6, "patient")
    assert set(table["labels"]) == {"benign", "malignant"}
    assert len({one.subject.patient for one in done.readings}) == 9
    row = table["baselines"]["intensity"]
    assert row["auroc"] == 1.0
    assert row["pixel_ap"] > 0.8 and row["oracle_dice"] > 0.8
    assert table["command"].endswith("/labels.csv")
    assert not (tiny / KEPT).exists()
    assert {"auroc", "ci95", "ap"} <= set(table["score"]["study"])


def test_pictures_are_drawn_of_what_the_set_has_numbers_for(tiny: Path, pictures: Path, normal_studies: Path, tmp_path: Path) -> None:
    bundle = bundles.load(tiny)
    request = Request(data=(pictures,), labels=(pictures / "labels.csv",))
    (done,) = run(bundle, request, processes=1, report=lambda what, fraction: None)
    drawn = evaluation_drawings.draw(bundle, done, tmp_path / "drawn", "set")
    assert [path.name for path in drawn] == [f"set-{kind}.png" for kind in ("roc", "calibration", "scores", "maps", "latents")]
    for path in drawn:
        with Image.open(path) as picture:
            assert min(picture.size) > 300
            assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 8, path
    (tiny / "calibration.json").unlink()
    uncalibrated = bundles.load(tiny)
    (plain,) = run(uncalibrated, Request(data=(normal_studies,)), processes=1, report=lambda what, fraction: None)
    names = [path.name for path in evaluation_drawings.draw(uncalibrated, plain, tmp_path / "plain", "set", examples=False)]
    assert names == ["set-scores.png"]


def test_pictures_without_matplotlib_are_refused_in_one_sentence(tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundles.load(tiny)
    (done,) = run(bundle, Request(data=(pictures,), labels=(pictures / "labels.csv",)), processes=1, report=lambda what, fraction: None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"matplotlib, which is not here: install the extra with pip install 'pacs-node\[train\]'"):
        evaluation_drawings.draw(bundle, done, tmp_path, "set")


def test_the_command_draws_where_it_is_asked_to_and_writes_a_card_from_tables_alone(tiny: Path, pictures: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    models.register(app)
    (tiny / "card").mkdir()
    table = tiny / "card" / "squares.json"
    where = ["--data", str(pictures), "--labels", str(pictures / "labels.csv"), "--name", "squares"]
    done = CliRunner().invoke(app, ["evaluate", "--bundle", str(tiny), *where, "--json", str(table), "--out", str(tiny / "card")])
    assert done.exit_code == 0, done.output
    assert (tiny / "card" / "squares-roc.png").is_file()
    done = CliRunner().invoke(app, ["evaluate", "--bundle", str(tiny), "--card-only"])
    assert done.exit_code == 0, done.output
    text = (tiny / "CARD.md").read_text()
    assert "## Squares" in text and "| malignant | 3 |" in text
    assert "(card/squares-roc.png)" in text and "(card/ellipsoid.png)" in text
    assert "--name" not in text and "labels.csv`." in text


def test_the_command_prints_tables_and_writes_json(tiny: Path, normal_studies: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    models.register(app)
    out = tmp_path / "table.json"
    arguments = ["evaluate", "--bundle", str(tiny), "--data", str(normal_studies), "--name", "my studies", "--json", str(out)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "my studies: detectors" in done.output and "baseline: intensity" in done.output
    assert "not used:" in done.output
    assert json.loads(out.read_text())["set"] == "my studies"
    assert not (tiny / "CARD.md").exists()


def test_a_card_says_which_tables_are_of_other_weights(tmp_path: Path) -> None:
    bundle = bundles.load(make_bundle(tmp_path / "made" / "tiny"))
    table = {"bundle": "tiny", "version": "1", "weights_sha256": "0" * 64, "set": "some set", "unit": "patient"}
    table |= evaluation_tables.table(normal_and_planted())
    recipe = table | {"bundle": "busi", "set": "other set", "command": "pacs-node evaluate --bundle busi"}
    (bundle.folder / "card").mkdir()
    (bundle.folder / "card" / "a.json").write_text(json.dumps(table | {"others": [recipe]}))
    text = "\n".join(card_tables.tables_of(bundle, card_tables.read_tables(bundle.folder / "card")))
    assert "Made with former weights" in text
    assert "of the recipe *busi*" in text and "Made by `pacs-node evaluate --bundle busi`" in text
    (bundle.folder / "card" / "a.json").write_text("{")
    with pytest.raises(InputError, match="is no table"):
        card_tables.read_tables(bundle.folder / "card")
