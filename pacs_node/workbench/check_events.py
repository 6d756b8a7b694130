"""What `pacs-node check` says of those who are told of events."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from pacs_node.config import Settings, Webhook
from pacs_node.delivery import mail, webhook
from pacs_node.errors import ConfigError, DeliveryError
from pacs_node.monitoring.events import trial
from pacs_node.retention.policy import in_words

Line = tuple[str, str]  # ok | warning | fault, text


def examine(settings: Settings) -> Iterator[Line]:
    """Look at secrets and certificates; nobody is connected to."""
    for one in settings.events.receivers:
        try:
            for warning in webhook.examine(one) if isinstance(one, Webhook) else mail.examine(one):
                yield "warning", warning
        except ConfigError as error:
            yield "fault", f"{error.key}: {error.problem}"
        else:
            yield "ok", f"events: {one.title} is told of {', '.join(one.kinds)}"


def heartbeat(settings: Settings) -> Iterator[Line]:
    """Say where heartbeats go; that they go nowhere else is refused when the configuration is read."""
    if settings.heartbeat is not None:
        yield "ok", f"heartbeat: a phantom every {in_words(settings.heartbeat.every)}, whose results go to {settings.heartbeat.destination} only"


def ask(settings: Settings) -> Iterator[Line]:
    """Post a signed event of type ``test`` to each webhook, and log in at the mail server."""
    for one in settings.events.receivers:
        try:
            if isinstance(one, Webhook):
                uid, now = str(uuid.uuid4()), datetime.now(UTC)
                webhook.post(one, uid, trial(uid, now, settings.node.name), now)
            else:
                mail.probe(one)
        except DeliveryError as error:
            yield "fault", f"events: {error}"
        else:
            yield "ok", f"events: {one.title} takes them"
