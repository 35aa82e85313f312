"""Kernels of the link layers: from the first octet of a frame to the network layer.

Each takes (buffer, cursor) and moves the cursor as `_layer_cursor` describes. Link types are those of
https://www.tcpdump.org/linktypes.html.
"""

from numba import njit

from capture._layer_cursor import (
    AT,
    END,
    LAYER_ETHERNET,
    LAYER_IP,
    LAYER_IPV4,
    LAYER_IPV6,
    LAYER_LLC,
    LAYER_MPLS,
    LAYER_PPP,
    LAYER_PPPOE,
    LAYER_STOP,
    LAYER_VLAN,
    PROMISED,
    REALM,
    be16,
    go,
    is_ip,
    octet,
    realm_of,
    trim,
)
from capture.batch import Bytes, Int64

REALM_VLAN = 1 << 24
"""Keeps the hash of a VLAN apart from that of a VNI of the same number."""

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_BRIDGED = 0x6558
ETHERTYPE_PPP = 0x880B
ETHERTYPE_VN_TAG = 0x8926
ETHERTYPE_E_TAG = 0x893F
ETHERTYPE_META_DATA = 0x8909
MAX_LLC_LENGTH = 1500
"""A smaller Ethernet type is the length of an IEEE 802.3 frame with an LLC header."""


@njit(cache=True, nogil=True)
def is_vlan(ethertype: int) -> bool:
    """Whether a type announces a VLAN tag: 802.1Q, 802.1ad, and what came before 802.1ad."""
    return ethertype == 0x8100 or ethertype == 0x88A8 or ethertype == 0x9100 or ethertype == 0x9200


@njit(cache=True, nogil=True)
def layer_of_ethertype(ethertype: int) -> int:
    """Layer behind an Ethernet type, LAYER_STOP for what we do not follow."""
    if ethertype == ETHERTYPE_IPV4:
        return LAYER_IPV4
    if ethertype == ETHERTYPE_IPV6:
        return LAYER_IPV6
    if is_vlan(ethertype):
        return LAYER_VLAN
    if ethertype == 0x8847 or ethertype == 0x8848:
        return LAYER_MPLS
    if ethertype == 0x8864:
        return LAYER_PPPOE
    if ethertype == ETHERTYPE_BRIDGED:
        return LAYER_ETHERNET
    if ethertype == ETHERTYPE_PPP:
        return LAYER_PPP
    if 0 < ethertype <= MAX_LLC_LENGTH:
        return LAYER_LLC
    return LAYER_STOP


@njit(cache=True, nogil=True)
def ethertype_at(buffer: Bytes, cursor: Int64, at: int) -> None:
    """Go on behind the Ethernet type at `at`; port extender and security group tags are skipped."""
    for _ in range(4):
        if cursor[END] - at < 2:
            break
        ethertype = be16(buffer, at)
        if ethertype == ETHERTYPE_VN_TAG:
            at += 6
        elif ethertype in (ETHERTYPE_E_TAG, ETHERTYPE_META_DATA):
            at += 8
        else:
            go(cursor, layer_of_ethertype(ethertype), at + 2)
            return
    go(cursor, LAYER_STOP, at)


@njit(cache=True, nogil=True)
def is_ethernet(buffer: Bytes, at: int, end: int) -> bool:
    """Whether what stands at `at` is likely an Ethernet frame: a type that we know and no 802.3 length."""
    if end - at < 14:
        return False
    ethertype = be16(buffer, at + 12)
    return ethertype > MAX_LLC_LENGTH and layer_of_ethertype(ethertype) != LAYER_STOP


@njit(cache=True, nogil=True)
def ethernet(buffer: Bytes, cursor: Int64) -> None:
    """Ethernet II or IEEE 802.3."""
    ethertype_at(buffer, cursor, cursor[AT] + 12)


@njit(cache=True, nogil=True)
def vlan(buffer: Bytes, cursor: Int64) -> None:
    """Tag control information of 802.1Q. VLAN 0 is only a priority: no network of its own."""
    at = cursor[AT]
    if cursor[END] - at < 4:
        go(cursor, LAYER_STOP, at)
        return
    identifier = be16(buffer, at) & 0x0FFF
    if identifier != 0:
        cursor[REALM] = realm_of(cursor[REALM], REALM_VLAN | identifier)
    ethertype_at(buffer, cursor, at + 2)


@njit(cache=True, nogil=True)
def llc(buffer: Bytes, cursor: Int64) -> None:
    """IEEE 802.2 with SNAP (RFC 1042); other service access points carry nothing for us."""
    at = cursor[AT]
    snap = (
        cursor[END] - at >= 8
        and be16(buffer, at) == 0xAAAA
        and buffer[at + 2] == 3
        and be16(buffer, at + 3) == 0
        and buffer[at + 5] == 0
    )
    if snap:
        ethertype_at(buffer, cursor, at + 6)
    else:
        go(cursor, LAYER_STOP, at)


@njit(cache=True, nogil=True)
def mpls(buffer: Bytes, cursor: Int64) -> None:
    """Label stack (RFC 3032), then IP, or Ethernet with or without control word (RFC 4448).

    Labels do not say what they carry: the first four bits do (RFC 4385, section 3).
    """
    at = cursor[AT]
    end = cursor[END]
    bottom = False
    while not bottom and end - at >= 4:
        bottom = buffer[at + 2] & 1 != 0
        at += 4
    layer = LAYER_STOP
    if bottom:
        if is_ip(buffer, at, end, cursor[PROMISED]):
            layer = LAYER_IP
        elif end - at >= 4 and buffer[at] == 0 and is_ethernet(buffer, at + 4, end):
            layer = LAYER_ETHERNET
            at += 4
        elif is_ethernet(buffer, at, end):
            layer = LAYER_ETHERNET
    go(cursor, layer, at)


@njit(cache=True, nogil=True)
def pppoe(buffer: Bytes, cursor: Int64) -> None:
    """PPPoE session stage (RFC 2516, section 4)."""
    at = cursor[AT]
    if cursor[END] - at < 6 or buffer[at] != 0x11 or buffer[at + 1] != 0:
        go(cursor, LAYER_STOP, at)
        return
    length = be16(buffer, at + 4)
    if length <= cursor[PROMISED] - at - 6:
        trim(cursor, at + 6 + length)
    go(cursor, LAYER_PPP, at + 6)


@njit(cache=True, nogil=True)
def ppp(buffer: Bytes, cursor: Int64) -> None:
    """PPP with or without address, control and upper protocol octet (RFC 1661, section 6; RFC 1662, section 3.1)."""
    at = cursor[AT]
    end = cursor[END]
    if end - at >= 2 and be16(buffer, at) == 0xFF03:
        at += 2
    layer = LAYER_STOP
    if end - at >= 2:
        protocol = octet(buffer, at)
        at += 1
        if protocol & 1 == 0:
            protocol = protocol << 8 | octet(buffer, at)
            at += 1
        if protocol == 0x21:
            layer = LAYER_IPV4
        elif protocol == 0x57:
            layer = LAYER_IPV6
        elif protocol == 0x281:
            layer = LAYER_MPLS
    go(cursor, layer, at)


@njit(cache=True, nogil=True)
def cisco_hdlc(buffer: Bytes, cursor: Int64) -> None:
    """Address and control octets, then an Ethernet type."""
    ethertype_at(buffer, cursor, cursor[AT] + 2)


@njit(cache=True, nogil=True)
def loopback(buffer: Bytes, cursor: Int64) -> None:
    """Address family in either byte order; the number of AF_INET6 depends on the system."""
    at = cursor[AT]
    layer = LAYER_STOP
    if cursor[END] - at >= 4:
        little = buffer[at + 2] == 0 and buffer[at + 3] == 0 and buffer[at + 1] == 0
        big = buffer[at] == 0 and buffer[at + 1] == 0 and buffer[at + 2] == 0
        family = 0
        if little:
            family = octet(buffer, at)
        elif big:
            family = octet(buffer, at + 3)
        if family == 2:
            layer = LAYER_IPV4
        elif family == 10 or family == 23 or family == 24 or family == 28 or family == 30:
            layer = LAYER_IPV6
    go(cursor, layer, at + 4)


@njit(cache=True, nogil=True)
def link(buffer: Bytes, cursor: Int64, link_type: int) -> None:
    """Enter a frame of the given LINKTYPE_ value; unknown ones stop at once."""
    at = cursor[AT]
    if link_type == 1:
        go(cursor, LAYER_ETHERNET, at)
    elif link_type == 113:
        ethertype_at(buffer, cursor, at + 14)
    elif link_type == 276:
        if cursor[END] - at >= 20:
            go(cursor, layer_of_ethertype(be16(buffer, at)), at + 20)
    elif link_type == 101 or link_type == 12 or link_type == 14:
        go(cursor, LAYER_IP, at)
    elif link_type == 228:
        go(cursor, LAYER_IPV4, at)
    elif link_type == 229:
        go(cursor, LAYER_IPV6, at)
    elif link_type == 0 or link_type == 108:
        loopback(buffer, cursor)
    elif link_type == 9:
        go(cursor, LAYER_PPP, at)
    elif link_type == 50:
        if cursor[END] - at >= 1 and buffer[at] != 0xFF:
            cisco_hdlc(buffer, cursor)
        else:
            go(cursor, LAYER_PPP, at)
    elif link_type == 51:
        go(cursor, LAYER_PPPOE, at)
    elif link_type == 104:
        cisco_hdlc(buffer, cursor)
