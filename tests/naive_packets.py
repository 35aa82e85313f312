"""Plain twins of how packets are kept: pcapng blocks by struct, claims by looking at every one."""

import struct
from collections.abc import Iterable, Sequence


def enhanced_packets(packets: Iterable[tuple[bytes, int, int, int]]) -> bytes:
    """(octets, time in ns, octets on the wire, interface) as enhanced packet blocks, little-endian."""
    out = b""
    for octets, time, wire, interface in packets:
        total = 32 + (len(octets) + 3) // 4 * 4
        out += struct.pack("<7I", 6, total, interface, time >> 32, time & 0xFFFFFFFF, len(octets), wire)
        out += octets + bytes(-len(octets) % 4) + struct.pack("<I", total)
    return out


def holding(claims: Sequence[tuple[int, int, int, int]], asked: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(place in `asked`, slot) of every claim (key, begin, end, slot) that holds for a (key, time)."""
    found = [
        (place, slot)
        for place, (key, time) in enumerate(asked)
        for known, begin, end, slot in claims
        if known == key and begin <= time <= end
    ]
    return sorted(found)
