"""Certificates are judged before anybody connects, and TLS contexts keep to the profile."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from pacs_node.config import TLS, DestinationTLS, Settings
from pacs_node.dicom.certificates import examine_destination, examine_reception
from pacs_node.dicom.tls import SUITES, client_context, explain, server_context
from pacs_node.errors import ConfigError
from tests.certificates import Authority, Pair


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), tool("openssl"))


@pytest.fixture(scope="session")
def good(authority: Authority) -> Pair:
    return authority.sign("node")


def settings(pair: Pair, **tls: object) -> Settings:
    values = {"certificate": pair.certificate, "key": pair.key, "require_client": False, **tls}
    return Settings.model_validate({"node": {"tls_port": 2762}, "reception": {"tls": values}})


def judge(pair: Pair, *, now: datetime | None = None, **tls: object) -> list[str]:
    return list(examine_reception(settings(pair, **tls), now or datetime.now(UTC)))


def fault(pair: Pair, **tls: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        judge(pair, **tls)
    return caught.value


def test_tls_1_2_with_the_suites_of_the_profile_and_1_3_are_all_there_is(authority: Authority, good: Pair) -> None:
    for context in (server_context(TLS(certificate=good.certificate, key=good.key, ca=authority.file)), client_context(DestinationTLS(ca=authority.file))):
        names = [suite["name"] for suite in context.get_ciphers()]
        assert [name for name in names if not name.startswith("TLS_")] == list(SUITES)
        assert all(re.fullmatch(r"ECDHE-(RSA|ECDSA)-AES(128-GCM-SHA256|256-GCM-SHA384)", name) for name in SUITES)
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.security_level >= 2


def test_a_client_has_to_show_a_certificate_unless_it_is_said_otherwise(authority: Authority, good: Pair) -> None:
    pair = {"certificate": good.certificate, "key": good.key}
    assert server_context(TLS.model_validate({**pair, "ca": authority.file})).verify_mode is ssl.CERT_REQUIRED
    assert server_context(TLS.model_validate({**pair, "ca": authority.file, "require_client": False})).verify_mode is ssl.CERT_OPTIONAL
    assert server_context(TLS.model_validate({**pair, "require_client": False})).verify_mode is ssl.CERT_NONE
    with pytest.raises(ValidationError, match="name the authorities"):
        TLS.model_validate(pair)


@pytest.mark.parametrize("bits", [256, 2048])
def test_a_good_certificate_has_nothing_to_say(authority: Authority, bits: int) -> None:
    pair = authority.sign(f"good{bits}", bits=bits, days=300)
    pair.key.chmod(0o600)
    assert judge(pair, ca=authority.file, require_client=True) == []


def test_one_signed_by_itself_will_do(authority: Authority) -> None:
    pair = authority.sign("self", signer=None, days=300)
    pair.key.chmod(0o600)
    assert judge(pair) == []


def test_what_is_going_to_be_wrong_is_said_before(authority: Authority, good: Pair) -> None:
    good.key.chmod(0o644)
    now = datetime.now(UTC) + timedelta(days=29)
    warnings = judge(good, ca=authority.file, now=now)
    assert any("expires on" in warning and str(good.certificate) in warning for warning in warnings)
    assert any(f"chmod 600 {good.key}" in warning for warning in warnings)
    young = authority.sign("young", days=300)
    assert any("the authority authority" in warning and "has expired" in warning for warning in judge(young, ca=authority.file, now=now + timedelta(days=3)))


def test_each_fault_names_the_key_the_file_and_the_remedy(authority: Authority, good: Pair, tmp_path: Path) -> None:
    other, nowhere, text = authority.sign("other", bits=256), tmp_path / "nowhere.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    locked = tmp_path / "locked.key"
    authority._run("rsa", "-aes128", "-passout", "pass:secret", "-in", good.key, "-out", locked)
    cases = [
        (fault(Pair(nowhere, good.key)), "certificate", nowhere, "name a file in PEM form"),
        (fault(Pair(good.certificate, nowhere)), "key", nowhere, "name a file in PEM form"),
        (fault(good, ca=nowhere), "ca", nowhere, "name a file in PEM form"),
        (fault(Pair(text, good.key)), "certificate", text, "holds no certificate"),
        (fault(Pair(good.certificate, text)), "key", text, "holds no private key"),
        (fault(good, ca=text), "ca", text, "name the file of the authorities"),
        (fault(Pair(good.certificate, other.key)), "key", other.key, "made together"),
        (fault(Pair(good.certificate, authority.sign("third").key)), "key", authority.folder / "third.key", "made together"),
        (fault(Pair(good.certificate, locked)), "key", locked, "store it without one"),
        (fault(authority.sign("old", days=-1)), "certificate", authority.folder / "old.pem", "has expired on"),
        (fault(authority.sign("weak", bits=1024)), "key", authority.folder / "weak.key", "2048 bits"),
        (fault(authority.sign("client", "client only")), "certificate", authority.folder / "client.pem", "unsuitable certificate purpose"),
    ]
    for error, key, file, words in cases:
        assert error.key == f"reception.tls.{key}", error
        assert str(file) in error.problem and words in error.problem, error
        assert "\n" not in str(error)


def test_one_that_is_not_valid_yet_is_said(good: Pair) -> None:
    with pytest.raises(ConfigError, match="is not valid before"):
        judge(good, now=datetime.now(UTC) - timedelta(days=1))


def test_a_certificate_for_clients_is_fit_to_be_shown_to_a_destination(authority: Authority) -> None:
    pair = authority.sign("requestor", "client only", days=300)
    pair.key.chmod(0o600)
    tls = {"certificate": pair.certificate, "key": pair.key, "ca": authority.file}
    place = {"kind": "dicom", "ae_title": "A", "address": "pacs.example", "port": 2762, "tls": tls}
    found = Settings.model_validate({"destinations": {"archive": place}}).destinations["archive"]
    assert list(examine_destination("archive", found, datetime.now(UTC))) == []  # type: ignore[arg-type]


CONTRADICTIONS = [
    ({"node": {"tls_port": 2762}}, "no certificate"),
    ({"reception": {"tls": {"certificate": "a", "key": "b", "require_client": False}}}, "no port"),
    ({"node": {"port": 2762, "tls_port": 2762}, "reception": {"tls": {"certificate": "a", "key": "b", "require_client": False}}}, "a port of its own"),
]


@pytest.mark.parametrize(("values", "words"), CONTRADICTIONS)
def test_a_port_and_its_certificate_belong_together(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings.model_validate(values)


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ({"certificate": "a"}, "belong together"),
        ({"check_name": False}, "any authority in the world"),
        ({"check_name": False, "ca": "c", "name": "x"}, "remove one"),
    ],
)
def test_contradictions_about_a_destination_are_refused(tls: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DestinationTLS.model_validate(tls)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "add certificate and key"),
        ("TLSV1_ALERT_UNKNOWN_CA", "authority that signed our certificate"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "refused the handshake"),
        ("WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("SOMETHING_ELSE", "something else"),
    ],
)
def test_what_a_peer_says_is_explained(reason: str, words: str) -> None:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    assert words in explain(error)
