"""A series to measure the analysis on: a phantom of the bundle's modality as files, of any length and in two transfer syntaxes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLSLossless

from pacs_node.analysis.manifest import Manifest
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import InputError
from pacs_node.phantoms import PhantomSpec
from pacs_node.phantoms.study import make_study

SYNTAXES = {"uncompressed": ExplicitVRLittleEndian, "JPEG-LS": JPEGLSLossless}
"""What the files of a measured series are encoded in, by the name in the table."""

_MADE = 45  # slices that are made; a longer series shows them several times, closer together
_SEED = 5


def write_series(manifest: Manifest, slices: int, rows: int, folder: Path) -> dict[str, list[Path]]:
    """Write one series in each of `SYNTAXES`, a folder each; returns the files. Raises `InputError` where no phantom is like the bundle's studies."""
    images = _stretched(make_study(_spec(manifest, min(slices, _MADE), rows)), slices)
    files: dict[str, list[Path]] = {}
    for name, syntax in SYNTAXES.items():
        (folder / name).mkdir(parents=True)
        files[name] = [folder / name / f"IM{index:05d}.dcm" for index in range(slices)]
        packed: dict[bytes, Dataset] = {}  # each picture is compressed once, however often it is shown
        for path, image in zip(files[name], images, strict=True):
            written = _compressed(image, syntax, packed) if syntax.is_encapsulated else image
            written.save_as(path, enforce_file_format=True)
    return files


def _spec(manifest: Manifest, slices: int, rows: int) -> PhantomSpec:
    part = manifest.recipe.phantoms
    if part is None:
        raise InputError(f"the bundle {manifest.name} has no recipe.phantoms: name one of the shipped bundles with --bundle")
    spec = PhantomSpec(modality=manifest.modality, region=part.region, seed=_SEED, slices=slices, rows=rows, sequence=part.sequences[0], plane=part.planes[0])
    extent = manifest.scope.coverage_mm[0] * 1.5
    return spec if slices * 5 > extent else replace(spec, spacing=min(extent / max(1, slices - 1), manifest.scope.max_slice_spacing_mm))


def _stretched(made: Sequence[Dataset], slices: int) -> list[Dataset]:
    """Spread ``slices`` images evenly from the first to the last of those made, each showing the nearest one's pixels."""
    if len(made) == slices:
        return list(made)
    return [_moved(made[round(at)], made, float(at), index) for index, at in enumerate(np.linspace(0, len(made) - 1, slices))]


_OF_ITS_OWN = ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient")  # of an image; the rest of the header is shared


def _moved(image: Dataset, made: Sequence[Dataset], at: float, index: int) -> Dataset:
    moved = Dataset()
    moved.update({element.tag: element for element in image if element.keyword not in _OF_ITS_OWN})
    moved.file_meta = copy.deepcopy(image.file_meta)
    moved.SOPInstanceUID = moved.file_meta.MediaStorageSOPInstanceUID = UID(derive_uid("bench", image.SOPInstanceUID, index))
    moved.InstanceNumber = index + 1
    if "ImagePositionPatient" in image:
        first, last = (np.array(one.ImagePositionPatient, dtype=float) for one in (made[0], made[-1]))
        moved.ImagePositionPatient = [f"{value:.6f}"[:16] for value in first + (last - first) * at / (len(made) - 1)]
    return moved


def _compressed(image: Dataset, syntax: UID, packed: dict[bytes, Dataset]) -> Dataset:
    pixels = image.PixelData
    if pixels not in packed:
        packed[pixels] = copy.deepcopy(image)
        packed[pixels].compress(str(syntax), generate_instance_uid=False)
    moved = Dataset()
    moved.update(image)
    moved.file_meta = copy.deepcopy(packed[pixels].file_meta)
    moved.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    moved["PixelData"] = packed[pixels]["PixelData"]
    return moved
