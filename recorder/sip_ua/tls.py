"""TLS for SIP: contexts, and whether a certificate is that of the host that was asked for (RFC 3261, 26; RFC 5922).

In: files. Out: contexts for TLS 1.2 and later with what RFC 9325 recommends; names in a verified certificate. The
certificate of a server is always verified; that of a client where there is an authority to verify it by.
"""

import os
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from capture.errors import SpanrecError
from decoders.sip_address import parse_uri

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
"""Of TLS 1.2; those of TLS 1.3 are all sound."""


class TlsError(SpanrecError):
    """Certificates or keys cannot be used."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files in PEM."""

    certificate: Path | None = None
    """Ours with its chain; without it we cannot listen for TLS, and show none to servers."""
    key: Path | None = None
    """Of the certificate, unencrypted; None: it stands in the certificate's file."""
    authorities: Path | None = None
    """Certificates that others' are verified by; None: those of the system."""
    require_client: bool = False
    """Refuse clients without a certificate that can be verified (mutual TLS)."""


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For connections that come in. Raises TlsError."""
    if files.certificate is None:
        raise TlsError("TLS cannot be listened for without a certificate of ours")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    _load(context, files)
    if files.authorities is not None or files.require_client:
        context.verify_mode = ssl.CERT_REQUIRED if files.require_client else ssl.CERT_OPTIONAL
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """For connections that we open. Names are checked by `names_fit`, for SIP has rules of its own. Raises TlsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    _load(context, files)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(CIPHERS)


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    for path in (files.certificate, files.key, files.authorities):
        try:
            if path is not None:
                path.read_bytes()
        except OSError as error:
            raise TlsError(f"{path}: cannot be read: {error.strerror or error}") from error
    _load_certificate(context, files)
    try:
        if files.authorities is not None:
            context.load_verify_locations(files.authorities)
        else:
            context.load_default_certs()
    except (ssl.SSLError, ValueError, OSError) as error:
        raise TlsError(f"{files.authorities}: cannot be used for TLS: {error}") from error


class TlsContexts:
    """Both contexts of some files, read when it is made: before rights are given up that reading a key may need."""

    def __init__(self, files: TlsFiles, *, listening: bool) -> None:
        """Raises TlsError."""
        self.server = server_context(files) if listening else None
        own = files.certificate is not None or files.authorities is not None
        self._client = client_context(files) if own else None
        self._files = files
        self._written = written(files)

    def client(self) -> ssl.SSLContext:
        """For connections that we open. Raises TlsError."""
        if self._client is None:
            self._client = client_context(self._files)
        return self._client

    def renew(self) -> str | None:
        """Show the certificate that is in the files now. What stands in the way of that, a sentence; then the one of
        before is shown on. A file that may not be read any more is told of before it is renewed."""
        for path in (self._files.certificate, self._files.key):
            if path is not None and not os.access(path, os.R_OK):
                return (
                    f"{path}: is not there, or this process may not read it: a renewed certificate is not shown until"
                    " its group may read it (chgrp, chmod 640) or the service is restarted."
                )
        there = written(self._files)
        if there != self._written:
            try:
                renew([each for each in (self.server, self._client) if each is not None], self._files)
            except TlsError as error:
                return f"{error}. The certificate of before is shown."
            self._written = there
        return None


def renew(contexts: Sequence[ssl.SSLContext], files: TlsFiles) -> None:
    """Have contexts show the certificate that is in the files now, from the next handshake on. Raises TlsError, and
    then nothing has changed."""
    # A context whose certificate and key do not fit each other has neither any more: a new one is tried first.
    for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), *contexts):
        _load_certificate(context, files)


def _load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    if files.certificate is None:
        return
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise TlsError(f"{files.certificate}: cannot be used for TLS: {error}") from error


def written(files: TlsFiles) -> tuple[int, ...]:
    """When certificate and key were written, ns; another value where they were renewed."""
    found = []
    for path in (files.certificate, files.key):
        with suppress(OSError):
            found.append(path.stat().st_mtime_ns if path is not None else 0)
    return tuple(found)


def _no_password() -> str:
    """Asked for the password of an encrypted key: there is nobody to type it."""
    raise ValueError("the key is encrypted")


def names_of(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Names in a verified certificate: `DNS:…`, `URI:…`, `IP:…`, `CN:…`."""
    if not certificate:
        return ()
    names = [
        f"{'IP' if kind == 'IP Address' else kind}:{value}" for kind, value in certificate.get("subjectAltName", ())
    ]
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    names += [f"CN:{value}" for name, value in subject if name == "commonName"]
    return tuple(names)


def names_fit(names: tuple[str, ...], host: str) -> bool:
    """Whether a certificate with these names is that of `host` (RFC 5922, section 7.2): by a SIP URI of the domain, a
    DNS name without wildcards, an address; by the common name only where there is none of those."""
    wanted = host.strip("[]").rstrip(".").lower()
    address = _address(wanted)
    identities = [name.partition(":")[::2] for name in names]
    known = [(kind, value) for kind, value in identities if kind in ("URI", "DNS", "IP")]
    for kind, value in known or [("DNS", value) for kind, value in identities if kind == "CN"]:
        if kind == "IP" and address is not None and _address(value) == address:
            return True
        if kind == "DNS" and value.rstrip(".").lower() == wanted:
            return True
        if kind == "URI":
            uri = parse_uri(value)
            if uri.scheme in ("sip", "sips") and not uri.user and uri.host.lower() == wanted:
                return True
    return False


def _address(text: str) -> str | None:
    try:
        return str(ip_address(text))
    except ValueError:
        return None
