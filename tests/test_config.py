"""Configuration files: units, defaults, and faults that name file, line, key and value."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pacs_node.config import (
    DicomDestination,
    FolderDestination,
    Settings,
    Size,
    load_rule_list,
    load_settings,
    parse_duration,
    parse_size,
    read_yaml,
    shipped,
)
from pacs_node.errors import ConfigError

WRITE = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> WRITE:
    def to_file(text: str) -> Path:
        (tmp_path / "node.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "node.yaml"

    return to_file


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("10s", 10), ("1.5 min", 90), ("2h", 7200), ("14d", 1_209_600), ("0s", 0), (timedelta(seconds=3), 3)]
)
def test_time_spans_have_units(text: object, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["10", 10, "10 sec", "-1s", "s", "", None, "1h30min"])
def test_what_is_no_time_span_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is no time span: write a number and one of ms, s, min, h, d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "of_a_megabyte_disk"), [("5GB", 5_000_000_000), ("1 KiB", 1024), ("512MiB", 536_870_912), ("7B", 7), ("85%", 850_000), ("0.5%", 5000)]
)
def test_sizes_have_units_or_are_a_share_of_the_disk(text: str, of_a_megabyte_disk: int) -> None:
    assert parse_size(text).bytes_of(1_000_000) == of_a_megabyte_disk


@pytest.mark.parametrize("text", ["5", "5gb", "101%", "-1GB", None])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"is no size|more than the whole disk"):
        parse_size(text)


def test_without_a_file_there_are_defaults_that_work() -> None:
    settings = load_settings(None)

    assert settings == Settings()
    assert (settings.node.ae_titles, settings.node.port, settings.node.data) == (("PACS_NODE",), 11112, Path("data"))
    assert (settings.assembly.quiet, settings.assembly.deadline) == (timedelta(seconds=10), timedelta(hours=2))
    assert settings.destinations == {"research": FolderDestination(kind="folder", path=Path("out"))}
    assert settings.reception.reserve == Size(number=5e9)


def test_an_empty_file_gives_the_defaults(write: WRITE) -> None:
    assert load_settings(write("# nothing\n")) == Settings()


def test_a_file_overrides_what_it_names(write: WRITE) -> None:
    settings = load_settings(
        write("""
node: {name: north, ae_titles: [A, " B "], port: 104}
reception:
  senders: [{ae_title: CT1, network: 10.0.0.0/24, results_to: archive}]
destinations:
  archive: {kind: dicom, ae_title: ARCHIVE, address: pacs.example, port: 104}
retention: {keep: 30d, high_watermark: 70%}
""")
    )

    assert (settings.node.name, settings.node.ae_titles, settings.node.port) == ("north", ("A", "B"), 104)
    assert settings.reception.senders[0].network == ip_network("10.0.0.0/24")
    assert isinstance(settings.destinations["archive"], DicomDestination)
    assert not settings.destinations["archive"].accepts_research  # has to be said
    assert "research" not in settings.destinations
    assert settings.retention.high_watermark == Size(number=70, percent=True)


def test_denied_classes_are_given_by_uid_or_keyword_and_kept_as_uids(write: WRITE) -> None:
    reception = load_settings(write("reception: {denied_sop_classes: [EncapsulatedPDFStorage, 1.2.840.10008.5.1.4.1.1.2, 1.2.3.4]}")).reception

    assert reception.denied_sop_classes == ("1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4")


def test_amounts_of_bytes_have_units(write: WRITE) -> None:
    reception = load_settings(write("reception: {max_object: 2GB, rate: 100MiB}")).reception

    assert (reception.max_object, reception.rate) == (2_000_000_000, 104_857_600)
    assert (Settings().reception.max_object, Settings().reception.rate) == (4 << 30, None)


def test_the_page_is_on_for_this_machine_and_for_others_only_behind_a_door(write: WRITE) -> None:
    assert (Settings().monitoring.port, Settings().monitoring.public) == (11180, False)
    assert load_settings(write("monitoring: {port: null, address: 0.0.0.0}")).monitoring.port is None
    for door in ("users_file: users", "proxy_header: X-Forwarded-User"):
        assert load_settings(write(f"monitoring: {{address: 0.0.0.0, auth: {{{door}}}}}")).monitoring.public


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().node.port = 1  # type: ignore[misc]


FAULTS = [
    ("nod: {}", 1, "nod", "did you mean 'node'?"),
    ("node:\n  nmae: x", 2, "node.nmae", "did you mean 'name'?"),
    ("node:\n  zzzzzz: x", 2, "node.zzzzzz", "look the keys up"),
    ("node: 5", 1, "node", "write a mapping"),
    ("node: {port: x}", 1, "node.port", "'x': input should be a valid integer"),
    ("node: {port: 70000}", 1, "node.port", "less than or equal to 65535"),
    ("node: {ae_titles: A}", 1, "node.ae_titles", "'A': write a list"),
    ("node: {ae_titles: []}", 1, "node.ae_titles", "at least one value"),
    ("node: {ae_titles: [ABCDEFGHIJKLMNOPQ]}", 1, "node.ae_titles[0]", "1 to 16 printable ASCII characters"),
    ("node: {ae_titles: ['A\\B']}", 1, "node.ae_titles[0]", "without backslash"),
    ("node: {timezone: Mars}", 1, "node.timezone", "such as Europe/Berlin"),
    ("node: {uid_root: 1.02}", 1, "node.uid_root", "string"),
    ("node: {uid_root: '1.02'}", 1, "node.uid_root", "no leading zeros"),
    ("node: {uid_root: '1.2.3456789.123456789.123456789'}", 1, "node.uid_root", "24 characters at most"),
    ("node:\n  equipment: {serial: ''}", 2, "node.equipment.serial", "at least one character"),
    ("assembly: {quiet: 5}", 1, "assembly.quiet", "5 is no time span"),
    ("assembly:\n  quiet: 3h", 1, "assembly", "deadline is shorter than quiet"),
    ("retention: {high_watermark: 120%}", 1, "retention.high_watermark", "more than the whole disk"),
    ("reception: {senders: {ae_title: A}}", 1, "reception.senders", "write a list"),
    ("reception:\n  senders:\n    - {ae_title: A}\n    - {network: 10.0.0.0/8}", 4, "reception.senders[1].ae_title", "is missing: add it"),
    ("reception: {senders: [{ae_title: A, network: 10.0.0.1/8}]}", 1, "reception.senders[0].network", "IPv4"),
    ("reception:\n  denied_sop_classes: [CTImageStoarge]", 2, "reception.denied_sop_classes[0]", "write a UID or a keyword such as CTImageStorage"),
    ("reception: {denied_sop_classes: [ExplicitVRLittleEndian]}", 1, "reception.denied_sop_classes[0]", "is no SOP class"),
    ("reception: {max_object: 50%}", 1, "reception.max_object", "a share of the disk has no meaning here"),
    ("reception: {max_nesting: 5000}", 1, "reception.max_nesting", "less than or equal to 100"),
    ("reception: {rate: 0B}", 1, "reception.rate", "above zero"),
    ("reception: {tls: {certificate: a, key: b}}", 1, "reception.tls", "name the authorities that sign them in `ca`"),
    ("reception: {tls: {certificate: a, key: b, require_client: false}}", 1, "", "no port to use it on: add node.tls_port"),
    ("node: {tls_port: 2762}", 1, "", "add reception.tls"),
    ("destinations: {a: {kind: dicom, ae_title: A, address: x, port: 2762, tls: {key: k}}}", 1, "destinations.a.tls", "belong together"),
    ("monitoring:\n  address: 0.0.0.0", 1, "monitoring", "anyone who reaches 0.0.0.0: add auth: {users_file: …}"),
    ("monitoring: {address: '::'}", 1, "monitoring", "anyone who reaches ::"),
    ("monitoring: {address: pacs.example}", 1, "monitoring.address", "write 127.0.0.1 for this machine only"),
    ("monitoring: {auth: {}}", 1, "monitoring.auth", "one of users_file and proxy_header"),
    ("monitoring: {auth: {users_file: u, proxy_header: X-User}}", 1, "monitoring.auth", "one of users_file and proxy_header"),
    ("monitoring: {auth: {proxy_header: 'X User'}}", 1, "monitoring.auth.proxy_header", "is no name of an HTTP header"),
    ("monitoring: {auth: {users_file: u, proxies: [10.0.0.5/32]}}", 1, "monitoring.auth", "proxies says whom proxy_header is believed from"),
    ("destinations: {a: {kind: ftp}}", 1, "destinations.a", "none of dicom, stow and folder"),
    ("destinations: {a: {kind: stow, url: pacs.example/dicom-web}}", 1, "destinations.a.url", "write https://HOST[:PORT]/PATH, the part before /studies"),
    ("destinations: {a: {kind: stow, url: 'https://pacs.example:99999/x'}}", 1, "destinations.a.url", "is no address of a DICOMweb server"),
    ("destinations: {a: {kind: stow, url: 'ftp://pacs.example/'}}", 1, "destinations.a.url", "is no address of a DICOMweb server"),
    ("destinations: {a: {kind: stow, url: 'https://u:secret@pacs.example/'}}", 1, "destinations.a.url", "take them out, and name them in `auth`"),
    ("destinations: {a: {kind: stow, url: 'https://pacs.example/?key=1'}}", 1, "destinations.a.url", "the part before /studies"),
    ("destinations: {a: {kind: stow, url: 'http://pacs.example/', tls: {}}}", 1, "destinations.a", "the url does not begin with https"),
    ("destinations: {a: {kind: stow, url: 'https://x/', auth: {}}}", 1, "destinations.a.auth", "give one of basic, bearer_file and bearer_env"),
    ("destinations: {a: {kind: stow, url: 'https://x/', auth: {bearer_env: A, bearer_file: b}}}", 1, "destinations.a.auth", "give one of basic"),
    ("destinations: {a: {kind: stow, url: 'https://x/', auth: {basic: {user: u}}}}", 1, "destinations.a.auth.basic", "one of password_file and password_env"),
    ("destinations: {a: {kind: stow, url: 'https://x/', auth: {basic: {user: 'u:v', password_env: P}}}}", 1, "destinations.a.auth.basic.user", "pattern"),
    ("destinations: {a: {path: x}}", 1, "destinations.a", "has no `kind`"),
    ("destinations:\n  a:\n    kind: dicom\n    ae_title: A\n    address: x\n    port: 0", 6, "destinations.a.port", "greater than or equal to 1"),
    ("destinations:\n  a:\n    kind: dicom\n    ae_titel: A\n    address: x\n    port: 104", 2, "destinations.a.ae_title", "is missing"),
    ("destinations: {sender: {kind: folder, path: x}}", 1, "", "give this one another name"),
    ("assembly: {verify_with: research}", 1, "", "'research' is no destination of kind dicom, which could be asked: there is none; add one"),
    ("reception: {senders: [{ae_title: A, results_to: b}]}", 1, "", "results_to of sender A: 'b' is none of the destinations (research)"),
    ("events: {webhooks: [{url: ops.example, secret_env: S}]}", 1, "events.webhooks[0].url", "write https://HOST[:PORT]/PATH"),
    ("events: {webhooks: [{url: 'https://u:secret@x/', secret_env: S}]}", 1, "events.webhooks[0].url", "take them out"),
    ("events: {webhooks: [{url: 'https://x/'}]}", 1, "events.webhooks[0]", "one of secret_file and secret_env"),
    ("events: {webhooks: [{url: 'http://x/', secret_env: S, tls: {}}]}", 1, "events.webhooks[0]", "does not begin with https"),
    ("events: {webhooks: [{url: 'https://x/', secret_env: S, kinds: [disc]}]}", 1, "events.webhooks[0].kinds[0]", "'disc' is no kind of event"),
    ("events:\n  webhooks: [{url: 'https://x/', secret_env: S}, {url: 'https://x/', secret_env: T}]", 1, "events", "give each webhook a name of its own"),
    ("events: {email: {host: h, sender: me, to: [a@b]}}", 1, "events.email.sender", "write name@host"),
    ("events: {email: {host: h, sender: a@b, to: ['a@b, c@d']}}", 1, "events.email.to[0]", "is no e-mail address"),
    ("events: {email: {host: h, sender: a@b, to: []}}", 1, "events.email.to", "at least one value"),
    ("events: {email: {host: h, sender: a@b, to: [a@b], user: u}}", 1, "events.email", "belong together"),
    ("events: {email: {host: h, sender: a@b, to: [a@b], security: none, user: u, password_env: P}}", 1, "events.email", "the password in clear"),
    ("events: {silence: {after: 4h, hours: '19:00-07:00'}}", 1, "events.silence.hours", "write them as 07:00-18:30"),
    ("events: {silence: {after: 4h, days: [moon]}}", 1, "events.silence.days[0]", "'mon'"),
    ("events: {silence: {after: 0s}}", 1, "events.silence", "such as 4h"),
    ("heartbeat: {destination: nobody}", 1, "", "'nobody' is none of the destinations (research)"),
    (
        "heartbeat: {destination: a}\ndestinations: {a: {kind: dicom, ae_title: A, address: h, port: 104, accepts_research: true}}",
        1,
        "",
        "neither a folder nor marked `test: true`",
    ),
    (
        "heartbeat: {destination: a}\ndestinations: {a: {kind: dicom, ae_title: A, address: h, port: 104, test: true}}",
        1,
        "",
        "set its accepts_research to true",
    ),
    ("heartbeat: {destination: research}\nnode: {port: 0}", 1, "", "node.port is 0"),
    ("heartbeat: {destination: research}\nreception: {senders: [{ae_title: CT1}]}", 1, "", "add {ae_title: PACS_NODE, network: 127.0.0.1/32}"),
    ("heartbeat: {destination: research, every: 1min}", 1, "heartbeat", "within is zero or longer than every"),
    ("- a", 1, "", "must be a mapping with the keys node, database"),
    ("node: {port: 1,\n port: 2}", 2, "node.port", "is given twice (first in line 1)"),
    ("node: [", 1, "", "is no valid YAML"),
    ("? [a]\n: b", 1, "", "has a list or mapping as a key"),
    ("a: &a [*a]", None, "", "stands inside its own anchor"),
    ("a: " + "[" * 3000, None, "", "is nested too deeply"),
    ("a: !!python/object:os.system x", 1, "", "is no valid YAML"),
    ("\0", None, "", "is no valid YAML"),
    ("node: {port: x}\nassembly: {quiet: x}\nzzz: 1", 1, "node.port", "integer"),  # the first in the file's order
]


@pytest.mark.parametrize(("text", "line", "key", "words"), FAULTS, ids=[text[:40] for text, *_ in FAULTS])
def test_a_fault_names_file_line_key_and_remedy(write: WRITE, text: str, line: int | None, key: str, words: str) -> None:
    file = write(text)

    with pytest.raises(ConfigError) as caught:
        load_settings(file)

    assert (caught.value.file, caught.value.line, caught.value.key) == (file, line, key)
    assert words in caught.value.problem
    assert str(caught.value).startswith(f"{file}:{line}: " if line else f"{file}: ")
    assert "\n" not in str(caught.value)


RULE_FAULTS = [
    ("rules: {name: a}", "rules", "write a list"),
    ("rules: [{when: {Modality: CT}}]", "rules[0].name", "is missing"),
    ("rules: [{name: a, when: CT}]", "rules[0].when", "write a mapping"),
    ("rules: [{name: a, when: {Modality: CT}, send_to: archive}]", "rules[0].send_to", "'archive': write a list"),
    ("rules: [{name: a, when: {Modality: CT}, notice: maybe}]", "rules[0].notice", "boolean"),
    ("rules: [{name: a, when: {Modality: CT}, sereis: all}]", "rules[0].sereis", "did you mean 'series'?"),
    ("rules: [{name: a, when: {Modality: CT}, complete: {deadline: soon}}]", "rules[0].complete.deadline", "'soon' is no time span"),
    ("rule: []", "rule", "did you mean 'rules'?"),
]


@pytest.mark.parametrize(("text", "key", "words"), RULE_FAULTS, ids=[text for text, *_ in RULE_FAULTS])
def test_the_structure_of_rules_is_checked(write: WRITE, text: str, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_rule_list(write(text))

    assert caught.value.key == key
    assert words in caught.value.problem


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("node: {name: Röntgen}".encode("latin-1"))

    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_settings(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_settings(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("text", "written"),
    [("NO", "NO"), ("0012", "0012"), ("22:00", "22:00"), ("1.10", "1.10"), ("2024-01-31", "2024-01-31"), ("'~'", "~"), ("~", None), ("", None), ("null", None)],
)
def test_a_document_gives_values_as_they_are_written(write: WRITE, text: str, written: Any) -> None:
    document = read_yaml(write(f"a:\n  b: [{text}]\n" if text else "a:\n  b: [~]\n"))

    assert document.as_written() == {"a": {"b": [written]}}
    assert document.line(("a", "b", 0)) == 2
    assert document.line(("a", "b", 7, "c")) == 2  # the nearest that is there
    assert document.line(("x",)) == 1


def test_what_comes_with_the_package_is_found() -> None:
    assert (shipped("config") / "node.yaml").is_file()
    assert shipped("models").name == "models"


@pytest.mark.parametrize(("kind", "instead"), [("sr", "single-frame"), ("pm", "sc"), ("report", "enhanced-sr")])
def test_a_fallback_that_nothing_makes_is_refused_with_those_that_there_are(write: WRITE, kind: str, instead: str) -> None:
    file = write(f"destinations:\n  archive: {{kind: dicom, ae_title: A, address: h, port: 104, fallback: {{{kind}: {instead}}}}}\n")
    with pytest.raises(ConfigError, match="sr: enhanced-sr, sc: single-frame") as raised:
        load_settings(file)
    assert raised.value.line == 2
