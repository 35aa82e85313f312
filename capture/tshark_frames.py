"""What tshark says of a frame, as a frame that the columns can follow.

In: the row of a frame with the fields `FIELDS`. Out: an Ethernet frame around the innermost UDP datagram or TCP segment
that tshark found, with its addresses, ports, sequence numbers and VLANs, so that the engine needs no other way in. What
holds neither gives a frame of no use. Nothing raises on what tshark prints.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

FIELDS = (
    "frame.number", "frame.time_epoch", "frame.len", "frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst",
    "udp.srcport", "udp.dstport", "udp.length", "udp.payload", "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.flags",
    "tcp.len", "tcp.payload", "sctp.srcport", "sctp.dstport", "vlan.id", "vxlan.vni", "geneve.vni", "frame.encap_type",
)  # fmt: skip
"""In the order of a row."""

MAX_DATAGRAM = 65_507
"""Octets of UDP payload that IPv4 can carry."""
ETHERTYPE_NONE = 0x88B5
"""For local experiments: the columns make nothing of it."""
_NETWORKS = ("ip", "ipv6")
_TRANSPORTS = ("udp", "tcp", "sctp")
_ENCRYPTIONS = frozenset({"tls", "dtls"})
_QUOTING = ("icmp", "icmpv6")
"""These show the beginning of another packet, which is no packet of its own."""

_Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Way:
    """Where an innermost packet goes: its addresses, ports and the virtual networks around it."""

    source: _Address
    destination: _Address
    source_port: int
    destination_port: int
    tags: tuple[int, ...]
    """12 bits each, as 802.1Q has them."""


@dataclass(frozen=True, slots=True)
class Dissected:
    """One frame as tshark sees it."""

    number: int
    time: int
    """ns since the epoch."""
    wire: int
    way: Way | None
    """None where it carries no UDP, TCP or SCTP."""
    encrypted: bool
    """TLS or DTLS is in it."""
    frame: bytes
    """Ethernet frame around the innermost packet."""
    missing: int
    """Octets of it that a snap length cut off."""
    encapsulation: int | None
    """Wireshark's number of the link type."""


def dissect(row: Sequence[str]) -> Dissected | None:
    """A row of `FIELDS`; None where it is no row."""
    if len(row) != len(FIELDS):
        return None
    fields = dict(zip(FIELDS, row, strict=True))
    number, time, wire = _integer(fields["frame.number"]), _nanoseconds(fields["frame.time_epoch"]), fields["frame.len"]
    if number is None or time is None:
        return None
    way, transport = _way(fields)
    frame, missing = _NOTHING, 0
    if way is not None and transport == "udp":
        payload, missing = _udp_payload(fields)
        frame = udp_frame(way, payload, missing)
    elif way is not None and transport == "tcp":
        frame, missing = _tcp_frame(way, fields)
    encrypted = not _ENCRYPTIONS.isdisjoint(fields["frame.protocols"].split(":"))
    link = _integer(_last(fields["frame.encap_type"]))
    return Dissected(number, time, _integer(wire) or 0, way, encrypted, frame, missing, link)


def udp_frame(way: Way, payload: bytes, missing: int = 0) -> bytes:
    """An Ethernet frame that carries a UDP datagram; `missing` octets of it are only promised."""
    payload = payload[:MAX_DATAGRAM]
    length = min(8 + len(payload) + missing, 0xFFFF)
    header = struct.pack("!HHHH", way.source_port, way.destination_port, length, 0)
    return _link(way) + _network(way, 17, length) + header + payload


def _tcp_frame(way: Way, fields: dict[str, str]) -> tuple[bytes, int]:
    size = _integer(_last(fields["tcp.len"])) or 0
    payload = _octets(fields["tcp.payload"]) if size else b""
    missing = max(size - len(payload), 0)
    sequence = _integer(_last(fields["tcp.seq_raw"])) or 0
    flags = _integer(_last(fields["tcp.flags"])) or 0
    header = struct.pack(
        "!HHIIHHHH", way.source_port, way.destination_port, sequence & 0xFFFFFFFF, 0, 0x5000 | flags & 0x1FF, 0, 0, 0
    )
    return _link(way) + _network(way, 6, len(header) + size) + header + payload, missing


_NOTHING = bytes(12) + ETHERTYPE_NONE.to_bytes(2, "big")


def _udp_payload(fields: dict[str, str]) -> tuple[bytes, int]:
    size = max((_integer(_last(fields["udp.length"])) or 0) - 8, 0)
    payload = _octets(fields["udp.payload"]) if size else b""
    return payload, max(size - len(payload), 0)


def _way(fields: dict[str, str]) -> tuple[Way | None, str]:
    """Endpoints of the innermost packet, and what its transport is."""
    protocols = fields["frame.protocols"].split(":")
    at = max((i for i, name in enumerate(protocols) if name in _TRANSPORTS), default=-1)
    networks = [i for i, name in enumerate(protocols) if name in _NETWORKS]
    below = [i for i in networks if i < at]
    if at < 0 or not below or networks[-1] > at or any(name in _QUOTING for name in protocols[:at]):
        return None, ""
    inner = below[-1]
    network, transport = protocols[inner], protocols[at]
    source, destination = (_address(_last(fields[f"{network}.{end}"])) for end in ("src", "dst"))
    ports = [_integer(_last(fields[f"{transport}.{end}"])) for end in ("srcport", "dstport")]
    if source is None or destination is None or ports[0] is None or ports[1] is None:
        return None, ""
    outer = below[-2] if len(below) > 1 else -1
    tags = _tags(fields, protocols[outer + 1 : inner])
    return Way(source, destination, ports[0] & 0xFFFF, ports[1] & 0xFFFF, tags), transport


def _tags(fields: dict[str, str], between: Sequence[str]) -> tuple[int, ...]:
    """The virtual networks between the innermost IP and what carries it, as tags of 12 bits."""
    tags: list[int] = []
    for name, where in (("vxlan", "vxlan.vni"), ("geneve", "geneve.vni")):
        identifier = _integer(_last(fields[where])) if name in between else None
        if identifier is not None:
            tags += [identifier >> 12 & 0xFFF, identifier & 0xFFF]
    vlans = sum(name == "vlan" for name in between)
    found = [_integer(value) for value in fields["vlan.id"].split(",")][-vlans:] if vlans else []
    return (*tags, *(value & 0xFFF for value in found if value is not None))


def _link(way: Way) -> bytes:
    ethertype = 0x0800 if way.source.version == 4 else 0x86DD
    return bytes(12) + b"".join(struct.pack("!HH", 0x8100, tag) for tag in way.tags) + ethertype.to_bytes(2, "big")


def _network(way: Way, protocol: int, size: int) -> bytes:
    """IP header of a packet whose transport header and payload have `size` octets."""
    addresses = way.source.packed + way.destination.packed
    if way.source.version == 4:
        return struct.pack("!BBHHHBBH", 0x45, 0, min(20 + size, 0xFFFF), 0, 0, 64, protocol, 0) + addresses
    return struct.pack("!IHBB", 0x60000000, min(size, 0xFFFF), protocol, 64) + addresses


def _last(values: str) -> str:
    """The innermost of several occurrences."""
    return values.rpartition(",")[2]


def _octets(values: str) -> bytes:
    try:
        return bytes.fromhex(_last(values).replace(":", ""))
    except ValueError:
        return b""


def _integer(value: str) -> int | None:
    try:
        return int(value, 0)
    except ValueError:
        return None


def _nanoseconds(value: str) -> int | None:
    """Of a time in seconds with a decimal fraction, exactly."""
    seconds, _, fraction = value.partition(".")
    if not seconds.removeprefix("-").isdecimal() or not (fraction or "0").isdecimal():
        return None
    nanoseconds = int(seconds.removeprefix("-")) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    return -nanoseconds if seconds.startswith("-") else nanoseconds


def _address(value: str) -> _Address | None:
    try:
        return ip_address(value)
    except ValueError:
        return None
