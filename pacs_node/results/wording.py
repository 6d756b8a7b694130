"""The words that results use, for people: no object says more about a patient than the verdicts of `pacs_node.records.Verdict`.

Everything here is pure: facts in, text out. Texts are ASCII as far as they are ours, so that they fit any character set.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset

from pacs_node.records import Algorithm, Calibration, Finding, Plane, Population, Run, Verdict, Volume
from pacs_node.results.modalities import manner_of
from pacs_node.results.naming import Name, name_of

RESEARCH_USE = "AI, research use, not for diagnosis"
UNCALIBRATED_HERE = "uncalibrated here: no percentile, p-value or verdict"

POPULATIONS = {
    Population.SITE: "studies of this site",
    Population.FOREIGN: "studies of another site",
    Population.SYNTHETIC: "synthetic studies",
}

_ASCII = str.maketrans({"·": "-", "−": "-", "–": "-", "—": "-", "≤": "<=", "≥": ">=", "×": "x", "…": "...", "“": '"', "”": '"', "’": "'", "µ": "u", "ß": "ss"})
LONG_STRING = 64  # characters of an LO value (PS3.5 6.2)


def to_ascii(text: str) -> str:
    """Write a text with ASCII characters only: accents are dropped, what has no like becomes ``?``."""
    folded = unicodedata.normalize("NFKD", text.translate(_ASCII))
    plain = "".join(char for char in folded if not unicodedata.combining(char))
    return plain.encode("ascii", "replace").decode("ascii")


def fit(text: str, encodings: list[str]) -> str:
    """Return ``text`` as it is where the character set (Python codecs, `encodings_of`) can hold it, in ASCII otherwise."""
    return text if text.isascii() or all(any(_can_encode(char, codec) for codec in encodings) for char in text) else to_ascii(text)


def _can_encode(char: str, codec: str) -> bool:
    try:
        char.encode(codec)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def encodings_of(character_set: object) -> list[str]:
    """Return the Python codecs of a Specific Character Set value; ASCII where the value is empty or unknown to us."""
    values = [character_set] if isinstance(character_set, str) else list(character_set or ())  # type: ignore[call-overload]
    if not any(values):
        return ["ascii"]
    try:
        return [str(codec) for codec in convert_encodings(values)]
    except (LookupError, ValueError, TypeError):
        return ["ascii"]


def one_line(text: str, limit: int = LONG_STRING) -> str:
    """Return ``text`` as a value of LO or SH: one line without backslash (which separates values), cut to ``limit`` characters."""
    words = " ".join("".join(char if char.isprintable() else " " for char in text).replace("\\", "/").split())
    return words if len(words) <= limit else words[: limit - 3].rstrip() + "..."


def number(value: float) -> str:
    """Write a number with at most four significant digits, as people read it."""
    return f"{value:.4g}"


def algorithm_line(algorithm: Algorithm) -> str:
    """Name an algorithm with its version."""
    return f"{algorithm.name} {algorithm.version}"


def score_line(finding: Finding) -> str:
    """Say the score and the verdict in one sentence: the first thing that every object says."""
    text = f"Anomaly score {number(finding.score)}: {finding.verdict.value}"
    if finding.calibration is not None and finding.verdict in (Verdict.ABOVE, Verdict.NOT_ABOVE):
        text += f" {number(finding.calibration.threshold)}"
    return text


def studies_line(calibration: Calibration) -> str:
    """Say how many studies a calibration counts, and whose: those of this scanner and body region alone, where it has enough of them."""
    alone = ", this scanner and body region" if calibration.scanner else ""
    return f"{calibration.studies} {POPULATIONS[calibration.population]}{alone}"


def standing_line(finding: Finding) -> str:
    """Say where the score stands among the calibration studies, or that nothing is known about that here."""
    calibration = finding.calibration
    if calibration is None or finding.percentile is None or finding.p_value is None:
        return UNCALIBRATED_HERE
    return f"percentile {number(finding.percentile)} of {studies_line(calibration)}, p = {number(finding.p_value)}"


def calibration_line(calibration: Calibration) -> str:
    """Say on what a calibration rests."""
    rate = number(100 * calibration.false_positive_rate)
    return f"{studies_line(calibration)}, {calibration.made_on.isoformat()}, at most {rate} % false alarms (95 % confidence)"


def completeness_line(run: Run) -> str:
    """Say why the study counted as complete, or that it did not."""
    return f"PARTIAL study: {run.complete_reason}" if run.partial else f"study complete: {run.complete_reason}"


def through_plane(plane: Plane) -> float:
    """Return the position of a plane along its normal, in mm from the origin of the frame of reference."""
    (rx, ry, rz, cx, cy, cz), (x, y, z) = plane.orientation, plane.position
    return (ry * cz - rz * cy) * x + (rz * cx - rx * cz) * y + (rx * cy - ry * cx) * z


@dataclass(frozen=True, slots=True)
class Slice:
    """One of the slices that stand out, as it is named to people."""

    index: int  # into the volume, from 0
    score: float
    position: float | None  # mm along the normal, None without spatial information
    called: Name
    score_name: str = "slice score"

    @property
    def name(self) -> str:
        """Number and position."""
        where = f", position {self.position:+.1f} mm" if self.position is not None else ""
        return f"{self.called.sentence}{where}"

    @property
    def line(self) -> str:
        """Number, position and score."""
        return f"{self.name}, {self.score_name} {number(self.score)}"


def top_slices(finding: Finding, headers: Sequence[Dataset] = ()) -> tuple[Slice, ...]:
    """Return the slices that stand out, most anomalous first; ``headers`` of the analysed objects give image and frame numbers."""
    volume, score = finding.volume, f"{manner_of(finding.volume).item} score"
    return tuple(
        Slice(index, float(finding.slice_scores[index]), _position(finding, index), name_of(volume, index, headers), score) for index in finding.top_slices
    )


def _position(finding: Finding, index: int) -> float | None:
    plane = finding.planes[index]
    return through_plane(plane) if plane is not None and manner_of(finding.volume).in_patient else None


WEIGHTINGS = {"T1": "T1 weighted", "T2": "T2 weighted", "FLAIR": "FLAIR", "DWI": "diffusion weighted"}  # others are told by a remark


def images_line(volume: Volume) -> str:
    """Say what was analysed: modality, weighting and how many."""
    count = len(volume.frames)
    item = manner_of(volume).item
    if item == "image" and all(frame.number for frame in volume.frames):
        item = "frame"
    parts = (volume.modality, WEIGHTINGS.get(volume.weighting, ""), f"{count} {item}{'s' if count != 1 else ''}")
    return ", ".join(part for part in parts if part)


def summary(finding: Finding, run: Run, headers: Sequence[Dataset] = (), regions: Sequence[str] = ()) -> str:
    """Tell the finding in a few lines of plain text: what was found, by what, on how much; see `top_slices` for ``headers``.

    ``regions``: lines about them.
    """
    lines = [
        f"{score_line(finding)}. {RESEARCH_USE}.",
        f"{standing_line(finding)[:1].upper()}{standing_line(finding)[1:]}.",
        f"Algorithm {algorithm_line(finding.algorithm)} by {finding.algorithm.manufacturer}; run {run.number}; {completeness_line(run)}.",
    ]
    if finding.calibration is not None:
        lines.append(f"Calibration: {calibration_line(finding.calibration)}.")
    if unit := manner_of(finding.volume).unit:
        lines.append(f"Analysed: {images_line(finding.volume)}, values in {unit}.")
    lines += [*(f"Stands out: {top.line}." for top in top_slices(finding, headers)), *regions]
    lines += [f"Remark: {remark}" for remark in dict.fromkeys((*finding.volume.remarks, *finding.remarks))]
    return "\n".join(lines)
