"""Kernels of the network and transport layers, and the pass that decodes a whole batch.

`decode` is the only kernel that Python calls. In: a buffer and the columns of a `PacketBatch`. Out: the columns of a
`DatagramBatch`, filled in place. Plain Ethernet, IPv4, UDP is decoded in line; everything else walks the layers with a
cursor, innermost datagram last. It never reads outside a frame's captured octets.
"""

import numpy as np
from numba import njit

from capture._layer_cursor import (
    AT,
    END,
    KIND,
    LAYER,
    LAYER_AUTHENTICATION,
    LAYER_ESP,
    LAYER_ETHERIP,
    LAYER_ETHERNET,
    LAYER_EXTENSION,
    LAYER_FRAGMENT,
    LAYER_GRE,
    LAYER_IP,
    LAYER_IPV4,
    LAYER_IPV6,
    LAYER_LLC,
    LAYER_MPLS,
    LAYER_PPP,
    LAYER_PPPOE,
    LAYER_STOP,
    LAYER_TCP,
    LAYER_UDP,
    LAYER_VLAN,
    MAX_LAYERS,
    NETWORK,
    PAYLOAD,
    PAYLOAD_END,
    PAYLOAD_PROMISED,
    PAYLOAD_REALM,
    PROMISED,
    PROTOCOL_IPV4,
    PROTOCOL_IPV6,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    REALM,
    SLOTS,
    VERSION,
    be16,
    be32,
    be64,
    found,
    go,
    octet,
    start,
    trim,
)
from capture._link_kernels import ethernet, link, llc, mpls, ppp, pppoe, vlan
from capture._tunnel_kernels import esp, etherip, gre, is_tunnel_port, udp_tunnel
from capture.batch import (
    KIND_FRAGMENT,
    KIND_NONE,
    KIND_OTHER,
    KIND_TCP,
    KIND_UDP,
    Bytes,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
)

LINKTYPE_ETHERNET = 1
V4_MAPPED_PREFIX = 0xFFFF << 32
"""Low half of an IPv4-mapped address without its IPv4 bits."""


@njit(cache=True, nogil=True)
def layer_of_protocol(protocol: int, version: int) -> int:
    """Layer behind an IP protocol number, LAYER_STOP for what we do not follow."""
    if protocol == PROTOCOL_UDP:
        return LAYER_UDP
    if protocol == PROTOCOL_TCP:
        return LAYER_TCP
    if protocol == PROTOCOL_IPV4:
        return LAYER_IPV4
    if protocol == PROTOCOL_IPV6:
        return LAYER_IPV6
    if protocol == 47:
        return LAYER_GRE
    if protocol == 50:
        return LAYER_ESP
    if protocol == 51:
        return LAYER_AUTHENTICATION
    if protocol == 97:
        return LAYER_ETHERIP
    if protocol == 137:
        return LAYER_MPLS
    if version == 6:
        if protocol == 44:
            return LAYER_FRAGMENT
        if protocol == 0 or protocol == 43 or protocol == 60 or protocol == 135 or protocol == 139 or protocol == 140:
            return LAYER_EXTENSION
    return LAYER_STOP


@njit(cache=True, nogil=True)
def protocol_at(cursor: Int64, protocol: int, at: int) -> None:
    """Go on with the header of an IP protocol; IP and MPLS in IP are tunnels and leave the realm."""
    layer = layer_of_protocol(protocol, cursor[VERSION])
    if layer in (LAYER_IPV4, LAYER_IPV6, LAYER_MPLS):
        cursor[REALM] = 0
    go(cursor, layer, at)


@njit(cache=True, nogil=True)
def ipv4(buffer: Bytes, cursor: Int64) -> None:
    """IPv4 header (RFC 791, section 3.1). A total length of 0 is segmentation offload: the frame tells the length."""
    at = cursor[AT]
    end = cursor[END]
    go(cursor, LAYER_STOP, at)
    if end - at < 20 or buffer[at] >> 4 != 4:
        return
    header = (octet(buffer, at) & 15) * 4
    total = be16(buffer, at + 2)
    if header < 20 or header > end - at or (total != 0 and total < header):
        return
    if total != 0:
        trim(cursor, at + total)
    cursor[NETWORK] = at
    cursor[VERSION] = 4
    if be16(buffer, at + 6) & 0x3FFF != 0:
        found(cursor, KIND_FRAGMENT, at)
        return
    found(cursor, KIND_OTHER, at + header)
    protocol_at(cursor, octet(buffer, at + 9), at + header)


@njit(cache=True, nogil=True)
def ipv6(buffer: Bytes, cursor: Int64) -> None:
    """IPv6 header (RFC 8200, section 3). A payload length of 0 is a jumbogram or segmentation offload."""
    at = cursor[AT]
    go(cursor, LAYER_STOP, at)
    if cursor[END] - at < 40 or buffer[at] >> 4 != 6:
        return
    length = be16(buffer, at + 4)
    if length != 0:
        trim(cursor, at + 40 + length)
    cursor[NETWORK] = at
    cursor[VERSION] = 6
    found(cursor, KIND_OTHER, at + 40)
    protocol_at(cursor, octet(buffer, at + 6), at + 40)


@njit(cache=True, nogil=True)
def extension(buffer: Bytes, cursor: Int64, unit: int, least: int) -> None:
    """Skip a header of (length + least) * unit octets: IPv6 extensions 8 and 1, the authentication header 4 and 2."""
    at = cursor[AT]
    end = cursor[END]
    go(cursor, LAYER_STOP, at)
    if end - at < 8:
        return
    behind = at + (octet(buffer, at + 1) + least) * unit
    if behind <= end:
        protocol_at(cursor, octet(buffer, at), behind)


@njit(cache=True, nogil=True)
def fragment(buffer: Bytes, cursor: Int64) -> None:
    """IPv6 fragment header (RFC 8200, section 4.5); an atomic fragment (RFC 6946) is whole."""
    at = cursor[AT]
    go(cursor, LAYER_STOP, at)
    if cursor[END] - at < 8:
        return
    if be16(buffer, at + 2) & 0xFFF9 != 0:
        found(cursor, KIND_FRAGMENT, cursor[NETWORK])
    else:
        protocol_at(cursor, octet(buffer, at), at + 8)


@njit(cache=True, nogil=True)
def udp(buffer: Bytes, cursor: Int64) -> None:
    """UDP header (RFC 768). A length that cannot be gives way to what IP says."""
    at = cursor[AT]
    go(cursor, LAYER_STOP, at + 8)
    if cursor[END] - at < 8:
        return
    length = be16(buffer, at + 4)
    if 8 <= length <= cursor[PROMISED] - at:
        trim(cursor, at + length)
    found(cursor, KIND_UDP, at + 8)
    source = be16(buffer, at)
    destination = be16(buffer, at + 2)
    if is_tunnel_port(source, destination):
        udp_tunnel(buffer, cursor, source, destination)


@njit(cache=True, nogil=True)
def tcp(cursor: Int64) -> None:
    """TCP (RFC 9293, section 3.1): a fixed header that is all there makes a segment."""
    at = cursor[AT]
    go(cursor, LAYER_STOP, at)
    if cursor[END] - at >= 20:
        found(cursor, KIND_TCP, at)


@njit(cache=True, nogil=True)
def step(buffer: Bytes, cursor: Int64) -> None:
    """Decode the one header at the cursor."""
    layer = cursor[LAYER]
    if layer == LAYER_IP:
        layer = LAYER_STOP
        if cursor[END] - cursor[AT] >= 1:
            layer = LAYER_IPV4 if buffer[cursor[AT]] >> 4 == 4 else LAYER_IPV6
    if layer == LAYER_IPV4:
        ipv4(buffer, cursor)
    elif layer == LAYER_IPV6:
        ipv6(buffer, cursor)
    elif layer == LAYER_UDP:
        udp(buffer, cursor)
    elif layer == LAYER_TCP:
        tcp(cursor)
    elif layer == LAYER_ETHERNET:
        ethernet(buffer, cursor)
    elif layer == LAYER_VLAN:
        vlan(buffer, cursor)
    elif layer == LAYER_MPLS:
        mpls(buffer, cursor)
    elif layer == LAYER_PPPOE:
        pppoe(buffer, cursor)
    elif layer == LAYER_PPP:
        ppp(buffer, cursor)
    elif layer == LAYER_LLC:
        llc(buffer, cursor)
    elif layer == LAYER_EXTENSION:
        extension(buffer, cursor, 8, 1)
    elif layer == LAYER_AUTHENTICATION:
        extension(buffer, cursor, 4, 2)
    elif layer == LAYER_FRAGMENT:
        fragment(buffer, cursor)
    elif layer == LAYER_GRE:
        gre(buffer, cursor)
    elif layer == LAYER_ESP:
        esp(buffer, cursor)
    elif layer == LAYER_ETHERIP:
        etherip(buffer, cursor)
    else:
        cursor[LAYER] = LAYER_STOP


@njit(cache=True, nogil=True)
def walk(buffer: Bytes, cursor: Int64, link_type: int) -> None:
    """Decode the layers of one frame until nothing is left that we follow."""
    link(buffer, cursor, link_type)
    for _ in range(MAX_LAYERS):
        if cursor[LAYER] == LAYER_STOP:
            return
        step(buffer, cursor)


@njit(cache=True, nogil=True)
def is_plain(buffer: Bytes, at: int, captured: int) -> bool:
    """Whether a frame is the common case: whole Ethernet, IPv4 without options or fragments, UDP, no tunnel's port."""
    if captured < 42 or be32(buffer, at + 12) >> 8 != 0x080045 or buffer[at + 23] != PROTOCOL_UDP:
        return False
    total = be16(buffer, at + 16)
    return (
        be16(buffer, at + 20) & 0x3FFF == 0
        and 28 <= total <= captured - 14
        and be16(buffer, at + 38) == total - 20
        and not is_tunnel_port(be16(buffer, at + 34), be16(buffer, at + 36))
    )


@njit(cache=True, nogil=True)
def decode(
    buffer: Bytes,
    offset: Int64,
    captured: Int32,
    wire: Int32,
    link_type: Int32,
    realm_of_frames: int,
    kind: UInt8,
    payload: Int64,
    length: Int32,
    missing: Int32,
    addresses: UInt64,
    ports: UInt16,
    realm: UInt32,
    ip_id: UInt16,
) -> None:
    """Decode every frame.

    `addresses` is (4, n): high and low half of the source, then of the destination; `ports` is (2, n). All frames
    begin in realm `realm_of_frames`: 0, unless they were rebuilt from fragments.
    """
    mapped = np.uint64(V4_MAPPED_PREFIX)
    cursor = np.zeros(SLOTS, np.int64)
    for i in range(offset.shape[0]):
        at = offset[i]
        size = min(np.int64(captured[i]), buffer.shape[0] - at)
        if at >= 0 and link_type[i] == LINKTYPE_ETHERNET and is_plain(buffer, at, size):
            kind[i] = KIND_UDP
            payload[i] = at + 42
            length[i] = be16(buffer, at + 38) - 8
            missing[i] = 0
            addresses[0, i] = 0
            addresses[1, i] = mapped | np.uint64(be32(buffer, at + 26))
            addresses[2, i] = 0
            addresses[3, i] = mapped | np.uint64(be32(buffer, at + 30))
            ports[0, i] = be16(buffer, at + 34)
            ports[1, i] = be16(buffer, at + 36)
            realm[i] = realm_of_frames
            ip_id[i] = be16(buffer, at + 18)
            continue
        start(cursor, at, at + size, at + max(size, np.int64(wire[i])), realm_of_frames)
        if at >= 0 and size > 0:
            walk(buffer, cursor, np.int64(link_type[i]))
        kind[i] = cursor[KIND]
        begin = cursor[PAYLOAD]
        payload[i] = begin
        length[i] = cursor[PAYLOAD_END] - begin
        missing[i] = cursor[PAYLOAD_PROMISED] - cursor[PAYLOAD_END]
        realm[i] = cursor[PAYLOAD_REALM]
        ports[0, i] = 0
        ports[1, i] = 0
        if cursor[KIND] == KIND_UDP or cursor[KIND] == KIND_TCP:
            header = begin - 8 if cursor[KIND] == KIND_UDP else begin
            ports[0, i] = be16(buffer, header)
            ports[1, i] = be16(buffer, header + 2)
        network = cursor[NETWORK]
        addresses[0, i] = 0
        addresses[1, i] = 0
        addresses[2, i] = 0
        addresses[3, i] = 0
        ip_id[i] = 0
        if cursor[KIND] == KIND_NONE:
            continue
        if cursor[VERSION] == 4:
            addresses[1, i] = mapped | np.uint64(be32(buffer, network + 12))
            addresses[3, i] = mapped | np.uint64(be32(buffer, network + 16))
            ip_id[i] = be16(buffer, network + 4)
        else:
            addresses[0, i] = be64(buffer, network + 8)
            addresses[1, i] = be64(buffer, network + 16)
            addresses[2, i] = be64(buffer, network + 24)
            addresses[3, i] = be64(buffer, network + 32)
