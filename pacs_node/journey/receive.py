"""Spool → its readers: instances to the index, the ends of associations to their studies, requests to their services.

An object that cannot be dealt with goes to quarantine and is said: it never stands in the way of the others.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from datetime import datetime

from pacs_node.database import studies
from pacs_node.database.alerts import raise_alert
from pacs_node.database.tables import AsideRow
from pacs_node.errors import DatabaseUnavailable, UnreadableObject
from pacs_node.journey import House
from pacs_node.journey.arriving import Item, describe, split_at_repeat
from pacs_node.journey.index import index
from pacs_node.journey.notes import take_note
from pacs_node.journey.noting import note_end, note_refusal
from pacs_node.records import Arrival, AssociationEnd, Note, Quarantined, Refusal

BATCH = 100  # arrivals a transaction


def receive(house: House, now: datetime) -> int:
    """Index what waits in the spool, one batch; returns how many entries were dealt with."""
    entries = house.spool.arrivals(BATCH)
    items = []
    for arrival in (entry for entry in entries if isinstance(entry, Arrival)):
        try:
            items.append(describe(house, arrival))
        except UnreadableObject as error:
            _quarantine(house, arrival, error.reason, now)
        except OSError:
            raise  # the disk: nothing is wrong with the object
        except Exception as error:  # the border of the periodic duty, object by object
            _put_aside(house, arrival, error, now)
    while items:
        batch, items = split_at_repeat(items)
        _index(house, batch, now)
    # after the instances: entries come in the order of their names, so that an association's end follows all that it brought
    _note_ends(house, [entry for entry in entries if isinstance(entry, AssociationEnd)], now)
    _note_refusals(house, [entry for entry in entries if isinstance(entry, Refusal)], now)
    for note in (entry for entry in entries if isinstance(entry, Note)):
        _take_note(house, note, now)
    return len(entries)


def _take_note(house: House, note: Note, now: datetime) -> None:
    try:
        take_note(house, note, now)
    except UnreadableObject as error:
        _quarantine(house, note, error.reason, now)
    except (OSError, DatabaseUnavailable):
        raise  # the disk or the database: nothing is wrong with the note
    except Exception as error:  # the border of the periodic duty, note by note
        _put_aside(house, note, error, now)


def _index(house: House, items: list[Item], now: datetime) -> None:
    """Index a batch; where one object makes it fail, index one by one and put that object aside."""
    try:
        index(house, items, lambda item, reason: _quarantine(house, item.arrival, reason, now), now)
    except (OSError, DatabaseUnavailable):
        raise  # the disk or the database: nothing is wrong with the objects
    except Exception as error:  # the border of the periodic duty, object by object
        if len(items) > 1:
            for item in items:
                _index(house, [item], now)
            return
        _put_aside(house, items[0].arrival, error, now)


# --- associations and quarantine -----------------------------------------------------------------------------------------


def _note_ends(house: House, ends: list[AssociationEnd], now: datetime) -> None:
    if not ends:
        return
    with house.store.write() as session:
        for end in ends:
            note_end(session, end, now)
            studies.add_association(session, end)
            for study in studies.studies_of_association(session, end.sender.association):
                study.look_again_at = min(study.look_again_at or now, now)  # a rule may count a release as completeness
    for end in ends:
        house.log.info("association over", sender=end.sender.calling_ae, released=end.released, stored=end.stored, refused=end.refused)
    house.spool.forget(*ends)


def _note_refusals(house: House, refusals: list[Refusal], now: datetime) -> None:
    if not refusals:
        return
    with house.store.write() as session:
        for refusal in refusals:
            note_refusal(session, refusal, now)
    house.spool.forget(*refusals)


def note_quarantined(house: House, items: Iterable[Quarantined], now: datetime) -> int:
    """Bring what lies in quarantine into the database, each with an alert; returns how many were new."""
    with house.store.read() as session:
        known = studies.aside_paths(session, "quarantine")
    count = 0
    for item in items:
        path = str(item.path.relative_to(house.data))
        if path in known:
            continue
        who = item.sender.calling_ae or "an unknown sender"
        message = f"an object from {who} was put into quarantine ({path}): {item.reason}"
        row = AsideRow(kind="quarantine", reason=item.reason, path=path, calling_ae=item.sender.calling_ae[:16], received_at=item.received_at)
        with house.store.write() as session:
            new = studies.add_aside(session, row) and raise_alert(session, "quarantine", f"file {item.name}"[:96], message, now)
        if new:
            count += 1
            house.log.error("alert", kind="quarantine", file=item.name, message=message)
    return count


def _quarantine(house: House, arrival: Arrival | Note, reason: str, now: datetime) -> None:
    note_quarantined(house, [house.spool.quarantine(arrival, reason)], now)


def _put_aside(house: House, arrival: Arrival | Note, error: Exception, now: datetime) -> None:
    """Quarantine an object, or a note, that makes the intake fail, so that the others go on; called where the error was caught."""
    house.log.error("object cannot be indexed", file=arrival.name, traceback=traceback.format_exc())
    _quarantine(house, arrival, f"it cannot be indexed ({type(error).__name__}: {error})", now)
