"""Coded entries (PS3.3 8.8)."""

from __future__ import annotations

from pydicom.dataset import Dataset


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """Return a code sequence item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
