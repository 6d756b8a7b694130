"""Events by e-mail: one message to one mail server, over TLS (RFC 3207 STARTTLS, or RFC 8314 implicit TLS)."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

from pacs_node.config import DestinationTLS, Email
from pacs_node.delivery.web import secret_of
from pacs_node.dicom.tls import ClientContext, client_context, explain
from pacs_node.errors import ConfigError, TemporaryFailure

SECONDS = 20.0  # that the server gets for the connection and for each answer


def send(email: Email, uid: str, subject: str, text: str, now: datetime, seconds: float = SECONDS) -> None:
    """Hand one mail over; ``uid`` makes its Message-ID, the same where it goes twice. Raises `TemporaryFailure` where no recipient was taken."""
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = _one_line(subject), email.sender, ", ".join(email.to)
    message["Date"], message["Message-ID"] = format_datetime(now), f"<{uid}@{email.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic answers
    message.set_content(text)
    with_server(email, lambda server: server.send_message(message, email.sender, list(email.to)), seconds)


def probe(email: Email, seconds: float = SECONDS) -> None:
    """Connect, log in, and go again; raises `TemporaryFailure`."""
    with_server(email, lambda server: server.noop(), seconds)


def examine(email: Email) -> Iterator[str]:
    """Look at what is named for e-mail, before anybody connects: yields warnings, raises `ConfigError` for what cannot be used."""
    key = "events.email"
    if email.user is not None:
        secret_of(email.password_file, email.password_env, f"{key}.{'password_file' if email.password_file else 'password_env'}")
    if email.password_file is not None and email.password_file.stat().st_mode & 0o077:
        yield f"{key}.password_file: {email.password_file} can be read by others: chmod 600 {email.password_file}"
    if email.tls is not None:
        client_context(email.tls, f"{key}.tls")
    if email.security == "none" and email.host not in ("localhost", "127.0.0.1", "::1"):
        yield f"{key}.security: mail goes to {email.host} in clear: write starttls where others can listen"


def with_server(email: Email, action: Callable[[smtplib.SMTP], object], seconds: float) -> None:
    """Do something with the open server; raises `TemporaryFailure` with what went wrong, never with a secret."""
    name = f"mail server {email.host}:{email.port}"
    context: ClientContext | None = None
    try:
        password = secret_of(email.password_file, email.password_env, "events.email.password") if email.user is not None else ""
        context = client_context(email.tls or DestinationTLS()) if email.security != "none" else None
        with _opened(email, context, seconds) as server:
            if email.user is not None:
                server.login(email.user, password)
            action(server)
    except ConfigError as error:
        raise TemporaryFailure(name, f"{error.key}: {error.problem}") from error
    except (smtplib.SMTPException, OSError) as error:
        raise TemporaryFailure(name, _why_not(error, context)) from error


def _opened(email: Email, context: ClientContext | None, seconds: float) -> smtplib.SMTP:
    host = email.host
    if email.security == "tls":
        assert context is not None
        return smtplib.SMTP_SSL(host, email.port, socket.gethostname(), timeout=seconds, context=context)
    server = smtplib.SMTP(host, email.port, socket.gethostname(), timeout=seconds)  # the name is not looked up
    if context is not None:
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def _why_not(error: Exception, context: ClientContext | None) -> str:
    """Say what went wrong, and what to do."""
    if context is not None and context.fault is not None:
        return explain(context.fault).replace("the destination's tls", "events.email.tls")
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"does not accept user and password (answer {error.smtp_code})"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "takes none of the recipients: check events.email.to"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "does not offer what is asked for: check security and user (STARTTLS, AUTH)"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"answers {error.smtp_code}"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "broke off, or does not speak SMTP on this port"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot be reached ({reason}): check host and port"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
