"""How far a series is from those that a bundle was made with: a robust Mahalanobis distance between rows of numbers. No training.

::

    numbers (D,) ─► minus the centre of its stratum, over the robust spread ─► clipped ─► principal axes, shrunk ─► distance

Distances are dimensionless, about 1 for what is usual. The refusal limit is an order statistic of cross-fitted distances: of studies whose
own fold took no part in the fit (conformal prediction; Vovk et al. 2005; cross-conformal: Barber et al. 2021). A tied covariance of several
classes for what is foreign: Lee et al. 2018. Shrinkage towards the diagonal: Ledoit and Wolf 2004, Schäfer and Strimmer 2005.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_FOLDS = 10
_CLIP = 30.0  # spreads: one number must not hide all others
_TO_SIGMA = 1.4826  # median absolute deviation of a Gaussian to its standard deviation
_WIDER = 1.25  # of a limit that rests on too few studies for its order statistic
_PRIOR = 10.0  # studies' worth of the variance of all that is mixed into that of a stratum
_LEAST_OF_STRATUM = 5  # studies, for a centre of its own
_LEAST_VARIANCE = 0.02  # squared usual spreads, of any direction
_NUISANCE = 8.0  # how much the directions in which one focal finding moves a study count as usual
_REFUSED_WITH_A_FINDING = 0.05  # at most, of usual studies with a focal finding
LEAST_STUDIES = 20


@dataclass(frozen=True, slots=True)
class Portrait:
    """One study as numbers (D,), NaN where one could not be measured.

    ``spoilt`` (k, D): the numbers of the same study with a focal finding put into it, k times; ``stratum`` of ``strata``: which kind of series
    it is; ``synthetic``: whether it is a synthetic study.
    """

    numbers: Tensor
    spoilt: Tensor
    stratum: int = 0
    strata: int = 1
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Familiarity:
    """What is usual.

    ``centre`` and ``spread`` (strata, D) of the numbers; ``whitening`` (D, D) of their standardised deviations; ``limit`` (1): the
    distance beyond which a study is refused; ``facts`` (2): studies it was fitted on, and 1 where they were synthetic, else 0.
    """

    centre: Tensor
    spread: Tensor
    whitening: Tensor
    limit: Tensor
    facts: Tensor

    FIELDS = ("centre", "spread", "whitening", "limit", "facts")

    def __post_init__(self) -> None:
        size = self.centre.shape[-1]
        if self.centre.ndim != 2 or self.spread.shape != self.centre.shape or self.whitening.shape != (size, size) or len(self.facts) != 2:
            raise ValueError("the tensors of what is usual do not fit each other")

    @property
    def synthetic(self) -> bool:
        """Whether it was fitted on synthetic studies: it says nothing about patients then, and the other way round."""
        return bool(self.facts[1])

    @property
    def studies(self) -> int:
        """How many studies it was fitted on."""
        return int(self.facts[0])


def standard(numbers: Tensor, stratum: int, fitted: Familiarity) -> Tensor:
    """Return by how many usual spreads each number lies above the centre of its stratum, 0 where it could not be measured, within ±30."""
    return ((numbers - fitted.centre[stratum]) / fitted.spread[stratum]).nan_to_num(0.0).clamp(-_CLIP, _CLIP)


def distance(numbers: Tensor, stratum: int, fitted: Familiarity) -> float:
    """Return how far a study lies from what is usual, about 1 for a usual one."""
    white = fitted.whitening @ standard(numbers, stratum, fitted)
    return float(white.square().mean().sqrt())


def fit_familiarity(portraits: Sequence[Portrait], least: Tensor, refused: float = 0.01) -> Familiarity:
    """Fit on normal studies such that at most ``refused`` of further ones lie beyond the limit.

    ``least`` (D): by how much each number may always vary, also where it never did in these studies.
    All patients' where there are at least `LEAST_STUDIES` of them, else all synthetic ones: phantoms are too much alike to say what patients
    look like. Raises `ValueError` where there are fewer of either.
    """
    for synthetic in (False, True):
        chosen = [one for one in portraits if one.synthetic is synthetic]
        if len(chosen) >= LEAST_STUDIES:
            return _fitted(chosen, least, refused)
    raise ValueError(f"{len(portraits)} studies are too few to say what is usual, at least {LEAST_STUDIES} are needed")


def _fitted(portraits: Sequence[Portrait], least: Tensor, refused: float) -> Familiarity:
    plain, spoilt = [], []
    for fold in range(_FOLDS):
        model = _model([one for place, one in enumerate(portraits) if place % _FOLDS != fold], least)
        aside = portraits[fold::_FOLDS]
        plain += [distance(one.numbers, one.stratum, model) for one in aside]
        spoilt += [distance(row, one.stratum, model) for one in aside for row in one.spoilt]
    limit = max(refusal_limit(plain, refused), refusal_limit(spoilt, _REFUSED_WITH_A_FINDING) if spoilt else 0.0)
    return replace(_model(portraits, least), limit=torch.tensor([limit], dtype=torch.float32))


def refusal_limit(distances: Sequence[float], refused: float) -> float:
    """Return the distance that at most ``refused`` of further usual studies exceed: the ⌈(n + 1)(1 - refused)⌉-th of n.

    Where n is too small for that order statistic (1 % needs 99) the greatest distance is widened as a logarithmic normal distribution asks for.
    """
    ordered = torch.tensor(sorted(distances), dtype=torch.float64)
    rank = math.ceil((len(ordered) + 1) * (1 - refused))
    if rank <= len(ordered):
        return float(ordered[rank - 1])
    logs = ordered.log()
    middle = logs.median()
    spread = _TO_SIGMA * (logs - middle).abs().median()
    beyond = torch.special.ndtri(torch.tensor(1 - refused, dtype=torch.float64))
    return _WIDER * float(torch.maximum(ordered[-1], (middle + beyond * spread).exp()))


def _model(portraits: Sequence[Portrait], least: Tensor) -> Familiarity:
    """Fit centres, spreads and whitening in double precision; the limit is left open."""
    numbers = torch.stack([one.numbers for one in portraits]).double()
    strata = torch.tensor([one.stratum for one in portraits])
    centre = _centres(numbers, strata, portraits[0].strata)
    rest = (numbers - centre[strata]).nan_to_num(0.0)
    spread = (_variances(rest, strata, portraits[0].strata) + least.double().square()).sqrt()
    change = [((one.spoilt.double() - one.numbers.double()) / spread[one.stratum]).nan_to_num(0.0) for one in portraits]
    rows, changes = (rest / spread[strata]).clamp(-_CLIP, _CLIP), torch.cat(change).clamp(-_CLIP, _CLIP)
    nuisance = _NUISANCE * changes.T @ changes / max(1, len(changes))
    whitening = _inverse_root(_shrunk_covariance(rows) + nuisance)
    facts = torch.tensor([float(len(numbers)), float(portraits[0].synthetic)])
    return Familiarity(centre.float(), spread.float(), whitening.float(), torch.tensor([math.inf]), facts)


def _centres(numbers: Tensor, strata: Tensor, of: int) -> Tensor:
    """Return the median of each stratum (of, D), that of all where it has too few studies."""
    overall = numbers.nanmedian(0).values.nan_to_num(0.0)
    centre = overall.repeat(of, 1)
    for stratum in sorted(set(strata.tolist())):
        members = numbers[strata == stratum]
        if len(members) >= _LEAST_OF_STRATUM:
            centre[stratum] = torch.where(members.nanmedian(0).values.isfinite(), members.nanmedian(0).values, overall)
    return centre


def _variances(rest: Tensor, strata: Tensor, of: int) -> Tensor:
    """Return the variance of the deviations (N, D) in each stratum (of, D), drawn towards that of all where its studies are few."""
    pooled = torch.maximum(_TO_SIGMA * rest.abs().median(0).values, rest.std(0, correction=0)).square()
    table = pooled.repeat(of, 1)
    for stratum in sorted(set(strata.tolist())):
        members = rest[strata == stratum]
        table[stratum] = (members.square().sum(0) + _PRIOR * pooled) / (len(members) + _PRIOR)
    return table


def _shrunk_covariance(rows: Tensor) -> Tensor:
    """Return the covariance of (N, D) rows about 0, shrunk towards its diagonal by Schäfer and Strimmer's weight."""
    count = len(rows)
    covariance = rows.T @ rows / count
    diagonal = torch.diag(covariance.diagonal().clamp(min=_LEAST_VARIANCE))
    squares = rows.square()
    variance = (squares.T @ squares / count - covariance.square()).clamp(min=0) / count  # of each entry
    off = ~torch.eye(rows.shape[1], dtype=torch.bool)
    weight = (variance[off].sum() / covariance[off].square().sum().clamp(min=1e-12)).clamp(0.05, 1.0)
    return weight * diagonal + (1 - weight) * covariance


def _inverse_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors @ torch.diag(values.clamp(min=_LEAST_VARIANCE).rsqrt()) @ vectors.T
    return root


def contributions(numbers: Tensor, stratum: int, fitted: Familiarity, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return what each group of numbers adds to the squared distance, and by how many spreads its most unusual number deviates (with its sign).

    ``names`` has the group of each number; the first values add up to the mean square that `distance` is the root of.
    """
    deviations = standard(numbers, stratum, fitted)
    shares = deviations * (fitted.whitening @ (fitted.whitening @ deviations)) / len(deviations)
    found: dict[str, tuple[float, float]] = {}
    for name, share, deviation in zip(names, shares.tolist(), deviations.tolist(), strict=True):
        total, largest = found.get(name, (0.0, 0.0))
        found[name] = (total + share, deviation if abs(deviation) > abs(largest) else largest)
    return found
