"""SIP messages from untrusted bytes (RFC 3261 and its extensions).

In: one datagram, or one message as `decoders.sipstream` framed it. Out: a `SipMessage` whose header fields are
decoded when they are asked for, or None where there is no SIP. What is unsound stays readable and is noted; nothing
is corrected by guessing. Never raises, never holds state between messages.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from decoders.multipart import BodyPart, media_type, split_body
from decoders.sdp import SessionDescription, parse_sdp
from decoders.sip_address import (
    NameAddress,
    Replaces,
    Via,
    parse_name_address,
    parse_replaces,
    parse_uri,
    parse_via,
)
from decoders.sip_headers import LISTS, Fields, canonical_name, parse_fields, parse_params, split_lines, split_list
from decoders.sip_startline import METHODS, StartLine, find_message, looks_like_sip, parse_start_line, skip_blanks

__all__ = [
    "BodyPart",
    "NameAddress",
    "Replaces",
    "SipMessage",
    "Via",
    "looks_like_sip",
    "parse_message",
    "parse_sipfrag",
]

MAX_HEAD = 65536
"""Octets of start line and header fields."""
MAX_NUMBER = 0xFFFFFFFF
_SHORT = 64
"""Characters of a value that is remembered."""

_UNSET = object()
_ODD_END = re.compile(rb"\r(?!\n[^ \t])").search
"""A CR that ends no line, a line that the next one continues."""


class SipMessage:
    """A request (`method`, `request_uri`) or a response (`status`, `reason`).

    Header names are case-insensitive and may be compact forms. Values are text without folding and outer blanks.
    """

    __slots__ = (
        *("_addresses", "_notes", "_parts", "_sdp"),
        *("body", "headers", "method", "reason", "request_uri", "status"),
    )

    def __init__(self, start: StartLine, fields: Fields, body: bytes, notes: list[str]) -> None:
        self.method = start.method
        self.request_uri = start.request_uri
        self.status = start.status
        self.reason = start.reason
        self.body = body
        self.headers: Mapping[str, list[str]] = fields
        """Every header field: canonical lower-case name to values in order, comma lists not split."""
        self._notes = notes
        self._addresses: dict[str, NameAddress | None] = {}
        self._parts: list[BodyPart] | None = None
        self._sdp: object = _UNSET

    def __repr__(self) -> str:
        first = f"{self.method} {self.request_uri}" if self.method else f"{self.status} {self.reason}"
        return f"<SipMessage {first} Call-ID={self.call_id} CSeq={self.cseq}>"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was unsound so far: framing and header lines from the start, bodies once they were asked for."""
        return tuple(self._notes)

    def get(self, name: str) -> str | None:
        """First value of a header field as it stands on its line, None where it is absent."""
        values = self.headers.get(name) or self.headers.get(canonical_name(name))
        return values[0] if values else None

    def getlist(self, name: str) -> list[str]:
        """All values of a header field in order, comma lists split where the grammar has lists; may be empty."""
        name = canonical_name(name)
        values = self.headers.get(name, [])
        if name not in LISTS:
            return list(values)
        return [item for value in values for item in split_list(value)]

    @property
    def call_id(self) -> str | None:
        """Call-ID, None where it is absent or empty."""
        values = self.headers.get("call-id")
        return (values[0] or None) if values else None

    @property
    def cseq(self) -> tuple[int, str] | None:
        """CSeq number and method; None where absent, unsound, or beyond 32 bits (RFC 3261, section 8.1.1.5)."""
        values = self.headers.get("cseq")
        if not values:
            return None
        value = values[0]
        return _sequence(value) if len(value) <= _SHORT else _sequence.__wrapped__(value)

    @property
    def from_(self) -> NameAddress | None:
        """From."""
        return self._address("from")

    @property
    def to(self) -> NameAddress | None:
        """To."""
        return self._address("to")

    @property
    def contact(self) -> NameAddress | None:
        """The first Contact."""
        return self._address("contact")

    @property
    def contacts(self) -> list[NameAddress]:
        """Every Contact, without the `*` of a REGISTER."""
        return self._address_list("contact")

    @property
    def vias(self) -> list[Via]:
        """Every sound Via, topmost first."""
        return [via for value in self.getlist("via") if (via := parse_via(value)) is not None]

    @property
    def top_branch(self) -> str | None:
        """Branch of the topmost Via, None where it has none (RFC 2543)."""
        values = self.getlist("via")
        via = parse_via(values[0]) if values else None
        return via.branch if via else None

    @property
    def content_type(self) -> str:
        """Type and subtype of the body in lower case, empty where not given."""
        return media_type(self.get("content-type"))

    @property
    def asserted_identities(self) -> list[NameAddress]:
        """P-Asserted-Identity, in order (RFC 3325)."""
        return self._address_list("p-asserted-identity")

    @property
    def remote_party_id(self) -> NameAddress | None:
        """The first Remote-Party-ID; its `party` parameter says of whom (calling, called)."""
        return self._address("remote-party-id")

    @property
    def diversion(self) -> list[NameAddress]:
        """Diversion, the newest first (RFC 5806)."""
        return self._address_list("diversion")

    @property
    def referred_by(self) -> NameAddress | None:
        """Referred-By (RFC 3892)."""
        return self._address("referred-by")

    @property
    def refer_to(self) -> NameAddress | None:
        """Refer-To (RFC 3515)."""
        return self._address("refer-to")

    @property
    def refer_to_replaces(self) -> Replaces | None:
        """The dialog that the referred call shall replace: the Replaces inside the Refer-To URI (RFC 3891)."""
        target = self.refer_to
        value = parse_uri(target.uri).headers.get("replaces") if target else None
        return parse_replaces(value) if value else None

    @property
    def replaces(self) -> Replaces | None:
        """Replaces (RFC 3891)."""
        value = self.get("replaces")
        return parse_replaces(value) if value else None

    @property
    def session_id(self) -> str | None:
        """Session-ID as written: `uuid;remote=uuid` (RFC 7989)."""
        return self.get("session-id") or None

    @property
    def reason_headers(self) -> list[tuple[str, int, str]]:
        """(protocol, cause, text) of every Reason with a sound cause (RFC 3326)."""
        reasons = []
        for value in self.getlist("reason"):
            protocol, _, tail = value.partition(";")
            params = parse_params(tail)
            cause = _number(params.get("cause") or "")
            if cause is not None:
                reasons.append((protocol.strip(), cause, params.get("text") or ""))
        return reasons

    def requires(self, option: str) -> bool:
        """Whether the Require header field has the option tag (case does not count)."""
        return option.lower() in (tag.lower() for tag in self.getlist("require"))

    def parts(self) -> list[BodyPart]:
        """Leaves of the body: several of a multipart body, one of another, none where it is empty. Split once."""
        if self._parts is None:
            # What is wrong with a body that is one part is said where its framing is.
            notes = self._notes if self.content_type.startswith("multipart/") else []
            self._parts = split_body(self.body, self.get("content-type"), self.get("content-disposition"), notes)
        return self._parts

    def sdp(self) -> SessionDescription | None:
        """The session description: the body itself or the first such part of it. Parsed once."""
        if self._sdp is _UNSET:
            self._sdp = self._find_sdp() if self.body else None
        return self._sdp if isinstance(self._sdp, SessionDescription) else None

    def _find_sdp(self) -> SessionDescription | None:
        kind = self.content_type
        if kind == "application/sdp":
            return parse_sdp(self.body)
        if not kind:
            described = parse_sdp(self.body) if self.body.lstrip()[:2] == b"v=" else None
            if described:
                self._notes.append("session description without a Content-Type")
            return described
        if not kind.startswith("multipart/"):
            return None
        found = (parse_sdp(part.data) for part in self.parts() if part.content_type == "application/sdp")
        return next((described for described in found if described), None)

    def _address(self, name: str) -> NameAddress | None:
        known = self._addresses
        if name not in known:
            values = self.headers.get(name)
            first = (split_list(values[0]) if name in LISTS else values) if values else None
            known[name] = parse_name_address(first[0]) if first else None
        return known[name]

    def _address_list(self, name: str) -> list[NameAddress]:
        return [address for value in self.getlist(name) if (address := parse_name_address(value)) is not None]


def parse_message(data: bytes) -> SipMessage | None:
    """The message in `data`, None where there is no SIP.

    Octets beyond Content-Length are noise (RFC 3261, section 18.3); without a usable Content-Length the body is the
    rest; a Content-Length larger than that is noted as truncation.
    """
    notes: list[str] = []
    begin = skip_blanks(data) if data[:1] <= b" " else 0
    lines, body_at = _head(data, begin, notes)
    start = parse_start_line(lines[0])
    if start is None:
        found = find_message(data)
        if found is None or found == begin:
            return None
        notes = ["junk before the start line"]
        lines, body_at = _head(data, found, notes)
        start = parse_start_line(lines[0])
        if start is None:
            return None
    if body_at < 0:
        notes.append("no empty line after the header")
    notes.extend(start.notes)
    fields = parse_fields(lines, notes)
    body, lengths = data[body_at:] if body_at >= 0 else b"", fields.get("content-length")
    if lengths != [str(len(body))]:
        body = _body(body, lengths, notes)
    message = SipMessage(start, fields, body, notes)
    if start.method is not None and start.method not in METHODS:
        _drop_junk(message)
    return message


def _head(data: bytes, begin: int, notes: list[str]) -> tuple[list[str], int]:
    """Lines of the header, and where the body begins (-1 where no empty line separates them)."""
    end = data.find(b"\r\n\r\n", begin, begin + MAX_HEAD)
    if end >= 0:
        head = data[begin:end]
        lines = _usual_lines(head)
        if lines is not None:
            return lines, end + 4
        before = len(notes)
        lines = split_lines(head, notes)
        if "" not in lines:
            return lines, end + 4
        del notes[before:]
    end, body_at = _head_end(data, begin)
    return split_lines(data[begin:end], notes), body_at


def _usual_lines(head: bytes) -> list[str] | None:
    """Lines of UTF-8 that all end in CR LF, none of them folded; None where `split_lines` has to look closer."""
    if b"\0" in head or _ODD_END(head):
        return None
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        return None
    return lines if head.count(b"\n") == len(lines) - 1 else None


def _head_end(data: bytes, begin: int) -> tuple[int, int]:
    """Where the header ends and where the body begins, by the first empty line whatever ends the lines."""
    limit = begin + MAX_HEAD
    crlf = data.find(b"\n\r\n", begin, limit)
    lf = data.find(b"\n\n", begin, crlf if crlf >= 0 else limit)
    end, size = (lf, 2) if lf >= 0 else (crlf, 3)
    cr = data.find(b"\r\r", begin, end if end >= 0 else limit)
    if cr >= 0 and b"\n" not in data[begin:cr]:
        end, size = cr, 2
    return (end, end + size) if end >= 0 else (min(len(data), limit), -1)


def _body(rest: bytes, lengths: list[str] | None, notes: list[str]) -> bytes:
    if lengths is None:
        return rest
    length = _number(lengths[0])
    if length is None:
        notes.append("unusable Content-Length")
        return rest
    if len(lengths) > 1 and any(_number(other) != length for other in lengths):
        notes.append("contradicting Content-Length")
        return rest
    present = len(rest)
    if length > present:
        notes.append(f"body truncated: {present} of {length} octets")
    elif length < present:
        if rest[length:].strip(b"\r\n\0 "):
            notes.append("octets after the body")
        return rest[:length]
    return rest


def _drop_junk(message: SipMessage) -> None:
    """Letters before a known method are junk where CSeq does not say that they belong to the method's name."""
    method = message.method or ""
    known = next((name for name in sorted(METHODS) if method.endswith(name)), None)
    cseq = message.cseq
    if known and (cseq is None or cseq[1] == known):
        message.method = known
        message._notes.append("junk before the start line")


@lru_cache(maxsize=1024)
def _sequence(value: str) -> tuple[int, str] | None:
    """A CSeq value, of which there are few different ones at a time."""
    words = value.split(None, 2)
    if len(words) < 2:
        return None
    number = _number(words[0])
    return None if number is None else (number, words[1])


def _number(text: str) -> int | None:
    """A decimal number of at most 32 bits; more digits or other characters give None."""
    if len(text) < 10 and text.isdigit() and text.isascii():
        return int(text)
    if not text.isascii() or not text.isdigit() or len(text.lstrip("0")) > 10 or len(text) > 64:
        return None
    value = int(text)
    return value if value <= MAX_NUMBER else None


def parse_sipfrag(body: bytes) -> StartLine | None:
    """The start line of a message/sipfrag body (RFC 3420), as NOTIFY reports the progress of a transfer."""
    lines = split_lines(body[:MAX_HEAD].lstrip(), [])
    return parse_start_line(lines[0])
