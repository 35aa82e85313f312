"""Builds capture files octet by octet, independently of the code under test."""

import struct
from dataclasses import dataclass

START = 1_700_000_000 * 10**9


@dataclass(frozen=True)
class Packet:
    time: int
    data: bytes
    wire: int | None = None

    @property
    def length(self) -> int:
        return len(self.data) if self.wire is None else self.wire


def packets(count, size=60, start=START, step=20_000_000, first=0):
    """Packets whose content tells their number and never looks like a record header."""
    return [
        Packet(start + i * step, (b"packet %09d " % (first + i)).ljust(size, b"\xee")[: max(size, 17)])
        for i in range(count)
    ]


def pcap_header(order="<", magic=0xA1B2C3D4, snaplen=262144, link=1):
    return struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snaplen, link)


def pcap_record(packet, order="<", unit=1000, extra=b""):
    seconds, rest = divmod(packet.time, 10**9)
    return struct.pack(f"{order}IIII", seconds, rest // unit, len(packet.data), packet.length) + extra + packet.data


def pcap(items, order="<", magic=0xA1B2C3D4, snaplen=262144, link=1):
    unit = 1 if magic == 0xA1B23C4D else 1000
    extra = b"\x01\0\0\0\x08\0\0\0" if magic == 0xA1B2CD34 else b""
    return pcap_header(order, magic, snaplen, link) + b"".join(pcap_record(p, order, unit, extra) for p in items)


def padded(octets):
    return octets + bytes(-len(octets) % 4)


def block(kind, body, order="<"):
    length = 12 + len(padded(body))
    return struct.pack(f"{order}II", kind, length) + padded(body) + struct.pack(f"{order}I", length)


def section(order="<"):
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def option(code, value, order="<"):
    return struct.pack(f"{order}HH", code, len(value)) + padded(value)


def interface(link=1, snaplen=0, order="<", resolution=None, offset=None):
    options = b""
    if resolution is not None:
        options += option(9, bytes([resolution]), order)
    if offset is not None:
        options += option(14, struct.pack(f"{order}q", offset), order)
    return block(1, struct.pack(f"{order}HHI", link, 0, snaplen) + options + (options and bytes(4)), order)


def enhanced(packet, number=0, order="<", ticks=None):
    ticks = packet.time // 1000 if ticks is None else ticks
    head = struct.pack(f"{order}5I", number, ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), packet.length)
    return block(6, head + packet.data, order)


def obsolete(packet, number=0, order="<"):
    ticks = packet.time // 1000
    head = struct.pack(f"{order}HH4I", number, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), packet.length)
    return block(2, head + packet.data, order)


def simple(data, wire, order="<"):
    return block(3, struct.pack(f"{order}I", wire) + data, order)


def pcapng(items, order="<"):
    return section(order) + interface(order=order) + b"".join(enhanced(p, order=order) for p in items)
