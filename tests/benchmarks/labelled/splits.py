"""Write train.csv and test.csv of the labelled sets, by the splits that their numbers are reported on.

::

    python -m tests.benchmarks.labelled.splits DATA OUT

``DATA`` holds the unpacked sets (labels-mr-brain-tumour, labels-ct-lung, labels-us-busi; those that are missing are left out), ``OUT``
gets a folder for each. Then, for example::

    cp -r tests/benchmarks/labelled/ct-lung /tmp/ct-lung
    pacs-node train --bundle /tmp/ct-lung --data DATA/labels-ct-lung --labels OUT/ct-lung/train.csv
    pacs-node evaluate --bundle /tmp/ct-lung --data DATA/labels-ct-lung --labels OUT/ct-lung/test.csv
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components

from pacs_node.workbench.material import NORMAL, folds

FOLDS = 5
SEED = 0
NEAR = 24  # of 256 bits of a dHash: closer pictures are nearly the same
BUSI_TRAIN = 20
RANGE = 10  # chest CT slices next to each other that count as one patient


@dataclass(frozen=True)
class Picture:
    """One row of a table."""

    file: Path
    label: str
    patient: str = ""
    masks: tuple[Path, ...] = ()


def mr_brain_tumour(folder: Path) -> dict[str, tuple[list[Picture], list[Picture]]]:
    """Five folds over the normals; all tumours are tested in each. Nothing is known of patients, near-duplicates are not in the set."""
    pictures = listed(folder)
    normal, tumours = of(pictures, NORMAL), [one for one in pictures if one.label != NORMAL]
    parts = folds([one.file.name for one in normal], FOLDS, SEED)
    return {
        f"mr-brain-tumour/fold-{number}": (
            [one for one in normal if one.file.name not in part],
            [one for one in normal if one.file.name in part] + tumours,
        )
        for number, part in enumerate(parts)
    }


def ct_lung(folder: Path) -> dict[str, tuple[list[Picture], list[Picture]]]:
    """Normal slices 1 to 140 to train on, normal 151 to 200 and the malignant to test.

    Neighbours in number come from one patient, whom the set does not name: each ten of them count as one.
    """
    pictures = [Picture(one.file, one.label, f"{one.label}-{(int(one.file.stem) - 1) // RANGE}") for one in listed(folder)]
    normal = {int(one.file.stem): one for one in of(pictures, NORMAL)}
    train, test = [normal[number] for number in range(1, 141)], [normal[number] for number in range(151, 201)]
    return {"ct-lung": (train, test + of(pictures, "malignant"))}


def us_busi(folder: Path) -> dict[str, tuple[list[Picture], list[Picture]]]:
    """Twenty normal pictures to train on, the other twelve, the benign and the malignant to test; near-duplicates count as one patient."""
    pictures = [with_masks(one) for one in listed(folder)]
    numbers = clusters([one.file for one in pictures])
    pictures = [Picture(one.file, one.label, f"cluster-{number}", one.masks) for one, number in zip(pictures, numbers, strict=True)]
    normal = of(pictures, NORMAL)
    train: list[Picture] = []
    for part in folds([one.patient for one in normal], len({one.patient for one in normal}), SEED):  # patient after patient
        if len(train) < BUSI_TRAIN:
            train += [one for one in normal if one.patient in part]
    patients = {one.patient for one in train}
    return {"us-busi": (train, [one for one in pictures if one.patient not in patients])}


SETS: dict[str, Callable[[Path], dict[str, tuple[list[Picture], list[Picture]]]]] = {
    "labels-mr-brain-tumour": mr_brain_tumour,
    "labels-ct-lung": ct_lung,
    "labels-us-busi": us_busi,
}


def listed(folder: Path) -> list[Picture]:
    """Return what the set's own labels.csv lists, in the order of names."""
    with (folder / "labels.csv").open(newline="") as handle:
        return sorted((Picture((folder / row["file"]).resolve(), row["label"]) for row in csv.DictReader(handle)), key=lambda one: str(one.file))


def of(pictures: Iterable[Picture], label: str) -> list[Picture]:
    return [one for one in pictures if one.label == label]


def with_masks(one: Picture) -> Picture:
    """Add the masks that lie in the folder beside ``images``: one a lesion."""
    masks = sorted(path for path in (one.file.parent.parent / "mask").glob("*.png") if path.stem.rpartition("_mask")[0] == one.file.stem)
    return Picture(one.file, one.label, one.patient, tuple(masks))


def dhash(path: Path) -> np.ndarray:
    """Return 256 bits: whether each of 16 × 16 cells is brighter than its left neighbour (difference hash, N. Krawetz 2013)."""
    with Image.open(path) as image:
        values = np.asarray(image.convert("L").resize((17, 16), Image.Resampling.LANCZOS), dtype=np.int16)
    return (values[:, 1:] > values[:, :-1]).ravel()


def clusters(files: Iterable[Path]) -> list[int]:
    """Return for each file the number of its cluster of near-duplicates."""
    bits = np.stack([dhash(path) for path in files])
    distance = (bits[:, None] != bits[None]).sum(-1)
    return list(connected_components(distance <= NEAR)[1])


def write(path: Path, pictures: Iterable[Picture]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["file", "label", "patient", "mask"])
        table.writerows([one.file, one.label, one.patient, ";".join(map(str, one.masks))] for one in pictures)


def main(data: Path, out: Path) -> None:
    for name, split in SETS.items():
        if not (data / name).is_dir():
            print(f"{name}: not in {data}")
            continue
        for which, (train, test) in split(data / name).items():
            write(out / which / "train.csv", train)
            write(out / which / "test.csv", test)
            print(f"{which}: {len(train)} to train on, {len(test)} to test, {len(of(test, NORMAL))} of them normal")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tests.benchmarks.labelled.splits DATA OUT")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
