"""What the layer kernels share: the cursor's slots, the names of the layers, and readers of network byte order.

A cursor is an int64 array of `SLOTS` elements that stands before the next header of one frame. Each layer kernel takes
(buffer, cursor), checks its header against `END`, and either moves `AT` and names the next `LAYER`, or stops. What has
been found so far (the innermost datagram) stays in the cursor when a deeper header turns out damaged or unknown.
Nothing here allocates, and nothing reads at or beyond `END`.
"""

import numpy as np
from numba import njit

from capture.batch import KIND_NONE, Bytes, Int64

AT = 0
"""Offset of the next header."""
END = 1
"""Offset behind the last captured octet of the payload at hand (padding trimmed)."""
PROMISED = 2
"""Offset behind its last octet as its headers tell; beyond `END` where the snap length cut the frame."""
LAYER = 3
"""One of the LAYER_ values."""
REALM = 4
"""Hash of the identifiers of virtual networks seen so far."""
KIND = 5
"""Of the datagram found so far: its KIND_ value, ..."""
NETWORK = 6
"""... the offset of its IP header, ..."""
VERSION = 7
"""... the version of IP, ..."""
PAYLOAD = 8
"""... its payload, as `DatagramBatch.payload` defines it, ..."""
PAYLOAD_END = 9
"""... where that ends in the buffer, ..."""
PAYLOAD_PROMISED = 10
"""... and where it would end had the frame not been cut; ..."""
PAYLOAD_REALM = 11
"""... its realm."""
SLOTS = 12

LAYER_STOP = 0
LAYER_ETHERNET = 1
LAYER_VLAN = 2
LAYER_LLC = 3
LAYER_MPLS = 4
LAYER_PPPOE = 5
LAYER_PPP = 6
LAYER_IPV4 = 7
LAYER_IPV6 = 8
LAYER_EXTENSION = 9
LAYER_FRAGMENT = 10
LAYER_AUTHENTICATION = 11
LAYER_ESP = 12
LAYER_GRE = 13
LAYER_ETHERIP = 14
LAYER_UDP = 15
LAYER_TCP = 16
LAYER_IP = 17
"""IP of the version that its first four bits name."""

MAX_LAYERS = 32
"""Headers followed in one frame; whoever nests deeper keeps what was found until then."""

PROTOCOL_IPV4 = 4
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_IPV6 = 41


@njit(cache=True, nogil=True)
def octet(buffer: Bytes, at: int) -> int:
    """One octet, wide enough to calculate with."""
    return np.int64(buffer[at])  # type: ignore[return-value]  # a kernel's int is an int64


@njit(cache=True, nogil=True)
def be16(buffer: Bytes, at: int) -> int:
    """Two octets as an unsigned number."""
    return octet(buffer, at) << 8 | octet(buffer, at + 1)


@njit(cache=True, nogil=True)
def be32(buffer: Bytes, at: int) -> int:
    """Four octets as an unsigned number."""
    return be16(buffer, at) << 16 | be16(buffer, at + 2)


@njit(cache=True, nogil=True)
def be64(buffer: Bytes, at: int) -> np.uint64:
    """Eight octets as an unsigned number."""
    return np.uint64(be32(buffer, at)) << np.uint64(32) | np.uint64(be32(buffer, at + 4))


@njit(cache=True, nogil=True)
def start(cursor: Int64, at: int, end: int, promised: int, realm: int) -> None:
    """Stand before a frame, nothing found yet."""
    cursor[:] = 0
    cursor[AT] = at
    cursor[END] = end
    cursor[PROMISED] = promised
    cursor[REALM] = realm
    cursor[KIND] = KIND_NONE
    cursor[PAYLOAD] = at
    cursor[PAYLOAD_END] = at
    cursor[PAYLOAD_PROMISED] = at


@njit(cache=True, nogil=True)
def go(cursor: Int64, layer: int, at: int) -> None:
    """Move on to the header at `at`."""
    cursor[LAYER] = layer
    cursor[AT] = at


@njit(cache=True, nogil=True)
def found(cursor: Int64, kind: int, payload: int) -> None:
    """Note the innermost datagram so far; it reaches from `payload` to the present end."""
    cursor[KIND] = kind
    cursor[PAYLOAD] = payload
    cursor[PAYLOAD_END] = cursor[END]
    cursor[PAYLOAD_PROMISED] = cursor[PROMISED]
    cursor[PAYLOAD_REALM] = cursor[REALM]


@njit(cache=True, nogil=True)
def trim(cursor: Int64, promised: int) -> None:
    """A header says that its payload ends at `promised`: what lies behind is padding, what is not there was cut."""
    cursor[PROMISED] = promised
    cursor[END] = min(cursor[END], promised)


@njit(cache=True, nogil=True)
def realm_of(realm: int, identifier: int) -> int:
    """Realm of the virtual network `identifier` inside `realm`; 32 bits, never 0."""
    mixed = realm ^ identifier
    mixed = ((mixed >> 16 ^ mixed) * 0x45D9F3B) & 0xFFFFFFFF
    mixed = ((mixed >> 16 ^ mixed) * 0x45D9F3B) & 0xFFFFFFFF
    return max(mixed >> 16 ^ mixed, 1)


@njit(cache=True, nogil=True)
def is_ip(buffer: Bytes, at: int, end: int, promised: int) -> bool:
    """Whether a sound IPv4 or IPv6 header stands at `at` that asks for no more than its carrier promises."""
    if end - at < 20:
        return False
    version = octet(buffer, at) >> 4
    if version == 4:
        header = (octet(buffer, at) & 15) * 4
        total = be16(buffer, at + 2)
        return header >= 20 and (total == 0 or header <= total <= promised - at)
    return version == 6 and end - at >= 40 and be16(buffer, at + 4) + 40 <= promised - at
