"""TLS as DICOM wants it: the contexts for receiving and sending, and what a fault of TLS means. `certificates` judges files beforehand.

By PS3.15 B.12 (BCP 195: RFC 8996, RFC 9325): TLS 1.3, and TLS 1.2 with the four suites that RFC 9325 4.2 recommends. They are also among
those that B.13 permits, so that peers of either profile find one in common. Security level 2 of OpenSSL asks for keys of 112 bits strength
(RSA 2048, EC 224) and refuses SHA-1 signatures.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from pacs_node.config import TLS, DestinationTLS, DicomDestination
from pacs_node.errors import ConfigError

SUITES = ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256")
"""Of TLS 1.2; those of 1.3 are OpenSSL's own."""

_NOT_ITS_KEY = "is not the key of the certificate {certificate}: name the two that were made together"
_REASONS = {  # reason of OpenSSL → what people are told
    "KEY_VALUES_MISMATCH": _NOT_ITS_KEY,
    "KEY_TYPE_MISMATCH": _NOT_ITS_KEY,
    "NO_CERTIFICATE_ASSIGNED": _NOT_ITS_KEY,
    "EE_KEY_TOO_SMALL": "is too weak: RSA keys need 2048 bits, elliptic curves 256",
    "CA_MD_TOO_WEAK": "is signed by too weak a hash: SHA-256 or better is needed",
}


class ClientContext(ssl.SSLContext):
    """The context of one outgoing association; it remembers what went wrong, which pynetdicom only logs."""

    fault: OSError | None = None

    def note(self, error: OSError) -> ConnectionAbortedError:
        """Keep the first fault; return what pynetdicom is told instead, since it logs the traceback of an SSLError."""
        self.fault = self.fault or error
        return ConnectionAbortedError(_plain(error))


class _WatchedSocket(ssl.SSLSocket):
    """Notes what goes wrong with TLS. One fault comes with the first answer only: a peer that speaks TLS 1.3 and refuses our certificate."""

    context: ClientContext

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError as error:
            raise self.context.note(error) from None

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            raise self.context.note(error) from None


# --- contexts ------------------------------------------------------------------------------------------------------------


def server_context(tls: TLS, key: str = "reception.tls") -> ssl.SSLContext:
    """Return the context for receiving; raises `ConfigError`, with the path of the configuration below ``key``, for unusable files."""
    context = by_profile(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.verify_mode = ssl.CERT_REQUIRED if tls.require_client else ssl.CERT_OPTIONAL if tls.ca else ssl.CERT_NONE
    if tls.ca is not None:
        _load_authorities(context, tls.ca, f"{key}.ca")
    load_own(context, tls.certificate, tls.key, key)
    return context


def client_context(tls: DestinationTLS, key: str = "tls") -> ClientContext:
    """Return the context for one outgoing association; raises `ConfigError` as `server_context` does."""
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    by_profile(context)
    context.sslsocket_class = _WatchedSocket
    context.check_hostname = tls.check_name
    if tls.ca is not None:
        _load_authorities(context, tls.ca, f"{key}.ca")
    else:
        context.load_default_certs()
    if tls.certificate is not None and tls.key is not None:
        load_own(context, tls.certificate, tls.key, key)
    return context


def client_arguments(destination: DicomDestination, key: str = "tls") -> tuple[ClientContext, str] | None:
    """Return the context and the name expected in the certificate of a destination, None where it is reached without TLS."""
    if destination.tls is None:
        return None
    return client_context(destination.tls, key), destination.tls.name or destination.address


def by_profile(context: ssl.SSLContext) -> ssl.SSLContext:
    """Hold a context to the profile."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join((*SUITES, "@SECLEVEL=2")))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # `ca` may be the very certificate of the peer, or an intermediate authority
    return context


def _load_authorities(context: ssl.SSLContext, ca: Path, key: str) -> None:
    _look_at(ca, key)
    try:
        context.load_verify_locations(cafile=ca)
    except (ssl.SSLError, OSError) as error:
        raise tls_fault(key, f"{ca} holds no certificate in PEM form ({_plain(error)}): name the file of the authorities that peers come from") from error


def load_own(context: ssl.SSLContext, certificate: Path, key_file: Path, key: str) -> None:
    """Load our certificate with its chain, and its key; raises `ConfigError` that names the file at fault."""
    _look_at(certificate, f"{key}.certificate")
    _look_at(key_file, f"{key}.key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=certificate)
    except (ssl.SSLError, OSError) as error:
        raise tls_fault(f"{key}.certificate", f"{certificate} holds no certificate in PEM form ({_plain(error)})") from error

    def password() -> str:
        raise tls_fault(f"{key}.key", f"{key_file} is protected by a password: store it without one, readable by the node's user only")

    try:
        context.load_cert_chain(certificate, key_file, password)
    except ssl.SSLError as error:
        problem = _REASONS.get(error.reason or "", "holds no private key in PEM form")
        raise tls_fault(f"{key}.key", f"{key_file} {problem.format(certificate=certificate)}") from error


def _look_at(file: Path, key: str) -> None:
    try:
        with file.open("rb"):
            return
    except OSError as error:
        raise tls_fault(key, f"{file} cannot be read ({error.strerror}): name a file in PEM form that the node's user may read") from error


def tls_fault(key: str, problem: str) -> ConfigError:
    """Return the error about a file that the configuration names at ``key``."""
    return ConfigError("configuration", None, key, problem)


# --- afterwards ------------------------------------------------------------------------------------------------------------

_ALERTS = {  # what the peer says of us
    "CERTIFICATE_REQUIRED": "it wants a certificate of ours: add certificate and key to the destination's tls",
    "HANDSHAKE_FAILURE": "it refused the handshake: it may want a certificate of ours, or another profile than BCP 195",
    "UNKNOWN_CA": "it does not know the authority that signed our certificate: have ours, or our authority's, added there",
    "CERTIFICATE_EXPIRED": "it says that our certificate has expired",
    "BAD_CERTIFICATE": "it does not accept our certificate",
    "CERTIFICATE_UNKNOWN": "it does not accept our certificate",
    "UNSUPPORTED_CERTIFICATE": "it does not accept our certificate: it may not be made out for clients",
    "PROTOCOL_VERSION": "it speaks neither TLS 1.2 nor 1.3",
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port: check the port, or leave the destination's tls out",
}


def explain(fault: OSError) -> str:
    """Say what went wrong between us and a destination, and what to do."""
    if not isinstance(fault, ssl.SSLError):
        return f"broke off the TLS handshake ({fault.strerror or fault}): it may not speak TLS on this port"
    if isinstance(fault, ssl.SSLCertVerificationError):
        remedy = {
            10: "it has to be renewed there",
            9: "check the clocks",
            62: "set the destination's tls.name to what its certificate says, or tls.check_name to false",
            64: "set the destination's tls.name to what its certificate says, or tls.check_name to false",
        }.get(fault.verify_code, "name its authority in the destination's tls.ca")
        return f"its certificate is not accepted ({fault.verify_message.rstrip('.')}): {remedy}"
    reason = fault.reason or ""
    return next((text for word, text in _ALERTS.items() if reason.endswith(word)), f"TLS failed ({_plain(fault)})")


def _plain(error: Exception) -> str:
    """Return OpenSSL's words without its file names and line numbers."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return str(error)
