"""What may be asked of an export: the options of PS3.15 Annex E that are offered, and how an object says which were used (CID 7050)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Dates(StrEnum):
    """What becomes of dates and times (not of the birth date, which never stays)."""

    REMOVE = "remove"
    SHIFT = "shift"  # by days that depend on the patient: intervals and times of day stay
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of pixels: column and row of its upper left corner, width and height; cut at the image's edges."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the Basic Profile (PS3.15 E.3). Without any, all goes that the profile names."""

    retain_uids: bool = False
    retain_device: bool = False
    retain_institution: bool = False
    retain_patient_characteristics: bool = False
    clean_descriptors: bool = False  # descriptions stay as far as their words are harmless
    dates: Dates = Dates.REMOVE
    regions: tuple[Region, ...] = ()  # blanked in objects that may show text
    trust_stated: bool = False  # ultrasound and secondary captures that say that nothing is burnt in are believed

    def as_text(self) -> str:
        """Return what all objects in one folder have in common, as the command line says it; regions are those of a scanner, others may have others."""
        chosen = [name for name in _SWITCHES if getattr(self, name)]
        return " ".join([f"--dates {self.dates.value}", *(f"--{name.replace('_', '-')}" for name in chosen)])


_SWITCHES = ("retain_uids", "retain_device", "retain_institution", "retain_patient_characteristics", "clean_descriptors", "trust_stated")

BASIC = ("113100", "Basic Application Confidentiality Profile")
CLEAN_PIXELS = ("113101", "Clean Pixel Data Option")
CLEAN_STRUCTURED = ("113104", "Clean Structured Content Option")

CHOSEN = (  # option of `Options`, code of CID 7050
    ("clean_descriptors", ("113105", "Clean Descriptors Option")),
    ("retain_patient_characteristics", ("113108", "Retain Patient Characteristics Option")),
    ("retain_device", ("113109", "Retain Device Identity Option")),
    ("retain_uids", ("113110", "Retain UIDs Option")),
    ("retain_institution", ("113112", "Retain Institution Identity Option")),
)
OF_DATES = {
    Dates.KEEP: ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    Dates.SHIFT: ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
}
LONGITUDINAL = {Dates.REMOVE: "REMOVED", Dates.SHIFT: "MODIFIED", Dates.KEEP: "UNMODIFIED"}
"""Longitudinal Temporal Information Modified (0028,0303)."""


def codes_of(options: Options, *, pixels: bool = False, structured: bool = False) -> list[tuple[str, str]]:
    """Return code value and meaning (scheme DCM) of all that was done to an object; ``pixels``, ``structured``: what was cleaned in it."""
    codes = [BASIC, *(code for name, code in CHOSEN if getattr(options, name))]
    codes += [OF_DATES[options.dates]] if options.dates in OF_DATES else []
    codes += [CLEAN_PIXELS] * pixels + [CLEAN_STRUCTURED] * structured
    return codes
