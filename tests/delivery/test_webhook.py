"""Signed posts to a receiver on loopback that is away, slow, wrong or lies; signatures are verified by another implementation."""

from __future__ import annotations

import base64
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from pacs_node.config import TLS, Webhook
from pacs_node.delivery import webhook
from pacs_node.delivery.web import Timeouts
from pacs_node.dicom.tls import server_context
from pacs_node.errors import ConfigError, PermanentRefusal, TemporaryFailure
from tests.certificates import Authority
from tests.delivery.hook import Answer, Hook, Post

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = b'{"id":"1","kind":"\xc3\xa9"}'
QUICK = Timeouts(connect=1.0, response=0.5)


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.stop()


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Webhook]:
    """Give a function that configures a receiver on a port."""
    (tmp_path / "secret").write_text(SECRET + "\n")

    def make(port: int, **more: object) -> Webhook:
        return Webhook.model_validate({"url": f"http://127.0.0.1:{port}/hooks/t0ken", "secret_file": tmp_path / "secret", **more})

    return make


def now() -> datetime:
    return datetime.now(UTC)


def test_what_is_posted_is_verified_by_another_implementation(hook: Hook, place: Callable[..., Webhook]) -> None:
    webhook.post(place(hook.port), "event-1", BODY, now())
    post = hook.posts[0]
    assert (post.body, post.path, post.headers["content-type"]) == (BODY, "/hooks/t0ken", "application/json")
    assert Verifier(SECRET).verify(post.body, dict(post.headers)) == {"id": "1", "kind": "é"}
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(post.body.replace(b"1", b"2"), dict(post.headers))
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(post.body, {**post.headers, "webhook-id": "event-2"})
    with pytest.raises(WebhookVerificationError):
        Verifier("whsec_" + base64.b64encode(bytes(32)).decode()).verify(post.body, dict(post.headers))


def test_what_is_posted_is_verified_by_openssl(hook: Hook, place: Callable[..., Webhook], tool: Callable[[str], str]) -> None:
    webhook.post(place(hook.port), "event-1", BODY, now())
    post = hook.posts[0]
    signed = f"event-1.{post.headers['webhook-timestamp']}.".encode() + post.body
    line = [tool("openssl"), "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{bytes(range(32)).hex()}", "-binary"]
    made = subprocess.run(line, input=signed, capture_output=True, check=True).stdout
    assert post.headers["webhook-signature"] == "v1," + base64.b64encode(made).decode()


def test_what_is_replayed_later_is_outside_the_window(hook: Hook, place: Callable[..., Webhook]) -> None:
    webhook.post(place(hook.port), "event-1", BODY, now() - timedelta(seconds=webhook.REPLAY_SECONDS + 30))
    with pytest.raises(WebhookVerificationError, match="too old"):
        Verifier(SECRET).verify(hook.posts[0].body, dict(hook.posts[0].headers))


def test_two_secrets_sign_while_they_are_exchanged(hook: Hook, place: Callable[..., Webhook], tmp_path: Path) -> None:
    new = "whsec_" + base64.b64encode(bytes(range(50, 82))).decode()
    at = place(hook.port)
    (tmp_path / "secret").write_text(f"{SECRET}\n{new}\n")
    webhook.post(at, "event-1", BODY, now())
    for secret in (SECRET, new):
        assert Verifier(secret).verify(hook.posts[0].body, dict(hook.posts[0].headers))


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "holds no secrets"), ("short", "at least 24"), ("whsec_???", "no base64"), ("a" * 30 + "\n" + "b" * 30 + "\n" + "c" * 30, "holds 3 secrets")],
)
def test_a_secret_that_cannot_be_used_is_said_and_never_shown(place: Callable[..., Webhook], tmp_path: Path, content: str, words: str) -> None:
    at = place(1)
    (tmp_path / "secret").write_text(content)
    with pytest.raises(ConfigError, match=words) as raised:
        webhook.secrets_of(at)
    assert not content or content.split("\n")[0] not in str(raised.value)
    with pytest.raises(TemporaryFailure, match="secret_file"):
        webhook.post(at, "event-1", BODY, now())
    (tmp_path / "secret").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        webhook.secrets_of(at)


def test_a_secret_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "x" * 24)
    assert webhook.secrets_of(Webhook(url="https://h/", secret_env="HOOK")) == (b"x" * 24,)


@pytest.mark.parametrize("status", [400, 410, 413, 422])
def test_what_a_receiver_will_never_take_is_final(hook: Hook, place: Callable[..., Webhook], status: int) -> None:
    hook.script = lambda post: Answer(status)
    with pytest.raises(PermanentRefusal, match=f"HTTP {status}"):
        webhook.post(place(hook.port), "event-1", BODY, now())


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 429, 500, 502, 503])
def test_any_other_status_but_success_is_worth_another_try(hook: Hook, place: Callable[..., Webhook], status: int) -> None:
    hook.script = lambda post: Answer(status, headers={"Location": "http://127.0.0.1:1/", "Retry-After": "120"})
    with pytest.raises(TemporaryFailure, match=f"HTTP {status}") as raised:
        webhook.post(place(hook.port), "event-1", BODY, now())
    assert len(hook.posts) == 1  # redirects are not followed
    assert raised.value.retry_after == timedelta(minutes=2)
    assert "t0ken" not in str(raised.value)


def _trickle(post: Post) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(100):
        yield b"x"
        time.sleep(0.1)


def _flood(post: Post) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n"
    while True:
        yield b"x" * 65536


def _silent(post: Post) -> Iterator[bytes]:
    time.sleep(3)
    yield b""


@pytest.mark.parametrize(
    "script", [_trickle, _silent, lambda post: iter([b"SSH-2.0-OpenSSH\r\n"]), lambda post: iter([b""])], ids=["trickle", "silent", "ssh", "closes"]
)
def test_a_receiver_that_is_slow_or_lies_is_given_up_in_time(hook: Hook, place: Callable[..., Webhook], script: Callable[[Post], Iterator[bytes]]) -> None:
    hook.script, begun = script, time.monotonic()
    with pytest.raises(TemporaryFailure):
        webhook.post(place(hook.port), "event-1", BODY, now(), QUICK)
    assert time.monotonic() - begun < 10


def test_an_endless_answer_is_not_read_to_its_end(hook: Hook, place: Callable[..., Webhook]) -> None:
    hook.script = _flood
    webhook.post(place(hook.port), "event-1", BODY, now(), QUICK)


def test_a_receiver_that_is_away_is_said_without_its_path(place: Callable[..., Webhook]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TemporaryFailure, match="cannot be reached") as raised:
        webhook.post(place(port), "event-1", BODY, now())
    assert "t0ken" not in str(raised.value)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), tool("openssl"))


def test_https_is_verified_against_the_authority_and_the_name(authority: Authority, place: Callable[..., Webhook], tmp_path: Path) -> None:
    pair = authority.sign("hook")
    secured = Hook(context=server_context(TLS(certificate=pair.certificate, key=pair.key, require_client=False)))
    wrong = authority.sign("elsewhere", "elsewhere")
    other = Hook(context=server_context(TLS(certificate=wrong.certificate, key=wrong.key, require_client=False)))
    try:
        ca = {"ca": str(authority.file)}
        webhook.post(place(1, url=f"https://localhost:{secured.port}/", tls=ca), "event-1", BODY, now())
        assert len(secured.posts) == 1
        for port, tls in ((secured.port, None), (other.port, ca)):  # an unknown authority; another host's certificate
            with pytest.raises(TemporaryFailure, match="certificate is not accepted"):
                webhook.post(place(1, url=f"https://localhost:{port}/", tls=tls), "event-1", BODY, now())
        assert (len(secured.posts), other.posts) == (1, [])
    finally:
        secured.stop()
        other.stop()
