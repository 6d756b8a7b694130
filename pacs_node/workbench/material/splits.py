"""Who is trained on and who is not: always by patient, and by nothing but the seed and each patient's own identity."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pacs_node.errors import InputError


def held_out_patients(patients: Sequence[str], seed: int, share: float) -> frozenset[str]:
    """Choose the patients all of whose studies are held out: about ``share`` of them, two at least, but never all."""
    shuffled = _shuffled(patients, seed)
    return frozenset(shuffled[: min(max(2, round(share * len(shuffled))), len(shuffled) - 1)])


def folds(patients: Sequence[str], k: int, seed: int) -> list[frozenset[str]]:
    """Part the patients into ``k`` groups that differ by one at most; raises `InputError` where there are fewer patients than groups."""
    shuffled = _shuffled(patients, seed)
    if not 2 <= k <= len(shuffled):
        raise InputError(f"{len(shuffled)} patients cannot be parted into {k} folds: give between 2 and {len(shuffled)}")
    return [frozenset(shuffled[start::k]) for start in range(k)]


def _shuffled(patients: Sequence[str], seed: int) -> list[str]:
    return sorted(set(patients), key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest())
