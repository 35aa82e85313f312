"""What an INVITE says of other calls, in headers of the field and of vendors.

In: a message. Out: Call-IDs that it may name, and values that all calls of one conversation share. Only headers whose
name says that they correlate calls are believed. Bounded by MAX_VALUES and the lengths of a sane value.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from decoders.sip import SipMessage

MAX_VALUES = 16
"""Values taken from one message."""
SHORTEST, LONGEST = 6, 256
"""Length of a believable value."""

_NAMING = re.compile(r"call-?id|(?:^|-)cid(?:$|-)|correlat|orig(?:inal)?-?call|linked-?id|parent|bleg|aleg|a-leg|b-leg")
_SHARED = re.compile(r"call-?id|(?:^|-)cid(?:$|-)|correlat|guid|ucid|linked-?id|conversation")
_CHARGING = "p-charging-vector"
_OWN = frozenset({"call-id", _CHARGING, "in-reply-to"})
_ICID = re.compile(r'icid-value\s*=\s*(?:"([^"]*)"|([^;,\s]+))', re.IGNORECASE)
_SESSION = re.compile(r"[0-9a-f]{32}")
_NIL = "0" * 32


class _Use(NamedTuple):
    """What a header field is good for, by its name."""

    may_name: bool
    """A value that is a known Call-ID names that call."""
    names: bool
    """Its values are Call-IDs, known or not yet."""
    shared: bool
    """All calls of a conversation have the same value."""


@lru_cache(maxsize=1024)
def _use(name: str) -> _Use:
    private = name.startswith(("x-", "p-"))
    shared = name not in _OWN and "-" in name and _SHARED.search(name) is not None
    names = (private or shared) and _NAMING.search(name) is not None
    return _Use(private or shared, names, shared and (name.startswith("x-") or "guid" in name))


@lru_cache(maxsize=256)
def _telling(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a message's names of header fields that may say something; a device sends the same ones each time."""
    return tuple(name for name in names if _use(name).may_name or name == _CHARGING)


class Evidence(NamedTuple):
    """What the headers of one message say of other calls."""

    named: list[tuple[str, bool]]
    """(Call-ID that a header may hold, whether the header's name says that it is one)."""
    shared: list[str]
    """Values that every call of the conversation carries."""


def read_evidence(message: SipMessage) -> Evidence:
    """Evidence in vendors' headers, and in the IMS charging identity (RFC 7315, section 5.6)."""
    named: list[tuple[str, bool]] = []
    shared: list[str] = []
    headers = message.headers
    for name in _telling(tuple(headers)):
        values, use = headers[name], _use(name)
        if use.may_name:
            candidates = [value for value in map(_value, values[:2]) if value is not None]
            named += [(value, use.names) for value in candidates if " " not in value]
            if use.shared:
                shared += [f"{name} {value}" for value in candidates[:1]]
        if name == _CHARGING:
            found = _ICID.search(values[0])
            identity = (found[1] or found[2] or "") if found else ""
            if SHORTEST <= len(identity) <= LONGEST:
                shared.append(f"icid {identity}")
    return Evidence(named[:MAX_VALUES], shared[:MAX_VALUES])


def _value(text: str) -> str | None:
    """The bare value of a header, None where its length is not sane."""
    value = text.partition(";")[0].strip().strip('"<>')
    return value if SHORTEST <= len(value) <= LONGEST else None


def session_keys(session_ids: Iterable[str]) -> Iterable[str]:
    """The UUIDs of Session-ID values (RFC 7989, section 5), the nil one left out."""
    for value in session_ids:
        for uuid in _SESSION.findall(value.lower()):
            if uuid != _NIL:
                yield f"session {uuid}"
