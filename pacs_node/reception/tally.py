"""What receivers say to whoever counts. None of the calls may raise, or take long."""

from __future__ import annotations

from typing import Protocol

from pacs_node.reception.admission import Rejection


class Tally(Protocol):
    """Hears what happens in one receiver process, from the threads of its associations."""

    def accepted(self) -> None:
        """An association was accepted."""

    def rejected(self, rejection: Rejection) -> None:
        """An association was rejected."""

    def ended(self, released: bool) -> None:
        """An accepted association is over."""

    def answered(self, status: int, size: int, seconds: float | None) -> None:
        """A C-STORE request with ``size`` bytes was answered; ``seconds``: how long it took to make it durable, None where it was not kept."""

    def turned(self) -> None:
        """The server's loop went round, a few times a second at least."""


class Silent:
    """Counts nothing."""

    def accepted(self) -> None:
        """See `Tally`."""

    def rejected(self, rejection: Rejection) -> None:
        """See `Tally`."""

    def ended(self, released: bool) -> None:
        """See `Tally`."""

    def answered(self, status: int, size: int, seconds: float | None) -> None:
        """See `Tally`."""

    def turned(self) -> None:
        """See `Tally`."""
