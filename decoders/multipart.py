"""MIME bodies of SIP messages (RFC 2045, RFC 2046, RFC 5621): one part or many.

In: a body and its Content-Type. Out: the leaves of its tree in order, as `BodyPart`s over exact octets. Bounded by
MAX_PARTS and MAX_DEPTH. Unsound structure gives what can be told apart and a note. Never raises.
"""

import base64
import binascii
import quopri
from collections.abc import Mapping
from dataclasses import dataclass

from decoders.sip_headers import parse_fields, parse_params, split_lines

MAX_PARTS = 64
MAX_DEPTH = 4
MAX_HEAD = 8192
MAX_DELIMITER = 256
"""Octets of a delimiter line, blanks after the boundary included."""


@dataclass(frozen=True, slots=True)
class BodyPart:
    """A leaf of a body."""

    content_type: str
    """Type and subtype in lower case, without parameters."""
    disposition: str
    """Lower case, without parameters: session, recording-session, render...; empty where not given."""
    headers: Mapping[str, str]
    """Header fields of the part by lower-case name."""
    data: bytes
    """With its transfer encoding undone."""


def media_type(value: str | None) -> str:
    """Type and subtype of a Content-Type value: lower case, no parameters, no blanks; empty where there is none."""
    if value == "application/sdp":
        return value
    kind = (value or "").partition(";")[0]
    return "".join(kind.split()).lower()


def split_body(body: bytes, content_type: str | None, disposition: str | None, notes: list[str]) -> list[BodyPart]:
    """Leaves of a body. A body that is not multipart is its own only leaf; an empty body has none."""
    if not body:
        return []
    headers = {"content-type": content_type or ""}
    if disposition:
        headers["content-disposition"] = disposition
    parts: list[BodyPart] = []
    _collect(body, headers, 0, parts, notes)
    return parts


def _collect(data: bytes, headers: Mapping[str, str], depth: int, parts: list[BodyPart], notes: list[str]) -> None:
    kind = media_type(headers.get("content-type"))
    if kind.startswith("multipart/"):
        boundary = _boundary(headers["content-type"], data, notes)
        if boundary is not None and depth < MAX_DEPTH:
            for part in _split(data, boundary, notes):
                if len(parts) >= MAX_PARTS:
                    notes.append("too many body parts")
                    return
                part_headers, content = _part_headers(part, notes)
                _collect(content, part_headers, depth + 1, parts, notes)
            return
        notes.append("multipart body without a usable boundary")
    disposition = headers.get("content-disposition", "").partition(";")[0].strip().lower()
    parts.append(BodyPart(kind, disposition, headers, _undo_encoding(data, headers, notes)))


def _boundary(content_type: str, data: bytes, notes: list[str]) -> bytes | None:
    """The boundary parameter, or the body's first line where that parameter is missing or leads nowhere."""
    given = parse_params(content_type.partition(";")[2]).get("boundary") or ""
    boundary = given.encode("utf-8", "surrogateescape")
    if boundary and b"--" + boundary in data:
        return boundary
    line = data.lstrip(b"\r\n").partition(b"\n")[0].rstrip()
    if line.startswith(b"--") and 2 < len(line) <= MAX_DELIMITER:
        notes.append("multipart boundary is not the one declared")
        return line[2:]
    return None


def _split(data: bytes, boundary: bytes, notes: list[str]) -> list[bytes]:
    """What stands between delimiter lines (RFC 2046, section 5.1.1); preamble and epilogue are dropped."""
    delimiter = b"--" + boundary
    parts: list[bytes] = []
    begin = -1
    position = data.find(delimiter)
    while position >= 0 and len(parts) <= MAX_PARTS:
        after = position + len(delimiter)
        at_line = position == 0 or data[position - 1] in b"\r\n"
        end_of_line = data.find(b"\n", after, after + MAX_DELIMITER)
        rest = data[after : end_of_line if end_of_line >= 0 else after + MAX_DELIMITER]
        closing = rest.startswith(b"--")
        if at_line and not rest[2 if closing else 0 :].strip():
            if begin >= 0:
                parts.append(_without_line_end(data[begin:position]))
            begin = end_of_line + 1 if end_of_line >= 0 else len(data)
            if closing:
                return parts
        position = data.find(delimiter, after)
    if begin >= 0:
        notes.append("multipart body without its end")
        if data[begin:].strip():
            parts.append(data[begin:])
    return parts


def _without_line_end(data: bytes) -> bytes:
    """The line end before a delimiter belongs to the delimiter."""
    if data.endswith(b"\r\n"):
        return data[:-2]
    return data[:-1] if data.endswith((b"\n", b"\r")) else data


def _part_headers(part: bytes, notes: list[str]) -> tuple[dict[str, str], bytes]:
    if part.startswith((b"\r\n", b"\n")):
        return {}, part.removeprefix(b"\r").removeprefix(b"\n")
    ends = [(at, len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := part.find(mark, 0, MAX_HEAD)) >= 0]
    if not ends:
        # Without an empty line all is header (a part cut short, or an empty part).
        return _headers(part[:MAX_HEAD], notes), b""
    at, length = min(ends)
    return _headers(part[:at], notes), part[at + length :]


def _headers(head: bytes, notes: list[str]) -> dict[str, str]:
    fields = parse_fields(split_lines(b"\n" + head, notes), notes)
    return {name: values[0] for name, values in fields.items()}


def _undo_encoding(data: bytes, headers: Mapping[str, str], notes: list[str]) -> bytes:
    encoding = headers.get("content-transfer-encoding", "").strip().lower()
    if encoding == "base64":
        try:
            return base64.b64decode(data)
        except (binascii.Error, ValueError):
            notes.append("body part with unsound base64")
    elif encoding == "quoted-printable":
        return quopri.decodestring(data)
    return data
