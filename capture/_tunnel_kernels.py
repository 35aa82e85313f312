"""Kernels of the tunnels over IP and UDP.

Each takes (buffer, cursor) and returns the next layer, as `_layer_cursor` describes. A tunnel over UDP is followed only
if its header is sound in every bit that its standard fixes and something we know follows: SIP and RTP on such a port
stay what they are. Whoever enters a tunnel leaves the realm of its carrier: which VLAN carried the tunnel says nothing
of the network inside, and often differs between the two directions.
"""

# ruff: noqa: SIM109  # a chain of comparisons runs twice as fast in a kernel as a search in a tuple

from capture._kernel_part import kernel_part
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
    enter_realm,
    is_ip,
    trim,
)
from capture._link_kernels import ETHERTYPE_BRIDGED, is_ethernet, layer_of_ethertype
from capture._octets_at import be16, be32, octet
from capture.batch import Bytes, Int64

REALM_VNI = 2 << 24
"""Keeps the hash of a VXLAN or GENEVE network identifier apart from that of a VLAN."""

PORT_GTP_USER = 2152
PORT_ESP = 4500
PORT_VXLAN = 4789
PORT_VXLAN_EXTENDED = 4790
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


@kernel_part
def is_tunnel_port(source: int, destination: int) -> bool:
    """Whether a datagram between these ports may be one of the tunnels over UDP."""
    return (
        (
            destination == PORT_GTP_USER
            or destination == PORT_ESP
            or destination == PORT_VXLAN
            or destination == PORT_VXLAN_EXTENDED
            or destination == PORT_VXLAN_LINUX
            or destination == PORT_GENEVE
            or destination == PORT_MPLS
            or destination == PORT_TZSP
        )
        or source == PORT_GTP_USER
        or source == PORT_ESP
    )


@kernel_part
def vxlan(buffer: Bytes, cursor: Int64) -> int:
    """VXLAN (RFC 7348, section 5), with a group policy (G bit, 16 bits of policy) or a next protocol (P bit) too."""
    at = cursor[AT]
    end = cursor[END]
    if end - at < 8 or buffer[at + 7] != 0:
        return LAYER_STOP
    flags = be32(buffer, at)
    layer = LAYER_STOP
    if flags == 0x08000000 or flags == 0x0C000003 or flags >> 24 == 0x88:
        if is_ethernet(buffer, at + 8, end):
            layer = LAYER_ETHERNET
    elif (flags == 0x0C000001 or flags == 0x0C000002) and is_ip(buffer, at + 8, end, cursor[PROMISED]):
        layer = LAYER_IP
    if layer != LAYER_STOP:
        cursor[REALM] = 0
        enter_realm(cursor, REALM_VNI | be32(buffer, at + 4) >> 8)
        cursor[AT] = at + 8
    return layer


@kernel_part
def geneve(buffer: Bytes, cursor: Int64) -> int:
    """GENEVE (RFC 8926, section 3.4)."""
    at = cursor[AT]
    end = cursor[END]
    if end - at < 8 or buffer[at] >> 6 != 0 or buffer[at + 1] & 0x3F != 0 or buffer[at + 7] != 0:
        return LAYER_STOP
    inner = at + 8 + (octet(buffer, at) & 0x3F) * 4
    protocol = be16(buffer, at + 2)
    layer = layer_of_ethertype(protocol)
    if protocol == ETHERTYPE_BRIDGED:
        sound = is_ethernet(buffer, inner, end)
    else:
        sound = is_ip(buffer, inner, end, cursor[PROMISED])
    if not sound:
        return LAYER_STOP
    cursor[REALM] = 0
    enter_realm(cursor, REALM_VNI | be32(buffer, at + 4) >> 8)
    cursor[AT] = inner
    return layer


@kernel_part
def gtp_user(buffer: Bytes, cursor: Int64) -> int:
    """GTP-U version 1, G-PDU (3GPP TS 29.281, section 5): IP, or Ethernet for Ethernet PDU sessions."""
    at = cursor[AT]
    end = cursor[END]
    if end - at < 8 or be16(buffer, at) & 0xF8FF != 0x30FF:
        return LAYER_STOP
    promised = at + 8 + be16(buffer, at + 2)
    if promised > cursor[PROMISED]:
        return LAYER_STOP
    if end > promised:
        end = promised
    inner = at + 8
    if buffer[at] & 7 != 0:
        if end - inner < 4:
            return LAYER_STOP
        extension = buffer[at] & 4 != 0 and buffer[inner + 3] != 0
        inner += 4
        while extension:
            if end - inner < 4 or buffer[inner] == 0:
                return LAYER_STOP
            inner += octet(buffer, inner) * 4
            if inner > end:
                return LAYER_STOP
            extension = buffer[inner - 1] != 0
    if is_ip(buffer, inner, end, promised):
        layer = LAYER_IP
    elif is_ethernet(buffer, inner, end):
        layer = LAYER_ETHERNET
    else:
        return LAYER_STOP
    trim(cursor, promised)
    cursor[REALM] = 0
    cursor[AT] = inner
    return layer


@kernel_part
def tzsp(buffer: Bytes, cursor: Int64) -> int:
    """TaZmen Sniffer Protocol: version 1, a received or transmitted Ethernet frame behind tagged fields."""
    at = cursor[AT]
    end = cursor[END]
    if end - at < 5 or buffer[at] != 1 or buffer[at + 1] > 1 or be16(buffer, at + 2) != 1:
        return LAYER_STOP
    at += 4
    while end - at >= 2 and buffer[at] != 1:
        if buffer[at] == 0:
            at += 1
        else:
            at += 2 + octet(buffer, at + 1)
    if end - at < 1 or buffer[at] != 1 or not is_ethernet(buffer, at + 1, end):
        return LAYER_STOP
    cursor[REALM] = 0
    cursor[AT] = at + 1
    return LAYER_ETHERNET


@kernel_part
def udp_tunnel(buffer: Bytes, cursor: Int64, source: int, destination: int) -> int:
    """Enter the tunnel that a UDP payload at the cursor holds, if it holds one."""
    layer = LAYER_STOP
    if destination == PORT_VXLAN or destination == PORT_VXLAN_EXTENDED or destination == PORT_VXLAN_LINUX:
        layer = vxlan(buffer, cursor)
    elif destination == PORT_GENEVE:
        layer = geneve(buffer, cursor)
    elif destination == PORT_TZSP:
        layer = tzsp(buffer, cursor)
    elif destination == PORT_GTP_USER or source == PORT_GTP_USER:
        layer = gtp_user(buffer, cursor)
    elif destination == PORT_MPLS:
        cursor[REALM] = 0
        layer = LAYER_MPLS
    elif destination == PORT_ESP or source == PORT_ESP:
        layer = LAYER_ESP
    return layer


@kernel_part
def erspan(buffer: Bytes, cursor: Int64, flags: int, protocol: int) -> int:
    """ERSPAN behind its GRE header: type I has no header, II has 8 octets, III 12 and 8 more where its O bit is set."""
    at = cursor[AT]
    version = 0
    if cursor[END] - at >= 12:
        version = octet(buffer, at) >> 4
    if protocol == PROTOCOL_ERSPAN:
        if flags & GRE_SEQUENCE != 0 and version == 1:
            cursor[AT] = at + 8
        return LAYER_ETHERNET
    if version != 2:
        return LAYER_STOP
    frame_type = be16(buffer, at + 10) >> 10 & 0x1F
    cursor[AT] = at + 12 + (octet(buffer, at + 11) & 1) * 8
    return LAYER_IP if frame_type == 2 else LAYER_ETHERNET


@kernel_part
def gre(buffer: Bytes, cursor: Int64) -> int:
    """GRE with any of its optional fields (RFC 1701, 2784, 2890), version 1 with PPP (RFC 2637, section 4.1)."""
    at = cursor[AT]
    end = cursor[END]
    if end - at < 4 or buffer[at + 1] & 7 > 1:
        return LAYER_STOP
    flags = be16(buffer, at)
    protocol = be16(buffer, at + 2)
    at += 4
    if flags & GRE_KEY != 0:
        at += 4
    if flags & GRE_SEQUENCE != 0:
        at += 4
    if flags & 7 == 1:
        if flags & GRE_ACKNOWLEDGMENT != 0:
            at += 4
    elif flags & (GRE_CHECKSUM | GRE_ROUTING) != 0:
        at += 4
        routing = flags & GRE_ROUTING != 0
        while routing:  # source route entries; the last has family and length 0
            if end - at < 4:
                return LAYER_STOP
            routing = be32(buffer, at) & 0xFFFF00FF != 0
            at += 4 + octet(buffer, at + 3)
    cursor[AT] = at
    cursor[REALM] = 0
    if protocol == PROTOCOL_ERSPAN or protocol == PROTOCOL_ERSPAN_III:
        return erspan(buffer, cursor, flags, protocol)
    return layer_of_ethertype(protocol)


@kernel_part
def clear_layer(buffer: Bytes, protocol: int, at: int, end: int) -> int:
    """Layer of what ESP carries from `at` to `end` if that is in clear and fits exactly, else LAYER_STOP."""
    size = end - at
    if protocol == PROTOCOL_UDP:
        if size >= 8 and be16(buffer, at + 4) == size:
            return LAYER_UDP
    elif protocol == PROTOCOL_TCP:
        if size >= 20 and buffer[at + 12] & 0x0E == 0 and 20 <= (octet(buffer, at + 12) >> 4) * 4 <= size:
            return LAYER_TCP
    elif (protocol == PROTOCOL_IPV4 or protocol == PROTOCOL_IPV6) and is_ip(buffer, at, end, end):
        if protocol == PROTOCOL_IPV4 and buffer[at] >> 4 == 4 and be16(buffer, at + 2) == size:
            return LAYER_IPV4
        if protocol == PROTOCOL_IPV6 and buffer[at] >> 4 == 6 and be16(buffer, at + 4) + 40 == size:
            return LAYER_IPV6
    return LAYER_STOP


@kernel_part
def esp(buffer: Bytes, cursor: Int64) -> int:
    """ESP with NULL encryption (RFC 2410), known by what it holds: nothing on the wire says so.

    The trailer must stand before an integrity check value of 96, 128, 160, 192 or 256 bits, its padding must count up
    1, 2, 3... (RFC 4303, section 2.4), and the next header must fit exactly what is left: chance passes that less than
    once in a million packets.
    """
    at = cursor[AT] + 8
    end = cursor[END]
    if end != cursor[PROMISED] or end - at < 8 or be32(buffer, at - 8) == 0:
        return LAYER_STOP
    for check in (12, 16, 20, 24, 32):
        trailer = end - check - 2
        if trailer - at < 8:
            break
        inner_end = trailer - octet(buffer, trailer)
        if inner_end - at < 8:
            continue
        k = inner_end
        while k < trailer and buffer[k] == k - inner_end + 1:
            k += 1
        if k < trailer:
            continue
        layer = clear_layer(buffer, octet(buffer, trailer + 1), at, inner_end)
        if layer != LAYER_STOP:
            trim(cursor, inner_end)
            if layer == LAYER_IPV4 or layer == LAYER_IPV6:
                cursor[REALM] = 0
            cursor[AT] = at
            return layer
    return LAYER_STOP
