"""What destinations take is learnt while results are sent there, and known before the next ones are built."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress

from pacs_node.config import Destination, DicomDestination
from pacs_node.database import contexts
from pacs_node.delivery.cstore import Contexts
from pacs_node.dicom.sop_classes import name_of
from pacs_node.errors import DatabaseUnavailable
from pacs_node.journey import House


def learner(house: House, name: str) -> Contexts:
    """Return what is to be asked of a destination beside sending, so that one that takes a kind again is known at once, and who hears of it."""
    destination = house.settings.destinations[name]
    if not isinstance(destination, DicomDestination):
        return Contexts()
    return Contexts(house.patiently(lambda: _refused(house, name, destination)), lambda facts: _try_to_learn(house, name, facts))


def _refused(house: House, name: str, destination: Destination) -> frozenset[str]:
    with house.store.read() as session:
        return contexts.refused(session, name, _digest(destination), house.clock())


def _try_to_learn(house: House, name: str, facts: Mapping[str, bool]) -> None:
    """Learn what an association shows, or the next one, where the database is away: what it delivers does not wait for that."""
    with suppress(DatabaseUnavailable):
        _learn(house, name, facts)


def _learn(house: House, name: str, facts: Mapping[str, bool]) -> None:
    config, moment = _digest(house.settings.destinations[name]), house.clock()
    with house.store.read() as session:
        news = contexts.news(session, name, config, facts, moment)
    if not news:
        return
    with house.store.write() as session:
        before = contexts.refused(session, name, config, moment)
        contexts.learn(session, name, config, news, moment)
        after = contexts.refused(session, name, config, moment)
    if before != after:
        house.log.info("contexts learnt", destination=name, refused=[name_of(uid) for uid in sorted(after)])
    if not after:  # also where the configuration changed since the alert, or what was learnt is too old
        house.clear("contexts", name)


def takeable(house: House, name: str, kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds of result that a destination is to get; what it is known to refuse is left out and said, once for the destination."""
    from pacs_node import results

    destination = house.settings.destinations[name]
    if not isinstance(destination, DicomDestination):
        return tuple(kinds)
    refused = house.patiently(lambda: _refused(house, name, destination))
    left = results.takeable(kinds, refused, destination.fallback)
    if missing := [kind for kind in kinds if kind not in left]:
        classes = ", ".join(name_of(results.BUILDERS[kind].sop_class_uid) for kind in missing)
        remedy = f"it is asked again with every delivery, and after {contexts.HOLDS.days} days at the latest"
        message = (
            f"{name} accepts no {classes}: its results are made without {', '.join(missing)}. Have it accept them ({remedy}), or take them out of the rule"
        )
        house.alert("contexts", name, message)
    return left


def _digest(destination: Destination) -> str:
    return hashlib.sha256(destination.model_dump_json().encode()).hexdigest()
