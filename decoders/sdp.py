"""Session descriptions from untrusted bytes (RFC 8866, RFC 3264).

In: the body of a SIP message. Out: a `SessionDescription`, or None where nothing in it looks like one. Unsound parts
are left out and noted. Bounded by MAX_OCTETS, MAX_MEDIA and MAX_PER_MEDIA. Never raises, never resolves names.
"""

import re
from collections.abc import Iterable, Mapping

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

_DIRECTIONS = {direction.value: direction for direction in Direction}
_LINE = re.compile("[a-z]=").match
Attributes = dict[str, list[str]]


class _Section:
    """The lines of the session level or of one m= section, sorted but not yet understood."""

    __slots__ = ("attributes", "connection", "direction", "media")

    def __init__(self, media: str) -> None:
        self.media = media
        self.connection = ""
        self.direction: Direction | None = None
        self.attributes: Attributes = {}

    def add_attribute(self, value: str) -> None:
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
    session = _Section("")
    sections: list[_Section] = []
    current = session
    origin, name, version_seen = None, "", False
    for line in _lines(body):
        kind, value = line[:2], line[2:].strip()
        if kind == "a=":
            current.add_attribute(value)
        elif kind == "m=":
            current = _Section(value)
            sections.append(current)
            if len(sections) > MAX_MEDIA:
                sections.pop()
                notes.append("too many media descriptions")
                break
        elif kind == "c=":
            current.connection = current.connection or _connection_address(value, notes)
        elif kind == "o=" and not sections:
            origin = origin or _origin(value, notes)
        elif kind == "s=" and not sections:
            name = name or value
        elif kind == "v=":
            version_seen = version_seen or not sections
    media = tuple(_media_descriptions(session, sections, notes))
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


def _lines(body: bytes) -> list[str]:
    """Lines whatever ends them (CR LF, LF, CR), blanks before the type removed."""
    try:
        text = body.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    text = text.replace("\r\n", "\n")
    if "\r" in text or "\0" in text:
        text = text.replace("\r", "\n").replace("\0", "")
    # str.splitlines would also break at characters that SDP allows inside a line.
    return [known for line in text.split("\n") if (known := line if _LINE(line) else _odd_line(line))]


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


def _media_descriptions(session: _Section, sections: list[_Section], notes: list[str]) -> Iterable[MediaDescription]:
    session_keys = _keys(session, notes) if "crypto" in session.attributes else ()
    for index, section in enumerate(sections):
        described = _media_description(index, session, section, session_keys, notes)
        if described is not None:
            yield described


def _media_description(
    index: int, session: _Section, section: _Section, session_keys: tuple[CryptoKey, ...], notes: list[str]
) -> MediaDescription | None:
    fields = section.media.split()
    if len(fields) < 2:
        notes.append(f"media description {index} without a port")
        return None
    port_text, _, count_text = fields[1].partition("/")
    port = _number(port_text)
    if port is None or port > 0xFFFF:
        notes.append(f"media description {index} has no usable port")
        return None
    protocol = fields[2] if len(fields) > 2 else ""
    attributes = section.attributes
    rtcp_port, rtcp_address = parse_rtcp(section.first("rtcp"))
    formats: Mapping[int, PayloadFormat] = {}
    if "RTP/" in protocol.upper():
        listed, rtpmaps, fmtps = fields[3 : 3 + MAX_PER_MEDIA], attributes.get("rtpmap", ()), attributes.get("fmtp", ())
        formats, unsound = parse_format_list(tuple(listed), tuple(rtpmaps), tuple(fmtps))
        notes += [f"media description {index}: {note}" for note in unsound]
    candidates = [parse_candidate(value) for value in attributes.get("candidate", ())[:MAX_PER_MEDIA]]
    return MediaDescription(
        index=index,
        media=fields[0].lower(),
        port=port,
        port_count=max(1, min(_number(count_text) or 1, 0xFFFF)),
        protocol=protocol,
        address=section.connection or session.connection,
        formats=formats,
        direction=section.direction or session.direction or Direction.SENDRECV,
        rtcp_port=rtcp_port,
        rtcp_address=rtcp_address,
        rtcp_mux="rtcp-mux" in attributes or "rtcp-mux-only" in attributes,
        ptime=_milliseconds(section.first("ptime") or session.first("ptime")),
        crypto=_keys(section, notes) if "crypto" in attributes else session_keys,
        dtls="fingerprint" in attributes or "fingerprint" in session.attributes,
        label=section.first("label") or None,
        mid=section.first("mid") or None,
        candidates=tuple(candidate for candidate in candidates if candidate is not None),
        record=_record(section.first("record") or session.first("record")),
        bundle_only="bundle-only" in attributes,
        ssrcs=parse_ssrcs(attributes.get("ssrc", ())),
    )


def _keys(section: _Section, notes: list[str]) -> tuple[CryptoKey, ...]:
    keys: list[CryptoKey] = []
    for value in section.attributes.get("crypto", ())[:MAX_PER_MEDIA]:
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
