"""What of a header the status page shows: enough to find and understand a study, no more of the patient than was asked for.

Shown by default: study and series descriptions, accession number and UIDs (with which a study is found in the archive), devices, and whatever
rules compare. Names of persons, and what PS3.6 lists about the patient and the visit (groups 0010 and 0038), only where
`monitoring.patients` says so: an administrator needs them only to tell two patients under one study apart, which the archive shows as well.
Values of private attributes count among them, since nobody knows what they hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

HIDDEN = "not shown (monitoring.patients)"
_ABOUT_PEOPLE = (0x0010, 0x0038)  # groups: patient, visit
_OURS = ("CalledAETitle", "CallingAETitle", "or", "and", "not")  # keys of rules that are no attributes


def is_personal(key: str) -> bool:
    """Tell whether an attribute that a rule names (``Keyword``, ``Sequence.Keyword`` or ``(gggg,creator,ee)``) may say who a person is."""
    if key in _OURS:
        return False
    tags = [tag_for_keyword(part) for part in key.split(".")]
    return any(tag is None or tag >> 16 in _ABOUT_PEOPLE or dictionary_VR(tag) == "PN" for tag in tags)


def decisions_shown(decisions: Sequence[Mapping[str, Any]], *, patients: bool) -> list[dict[str, Any]]:
    """Return how the rules decided about a study (`routing.as_json`), with the values that may say who the patient is left out."""
    return [{**decision, "trials": [_trial(trial, patients=patients) for trial in decision.get("trials", ())]} for decision in decisions]


def _trial(trial: Mapping[str, Any], *, patients: bool) -> dict[str, Any]:
    return {**trial, "conditions": [_condition(line, patients=patients) for line in trial.get("conditions", ())]}


def _condition(line: Mapping[str, Any], *, patients: bool) -> dict[str, Any]:
    hidden = not patients and line.get("found") and is_personal(str(line.get("key", "")))
    return {**line, "found": HIDDEN} if hidden else dict(line)
