"""An engine that needs no model: it says the same of every series, so that the journey can be measured without the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from pacs_node.dicom.header import read_header
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import OutOfScope
from pacs_node.executors.retry import LADDER, Effort
from pacs_node.records import Algorithm, Finding, Frame, Plane, Verdict, Volume

_SIDE = 8  # pixels of its maps
_UNITS = {"CT": "[hnsf'U]", "PT": "{SUVbw}g/ml"}


@dataclass(frozen=True)
class StandIn:
    """Judges nothing; a series of a single image is out of scope."""

    def analyse(self, files: Sequence[Path], name: str, folders: Mapping[str, Path], beat: Callable[[float], None], effort: Effort = LADDER[0]) -> Finding:
        """Return the same score for every series; see `pacs_node.journey.run_job.Engine`."""
        if len(files) < 2:
            raise OutOfScope("a single image is no volume")
        beat(0.5)
        headers = sorted((read_header(file) for file in files), key=lambda header: int(header.InstanceNumber))
        return _finding(headers, name)


def _finding(headers: Sequence[Dataset], name: str) -> Finding:
    first, count = headers[0], len(headers)
    planes = tuple(_plane(header, 2.0) for header in headers)
    frames = tuple(Frame(str(header.SOPInstanceUID), str(header.SOPClassUID), None, _plane(header, 1.0), (1.0, 1.0)) for header in headers)
    maps = np.zeros((count, _SIDE, _SIDE), np.float32)
    heat = maps.copy()
    heat[count // 2, 3:5, 3:5] = 1.0
    reference, modality = first.get("FrameOfReferenceUID"), str(first.Modality)
    pixels = np.zeros((count, 2 * _SIDE, 2 * _SIDE), np.float32)
    return Finding(
        volume=Volume(pixels, _UNITS.get(modality, "1"), frames, modality, str(first.SeriesInstanceUID), str(reference) if reference else None),
        algorithm=Algorithm(name, "0", "bench", "a" * 64, "b" * 64, "", derive_uid("bench stand-in", name)),
        score=1.0,
        verdict=Verdict.UNCALIBRATED,
        calibration=None,
        percentile=None,
        p_value=None,
        parts={"residual": 1.0},
        slice_scores=np.linspace(0, 1, count, dtype=np.float32),
        top_slices=(count // 2,),
        heat=heat,
        heat_calibrated=False,
        planes=planes,
        view=maps,
        reconstruction=maps,
        embedding=np.zeros((count, 4), np.float16),
        window=(40.0, 80.0),
    )


def _plane(header: Dataset, spacing: float) -> Plane | None:
    if "ImagePositionPatient" not in header:
        return None
    x, y, z = (float(value) for value in header.ImagePositionPatient)
    return Plane((x, y, z), (1, 0, 0, 0, 1, 0), (spacing, spacing), 5.0)
