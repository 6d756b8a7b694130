"""TLS as it is asked for: how we are reached, and how others are reached."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from pacs_node.config.units import Section


class TLS(Section):
    """How we are reached over TLS: our certificate (with its chain), its key, and the authorities that peers must come from. All PEM."""

    certificate: Path
    key: Path
    ca: Path | None = None
    require_client: bool = True  # peers have to show a certificate that one of the authorities in `ca` has signed

    @model_validator(mode="after")
    def _judge_of_clients(self) -> TLS:
        if self.require_client and self.ca is None:
            raise ValueError("require_client asks every peer for a certificate: name the authorities that sign them in `ca`, or set it to false")
        return self


class DestinationTLS(Section):
    """How a destination is reached over TLS. Without ``certificate`` and ``key`` we show none; ``ca`` None: the system's authorities. All PEM."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    name: str | None = None  # what its certificate is made out to, where that is not its `address`
    check_name: bool = True  # false: any certificate of `ca` will do, since those of many devices name no host

    @model_validator(mode="after")
    def _no_contradictions(self) -> DestinationTLS:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both, or neither")
        if not self.check_name and self.ca is None:
            raise ValueError("check_name false would take a certificate of any authority in the world: name yours in `ca`")
        if not self.check_name and self.name is not None:
            raise ValueError("name is looked at only where check_name is true: remove one of them")
        return self
