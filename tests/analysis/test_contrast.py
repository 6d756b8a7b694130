"""The weighting of an MR image, told from its header."""

import pytest

from pacs_node.analysis.contrast import Contrast, Sequence, identify

SE, GR, IR = frozenset({"SE"}), frozenset({"GR"}), frozenset({"SE", "IR"})


@pytest.mark.parametrize(
    ("seen", "sequence"),
    [
        (Contrast(SE, repetition=500, echo=12), Sequence.T1),
        (Contrast(SE, repetition=4500, echo=100), Sequence.T2),
        (Contrast(SE, repetition=3000, echo=15), Sequence.OTHER),  # proton density
        (Contrast(IR, repetition=9000, echo=120, inversion=2500), Sequence.FLAIR),
        (Contrast(IR, repetition=2000, echo=10, inversion=860), Sequence.T1),
        (Contrast(IR, repetition=4000, echo=40, inversion=150), Sequence.OTHER),  # fat suppressed
        (Contrast(frozenset({"GR", "IR"}), repetition=2300, echo=2.9, inversion=900, flip=9), Sequence.T1),
        (Contrast(GR, repetition=8, echo=3.2, flip=12), Sequence.T1),
        (Contrast(GR, repetition=30, echo=4, flip=3), Sequence.OTHER),
        (Contrast(GR, repetition=700, echo=20, flip=20), Sequence.OTHER),
        (Contrast(GR, repetition=5, echo=2, flip=50, described="*tfi trufisp"), Sequence.OTHER),
        (Contrast(frozenset({"EP", "SE"}), repetition=5000, echo=80, b_value=1000), Sequence.DWI),
        (Contrast(frozenset({"EP", "SE"}), repetition=5000, echo=80, b_value=0), Sequence.DWI),
        (Contrast(GR, repetition=4, echo=1.5, flip=12, b_value=0), Sequence.T1),  # some makers write a b-value of 0 everywhere
        (Contrast(frozenset({"EP", "GR"}), repetition=500, echo=30, described="REST1"), Sequence.OTHER),
        (Contrast(acquisition="FLUID_ATTENUATED"), Sequence.FLAIR),
        (Contrast(acquisition="DIFFUSION", b_value=1000), Sequence.DWI),
        (Contrast(acquisition="UNKNOWN", described="Ax T2 FLAIR fs"), Sequence.FLAIR),
        (Contrast(described="t1_mprage_sag"), Sequence.T1),
        (Contrast(described="Ax T2* GRE"), Sequence.OTHER),
        (Contrast(described="COR T2 haste"), Sequence.T2),
        (Contrast(described="ep2d_diff_trace"), Sequence.DWI),
        (Contrast(described="REST12 run"), Sequence.UNKNOWN),
        (Contrast(), Sequence.UNKNOWN),
    ],
)
def test_a_sequence_is_told_by_its_physics_first_and_by_its_name_last(seen: Contrast, sequence: Sequence) -> None:
    assert identify(seen) is sequence
