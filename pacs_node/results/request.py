"""What is to be built: everything that the builders may look at, so that the same request always gives the same bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydicom.dataset import Dataset

from pacs_node.autoencoder.embedding import Embedding
from pacs_node.config import Equipment
from pacs_node.dicom.header import is_synthetic
from pacs_node.errors import ResultRejected
from pacs_node.records import Algorithm, Finding, Notice, Population, Run, Sources, Verdict
from pacs_node.results.regions import Region


@dataclass(frozen=True, slots=True)
class Representation:
    """What a Raw Data object carries: packed objects, by how many stored values a pixel may be off, and the embeddings where a model saw them.

    Where ``content`` is empty, ``lacking`` says why, in ASCII, and there are embeddings.
    """

    content: bytes
    near: int
    embedding: Embedding | None = None
    lacking: str = ""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """The facts of one set of results.

    Nothing else makes a value of a result: no clock, no random number. ``kinds`` are rows of `pacs_node.results.BUILDERS`.
    """

    finding: Finding | None
    notice: Notice | None
    sources: Sources
    run: Run
    equipment: Equipment
    uid_root: str | None
    timezone: str | None  # IANA name for our times where the source has no offset; None: the system's
    kinds: tuple[str, ...]
    regions: tuple[Region, ...] = ()  # of the finding; `build` finds them
    representation: Representation | None = None  # of the analysed series, for `raw`

    @property
    def header(self) -> Dataset:
        """The header that patient, study and encoding are taken from."""
        return (self.sources.analysed + self.sources.others)[0]

    @property
    def algorithm(self) -> Algorithm | None:
        """The model that judged, None in a notice about a study that no model saw."""
        return self.finding.algorithm if self.finding is not None else None


def finding_of(request: BuildRequest, kind: str) -> Finding:
    """Return the finding; raises `ResultRejected` where a kind needs one and the request has none, its score is no number, or it says what it must not."""
    if request.finding is None:
        raise ResultRejected(kind, ("there is no finding to tell: ask for a notice instead",))
    if not math.isfinite(request.finding.score):
        raise ResultRejected(kind, (f"the score {request.finding.score} is no finite number: ask for a notice instead",))
    if _judges_unasked(request.finding) and not is_synthetic(request.header):
        raise ResultRejected(kind, ("percentile, p-value and verdict rest on no calibration of this site: calibrate the bundle with its studies",))
    return request.finding


def _judges_unasked(finding: Finding) -> bool:
    """Tell whether a finding about a patient says what only the site's own calibration may say."""
    said = finding.verdict in (Verdict.ABOVE, Verdict.NOT_ABOVE) or finding.percentile is not None or finding.p_value is not None
    site = finding.calibration is not None and finding.calibration.population is Population.SITE
    return said and not site and not finding.volume.synthetic
