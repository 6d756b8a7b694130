"""A model bundle: one folder that an administrator installs, swaps and removes.

::

    models/ct-head/
      model.yaml            what it is, preprocessing, scope, recipe, SHA-256 of the files below
      weights.safetensors   the network and what healthy looks like to it
      baselines.npz         the simple detectors it has to beat
      calibration.json      scores of calibration studies (optional)
      head.npz              what a site's few labels taught (optional)
      CARD.md               generated: what it is good for and what not
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pacs_node.analysis import portrait
from pacs_node.analysis.calibration_file import CalibrationFile, read_calibration
from pacs_node.analysis.head_file import HEAD, TrainedHead, read_head
from pacs_node.analysis.installed import MODEL
from pacs_node.analysis.manifest import BASELINES, CALIBRATION, WEIGHTS, Manifest, read_manifest, sha256
from pacs_node.autoencoder import threads
from pacs_node.autoencoder.baselines import Baselines
from pacs_node.autoencoder.familiarity import Familiarity
from pacs_node.autoencoder.network import Detector, Network
from pacs_node.autoencoder.reference import Reference
from pacs_node.autoencoder.scoring import Normals, Scores, Seen, Stratum, judge, look
from pacs_node.autoencoder.whole import Whole
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import BundleError
from pacs_node.records import Algorithm

_NETWORK, _NORMALS, _WHOLE, _REFERENCE, _GATE = "network.", "normals.", "whole.", "reference.", "gate."
_DETECTOR = _NETWORK + "detector."
_FORMAT = "format"  # of the portrait that the gate was fitted on


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded bundle. ``network`` is in evaluation mode; `algorithm` stands in every object of a run."""

    folder: Path
    manifest: Manifest
    network: Network
    normals: Normals
    baselines: Baselines
    calibration: CalibrationFile | None
    algorithm: Algorithm
    reference: Reference | None = None  # of bundles that keep training slices for the report on the spot
    familiarity: Familiarity | None = None  # None: the bundle has no learnt gate
    head: TrainedHead | None = None  # of bundles that learnt from a site's labels

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.manifest.name

    def judge(self, x: Tensor, foreground: Tensor, stratum: Stratum) -> tuple[Seen, Scores]:
        """Look at prepared slices (S, P, P) and score them as the node would, in float32 on the device of the network."""
        seen = look(self.network, x)
        return seen, judge(x, seen, foreground, self.normals, self.manifest.scoring.fusion, stratum)


def load(folder: Path) -> Bundle:
    """Load and verify a bundle; raises `BundleError` naming the file at fault and the remedy."""
    threads.keep_memory()  # maps of a few megabytes come and go from here on
    manifest = read_manifest(folder)
    weights, baselines = (_verified(folder, manifest, name) for name in (WEIGHTS, BASELINES))
    network, normals, reference, familiarity = _weights(folder, manifest, weights)
    digests = {name: sha256(folder / name) for name in (MODEL, WEIGHTS, BASELINES)}
    calibration, algorithm = read_calibration(folder, digests[WEIGHTS]), _algorithm(folder, manifest, digests)
    head = read_head(folder, manifest, digests[WEIGHTS])
    return Bundle(folder, manifest, network, normals, _baselines(folder, baselines), calibration, algorithm, reference, familiarity, head)


def _verified(folder: Path, manifest: Manifest, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise BundleError(folder, f"{name} is missing: train the bundle with `pacs-node train --bundle {folder} --data DIR`, or install it again")
    if name not in manifest.files:
        raise BundleError(folder, f"{MODEL} records no SHA-256 of {name}: train the bundle again, or install it again")
    if sha256(path) != manifest.files[name]:
        raise BundleError(folder, f"{name} is not the file that {MODEL} records (its SHA-256 differs): install the bundle again, or train it again")
    return path


def load_network(folder: Path, manifest: Manifest, *, detector: bool = True) -> Network:
    """Load and verify the network alone, whatever else the bundle lacks, in evaluation mode; raises `BundleError`. ``detector``: with its own."""
    try:
        tensors = load_file(_verified(folder, manifest, WEIGHTS))
        if not detector:
            manifest = manifest.model_copy(update={"detector": None})
            tensors = {name: value for name, value in tensors.items() if not name.startswith(_DETECTOR)}
        return _network(manifest, tensors)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise BundleError(folder, f"{WEIGHTS} does not fit the network that {MODEL} describes ({type(error).__name__}): train the bundle again") from error


def _network(manifest: Manifest, tensors: Mapping[str, Tensor]) -> Network:
    network = Network(manifest.architecture)
    if manifest.detectors is not None:
        network.detector = Detector(manifest.detectors)
    network.load_state_dict({name.removeprefix(_NETWORK): value for name, value in tensors.items() if name.startswith(_NETWORK)})
    return network.eval()


def _weights(folder: Path, manifest: Manifest, path: Path) -> tuple[Network, Normals, Reference | None, Familiarity | None]:
    try:
        tensors = load_file(path)
        network = _network(manifest, tensors)
        normals = _normals(tensors, manifest)
        kept = {name.removeprefix(_REFERENCE): value for name, value in tensors.items() if name.startswith(_REFERENCE)}
        reference = Reference(**kept) if kept else None
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise BundleError(
            folder, f"{WEIGHTS} does not fit the network that {MODEL} describes ({type(error).__name__}): train the bundle again, or install it again"
        ) from error
    return network, normals, reference, _familiarity(folder, manifest, tensors)


def _normals(tensors: Mapping[str, Tensor], manifest: Manifest) -> Normals:
    """Return what is healthy; raises `ValueError` where ``model.yaml`` weighs only parts that the bundle has not learnt."""
    whole = {name.removeprefix(_WHOLE): value for name, value in tensors.items() if name.startswith(_WHOLE)}
    normals = Normals(**{name: tensors[_NORMALS + name] for name in Normals.FIELDS}, whole=Whole(**whole) if whole else None)
    if not sum(manifest.scoring.study[: len(normals.study_parts)]):
        raise ValueError("the study parts that count were not learnt")
    return normals


def _familiarity(folder: Path, manifest: Manifest, tensors: Mapping[str, Tensor]) -> Familiarity | None:
    """Return what is usual, None where the bundle holds nothing about it or ``model.yaml`` does not ask for it."""
    if manifest.scope.familiarity is None or not any(name.startswith(_GATE) for name in tensors):
        return None
    try:
        if int(tensors[_GATE + _FORMAT]) != portrait.FORMAT:
            raise ValueError("measured by another version")
        fitted = Familiarity(**{name: tensors[_GATE + name] for name in Familiarity.FIELDS})
    except (KeyError, ValueError, IndexError) as error:
        raise BundleError(
            folder,
            f"what {WEIGHTS} says of usual series is damaged or of another version: train the bundle again, or take `scope.familiarity` out of {MODEL}",
        ) from error
    return fitted


def _baselines(folder: Path, path: Path) -> Baselines:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Baselines.from_arrays({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(folder, f"{BASELINES} is damaged ({type(error).__name__}): train the bundle again, or install it again") from error


def _algorithm(folder: Path, manifest: Manifest, digests: Mapping[str, str]) -> Algorithm:
    """Return who judged; the model's bytes are model.yaml, weights and baselines, the calibration is named apart."""
    whole = hashlib.sha256("\n".join(f"{name} {digest}" for name, digest in sorted(digests.items())).encode()).hexdigest()
    calibration = folder / CALIBRATION
    return Algorithm(
        name=manifest.name,
        version=manifest.version,
        manufacturer=manifest.manufacturer,
        bundle_hash=whole,
        config_hash=digests[MODEL],
        calibration_hash=sha256(calibration) if calibration.is_file() else "",
        device_uid=derive_uid("bundle", manifest.name, whole),
    )


def save(
    folder: Path, network: Network, normals: Normals, baselines: Baselines, reference: Reference | None = None, familiarity: Familiarity | None = None
) -> None:
    """Write weights and baselines and record their SHA-256 in ``model.yaml``, whose other lines and comments stay as they are.

    A calibration and a head that belong to former weights are removed: they would only be refused.
    """
    tensors: dict[str, Tensor] = {_NETWORK + name: value.contiguous() for name, value in network.state_dict().items()}
    tensors |= {_NORMALS + name: getattr(normals, name).contiguous() for name in Normals.FIELDS}
    if normals.whole is not None:
        tensors |= {_WHOLE + name: value for name, value in normals.whole.tensors().items()}
    if reference is not None:
        tensors |= {_REFERENCE + name: getattr(reference, name).contiguous() for name in Reference.FIELDS}
    if familiarity is not None:
        tensors |= {_GATE + name: getattr(familiarity, name).contiguous() for name in Familiarity.FIELDS}
        tensors[_GATE + _FORMAT] = torch.tensor(portrait.FORMAT)
    save_file(tensors, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # the library makes it private, but the node may run as another user
    np.savez_compressed(folder / BASELINES, **baselines.arrays())  # type: ignore[arg-type]
    record(folder, {name: sha256(folder / name) for name in (WEIGHTS, BASELINES)})
    (folder / HEAD).unlink(missing_ok=True)
    calibration = read_calibration_hash(folder)
    if calibration not in (None, sha256(folder / WEIGHTS)):
        (folder / CALIBRATION).unlink()


def read_calibration_hash(folder: Path) -> str | None:
    """Return which weights the calibration in a folder was made with, ``""`` where that cannot be read, None without a calibration."""
    path = folder / CALIBRATION
    if not path.is_file():
        return None
    try:
        return CalibrationFile.model_validate_json(path.read_bytes()).weights_sha256
    except ValueError:
        return ""


def record(folder: Path, files: Mapping[str, str]) -> None:
    """Replace the block ``files:`` of ``model.yaml``."""
    path = folder / MODEL
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next((index for index, line in enumerate(lines) if line.startswith("files:")), len(lines))
    end = next((index for index in range(start + 1, len(lines)) if lines[index][:1] not in ("", " ", "#")), len(lines))
    block = ["files:", *(f"  {name}: {digest}" for name, digest in files.items())]
    path.write_text("\n".join([*lines[:start], *block, *lines[end:]]) + "\n", encoding="utf-8")
