"""What people are told about the outbox."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from pacs_node.database import deliveries
from pacs_node.database.alerts import audit, raise_alert
from pacs_node.database.tables import DeliveryRow
from pacs_node.journey import House
from pacs_node.journey.noting import of_delivery
from pacs_node.records import Outcome


def say_stuck(house: House, session: Session, row: DeliveryRow, kind: str, message: str, now: datetime) -> None:
    """Raise the alert that a delivery was refused or parked, with the command that sends it again; one for all originals of a study."""
    session.flush()
    if row.job_id is not None:
        text = f"delivery {row.id} ({row.origin}, {row.kind}) to {row.destination} was {kind}: {message}. To send it again: `pacs-node retry delivery {row.id}`"
    else:
        count = deliveries.stuck_like(session, row, row.state)
        what = f"original instances of study {row.study_id} to {row.destination} that were {kind}: {count}, the last (delivery {row.id}) since {message}"
        text = f"{what}. To send them again: `pacs-node retry --parked`"
    audit(session, "delivery", kind, f"delivery {row.id}", of_delivery(house.settings, row), now)
    if raise_alert(session, kind, row.subject, text, now):
        house.log.error("alert", kind="delivery", message=text)


def say_coerced(house: House, session: Session, row: DeliveryRow, outcome: Outcome, now: datetime) -> None:
    """Raise the alert that a destination may have filed what it got under another patient."""
    message = (
        f"{row.destination} stored objects of study {row.study_id} with changes (status 0x{outcome.status or 0:04X}), and {outcome.coerced}: "
        "they may lie under another patient there. Look at the study in the archive, and have wrong ones rejected"
    )
    if raise_alert(session, "coerced", f"study {row.study_id} at {row.destination}"[:96], message, now):
        house.log.error("alert", kind="coerced", subject=row.origin, message=message)
