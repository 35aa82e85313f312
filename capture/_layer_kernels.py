"""Kernels of the network and transport layers, and the pass that decodes a whole batch.

`decode` is the only kernel that Python calls. In: a buffer and the columns of a `PacketBatch`. Out: the columns of a
`DatagramBatch`, filled in place. Plain Ethernet, IPv4, UDP is decoded in line; everything else walks the layers with a
cursor, innermost datagram last. It never reads outside a frame's captured octets.
"""

# ruff: noqa: SIM109  # a chain of comparisons runs twice as fast in a kernel as a search in a tuple

import numpy as np
from numba import njit

from capture._layer_cursor import (
    AT,
    END,
    KIND,
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
    LAYER_MPLS,
    LAYER_PPP,
    LAYER_PPPOE,
    LAYER_STOP,
    LAYER_TCP,
    LAYER_UDP,
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
    found,
    trim,
)
from capture._link_kernels import ethertype_at, link, mpls, ppp, pppoe
from capture._octets_at import be16, be32, be64, octet
from capture._prefetch import prefetch
from capture._tunnel_kernels import esp, gre, is_tunnel_port, udp_tunnel
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
AHEAD = 12
"""Frames for which the processor is asked to fetch ahead."""
PLAIN = 42
"""Octets of the headers of Ethernet, IPv4 without options and UDP."""
V4_MAPPED_PREFIX = 0xFFFF << 32
"""Low half of an IPv4-mapped address without its IPv4 bits."""


@njit(cache=True, nogil=True)
def protocol_at(cursor: Int64, protocol: int, at: int) -> int:
    """Layer of the IP protocol whose header stands at `at`. IP and MPLS in IP are tunnels and leave the realm."""
    cursor[AT] = at
    layer = LAYER_STOP
    if protocol == PROTOCOL_UDP:
        layer = LAYER_UDP
    elif protocol == PROTOCOL_TCP:
        layer = LAYER_TCP
    elif protocol == 47:
        layer = LAYER_GRE
    elif protocol == 50:
        layer = LAYER_ESP
    elif protocol == 51:
        layer = LAYER_AUTHENTICATION
    elif protocol == 97:
        layer = LAYER_ETHERIP
    elif protocol == PROTOCOL_IPV4 or protocol == PROTOCOL_IPV6 or protocol == 137:
        cursor[REALM] = 0
        layer = LAYER_MPLS if protocol == 137 else LAYER_IPV4 if protocol == PROTOCOL_IPV4 else LAYER_IPV6
    elif cursor[VERSION] == 6:
        if protocol == 44:
            layer = LAYER_FRAGMENT
        elif protocol == 0 or protocol == 43 or protocol == 60 or protocol == 135 or protocol == 139 or protocol == 140:
            layer = LAYER_EXTENSION
    return layer


@njit(cache=True, nogil=True)
def ipv4(buffer: Bytes, cursor: Int64) -> int:
    """IPv4 header (RFC 791, section 3.1). A total length of 0 is segmentation offload: the frame tells the length."""
    at = cursor[AT]
    end = cursor[END]
    if end - at < 20 or buffer[at] >> 4 != 4:
        return LAYER_STOP
    header = (octet(buffer, at) & 15) * 4
    total = be16(buffer, at + 2)
    if header < 20 or header > end - at or (total != 0 and total < header):
        return LAYER_STOP
    if total != 0:
        trim(cursor, at + total)
    cursor[NETWORK] = at
    cursor[VERSION] = 4
    if be16(buffer, at + 6) & 0x3FFF != 0:
        cursor[KIND] = KIND_FRAGMENT
        found(cursor, at)
        return LAYER_STOP
    cursor[KIND] = KIND_OTHER
    found(cursor, at + header)
    return protocol_at(cursor, octet(buffer, at + 9), at + header)


@njit(cache=True, nogil=True)
def ipv6(buffer: Bytes, cursor: Int64) -> int:
    """IPv6 header (RFC 8200, section 3). A payload length of 0 is a jumbogram or segmentation offload."""
    at = cursor[AT]
    if cursor[END] - at < 40 or buffer[at] >> 4 != 6:
        return LAYER_STOP
    length = be16(buffer, at + 4)
    if length != 0:
        trim(cursor, at + 40 + length)
    cursor[NETWORK] = at
    cursor[VERSION] = 6
    cursor[KIND] = KIND_OTHER
    found(cursor, at + 40)
    return protocol_at(cursor, octet(buffer, at + 6), at + 40)


@njit(cache=True, nogil=True)
def extension(buffer: Bytes, cursor: Int64, layer: int) -> int:
    """Skip an IPv6 extension header (RFC 8200, section 4) or an authentication header (RFC 4302, section 2.2).

    An IPv6 fragment header ends the walk unless the fragment is atomic, which is whole (RFC 6946).
    """
    at = cursor[AT]
    end = cursor[END]
    if end - at < 8:
        return LAYER_STOP
    size = 8
    if layer == LAYER_AUTHENTICATION:
        size = (octet(buffer, at + 1) + 2) * 4
    elif layer == LAYER_EXTENSION:
        size = (octet(buffer, at + 1) + 1) * 8
    elif be16(buffer, at + 2) & 0xFFF9 != 0:
        cursor[KIND] = KIND_FRAGMENT
        found(cursor, cursor[NETWORK])
        return LAYER_STOP
    if size > end - at:
        return LAYER_STOP
    return protocol_at(cursor, octet(buffer, at), at + size)


@njit(cache=True, nogil=True)
def udp(buffer: Bytes, cursor: Int64) -> int:
    """UDP header (RFC 768). A length that cannot be gives way to what IP says."""
    at = cursor[AT]
    if cursor[END] - at < 8:
        return LAYER_STOP
    length = be16(buffer, at + 4)
    if 8 <= length <= cursor[PROMISED] - at:
        trim(cursor, at + length)
    cursor[KIND] = KIND_UDP
    found(cursor, at + 8)
    cursor[AT] = at + 8
    return udp_tunnel(buffer, cursor, be16(buffer, at), be16(buffer, at + 2))


@njit(cache=True, nogil=True)
def step(buffer: Bytes, cursor: Int64, layer: int) -> int:
    """Decode the one header at the cursor, of the given layer, and tell the next layer."""
    following = LAYER_STOP
    at = cursor[AT]
    left = cursor[END] - at
    if layer == LAYER_IP and left >= 1:
        layer = LAYER_IPV4 if buffer[at] >> 4 == 4 else LAYER_IPV6
    if layer == LAYER_IPV4:
        following = ipv4(buffer, cursor)
    elif layer == LAYER_IPV6:
        following = ipv6(buffer, cursor)
    elif layer == LAYER_UDP:
        following = udp(buffer, cursor)
    elif layer == LAYER_TCP:
        if left >= 20:
            cursor[KIND] = KIND_TCP
            found(cursor, at)
    elif layer == LAYER_ETHERNET:
        following = ethertype_at(buffer, cursor, at + 12)
    elif layer == LAYER_EXTENSION or layer == LAYER_AUTHENTICATION or layer == LAYER_FRAGMENT:
        following = extension(buffer, cursor, layer)
    elif layer == LAYER_MPLS:
        following = mpls(buffer, cursor)
    elif layer == LAYER_PPPOE:
        following = pppoe(buffer, cursor)
    elif layer == LAYER_PPP:
        following = ppp(buffer, cursor)
    elif layer == LAYER_GRE:
        following = gre(buffer, cursor)
    elif layer == LAYER_ESP:
        following = esp(buffer, cursor)
    elif layer == LAYER_ETHERIP and left >= 2 and be16(buffer, at) == 0x3000:
        cursor[REALM] = 0
        cursor[AT] = at + 2
        following = LAYER_ETHERNET
    return following


@njit(cache=True, nogil=True)
def walk(buffer: Bytes, cursor: Int64, link_type: int) -> None:
    """Decode all layers of the frame at the cursor, of which nothing is known yet."""
    at = cursor[AT]
    cursor[KIND] = KIND_NONE
    cursor[PAYLOAD] = at
    cursor[PAYLOAD_END] = at
    cursor[PAYLOAD_PROMISED] = at
    cursor[PAYLOAD_REALM] = cursor[REALM]
    layer = LAYER_STOP
    if at >= 0 and cursor[END] > at:
        layer = link(buffer, cursor, link_type)
    for _ in range(MAX_LAYERS):
        if layer == LAYER_STOP:
            break
        layer = step(buffer, cursor, layer)


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

    `addresses` is (4, n): high and low half of the source, then of the destination; `ports` is (2, n). These and
    `ip_id` come in as zeros. All frames begin in realm `realm_of_frames`: 0, unless they were rebuilt from fragments.
    """
    cursor = np.zeros(SLOTS, np.int64)
    for i in range(offset.shape[0]):
        at = offset[i]
        if i + AHEAD < offset.shape[0]:
            prefetch(buffer, offset[i + AHEAD])
            prefetch(buffer, offset[i + AHEAD] + PLAIN)
        size = min(np.int64(captured[i]), buffer.shape[0] - at)
        if (
            link_type[i] == LINKTYPE_ETHERNET
            and at >= 0
            and size >= PLAIN
            and be32(buffer, at + 12) >> 8 == 0x080045
            and octet(buffer, at + 23) == PROTOCOL_UDP
            and be16(buffer, at + 20) & 0x3FFF == 0
        ):
            # The common case, which needs no walk: whole Ethernet, IPv4 without options or fragments, UDP, no tunnel.
            total = be16(buffer, at + 16)
            source = be16(buffer, at + 34)
            destination = be16(buffer, at + 36)
            if (
                28 <= total <= size - 14
                and be16(buffer, at + 38) == total - 20
                and not is_tunnel_port(source, destination)
            ):
                kind[i] = KIND_UDP
                payload[i] = at + PLAIN
                length[i] = total - 28
                missing[i] = 0
                realm[i] = realm_of_frames
                ports[0, i] = source
                ports[1, i] = destination
                addresses[1, i] = np.uint64(V4_MAPPED_PREFIX | be32(buffer, at + 26))
                addresses[3, i] = np.uint64(V4_MAPPED_PREFIX | be32(buffer, at + 30))
                ip_id[i] = be16(buffer, at + 18)
                continue
        cursor[AT] = at
        cursor[END] = at + size
        cursor[PROMISED] = at + max(size, np.int64(wire[i]))
        cursor[REALM] = realm_of_frames
        walk(buffer, cursor, np.int64(link_type[i]))
        begin = cursor[PAYLOAD]
        kind[i] = cursor[KIND]
        payload[i] = begin
        length[i] = cursor[PAYLOAD_END] - begin
        missing[i] = cursor[PAYLOAD_PROMISED] - cursor[PAYLOAD_END]
        realm[i] = cursor[PAYLOAD_REALM]
        if cursor[KIND] == KIND_UDP or cursor[KIND] == KIND_TCP:
            header = begin - 8 if cursor[KIND] == KIND_UDP else begin
            ports[0, i] = be16(buffer, header)
            ports[1, i] = be16(buffer, header + 2)
        network = cursor[NETWORK]
        if cursor[KIND] == KIND_NONE:
            continue
        if cursor[VERSION] == 4:
            addresses[1, i] = np.uint64(V4_MAPPED_PREFIX | be32(buffer, network + 12))
            addresses[3, i] = np.uint64(V4_MAPPED_PREFIX | be32(buffer, network + 16))
            ip_id[i] = be16(buffer, network + 4)
        else:
            for k in range(4):
                addresses[k, i] = be64(buffer, network + 8 + 8 * k)
