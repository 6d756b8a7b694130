"""Whether a bundle's network may compute in bfloat16 on a device: where the device is made for it and the bundle's scores have been seen to agree.

A rounded network gives other residuals. Whether that matters depends on the bundle, so it is measured (``pacs-node bench analysis --agreement 40
--record``) and kept beside the weights as ``agreement.json``: the percentile of a score at the threshold may move by half a point at most. Without
that file, with other weights or another calibration, on other devices: float32. Nothing is timed when a bundle is loaded, for the same files, bundle
and machine have to give the same finding.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from pacs_node.autoencoder.precision import has_bfloat16
from pacs_node.records import Algorithm

AGREEMENT = "agreement.json"
MOST = 0.5  # percentile points that a score at the threshold may move
FEWEST = 20  # studies that agreement is measured on


class Agreement(BaseModel):
    """How far bfloat16 moves a bundle's study scores: over ``studies`` studies at most ``score``, at the threshold ``percentile`` points.

    ``faster``: whether it was faster on the device that it was measured on; the two digests say with which model and calibration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle_hash: str
    calibration_hash: str
    studies: int
    score: float
    percentile: float
    faster: bool

    @property
    def holds(self) -> bool:
        """Whether the scores agree well enough, and it pays."""
        return self.studies >= FEWEST and self.percentile <= MOST and self.faster


def is_half(folder: Path, algorithm: Algorithm, device: str) -> bool:
    """Tell whether the bundle in ``folder`` computes in bfloat16 on ``device``; a record that is damaged, or of another model, counts as none."""
    file = folder / AGREEMENT
    if not file.is_file() or not has_bfloat16(torch.device(device)):
        return False
    try:
        found = Agreement.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return False
    return found.holds and (found.bundle_hash, found.calibration_hash) == (algorithm.bundle_hash, algorithm.calibration_hash)
