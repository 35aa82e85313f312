"""What stands around the IP packets of a mirror: VLAN tags and tunnels, counted from the outside.

In: batches of Ethernet frames. Out: VLAN identifiers and frames by kind of tunnel. A look over columns for the doctor,
no dissection: `capture.layers` does that. Reads nothing outside a frame.
"""

from collections import Counter

import numpy as np

from capture.batch import Bytes, Int64, PacketBatch
from capture.interface import LINK_ETHERNET

_TAGS = (0x8100, 0x88A8, 0x9100)
"""Ethertypes of 802.1Q, 802.1ad and what came before it."""
_MOST_TAGS = 3
_IPV4, _IPV6 = 0x0800, 0x86DD
_BY_ETHERTYPE = {0x8847: "MPLS", 0x8848: "MPLS", 0x8864: "PPPoE"}
_BY_PROTOCOL = {4: "IP in IP", 41: "IP in IP", 47: "GRE"}
_BY_PORT = {4789: "VXLAN", 6081: "GENEVE", 2152: "GTP-U", 37008: "TZSP"}
_ERSPAN = (0x88BE, 0x22EB)
_UDP = 17
_DEEPEST = 14 + 4 * _MOST_TAGS + 40 + 4
"""Octets from a frame's beginning that are looked at: tags, the longest fixed IP header, GRE's or UDP's first four."""


class MirrorLayers:
    """Counts over all batches that were added."""

    def __init__(self) -> None:
        self.vlans: set[int] = set()
        self.tunnels: Counter[str] = Counter()

    def add(self, packets: PacketBatch) -> None:
        """Count the Ethernet frames that are long enough to tell; the shortest carry no tunnel anyway."""
        rows = (packets.link_type == LINK_ETHERNET) & (packets.captured >= _DEEPEST)
        start = packets.offset[rows]
        if not len(start):
            return
        buffer = packets.buffer
        at = start + 12
        kind = _word(buffer, at)
        for _ in range(_MOST_TAGS):
            tagged = np.isin(kind, _TAGS)
            if not tagged.any():
                break
            self.vlans.update(np.unique(_word(buffer, at[tagged] + 2) & 0xFFF).tolist())
            at = np.where(tagged, at + 4, at)
            kind = _word(buffer, at)
        for ethertype, name in _BY_ETHERTYPE.items():
            self._count(name, int((kind == ethertype).sum()))
        header = at + 2
        version4, version6 = kind == _IPV4, kind == _IPV6
        self._count_ip(buffer, header[version4], 9, (buffer[header[version4]] & 15).astype(np.int64) * 4)
        self._count_ip(buffer, header[version6], 6, np.full(int(version6.sum()), 40, np.int64))

    def _count_ip(self, buffer: Bytes, header: Int64, protocol_at: int, length: Int64) -> None:
        protocol = buffer[header + protocol_at]
        # A damaged header length must not lead out of the frame.
        inside = header + np.minimum(length, 40)
        for number, name in _BY_PROTOCOL.items():
            found = protocol == number
            if number == 47 and found.any():
                erspan = int(np.isin(_word(buffer, inside[found] + 2), _ERSPAN).sum())
                self._count("ERSPAN", erspan)
                self._count(name, int(found.sum()) - erspan)
            else:
                self._count(name, int(found.sum()))
        ports = _word(buffer, inside[protocol == _UDP] + 2)
        for port, name in _BY_PORT.items():
            self._count(name, int((ports == port).sum()))

    def _count(self, name: str, frames: int) -> None:
        if frames:
            self.tunnels[name] += frames


def _word(buffer: Bytes, at: Int64) -> Int64:
    """The 16-bit numbers at these places."""
    return buffer[at].astype(np.int64) << 8 | buffer[at + 1]
