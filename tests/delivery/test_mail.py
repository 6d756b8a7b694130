"""Mail to a server on loopback: over TLS with a password, refused, away, or without what is asked for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from pacs_node.config import TLS, Email
from pacs_node.delivery import mail
from pacs_node.dicom.tls import server_context
from pacs_node.errors import TemporaryFailure
from tests.certificates import Authority

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PASSWORD = "not to be seen"


class Post:
    """A mail server: keeps what it is given; ``refuse`` is an answer to every recipient."""

    def __init__(self, context: ssl.SSLContext | None = None, *, implicit: bool = False, password: str | None = None) -> None:
        self.mails: list[Message] = []
        self.refuse = ""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

        def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
            return AuthResult(success=isinstance(data, LoginPassword) and data.password.decode() == password, handled=False)

        options = {"auth_required": True, "authenticator": authenticate} if password is not None else {}
        tls = {"ssl_context": context} if implicit else {"tls_context": context, "require_starttls": context is not None}
        if implicit:
            options["auth_require_tls"] = False  # the whole connection is encrypted
        self._controller = Controller(self, hostname="127.0.0.1", server_hostname="localhost", port=self.port, **tls, **options)
        self._controller.start()

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if self.refuse:
            return self.refuse
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"

    def stop(self) -> None:
        self._controller.stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), tool("openssl"))


@pytest.fixture
def start(authority: Authority) -> Iterator[Callable[..., Post]]:
    """Give a function that starts a mail server with a certificate of the authority."""
    running: list[Post] = []

    def begin(*, tls: bool = True, name: str = "mail", kind: str = "node", **more: object) -> Post:
        pair = authority.sign(name, kind)
        context = server_context(TLS(certificate=pair.certificate, key=pair.key, require_client=False)) if tls else None
        running.append(Post(context, **more))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    for server in running:
        server.stop()


@pytest.fixture
def account(authority: Authority, tmp_path: Path) -> Callable[..., Email]:
    """Give a function that configures a mail server."""
    (tmp_path / "password").write_text(PASSWORD + "\n")

    def make(port: int, **more: object) -> Email:
        base = {"host": "localhost", "port": port, "sender": "node@hospital.example", "to": ["a@hospital.example", "b@hospital.example"]}
        return Email.model_validate({**base, "tls": {"ca": str(authority.file)}, **more})

    return make


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # the whole connection is encrypted
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_goes_out_encrypted_and_with_a_password(start: Callable[..., Post], account: Callable[..., Email], tmp_path: Path, security: str) -> None:
    server = start(implicit=security == "tls", password=PASSWORD)
    email = account(server.port, security=security, user="node", password_file=tmp_path / "password")
    mail.probe(email)
    mail.send(email, "abc", "pacs-node: 1 faults\r\nBcc: x@y", "Grüße\n", NOW)
    found = server.mails[0]
    assert (found["To"], found["From"], found["Message-ID"]) == ("a@hospital.example, b@hospital.example", "node@hospital.example", "<abc@hospital.example>")
    assert (found["Subject"], found["Bcc"]) == ("pacs-node: 1 faults Bcc: x@y", None)  # nothing of a text becomes a header
    assert bytes(found.get_payload(decode=True)).decode() == "Grüße\r\n"  # type: ignore[arg-type]
    wrong = account(server.port, security=security, user="node", password_file=tmp_path / "other")
    (tmp_path / "other").write_text("wrong one\n")
    with pytest.raises(TemporaryFailure, match="does not accept user and password") as raised:
        mail.send(wrong, "abc", "s", "t", NOW)
    assert "wrong one" not in str(raised.value)


def test_a_server_that_cannot_encrypt_gets_nothing(start: Callable[..., Post], account: Callable[..., Email]) -> None:
    server = start(tls=False)
    with pytest.raises(TemporaryFailure, match="does not offer what is asked for"):
        mail.send(account(server.port), "abc", "s", "t", NOW)
    assert server.mails == []
    mail.send(account(server.port, security="none", tls=None), "abc", "s", "t", NOW)
    assert len(server.mails) == 1


def test_a_server_with_another_certificate_gets_nothing(start: Callable[..., Post], account: Callable[..., Email]) -> None:
    server = start(name="elsewhere", kind="elsewhere")
    with pytest.raises(TemporaryFailure, match=r"certificate is not accepted.*events.email.tls"):
        mail.send(account(server.port), "abc", "s", "t", NOW)
    with pytest.raises(TemporaryFailure, match="certificate is not accepted"):
        mail.send(account(start().port, tls=None), "abc", "s", "t", NOW)
    assert server.mails == []


def test_recipients_that_are_refused_and_servers_that_are_away_are_said(start: Callable[..., Post], account: Callable[..., Email]) -> None:
    server = start()
    server.refuse = "550 no such user"
    with pytest.raises(TemporaryFailure, match="takes none of the recipients"):
        mail.send(account(server.port), "abc", "s", "t", NOW)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TemporaryFailure, match="cannot be reached"):
        mail.send(account(port), "abc", "s", "t", NOW)


def test_a_server_that_says_nothing_is_given_up_in_time(account: Callable[..., Email]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(TemporaryFailure):
        mail.send(account(mute.getsockname()[1]), "abc", "s", "t", NOW, seconds=0.5)
