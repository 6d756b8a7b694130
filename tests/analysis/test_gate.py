"""What a bundle may judge, and the words with which everything else is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pacs_node.analysis import ct, gate
from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.config import shipped
from pacs_node.errors import OutOfScope
from pacs_node.records import Volume
from tests.analysis.conftest import volume


@pytest.fixture
def manifest(tiny: Path) -> Manifest:
    return read_manifest(tiny)


def scaled(factor: float) -> Volume:
    source = volume()
    frames = []
    for frame in source.frames:
        assert frame.plane is not None
        plane = type(frame.plane)(frame.plane.position, frame.plane.orientation, (2.0 * factor, 2.0 * factor), 5.0)
        frames.append(type(frame)(frame.sop_uid, frame.sop_class_uid, None, plane))
    return volume(frames=tuple(frames))


def test_what_the_bundle_was_made_for_passes(manifest: Manifest) -> None:
    refusals = []
    try:
        gate.check(volume(), manifest)
    except OutOfScope as refusal:
        refusals.append(refusal.reason)
    assert refusals == []


@pytest.mark.parametrize(
    ("refused", "word"),
    [
        (volume(modality="MR"), "the series is MR"),
        (volume(slices=1), "1 usable slice, at least 5"),
        (volume(slices=4), "4 usable slices"),
        (volume(pixels=np.full((8, 96, 96), np.nan, dtype=np.float32)), "nothing but padding"),
        (volume(pixels=np.full((8, 96, 96), 40, dtype=np.float32)), "blank"),
        (volume(pixels=np.linspace(-1000, -900, 8 * 96 * 96, dtype=np.float32).reshape(8, 96, 96)), "nothing but air"),
        (scaled(3.0), "not the size of a head"),
        (scaled(0.3), "not the size of a head"),
        (volume(pixels=np.where(volume().pixels > -500, 700, -1000).astype(np.float32)), "physical phantom"),
    ],
)
def test_everything_else_is_refused_in_words(manifest: Manifest, refused: Volume, word: str) -> None:
    with pytest.raises(OutOfScope, match=word) as reason:
        gate.check(refused, manifest)
    assert "tiny" in reason.value.reason


def test_slices_too_far_apart_or_covering_too_little_are_refused(manifest: Manifest) -> None:
    source = volume()
    planes = [frame.plane for frame in source.frames]
    far = [type(plane)((plane.position[0], plane.position[1], 20.0 * index), plane.orientation, plane.spacing) for index, plane in enumerate(planes) if plane]
    frames = tuple(type(frame)(frame.sop_uid, frame.sop_class_uid, None, plane) for frame, plane in zip(source.frames, far, strict=True))
    with pytest.raises(OutOfScope, match=r"20\.0 mm apart"):
        gate.check(volume(frames=frames), manifest)
    narrow = manifest.model_copy(update={"scope": manifest.scope.model_copy(update={"coverage_mm": (100.0, 300.0)})})
    with pytest.raises(OutOfScope, match="cover 35 mm"):
        gate.check(source, narrow)


@pytest.mark.parametrize(
    ("data", "pattern", "accepts"),
    [
        ("ct-ge-head-tilt", "**/*.dcm", {"ct-head"}),
        ("ct-philips-headphantom-5mm", "**/I*", set()),
        ("acrin-nsclc-fdg-pet-042", "ct_ge_pet/*.dcm", {"ct-body"}),
    ],
)
def test_real_series_pass_the_gate_of_their_own_region_and_a_physical_phantom_of_none(
    dataset_folder: Callable[[str], Path], data: str, pattern: str, accepts: set[str]
) -> None:
    read = ct.read([path for path in sorted(dataset_folder(data).glob(pattern)) if path.is_file()][:60])
    passed = set()
    for name in ("ct-head", "ct-body"):
        try:
            gate.check(read, read_manifest(shipped("models") / name))
            passed.add(name)
        except OutOfScope:
            pass
    assert passed == accepts
