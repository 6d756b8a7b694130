"""What a bundle is evaluated on: sets of studies of which the truth is known, all with the same face.

::

    PhantomSet    made from seeds, with and without a planted lesion     ┐
    PlantedSet    pieces of real healthy series, with and without one    ├─► subjects ─ make ─► Sample(prepared, mask)
    LabelledSet   a site's studies with labels, perhaps with masks       │
    PlainSet      studies that nobody labelled: all count as normal      ┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pacs_node.analysis.manifest import Manifest, PhantomPart
from pacs_node.analysis.pipeline import Prepared
from pacs_node.phantoms import LESIONS
from pacs_node.workbench import material
from pacs_node.workbench.material import NORMAL, Labelled, Planted, SeriesFiles

FAMILIES = tuple(LESIONS)
CONTRASTS = (1.0, 2.0, 3.0)
SIZES = (0.01, 0.02, 0.05)
PHANTOMS = "held-out phantoms"


class Stratum(NamedTuple):
    """What was planted: family, contrast in σ, and area as a fraction of the foreground of the slice that holds most of it (`PhantomSpec`)."""

    family: str
    contrast: float
    size: float


STRATA = tuple(Stratum(*what) for what in product(FAMILIES, CONTRASTS, SIZES))


class Subject(BaseModel):
    """Who is judged: ``patient`` is what the bootstrap draws, ``digest`` tells other pixels under the same name."""

    model_config = ConfigDict(frozen=True)

    name: str
    patient: str
    label: str = NORMAL
    planted: Stratum | None = None
    digest: str = ""

    @property
    def positive(self) -> bool:
        """Whether it is to be told from the normal ones."""
        return self.label != NORMAL


@dataclass(frozen=True, slots=True)
class Sample:
    """A prepared study and where what is unusual lies in it, (slices, P, P) on the analysis grid; None where nobody marked it."""

    prepared: Prepared
    mask: NDArray[np.bool_] | None


class EvaluationSet(Protocol):
    """A set of subjects. ``unit``: what is drawn in the bootstrap; ``slow``: making a sample takes as long as judging it."""

    @property
    def name(self) -> str:
        """The set's name in tables."""

    @property
    def unit(self) -> str:
        """What the bootstrap draws, in a word."""

    @property
    def slow(self) -> bool:
        """Whether it is worth several processes and a file of finished readings."""

    @property
    def subjects(self) -> Sequence[Subject]:
        """Everybody in the set."""

    def make(self, subject: Subject) -> Sample:
        """Return the prepared study of a subject; raises `NotAnalysable` where the bundle does not judge it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One phantom of the evaluation set; ``family`` is None for one without a lesion."""

    seed: int
    family: str | None = None
    contrast: float = 3.0
    size: float = 0.05


def cases(normal: int, rounds: int) -> list[Case]:
    """Return ``normal`` phantoms without a lesion, and ``rounds`` of every family, contrast and size; no seed is used twice."""
    first = material.SEEDS["evaluate"]
    planted = STRATA * rounds
    return [Case(first + index) for index in range(normal)] + [Case(first + normal + index, *what) for index, what in enumerate(planted)]


def make_phantom(part: PhantomPart, manifest: Manifest, case: Case) -> Planted:
    """Make and prepare the phantom of one case."""
    what = {} if case.family is None else {"lesion": case.family, "contrast": case.contrast, "size": case.size}
    return material.phantom(part, manifest, case.seed, **what)


@dataclass(frozen=True, slots=True)
class PhantomSet:
    """Procedural phantoms; each seed is a patient."""

    part: PhantomPart
    manifest: Manifest
    wanted: tuple[Case, ...]
    name: str = PHANTOMS
    unit: str = "phantom"
    slow: bool = True

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """One subject a case; its name is its seed."""
        return tuple(_phantom_subject(case) for case in self.wanted)

    def make(self, subject: Subject) -> Sample:
        """Make the phantom of a subject."""
        case = Case(int(subject.name)) if subject.planted is None else Case(int(subject.name), *subject.planted)
        made = make_phantom(self.part, self.manifest, case)
        return Sample(made.prepared, made.lesion)


def _phantom_subject(case: Case) -> Subject:
    if case.family is None:
        return Subject(name=str(case.seed), patient=str(case.seed))
    return Subject(name=str(case.seed), patient=str(case.seed), label=case.family, planted=Stratum(case.family, case.contrast, case.size))


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Studies with labels, already prepared; masks where the table names them."""

    studies: tuple[Labelled, ...]
    name: str
    unit: str = "patient"
    slow: bool = False

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """One subject a study."""
        return tuple(Subject(name=one.name, patient=one.patient, label=one.label) for one in self.studies)

    def make(self, subject: Subject) -> Sample:
        """Return the study of a subject."""
        found = next(one for one in self.studies if one.name == subject.name)
        return Sample(found.prepared, found.mask)


@dataclass(frozen=True, slots=True)
class PlainSet:
    """Series in folders, none of them labelled: what is told of them is how well they are reconstructed, and how many are flagged."""

    series: tuple[SeriesFiles, ...]
    manifest: Manifest
    name: str
    unit: str = "patient"
    slow: bool = True

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """One subject a series."""
        return tuple(Subject(name=one.series_uid, patient=one.patient) for one in self.series)

    def make(self, subject: Subject) -> Sample:
        """Read and prepare the series of a subject."""
        found = next(one for one in self.series if one.series_uid == subject.name)
        return Sample(material.prepared_series(found, self.manifest), None)
