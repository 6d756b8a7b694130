"""Whether a bundle's network may compute in bfloat16 on a device: where the device is made for it and the bundle's scores have been seen to agree.

A rounded network gives other residuals. Whether that matters depends on the bundle, so it is measured (``pacs-node bench analysis --record``) and
kept beside the weights as ``precision.json``: the percentile of a score at the threshold may move by half a point at most. Without that file,
with other weights, on other processors: float32. Nothing is timed here, for the same files, bundle and machine have to give the same finding.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

PRECISION = "precision.json"
MOST = 0.5  # percentile points that a score at the threshold may move
FEWEST = 20  # studies that agreement is measured on
_CPU_FLAGS = frozenset(("amx_bf16", "avx512_bf16"))


class Agreement(BaseModel):
    """How far bfloat16 moves a bundle's study scores: over ``studies`` studies at most ``score``, at the threshold ``percentile`` points."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights_sha256: str
    studies: int
    score: float
    percentile: float

    @property
    def holds(self) -> bool:
        """Whether the scores agree well enough."""
        return self.studies >= FEWEST and self.percentile <= MOST


def is_half(folder: Path, weights_sha256: str, device: str) -> bool:
    """Tell whether the bundle in ``folder`` computes in bfloat16 on ``device``; a file that is damaged, or of other weights, counts as none."""
    file = folder / PRECISION
    if not file.is_file() or not has_bfloat16(device):
        return False
    try:
        agreement = Agreement.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return False
    return agreement.holds and agreement.weights_sha256 == weights_sha256


@lru_cache(maxsize=4)
def has_bfloat16(device: str) -> bool:
    """Tell whether a device computes in bfloat16 faster than in float32: GPUs, and CPUs with AMX or AVX512-bf16."""
    if device != "cpu":
        return True
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    return any(not _CPU_FLAGS.isdisjoint(line.split()) for line in lines if line.startswith("flags"))
