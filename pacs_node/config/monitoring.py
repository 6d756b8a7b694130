"""``monitoring:`` of ``node.yaml``: where the status page, health and metrics are served, and to whom."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from pacs_node.config.units import Duration, Port, Section

Network = IPv4Network | IPv6Network
_LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class PageAuth(Section):
    """Who may read the page: the users of a file, or whom a proxy in front of it has let in."""

    users_file: Path | None = None  # made by `pacs-node user`
    proxy_header: str | None = None  # the header in which a proxy names the user
    proxies: tuple[Network, ...] = Field(_LOOPBACK, min_length=1)  # the addresses from which that header is believed

    @field_validator("proxy_header")
    @classmethod
    def _name_of_a_header(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9-]+", value):
            raise ValueError(f"{value!r} is no name of an HTTP header, such as X-Forwarded-User")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> PageAuth:
        if (self.users_file is None) == (self.proxy_header is None):
            raise ValueError("give one of users_file and proxy_header")
        if self.users_file is not None and self.proxies != _LOOPBACK:
            raise ValueError("proxies says whom proxy_header is believed from: give proxy_header instead of users_file, or remove it")
        return self


class PageTLS(Section):
    """The certificate (with its chain) and the key with which the page is served over https. Both PEM."""

    certificate: Path
    key: Path


class Monitoring(Section):
    """The status page, ``/live``, ``/ready`` and ``/metrics``. ``port`` None: none of them."""

    address: str = "127.0.0.1"
    port: Port | None = 11180
    auth: PageAuth | None = None
    tls: PageTLS | None = None
    metrics_token_file: Path | None = None  # whose only line `/metrics` asks for (RFC 6750); None: as the page
    patients: bool = False  # whether the page names patients: name, ID and birth date of a study
    hangs_after: Duration = timedelta(seconds=30)  # after which a process without a sign of life counts as hanging

    @field_validator("address")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if value == "localhost":
            return "127.0.0.1"
        try:
            return str(ip_address(value))
        except ValueError as error:
            raise ValueError(f"{value!r} is no address of a network interface: write 127.0.0.1 for this machine only, or 0.0.0.0 for all interfaces") from error

    @property
    def public(self) -> bool:
        """Whether other machines can reach it."""
        return not ip_address(self.address).is_loopback

    @model_validator(mode="after")
    def _not_open_to_everyone(self) -> Monitoring:
        if self.public and self.auth is None and self.port is not None:
            remedy = "add auth: {users_file: …} (made by `pacs-node user`) or auth: {proxy_header: …}, or go back to 127.0.0.1"
            raise ValueError(f"the status page would show studies to anyone who reaches {self.address}: {remedy}")
        return self
