"""The encoder's side of `codec_prediction`: weights fitted to a sample of a slab's pixels. The decoder needs none of this."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from pacs_node.autoencoder.codec_grid import Flat, Grid
from pacs_node.autoencoder.codec_prediction import Field, Kind, as_weights, features_of_error, field_of

_SAMPLE = 400_000  # pixels
_SMALLEST_CLASS = 200
_CLASSES = ((1 << 12, 1, 1), (1 << 15, 2, 1), (1 << 17, 4, 2), (1 << 19, 6, 4), (1 << 62, 8, 4))  # fewer pixels than: classes by activity, by mismatch


def sample(grid: Grid, slices: Flat) -> Flat:
    """Return the cells of evenly drawn pixels of some slices, the same at each call."""
    pixels = len(slices) * grid.rows * grid.columns
    chosen = np.arange(pixels) if pixels <= _SAMPLE else np.sort(np.random.default_rng(0).choice(pixels, _SAMPLE, replace=False))
    row, column = np.divmod(chosen, grid.columns)
    return np.asarray(grid.firsts()[slices].reshape(-1)[row] + column)


def fit(values: NDArray[np.int32], cells: Flat, grid: Grid, reference: int, pixels: int) -> Kind:
    """Fit weights for slices of ``pixels`` pixels in all, of which ``cells`` is a sample; the expected error is fitted later."""
    field = field_of(values, cells, grid, reference)
    few = next(row for row in _CLASSES if pixels < row[0])
    activity, mismatch = _limits(field.activity, few[1]), _limits(field.mismatch, few[2] if reference else 1)
    chosen = np.searchsorted(activity, field.activity, side="right") * (len(mismatch) + 1)
    if reference:
        chosen += np.searchsorted(mismatch, field.mismatch, side="right")
    wanted = (values.take(cells) - field.west).astype(np.float64)
    weights = _weights(field, wanted, chosen, (len(activity) + 1) * (len(mismatch) + 1))
    return Kind(reference, activity, mismatch, as_weights(weights), np.zeros(0))


def _limits(measured: NDArray[np.int32], classes: int) -> NDArray[np.int64]:
    """Return what parts pixels into classes of equal size, but for a background where nothing varies: that is a class of its own."""
    varied = measured[measured > measured.min()]
    if classes == 1 or not len(varied):
        return np.zeros(0, np.int64)
    return np.unique(np.quantile(varied, np.arange(classes - 1) / (classes - 1)).astype(np.int64))


def _weights(field: Field, wanted: NDArray[np.float64], chosen: Flat, classes: int) -> NDArray[np.float64]:
    """Return least absolute errors, nearly: one step of iteratively reweighted least squares for each class, drawn towards the weights for all."""
    around = field.differences.astype(np.float64)
    everywhere = _solved(around, wanted, np.ones(len(wanted)), np.zeros(len(around)), 1e-6)
    weights = np.repeat(everywhere[:, None], classes, axis=1)
    error = np.abs(wanted - everywhere @ around)
    for index in range(classes):
        here = chosen == index
        if here.sum() >= _SMALLEST_CLASS:
            trust = 1 / (error[here] + 0.3 * error[here].mean() + 0.5)
            weights[:, index] = _solved(around[:, here], wanted[here], trust, everywhere, 1e-4)
    return weights


def _solved(
    around: NDArray[np.float64], wanted: NDArray[np.float64], trust: NDArray[np.float64], towards: NDArray[np.float64], pull: float
) -> NDArray[np.float64]:
    weighed = around * trust
    products = weighed @ around.T
    ridge = pull * np.trace(products) / len(products) + 1e-6
    return np.asarray(np.linalg.solve(products + ridge * np.eye(len(products)), weighed @ wanted + ridge * towards), dtype=np.float64)


def fit_energies(values: NDArray[np.int32], errors: NDArray[np.int32], cells: Flat, grid: Grid, kind: Kind) -> NDArray[np.float64]:
    """Fit how large an error is to be expected from those nearby; weights ≥ 0."""
    features = features_of_error(field_of(values, cells, grid, kind.reference), errors, cells, grid, kind.reference)
    trust = 1 / (features.mean(axis=0) + 16)
    weighed, wanted = features * trust, errors.take(cells) * trust
    products = weighed @ weighed.T + 1e-6 * np.eye(len(features))
    return as_weights(nnls(products, weighed @ wanted)[0])
