"""Recent scores against a calibration, for processes that load no model."""

from __future__ import annotations

from collections.abc import Sequence

from pacs_node.analysis.calibration_file import CalibrationFile
from pacs_node.analysis.origin import words
from pacs_node.autoencoder import calibration
from pacs_node.autoencoder.calibration import Drift

__all__ = ["Drift", "compare", "threshold_of"]


def threshold_of(found: CalibrationFile, scanner: str) -> float | None:
    """Return what the studies of a scanner are judged by: of its own studies where it is named (as `origin.words` does) and has one, else of all (``""``)."""
    return _yardstick(found, scanner)[1]


def compare(found: CalibrationFile, scanner: str, scores: Sequence[float]) -> Drift | None:
    """Compare recent scores with the calibration studies they are judged by; None where there is no threshold."""
    normal, threshold = _yardstick(found, scanner)
    return None if threshold is None else calibration.drift(scores, normal, threshold, found.alpha, found.unusual)


def _yardstick(found: CalibrationFile, scanner: str) -> tuple[Sequence[float], float | None]:
    if not scanner:
        return found.scores, found.threshold
    own = [(one.scores, one.threshold) for one in found.bins if one.threshold is not None and words(one.origin) == scanner]
    return own[-1] if own else ((), None)
