"""Lesions of phantoms lie where they lay and change what they changed: bundles and figures were made with them."""

import hashlib

import numpy as np
import pytest

from pacs_node.phantoms import PhantomSpec, make_volume

MADE = [  # modality, region, lesion: voxels, digest of the mask, sum of the absolute change
    ("CT", "head", "ellipsoid", 371, "6b58fefdb280", 9382.0),
    ("CT", "head", "mass_effect", 371, "6b58fefdb280", 4508.0),
    ("CT", "head", "texture", 371, "6b58fefdb280", 7755.0),
    ("CT", "head", "missing_structure", 393, "72076e6748d2", 11497.0),
    ("CT", "body", "ellipsoid", 572, "c61d932fa58f", 92604.0),
    ("CT", "body", "mass_effect", 572, "c61d932fa58f", 45021.0),
    ("CT", "body", "texture", 572, "c61d932fa58f", 75557.0),
    ("CT", "body", "missing_structure", 538, "8f6669e47f43", 692124.0),
    ("MR", "brain", "ellipsoid", 986, "6893a38795ca", 202857.0),
    ("MR", "brain", "mass_effect", 986, "6893a38795ca", 99872.0),
    ("MR", "brain", "texture", 986, "6893a38795ca", 169683.0),
    ("MR", "brain", "missing_structure", 924, "8482344f0ddb", 398047.0),
    ("PT", "body", "ellipsoid", 354, "54e0e55f764b", 261.534),
    ("PT", "body", "mass_effect", 354, "54e0e55f764b", 133.82),
    ("PT", "body", "texture", 354, "54e0e55f764b", 208.123),
    ("PT", "body", "missing_structure", 320, "459c5950ee68", 641.066),
    ("US", "breast", "ellipsoid", 442, "f15a2abf95e9", 36523.0),
    ("US", "breast", "mass_effect", 442, "f15a2abf95e9", 14191.0),
    ("US", "breast", "texture", 442, "f15a2abf95e9", 29144.0),
    ("US", "breast", "missing_structure", 424, "13184aed9034", 49245.0),
]


@pytest.mark.parametrize(("modality", "region", "lesion", "voxels", "digest", "change"), MADE)
def test_a_lesion_of_a_seed_is_the_one_that_it_always_was(modality: str, region: str, lesion: str, voxels: int, digest: str, change: float) -> None:
    plane, slices = "sagittal" if modality == "MR" else "axial", 4 if modality == "US" else 8
    made = make_volume(PhantomSpec(modality=modality, region=region, lesion=lesion, seed=11, slices=slices, rows=96, size=0.03, plane=plane))
    assert np.count_nonzero(made.lesion) == voxels
    assert hashlib.sha256(np.packbits(made.lesion).tobytes()).hexdigest()[:12] == digest
    assert np.nansum(np.abs(np.asarray(made.volume.pixels, dtype=np.float64) - made.healthy)) == pytest.approx(change, rel=1e-3)
