"""``head.npz`` of a bundle: a head trained on a site's own few labels, with what it is worth there; optional.

A file of its own, so that the weights and with them the calibration stay what they are. ``model.yaml`` records its SHA-256.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from pacs_node.analysis.manifest import WEIGHTS, Manifest, sha256
from pacs_node.autoencoder.head import Head
from pacs_node.errors import BundleError

HEAD = "head.npz"
_REMEDY = "train it again with `pacs-node train --head`, or remove it"


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A head and the facts that stand beside its number: labelled studies of each kind, and its cross-validated AUROC by patient."""

    head: Head
    normal: int
    unusual: int
    auroc: tuple[float, float, float]  # value, lower and upper end of the 95 % interval


def write_head(folder: Path, trained: TrainedHead) -> None:
    """Write the file for the weights in ``folder``; recording it in ``model.yaml`` is left to the caller."""
    arrays = {field.name: getattr(trained.head, field.name) for field in fields(Head)}
    facts = {"studies": np.array([trained.normal, trained.unusual]), "auroc": np.array(trained.auroc), "weights_sha256": np.array(sha256(folder / WEIGHTS))}
    np.savez_compressed(folder / HEAD, **arrays, **facts)  # type: ignore[arg-type]


def read_head(folder: Path, manifest: Manifest, weights_sha256: str) -> TrainedHead | None:
    """Read a bundle's head, None where there is none; raises `BundleError` where it is damaged, not recorded, or of other weights."""
    path = folder / HEAD
    if not path.is_file():
        return None
    if manifest.files.get(HEAD) != sha256(path):
        raise BundleError(folder, f"{HEAD} is not the file that model.yaml records (its SHA-256 differs): {_REMEDY}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["weights_sha256"]) != weights_sha256:
                raise BundleError(folder, f"{HEAD} was trained with other weights: {_REMEDY}")
            head = Head(**{field.name: arrays[field.name] for field in fields(Head)})
            normal, unusual = (int(count) for count in arrays["studies"])
            value, low, high = (float(number) for number in arrays["auroc"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(folder, f"{HEAD} is damaged ({type(error).__name__}): {_REMEDY}") from error
    return TrainedHead(head, normal, unusual, (value, low, high))
