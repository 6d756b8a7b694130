"""Each kind of series is judged by healthy statistics of its own, where training had enough of that kind."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.analysis.strata import PLANES, plane_of, stratum_of
from pacs_node.autoencoder.network import Architecture, Network
from pacs_node.autoencoder.normals import Example, fit_normals
from pacs_node.autoencoder.scoring import PARTS, Fusion, Stratum
from pacs_node.config import shipped
from pacs_node.phantoms import PhantomSpec, make_volume
from pacs_node.records import Volume


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(shipped("models") / "mr-brain")


def mr(plane: str, sequence: str) -> Volume:
    return make_volume(PhantomSpec(modality="MR", region="brain", plane=plane, sequence=sequence, slices=5, rows=64)).volume


@pytest.mark.parametrize("plane", PLANES)
def test_the_plane_is_told_by_geometry(plane: str) -> None:
    assert plane_of(mr(plane, "T1")) == plane


def test_every_weighting_in_every_plane_is_a_kind_of_its_own(manifest: Manifest) -> None:
    found = [stratum_of(mr(plane, sequence), manifest) for plane, sequence in product(PLANES, ("T1", "T2", "FLAIR"))]
    assert {one.of for one in found} == {9}
    assert sorted(one.index for one in found) == list(range(9))


def test_a_bundle_that_names_no_kinds_has_one(manifest: Manifest) -> None:
    plain = manifest.model_copy(update={"scoring": manifest.scoring.model_copy(update={"strata": ()})})
    assert stratum_of(mr("coronal", "FLAIR"), plain) == Stratum(0, 1)


def test_a_kind_with_few_studies_is_judged_by_all_and_the_others_by_their_own() -> None:
    torch.manual_seed(0)
    network = Network(Architecture(64, 1, (8, 16), ("open", "open"))).eval()
    foreground = torch.ones(4, 64, 64, dtype=torch.bool)
    studies = [
        Example(torch.rand(4, 64, 64) * (0.2 + 0.6 * index), foreground, Stratum(index, 3)) for index, count in ((0, 6), (1, 6), (2, 1)) for _ in range(count)
    ]
    mean = fit_normals(network, [one.x for one in studies], studies, Fusion(), bins=2).mean
    first, second, rare = (mean[PARTS.index("error"), kind * 2 : kind * 2 + 2].mean() for kind in range(3))
    assert mean.shape[1] == 6
    assert second > 1.5 * first
    assert first < rare < second


def test_slices_find_the_rows_of_their_kind() -> None:
    assert Stratum(1, 3).bins(4, 6).tolist() == [2, 2, 3, 3]
    assert Stratum().bins(4, 2).tolist() == [0, 0, 1, 1]
