"""What is said of an event to those who are told: pure decisions on values.

No patient data unless `details` asks for them: a study is a hash of its UID or its UID, a fault whose words may come from a header or from
another system is said in a fixed sentence, and UIDs within a text are hashed like a study's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pacs_node.config import Email, Webhook
from pacs_node.database.events import RESULT
from pacs_node.monitoring.logs import study_tag
from pacs_node.records import FAULT_KINDS, Event, FaultKind

Receiver = Webhook | Email

_UID = re.compile(r"[0-2](?:\.\d+){2,}")
_SHORTEST_UID = 18  # characters; below that it may be a version or a network address
_MOST_LINES = 100  # of one mail
_OF_RESULTS = ("job", "run", "pipeline", "bundle", "state", "score", "verdict", "percentile", "partial", "destinations")  # no words of headers
_UNKNOWN = FaultKind("needs a look")


def body(event: Event, receiver: Receiver, node: str) -> bytes:
    """Return the JSON of an event, the same bytes each time."""
    content: dict[str, Any] = {"id": event.uid, "type": type_of(event), "at": event.at.isoformat(), "node": node}
    if event.kind == RESULT:
        content["result"] = _result(event, receiver)
    else:
        content["fault"] = {"kind": event.kind, "subject": event.subject, "message": sentence(event, receiver), **_since(event)}
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def trial(uid: str, now: datetime, node: str) -> bytes:
    """Return the JSON that shows a receiver that it can be reached, and nothing else."""
    return json.dumps({"id": uid, "type": "test", "at": now.isoformat(), "node": node}, sort_keys=True, separators=(",", ":")).encode()


def type_of(event: Event) -> str:
    """Return ``result``, ``fault.raised`` or ``fault.over``."""
    return RESULT if event.kind == RESULT else "fault.over" if event.over else "fault.raised"


def _since(event: Event) -> dict[str, Any]:
    return {"since": event.detail["since"]} if event.over and "since" in event.detail else {}


def _result(event: Event, receiver: Receiver) -> dict[str, Any]:
    detail: Mapping[str, Any] = event.detail
    uid = str(detail.get("study_uid", ""))
    found = {"study": uid if receiver.study == "uid" else study_tag(uid), **{name: detail[name] for name in _OF_RESULTS if detail.get(name) is not None}}
    if receiver.details and detail.get("reason"):
        found["reason"] = detail["reason"]
    return found


def sentence(event: Event, receiver: Receiver) -> str:
    """Say in words what happened: the node's own, or with `details` all that the alert says."""
    kind = FAULT_KINDS.get(event.kind, _UNKNOWN)
    if event.over:
        return f"over: {event.subject} ({event.kind})"
    if receiver.details:
        return str(event.detail.get("message", ""))
    if kind.own_words:
        return without_uids(str(event.detail.get("message", "")))
    return f"{without_uids(event.subject)} {kind.what}. `pacs-node status` says more"


def without_uids(text: str) -> str:
    """Put a hash in the place of every UID of a text."""
    return _UID.sub(lambda found: f"uid:{study_tag(found[0])}" if len(found[0]) >= _SHORTEST_UID else found[0], text)


def mail(events: Sequence[Event], receiver: Receiver, node: str) -> tuple[str, str]:
    """Return subject and text of the one mail about some events, oldest first; of a flood the newest are counted only."""
    faults = sum(1 for event in events if event.kind != RESULT and not event.over)
    counts = [(faults, "faults"), (sum(event.over for event in events), "over"), (sum(event.kind == RESULT for event in events), "results")]
    subject = f"pacs-node {node}: " + ", ".join(f"{count} {what}" for count, what in counts if count)
    lines = [f"{event.at:%Y-%m-%d %H:%M:%S} UTC  {_line(event, receiver)}" for event in events[:_MOST_LINES]]
    more = [f"… and {len(events) - _MOST_LINES} more: `pacs-node status` shows those that are open"] if len(events) > _MOST_LINES else []
    return subject, "\n\n".join([*lines, *more, "pacs-node, for research use only"]) + "\n"


def _line(event: Event, receiver: Receiver) -> str:
    if event.kind != RESULT:
        return f"{event.kind}: {sentence(event, receiver)}"
    found = _result(event, receiver)
    return f"result: study {found.pop('study')}, " + ", ".join(f"{name} {value}" for name, value in found.items())
