"""A small public key infrastructure made with the openssl command, for tests of TLS."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_EXTENSIONS = {
    "ca": "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign",
    "node": "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth",
    "nameless": "extendedKeyUsage=serverAuth,clientAuth",
    "elsewhere": "subjectAltName=DNS:pacs.example",
    "client only": "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=clientAuth",
}


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority that signs what it is told to."""

    def __init__(self, folder: Path, openssl: str) -> None:
        self.folder, self._openssl = folder, openssl
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def own(self) -> Pair:
        return self.sign("authority", "ca", signer=None)

    @property
    def file(self) -> Path:
        """The certificate that peers have to know."""
        return self.own.certificate

    def sign(self, name: str, kind: str = "node", *, days: int = 30, bits: int = 2048, signer: Pair | str | None = "own") -> Pair:
        """Make a key and a certificate; ``days=-1`` makes one that has expired. ``signer`` None: signed by itself."""
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(_EXTENSIONS[kind])
        algorithm = ["rsa", "-pkeyopt", f"rsa_keygen_bits:{bits}"] if bits >= 1024 else ["ec", "-pkeyopt", f"ec_paramgen_curve:P-{bits}"]
        self._run("genpkey", "-quiet", "-algorithm", *algorithm, "-out", pair.key)
        self._run("req", "-new", "-key", pair.key, "-subj", f"/CN={name}", "-out", request)
        by = self.own if signer == "own" else signer
        key = ["-CA", by.certificate, "-CAkey", by.key] if isinstance(by, Pair) else ["-key", pair.key]
        self._run("x509", "-req", "-in", request, *key, "-days", days, "-extfile", extensions, "-set_serial", abs(hash(name)), "-out", pair.certificate)
        return pair

    def _run(self, *arguments: object) -> None:
        done = subprocess.run([self._openssl, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
