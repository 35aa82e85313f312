"""A few seconds of a mirror port, and the figures that tell whether calls can be recorded from it.

In: a `LiveSource`. Out: `MirrorFigures`. Packets are counted and forgotten; the first `EXAMINED` of them are looked at
one by one (copies of the same datagram, both directions of each RTP flow). Records nothing.
"""

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

from capture.address import Endpoint
from capture.batch import KIND_FRAGMENT, KIND_UDP, DatagramBatch, PacketBatch
from capture.interface import LINK_ETHERNET
from capture.layers import decode_layers
from capture.live import LiveSource
from decoders.demux import RTP, SIP, SIP_IGNORED, classify
from recorder.mirror_layers import MirrorLayers

EXAMINED = 200_000
"""Packets looked at one by one: some 2 s of processor time."""
COPY_NS = 50_000_000
"""Copies of a mirrored packet come within a few ms; SIP is sent again after 500 ms (RFC 3261, 17.1.1.2)."""
FLOW_PACKETS = 20
"""From so many packets on an SSRC counts as media: what only looks like RTP does not keep one."""
_MOST_FLOWS = 20_000
_POLL = 0.1
_TAGS_LENGTH = 14 + 3 * 4
"""What Ethernet, with up to three VLAN tags, adds to the MTU."""

Direction = tuple[Endpoint, Endpoint]


@dataclass(frozen=True, slots=True)
class MirrorFigures:
    """What was seen. Counts are of packets unless they say otherwise."""

    seconds: float
    packets: int
    octets: int
    dropped: int
    """That the kernel had no room for."""
    datagrams: int
    """UDP datagrams, those that were looked at one by one."""
    copies: int
    """Of these, that had come less than 50 ms before already."""
    copies_elsewhere: int
    """Of the copies, that came in another VLAN or tunnel than the first."""
    for_others: int
    """Unicast frames that are for another machine: what a mirror is there for."""
    ethernet: int
    fragments: int
    cut: int
    """Shorter than their IP header says."""
    oversized: int
    """Longer than the MTU allows."""
    longest: int
    """Octets."""
    sip_requests: int
    sip_responses: int
    conversations: int
    """Pairs of endpoints that exchange RTP."""
    one_way: tuple[Direction, ...]
    """Of these, those of which only this direction was seen; the first by address."""
    vlans: tuple[int, ...]
    tunnels: dict[str, int]


def watch(source: LiveSource, seconds: float, mtu: int, own_address: bytes) -> MirrorFigures:
    """Look at what comes for so long. `own_address` is the interface's hardware address."""
    sample = MirrorSample(mtu, own_address)
    begun = time.monotonic()
    while (left := begun + seconds - time.monotonic()) > 0:
        packets = source.poll(min(left, _POLL))
        if packets is not None:
            sample.add(packets)
    return sample.figures(time.monotonic() - begun, source.counters().dropped)


class MirrorSample:
    """Figures in the making."""

    def __init__(self, mtu: int, own_address: bytes) -> None:
        self._largest = mtu + _TAGS_LENGTH
        self._own = np.frombuffer(own_address, np.uint8)
        self._layers = MirrorLayers()
        self._count: Counter[str] = Counter()
        self._longest = 0
        self._copies = Copies()
        self._flows: Counter[tuple[Direction, bytes]] = Counter()

    def add(self, packets: PacketBatch) -> None:
        """Count a batch."""
        count = self._count
        datagrams = decode_layers(packets)
        classes = classify(datagrams)
        count["packets"] += len(packets)
        count["octets"] += int(packets.wire.sum())
        count["fragments"] += int((datagrams.kind == KIND_FRAGMENT).sum())
        count["cut"] += int((datagrams.missing > 0).sum())
        count["oversized"] += int((packets.wire > self._largest).sum())
        self._longest = max(self._longest, int(packets.wire.max(initial=0)))
        self._count_receivers(packets)
        self._layers.add(packets)
        for row in np.flatnonzero(datagrams.kind == KIND_UDP).tolist():
            if count["datagrams"] >= EXAMINED:
                return
            count["datagrams"] += 1
            self._examine(datagrams, row, int(classes[row]))

    def figures(self, seconds: float, dropped: int) -> MirrorFigures:
        """What was seen until now."""
        count = self._count
        directions = {direction for (direction, _), packets in self._flows.items() if packets >= FLOW_PACKETS}
        one_way = sorted(direction for direction in directions if direction[::-1] not in directions)
        return MirrorFigures(
            seconds=seconds,
            packets=count["packets"],
            octets=count["octets"],
            dropped=dropped,
            datagrams=count["datagrams"],
            copies=self._copies.found,
            copies_elsewhere=self._copies.elsewhere,
            for_others=count["for_others"],
            ethernet=count["ethernet"],
            fragments=count["fragments"],
            cut=count["cut"],
            oversized=count["oversized"],
            longest=self._longest,
            sip_requests=count["sip_requests"],
            sip_responses=count["sip_responses"],
            conversations=(len(directions) + len(one_way)) // 2,
            one_way=tuple(one_way),
            vlans=tuple(sorted(self._layers.vlans)),
            tunnels=dict(sorted(self._layers.tunnels.items())),
        )

    def _count_receivers(self, packets: PacketBatch) -> None:
        start = packets.offset[(packets.link_type == LINK_ETHERNET) & (packets.captured >= 14)]
        destinations = packets.buffer[start[:, None] + np.arange(6)]
        unicast = destinations[:, 0] & 1 == 0
        ours = (destinations == self._own).all(axis=1)
        self._count["ethernet"] += len(start)
        self._count["for_others"] += int((unicast & ~ours).sum())

    def _examine(self, datagrams: DatagramBatch, row: int, kind: int) -> None:
        at = int(datagrams.payload[row])
        payload = datagrams.packets.buffer[at : at + int(datagrams.length[row])].tobytes()
        source = Endpoint(
            int(datagrams.source_high[row]), int(datagrams.source_low[row]), int(datagrams.source_port[row])
        )
        destination = Endpoint(
            int(datagrams.destination_high[row]),
            int(datagrams.destination_low[row]),
            int(datagrams.destination_port[row]),
        )
        key = hash((source, destination, int(datagrams.ip_id[row]), payload))
        if self._copies.is_copy(key, int(datagrams.packets.time[row]), int(datagrams.realm[row])):
            return
        if kind in (SIP, SIP_IGNORED):
            self._count["sip_responses" if payload.lstrip().startswith(b"SIP/") else "sip_requests"] += 1
        elif kind == RTP and len(self._flows) < _MOST_FLOWS:
            self._flows[(source, destination), payload[8:12]] += 1


class Copies:
    """Remembers datagrams for `COPY_NS` to twice that, and counts those that come again meanwhile."""

    def __init__(self) -> None:
        self.found = 0
        self.elsewhere = 0
        """Of these, with another realm."""
        self._newer: dict[int, tuple[int, int]] = {}
        self._older: dict[int, tuple[int, int]] = {}
        self._turned = 0

    def is_copy(self, key: int, time_ns: int, realm: int) -> bool:
        """Whether the datagram that `key` stands for has just been here."""
        if time_ns - self._turned > COPY_NS:
            self._older, self._newer = self._newer, {}
            self._turned = time_ns
        seen = self._newer.get(key) or self._older.get(key)
        self._newer[key] = time_ns, realm
        if seen is None or time_ns - seen[0] > COPY_NS:
            return False
        self.found += 1
        self.elsewhere += seen[1] != realm
        return True
