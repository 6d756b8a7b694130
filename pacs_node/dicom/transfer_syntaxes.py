"""Every transfer syntax of PS3.6 Table A-1: what may arrive and be kept. Which of them we can decode is decided in `analysis`."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import ALL_TRANSFER_SYNTAXES

TRANSFER_SYNTAXES: Mapping[str, str] = {
    **{str(uid): UID(uid).name for uid in ALL_TRANSFER_SYNTAXES},  # knows JPEG XL, which the dictionary of pydicom may not
    **{uid: entry[0] for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"},
}
"""Transfer Syntax UID → name: little and big endian, deflated, the JPEG families, RLE, video; retired ones too."""

DEFAULT = str(ImplicitVRLittleEndian)
"""The encoding that every application entity can read (PS3.5 10.1)."""

REENCODABLE: Mapping[str, str] = {
    str(ExplicitVRLittleEndian): DEFAULT,
    str(DeflatedExplicitVRLittleEndian): DEFAULT,
}
"""Transfer syntaxes whose datasets can be written again in `DEFAULT` without touching a pixel, for peers that refuse the first."""
