"""Who is told of results and faults: webhooks, e-mail, and what silence of senders counts as a fault."""

from __future__ import annotations

import hashlib
import re
from datetime import time, timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from pacs_node.config.tls import DestinationTLS
from pacs_node.config.units import AETitle, Duration, Section
from pacs_node.records import FAULT_KINDS

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_GROUPS = ("result", "fault")  # besides the kinds of faults


def _known_kind(value: str) -> str:
    if value not in _GROUPS and value not in FAULT_KINDS:
        raise ValueError(f"{value!r} is no kind of event: there are {', '.join((*_GROUPS, *FAULT_KINDS))} (`fault` stands for all that follow it)")
    return value


EventKind = Annotated[str, AfterValidator(_known_kind)]


class Receiver(Section):
    """What holds for everybody who is told."""

    kinds: tuple[EventKind, ...] = Field(("result", "fault"), min_length=1)  # result, fault (every kind of fault), or kinds of faults by name
    study: Literal["hash", "uid"] = "hash"  # how a study is named: as in the log, or by its Study Instance UID
    details: bool = False  # true: the full text of faults and reasons, which may hold what other systems and headers say
    tls: DestinationTLS | None = None  # for a server whose certificate the system's authorities did not sign

    def wants(self, kind: str) -> bool:
        """Tell whether it is told of a kind: ``result``, or a kind of fault."""
        return kind in self.kinds or ("fault" in self.kinds and kind != "result")


class Webhook(Receiver):
    """An https address to which each event is posted, signed. The secret stands in a file or in an environment variable, never here."""

    url: str  # https; over http, whoever listens can read what is told
    name: str | None = Field(None, min_length=1, max_length=64)  # what it is called in tables and alerts; null: made of its host
    secret_file: Path | None = None  # whose one line is the secret of the signature; two lines while it is exchanged
    secret_env: str | None = None  # an environment variable that holds it instead

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not re.search(r"[^!-~]", value)
        except ValueError:
            known = False
        if not known or parts.fragment:
            raise ValueError("is no address of a web server: write https://HOST[:PORT]/PATH")
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds a user or a password: take them out; the signature shows who we are")
        return value

    @model_validator(mode="after")
    def _one_secret(self) -> Webhook:
        if (self.secret_file is None) == (self.secret_env is None):
            raise ValueError("give one of secret_file and secret_env: where the secret of the signature is read from")
        if self.tls is not None and not self.url.startswith("https:"):
            raise ValueError("tls is given, but the url does not begin with https: change one of them")
        return self

    @property
    def title(self) -> str:
        """What it is called in tables, logs and alerts: its name, or its host and a mark of the address, whose path may be a secret."""
        return self.name or f"{urlsplit(self.url).hostname}-{hashlib.sha256(self.url.encode()).hexdigest()[:8]}"

    @property
    def in_clear(self) -> bool:
        """Whether what is sent can be read on the way to another machine."""
        return self.url.startswith("http:") and urlsplit(self.url).hostname not in ("localhost", "127.0.0.1", "::1")


def _address_of_mail(value: str) -> str:
    if not re.fullmatch(r"[!-;=?A-~]+@[!-;=?A-~]+", value) or value.count("@") != 1:
        raise ValueError(f"{value!r} is no e-mail address: write name@host")
    return value


MailAddress = Annotated[str, AfterValidator(_address_of_mail)]


class Email(Receiver):
    """A mail server and those who get mail of faults; many events are one mail. The password stands in a file or in an environment variable."""

    kinds: tuple[EventKind, ...] = Field(("fault",), min_length=1)  # result, fault (every kind of fault), or kinds of faults by name
    host: str = Field(min_length=1)  # of the mail server
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"  # tls: from the start, usually on port 465
    sender: MailAddress  # whom the mail is from
    to: tuple[MailAddress, ...] = Field(min_length=1)
    user: str | None = None  # at the mail server; null: none is asked for
    password_file: Path | None = None  # whose one line is the password
    password_env: str | None = None  # an environment variable that holds it instead
    collect: Duration = timedelta(minutes=1)  # after the first event: what comes meanwhile stands in the same mail
    every: Duration = timedelta(minutes=15)  # at most one mail in this time

    @model_validator(mode="after")
    def _safe_password(self) -> Email:
        given = sum(place is not None for place in (self.password_file, self.password_env))
        if given != (1 if self.user is not None else 0):
            raise ValueError("user, and one of password_file and password_env, belong together: give both, or neither")
        if self.security == "none" and (self.user is not None or self.tls is not None):
            raise ValueError("security none would send the password in clear and knows no tls: write starttls or tls, or leave them out")
        return self

    @property
    def title(self) -> str:
        """What it is called in tables, logs and alerts."""
        return "e-mail"


def _day(value: object) -> object:
    return str(value).strip().lower()[:3]


Day = Annotated[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], BeforeValidator(_day)]


def _span(value: str) -> tuple[time, time]:
    """Return begin and end of some hours of a day; raises ValueError."""
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-4]):([0-5]\d)", value.replace(" ", ""))
    begin, end = ((int(found[1]), int(found[2])), (int(found[3]), int(found[4]))) if found else ((0, 0), (0, 0))
    if begin >= end or end > (24, 0):
        raise ValueError(f"{value!r} are no hours of a day: write them as 07:00-18:30; 00:00-24:00 is the whole day")
    return time(*begin), time.max if end == (24, 0) else time(*end)


def _hours(value: str) -> str:
    _span(value)
    return value


Hours = Annotated[str, AfterValidator(_hours)]


class Silence(Section):
    """When it is a fault that nothing comes. Only working time counts, by `node.timezone`."""

    after: Duration  # so much working time without an instance, such as 4h
    senders: tuple[AETitle, ...] = ()  # each of these; empty: whoever it is, of the node as a whole
    days: tuple[Day, ...] = Field(("mon", "tue", "wed", "thu", "fri"), min_length=1)  # on which something is expected
    hours: Hours = "08:00-18:00"  # between which something is expected

    @property
    def span(self) -> tuple[time, time]:
        """Begin and end of the working time of a day."""
        return _span(self.hours)

    @model_validator(mode="after")
    def _some_time(self) -> Silence:
        if self.after <= timedelta(0):
            raise ValueError("after is zero: write how long nothing may come, such as 4h of working time")
        return self


class Events(Section):
    """Who is told, and when silence is a fault."""

    webhooks: tuple[Webhook, ...] = ()  # addresses to which each event is posted
    email: Email | None = None  # mail of faults
    silence: Silence | None = None  # when it is a fault that nothing comes

    @model_validator(mode="after")
    def _different_names(self) -> Events:
        titles = [one.title for one in self.receivers]
        double = next((title for title in titles if titles.count(title) > 1), None)
        if double is not None:
            raise ValueError(f"two receivers are called {double!r}: give each webhook a name of its own")
        return self

    @property
    def receivers(self) -> tuple[Webhook | Email, ...]:
        """All who are told."""
        return (*self.webhooks, *((self.email,) if self.email is not None else ()))
