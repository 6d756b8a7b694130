"""The two UIDs at the beginning of a dataset, found without building a dataset: it is done for every instance that arrives."""

from __future__ import annotations

import re
import struct

from pacs_node.dicom.transfer_syntaxes import TRANSFER_SYNTAXES

_IMPLICIT = "1.2.840.10008.1.2"
_OTHERS = frozenset({"1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1"})  # big endian; deflated
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018

_implicit_element = struct.Struct("<HHI").unpack_from
_explicit_element = struct.Struct("<HH2sH").unpack_from
_uid = re.compile(rb"([0-9.]{1,64})[\0 ]?").fullmatch


def quick_uids(head: bytes | bytearray | memoryview, transfer_syntax_uid: str) -> tuple[str, str] | None:
    """Return (SOP Class UID, SOP Instance UID) where both stand plainly in ``head``, the first bytes of an encoded dataset.

    None is no verdict: another encoding, a sequence on the way, an odd value or too few bytes. `header.leading_uids` tells then.
    """
    if transfer_syntax_uid in _OTHERS or transfer_syntax_uid not in TRANSFER_SYNTAXES:
        return None
    implicit, found, offset, size = transfer_syntax_uid == _IMPLICIT, [], 0, len(head)
    previous = 0
    while offset + 8 <= size:
        if implicit:
            group, element, length = _implicit_element(head, offset)
        else:
            group, element, vr, length = _explicit_element(head, offset)
            if vr not in _SHORT_VRS:
                return None
        tag = group << 16 | element
        offset += 8
        if group != 0x0008 or tag <= previous or tag > _SOP_INSTANCE or offset + length > size:
            return None
        if tag in (_SOP_CLASS, _SOP_INSTANCE):
            match = _uid(bytes(head[offset : offset + length]))
            if match is None or (not implicit and vr != b"UI"):
                return None
            found.append(match[1].decode("ascii"))
            if tag == _SOP_INSTANCE:
                return (found[0], found[1]) if len(found) == 2 and _goes_on(head, offset + length) else None
        offset += length
        previous = tag
    return None


def _goes_on(head: bytes | bytearray | memoryview, offset: int) -> bool:
    """Tell whether the next element has a higher tag: one that comes twice says two things."""
    if offset + 8 > len(head):
        return False
    group, element, _ = _implicit_element(head, offset)
    return bool(group << 16 | element > _SOP_INSTANCE)
