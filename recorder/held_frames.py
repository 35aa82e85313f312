"""Frames of the last seconds that may turn out to be a call's: TCP segments, and fragments of IP datagrams.

A message is known to be a call's when its last octet is there; what carried the others has passed by then. In: the TCP
and fragment rows of every batch. Out: the same frames as pcapng blocks, found again by connection or datagram. Bounded
in octets and in time: the oldest batches go first.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capture.address import Endpoint
from capture.batch import KIND_FRAGMENT, KIND_UDP, DatagramBatch, Int32, Int64, UInt8, UInt64
from capture.fragments import LINKTYPE_RAW, parse_fragment, whole_packet
from capture.layers import decode_frame
from capture.tcpstreams import endpoints
from recorder.packet_file import blocks_of
from recorder.packet_index import TCP, flow_keys

MAX_OCTETS = 8 << 20
MAX_AGE = 10_000_000_000
"""ns for which a frame is held."""
_WORD = (1 << 64) - 1
_BEGINS = re.compile(rb"SIP/2\.0 |[A-Z]{2,20} (?:sips?|tel):")
_START_OCTETS = 32
_FRAME = 28
"""Octets of a block before its frame."""


class Held(NamedTuple):
    """One frame."""

    place: int
    """Place among all frames."""
    block: memoryview
    begins: bool
    """A message begins at the first octet of its segment."""


class Opening(NamedTuple):
    """The first fragment of a UDP datagram, which alone tells the ports."""

    key: int
    source: Endpoint
    destination: Endpoint
    realm: int
    time: int


@dataclass(frozen=True, slots=True)
class HeldBatch:
    """What is held of one batch: columns of one length."""

    rows: Int64
    keys: UInt64
    """Of the direction of TCP, or of the fragmented datagram; 0 where that cannot be read."""
    places: Int64
    data: Int64
    """Offset of the TCP header, or of the fragment, in the frame."""
    last: int
    """Latest time, ns."""
    octets: UInt8
    begins: Int64
    openings: Sequence[Opening]

    def key_of(self, row: int) -> int:
        """Key of a row of the batch; 0 for one that is not held."""
        place = int(np.searchsorted(self.rows, row))
        return int(self.keys[place]) if place < len(self.rows) and self.rows[place] == row else 0

    def at(self, place: int) -> Held:
        """The frame at a place in the columns."""
        begin, end = self.begins[place : place + 2].tolist()
        block = self.octets.data[begin:end]
        segment = bytes(block[_FRAME + int(self.data[place]) :][: 60 + _START_OCTETS])
        header = (segment[12] >> 4) * 4 if len(segment) > 12 else len(segment)
        return Held(int(self.places[place]), block, _BEGINS.match(segment, header) is not None)


class HeldFrames:
    """The batches of the last seconds."""

    def __init__(self) -> None:
        self._batches: deque[HeldBatch] = deque()
        self._octets = 0

    def add(self, datagrams: DatagramBatch, rows: Int64, first: int, interfaces: Int32, stamps: Int64) -> HeldBatch:
        """Hold `rows` of TCP and fragments of a batch; `first` is the number of its first frame among all of them, and
        `interfaces` are those of its rows."""
        packets = datagrams.packets
        keys, openings = _keys(datagrams, rows)
        octets, begins = blocks_of(packets, rows, interfaces, stamps)
        data = datagrams.payload[rows] - packets.offset[rows]
        held = HeldBatch(rows, keys, rows + first, data, int(packets.time[rows].max()), octets, begins, openings)
        self._batches.append(held)
        self._octets += len(octets)
        while len(self._batches) > 1 and (self._octets > MAX_OCTETS or held.last - self._batches[0].last > MAX_AGE):
            self._octets -= len(self._batches.popleft().octets)
        return held

    def find(self, key: int, first: int, last: int, since: int) -> Iterator[Held]:
        """Frames of a direction or datagram, from place `first` to place `last` among all frames, in order; none of a
        batch that was over at capture time `since`, ns."""
        for batch in self._batches:
            if batch.last >= since and batch.places[-1] >= first and batch.places[0] <= last:
                mine = np.flatnonzero((batch.keys == key) & (batch.places >= first) & (batch.places <= last))
                for at in mine.tolist():
                    yield batch.at(at)


def _keys(datagrams: DatagramBatch, rows: Int64) -> tuple[UInt64, list[Opening]]:
    """Keys of TCP and fragment rows, and the openings among them."""
    source = datagrams.source_high[rows], datagrams.source_low[rows], datagrams.source_port[rows]
    destination = datagrams.destination_high[rows], datagrams.destination_low[rows], datagrams.destination_port[rows]
    keys = flow_keys(TCP, source, destination, datagrams.realm[rows])
    openings: list[Opening] = []
    fragments: NDArray[np.intp] = np.flatnonzero(datagrams.kind[rows] == KIND_FRAGMENT)
    for place in fragments.tolist():
        row = int(rows[place])
        begin, realm = int(datagrams.payload[row]), int(datagrams.realm[row])
        octets = datagrams.packets.buffer[begin : begin + int(datagrams.length[row])].tobytes()
        fragment = parse_fragment(octets, realm, whole=True)
        keys[place] = 0
        if fragment is None:
            continue
        # Even, so that it is no key of a flow.
        keys[place] = key = hash(fragment.key) & _WORD & ~1
        packet = whole_packet(fragment.header, fragment.body) if fragment.offset == 0 else None
        if packet is not None:
            inner = decode_frame(packet, LINKTYPE_RAW, realm=realm)
            if inner.kind[0] == KIND_UDP:
                time = int(datagrams.packets.time[row])
                openings.append(Opening(key, *endpoints(inner, 0), int(inner.realm[0]), time))
    return keys, openings
