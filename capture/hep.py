"""HEP (Homer Encapsulation Protocol) versions 1, 2 and 3: what a proxy says it sent or received.

In: the octets of one HEP packet, as a UDP datagram or a TCP stream carries it. Out: a `HepPacket`, or the `Refusal`
that says why there is none. It opens nothing, keeps nothing, looks at no clock, unpacks no more than `MOST_PAYLOAD`
octets and never raises.

Version 3 is a list of chunks (HEP3 Network Protocol Specification, section 3). Versions 1 and 2 are a fixed header; its
length octet is not read, because what senders write there differs. The header of version 2 ends with a time in the
sender's byte order, which is little in practice.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum

MOST_PAYLOAD = 65_507
"""Octets of UDP payload that an IPv4 packet carries (RFC 768, RFC 791)."""
HEAD = 6
"""Octets of a HEP3 packet before its chunks: the mark and the length."""
MOST_PACKET = 0xFFFF
"""Octets of a HEP3 packet."""

SIP = 1
RTP = 4
RTCP = 5

_MARK = b"HEP3"
_CHUNK = struct.Struct("!HHH")
_U8 = struct.Struct("!B")
_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")
_FIXED = struct.Struct("!BBBBHH")
_OLD_TIME = 12
"""Octets of HEP2's time: seconds, microseconds, capture id and two octets that align them."""

_PROTOCOL = 0x02
_SOURCE_4, _DESTINATION_4, _SOURCE_6, _DESTINATION_6 = 0x03, 0x04, 0x05, 0x06
_SOURCE_PORT, _DESTINATION_PORT = 0x07, 0x08
_SECONDS, _MICROSECONDS = 0x09, 0x0A
_TYPE = 0x0B
_CAPTURE_ID = 0x0C
_KEY = 0x0E
_PAYLOAD = 0x0F
_PACKED_PAYLOAD = 0x10
_CORRELATION = 0x11
_VLAN = 0x12

_NUMBERS = {
    _PROTOCOL: _U8,
    _SOURCE_PORT: _U16,
    _DESTINATION_PORT: _U16,
    _SECONDS: _U32,
    _MICROSECONDS: _U32,
    _TYPE: _U8,
    _CAPTURE_ID: _U32,
    _VLAN: _U16,
}
_ADDRESSES = {_SOURCE_4: 4, _DESTINATION_4: 4, _SOURCE_6: 16, _DESTINATION_6: 16}

_FAMILY_4 = 2
_FAMILIES_6 = frozenset({10, 23, 24, 26, 28, 30})
"""AF_INET6 of Linux, Windows, the BSDs, Solaris and macOS: senders write what their system has."""

_SECOND = 1_000_000
"""Microseconds."""

Octets = bytes | memoryview


class Refusal(StrEnum):
    """Why a packet gives no frame, as a count of them is read."""

    NOT_HEP = "not HEP"
    MALFORMED = "malformed"
    NO_ENDPOINTS = "without addresses or ports"
    NO_PAYLOAD = "without payload"
    TOO_LARGE = "too large for a datagram"
    BAD_COMPRESSION = "badly compressed"
    RTCP_JSON = "media reports as JSON"
    OTHER_PROTOCOL = "of other protocols"
    UNAUTHORISED = "without the right key"


@dataclass(frozen=True, slots=True)
class HepPacket:
    """One message or packet, and where it was seen. Octet strings may be views of what was parsed."""

    version: int
    source: Octets
    """Address: 4 octets or 16, as those of `destination`."""
    destination: Octets
    source_port: int
    destination_port: int
    payload: Octets
    protocol: int = 17
    """IP protocol; where SIP went over TLS, senders write what they like."""
    time: int | None = None
    """ns since the epoch by the sender's clock; None where it gives none."""
    type: int | None = None
    """What the payload is: SIP, RTP, RTCP or another; None where the sender does not say."""
    capture_id: int = 0
    key: Octets | None = None
    correlation: Octets = b""
    """What ties the packet to others, usually the Call-ID of RTCP."""
    vlan: int = 0
    """VLAN identifier (12 bits), 0 for none."""


def parse_hep(data: Octets) -> HepPacket | Refusal:
    """The packet that begins where `data` does; what follows it is not looked at."""
    if data[:4] == _MARK:
        return _parse_chunks(data)
    if len(data) >= _FIXED.size and data[0] in (1, 2):
        return _parse_fixed(data)
    return Refusal.NOT_HEP


def length_of_hep(head: Octets) -> int | None:
    """Octets of the HEP3 packet that begins with these `HEAD` octets; None where none does."""
    if len(head) < HEAD or head[:4] != _MARK:
        return None
    length: int = _U16.unpack_from(head, 4)[0]
    return length if length >= HEAD else None


def refusal_of(packet: HepPacket) -> Refusal | None:
    """Why this packet is of no use to a recorder; None where it is of use.

    RTP and RTCP are told by their version bits (RFC 3550, section 5.1), because most senders of RTCP send it as JSON.
    """
    if packet.type in (RTP, RTCP):
        return None if packet.payload[0] >> 6 == 2 else Refusal.RTCP_JSON
    return None if packet.type in (None, 0, SIP) else Refusal.OTHER_PROTOCOL


def _parse_chunks(data: Octets) -> HepPacket | Refusal:
    end = length_of_hep(data)
    if end is None or end > len(data):
        return Refusal.MALFORMED
    numbers: dict[int, int] = {}
    strings: dict[int, Octets] = {}
    at = HEAD
    while at < end:
        if end - at < _CHUNK.size:
            return Refusal.MALFORMED
        vendor, kind, length = _CHUNK.unpack_from(data, at)
        if length < _CHUNK.size or length > end - at:
            return Refusal.MALFORMED
        if vendor == 0:
            value = data[at + _CHUNK.size : at + length]
            form = _NUMBERS.get(kind)
            if form is None:
                strings[kind] = value
            elif len(value) == form.size:
                numbers[kind] = form.unpack(value)[0]
            else:
                return Refusal.MALFORMED
        at += length
    return _assemble(numbers, strings)


def _assemble(numbers: dict[int, int], strings: dict[int, Octets]) -> HepPacket | Refusal:
    """The packet that these chunks make."""
    if any(kind in strings and len(strings[kind]) != size for kind, size in _ADDRESSES.items()):
        return Refusal.MALFORMED
    source, destination = strings.get(_SOURCE_4), strings.get(_DESTINATION_4)
    if source is None or destination is None:
        source, destination = strings.get(_SOURCE_6), strings.get(_DESTINATION_6)
    ports = numbers.get(_SOURCE_PORT), numbers.get(_DESTINATION_PORT)
    if source is None or destination is None or ports[0] is None or ports[1] is None:
        return Refusal.NO_ENDPOINTS
    payload: Octets | Refusal = strings.get(_PAYLOAD, b"")
    if not payload and _PACKED_PAYLOAD in strings:
        payload = _unpack(strings[_PACKED_PAYLOAD])
    if isinstance(payload, Refusal):
        return payload
    if not payload:
        return Refusal.NO_PAYLOAD
    if len(payload) > MOST_PAYLOAD:
        return Refusal.TOO_LARGE
    vlan = numbers.get(_VLAN, 0) & 0x0FFF
    return HepPacket(
        version=3,
        source=source,
        destination=destination,
        source_port=ports[0],
        destination_port=ports[1],
        payload=payload,
        protocol=numbers.get(_PROTOCOL, 17),
        time=_time(numbers.get(_SECONDS, 0), numbers.get(_MICROSECONDS, 0)),
        type=numbers.get(_TYPE),
        capture_id=numbers.get(_CAPTURE_ID, 0),
        key=strings.get(_KEY),
        correlation=strings.get(_CORRELATION, b""),
        vlan=0 if vlan == 0x0FFF else vlan,
    )


def _parse_fixed(data: Octets) -> HepPacket | Refusal:
    version, _, family, protocol, source_port, destination_port = _FIXED.unpack_from(data)
    if family != _FAMILY_4 and family not in _FAMILIES_6:
        return Refusal.NOT_HEP
    size = 4 if family == _FAMILY_4 else 16
    at = _FIXED.size + 2 * size
    begin = at + (_OLD_TIME if version == 2 else 0)
    if len(data) < begin:
        return Refusal.MALFORMED
    if len(data) == begin:
        return Refusal.NO_PAYLOAD
    if len(data) - begin > MOST_PAYLOAD:
        return Refusal.TOO_LARGE
    moment, capture_id = _old_time(data[at:begin]) if version == 2 else (None, 0)
    return HepPacket(
        version=version,
        source=data[_FIXED.size : _FIXED.size + size],
        destination=data[_FIXED.size + size : at],
        source_port=source_port,
        destination_port=destination_port,
        payload=data[begin:],
        protocol=protocol,
        time=moment,
        capture_id=capture_id,
    )


def _old_time(octets: Octets) -> tuple[int | None, int]:
    """HEP2's time and capture id, in whichever byte order the microseconds are less than a second."""
    for order in "<>":
        seconds, microseconds, capture_id = struct.unpack_from(f"{order}IIH", octets)
        if microseconds < _SECOND:
            return _time(seconds, microseconds), capture_id
    return None, 0


def _time(seconds: int, microseconds: int) -> int | None:
    """ns since the epoch; None where nobody set a time."""
    if not seconds or microseconds >= _SECOND:
        return None
    return (seconds * _SECOND + microseconds) * 1000


def _unpack(packed: Octets) -> bytes | Refusal:
    """A payload in zlib's or gzip's form, at most one octet more than is allowed."""
    unpacker = zlib.decompressobj(wbits=47)
    try:
        payload = unpacker.decompress(packed, MOST_PAYLOAD + 1)
    except zlib.error:
        return Refusal.BAD_COMPRESSION
    if len(payload) > MOST_PAYLOAD:
        return Refusal.TOO_LARGE
    return payload if unpacker.eof else Refusal.BAD_COMPRESSION
