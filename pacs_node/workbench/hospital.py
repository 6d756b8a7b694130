"""A simulated hospital day: small studies of all modalities, and what happens to studies on their way. Made from a seed; nothing is sent here.

Each study is of a `Kind`: it says in what pieces the study is sent, and how it has to end. Pieces of the first wave go out before those of the
second, the pieces of one wave in any order, several at once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    UltrasoundImageStorage,
)
from pynetdicom.dsutils import encode

from pacs_node.dicom.uids import derive_uid

_ROWS = 16  # pixels: what is measured is the journey, not the pixels
_OF_UNROUTED = "CR"

SOP_CLASSES: Mapping[str, str] = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
    "US": UltrasoundImageStorage,
    _OF_UNROUTED: ComputedRadiographyImageStorage,
}
"""Modality → SOP class of its images; no rule of the day wants the last one."""

PIPELINES: Mapping[str, str] = {"CT": "ct-head", "MR": "mr-brain", "PT": "pt-body", "US": "us-breast"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What happens to a study. ``share`` of the day, in percent; ``ends``: see `accounts.Ending`."""

    share: int
    ends: str
    aside: str = ""  # conflict | quarantine: one object of it is kept aside
    images: int = 4


KINDS: Mapping[str, Kind] = {
    "plain": Kind(42, "results"),
    "sent twice": Kind(10, "results"),
    "association aborted": Kind(10, "results"),
    "late slice": Kind(8, "results"),
    "patient corrected": Kind(8, "results"),
    "two patients": Kind(5, "held"),
    "other pixels": Kind(5, "results", aside="conflict"),
    "damaged object": Kind(4, "results", aside="quarantine"),
    "out of scope": Kind(4, "notice", images=1),
    "no rule": Kind(4, "no pipeline"),
}
"""The kinds of studies. An engine that stands in calls a series of one image out of scope."""


@dataclass(frozen=True, slots=True)
class Image:
    """One object as it is sent: its encoded dataset."""

    study_uid: str
    sop_uid: str
    sop_class_uid: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """What one association brings of a study. ``aborted``: it breaks off in the middle of the last image."""

    images: tuple[Image, ...]
    aborted: bool = False


@dataclass(frozen=True, slots=True)
class DayStudy:
    """A study of the day: what is sent of it in each wave, and for whom its results have to be in the end."""

    study_uid: str
    kind: str
    modality: str
    patient_id: str
    images: int  # that it has in the end
    waves: tuple[Piece | None, Piece | None]


def rules() -> dict[str, Any]:
    """Return the rules of the day: a report, or a notice, of every modality that has a pipeline."""
    wanted = [
        {"name": modality, "when": {"Modality": modality}, "pipeline": pipeline, "results": ["sr"], "notice": True, "send_to": ["archive"]}
        for modality, pipeline in PIPELINES.items()
    ]
    return {"rules": [*wanted, {"name": "anything else", "otherwise": True, "pipeline": None, "results": []}]}


def plan(studies: int, seed: int) -> list[DayStudy]:
    """Return the studies of a day: every kind at least once where there are enough of them, the rest by their shares."""
    dice = random.Random(seed)
    shares = [kind.share for kind in KINDS.values()]
    kinds = [*KINDS, *dice.choices(list(KINDS), shares, k=max(0, studies - len(KINDS)))][:studies]
    modalities = list(PIPELINES)
    return [_study(f"{seed}.{number}", kind, modalities[number % len(modalities)]) for number, kind in enumerate(kinds)]


def plain_studies(name: str, count: int) -> list[Sequence[Image]]:
    """Return studies to which nothing happens, by turns of each modality."""
    modalities = list(PIPELINES)
    return [
        [_image(f"{name}.{number}", modalities[number % len(modalities)], index, f"P{name}.{number}") for index in range(KINDS["plain"].images)]
        for number in range(count)
    ]


def _study(name: str, kind: str, modality: str) -> DayStudy:
    row = KINDS[kind]
    modality = _OF_UNROUTED if kind == "no rule" else modality if kind != "out of scope" else "CT"
    right, wrong = f"P{name}", f"W{name}"
    whole = [_image(name, modality, index, right) for index in range(row.images)]
    first, second = _pieces(kind, name, modality, whole, right, wrong)
    return DayStudy(whole[0].study_uid, kind, modality, right, len(whole), (Piece(tuple(first), kind == "association aborted"), second))


def _pieces(kind: str, name: str, modality: str, whole: list[Image], right: str, wrong: str) -> tuple[Sequence[Image], Piece | None]:
    """Return what is sent in the first and in the second wave."""
    match kind:
        case "sent twice":
            return whole, Piece(tuple(whole))
        case "association aborted":
            return whole[: len(whole) // 2 + 1], Piece(tuple(whole))
        case "late slice":
            return whole[:-1], Piece(tuple(whole[-1:]))
        case "patient corrected":
            return [_image(name, modality, index, wrong) for index in range(len(whole))], Piece(tuple(whole))
        case "two patients":
            return [*whole[:-1], _image(name, modality, len(whole) - 1, wrong)], None
        case "other pixels":
            return whole, Piece((_image(name, modality, 0, right, other_pixels=True),))
        case "damaged object":
            one = _image(name, modality, len(whole), right)
            return [*whole, Image("", one.sop_uid, one.sop_class_uid, one.body[: one.body.index(b"Bench^") + 3])], None
        case _:
            return whole, None


def _image(name: str, modality: str, index: int, patient: str, *, other_pixels: bool = False) -> Image:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = SOP_CLASSES[modality], derive_uid("bench day", name, index)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = derive_uid("bench day", name), derive_uid("bench day", name, "series")
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = patient, f"Bench^{patient}", "19700101", "O"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "20260102", "101010", "1", name[:16], ""
    ds.SeriesDate, ds.SeriesTime, ds.ContentDate, ds.ContentTime = "20260102", "101011", "20260102", "101012"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.Manufacturer, ds.ImageType = modality, 1, index + 1, "bench", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Rows = ds.Columns = _ROWS
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, "MONOCHROME2", 16, 16, 15, 0
    if modality in ("CT", "MR", "PT"):
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = derive_uid("bench day", name, "frame"), ""
        ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness = [0, 0, 5 * index], [1, 0, 0, 0, 1, 0], [1, 1], "5"
    seed = derive_uid("bench pixels", name, index, other_pixels)
    pixels = np.random.default_rng([int(digit) for digit in seed if digit.isdigit()]).integers(0, 4000, (_ROWS, _ROWS))
    ds.PixelData = pixels.astype("<u2").tobytes()
    body = encode(ds, is_implicit_vr=False, is_little_endian=True)
    assert body is not None
    return Image(str(ds.StudyInstanceUID), str(ds.SOPInstanceUID), str(ds.SOPClassUID), body)
