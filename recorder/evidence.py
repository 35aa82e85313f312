"""What an INVITE says of other calls, in headers of the field and of vendors.

In: a message. Out: Call-IDs that it may name, and values that all calls of one conversation share. Only headers whose
name says that they correlate calls are believed. Bounded by MAX_VALUES and the lengths of a sane value.
"""

import re
from collections.abc import Iterable

from decoders.sip import SipMessage

MAX_VALUES = 16
"""Values taken from one message."""
SHORTEST, LONGEST = 6, 256
"""Length of a believable value."""

_NAMING = re.compile(r"call-?id|(?:^|-)cid(?:$|-)|correlat|orig(?:inal)?-?call|linked-?id|parent|bleg|aleg|a-leg|b-leg")
_SHARED = re.compile(r"call-?id|(?:^|-)cid(?:$|-)|correlat|guid|ucid|linked-?id|conversation")
_OWN = frozenset({"call-id", "p-charging-vector"})
_ICID = re.compile(r'icid-value\s*=\s*(?:"([^"]*)"|([^;,\s]+))', re.IGNORECASE)
_SESSION = re.compile(r"[0-9a-f]{32}")
_NIL = "0" * 32


def named_call_ids(message: SipMessage) -> Iterable[tuple[str, bool]]:
    """(Call-ID that an X- or P- header may hold, whether the header's name says that it is one)."""
    count = 0
    for name, values in message.headers.items():
        if not name.startswith(("x-", "p-")) and not _correlating(name):
            continue
        certain = _NAMING.search(name) is not None
        for value in values[:2]:
            candidate = value.partition(";")[0].strip().strip('"<>')
            if SHORTEST <= len(candidate) <= LONGEST and " " not in candidate and count < MAX_VALUES:
                count += 1
                yield candidate, certain


def _correlating(name: str) -> bool:
    return name not in _OWN and ("-" in name) and (name == "in-reply-to" or _SHARED.search(name) is not None)


def correlation_keys(message: SipMessage) -> Iterable[str]:
    """Values that every call of a conversation carries: IMS charging identity (RFC 7315, section 5.6), GUIDs."""
    headers = message.headers
    if "p-charging-vector" in headers:
        found = _ICID.search(headers["p-charging-vector"][0])
        value = (found[1] or found[2] or "") if found else ""
        if SHORTEST <= len(value) <= LONGEST:
            yield f"icid {value}"
    for name, values in headers.items():
        if (name.startswith("x-") or "guid" in name) and _SHARED.search(name) is not None:
            value = values[0].partition(";")[0].strip().strip('"<>')
            if SHORTEST <= len(value) <= LONGEST:
                yield f"{name} {value}"


def session_keys(session_ids: Iterable[str]) -> Iterable[str]:
    """The UUIDs of Session-ID values (RFC 7989, section 5), the nil one left out."""
    for value in session_ids:
        for uuid in _SESSION.findall(value.lower()):
            if uuid != _NIL:
                yield f"session {uuid}"
