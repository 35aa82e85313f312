"""Settings that our SRC and our SRS share: sockets, TLS, ports of media, control, webhooks.

In: values of `[src]` and `[srs]` as TOML gives them. Out: frozen values. Raises ValueError or SpanrecError with a
phrase, of which a `settings_table.Place` makes a sentence. Opens no socket, and no file but a secret's on demand.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from capture.errors import SpanrecError
from decoders.sip_address import parse_name_address, parse_uri
from recorder.settings_table import Place, known, seconds, text, texts, truth, whole
from recorder.sip_ua.listen import Listen, parse_listen
from recorder.sip_ua.tls import TlsFiles
from recorder.siprec.admission import Allowed, Network
from recorder.siprec.control import EventKind
from recorder.status_address import parse_address
from recorder.status_token import read_secret

TLS = ("tls_certificate", "tls_key", "tls_authorities", "tls_require_client")
CONTROL = ("control", "token_file", "socket")
_PORTS = re.compile(r"(\d{1,5})\s*-\s*(\d{1,5})")
_ALLOW = ("network", "certificate", "user")
_WEBHOOK = ("url", "secret_file", "events", "timeout")


@dataclass(frozen=True, slots=True)
class Ports:
    """A range, both ends included."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Where status is served and commands are taken."""

    listen: str = ""
    """TCP; empty: nowhere."""
    token_file: Path | None = None
    socket: Path | None = None
    """None: the usual place."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who is told of events."""

    url: str
    secret_file: Path | None = None
    """Key of the signature; None: no signature."""
    events: frozenset[EventKind] = frozenset(EventKind)
    timeout: float = 5.0
    """s for one try."""


def sockets(value: object) -> tuple[Listen, ...]:
    """`udp:192.0.2.1:5060`, or several."""
    found = tuple(parse_listen(each) for each in texts(value))
    if not found:
        raise ValueError("is an empty list; leave it out")
    return found


def ports(value: object) -> Ports:
    """`35000-39999`."""
    match = _PORTS.fullmatch(text(value).strip())
    low, high = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1024 <= low < high <= 0xFFFF:
        raise ValueError(f"{value!r} is no range of ports; write two from 1024 to 65535, as in 35000-39999")
    return Ports(low, high)


def address(value: object) -> str:
    """A literal IP address of this machine."""
    try:
        return str(ip_address(text(value).strip("[]")))
    except ValueError:
        raise ValueError(f"{value!r} is no IP address; write one of this machine, as in 192.0.2.1") from None


def sip_uri(value: object) -> str:
    """A SIP or SIPS URI with a host."""
    uri = text(value).strip()
    parsed = parse_uri(uri)
    odd = any(character.isspace() or not character.isprintable() or character in '<>"' for character in uri)
    if parsed.scheme not in ("sip", "sips") or not parsed.host or odd:
        raise ValueError(f"{uri!r} is no SIP URI; write sip:recorder.example;transport=tcp")
    return uri


def name_addr(value: object) -> str:
    """An address with or without a name, as From and To have it: `"Recorder" <sip:rec@example.com>`."""
    written = text(value).strip()
    parsed = parse_name_address(written)
    if parsed is None or not parsed.sound or parsed.params or not written.isprintable():
        raise ValueError(f'{written!r} is no SIP address; write "Name" <sip:user@example.com>')
    sip_uri(parsed.uri)
    return written if "<" in written else f"<{written}>"


def session_expires(value: object) -> int | None:
    """s between refreshes of a session (RFC 4028, section 5: 90 at the least); 0: no session timer."""
    return None if type(value) is int and value == 0 else whole(value, 90, 86400)


def path(value: object) -> Path:
    """Of a file or directory."""
    return Path(text(value))


def tls_files(place: Place, table: dict[str, Any]) -> TlsFiles:
    """The TLS settings of a table."""
    found: dict[str, Path] = {}
    for key in TLS[:3]:
        place.key = key
        if key in table:
            found[key] = path(table[key])
    place.key = "tls_require_client"
    require = truth(table.get("tls_require_client", False))
    place.key = "tls_key"
    if "tls_key" in found and "tls_certificate" not in found:
        raise ValueError("needs tls_certificate")
    return TlsFiles(found.get("tls_certificate"), found.get("tls_key"), found.get("tls_authorities"), require)


def control(place: Place, table: dict[str, Any], usual: str) -> ControlSettings:
    """Where status is served and commands are taken; `usual` is the address where nothing is said."""
    place.key = "control"
    listen = table.get("control", usual)
    if listen != "":
        parse_address(text(listen))
    place.key = "token_file"
    token_file = path(table["token_file"]) if "token_file" in table else None
    place.key = "socket"
    socket = path(table["socket"]) if "socket" in table else None
    return ControlSettings(listen, token_file, socket)


def allowed(place: Place, value: object) -> tuple[Allowed, ...]:
    """Who may come: `"192.0.2.0/24"`, or `{ network = …, certificate = …, user = … }`, of which all must fit."""
    place.key = "allow"
    listed = value if isinstance(value, list) else [value]
    return tuple(_allowed({"network": each} if isinstance(each, str) else each) for each in listed)


def _allowed(value: object) -> Allowed:
    table = known(value, _ALLOW)
    if not table:
        raise ValueError("an empty table would let everybody in; write network, certificate or user into it")
    certificate = text(table["certificate"]) if "certificate" in table else ""
    if certificate and ":" not in certificate:
        raise ValueError(f"{certificate!r} is no name of a certificate; write DNS:sbc.example, URI:sip:… or CN:…")
    return Allowed(
        _network(table["network"]) if "network" in table else None,
        certificate,
        text(table["user"]) if "user" in table else "",
    )


def _network(value: object) -> Network:
    try:
        return ip_network(text(value).strip(), strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is no address and no network; write 192.0.2.1 or 192.0.2.0/24") from None


def webhooks(file: Path, where: str, value: object) -> tuple[Webhook, ...]:
    """The tables `[[src.webhook]]` or `[[srs.webhook]]`."""
    listed = value if isinstance(value, list) else [value]
    found = []
    for number, each in enumerate(listed, 1):
        with Place(file, f"{where} {number}") as place:
            found.append(_webhook(place, known(each, _WEBHOOK)))
    return tuple(found)


def _webhook(place: Place, table: dict[str, Any]) -> Webhook:
    place.key = "url"
    url = text(table.get("url"))
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or not url.isprintable():
        raise ValueError(f"{url!r} is no http or https URL")
    if parts.username is not None:
        raise ValueError("has a user or password in it, which would stand in logs; use secret_file")
    place.key = "secret_file"
    secret_file = path(table["secret_file"]) if "secret_file" in table else None
    place.key = "events"
    events = frozenset(EventKind)
    if "events" in table:
        listed = texts(table["events"])
        odd = next((each for each in listed if each not in list(EventKind)), None)
        if odd is not None or not listed:
            raise ValueError(f"{odd!r} is none of {', '.join(EventKind)}")
        events = frozenset(map(EventKind, listed))
    place.key = "timeout"
    return Webhook(url, secret_file, events, seconds(table.get("timeout", 5.0), 0.1, 60))


def secret(file: Path, what: str) -> str:
    """The one line of a file that others must not read. Raises SpanrecError."""
    return read_secret(file, what)


class Secrets:
    """What secret files said, for a process that can read them no more once it has become another user."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def read(self, file: Path, what: str) -> str:
        """What a file says now, or where it cannot be read, what it said. Raises SpanrecError where it never could."""
        try:
            self._known[file] = secret(file, what)
        except SpanrecError:
            if file not in self._known:
                raise
        return self._known[file]
