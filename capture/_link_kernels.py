"""Kernels of the link layers: from the first octet of a frame to the network layer.

Each takes (buffer, cursor) and returns the next layer, as `_layer_cursor` describes. Link types are those of
https://www.tcpdump.org/linktypes.html.
"""

# ruff: noqa: SIM109  # a chain of comparisons runs twice as fast in a kernel as a search in a tuple

from numba import njit

from capture._layer_cursor import (
    AT,
    END,
    LAYER_ETHERNET,
    LAYER_IP,
    LAYER_IPV4,
    LAYER_IPV6,
    LAYER_MPLS,
    LAYER_PPP,
    LAYER_PPPOE,
    LAYER_STOP,
    PROMISED,
    enter_realm,
    is_ip,
    trim,
)
from capture._octets_at import be16, be32, octet
from capture.batch import Bytes, Int64

REALM_VLAN = 1 << 24
"""Keeps the hash of a VLAN apart from that of a VNI of the same number."""

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_BRIDGED = 0x6558
ETHERTYPE_PPP = 0x880B
ETHERTYPE_MPLS = 0x8847
ETHERTYPE_MPLS_UPSTREAM = 0x8848
ETHERTYPE_PPPOE = 0x8864
ETHERTYPE_8021Q = 0x8100
ETHERTYPE_8021AD = 0x88A8
ETHERTYPE_QINQ = 0x9100
"""What came before 802.1ad; as did 0x9200."""
ETHERTYPE_VN_TAG = 0x8926
ETHERTYPE_E_TAG = 0x893F
ETHERTYPE_META_DATA = 0x8909
MAX_LLC_LENGTH = 1500
"""A smaller Ethernet type is the length of an IEEE 802.3 frame with an LLC header."""
MAX_TAGS = 12


@njit(cache=True, nogil=True)
def layer_of_ethertype(ethertype: int) -> int:
    """Layer behind an Ethernet type that is no tag, LAYER_STOP for what we do not follow."""
    layer = LAYER_STOP
    if ethertype == ETHERTYPE_IPV4:
        layer = LAYER_IPV4
    elif ethertype == ETHERTYPE_IPV6:
        layer = LAYER_IPV6
    elif ethertype == ETHERTYPE_MPLS or ethertype == ETHERTYPE_MPLS_UPSTREAM:
        layer = LAYER_MPLS
    elif ethertype == ETHERTYPE_PPPOE:
        layer = LAYER_PPPOE
    elif ethertype == ETHERTYPE_BRIDGED:
        layer = LAYER_ETHERNET
    elif ethertype == ETHERTYPE_PPP:
        layer = LAYER_PPP
    return layer


@njit(cache=True, nogil=True)
def tag_size(ethertype: int) -> int:
    """Octets between this Ethernet type and the next one where it announces a tag, else 0."""
    if (
        ethertype == ETHERTYPE_8021Q
        or ethertype == ETHERTYPE_8021AD
        or ethertype == ETHERTYPE_QINQ
        or ethertype == 0x9200
    ):
        return 2
    if ethertype == ETHERTYPE_VN_TAG:
        return 4
    if ethertype == ETHERTYPE_E_TAG or ethertype == ETHERTYPE_META_DATA:
        return 6
    return 0


@njit(cache=True, nogil=True)
def is_ethernet(buffer: Bytes, at: int, end: int) -> bool:
    """Whether what stands at `at` is likely an Ethernet frame: its type is one that we know, or it holds SNAP."""
    if end - at < 14:
        return False
    ethertype = be16(buffer, at + 12)
    if 0 < ethertype <= MAX_LLC_LENGTH:
        return end - at >= 22 and be32(buffer, at + 14) == 0xAAAA0300
    return layer_of_ethertype(ethertype) != LAYER_STOP or tag_size(ethertype) != 0


@njit(cache=True, nogil=True)
def ethertype_at(buffer: Bytes, cursor: Int64, at: int) -> int:
    """Go on behind the Ethernet type at `at` and behind the tags that it may announce.

    VLAN identifiers (802.1Q, 802.1ad) enter a realm, but VLAN 0 is only a priority: no network of its own. Port
    extender and security group tags are skipped. An LLC header matters where it is SNAP (RFC 1042).
    """
    end = cursor[END]
    for _ in range(MAX_TAGS):
        if end - at < 2:
            return LAYER_STOP
        ethertype = be16(buffer, at)
        tag = tag_size(ethertype)
        if tag != 0:
            if end - at < 4:
                return LAYER_STOP
            identifier = be16(buffer, at + 2) & 0x0FFF
            if tag == 2 and identifier != 0:
                enter_realm(cursor, REALM_VLAN | identifier)
            at += 2 + tag
        elif 0 < ethertype <= MAX_LLC_LENGTH:
            if end - at < 10 or be32(buffer, at + 2) != 0xAAAA0300 or be16(buffer, at + 6) != 0:
                return LAYER_STOP
            at += 8
        else:
            cursor[AT] = at + 2
            return layer_of_ethertype(ethertype)
    return LAYER_STOP


@njit(cache=True, nogil=True)
def mpls(buffer: Bytes, cursor: Int64) -> int:
    """Label stack (RFC 3032), then IP, or Ethernet with or without control word (RFC 4448).

    Labels do not say what they carry: the first four bits do (RFC 4385, section 3).
    """
    at = cursor[AT]
    end = cursor[END]
    bottom = False
    while not bottom:
        if end - at < 4:
            return LAYER_STOP
        bottom = buffer[at + 2] & 1 != 0
        at += 4
    cursor[AT] = at
    if is_ip(buffer, at, end, cursor[PROMISED]):
        return LAYER_IP
    if end - at >= 4 and buffer[at] == 0 and is_ethernet(buffer, at + 4, end):
        cursor[AT] = at + 4
        return LAYER_ETHERNET
    if is_ethernet(buffer, at, end):
        return LAYER_ETHERNET
    return LAYER_STOP


@njit(cache=True, nogil=True)
def pppoe(buffer: Bytes, cursor: Int64) -> int:
    """PPPoE session stage (RFC 2516, section 4)."""
    at = cursor[AT]
    if cursor[END] - at < 6 or be16(buffer, at) != 0x1100:
        return LAYER_STOP
    length = be16(buffer, at + 4)
    if length <= cursor[PROMISED] - at - 6:
        trim(cursor, at + 6 + length)
    cursor[AT] = at + 6
    return LAYER_PPP


@njit(cache=True, nogil=True)
def ppp(buffer: Bytes, cursor: Int64) -> int:
    """PPP with or without address, control and upper protocol octet (RFC 1661, section 6; RFC 1662, section 3.1)."""
    at = cursor[AT]
    end = cursor[END]
    if end - at >= 2 and be16(buffer, at) == 0xFF03:
        at += 2
    if end - at < 2:
        return LAYER_STOP
    protocol = octet(buffer, at)
    at += 1
    if protocol & 1 == 0:
        protocol = be16(buffer, at - 1)
        at += 1
    cursor[AT] = at
    layer = LAYER_STOP
    if protocol == 0x21:
        layer = LAYER_IPV4
    elif protocol == 0x57:
        layer = LAYER_IPV6
    elif protocol == 0x281:
        layer = LAYER_MPLS
    return layer


@njit(cache=True, nogil=True)
def loopback(buffer: Bytes, cursor: Int64) -> int:
    """Address family in either byte order; the number of AF_INET6 depends on the system."""
    at = cursor[AT]
    if cursor[END] - at < 4:
        return LAYER_STOP
    family = be32(buffer, at)
    if family & 0xFFFFFF == 0:
        family >>= 24
    cursor[AT] = at + 4
    if family == 2:
        return LAYER_IPV4
    if family == 10 or family == 23 or family == 24 or family == 28 or family == 30:
        return LAYER_IPV6
    return LAYER_STOP


@njit(cache=True, nogil=True)
def sll2(buffer: Bytes, cursor: Int64) -> int:
    """Linux cooked capture v2: its header begins with the Ethernet type; what a tag holds stands behind the header."""
    at = cursor[AT]
    end = cursor[END]
    if end - at < 20:
        return LAYER_STOP
    ethertype = be16(buffer, at)
    at += 20
    tag = tag_size(ethertype)
    if tag == 0:
        cursor[AT] = at
        return layer_of_ethertype(ethertype)
    if end - at < tag:
        return LAYER_STOP
    if tag == 2 and be16(buffer, at) & 0x0FFF != 0:
        enter_realm(cursor, REALM_VLAN | (be16(buffer, at) & 0x0FFF))
    return ethertype_at(buffer, cursor, at + tag)


@njit(cache=True, nogil=True)
def link(buffer: Bytes, cursor: Int64, link_type: int) -> int:
    """Layer that a frame of this LINKTYPE_ value begins with, the link's own header skipped."""
    at = cursor[AT]
    end = cursor[END]
    layer = LAYER_STOP
    if link_type == 1:
        layer = LAYER_ETHERNET
    elif link_type == 113:
        layer = ethertype_at(buffer, cursor, at + 14)
    elif link_type == 276:
        layer = sll2(buffer, cursor)
    elif link_type == 101 or link_type == 12 or link_type == 14:
        layer = LAYER_IP
    elif link_type == 228:
        layer = LAYER_IPV4
    elif link_type == 229:
        layer = LAYER_IPV6
    elif link_type == 0 or link_type == 108:
        layer = loopback(buffer, cursor)
    elif link_type == 104 or (link_type == 50 and end - at >= 1 and buffer[at] != 0xFF):
        layer = ethertype_at(buffer, cursor, at + 2)
    elif link_type == 9 or link_type == 50:
        layer = LAYER_PPP
    elif link_type == 51:
        layer = LAYER_PPPOE
    return layer
