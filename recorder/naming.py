"""Names of the directories in which recordings stand.

In: URIs as heard on the wire, times as documents have them, identifiers. Out: relative paths of ASCII letters, digits
and `+.-_`, safe on any file system. Never more than LONGEST characters of a participant, never a path separator from
outside.
"""

import re
from functools import lru_cache

LONGEST = 32
"""Characters of a participant's name."""
UNKNOWN = "unknown"

_UNSAFE = re.compile(r"(?:[^A-Za-z0-9+.-]|-)+")
"""Runs of what becomes one dash."""
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "clock$", *(f"{device}{digit}" for device in ("com", "lpt") for digit in range(10))]
)


def directory_name(started: str, caller: str | None, callee: str | None, identifier: str, digits: int = 8) -> str:
    """`YYYY/MM/DD/HHMMSS_<caller>_<callee>_<first digits of the identifier>`, in UTC, relative to the store.

    `started` and `identifier` as a document has them (RFC 3339, Z; UUID); `caller` and `callee` are URIs or None. More
    than eight `digits` tell apart what else would share a name.
    """
    day, _, clock = started.partition("T")
    second = clock[:8].replace(":", "")
    which = identifier.replace("-", "")[:digits]
    return f"{day.replace('-', '/')}/{second}_{safe_name(caller)}_{safe_name(callee)}_{which}"


@lru_cache(maxsize=64)
def user_part(uri: str | None) -> str:
    """The number or user name of a SIP, SIPS or TEL URI (RFC 3261, section 19.1.1; RFC 3966), without parameters and
    password; its host where it has no user; empty where there is neither."""
    if not uri:
        return ""
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme.lower() not in ("sip", "sips", "tel"):
        rest = uri
    user, at, host = rest.rpartition("@")
    if not at:
        return host.partition(";")[0].partition("?")[0].strip("<> ")
    return user.partition(";")[0].partition(":")[0].strip("<> ")


def safe_name(uri: str | None) -> str:
    """The user part of a URI as part of a file name; UNKNOWN where nothing of it can be used."""
    kept = _UNSAFE.sub("-", user_part(uri)[: LONGEST * 4])
    # A leading dot hides, a leading dash reads as an option, Windows drops trailing dots.
    name = kept.strip(".-")[:LONGEST].rstrip(".-")
    if not name:
        return UNKNOWN
    if name.partition(".")[0].lower() in _RESERVED:
        return f"x-{name}"[:LONGEST]
    return name
