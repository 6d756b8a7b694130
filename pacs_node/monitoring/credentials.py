"""What the server of the page shows and compares with: certificates, users, the token. Looked at before the node starts."""

from __future__ import annotations

import ssl
from pathlib import Path

from pacs_node.config import TLS, Monitoring
from pacs_node.dicom.tls import server_context
from pacs_node.errors import ConfigError
from pacs_node.monitoring.users import read_users

LONGEST_SECRET = 1024  # characters of what a reader shows
_SHORTEST_TOKEN = 16


def examine(monitoring: Monitoring) -> None:
    """Raise `ConfigError` for files of the page that are missing, empty or of no use."""
    if monitoring.auth is not None and monitoring.auth.users_file is not None:
        read_users(monitoring.auth.users_file)
    if monitoring.metrics_token_file is not None:
        read_token(monitoring.metrics_token_file)
    context(monitoring)


def read_token(file: Path) -> str:
    """Return the token of ``/metrics``; raises `ConfigError` for a file without one."""
    key = "monitoring.metrics_token_file"
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("configuration", None, key, f"{file} cannot be read: write a token into it") from error
    if not _SHORTEST_TOKEN <= len(token) <= LONGEST_SECRET or not token.isascii():
        problem = f"{file} holds no token: write {_SHORTEST_TOKEN} ASCII characters or more into it, for instance those of `openssl rand -hex 24`"
        raise ConfigError("configuration", None, key, problem)
    return token


def context(monitoring: Monitoring) -> ssl.SSLContext | None:
    """Return the TLS context of the page, None where it is served in clear; raises `ConfigError` for unusable files."""
    if monitoring.tls is None:
        return None
    files = TLS(certificate=monitoring.tls.certificate, key=monitoring.tls.key, require_client=False)
    return server_context(files, "monitoring.tls")
