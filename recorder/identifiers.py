"""Identifiers of calls and of what belongs to them, made from where things stand in a capture.

In: times and packet numbers. Out: UUIDs (RFC 9562, version 5). Never made from a Call-ID, a name or a number:
RFC 7865, section 6.10, wants identifiers that tell nothing about people; and never random, so that a replay of the
same capture gives the same identifiers.
"""

from functools import lru_cache
from hashlib import sha1
from uuid import UUID

NAMESPACE = UUID("6f0a3f4e-5b0c-5c1e-9d6b-2a7e8f1c4d35")
"""Namespace of every identifier that spanrec makes from a capture. Part of the format: never changes."""
_FIXED = 0xF << 76 | 0x3 << 62
"""The bits of a UUID that tell version and variant (RFC 9562, section 4)."""
_VERSION_5 = 0x5 << 76 | 0x2 << 62


def call_uuid(capture_started_ns: int, packet: int, ordinal: int = 0) -> UUID:
    """Identifier of the call whose first packet is frame `packet` (from 1) of its capture.

    `capture_started_ns` is the time of that capture's first packet, `ordinal` tells apart calls that begin in the
    same packet (several SIP messages in one TCP segment).
    """
    return UUID(bytes=_octets5(NAMESPACE.bytes, f"call {capture_started_ns} {packet} {ordinal}"))


def part_uuid(call: UUID, kind: str, ordinal: int) -> UUID:
    """Identifier of part `ordinal` of a call's recording, e.g. of its second participant or third stream.

    `kind` is a word of RFC 7865's data model: session, participant, stream...
    """
    return UUID(bytes=part_octets(call.bytes, kind, ordinal))


def part_octets(call: bytes, kind: str, ordinal: int) -> bytes:
    """The same as the 16 octets of `part_uuid`, from the 16 octets of the call's identifier."""
    return _octets5(call, f"{kind} {ordinal}")


@lru_cache(maxsize=8192)
def _octets5(namespace: bytes, name: str) -> bytes:
    """RFC 9562, section 5.5. The digest identifies, it protects nothing (FIPS builds refuse SHA-1 otherwise).

    Remembered: a call's identifiers are told to a recording server several times, and stand in its documents.
    """
    digest = sha1(namespace + name.encode(), usedforsecurity=False).digest()
    return (int.from_bytes(digest[:16], "big") & ~_FIXED | _VERSION_5).to_bytes(16, "big")
