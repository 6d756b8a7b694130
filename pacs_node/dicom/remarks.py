"""pydicom's remark on where in a dataset something failed, without the history that it repeats.

At every level of nested sequences pydicom puts the message and the traceback of the level below into a new message, which makes it 2.6
times as long: one damaged value below 20 sequences, a few hundred bytes, fills the memory of whoever prints or writes the dataset. The
error itself says enough.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pydicom.dataset
import pydicom.filewriter
from pydicom.tag import BaseTag

_SHORTENED = (pydicom.dataset, pydicom.filewriter)  # the modules that make such remarks


@contextlib.contextmanager
def _no_remark(tag: BaseTag) -> Iterator[None]:
    yield


def leave_out() -> None:
    """Have pydicom raise errors as they are, in this process; doing it again changes nothing."""
    for module in _SHORTENED:
        module.tag_in_exception = _no_remark  # type: ignore[attr-defined]
