"""Magnetic resonance: an MR series becomes a volume (PS3.3 A.4, A.36, A.71; C.8.3.1, C.8.13).

MR values have no physical unit, so a volume of raw values carries UCUM ``1``; `intensity` brings every series to one scale in
preprocessing, where training and the node share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRColorImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

from pacs_node.analysis import contrast, stack
from pacs_node.analysis.decoding import Beat
from pacs_node.dicom import values as looking_up
from pacs_node.dicom.header import text_of
from pacs_node.records import Volume

UNIT = "1"  # UCUM, arbitrary
CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)

# Image Type from the third value on, in the words of PS3.3 C.8.13.3.1.1 and of the makers.
MAPS = frozenset(
    (
        *("ADC", "ADC MAP", "EADC", "FA", "FA MAP", "COLFA", "TENSOR", "TTEST"),
        *("RCBV", "RCBF", "MTT", "TTP", "TMAX", "KTRANS"),
        *("T1_MAP", "T1 MAP", "T2_MAP", "T2 MAP", "T2_STAR_MAP", "T2* MAP", "R2_MAP", "R2 MAP", "R2_STAR_MAP", "PROTON_DENSITY_MAP", "QUANT"),
    )
)
FIELD_MAPS = frozenset(("FIELD_MAP", "FIELD MAP", "FIELDMAP", "B0", "B0 MAP", "B0_MAP", "B1", "B1 MAP", "B1_MAP", "VELOCITY"))
COMPONENTS = frozenset(("P", "PHASE", "PHASE MAP", "PHASE_MAP", "R", "REAL", "I", "IMAGINARY"))
PROJECTIONS = frozenset(("PROJECTION IMAGE", "MIP", "CSA MIP", "MPR", "CSA MPR", "SUBTRACTION", "SUB", "REFORMATTED"))

_PRIVATE_B_VALUES = tuple(looking_up.parse_key(text) for text in ("(0019,SIEMENS MR HEADER,0C)", "(0043,GEMS_PARM_01,39)", "(2001,Philips Imaging DD 001,03)"))
_GE_COMPONENT = looking_up.parse_key("(0043,GEMS_PARM_01,2F)")  # 0 magnitude, 1 phase, 2 real, 3 imaginary
_GE_B_VALUE_MARK = 1e9  # added to the b-value by some versions


def _says(words: frozenset[str]) -> Callable[[Dataset], bool]:
    return lambda header: not words.isdisjoint(stack.image_type(header)[2:])


def _no_magnitude(header: Dataset) -> bool:
    ge = looking_up.values(header, _GE_COMPONENT)
    component = text_of(header, "ComplexImageComponent").upper()
    return _says(COMPONENTS)(header) or component in ("PHASE", "REAL", "IMAGINARY") or bool(ge and ge[0] in (1, 2, 3, "1", "2", "3"))


SKIPPED: stack.Reasons = {
    "they are colour maps": lambda header: header.SOPClassUID == EnhancedMRColorImageStorage or text_of(header, "SamplesPerPixel") == "3",
    "they are no MR images": lambda header: header.SOPClassUID not in CLASSES,
    "they hold no pixels": stack.no_pixels,
    "they are localizers": stack.localizer,
    "they are mosaics of many slices": lambda header: "MOSAIC" in stack.image_type(header),
    "they are maps computed from other images": _says(MAPS),
    "they are field or velocity maps": _says(FIELD_MAPS),
    "they show phase, real or imaginary part, not magnitude": _no_magnitude,
    "they are projections or reformatted images": _says(PROJECTIONS),
    "they were derived from other images": stack.derived,
    stack.NO_GEOMETRY: stack.no_geometry,
}
"""Why an image of an MR series is not part of its volume: the first reason that holds."""


def b_value(header: Dataset) -> float | None:
    """Return the diffusion b-value, s/mm²: Diffusion b-value (0018,9087), or where Siemens, GE and Philips kept it before; None without any."""
    standard = stack.number(header, "DiffusionBValue")
    if standard is not None:
        return standard
    for key in _PRIVATE_B_VALUES:
        found = looking_up.values(header, key)
        try:
            if found:
                value = float(found[0]) % _GE_B_VALUE_MARK
                return value if math.isfinite(value) else None
        except ValueError:
            continue
    return None


def _rounded(keyword: str, step: float) -> Callable[[Dataset], float]:
    """Times differ in their last digits from slice to slice on some scanners; that is not another echo."""

    def value(header: Dataset) -> float:
        found = stack.number(header, keyword)
        return math.inf if found is None else round(round(found / step) * step, 3)

    return value


SEPARATED: dict[str, Callable[[Dataset], float]] = {
    **stack.SEPARATED,
    "b-value": lambda header: math.inf if (found := b_value(header)) is None else found,
    "echo": lambda header: stack.number(header, "EchoNumbers") or 0,
    "echo time": _rounded("EchoTime", 0.1),
    "inversion time": _rounded("InversionTime", 1.0),
    "flip angle": _rounded("FlipAngle", 1.0),
}
"""What tells images of one place apart in an MR series; the lowest b-value and the first echo come first."""


def contrast_of(header: Dataset) -> contrast.Contrast:
    """Gather what the header of an image, or of a frame, says about its weighting."""
    words = ("SequenceName", "PulseSequenceName", "ProtocolName", "SeriesDescription")
    technique = {part.strip().upper() for part in text_of(header, "ScanningSequence").split("\\") if part.strip()}
    return contrast.Contrast(
        technique=frozenset(technique) or _technique(text_of(header, "EchoPulseSequence"), text_of(header, "EchoPlanarPulseSequence")),
        repetition=stack.number(header, "RepetitionTime"),
        echo=stack.number(header, "EchoTime"),
        inversion=stack.number(header, "InversionTime"),
        flip=stack.number(header, "FlipAngle"),
        b_value=b_value(header),
        acquisition=text_of(header, "AcquisitionContrast").upper(),
        described=" ".join(text_of(header, keyword) for keyword in words),
    )


def _technique(echo: str, planar: str) -> frozenset[str]:
    """Write what enhanced objects say about the technique (PS3.3 C.8.13.4) as Scanning Sequence does."""
    kinds = {"SPIN": {"SE"}, "GRADIENT": {"GR"}, "BOTH": {"SE", "GR"}}.get(echo.upper(), set())
    return frozenset(kinds | ({"EP"} if planar.upper() == "YES" else set()))


def _sequence(header: Dataset) -> str:
    return contrast.identify(contrast_of(header)).value


KIND = stack.Kind("MR", UNIT, SKIPPED, SEPARATED, weighting=_sequence)


def read(files: Sequence[Path], beat: Beat = lambda fraction: None) -> Volume:
    """Read the MR images among ``files`` (one series) as a volume of magnitude values; see `stack.read`.

    Of several echoes, b-values or temporal positions the first is taken that shows most places; the sequence is named in ``remarks``.
    """
    return stack.read(files, KIND, beat)
