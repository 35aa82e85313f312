"""Kernels of the tunnels over IP and UDP.

Each takes (buffer, cursor) and moves the cursor as `_layer_cursor` describes. A tunnel over UDP is followed only if its
header is sound in every bit that its standard fixes and something we know follows: SIP and RTP on such a port stay what
they are. Whoever enters a tunnel leaves the realm of its carrier: which VLAN carried the tunnel says nothing of the
network inside, and often differs between the two directions.
"""

from numba import njit

from capture._layer_cursor import (
    AT,
    END,
    LAYER_ESP,
    LAYER_ETHERNET,
    LAYER_IP,
    LAYER_IPV4,
    LAYER_IPV6,
    LAYER_MPLS,
    LAYER_STOP,
    LAYER_TCP,
    LAYER_UDP,
    PROMISED,
    PROTOCOL_IPV4,
    PROTOCOL_IPV6,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    REALM,
    be16,
    be32,
    go,
    is_ip,
    octet,
    realm_of,
    trim,
)
from capture._link_kernels import ETHERTYPE_BRIDGED, is_ethernet, layer_of_ethertype
from capture.batch import Bytes, Int64

REALM_VNI = 2 << 24
"""Keeps the hash of a VXLAN or GENEVE network identifier apart from that of a VLAN."""

PORT_GTP_USER = 2152
PORT_ESP = 4500
PORT_VXLAN = 4789
PORT_VXLAN_LINUX = 8472
PORT_GENEVE = 6081
PORT_MPLS = 6635
PORT_TZSP = 37008

GRE_CHECKSUM = 0x8000
GRE_ROUTING = 0x4000
GRE_KEY = 0x2000
GRE_SEQUENCE = 0x1000
GRE_ACKNOWLEDGMENT = 0x0080
PROTOCOL_ERSPAN = 0x88BE
PROTOCOL_ERSPAN_III = 0x22EB


@njit(cache=True, nogil=True)
def is_tunnel_port(source: int, destination: int) -> bool:
    """Whether a datagram between these ports may be one of the tunnels over UDP."""
    return destination in (
        PORT_GTP_USER,
        PORT_VXLAN,
        PORT_VXLAN_LINUX,
        PORT_GENEVE,
        PORT_TZSP,
        PORT_ESP,
        PORT_MPLS,
    ) or source in (PORT_GTP_USER, PORT_ESP)


@njit(cache=True, nogil=True)
def vxlan(buffer: Bytes, cursor: Int64) -> None:
    """VXLAN (RFC 7348, section 5), also with a group policy."""
    at = cursor[AT]
    end = cursor[END]
    if end - at < 8 or buffer[at] & 0x7F != 0x08 or buffer[at + 7] != 0 or not is_ethernet(buffer, at + 8, end):
        return
    policy = buffer[at] & 0x80 != 0
    if not policy and be32(buffer, at) & 0xFFFFFF != 0:
        return
    cursor[REALM] = realm_of(0, REALM_VNI | be32(buffer, at + 4) >> 8)
    go(cursor, LAYER_ETHERNET, at + 8)


@njit(cache=True, nogil=True)
def geneve(buffer: Bytes, cursor: Int64) -> None:
    """GENEVE (RFC 8926, section 3.4)."""
    at = cursor[AT]
    end = cursor[END]
    if end - at < 8 or buffer[at] >> 6 != 0 or buffer[at + 1] & 0x3F != 0 or buffer[at + 7] != 0:
        return
    inner = at + 8 + (octet(buffer, at) & 0x3F) * 4
    protocol = be16(buffer, at + 2)
    layer = LAYER_STOP
    if protocol == ETHERTYPE_BRIDGED:
        if is_ethernet(buffer, inner, end):
            layer = LAYER_ETHERNET
    elif is_ip(buffer, inner, end, cursor[PROMISED]):
        layer = layer_of_ethertype(protocol)
    if layer != LAYER_STOP:
        cursor[REALM] = realm_of(0, REALM_VNI | be32(buffer, at + 4) >> 8)
        go(cursor, layer, inner)


@njit(cache=True, nogil=True)
def gtp_user(buffer: Bytes, cursor: Int64) -> None:
    """GTP-U version 1, G-PDU (3GPP TS 29.281, section 5): IP, or Ethernet for Ethernet PDU sessions."""
    at = cursor[AT]
    end = cursor[END]
    if end - at < 8 or buffer[at] & 0xF8 != 0x30 or buffer[at + 1] != 255:
        return
    length = be16(buffer, at + 2)
    if length > cursor[PROMISED] - at - 8:
        return
    inner = at + 8
    if buffer[at] & 7 != 0:
        if end - inner < 4:
            return
        extension = buffer[at] & 4 != 0 and buffer[inner + 3] != 0
        inner += 4
        while extension:
            if end - inner < 4 or buffer[inner] == 0:
                return
            inner += octet(buffer, inner) * 4
            if inner > end:
                return
            extension = buffer[inner - 1] != 0
    promised = at + 8 + length
    layer = LAYER_STOP
    if is_ip(buffer, inner, min(end, promised), promised):
        layer = LAYER_IP
    elif is_ethernet(buffer, inner, min(end, promised)):
        layer = LAYER_ETHERNET
    if layer != LAYER_STOP:
        trim(cursor, promised)
        cursor[REALM] = 0
        go(cursor, layer, inner)


@njit(cache=True, nogil=True)
def tzsp(buffer: Bytes, cursor: Int64) -> None:
    """TaZmen Sniffer Protocol: version 1, a received or transmitted Ethernet frame behind tagged fields."""
    at = cursor[AT]
    end = cursor[END]
    if end - at < 5 or buffer[at] != 1 or buffer[at + 1] > 1 or be16(buffer, at + 2) != 1:
        return
    at += 4
    while end - at >= 2 and buffer[at] != 1:
        if buffer[at] == 0:
            at += 1
        else:
            at += 2 + octet(buffer, at + 1)
    if end - at >= 1 and buffer[at] == 1 and is_ethernet(buffer, at + 1, end):
        cursor[REALM] = 0
        go(cursor, LAYER_ETHERNET, at + 1)


@njit(cache=True, nogil=True)
def udp_tunnel(buffer: Bytes, cursor: Int64, source: int, destination: int) -> None:
    """Enter the tunnel that a UDP payload at the cursor holds, if it holds one; else leave the cursor stopped."""
    if destination in (PORT_VXLAN, PORT_VXLAN_LINUX):
        vxlan(buffer, cursor)
    elif destination == PORT_GENEVE:
        geneve(buffer, cursor)
    elif destination == PORT_TZSP:
        tzsp(buffer, cursor)
    elif destination == PORT_GTP_USER or source == PORT_GTP_USER:
        gtp_user(buffer, cursor)
    elif destination == PORT_MPLS:
        go(cursor, LAYER_MPLS, cursor[AT])
    elif destination == PORT_ESP or source == PORT_ESP:
        go(cursor, LAYER_ESP, cursor[AT])


@njit(cache=True, nogil=True)
def erspan(buffer: Bytes, cursor: Int64, protocol: int, sequenced: bool, at: int) -> None:
    """ERSPAN behind its GRE header: type I has no header, II has 8 octets, III 12 and 8 more where its O bit is set."""
    end = cursor[END]
    version = 0
    if end - at >= 12:
        version = octet(buffer, at) >> 4
    layer = LAYER_ETHERNET
    if protocol == PROTOCOL_ERSPAN:
        if sequenced and version == 1:
            at += 8
    elif version == 2:
        raw_ip = (be16(buffer, at + 10) >> 10 & 0x1F) == 2
        optional = buffer[at + 11] & 1 != 0
        at += 20 if optional else 12
        if raw_ip:
            layer = LAYER_IP
    else:
        layer = LAYER_STOP
    cursor[REALM] = 0
    go(cursor, layer, at)


@njit(cache=True, nogil=True)
def after_routing(buffer: Bytes, at: int, end: int) -> int:
    """Offset behind the source route entries of a GRE header (RFC 1701), `end` where they do not end."""
    for _ in range(16):
        if end - at < 4:
            break
        family = be16(buffer, at)
        length = octet(buffer, at + 3)
        at += 4 + length
        if family == 0 and length == 0:
            return min(at, end)
    return end


@njit(cache=True, nogil=True)
def gre(buffer: Bytes, cursor: Int64) -> None:
    """GRE with any of its optional fields (RFC 1701, 2784, 2890), version 1 with PPP (RFC 2637, section 4.1)."""
    at = cursor[AT]
    end = cursor[END]
    go(cursor, LAYER_STOP, at)
    if end - at < 4:
        return
    flags = be16(buffer, at)
    protocol = be16(buffer, at + 2)
    version = flags & 7
    if version > 1:
        return
    at += 4
    if flags & (GRE_CHECKSUM | GRE_ROUTING) != 0 and version == 0:
        at += 4
    if flags & GRE_KEY != 0:
        at += 4
    if flags & GRE_SEQUENCE != 0:
        at += 4
    if version == 1 and flags & GRE_ACKNOWLEDGMENT != 0:
        at += 4
    if flags & GRE_ROUTING != 0 and version == 0:
        at = after_routing(buffer, at, end)
    if protocol in (PROTOCOL_ERSPAN, PROTOCOL_ERSPAN_III):
        erspan(buffer, cursor, protocol, flags & GRE_SEQUENCE != 0, at)
        return
    cursor[REALM] = 0
    go(cursor, layer_of_ethertype(protocol), at)


@njit(cache=True, nogil=True)
def etherip(buffer: Bytes, cursor: Int64) -> None:
    """EtherIP (RFC 3378): version 3, then an Ethernet frame."""
    at = cursor[AT]
    if cursor[END] - at >= 2 and be16(buffer, at) == 0x3000:
        cursor[REALM] = 0
        go(cursor, LAYER_ETHERNET, at + 2)
    else:
        go(cursor, LAYER_STOP, at)


@njit(cache=True, nogil=True)
def clear_layer(buffer: Bytes, protocol: int, at: int, end: int) -> int:
    """Layer of what ESP carries from `at` to `end` if that is in clear and fits exactly, else LAYER_STOP."""
    if protocol == PROTOCOL_UDP:
        if end - at >= 8 and be16(buffer, at + 4) == end - at:
            return LAYER_UDP
    elif protocol == PROTOCOL_TCP:
        if end - at >= 20:
            header = (octet(buffer, at + 12) >> 4) * 4
            if 20 <= header <= end - at and buffer[at + 12] & 0x0E == 0:
                return LAYER_TCP
    elif protocol == PROTOCOL_IPV4:
        if is_ip(buffer, at, end, end) and buffer[at] >> 4 == 4 and be16(buffer, at + 2) == end - at:
            return LAYER_IPV4
    elif (
        protocol == PROTOCOL_IPV6
        and is_ip(buffer, at, end, end)
        and buffer[at] >> 4 == 6
        and be16(buffer, at + 4) + 40 == end - at
    ):
        return LAYER_IPV6
    return LAYER_STOP


@njit(cache=True, nogil=True)
def is_esp_padding(buffer: Bytes, at: int, end: int) -> bool:
    """Whether the octets from `at` to `end` count 1, 2, 3... (RFC 4303, section 2.4)."""
    k = 0
    while k < end - at and buffer[at + k] == k + 1:
        k += 1
    return k == end - at


@njit(cache=True, nogil=True)
def esp(buffer: Bytes, cursor: Int64) -> None:
    """ESP with NULL encryption (RFC 2410), known by what it holds: nothing on the wire says so.

    The trailer must stand before an integrity check value of 96, 128, 160, 192 or 256 bits, its padding must count up,
    and the next header must fit exactly what is left, which chance passes less than once in a million packets.
    """
    at = cursor[AT] + 8
    end = cursor[END]
    go(cursor, LAYER_STOP, at)
    if end != cursor[PROMISED] or end - at < 8 or be32(buffer, at - 8) == 0:
        return
    for words in range(3, 9):
        trailer = end - words * 4 - 2
        if words == 7 or trailer - at < 8:
            continue
        padding = octet(buffer, trailer)
        inner_end = trailer - padding
        if inner_end - at < 8 or not is_esp_padding(buffer, inner_end, trailer):
            continue
        protocol = octet(buffer, trailer + 1)
        layer = clear_layer(buffer, protocol, at, inner_end)
        if layer != LAYER_STOP:
            trim(cursor, inner_end)
            if layer in (LAYER_IPV4, LAYER_IPV6):
                cursor[REALM] = 0
            go(cursor, layer, at)
            return
