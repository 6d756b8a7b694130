"""Lesions planted into series that no phantom made: as strong and as large as asked, inside the body, and nothing else changes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.grid import foreground_of
from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.config import shipped
from pacs_node.errors import InputError, NotAnalysable
from pacs_node.phantoms import LESIONS, PhantomSpec, make_study
from pacs_node.records import Volume
from pacs_node.workbench import evaluation, planting
from pacs_node.workbench.evaluation_request import Request, run
from pacs_node.workbench.evaluation_sets import STRATA, Stratum
from tests.analysis.conftest import make_bundle, volume


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return bundles.load(make_bundle(tmp_path_factory.mktemp("made") / "tiny")).manifest


def noisy(slices: int = 12, apart: float = 5.0) -> Volume:
    """Ellipses of soft tissue with noise, ``apart`` mm from each other."""
    made = volume(3, slices)
    rng = np.random.default_rng(0)
    pixels = np.asarray(made.pixels) + rng.normal(0, 4, made.pixels.shape).astype(np.float32)
    frames = tuple(replace(frame, plane=replace(frame.plane, position=(-96.0, -96.0, apart * index))) for index, frame in enumerate(made.frames) if frame.plane)
    return replace(made, pixels=pixels, frames=frames)


@pytest.mark.parametrize("family", LESIONS)
@pytest.mark.parametrize(("contrast", "size"), [(1.0, 0.02), (3.0, 0.05)])
def test_a_planted_lesion_has_the_asked_contrast_and_size(manifest: Manifest, family: str, contrast: float, size: float) -> None:
    healthy = noisy()
    planted, lesion = planting.plant(healthy, manifest, Stratum(family, contrast, size), seed=1)
    before, change = np.asarray(healthy.pixels), np.asarray(planted.pixels) - np.asarray(healthy.pixels)
    sigma = before[ndimage.find_objects(lesion.astype(np.int8))[0]].std()
    strength = abs(change[lesion].mean()) if family == "ellipsoid" else np.sqrt(np.mean(change[lesion] ** 2))
    assert strength / sigma == pytest.approx(contrast, rel=0.05)
    foreground = foreground_of(before, manifest.preprocessing.body_above)
    areas = lesion.sum((1, 2))
    most = int(areas.argmax())
    assert areas[most] / foreground[most].sum() == pytest.approx(size, rel=0.05)
    assert not (lesion & ~foreground).any()


def test_what_is_far_from_the_lesion_stays_bit_by_bit_and_padding_stays_padding(manifest: Manifest) -> None:
    healthy = noisy()
    pixels = np.array(healthy.pixels)
    pixels[:, :8, :8] = np.nan
    healthy = replace(healthy, pixels=pixels)
    planted, lesion = planting.plant(healthy, manifest, Stratum("mass_effect", 3.0, 0.05), seed=2)
    far = ndimage.distance_transform_edt(~lesion.any(0)) > 12
    np.testing.assert_array_equal(np.asarray(planted.pixels)[:, far], pixels[:, far])
    assert np.isnan(np.asarray(planted.pixels)[:, 0, 0]).all()
    assert np.isfinite(np.asarray(planted.pixels)[lesion]).all()


def test_the_same_seed_plants_the_same_lesion_and_another_one_another(manifest: Manifest) -> None:
    first, again, other = (planting.plant(noisy(), manifest, STRATA[4], seed)[1] for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_air_has_no_room_for_a_lesion(manifest: Manifest) -> None:
    empty = replace(noisy(), pixels=np.full((12, 96, 96), -1000, dtype=np.float32))
    with pytest.raises(NotAnalysable, match="no slice has room"):
        planting.plant(empty, manifest, STRATA[0], seed=0)


@pytest.mark.parametrize(
    ("slices", "apart", "sizes", "step"),
    [(96, 1.0, [24] * 4, 4.0), (28, 5.0, [14, 14], 10.0), (40, 7.0, [10] * 4, 7.0), (12, 5.0, [12], 5.0)],
)
def test_thin_slices_are_dealt_out_and_thick_ones_stay_together(manifest: Manifest, slices: int, apart: float, sizes: list[int], step: float) -> None:
    whole = noisy(slices, apart)
    found = planting.pieces("series", whole, manifest)
    assert [len(piece.volume.frames) for piece in found] == sizes
    assert planting._spacing(found[0].volume) == pytest.approx(step)
    uids = [frame.sop_uid for piece in found for frame in piece.volume.frames]
    assert sorted(uids) == sorted(frame.sop_uid for frame in whole.frames)


@pytest.fixture(scope="module")
def healthy_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    for number, dataset in enumerate(make_study(PhantomSpec(region="head", seed=5, slices=20, rows=64, spacing=4.0))):
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def test_every_stratum_is_planted_and_each_piece_stands_once_as_it_is(manifest: Manifest, healthy_series: Path) -> None:
    known = planting.planted_set([healthy_series], manifest, 2, "planted", lambda what, fraction: None)
    subjects = known.subjects
    assert [one.positive for one in subjects] == [False] * 2 + [True] * 72
    assert {one.planted for one in subjects[2:]} == set(STRATA)
    assert len({one.patient for one in subjects if one.planted == STRATA[7]}) == 2
    assert len({one.name for one in subjects}) == 74
    sample = known.make(subjects[-1])
    assert sample.mask is not None and sample.mask.any()
    assert not (sample.mask & ~sample.prepared.foreground).any()


def test_a_folder_without_anything_to_plant_into_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    for number, dataset in enumerate(make_study(PhantomSpec(region="head", seed=5, slices=2, rows=64))):
        dataset.SliceThickness = 5
        dataset.Modality = "MR"
        dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match="holds no CT images"):
        planting.planted_set([tmp_path], manifest, 1, "planted", lambda what, fraction: None)


def test_a_series_that_the_bundle_does_not_judge_is_refused_before_any_lesion_is_planted(manifest: Manifest, healthy_series: Path) -> None:
    choosy = manifest.model_copy(update={"scope": manifest.scope.model_copy(update={"min_slices": 500})})
    with pytest.raises(InputError, match="no series can take planted lesions"):
        planting.planted_set([healthy_series], choosy, 1, "healthy", lambda what, fraction: None)


@pytest.mark.slow
def test_an_evaluation_on_planted_lesions_has_strata_and_says_how_it_was_made(tmp_path: Path, healthy_series: Path) -> None:
    bundle = bundles.load(make_bundle(tmp_path / "models" / "tiny"))
    done = run(bundle, Request(planted=(healthy_series,), rounds=1), processes=1, report=lambda what, fraction: None)
    assert len(done) == 1
    table = done[0].table
    assert (table["n"], table["unit"], len(table["strata"])) == (38, "piece of a series", 36)
    assert table["command"] == f"pacs-node evaluate --bundle models/tiny --planted {healthy_series.parent.name}/{healthy_series.name} --rounds 1"
    assert table["score"]["study"]["pixel_ap"] > 0
    assert done[0].refused == ()
    evaluation.write_json(tmp_path / "planted.json", [table])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place", "bundle"),
    [
        ("mr-ge-spgr-defaced", "In", "mr-brain"),
        ("mr-siemens-xa30-enhanced", "In/5_anat-T1w_acq-tfl", "mr-brain"),
        ("ct-ge-head-tilt", "In", "ct-head"),
    ],
)
def test_real_series_take_lesions_of_every_family(dataset_folder: Callable[[str], Path], name: str, place: str, bundle: str) -> None:
    manifest = read_manifest(shipped("models") / bundle)
    known = planting.planted_set([dataset_folder(name) / place], manifest, 1, name, lambda what, fraction: None)
    assert len(known.series[0]) >= 2
    for family in LESIONS:
        subject = next(one for one in known.subjects if one.planted == Stratum(family, 2.0, 0.02))
        sample = known.make(subject)
        assert sample.mask is not None
        held = int(sample.mask.sum((1, 2)).argmax())
        assert sample.mask[held].sum() / sample.prepared.foreground[held].sum() == pytest.approx(0.02, rel=0.3)
