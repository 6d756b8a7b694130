"""Coordinates, soft shapes and random fields."""

import math

import numpy as np
import pytest

from pacs_node.phantoms.grid import ellipsoid, lookup, ramp, smooth_field
from pacs_node.phantoms.spec import PhantomSpec
from pacs_node.phantoms.volume import scan_grid

GRID = scan_grid(PhantomSpec(slices=9, rows=64, field_of_view=128, spacing=4))


@pytest.mark.parametrize(("distance", "weight"), [(-5, 1.0), (-1, 1.0), (-0.5, 0.75), (0, 0.5), (0.5, 0.25), (1, 0.0), (5, 0.0)])
def test_a_soft_edge_is_half_at_the_edge(distance: float, weight: float) -> None:
    assert ramp(np.array([distance], dtype=np.float32), 1.0)[0] == pytest.approx(weight)


def test_an_ellipsoid_has_its_volume_and_stays_in_its_box() -> None:
    found = ellipsoid(GRID, (5, -3, 14), (20, 12, 15), angle=0.4)
    assert found is not None
    box, weight = found
    voxel = math.prod(GRID.step)
    assert weight.shape == tuple(part.stop - part.start for part in box)
    assert weight.sum() * voxel == pytest.approx(4 / 3 * math.pi * 20 * 12 * 15, rel=0.05)


def test_an_ellipsoid_outside_the_scan_is_nothing() -> None:
    assert ellipsoid(GRID, (0, 0, 500), (10, 10, 10)) is None


def test_a_random_field_is_reproducible_smooth_and_of_unit_variance() -> None:
    fields = [smooth_field(np.random.default_rng(3), (24, 128, 128), (3, 6, 6)) for _ in range(2)]
    whole = fields[0].part()
    np.testing.assert_array_equal(whole, fields[1].part())
    assert whole.std() == pytest.approx(1, abs=0.1)
    assert np.abs(np.diff(whole, axis=1)).mean() < 0.3 * whole.std()


def test_some_slices_of_a_random_field_are_those_of_the_whole() -> None:
    field = smooth_field(np.random.default_rng(1), (10, 32, 32), (4, 5, 5))
    np.testing.assert_allclose(field.part(slice(3, 7)), field.part()[3:7], atol=1e-5)


def test_a_lookup_is_linear_between_its_knots_and_constant_outside() -> None:
    found = lookup(np.array([-1, 0, 1, 2, 9], dtype=np.float32), ((0.0, 10.0), (2.0, 30.0)))
    np.testing.assert_allclose(found, [10, 10, 20, 30, 30], atol=0.5)
