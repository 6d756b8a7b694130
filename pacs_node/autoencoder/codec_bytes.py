"""Numbers as bytes of a stream: small numbers take few bytes, and whatever is missing or beyond its limits is refused."""

from __future__ import annotations

import zlib

_MOST_INFLATED = 1 << 27  # bytes of one compressed part


class StreamError(ValueError):
    """A stream that cannot be decoded: damaged, cut short, or of a version or method that this reader does not know."""


class Writer:
    """Collects bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def raw(self, some: bytes) -> None:
        """Add bytes as they are."""
        self._parts.append(some)

    def number(self, value: int) -> None:
        """Add a number ≥ 0: seven bits a byte, lowest first, the top bit says that more follow (LEB128)."""
        while value > 0x7F:
            self.raw(bytes((value & 0x7F | 0x80,)))
            value >>= 7
        self.raw(bytes((value,)))

    def signed(self, value: int) -> None:
        """Add a number of either sign: 0, −1, 1, −2 and so on as 0, 1, 2, 3."""
        self.number(2 * value if value >= 0 else -2 * value - 1)

    def part(self, some: bytes) -> None:
        """Add bytes with their length before them."""
        self.number(len(some))
        self.raw(some)

    def deflated(self, some: bytes) -> None:
        """Add bytes compressed (RFC 1950), with the length of that before them; nothing is nothing."""
        self.part(zlib.compress(some, 9) if some else b"")

    def content(self) -> bytes:
        """Return all that was added."""
        return b"".join(self._parts)


class Reader:
    """Takes bytes apart again; every method raises `StreamError` where the bytes end too early."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def raw(self, length: int) -> bytes:
        """Return the next bytes."""
        some = self._content[self._at : self._at + length]
        if len(some) < length:
            raise StreamError("it is cut short")
        self._at += length
        return some

    def number(self) -> int:
        """Return a number ≥ 0."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.raw(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise StreamError("a number in it has no end")

    def signed(self) -> int:
        """Return a number of either sign."""
        folded = self.number()
        return -(folded >> 1) - 1 if folded & 1 else folded >> 1

    def part(self) -> bytes:
        """Return bytes with a length before them."""
        return self.raw(self.number())

    def deflated(self) -> bytes:
        """Return what `Writer.deflated` added."""
        packed = self.part()
        if not packed:
            return b""
        inflate = zlib.decompressobj()
        try:
            some = inflate.decompress(packed, _MOST_INFLATED)
        except zlib.error as error:
            raise StreamError(f"a compressed part is damaged ({error})") from error
        if not inflate.eof:
            raise StreamError("a compressed part is damaged, or larger than any that is written")
        return some

    @property
    def left(self) -> int:
        """Bytes that were not taken yet."""
        return len(self._content) - self._at

    def end(self) -> None:
        """Raise `StreamError` where bytes are left."""
        if self.left:
            raise StreamError("it holds more than it should")
