"""Session descriptions from untrusted bytes (RFC 8866, RFC 3264).

In: the body of a SIP message. Out: a `SessionDescription`, or None where nothing in it looks like one. Unsound parts
are left out and noted. Bounded by MAX_OCTETS, MAX_MEDIA and MAX_PER_MEDIA. Never raises, never resolves names.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from decoders.sdp_attributes import parse_candidate, parse_crypto, parse_format_list, parse_rtcp, parse_ssrcs
from decoders.sdp_values import (
    STATIC_FORMATS,
    Candidate,
    CryptoKey,
    Direction,
    MediaDescription,
    Origin,
    PayloadFormat,
    SessionDescription,
)

__all__ = [
    "STATIC_FORMATS",
    "Candidate",
    "CryptoKey",
    "Direction",
    "MediaDescription",
    "Origin",
    "PayloadFormat",
    "SessionDescription",
    "parse_sdp",
]

MAX_OCTETS = 65536
MAX_MEDIA = 64
MAX_PER_MEDIA = 64
"""Formats, candidates, keys or sources of one media description."""
MAX_NOTES = 32
_SHORT = 64
"""Characters of a connection line that is remembered."""

_DIRECTIONS = {direction.value: direction for direction in Direction}
_USUAL_HEAD = re.compile("\nv=0\no=([^\n]*)\ns=([^\n]*)(\nc=[^\n]*)?\nt=[^\n]*\n?").fullmatch
"""The session level of most descriptions."""
_LINE = re.compile("[a-z]=").match
_ODD_LINE = re.compile("\n(?![a-z]=|\\Z)").search
_OF_THIS_CALL = re.compile(r"\na=\s*(?:candidate|crypto|ssrc|fingerprint|ice-)", re.IGNORECASE).search
"""Attributes that no two calls have in common; keys are not to be remembered besides."""
Attributes = dict[str, list[str]]
_description: Callable[[tuple[object, ...]], MediaDescription] = partial(tuple.__new__, MediaDescription)
"""Of all its fields, without the interpreter."""


class _Section:
    """The lines of the session level or below one m= line, sorted but not yet understood."""

    __slots__ = ("attributes", "connection", "direction", "notes")

    def __init__(self, lines: str) -> None:
        self.connection = ""
        self.direction: Direction | None = None
        self.attributes: Attributes = {}
        self.notes: list[str] = []
        for line in lines.split("\n"):
            if line[:2] == "a=":
                self._add_attribute(line[2:].strip())
            elif line[:2] == "c=":
                self.connection = self.connection or _connection_address(line[2:].strip(), self.notes)

    def _add_attribute(self, value: str) -> None:
        name, _, value = value.partition(":")
        name = name.strip().lower()
        direction = _DIRECTIONS.get(name)
        if direction is not None:
            self.direction = direction
            return
        values = self.attributes.setdefault(name, [])
        if len(values) < 2 * MAX_PER_MEDIA:
            values.append(value.strip())

    def first(self, name: str) -> str | None:
        values = self.attributes.get(name)
        return values[0] if values else None


def parse_sdp(body: bytes) -> SessionDescription | None:
    """The description in `body`; None where it has neither a version line nor a media description."""
    notes: list[str] = []
    if len(body) > MAX_OCTETS:
        body = body[:MAX_OCTETS]
        notes.append("description cut at its limit")
    head, *sections = _lines(body).split("\nm=")
    origin, name, version_seen = None, "", False
    common = ""
    usual = _USUAL_HEAD(head)
    if usual is not None:
        said, name, common = usual.groups("")
        origin, name, version_seen = _origin(said.strip(), notes), name.strip(), True
        session = _connection_only(common) if len(common) <= _SHORT else _Section(common)
    else:
        for line in head.split("\n"):
            kind = line[:2]
            if kind in ("a=", "c="):
                common = f"{common}\n{line}"
            elif kind == "o=":
                origin = origin or _origin(line[2:].strip(), notes)
            elif kind == "s=":
                name = name or line[2:].strip()
            elif kind == "v=":
                version_seen = True
        session = _Section(common)
    notes += session.notes
    media = tuple(_media_descriptions(session, common, sections, notes))
    if not media and not version_seen:
        return None
    return SessionDescription(
        origin=origin,
        name=name,
        media=media,
        address=session.connection,
        ice_lite="ice-lite" in session.attributes,
        groups=_groups(session.attributes),
        notes=tuple(notes[:MAX_NOTES]),
    )


@lru_cache(maxsize=256)
def _connection_only(line: str) -> _Section:
    """The session level that has a connection line at most; to be read only."""
    return _Section(line)


def _lines(body: bytes) -> str:
    """Lines, an LF before each, whatever ends them (CR LF, LF, CR), blanks before the type removed."""
    try:
        text = body.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    text = "\n" + text.replace("\r\n", "\n")
    if "\r" not in text and "\0" not in text and not _ODD_LINE(text):
        return text
    text = text.replace("\r", "\n").replace("\0", "")
    # str.splitlines would also break at characters that SDP allows inside a line.
    known = [line if _LINE(line) else _odd_line(line) for line in text.split("\n")]
    return "\n" + "\n".join(filter(None, known))


def _odd_line(line: str) -> str:
    """A line with blanks around its type, put right; empty where it is no line of a description."""
    kind, equals, value = line.partition("=")
    kind = kind.strip().lower()
    return f"{kind}={value}" if equals and len(kind) == 1 else ""


def _connection_address(value: str, notes: list[str]) -> str:
    """Address of a c= line; TTL and count of a multicast address are dropped (RFC 8866, section 5.7)."""
    fields = value.split()
    if len(fields) < 3:
        notes.append("connection line without an address")
        return ""
    return fields[2].partition("/")[0]


def _origin(value: str, notes: list[str]) -> Origin | None:
    fields = value.split()
    if len(fields) < 3:
        notes.append("origin line cut short")
        return None
    if len(fields) == 6:
        return Origin(fields[0], fields[1], _number(fields[2]), fields[5])
    # The user name is one token by the grammar, yet blanks in it are seen; the other fields are counted from the end.
    if len(fields) < 6:
        version = fields[2]
        return Origin(fields[0], fields[1], _number(version), fields[-1] if len(fields) > 3 else "")
    return Origin(" ".join(fields[:-5]), fields[-5], _number(fields[-4]), fields[-1])


def _number(text: str) -> int | None:
    """A decimal number of at most 20 digits, None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def _groups(attributes: Attributes) -> tuple[tuple[str, ...], ...]:
    groups = []
    for value in attributes.get("group", ()):
        fields = value.split()[: MAX_MEDIA + 1]
        if fields:
            groups.append((fields[0].upper(), *fields[1:]))
    return tuple(groups[:MAX_PER_MEDIA])


def _media_descriptions(
    session: _Section, common: str, sections: list[str], notes: list[str]
) -> Iterable[MediaDescription]:
    session_keys = _keys(session.attributes, notes) if "crypto" in session.attributes else ()
    if len(sections) > MAX_MEDIA:
        notes.append("too many media descriptions")
    shared = "" if not session.attributes and session.direction is None else common
    for index, section in enumerate(sections[:MAX_MEDIA]):
        first, _, lines = section.partition("\n")
        fields = first.split(None, 2)
        port, count = _port(index, fields, notes)
        if port is None:
            continue
        said = index, fields[0], fields[2] if len(fields) > 2 else "", lines, shared
        try:
            described = _known_media(*said)
        except _UnsharedError:
            described = _read_media(*said)
        kind, protocol, formats, transport, rest, connection, crypto, unsound = described
        notes += unsound
        address, keys = connection or session.connection, session_keys if crypto is None else crypto
        yield _description((index, kind, port, protocol, address, formats, count, *transport, keys, *rest))


def _port(index: int, fields: list[str], notes: list[str]) -> tuple[int | None, int]:
    """Port, None where there is none to use, and number of ports of an m= line."""
    if len(fields) < 2:
        notes.append(f"media description {index} without a port")
        return None, 1
    port_text, _, count_text = fields[1].partition("/")
    port = _number(port_text)
    if port is None or port > 0xFFFF:
        notes.append(f"media description {index} has no usable port")
        return None, 1
    return port, max(1, min(_number(count_text) or 1, 0xFFFF)) if count_text else 1


_Rest = tuple[bool, str | None, str | None, tuple[Candidate, ...], str | None, bool, tuple[int, ...]]
"""The fields of `MediaDescription` from dtls on."""


class _Described(NamedTuple):
    """A media description but for what each call has of its own."""

    media: str
    protocol: str
    formats: Mapping[int, PayloadFormat]
    transport: tuple[Direction, int | None, str | None, bool, float | None]
    """The fields of `MediaDescription` from direction to ptime."""
    rest: _Rest
    connection: str
    crypto: tuple[CryptoKey, ...] | None
    """None where the keys are those of the session, if any."""
    notes: list[str]


class _UnsharedError(Exception):
    """Lines that no other call has."""


@lru_cache(maxsize=256)
def _known_media(index: int, kind: str, protocol_and_formats: str, lines: str, common: str) -> _Described:
    """`_read_media` of lines that a device writes in every description: those of late are remembered. Raises for all
    others, which are not remembered then."""
    if _OF_THIS_CALL(f"\n{lines}\n{common}"):
        raise _UnsharedError
    return _read_media(index, kind, protocol_and_formats, lines, common)


def _read_media(index: int, kind: str, protocol_and_formats: str, lines: str, common: str) -> _Described:
    """What the lines below an m= line, and those of the session, say of it."""
    session, section = _Section(common), _Section(lines)
    attributes, notes = section.attributes, section.notes
    protocol, *listed = protocol_and_formats.split() or [""]
    rtcp_port, rtcp_address = parse_rtcp(section.first("rtcp"))
    formats: Mapping[int, PayloadFormat] = {}
    if "RTP/" in protocol.upper():
        rtpmaps, fmtps = attributes.get("rtpmap", ()), attributes.get("fmtp", ())
        formats, unsound = parse_format_list(tuple(listed[:MAX_PER_MEDIA]), tuple(rtpmaps), tuple(fmtps))
        notes += [f"media description {index}: {note}" for note in unsound]
    candidates = [parse_candidate(value) for value in attributes.get("candidate", ())[:MAX_PER_MEDIA]]
    direction = section.direction or session.direction or Direction.SENDRECV
    mux = "rtcp-mux" in attributes or "rtcp-mux-only" in attributes
    ptime = _milliseconds(section.first("ptime") or session.first("ptime"))
    rest = (
        "fingerprint" in attributes or "fingerprint" in session.attributes,
        section.first("label") or None,
        section.first("mid") or None,
        tuple(candidate for candidate in candidates if candidate is not None),
        _record(section.first("record") or session.first("record")),
        "bundle-only" in attributes,
        parse_ssrcs(attributes.get("ssrc", ())),
    )
    crypto = _keys(attributes, notes) if "crypto" in attributes else None
    transport = (direction, rtcp_port, rtcp_address, mux, ptime)
    return _Described(kind.lower(), protocol, formats, transport, rest, section.connection, crypto, notes)


def _keys(attributes: Attributes, notes: list[str]) -> tuple[CryptoKey, ...]:
    keys: list[CryptoKey] = []
    for value in attributes.get("crypto", ())[:MAX_PER_MEDIA]:
        keys += parse_crypto(value, notes)
    return tuple(keys[:MAX_PER_MEDIA])


def _milliseconds(text: str | None) -> float | None:
    """Packet time: more than 0 and at most a second, None for anything else."""
    try:
        value = float(text) if text and len(text) <= 16 else 0.0
    except ValueError:
        return None
    return value if 0 < value <= 1000 else None


def _record(text: str | None) -> str | None:
    value = (text or "").lower()
    return value if value in ("on", "off", "paused") else None
