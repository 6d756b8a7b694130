"""Which MR sequence made an image: a pure function of header values (PS3.3 C.8.3.1, C.8.13.5).

Physics first: diffusion weighting, inversion, repetition and echo time say what an image shows. What a protocol is called is looked
at only where they leave it open, and where that says nothing either the sequence is not guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Sequence(StrEnum):
    """The weightings that are told apart."""

    T1 = "T1"
    T2 = "T2"
    FLAIR = "FLAIR"
    DWI = "DWI"
    OTHER = "other"  # known to be none of the above: proton density, T2*, …
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Contrast:
    """What a header says about weighting. Times in ms, b-value in s/mm², flip angle in degrees; None and "" where it says nothing."""

    technique: frozenset[str] = frozenset()  # Scanning Sequence (0018,0020): SE, IR, GR, EP, RM
    repetition: float | None = None
    echo: float | None = None
    inversion: float | None = None
    flip: float | None = None
    b_value: float | None = None
    acquisition: str = ""  # Acquisition Contrast (0008,9209) of enhanced objects
    described: str = ""  # sequence name, protocol name and series description


LONG_ECHO, SHORT_ECHO = 60.0, 35.0  # ms; T2 weighting from the one on, none to speak of up to the other
LONG_REPETITION, SHORT_REPETITION = 2000.0, 1000.0  # ms, of spin echoes
NULLS_FLUID = 1500.0  # ms; longer inversion times null cerebrospinal fluid (FLAIR), medium ones make T1 weighting
NULLS_FAT = 300.0  # ms; up to here the inversion nulls fat (STIR)
_SPOILED = (60.0, 9.0)  # ms; gradient echoes with shorter repetition and echo times are T1 weighted when spoiled
_STEEP = 8.0  # degrees; flatter angles give proton density

ACQUISITION_CONTRASTS: dict[str, Sequence] = {
    "DIFFUSION": Sequence.DWI,
    "FLUID_ATTENUATED": Sequence.FLAIR,
    "FLUID_ATTENUAT": Sequence.FLAIR,  # a code string holds 16 characters at most, some makers stop earlier
    "T1": Sequence.T1,
    "T2": Sequence.T2,
    "T2_STAR": Sequence.OTHER,
    "PROTON_DENSITY": Sequence.OTHER,
    "STIR": Sequence.OTHER,
    "PERFUSION": Sequence.OTHER,
    "FLOW_ENCODED": Sequence.OTHER,
    "TOF": Sequence.OTHER,
    "SPIN_TAGGING": Sequence.OTHER,
    "TAGGING": Sequence.OTHER,
}
"""Acquisition Contrast (PS3.3 C.8.13.5.1.1); MIXED and UNKNOWN leave it to the other values."""

WORDS: tuple[tuple[str, Sequence], ...] = (
    (r"dwi|diff|trace|ep_b\d", Sequence.DWI),
    (r"flair|dark.?fluid|tirm_dark", Sequence.FLAIR),
    (r"mprage|bravo|spgr|vibe|lava|(?<![a-z])t1(?!\d)", Sequence.T1),
    (r"swi|swan|gre.?t2|t2.?(\*|star|fl2d|gre)|tof|bold|fmri|perf|(?<![a-z])pd(?![a-z])|stir", Sequence.OTHER),
    (r"(?<![a-z])t2(?!\d)|haste|ssfse", Sequence.T2),
)
"""What people call it; the first that occurs counts."""


def identify(seen: Contrast) -> Sequence:
    """Tell the sequence; `Sequence.UNKNOWN` where the values do not."""
    for rule in (_by_diffusion, _by_name_of_contrast, _by_inversion, _by_spin_echo, _by_gradient_echo, _by_words):
        found = rule(seen)
        if found is not None:
            return found
    return Sequence.UNKNOWN


def _by_diffusion(seen: Contrast) -> Sequence | None:
    """A b-value, also zero, is there only in a diffusion series."""
    return Sequence.DWI if seen.b_value is not None and (seen.b_value > 0 or "EP" in seen.technique) else None


def _by_name_of_contrast(seen: Contrast) -> Sequence | None:
    return ACQUISITION_CONTRASTS.get(seen.acquisition)


def _by_inversion(seen: Contrast) -> Sequence | None:
    if seen.inversion is None or seen.inversion <= 0 or seen.echo is None:
        return None
    if seen.inversion >= NULLS_FLUID:
        return Sequence.FLAIR if seen.echo >= LONG_ECHO else None
    if seen.inversion <= NULLS_FAT:
        return Sequence.OTHER
    return Sequence.T1 if seen.echo <= SHORT_ECHO else None


def _by_spin_echo(seen: Contrast) -> Sequence | None:
    if "SE" not in seen.technique or "GR" in seen.technique or "EP" in seen.technique or seen.repetition is None or seen.echo is None:
        return None
    if seen.repetition >= LONG_REPETITION:
        return Sequence.T2 if seen.echo >= LONG_ECHO else Sequence.OTHER if seen.echo <= SHORT_ECHO and not seen.inversion else None
    return Sequence.T1 if seen.repetition <= SHORT_REPETITION and seen.echo <= SHORT_ECHO else None


def _by_gradient_echo(seen: Contrast) -> Sequence | None:
    if "GR" not in seen.technique or seen.repetition is None or seen.echo is None:
        return None
    if "EP" in seen.technique:
        return Sequence.OTHER  # T2*: functional and perfusion series
    if re.search(r"fisp|fiesta|ciss|bffe|ssfp|flow|angio|tof|map", seen.described.lower()):
        return Sequence.OTHER
    if seen.repetition <= _SPOILED[0] and seen.echo <= _SPOILED[1]:
        return None if seen.flip is None else Sequence.T1 if seen.flip >= _STEEP else Sequence.OTHER
    return Sequence.OTHER if seen.echo > _SPOILED[1] else None


def _by_words(seen: Contrast) -> Sequence | None:
    text = seen.described.lower()
    return next((sequence for pattern, sequence in WORDS if re.search(pattern, text)), None)
