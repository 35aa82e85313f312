"""Header fields: lines to values, compact forms, lists, parameters (RFC 3261, section 7.3).

In: the text between a start line and the empty line. Out: a dictionary of canonical lower-case names to the values in
their order. Lines that are no header field are skipped and noted. Bounded by MAX_HEADERS and MAX_VALUES. Never raises.
"""

import re

MAX_HEADERS = 1024
"""Header lines of a message that are looked at."""
MAX_VALUES = 256
"""Values of one header field that are told apart."""

COMPACT_FORMS = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
"""Compact forms of RFC 3261 and of the extensions that define one."""

_USUAL = (
    "Via From To Call-ID CSeq Contact Max-Forwards Content-Type Content-Length Content-Disposition User-Agent Server "
    "Allow Supported Require Route Record-Route P-Asserted-Identity Remote-Party-ID Diversion Session-ID "
    "Session-Expires Min-SE Reason Date Expires Subject Accept Privacy Allow-Events MIME-Version RSeq RAck Event "
    "Refer-To Referred-By Replaces Authorization Proxy-Authorization WWW-Authenticate Proxy-Authenticate Timestamp"
)
_CANONICAL = {name: name.lower() for name in _USUAL.split()} | COMPACT_FORMS

_LISTS = (
    "accept accept-contact accept-encoding accept-language alert-info allow allow-events call-info contact "
    "content-encoding content-language diversion error-info history-info in-reply-to p-asserted-identity "
    "p-associated-uri p-preferred-identity path privacy proxy-require reason record-route remote-party-id require "
    "route service-route supported unsupported via warning"
)
LISTS = frozenset(_LISTS.split())
"""Header fields whose grammar is a comma-separated list."""

_FOLD = re.compile(r"\n[ \t]+")
_SPECIAL = {separator: re.compile(rf'[{separator}"<>\\]') for separator in ",;"}
_ESCAPE = re.compile(r"\\(.)")

Fields = dict[str, list[str]]


def split_lines(head: bytes, notes: list[str]) -> list[str]:
    """Lines of a message's head, whatever ends them, unfolded after the first; UTF-8, or Latin-1 for each line that is
    not."""
    head = head.replace(b"\r\n", b"\n")
    if b"\r" in head:
        head = head.replace(b"\r", b"\n")
    if b"\0" in head:
        notes.append("NUL in the header")
        head = head.replace(b"\0", b" ")
    try:
        text = head.decode()
    except UnicodeDecodeError:
        text = "\n".join(_decode_line(line) for line in head.split(b"\n"))
    if "\n " in text or "\n\t" in text:
        # A start line is never folded: what follows it is a header field even where it is indented.
        first, _, rest = text.partition("\n")
        text = f"{first}\n{_FOLD.sub(' ', rest)}"
    return text.split("\n")


def _decode_line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def parse_fields(lines: list[str], notes: list[str]) -> Fields:
    """Header fields of the lines after the start line."""
    canonical = _CANONICAL.get
    if len(lines) > MAX_HEADERS + 1:
        notes.append("too many header lines")
    else:
        try:
            fields = {
                canonical(name) or canonical_name(name): [value.strip()]
                for name, value in [line.split(":", 1) for line in lines[1:]]
            }
        except ValueError:  # a line without a colon
            fields = {}
        if len(fields) == len(lines) - 1:  # so nothing is repeated, as in most messages
            return fields
    fields = {}
    for line in lines[1 : MAX_HEADERS + 1]:
        written, colon, value = line.partition(":")
        if not colon:
            if written.strip() and "header line without a colon" not in notes:
                notes.append("header line without a colon")
            continue
        name = canonical(written) or canonical_name(written)
        values = fields.get(name)
        if values is None:
            fields[name] = [value.strip()]
        elif len(values) < MAX_VALUES:
            values.append(value.strip())
    return fields


def canonical_name(name: str) -> str:
    """Lower case, blanks removed, compact form resolved."""
    name = name.strip().lower()
    return COMPACT_FORMS.get(name, name)


def split_list(value: str) -> list[str]:
    """Items of a comma-separated list, empty ones dropped; commas in quoted strings and angle brackets do not count."""
    if "," not in value:
        return [value] if value else []
    return [stripped for item in _split_outside(value, ",") if (stripped := item.strip())]


def parse_params(text: str) -> dict[str, str | None]:
    """Parameters `;name=value;flag`: names in lower case, quoted values without quotes and escapes; the first of
    equal names counts."""
    params: dict[str, str | None] = {}
    for item in _split_outside(text, ";"):
        name, equals, value = item.partition("=")
        name = name.strip().lower()
        if name and name not in params:
            params[name] = unquote(value.strip()) if equals else None
    return params


def _split_outside(text: str, separator: str) -> list[str]:
    """Text between separators outside of quotes and brackets. Linear in its length for any text, so no pattern that
    looks ahead for a closing quote is used: what is never closed is split again as plain text."""
    if '"' not in text and "<" not in text:
        return text.split(separator, MAX_VALUES)[:MAX_VALUES]
    items: list[str] = []
    begin = opened = 0
    closing = ""
    escaped = -1
    for special in _SPECIAL[separator].finditer(text):
        position, character = special.start(), special[0]
        if position == escaped:
            continue
        if closing:
            if character == closing:
                closing = ""
            elif character == "\\" and closing == '"':
                escaped = position + 1
        elif character == separator:
            items.append(text[begin:position])
            begin = position + 1
        elif character in '"<':
            closing, opened = '"' if character == '"' else ">", position
    if closing:
        head, *tail = text[opened:].split(separator, MAX_VALUES)
        items += [text[begin:opened] + head, *tail]
    else:
        items.append(text[begin:])
    return items[:MAX_VALUES]


def unquote(text: str) -> str:
    """A quoted string without its quotes and escapes (RFC 3261, section 25.1); other text as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    text = text[1:-1]
    return _ESCAPE.sub(r"\1", text) if "\\" in text else text
