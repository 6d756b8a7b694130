"""Who may read the page, and who is told what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pacs_node.config import Monitoring
from pacs_node.errors import ConfigError, InputError
from pacs_node.monitoring import users
from pacs_node.monitoring.access import Access
from pacs_node.monitoring.credentials import examine
from pacs_node.monitoring.users import Users, hashed, matches, read_users, set_user
from tests.monitoring.reader import Reader

PATHS = ("/", "/live", "/ready", "/metrics", "/static/page.css")
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_COST", (16, 8, 1))


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    set_user(tmp_path / "users", "anna", PASSWORD)
    return tmp_path / "users"


def reader(address: str = "127.0.0.1", **monitoring: object) -> Reader:
    routes = [Route(path, lambda _request: PlainTextResponse("secret")) for path in PATHS]
    return Reader(Starlette(routes=routes, middleware=[Middleware(Access, monitoring=Monitoring.model_validate(monitoring))]), address=address)


def statuses(who: Reader, **asking: object) -> list[int]:
    return [who.get(path, **asking).status_code for path in PATHS]  # type: ignore[arg-type]


def test_on_loopback_everyone_on_the_machine_reads_everything() -> None:
    assert statuses(reader()) == [200] * 5


def test_users_read_what_others_are_refused_and_health_is_open(users_file: Path) -> None:
    who = reader(address="0.0.0.0", auth={"users_file": users_file})
    assert statuses(who) == [401, 200, 200, 401, 401]
    assert statuses(who, auth=("anna", PASSWORD)) == [200] * 5
    for wrong in (("anna", "wrong horse battery"), ("anna", ""), ("", ""), ("nobody", PASSWORD), ("ANNA", PASSWORD), ("anna", PASSWORD + " ")):
        assert statuses(who, auth=wrong) == [401, 200, 200, 401, 401]
    refused = who.get("/")
    assert refused.headers["www-authenticate"].startswith("Basic realm=")
    assert "secret" not in refused.text


@pytest.mark.parametrize("said", ["", "Basic", "Basic !!!", "Basic YW5uYQ==", "Basic " + "A" * 5000, "Bearer x", b"Basic \xe9"])
def test_what_is_no_user_and_password_is_refused(users_file: Path, said: str | bytes) -> None:
    assert reader(auth={"users_file": users_file}).get("/", authorization=said).status_code == 401


def test_metrics_go_to_who_has_the_token_and_to_users(users_file: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef0123\n")
    for auth in ({"users_file": users_file}, None):
        who = reader(metrics_token_file=tmp_path / "token", auth=auth)
        assert who.get("/metrics").status_code == 401
        assert who.get("/metrics", authorization="Bearer 0123456789abcdef0124").status_code == 401
        assert who.get("/metrics", authorization="bearer 0123456789abcdef0123").status_code == 200
        assert who.get("/", authorization="Bearer 0123456789abcdef0123").status_code == (401 if auth else 200)
        assert who.get("/metrics", auth=("anna", PASSWORD)).status_code == (200 if auth else 401)
    (tmp_path / "token").unlink()
    assert reader(metrics_token_file=tmp_path / "token").get("/metrics", authorization="Bearer ").status_code == 401


def test_a_proxy_is_believed_from_its_own_address_only() -> None:
    auth = {"proxy_header": "X-Forwarded-User", "proxies": ["10.0.0.5/32"]}
    assert statuses(reader("10.0.0.5", auth=auth), X_Forwarded_User="anna") == [200] * 5
    assert statuses(reader("::ffff:10.0.0.5", auth=auth), X_Forwarded_User="anna") == [200] * 5
    assert statuses(reader("10.0.0.5", auth=auth)) == [403, 200, 200, 403, 403]
    assert statuses(reader("10.0.0.5", auth=auth), X_Forwarded_User=" ") == [403, 200, 200, 403, 403]
    for other in ("10.0.0.6", "127.0.0.1", "::1"):
        assert statuses(reader(other, auth=auth), X_Forwarded_User="anna") == [403, 200, 200, 403, 403]


def test_a_proxy_is_believed_from_this_machine_unless_it_is_named() -> None:
    auth = {"proxy_header": "X-Forwarded-User"}
    assert reader("127.0.0.1", auth=auth).get("/", X_Forwarded_User="anna").status_code == 200
    assert reader("10.0.0.5", auth=auth).get("/", X_Forwarded_User="anna").status_code == 403


def test_passwords_are_kept_as_salted_scrypt_and_none_is_in_the_file(users_file: Path) -> None:
    text = users_file.read_text()
    assert PASSWORD not in text
    assert text.startswith("anna:scrypt$")
    assert users_file.stat().st_mode & 0o077 == 0
    assert hashed(PASSWORD) != hashed(PASSWORD)  # salted
    assert matches(PASSWORD, hashed(PASSWORD))
    assert not matches(PASSWORD, "plain")


def test_the_shipped_cost_of_a_guess_is_what_owasp_asks_of_scrypt() -> None:
    code = "from pacs_node.monitoring.users import hashed; print(hashed('x'))"
    line = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert line.startswith("scrypt$32768$8$3$")


def test_a_password_is_changed_and_a_user_taken_out_while_the_page_is_served(users_file: Path) -> None:
    known = Users(users_file)
    assert known.known("anna", PASSWORD)
    assert known.known("anna", PASSWORD)  # remembered
    assert set_user(users_file, "anna", "another password")
    _touch(users_file)
    assert not known.known("anna", PASSWORD)
    assert known.known("anna", "another password")
    assert not set_user(users_file, "berta", "third password")
    assert set_user(users_file, "anna", None)
    assert not set_user(users_file, "anna", None)
    _touch(users_file)
    assert not known.known("anna", "another password")
    users_file.unlink()
    with pytest.raises(ConfigError, match="users_file"):
        known.known("berta", "third password")
    assert reader(auth={"users_file": users_file}).get("/", auth=("berta", "third password")).status_code == 401


def _touch(file: Path) -> None:
    """Move the time of the last change on: two changes within the file system's clock tick look the same."""
    facts = file.stat()
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns + 10**9))


@pytest.mark.parametrize(("name", "password"), [("a:b", PASSWORD), ("", PASSWORD), ("a\nb", PASSWORD), ("a" * 65, PASSWORD), ("anna", "short")])
def test_names_and_passwords_that_are_none_are_refused(tmp_path: Path, name: str, password: str) -> None:
    with pytest.raises(InputError):
        set_user(tmp_path / "users", name, password)
    assert not (tmp_path / "users").exists()


@pytest.mark.parametrize("text", ["", "# nobody\n", "anna\n", "anna:plain\n", "anna:$apr1$x$y\n"])
def test_a_users_file_without_users_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "users").write_text(text)
    with pytest.raises(ConfigError, match="pacs-node user NAME"):
        examine(Monitoring.model_validate({"auth": {"users_file": tmp_path / "users"}}))


def test_a_missing_users_file_or_token_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pacs-node user NAME --file"):
        read_users(tmp_path / "users")
    (tmp_path / "token").write_text("short")
    for file in ("token", "none"):
        with pytest.raises(ConfigError, match="write "):
            examine(Monitoring.model_validate({"metrics_token_file": tmp_path / file}))


def test_the_command_adds_changes_and_removes(tmp_path: Path) -> None:
    said = [_command(tmp_path, *more) for more in ((), (), ("--remove",), ("--remove",))]
    assert said == ["anna: added", "anna: password changed", "anna: taken out", "anna: was no user"]


def _command(folder: Path, *options: str) -> str:
    from typer.testing import CliRunner

    from pacs_node.cli import app

    return CliRunner().invoke(app, ["user", "anna", "--file", str(folder / "users"), *options], input=PASSWORD + "\n").stdout.strip()


def test_who_says_to_be_a_user_and_is_not_is_counted_and_who_says_nothing_is_not(users_file: Path) -> None:
    told: list[tuple[str, str]] = []
    monitoring = Monitoring.model_validate({"auth": {"users_file": users_file}})
    failed = Middleware(Access, monitoring=monitoring, failed=lambda user, host: told.append((user, host)))
    who = Reader(Starlette(routes=[Route("/", lambda _request: PlainTextResponse("secret"))], middleware=[failed]))
    assert [who.get("/").status_code, who.get("/", auth=("anna", PASSWORD)).status_code] == [401, 200]
    assert told == []
    assert who.get("/", auth=("eve", "guess")).status_code == 401
    assert [user for user, _ in told] == ["eve"]
