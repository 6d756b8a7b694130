"""A head for sites with a few labels: logistic regression on the score's parts and the embedding, the network frozen.

::

    parts (p) ─── standardise ──────────────────────┐
                                                    ├─► weights · features + bias ─► sigmoid ─► probability
    embedding (S, f) ─ mean over slices ─ PCA (k) ──┘

The strength of the L2 penalty is chosen by cross-validation by patient, and what the head is worth is told by another one around it
(nested, Varma & Simon 2006). Both kinds count alike whatever their numbers: the probability is that of a study where both are equally
frequent. It is another number beside the calibrated score, and takes its place nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

LEAST = 10  # studies of either kind
MOST_AXES = 16
_STUDIES_AN_AXIS = 5  # that the principal axes are estimated from
_STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # scikit-learn's C: the smaller, the stronger the penalty
_FOLDS = 5

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Labels:
    """What a head learns from: ``parts`` (n, p) with their ``names``, mean ``embedding`` (n, f), ``unusual`` (n) and whose they are."""

    names: tuple[str, ...]
    parts: Floats
    embedding: Floats
    unusual: Flags
    patients: tuple[str, ...]

    def of(self, some: NDArray[np.int64]) -> Labels:
        """Return some of the studies."""
        return Labels(self.names, self.parts[some], self.embedding[some], self.unusual[some], tuple(self.patients[index] for index in some))


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted head: ``names`` (p) of the parts; mean and spread of the parts; mean, axes (k, f) and their spread; weights (p + k); bias (1)."""

    names: NDArray[np.str_]
    part_mean: Floats
    part_spread: Floats
    embedding_mean: Floats
    axes: Floats
    axis_spread: Floats
    weights: Floats
    bias: Floats

    def __post_init__(self) -> None:
        parts, (axes, features) = len(self.names), self.axes.shape
        expected = ((parts,), (parts,), (parts,), (features,), (axes, features), (axes,), (parts + axes,), (1,))
        if tuple(getattr(self, field.name).shape for field in fields(self)) != expected:
            raise ValueError("arrays of a head that do not belong together")

    def features(self, parts: Floats, embedding: Floats) -> Floats:
        """Return what the weights apply to, (n, p + k), of parts (n, p) and mean embeddings (n, f)."""
        along = (embedding - self.embedding_mean) @ self.axes.T / self.axis_spread
        return np.concatenate([(parts - self.part_mean) / self.part_spread, along], axis=1)

    def probabilities(self, labels: Labels) -> Floats:
        """Return for each study the probability that it is unusual, where both kinds are equally frequent."""
        logits = self.features(labels.parts, labels.embedding) @ self.weights + self.bias
        return 1 / (1 + np.exp(-np.clip(logits, -50, 50)))

    def probability(self, parts: Mapping[str, float], embedding: NDArray[np.floating]) -> float:
        """Return the probability for one study: its parts by name, and the embeddings of its slices (S, f). Raises `KeyError` for a missing part."""
        names = tuple(str(name) for name in self.names)
        row = np.array([[parts[name] for name in names]], dtype=np.float64)
        mean = embedding.astype(np.float64).mean(0, keepdims=True)
        return float(self.probabilities(Labels(names, row, mean, np.zeros(1, dtype=bool), ("",)))[0])


def fit_head(labels: Labels, seed: int = 0) -> Head:
    """Fit a head; raises `ValueError` for fewer than `LEAST` studies of a kind, or one patient of a kind."""
    if min(labels.unusual.sum(), (~labels.unusual).sum()) < LEAST or _folds(labels) < 2:
        raise ValueError(f"a head needs at least {LEAST} studies of either kind, of two patients or more")
    return _fit(labels, _strength(labels, seed))


def cross_validated(labels: Labels, seed: int = 0) -> Floats:
    """Return each study's probability by a head that saw no study of its patient, (n)."""
    found = np.full(len(labels.unusual), np.nan)
    for others, own in _splits(labels, seed):
        rest = labels.of(others)
        found[own] = _fit(rest, _strength(rest, seed)).probabilities(labels.of(own))
    return found


def _fit(labels: Labels, strength: float) -> Head:
    return _weighed(_basis(labels), labels, strength)


def _basis(labels: Labels) -> Head:
    """A head that standardises and projects, whose weights are still zero."""
    centre = labels.embedding.mean(0)
    _, sizes, axes = np.linalg.svd(labels.embedding - centre, full_matrices=False)
    count = int(min(MOST_AXES, max(1, len(labels.unusual) // _STUDIES_AN_AXIS), (sizes > 1e-9).sum()))
    spread = sizes[:count] / np.sqrt(len(labels.unusual))
    part_spread = np.maximum(labels.parts.std(0), 1e-6)
    weightless = np.zeros(len(labels.names) + count)
    return Head(np.array(labels.names, dtype=np.str_), labels.parts.mean(0), part_spread, centre, axes[:count], spread, weightless, np.zeros(1))


def _weighed(basis: Head, labels: Labels, strength: float) -> Head:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
    model.fit(basis.features(labels.parts, labels.embedding), labels.unusual)
    return replace(basis, weights=model.coef_[0], bias=model.intercept_)


def _strength(labels: Labels, seed: int) -> float:
    """Choose the strength whose probabilities fit patients best that it has not seen; the middle one where there are too few patients."""
    losses = np.zeros(len(_STRENGTHS))
    for others, own in _splits(labels, seed) if _folds(labels) > 1 else ():
        rest, left = labels.of(others), labels.of(own)
        basis = _basis(rest)
        losses += [_loss(_weighed(basis, rest, strength).probabilities(left), left.unusual) for strength in _STRENGTHS]
    return _STRENGTHS[int(losses.argmin())] if losses.any() else _STRENGTHS[len(_STRENGTHS) // 2]


def _loss(probability: Floats, unusual: Flags) -> float:
    """The log loss, both kinds counted alike."""
    right = np.clip(np.where(unusual, probability, 1 - probability), 1e-9, 1)
    return float(sum(-np.log(right[kind]).mean() for kind in (unusual, ~unusual) if kind.any()))


def _folds(labels: Labels) -> int:
    """As many folds as the kind with fewer patients allows."""
    owners: Sequence[set[str]] = [{patient for patient, odd in zip(labels.patients, labels.unusual, strict=True) if odd == kind} for kind in (True, False)]
    return min(_FOLDS, *map(len, owners))


def _splits(labels: Labels, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Split by patient, both kinds as evenly as can be; a split of which one side lacks a kind to learn from is left out."""
    from sklearn.model_selection import StratifiedGroupKFold

    for others, own in StratifiedGroupKFold(_folds(labels), shuffle=True, random_state=seed).split(labels.parts, labels.unusual, labels.patients):
        if len(set(labels.unusual[others].tolist())) == 2:
            yield others, own
