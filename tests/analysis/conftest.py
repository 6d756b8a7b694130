"""Small CT series as real files, and a bundle that is trained in a moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.manifest import read_manifest
from pacs_node.analysis.pipeline import prepare
from pacs_node.autoencoder.baselines import fit_baselines
from pacs_node.autoencoder.network import Network
from pacs_node.autoencoder.normals import Example, fit_normals
from pacs_node.dicom.uids import derive_uid
from pacs_node.records import Frame, Plane, Volume

ROWS = 96

torch.set_num_threads(1)  # tests run beside other work, where threads that wait for each other cost more than they bring

MODEL_YAML = """\
# a comment that must survive training
format: 1
name: tiny
version: "0.1"
title: Tiny
licence: Apache-2.0
modality: CT
regions: [head]
window: [40, 80]
network: {channels: [8, 16], gates: [open, open]}
preprocessing:
  pixels: 64
  spacing_mm: 4.0                     # another comment
  body_above: -500
  intensity: {physical: [-1000, 0, 100, 2000], value: [0.0, 0.3, 0.8, 1.0]}
scope:
  min_slices: 5
  body_width_mm: [90, 260]
  body_height_mm: [110, 320]
  tissue: {soft tissue: {between: [-10, 100], share: [0.25, 1.0]}}
scoring: {bins: 2}
recipe:
  epochs: 2
  phantoms: {region: head, train: 8, held_out: 3, calibrate: 7, slices: 16, rows: 64}
"""


def slice_pixels(seed: int, rows: int = ROWS) -> np.ndarray:
    """An ellipse of soft tissue (30 HU) with noise in air, int16."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :rows] - (rows - 1) / 2
    inside = (x / (0.33 * rows)) ** 2 + (y / (0.4 * rows)) ** 2 < 1
    return np.where(inside, 30 + rng.normal(0, 8, inside.shape), -1000).round().astype(np.int16)


def ct_slice(index: int, position: float | None = None, **changes: object) -> Dataset:
    """One CT image; ``changes`` are attributes by keyword, None removes one."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = derive_uid("test", index, sorted((key, str(value)) for key, value in changes.items()))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = derive_uid("study"), derive_uid("series")
    dataset.FrameOfReferenceUID = derive_uid("frame")
    dataset.Modality, dataset.ImageType, dataset.PatientID, dataset.PatientName = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "P1", "Doe"
    dataset.AcquisitionNumber, dataset.InstanceNumber = 1, index + 1
    dataset.ImagePositionPatient = [-96.0, -96.0, 5.0 * index if position is None else position]
    dataset.ImageOrientationPatient, dataset.PixelSpacing, dataset.SliceThickness = [1, 0, 0, 0, 1, 0], [2.0, 2.0], 5.0
    dataset.Rows = dataset.Columns = ROWS
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "HU"
    dataset.PixelData = slice_pixels(index).tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[Dataset]], list[Path]]:
    """Return a function that writes datasets to files and returns their paths."""

    def save(datasets: list[Dataset]) -> list[Path]:
        paths = [tmp_path / "series" / f"{number:03}.dcm" for number in range(len(datasets))]
        (tmp_path / "series").mkdir(exist_ok=True)
        for dataset, path in zip(datasets, paths, strict=True):
            dataset.save_as(path, enforce_file_format=True)
        return paths

    return save


def volume(seed: int = 0, slices: int = 8, **changes: object) -> Volume:
    """A volume of soft tissue ellipses with planes 5 mm apart; not from files."""
    planes = [Plane((-96.0, -96.0, 5.0 * index), (1, 0, 0, 0, 1, 0), (2.0, 2.0), 5.0) for index in range(slices)]
    fields: dict[str, object] = {
        "pixels": np.stack([slice_pixels(100 * seed + index) for index in range(slices)]).astype(np.float32),
        "unit": "[hnsf'U]",
        "frames": tuple(Frame(derive_uid(seed, index), CTImageStorage, None, plane) for index, plane in enumerate(planes)),
        "modality": "CT",
        "series_uid": derive_uid("series", seed),
        "synthetic": True,
    }
    return Volume(**{**fields, **changes})


def make_bundle(folder: Path) -> Path:
    """Write a loadable bundle whose network is random but whose statistics are real."""
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(MODEL_YAML)
    manifest = read_manifest(folder)
    torch.manual_seed(0)
    network = Network(manifest.architecture).eval()
    prepared = [prepare(volume(seed), manifest) for seed in range(6)]
    examples = [Example(one.x, torch.from_numpy(one.foreground), one.stratum) for one in prepared]
    normals = fit_normals(network, [one.x for one in examples], examples, manifest.scoring.fusion, manifest.scoring.bins)
    bundles.save(folder, network, normals, fit_baselines([(one.x, one.foreground) for one in examples]))
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny bundle that no test may change."""
    return make_bundle(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture
def tiny(made_once: Path, tmp_path: Path) -> Path:
    """The folder of a tiny bundle of the test's own."""
    return shutil.copytree(made_once, tmp_path / "models" / "tiny")
