"""The table of the gate: what it lets in, what it refuses, and for which reason."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pacs_node.analysis import familiar
from pacs_node.analysis.bundle import load
from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.analysis.pipeline import prepare
from pacs_node.autoencoder.familiarity import Familiarity
from pacs_node.cli import models
from pacs_node.config import shipped
from pacs_node.errors import InputError
from pacs_node.phantoms import MODALITIES, PhantomSpec, make_volume
from pacs_node.phantoms.qa import qa_volume
from pacs_node.records import Volume
from pacs_node.workbench import card, gating, material
from tests.analysis.conftest import make_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return read_manifest(folder)


@pytest.fixture(scope="module")
def learnt(manifest: Manifest) -> Familiarity:
    part = manifest.recipe.phantoms
    assert part is not None
    prepared = [material.phantom(part, manifest, seed).prepared for seed in range(40)]
    fitted = familiar.fit([familiar.portray(one.seen, one.stratum, synthetic=True) for one in prepared], 0.01)
    assert fitted is not None
    return fitted


@pytest.mark.slow
def test_the_table_names_every_artefact_lesion_and_other_region_and_tells_them_from_usual_ones(manifest: Manifest, learnt: Familiarity) -> None:
    found = gating.table(manifest, learnt, count=2, usual=6)
    rows = {(row["kind"], row["name"]): row for row in found["groups"]}
    assert {name for kind, name in rows if kind == gating.ARTEFACT} == {*MODALITIES["CT"].ARTEFACTS, "all"}
    assert {name for kind, name in rows if kind == gating.FOREIGN} == {"CT body", "MR brain", "PT body", "US breast", "all"}
    assert rows[gating.FOREIGN, "all"]["auroc"] == 1.0
    assert rows[gating.FOREIGN, "all"]["refused"] == 1.0
    assert rows[gating.QA, gating.QA]["auroc"] == 1.0
    assert rows[gating.ARTEFACT, "truncation"]["refused"] == 1.0
    assert rows[gating.USUAL, gating.USUAL]["refused"] == 0.0
    assert rows[gating.USUAL, gating.USUAL]["n"] == 6
    printed = "\n".join(gating.lines(found))
    assert f"fitted on 40 studies, limit {float(learnt.limit):.2f}" in printed
    assert "| artefact | truncation | 2 | 1.000" in printed


def test_without_phantoms_in_the_recipe_one_sentence_says_so(manifest: Manifest) -> None:
    bare = manifest.model_copy(update={"recipe": manifest.recipe.model_copy(update={"phantoms": None})})
    with pytest.raises(InputError, match="names no phantoms"):
        gating.table(bare, None)


def test_phantoms_of_other_protocols_that_the_scope_refuses_are_left_out(manifest: Manifest) -> None:
    part = manifest.recipe.phantoms
    assert part is not None
    heard: list[float] = []
    long = manifest.model_copy(update={"scope": manifest.scope.model_copy(update={"coverage_mm": (60.0, 300.0)})})
    found = list(material.of_other_protocols(part, long, 8, lambda what, fraction: heard.append(fraction)))
    assert 0 < len(found) < 8
    assert heard[-1] == 1.0


@pytest.mark.parametrize(("name", "modality"), [("ct-head", "CT"), ("ct-body", "CT"), ("mr-brain", "MR"), ("pt-body", "PT")])
def test_a_shipped_bundle_refuses_a_physical_phantom_under_a_patients_name_too(name: str, modality: str) -> None:
    manifest = read_manifest(shipped("models") / name)
    patient = make_volume(PhantomSpec(modality, manifest.recipe.phantoms.region if manifest.recipe.phantoms else "", slices=12, rows=128, seed=8)).volume
    assert gating.read(replace(patient, synthetic=False), manifest, None).reason == ""
    for seed in range(3):
        assert gating.read(replace(qa_volume(patient, seed), synthetic=False), manifest, None).reason != ""


def test_a_physical_phantom_keeps_the_geometry_and_the_padding_of_the_patient() -> None:
    patient = make_volume(PhantomSpec("US", "breast", slices=2, rows=64)).volume
    made = qa_volume(patient, 1)
    assert made.frames == patient.frames
    assert ((made.pixels == made.pixels) == (patient.pixels == patient.pixels)).all()
    assert made.series_uid != patient.series_uid
    assert (qa_volume(patient, 1).pixels == made.pixels)[made.pixels == made.pixels].all()


def test_the_command_prints_the_table_and_says_of_real_series_whether_they_are_in(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset_folder: Callable[[str], Path]
) -> None:
    monkeypatch.setattr(gating, "groups", lambda manifest: [gating.Group(gating.USUAL, gating.USUAL, lambda index: prepared_volume(index))])
    app = typer.Typer()
    models.register(app)
    done = CliRunner().invoke(
        app, ["evaluate", "--bundle", str(folder), "--gate", "--data", str(dataset_folder("ct-ge-head-tilt")), "--json", str(tmp_path / "t.json")]
    )
    assert done.exit_code == 0, done.output
    assert "rules and limits alone: nothing was learnt" in done.output
    assert "(28 files): in" in done.output
    assert json.loads((tmp_path / "t.json").read_text())["real"][0]["in"] is True
    text = (folder / "CARD.md").read_text()
    assert "## The gate" in text
    assert "Of 1 real series 1 are in scope." in text
    assert "ct-ge-head-tilt" not in text + (folder / "card" / "gate.json").read_text()  # folders may bear names of patients


def test_every_series_of_a_study_is_asked_about_and_refused_in_words(dataset_folder: Callable[[str], Path]) -> None:
    rows = gating.real([dataset_folder("acrin-nsclc-fdg-pet-042")], read_manifest(shipped("models") / "pt-body"), None)
    assert {row["in"] for row in rows} == {True, False}  # with and without attenuation correction
    assert next(row["reason"] for row in rows if not row["in"]).startswith("the PET series has no SUV")


def test_the_card_does_not_show_a_gate_of_other_weights(folder: Path) -> None:
    bundle = load(folder)
    card.write_gate(bundle, {"bundle": "tiny", "weights_sha256": "other", "studies": 0, "groups": []})
    assert "## The gate" not in (folder / "CARD.md").read_text()


def prepared_volume(index: int) -> Volume:
    return make_volume(PhantomSpec(region="head", slices=6, rows=64, seed=index)).volume


@pytest.mark.slow
def test_usual_series_are_read_as_they_are_in_the_node(manifest: Manifest, learnt: Familiarity) -> None:
    volume = prepared_volume(3)
    prepared = prepare(volume, manifest)
    one = familiar.portray(prepared.seen, prepared.stratum, synthetic=True, findings=0)
    assert gating.read(volume, manifest, learnt).distance == pytest.approx(gating.distance(one.numbers, 0, learnt))
