"""What the gate measures of images: each number is moved by what it is for, and each refusal says in words what is wrong."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis import familiar, gate, portrait, quality
from pacs_node.analysis.look import Look, look, with_a_finding
from pacs_node.analysis.manifest import Manifest, QualityPart, read_manifest
from pacs_node.analysis.pipeline import analyse_volume, prepare
from pacs_node.autoencoder.baselines import fit_baselines
from pacs_node.autoencoder.familiarity import Familiarity, Portrait
from pacs_node.errors import BundleError, OutOfScope
from pacs_node.phantoms import PhantomSpec, make_volume
from pacs_node.phantoms.qa import qa_volume
from pacs_node.records import Volume
from tests.analysis.conftest import volume
from tests.workbench.test_training import TODAY

Change = Callable[[torch.Tensor], torch.Tensor]
EDGE = 64


def seen_of(change: Change = lambda x: x, foreground: torch.Tensor | None = None) -> Look:
    """Six slices of an ellipse of two tissues with a little grain, changed in some way."""
    generator = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.arange(EDGE) - 31.5, torch.arange(EDGE) - 31.5, indexing="ij")
    body = ((x / 20) ** 2 + (y / 25) ** 2 < 1).float() if foreground is None else foreground
    image = (0.4 + 0.2 * ((x / 9) ** 2 + (y / 12) ** 2 < 1).float()) * body
    slices = change((image + 0.01 * torch.randn(6, EDGE, EDGE, generator=generator)).clamp(0, 1)) * body
    return look(slices.numpy() * 100, slices.float(), np.broadcast_to(body.numpy() > 0, slices.shape).copy())


def noisier(x: torch.Tensor, level: float = 0.1) -> torch.Tensor:
    return (x + level * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)


def with_lines(x: torch.Tensor) -> torch.Tensor:
    return (x + 0.1 * (torch.arange(EDGE) % 2)[None, :, None]).clamp(0, 1)


def doubled(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x + 0.5 * x.roll(5, 2)


def with_metal(x: torch.Tensor) -> torch.Tensor:
    changed = x.clone()
    changed[3, 28:34, 28:34] = 1.0
    return changed


def with_a_void(x: torch.Tensor) -> torch.Tensor:
    changed = x.clone()
    changed[3, 25:35, 25:35] = 0.0
    return changed


@pytest.mark.parametrize(
    ("measure", "change", "sign"),
    [
        ("noise", noisier, 1),
        ("sharpness", noisier, 1),
        ("sharpness", lambda x: torch.nn.functional.avg_pool2d(x[:, None], 3, 1, 1)[:, 0], -1),
        ("edges", lambda x: 0.5 * x + 0.2, -1),
        ("streaks", with_lines, 1),
        ("streaks", lambda x: with_lines(x.transpose(1, 2)).transpose(1, 2), -1),
        ("bright", with_metal, 1),
        ("dark", with_a_void, 1),
        ("spread", lambda x: 0.5 * x + 0.2, -1),
        ("tilt down", lambda x: x * torch.linspace(0.5, 1.5, EDGE)[None, :, None], 1),
        ("tilt across", lambda x: x * torch.linspace(1.5, 0.5, EDGE)[None, None, :], -1),
        ("contours", doubled, 1),
        ("rim", lambda x: x + 0.3 * (x < 0.5), 1),
    ],
)
def test_each_measure_is_moved_by_what_it_is_for(measure: str, change: Change, sign: int) -> None:
    usual, other = (portrait.SLICE[measure].of(seen) for seen in (seen_of(), seen_of(change)))
    assert sign * float((other - usual)[3]) > portrait.SLICE[measure].least
    assert len(usual) == 6


def test_noise_is_measured_in_network_values() -> None:
    for level in (0.02, 0.1):
        assert quality.noise(seen_of(lambda x, level=level: noisier(torch.full_like(x, 0.5), level))) == pytest.approx(level, rel=0.1)


def test_a_body_cut_off_straight_is_told_from_one_that_is_not() -> None:
    whole = seen_of()
    left_off = whole.body[0].clone()
    left_off[:, :24] = 0
    assert quality.cut_off(whole) < 0.6
    assert quality.cut_off(seen_of(foreground=left_off)) > 0.6
    neck = whole.body[0].clone()
    neck[40:] = 0
    assert quality.cut_off(seen_of(foreground=neck)) < 0.6  # the lower end may be straight


def test_one_material_is_what_a_phantom_of_water_is_made_of() -> None:
    assert quality.one_material(seen_of(lambda x: torch.full_like(x, 0.5))) == 1.0
    assert quality.one_material(seen_of()) < 0.85


def test_neighbours_cannot_be_compared_in_a_single_slice() -> None:
    seen = seen_of()
    single = Look(*(getattr(seen, name)[:1] for name in Look.__dataclass_fields__))
    numbers = portrait.portrait(single)
    unknown = {name for name, value in zip(portrait.NAMES, numbers.tolist(), strict=True) if not np.isfinite(value)}
    assert unknown == {"neighbours"}
    assert len(numbers) == len(portrait.NAMES) == len(portrait.LEAST)


def test_a_focal_finding_changes_one_place_of_the_body_only() -> None:
    seen = seen_of()
    for seed in range(10):
        spoilt = with_a_finding(seen, torch.Generator().manual_seed(seed))
        changed = (spoilt.x != seen.x).float()
        assert 0 < float((changed * seen.body).sum()) < 0.3 * float(seen.body.sum())
        assert float((changed * (1 - seen.body)).sum()) == 0


@pytest.fixture
def manifest(tiny: Path) -> Manifest:
    return read_manifest(tiny)


def limited(manifest: Manifest, **limits: float) -> Manifest:
    return manifest.model_copy(update={"scope": manifest.scope.model_copy(update={"quality": QualityPart(**limits)})})


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"noise": 0.001}, r"the noise \(\d+% of the range that the model sees, at most 0%\) hides"),
        ({"one_material": 0.5}, r"\d+% of what is imaged is of one and the same brightness, in a patient at most 50% \(a QA phantom\?\)"),
        ({"cut_off": 0.1}, r"the body is cut off at the border of the image"),
    ],
)
def test_a_limit_that_is_exceeded_is_said_in_words(manifest: Manifest, limits: dict[str, float], words: str) -> None:
    prepare(volume(), manifest)  # without limits it is in scope
    with pytest.raises(OutOfScope, match=words) as refusal:
        prepare(volume(), limited(manifest, **limits))
    assert refusal.value.reason.endswith("the model tiny does not judge such series")


def test_a_series_most_of_whose_slices_are_empty_is_refused(manifest: Manifest) -> None:
    pixels = volume().pixels.copy()
    pixels[1:6] = -1000
    with pytest.raises(OutOfScope, match="62% of the slices show nothing but air, at most 60% may"):
        prepare(volume(pixels=pixels), limited(manifest, empty=0.6))


def test_a_picture_without_geometry_may_be_cut_as_it_likes(manifest: Manifest) -> None:
    cut = limited(manifest, cut_off=0.01, one_material=0.01)
    with pytest.raises(OutOfScope):
        prepare(volume(), cut)
    grey = np.where(volume().pixels > -500, np.float32(150), np.float32(0))
    grey[:, 40:50, 40:50] = 90
    assert len(prepare(volume(picture=True, pixels=grey), cut).x) == 8


# --- what was learnt ---------------------------------------------------------------------------------------------------------


def head(seed: int, **what: object) -> Volume:
    return make_volume(PhantomSpec(region="head", seed=seed, slices=6, rows=64, **what)).volume  # type: ignore[arg-type]


def portrayed(one: Volume, manifest: Manifest) -> Portrait:
    prepared = prepare(one, manifest)
    return familiar.portray(prepared.seen, prepared.stratum, synthetic=one.synthetic)


@pytest.fixture(scope="module")
def learnt(made_once: Path) -> Familiarity:
    manifest = read_manifest(made_once)
    fitted = familiar.fit([portrayed(head(seed), manifest) for seed in range(40)], 0.01)
    assert fitted is not None
    return fitted


def refusal_of(one: Volume, learnt: Familiarity, manifest: Manifest) -> str:
    try:
        gate.check_familiar(portrayed(one, manifest), learnt, manifest)
    except OutOfScope as refusal:
        return refusal.reason
    return ""


def test_usual_phantoms_and_those_with_a_lesion_are_like_the_training(learnt: Familiarity, manifest: Manifest) -> None:
    assert [refusal_of(head(seed), learnt, manifest) for seed in range(900, 906)] == [""] * 6
    assert [refusal_of(head(910 + index, lesion=family), learnt, manifest) for index, family in enumerate(("ellipsoid", "texture"))] == ["", ""]


@pytest.mark.parametrize("artefact", ["noise", "truncation", "motion"])
def test_artefacts_are_unlike_the_training_and_said_in_words(learnt: Familiarity, manifest: Manifest, artefact: str) -> None:
    reason = refusal_of(head(920, artefact=artefact), learnt, manifest)
    assert "the images are unlike the 40 synthetic studies of the training (distance " in reason
    assert any(reason.startswith(words) for measure in (portrait.SLICE | portrait.SERIES).values() for words in (measure.high, measure.low))


def test_a_physical_phantom_is_unlike_the_training(learnt: Familiarity, manifest: Manifest) -> None:
    assert "unlike" in refusal_of(qa_volume(head(930), 1), learnt, manifest)


def test_what_phantoms_taught_says_nothing_about_patients(learnt: Familiarity, manifest: Manifest) -> None:
    assert refusal_of(replace(head(920, artefact="noise"), synthetic=False), learnt, manifest) == ""


def test_too_few_studies_teach_nothing(manifest: Manifest) -> None:
    assert familiar.fit([portrayed(head(seed), manifest) for seed in range(5)], 0.01) is None


def with_gate(folder: Path, learnt: Familiarity, *, asked: bool = True) -> Path:
    loaded = bundles.load(folder)
    x = torch.zeros(2, 64, 64)
    bundles.save(folder, loaded.network, loaded.normals, fit_baselines([(x + 0.5, x == 0)]), familiarity=learnt)
    if asked:
        text = (folder / "model.yaml").read_text()
        (folder / "model.yaml").write_text(text.replace("scope:\n", "scope:\n  familiarity: {refused: 0.01}\n"))
    return folder


def test_a_bundle_keeps_what_was_learnt_and_its_analysis_refuses_by_it(tiny: Path, learnt: Familiarity) -> None:
    bundle = bundles.load(with_gate(tiny, learnt))
    assert bundle.familiarity is not None
    for name in Familiarity.FIELDS:
        assert torch.equal(getattr(bundle.familiarity, name), getattr(learnt, name))
    assert analyse_volume(head(931), bundle, today=TODAY).score is not None
    with pytest.raises(OutOfScope, match="unlike the 40 synthetic studies"):
        analyse_volume(head(931, artefact="noise"), bundle, today=TODAY)


def test_without_the_key_in_model_yaml_or_without_the_tensors_nothing_is_refused_by_it(tiny: Path, learnt: Familiarity) -> None:
    assert bundles.load(tiny).familiarity is None
    assert bundles.load(with_gate(tiny, learnt, asked=False)).familiarity is None


def test_what_another_version_measured_is_refused_in_one_sentence(tiny: Path, learnt: Familiarity, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_gate(tiny, learnt)
    monkeypatch.setattr(portrait, "FORMAT", portrait.FORMAT + 1)
    with pytest.raises(BundleError, match=r"of another version: train the bundle again, or take `scope\.familiarity` out"):
        bundles.load(folder)
