"""Phantoms as enhanced multi-frame objects, and what a validator of another maker says about all of them."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, EnhancedPETImageStorage

from pacs_node.analysis import ct, mr, pt
from pacs_node.dicom.header import is_synthetic
from pacs_node.dicom.uids import is_valid_uid
from pacs_node.phantoms import PhantomSpec, make_study, make_volume, write_study

CT = PhantomSpec(slices=4, rows=64, seed=1, tilt=8, enhanced=True)  # the scanner of this seed pads
MR = PhantomSpec(modality="MR", sequence="FLAIR", plane="sagittal", slices=4, rows=64, enhanced=True)
PT = PhantomSpec(modality="PT", slices=36, rows=64, enhanced=True)
READERS = {"CT": ct.read, "MR": mr.read, "PT": pt.read}
CLASSES = {"CT": EnhancedCTImageStorage, "MR": EnhancedMRImageStorage, "PT": EnhancedPETImageStorage}
ALL = pytest.mark.parametrize("spec", [CT, MR, PT], ids=["CT", "MR", "PT"])


@ALL
def test_one_object_holds_all_slices_and_reads_back_as_the_volume(tmp_path: Path, spec: PhantomSpec) -> None:
    paths = write_study(spec, tmp_path)
    assert [path.name for path in paths] == ["IM0001.dcm"]
    assert dcmread(paths[0]).SOPClassUID == CLASSES[spec.modality]
    volume, made = READERS[spec.modality](paths), make_volume(spec).volume
    np.testing.assert_allclose(volume.pixels, made.pixels, rtol=1e-5, atol=1e-6)
    assert [(frame.sop_uid, frame.sop_class_uid, frame.number) for frame in volume.frames] == [
        (frame.sop_uid, frame.sop_class_uid, frame.number) for frame in made.frames
    ]
    for frame, other in zip(volume.frames, made.frames, strict=True):
        assert frame.plane is not None and other.plane is not None
        np.testing.assert_allclose(frame.plane.position, other.plane.position, atol=1e-6)
    assert (volume.unit, volume.frame_of_reference_uid, volume.synthetic) == (made.unit, made.frame_of_reference_uid, True)


@ALL
def test_it_shows_what_the_single_frames_show(spec: PhantomSpec) -> None:
    single = replace(spec, enhanced=False)
    np.testing.assert_array_equal(make_volume(spec).volume.pixels, make_volume(single).volume.pixels)
    assert make_study(spec)[0].SeriesInstanceUID != make_study(single)[0].SeriesInstanceUID


@ALL
def test_its_frames_lie_in_one_stack(spec: PhantomSpec) -> None:
    dataset = make_study(spec)[0]
    assert is_synthetic(dataset) and dataset.SpecificCharacterSet == "ISO_IR 100" and dataset.ContentQualification == "RESEARCH"
    contents = [group.FrameContentSequence[0] for group in dataset.PerFrameFunctionalGroupsSequence]
    assert [content.InStackPositionNumber for content in contents] == list(range(1, spec.slices + 1))
    assert all(list(content.DimensionIndexValues) == [1, content.InStackPositionNumber] for content in contents)
    assert is_valid_uid(dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID)


def test_the_same_specification_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = write_study(MR, tmp_path / "a"), write_study(MR, tmp_path / "b")
    assert first[0].read_bytes() == second[0].read_bytes()


_TOO_NEW = "not a recognized standard attribute - (0x0008,0x001c)"  # Synthetic Data came with PS3.3 2023b, older validators do not know it
_MR1, _US = PhantomSpec(modality="MR", slices=2, rows=64), PhantomSpec(modality="US", slices=2, rows=128)
_OBJECTS = {
    "MRImage": (_MR1, replace(_MR1, sequence="T2", plane="coronal", lesion="texture"), replace(_MR1, sequence="FLAIR", seed=2)),
    "PETImage": (replace(PT, enhanced=False), replace(PT, enhanced=False, slices=3, artefact="noise")),
    "USImage": (_US, replace(_US, colour=True, seed=2, lesion="ellipsoid")),
    "USMultiFrameImage": (replace(_US, enhanced=True), replace(_US, enhanced=True, colour=True)),
    "EnhancedCTImage": (CT, replace(CT, region="body", seed=2)),
    "EnhancedMRImage": (MR, replace(MR, sequence="T1", plane="axial")),
    "EnhancedPETImage": (PT,),
}


@pytest.mark.peers
@pytest.mark.parametrize(("kind", "spec"), [(kind, spec) for kind, specs in _OBJECTS.items() for spec in specs])
def test_dciodvfy_finds_no_error(tmp_path: Path, tool: Callable[[str], str], kind: str, spec: PhantomSpec) -> None:
    program = tool("dciodvfy")
    paths = write_study(spec, tmp_path)
    for path in {paths[0], paths[-1]}:
        result = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=60)
        said = (result.stdout + result.stderr).splitlines()
        assert kind in said
        assert [line for line in said if line.startswith("Error") and _TOO_NEW not in line] == []
