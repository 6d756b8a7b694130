"""The users of the status page: a text file, one line each, ``name:scrypt$n$r$p$salt$hash`` (RFC 7914), made by `pacs-node user`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from pacs_node.errors import ConfigError, InputError

LEAST = 10  # characters of a password
_COST = (1 << 15, 8, 3)  # n, r, p: 32 MiB and some tenths of a second for each guess
_MOST_MEMORY = 256 << 20
_NAME = re.compile(r"[^:\s\x00-\x1f\x7f][^:\x00-\x1f\x7f]{0,63}")
_LINE = re.compile(r"scrypt\$([0-9]{1,7})\$([0-9]{1,3})\$([0-9]{1,2})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)")
_REMEMBERED_SECONDS = 300.0  # a browser shows the password with every request: it need not cost that much each time
_KEY = "monitoring.auth.users_file"


def hashed(password: str) -> str:
    """Return what stands in the file for a password."""
    n, r, p = _COST
    salt = secrets.token_bytes(16)
    return "$".join(("scrypt", str(n), str(r), str(p), _text(salt), _text(_scrypt(password, salt, n, r, p))))


def matches(password: str, line: str) -> bool:
    """Tell whether a password is the one of a line; the comparison takes as long whatever it finds."""
    found = _LINE.fullmatch(line)
    if found is None:
        return False
    n, r, p = (int(found[number]) for number in (1, 2, 3))
    return hmac.compare_digest(_scrypt(password, base64.b64decode(found[4]), n, r, p), base64.b64decode(found[5]))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MOST_MEMORY, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- the file ------------------------------------------------------------------------------------------------------------


def read_users(file: Path) -> dict[str, str]:
    """Return name → hash; raises `ConfigError` for a file that cannot be read, holds anything else, or nobody."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise ConfigError("configuration", None, _KEY, f"{file} cannot be read ({reason}): `pacs-node user NAME --file {file}` makes it") from error
    users: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        if not _NAME.fullmatch(name) or not _LINE.fullmatch(rest):
            raise ConfigError(file, number, _KEY, "is no user as `pacs-node user NAME` writes it: remove the line, and add the user anew")
        users[name] = rest
    if not users:
        raise ConfigError("configuration", None, _KEY, f"{file} names nobody, so that nobody could read the page: `pacs-node user NAME` adds a user")
    return users


def set_user(file: Path, name: str, password: str | None) -> bool:
    """Add a user, change the password, or (None) take the user out; returns whether there was one. Raises `InputError`. The file is its owner's alone."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name of a user: up to 64 characters without colon")
    if password is not None and len(password) < LEAST:
        raise InputError(f"the password is too short: {LEAST} characters at least, a few words for instance")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    kept = [line for line in lines if line.partition(":")[0].strip() != name]
    if password is not None:
        kept.append(f"{name}:{hashed(password)}")
    half = file.with_name(file.name + ".part")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as sink:
        sink.write("".join(f"{line}\n" for line in kept))
    if file.is_file():
        facts = file.stat()  # who may read it stays as it was set
        half.chmod(facts.st_mode & 0o777)
        if os.geteuid() == 0:
            os.chown(half, facts.st_uid, facts.st_gid)
    half.replace(file)
    return len(kept) < len(lines) + (password is not None)


class Users:
    """The users as the server asks for them: the file is read again when it changed, and one password is judged at a time."""

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()
        self._seen = 0
        self._users: Mapping[str, str] = {}
        self._nobody = hashed(secrets.token_hex(16))  # an unknown name costs as much as a wrong password
        self._key, self._known = secrets.token_bytes(32), dict[bytes, float]()

    def known(self, name: str, password: str) -> bool:
        """Tell whether this is a user's password. Slow on purpose; call it in a thread. Raises `ConfigError` where the file is not usable any more."""
        with self._lock:
            self._read()
            mark = hmac.digest(self._key, f"{name}\0{password}".encode(), "sha256")
            if self._known.get(mark, 0.0) > time.monotonic():
                return True
            if not matches(password, self._users.get(name, self._nobody)) or name not in self._users:
                return False
            self._known[mark] = time.monotonic() + _REMEMBERED_SECONDS
            return True

    def _read(self) -> None:
        try:
            changed = self._file.stat().st_mtime_ns
        except OSError:
            changed = -1
        if changed != self._seen:
            self._known.clear()
            self._users = read_users(self._file)
            self._seen = changed
