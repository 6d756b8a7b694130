"""Which SOP classes can be stored, and who we are when we negotiate them (PS3.4 Annex B, PS3.6 Annex A, PS3.7 Annex D)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts

from pacs_node.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from pacs_node.dicom.uids import derive_uid

VERIFICATION = "1.2.840.10008.1.1"

IMPLEMENTATION_CLASS_UID = derive_uid("pacs-node implementation")
IMPLEMENTATION_VERSION_NAME = "PACS_NODE"

MAX_CONTEXTS = 128  # presentation context IDs are the odd numbers 1…255 (PS3.8 9.3.2.2)

_IMAGE_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_NOT_STORED_BY_C_STORE = ("Storage Commitment", "Media Storage Directory")


def _is_storage(uid: str, name: str, kind: str) -> bool:
    """Tell whether an entry of PS3.6 Table A-1 is a class whose instances travel by C-STORE; two retired ones have lost their names."""
    if kind != "SOP Class" or name.startswith(_NOT_STORED_BY_C_STORE):
        return False
    return "Storage" in name or (not name and uid.startswith(_IMAGE_STORAGE_ROOT))


STORAGE_CLASSES: Mapping[str, str] = {
    **{str(context.abstract_syntax): UID(str(context.abstract_syntax)).name for context in AllStoragePresentationContexts},
    **{uid: entry[0] or "retired storage class" for uid, entry in UID_dictionary.items() if _is_storage(uid, entry[0], entry[1])},
}
"""SOP Class UID → name: every public storage class, retired and non-patient ones too."""


def accepted_classes(private: Iterable[str] = ()) -> frozenset[str]:
    """Return what a storage SCP of ours accepts: Verification, every storage class and the ``private`` ones of the configuration."""
    return frozenset(STORAGE_CLASSES) | {VERIFICATION} | frozenset(private)


def acceptable(proposed: Iterable[tuple[str, Iterable[str]]], classes: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Choose from a proposal: abstract syntax → transfer syntaxes in the order in which the requestor named them.

    The requestor's first choice is the encoding that its files already have, so taking it spares it a conversion that it may not be
    able to make (PS3.8 leaves the choice to the acceptor).
    """
    chosen: dict[str, dict[str, None]] = {}
    for abstract_syntax, transfer_syntaxes in proposed:
        if abstract_syntax in classes:
            known = chosen.setdefault(abstract_syntax, {})
            known.update(dict.fromkeys(uid for uid in transfer_syntaxes if uid in TRANSFER_SYNTAXES))
    return {abstract_syntax: tuple(known) for abstract_syntax, known in chosen.items() if known}


def name_of(uid: str) -> str:
    """Return the name of a SOP class or transfer syntax for people, or the UID itself."""
    return STORAGE_CLASSES.get(uid) or TRANSFER_SYNTAXES.get(uid) or uid
