"""HEP packets as frames: IP and UDP headers around their payload, so that all that follows need not know of HEP.

In: a `HepPacket` and a buffer. Out: a frame written there, raw IP, or Ethernet where the packet names a VLAN. What was
sent over TCP or TLS becomes UDP too: a HEP packet holds a whole message, which needs no stream. It allocates little and
never writes beyond the frame.
"""

import struct

from capture.hep import HepPacket

LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101
HEADROOM = 18 + 40 + 8
"""Octets that a frame has more than its payload, at most: Ethernet with a tag, IPv6, UDP."""

_UDP = 17
_HOPS = 64
_TAGGED = struct.Struct("!12xHHH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_UDP_HEAD = struct.Struct("!HHHH")
_ETHERTYPE = {4: 0x0800, 16: 0x86DD}
"""By the octets of an address."""


def put_frame(buffer: memoryview, at: int, packet: HepPacket) -> tuple[int, int]:
    """Write the frame of a packet at `at`, where `HEADROOM` and its payload have room: (its octets, its link type)."""
    begin, link_type = at, LINKTYPE_RAW
    if packet.vlan:
        _TAGGED.pack_into(buffer, at, 0x8100, packet.vlan, _ETHERTYPE[len(packet.source)])
        at += _TAGGED.size
        link_type = LINKTYPE_ETHERNET
    source, destination = bytes(packet.source), bytes(packet.destination)
    payload = packet.payload
    length = _UDP_HEAD.size + len(payload)
    if len(source) == 4:
        fields = (0x45, 0, 20 + length, 0, 0x4000, _HOPS, _UDP)
        head = _IPV4.pack(*fields, 0, source, destination)
        _IPV4.pack_into(buffer, at, *fields, _checksum(head), source, destination)
        at += _IPV4.size
        checksum = 0  # none is allowed over IPv4
    else:
        _IPV6.pack_into(buffer, at, 6 << 28, length, _UDP, _HOPS, source, destination)
        at += _IPV6.size
        pseudo = source + destination + struct.pack("!IIHHH", length, _UDP, packet.source_port, 0, length)
        checksum = _checksum(pseudo + packet.destination_port.to_bytes(2, "big") + bytes(payload)) or 0xFFFF
    _UDP_HEAD.pack_into(buffer, at, packet.source_port, packet.destination_port, length, checksum)
    at += _UDP_HEAD.size
    buffer[at : at + len(payload)] = payload
    return at + len(payload) - begin, link_type


def _checksum(octets: bytes) -> int:
    """Internet checksum (RFC 1071): the ones' complement sum of 16-bit words is their value modulo 65535."""
    return 0xFFFF - int.from_bytes(octets + b"\0" * (len(octets) & 1), "big") % 0xFFFF
