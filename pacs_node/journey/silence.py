"""Senders that are expected to send, and do not: an alert after so much working time, taken back by the next instance."""

from __future__ import annotations

from datetime import datetime

from pacs_node.config import Silence
from pacs_node.database.alerts import clear_alert, open_alerts, raise_alert
from pacs_node.database.studies import last_heard
from pacs_node.journey import House
from pacs_node.monitoring.silence import worked, zone_of
from pacs_node.retention.policy import in_words

ANYBODY = "anybody"


def listen(house: House, now: datetime) -> None:
    """Raise an alert for each sender that has been silent for too long, and take back those that are over."""
    silence, beat = house.settings.events.silence, house.settings.heartbeat
    own = (*house.settings.node.ae_titles, *((beat.sent_as,) if beat is not None and beat.sent_as else ()))  # nobody else is heard by these
    with house.store.read() as session:
        known = {alert.subject for alert in open_alerts(session) if alert.kind == "silence"}
        heard = {name: last_heard(session, name or None, own) for name in _expected(silence)}
    zone = zone_of(house.settings.node.timezone)
    silent = {}
    for name, last in heard.items():
        if silence is not None and worked(last or house.began, now, silence, zone) >= silence.after:
            silent[_subject(name)] = _sentence(name, last, silence)
    if silent.keys() == known:
        return
    with house.store.write() as session:
        for subject in known - silent.keys():
            clear_alert(session, "silence", subject, now)
        new = [subject for subject, text in silent.items() if raise_alert(session, "silence", subject, text, now)]
    for subject in new:
        house.log.error("alert", kind="silence", subject=subject, message=silent[subject])


def _expected(silence: Silence | None) -> tuple[str, ...]:
    """Return the senders that are listened for; ``""`` stands for all of them together."""
    return () if silence is None else silence.senders or ("",)


def _subject(name: str) -> str:
    return f"sender {name or ANYBODY}"


def _sentence(name: str, last: datetime | None, silence: Silence) -> str:
    since = f"since {last:%Y-%m-%d %H:%M} UTC" if last is not None else "since the node was started"
    who = f"{name} has sent nothing" if name else "nobody has sent anything"
    return f"{who} {since}, which is more than {in_words(silence.after)} of working time. Look at its queue and its network, and at this node's log"
