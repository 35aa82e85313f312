"""What the layer kernels share: the cursor's slots, the names of the layers, and what they all do.

A cursor is an int64 array of `SLOTS` elements that stands before the next header of one frame. Each layer kernel takes
(buffer, cursor), checks its header against `END`, moves `AT` behind it and returns the layer that comes next, or
LAYER_STOP. What has been found so far (the innermost datagram) stays in the cursor when a deeper header turns out
damaged or unknown. Nothing here allocates, and nothing reads at or beyond `END`.

The kernels are few and take no constants as arguments because every kernel, once more for every constant, costs about
0.1 s when it is first compiled.
"""

from numba import njit

from capture._octets_at import be16, octet
from capture.batch import Bytes, Int64

AT = 0
"""Offset of the next header."""
END = 1
"""Offset behind the last captured octet of the payload at hand (padding trimmed)."""
PROMISED = 2
"""Offset behind its last octet as its headers tell; beyond `END` where the snap length cut the frame."""
REALM = 3
"""Hash of the identifiers of virtual networks seen so far."""
KIND = 4
"""Of the datagram found so far: its KIND_ value, ..."""
NETWORK = 5
"""... the offset of its IP header, ..."""
VERSION = 6
"""... the version of IP, ..."""
PAYLOAD = 7
"""... its payload, as `DatagramBatch.payload` defines it, ..."""
PAYLOAD_END = 8
"""... where that ends in the buffer, ..."""
PAYLOAD_PROMISED = 9
"""... where it would end had the frame not been cut, ..."""
PAYLOAD_REALM = 10
"""... and its realm."""
SLOTS = 11

LAYER_STOP = 0
LAYER_ETHERNET = 1
LAYER_MPLS = 2
LAYER_PPPOE = 3
LAYER_PPP = 4
LAYER_IP = 5
"""IP of the version that its first four bits name."""
LAYER_IPV4 = 6
LAYER_IPV6 = 7
LAYER_EXTENSION = 8
LAYER_AUTHENTICATION = 9
LAYER_FRAGMENT = 10
LAYER_ESP = 11
LAYER_GRE = 12
LAYER_ETHERIP = 13
LAYER_UDP = 14
LAYER_TCP = 15

MAX_LAYERS = 32
"""Headers followed in one frame; whoever nests deeper keeps what was found until then."""

PROTOCOL_IPV4 = 4
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_IPV6 = 41


@njit(cache=True, nogil=True)
def found(cursor: Int64, payload: int) -> None:
    """Note the innermost datagram so far, of the KIND that the cursor has; it reaches from `payload` to the end."""
    cursor[PAYLOAD] = payload
    cursor[PAYLOAD_END] = cursor[END]
    cursor[PAYLOAD_PROMISED] = cursor[PROMISED]
    cursor[PAYLOAD_REALM] = cursor[REALM]


@njit(cache=True, nogil=True)
def trim(cursor: Int64, promised: int) -> None:
    """A header says that its payload ends at `promised`: what lies behind is padding, what is not there was cut."""
    cursor[PROMISED] = promised
    if cursor[END] > promised:
        cursor[END] = promised


@njit(cache=True, nogil=True)
def enter_realm(cursor: Int64, identifier: int) -> None:
    """Go into the virtual network `identifier` of the present realm. A realm has 32 bits and is 0 outside of any."""
    mixed = cursor[REALM] ^ identifier
    mixed = ((mixed >> 16 ^ mixed) * 0x45D9F3B) & 0xFFFFFFFF
    mixed = ((mixed >> 16 ^ mixed) * 0x45D9F3B) & 0xFFFFFFFF
    mixed = mixed >> 16 ^ mixed
    cursor[REALM] = mixed if mixed != 0 else 1


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
