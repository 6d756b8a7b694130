"""Step 6 of the journey: results, and originals where a rule forwards them, reach their destinations.

Every kind of destination is one module with the same function ``deliver(destination, parcels, calling_ae, on_outcome, wanted=…)``: it
offers the parcels in order, asks before each whether it is still wanted, and reports each object's outcome at once. It raises
`pacs_node.errors.TemporaryFailure` where the destination as a whole cannot be had; what was not reported is still to be sent then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from pacs_node.config import Destination, DicomDestination
from pacs_node.delivery import cstore, folder, stow
from pacs_node.delivery.cstore import Contexts
from pacs_node.records import Outcome, Parcel

DESTINATIONS: Mapping[str, ModuleType] = {"dicom": cstore, "folder": folder, "stow": stow}
"""Kind of destination → the module that delivers to it."""

OnOutcome = Callable[[Outcome], None]
Wanted = Callable[[Parcel], bool]


def deliver(
    destination: Destination,
    parcels: Sequence[Parcel],
    calling_ae: str,
    on_outcome: OnOutcome,
    wanted: Wanted = lambda parcel: True,
    contexts: Contexts = Contexts(),
) -> None:
    """Offer ``parcels`` in order to a destination of any kind; one that negotiates SOP classes says on the way which of them it takes."""
    more = {"contexts": contexts} if isinstance(destination, DicomDestination) else {}
    DESTINATIONS[destination.kind].deliver(destination, parcels, calling_ae, on_outcome, wanted=wanted, **more)
