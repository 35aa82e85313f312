"""Start lines: is this SIP, and where does a message begin (RFC 3261, sections 7.1 and 7.2)?

In: octets of a datagram or a stream, or one line of text. Out: a `StartLine`, an offset, or None. Blanks and line ends
in front of a message are skipped (section 7.5), and so are a few octets of junk. Linear in the input. Never raises.
"""

import re
from functools import lru_cache
from typing import NamedTuple

_METHODS = "INVITE ACK BYE CANCEL OPTIONS REGISTER PRACK SUBSCRIBE NOTIFY PUBLISH INFO REFER MESSAGE UPDATE"
METHODS = frozenset(_METHODS.split())
"""Methods of RFC 3261 and of its extensions."""
MAX_JUNK = 64
"""Octets that may stand in front of a datagram's start line."""
MAX_LINE = 8192
"""Octets of a start line."""
_SHORT = 64
"""Octets of a status line that is remembered."""

_METHOD = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]{1,64}")
_VERSION = re.compile(r"SIP/(\d{1,3}\.\d{1,3})", re.IGNORECASE)
_STATUS = re.compile(r"[1-6]\d\d")
_LEADING = b" \t\r\n\0"
_HINT = re.compile(b"SIP/2\\.0 [1-6]|(?:" + b"|".join(sorted(name.encode() for name in METHODS)) + b") ")
_LINE_START = re.compile(
    rb"(?<![^\n])(?:SIP/\d\.\d [1-6]\d\d[ \r\n]|[A-Za-z0-9\-.!%*_+`'~]{1,64} [^\r\n ]{1,8000} SIP/\d\.\d\r?\n)",
    re.IGNORECASE,
)


class StartLine(NamedTuple):
    """Either a request line (method and request_uri) or a status line (status and reason)."""

    version: str
    method: str | None = None
    request_uri: str | None = None
    status: int | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()


def parse_start_line(line: str) -> StartLine | None:
    """The start line in `line` (without its line end), None where it is none."""
    if len(line) <= _SHORT and line.startswith("SIP/2.0 "):
        return _known_line(line)
    if len(line) > MAX_LINE:
        return None
    fields = line.split(" ")
    if len(fields) == 3 and fields[2] == "SIP/2.0" and fields[0] in METHODS and fields[1] and fields[1][0] != "<":
        return StartLine("2.0", fields[0], fields[1])
    return _other_line(line)


def _other_line(line: str) -> StartLine | None:
    """A status line, or a request line that is not of the usual form."""
    words = line.split(None, 2)
    if len(words) < 2:
        return None
    version = _VERSION.fullmatch(words[0])
    if version is None:
        return _request_line(line)
    if not _STATUS.fullmatch(words[1]) or not words[1].isascii():
        return None
    reason = words[2].strip() if len(words) > 2 else ""
    return StartLine(version[1], status=int(words[1]), reason=reason, notes=_version_notes(version[1]))


_known_line = lru_cache(maxsize=256)(_other_line)
"""There are few different status lines."""


def _request_line(line: str) -> StartLine | None:
    """A request line that is not of the usual form: unknown method, extra blanks, brackets, other case."""
    method, rest = line.split(None, 1)
    words = rest.rsplit(None, 1)
    if len(words) < 2 or not _METHOD.fullmatch(method):
        return None
    version = _VERSION.fullmatch(words[1])
    uri = words[0].strip()
    if version is None or not uri:
        return None
    notes = list(_version_notes(version[1]))
    if line != f"{method} {words[0]} SIP/{version[1]}" or uri != words[0]:
        notes.append("start line with extra blanks or odd case")
    if uri.startswith("<") and uri.endswith(">"):
        uri = uri[1:-1]
        notes.append("request URI in angle brackets")
    if len(uri.split(None, 1)) > 1:
        notes.append("blanks in the request URI")
    return StartLine(version[1], method, uri, notes=tuple(notes))


def _version_notes(version: str) -> tuple[str, ...]:
    return () if version == "2.0" else (f"SIP version {version}",)


def looks_like_sip(data: bytes) -> bool:
    """Whether a datagram holds a SIP message, by its first line alone."""
    return find_message(data) is not None


def find_message(data: bytes) -> int | None:
    """Offset of the start line of a datagram; at most MAX_JUNK octets that are no SIP may come first."""
    start = skip_blanks(data)
    if _starts_at(data, start):
        return start
    for hint in _HINT.finditer(data, start, start + MAX_JUNK + 16):
        if start < hint.start() <= start + MAX_JUNK and _starts_at(data, hint.start()):
            return hint.start()
    return None


def skip_blanks(data: bytes | bytearray) -> int:
    """Offset of the first octet, among the first MAX_JUNK, that is no blank, line end or NUL."""
    start = 0
    while start < len(data) and start < MAX_JUNK and data[start] in _LEADING:
        start += 1
    return start


def _starts_at(data: bytes, start: int) -> bool:
    line = data[start : start + MAX_LINE].partition(b"\n")[0].partition(b"\r")[0]
    return parse_start_line(line.decode("latin-1")) is not None


def find_line(data: bytes | bytearray, start: int = 0) -> int:
    """Offset of the first line from `start` on that is a whole and strict start line, -1 where there is none."""
    found = _LINE_START.search(data, start)
    return found.start() if found else -1


def may_become_start(data: bytes | bytearray) -> bool:
    """Whether `data`, a line still without its end, can grow to a start line."""
    if len(data) > MAX_LINE:
        return False
    words = bytes(data[:128]).decode("latin-1").split(" ", 1)
    if "SIP/2.0".startswith(words[0][:7].upper()):
        return True
    return _METHOD.fullmatch(words[0]) is not None
