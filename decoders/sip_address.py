"""Addresses in header fields: name-addr, Via, Replaces, and the parts of a URI (RFC 3261, sections 19.1, 20 and 25.1).

In: the text of one header value. Out: a value, or None where nothing in it can be used. URIs stay as written:
nothing is unescaped in them. Never raises.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote as percent_decode

from decoders.sip_headers import parse_params, unquote

_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"')
_VIA = re.compile(r"\s*SIP\s*/\s*([\d.]+)\s*/\s*([^\s;,/]+)\s+(\[[^\]]*\]|[^\s:;,]+)\s*(?::\s*(\d{1,5}))?\s*", re.I)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")


@dataclass(frozen=True, slots=True)
class NameAddress:
    """A name-addr or addr-spec with the parameters after it."""

    display_name: str | None
    uri: str
    params: Mapping[str, str | None]
    """Names in lower case; None where a parameter has no value."""
    sound: bool = True
    """False where brackets or quotes had to be made up."""

    @property
    def tag(self) -> str | None:
        """The dialog tag of a From or To."""
        return self.params.get("tag")


def parse_name_address(value: str) -> NameAddress | None:
    """Address of a From, To, Contact and the like; None where there is no URI."""
    quoted = _QUOTED.match(value) if '"' in value else None
    start = value.find("<", quoted.end() if quoted else 0)
    if start < 0:
        return _bare_address(value, quoted)
    end = value.find(">", start)
    sound = end >= 0
    if end < 0:
        end = len(value)
    inside = value[start + 1 : end]
    uri = inside.strip()
    sound = sound and uri == inside
    if quoted:
        name = unquote(f'"{quoted[1]}"')
        sound = sound and not value[quoted.end() : start].strip()
    else:
        name = value[:start].strip()
        if name[:1] == '"':  # an unbalanced quote, RFC 4475, section 3.1.2.6
            name, sound = name[1:].strip(), False
    if not uri:
        return None
    tail = value[end + 1 :]
    return NameAddress(name or None, uri, parse_params(tail) if tail else {}, sound)


def _bare_address(value: str, quoted: re.Match[str] | None) -> NameAddress | None:
    """An addr-spec without brackets: what follows its first semicolon belongs to the header (section 20.10)."""
    name = None
    if quoted:
        name, value = unquote(f'"{quoted[1]}"') or None, value[quoted.end() :]
    uri, semicolon, tail = value.partition(";")
    uri = uri.strip()
    if not uri or uri == "*":
        return None
    sound = quoted is None and " " not in uri
    return NameAddress(name, uri, parse_params(tail) if semicolon else {}, sound)


@dataclass(frozen=True, slots=True)
class Via:
    """One hop of a Via header field (section 20.42)."""

    transport: str
    """Upper case: UDP, TCP, TLS, WS..."""
    host: str
    """As written, IPv6 with its brackets."""
    port: int | None
    params: Mapping[str, str | None]

    @property
    def branch(self) -> str | None:
        """Transaction identifier."""
        return self.params.get("branch")

    @property
    def received(self) -> str | None:
        """Address that the next hop saw."""
        return self.params.get("received")

    @property
    def rport(self) -> int | None:
        """Port that the next hop saw (RFC 3581), None where it has not filled it in."""
        text = self.params.get("rport") or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None


def parse_via(value: str) -> Via | None:
    """One Via value, None where protocol or host are missing."""
    match = _VIA.match(value)
    if match is None:
        return None
    port = int(match[4]) if match[4] else None
    if port is not None and port > 0xFFFF:
        port = None
    rest = value[match.end() :]
    return Via(match[2].upper(), match[3], port, parse_params(rest) if rest else {})


class Replaces(NamedTuple):
    """The dialog that a call takes over (RFC 3891)."""

    call_id: str
    to_tag: str
    from_tag: str
    early_only: bool = False


def parse_replaces(value: str) -> Replaces | None:
    """A Replaces value, None where it names no dialog."""
    call_id, _, tail = value.partition(";")
    params = parse_params(tail)
    to_tag, from_tag = params.get("to-tag"), params.get("from-tag")
    if not call_id.strip() or to_tag is None or from_tag is None:
        return None
    return Replaces(call_id.strip(), to_tag, from_tag, "early-only" in params)


class SipUri(NamedTuple):
    """Parts of a URI: sip:user@host:port;params?headers, tel:number;params; other schemes keep all in `user`."""

    scheme: str
    """Lower case; empty where there is none."""
    user: str
    """Still escaped, without a password; of a tel URI the number."""
    host: str
    """Lower case, IPv6 with its brackets."""
    port: int | None
    params: Mapping[str, str | None]
    headers: Mapping[str, str]
    """Names in lower case, values unescaped."""


def parse_uri(text: str) -> SipUri:
    """Parts of a URI. Any text has some, perhaps empty, parts."""
    scheme, rest = "", text.strip()
    match = _SCHEME.match(rest)
    if match and not rest[match.end() :].isdigit():
        scheme, rest = match[0][:-1].lower(), rest[match.end() :]
    if scheme not in ("sip", "sips", ""):
        number, _, tail = rest.partition(";")
        return SipUri(scheme, number, "", None, parse_params(tail) if scheme == "tel" else {}, {})
    # A question mark may stand in the user part; an @ may stand, against the grammar, in the header fields.
    question = rest.find("?", rest.find("@") + 1)
    rest, query = (rest[:question], rest[question + 1 :]) if question >= 0 else (rest, "")
    user, at, rest = rest.rpartition("@")
    user = user.partition(":")[0] if at else ""
    address, _, tail = rest.partition(";")
    host, port = _host_port(address)
    return SipUri(scheme, user, host, port, parse_params(tail), _uri_headers(query))


def _host_port(address: str) -> tuple[str, int | None]:
    address = address.strip().lower()
    bracket = address.rfind("]")
    host, colon, port = address[bracket + 1 :].rpartition(":")
    if not colon:
        return address, None
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else None
    return address[: bracket + 1] + host, number if number is not None and number <= 0xFFFF else None


def _uri_headers(query: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for item in query.split("&", 63)[:63] if query else ():
        name, _, value = item.partition("=")
        headers.setdefault(percent_decode(name).lower(), percent_decode(value))
    return headers
