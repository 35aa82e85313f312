"""The second reading: which frames belong to which of the calls that are kept.

In: the captures' batches once more, in the same order, and the `Index` of the first reading. Out: choices, (ordinal of
the frame among all frames, its number, slot of the call), a batch's worth at a time, and `late` ones at the end: IP
fragments and TCP segments whose call only a later frame tells. A frame may belong to several calls.

Of plain TCP a call gets the segments of the direction that carried its message since the message before, that one's
last segment included where the next message begins in it.
"""

import re
from array import array
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from capture.batch import KIND_FRAGMENT, KIND_TCP, KIND_UDP, DatagramBatch, Int32, Int64, PacketBatch, UInt64
from capture.fragments import LINKTYPE_RAW, MAX_AGE, Key, parse_fragment, whole_packet
from capture.layers import decode_frame, decode_layers
from recorder.packet_index import TCP, UDP, Index, KeptCall, flow_keys

CHOICE = np.dtype([("ordinal", "<i8"), ("number", "<i8"), ("slot", "<i4")])
MAX_HELD = 512
"""Segments of a direction that wait for a message's end."""
MAX_HELD_FOR = 10_000_000_000
"""ns before the end of a message that its first segment may lie."""
MAX_GROUPS = 4096
"""Fragmented datagrams that are remembered."""

_BEGINS = re.compile(rb"SIP/2\.0 |[A-Z]{2,20} (?:sips?|tel):")
_START_OCTETS = 32


@dataclass(frozen=True, slots=True)
class _Segment:
    ordinal: int
    number: int
    time: int
    begins: bool
    """A message begins at its first octet."""


@dataclass(slots=True)
class _Group:
    """Fragments of one datagram, and the calls that it belongs to."""

    time: int
    frames: list[tuple[int, int]] = field(default_factory=list)
    slots: set[int] = field(default_factory=set)
    begun: bool = False


class PacketChooser:
    """Goes through the captures a second time."""

    def __init__(self, index: Index) -> None:
        self._claims = index.claims()
        self._log = index.messages()
        self._at = 0
        self._directions: UInt64 = np.unique(self._log["direction"])
        self._calls: dict[int, list[tuple[KeptCall, int]]] = {}
        for slot, call in enumerate(index.calls):
            if call.call_id is not None:
                self._calls.setdefault(call.key, []).append((call, slot))
        self._held: dict[int, list[_Segment]] = {}
        self._groups: OrderedDict[Key, _Group] = OrderedDict()
        self._late = (array("q"), array("q"), array("i"))
        self._next = 0
        """Ordinal of the next frame."""
        self._last = (-1, -1)

    def choose(self, batch: PacketBatch) -> NDArray[np.void]:
        """Choices among the frames of a batch, by ordinal then slot, each once."""
        datagrams = decode_layers(batch)
        ordinals = self._ordinals(batch)
        found = [self._claimed(datagrams, KIND_UDP, UDP), self._claimed(datagrams, KIND_TCP, TCP)]
        self._hold(datagrams, ordinals)
        groups = self._fragments(datagrams, ordinals)
        found.append(self._messages(datagrams, ordinals, groups))
        rows = np.concatenate([row for row, _ in found])
        slots = np.concatenate([slot for _, slot in found])
        choices = np.empty(len(rows), CHOICE)
        choices["ordinal"], choices["number"], choices["slot"] = ordinals[rows], batch.number[rows], slots
        return np.unique(choices)

    def late(self) -> NDArray[np.void]:
        """Choices that only later frames told, of all batches."""
        ordinals, numbers, slots = self._late
        choices = np.empty(len(ordinals), CHOICE)
        choices["ordinal"], choices["number"], choices["slot"] = ordinals, numbers, slots
        return np.unique(choices)

    def _ordinals(self, batch: PacketBatch) -> Int64:
        """Place of each row's frame among all frames; several rows may come of one frame."""
        fresh = np.ones(len(batch), np.bool_)
        fresh[1:] = (batch.number[1:] != batch.number[:-1]) | (batch.capture[1:] != batch.capture[:-1])
        fresh[0] = (int(batch.capture[0]), int(batch.number[0])) != self._last
        self._last = (int(batch.capture[-1]), int(batch.number[-1]))
        ordinals: Int64 = self._next - 1 + np.cumsum(fresh)
        self._next = int(ordinals[-1]) + 1
        return ordinals

    def _claimed(self, datagrams: DatagramBatch, kind: int, protocol: int) -> tuple[Int64, Int32]:
        """Rows of flows that calls claim."""
        rows = np.flatnonzero(datagrams.kind == kind)
        found, slots = self._claims.find(_keys(datagrams, rows, protocol), datagrams.packets.time[rows])
        return rows[found], slots

    def _hold(self, datagrams: DatagramBatch, ordinals: Int64) -> None:
        """Keep the segments of signalling in mind until the message that they carry is known."""
        rows = np.flatnonzero(datagrams.kind == KIND_TCP)
        if len(rows) == 0 or len(self._directions) == 0:
            return
        keys = _keys(datagrams, rows, TCP)
        place = np.minimum(np.searchsorted(self._directions, keys), len(self._directions) - 1)
        ours = self._directions[place] == keys
        packets = datagrams.packets
        for row, key in zip(rows[ours].tolist(), keys[ours].tolist(), strict=True):
            held = self._held.setdefault(key, [])
            begins = _BEGINS.match(_segment_start(datagrams, row)) is not None
            held.append(_Segment(int(ordinals[row]), int(packets.number[row]), int(packets.time[row]), begins))
            if len(held) > MAX_HELD:
                del held[0]

    def _messages(self, datagrams: DatagramBatch, ordinals: Int64, groups: dict[int, _Group]) -> tuple[Int64, Int32]:
        """Rows of the messages that the log has in this batch; what they were carried in becomes late choices."""
        packets = datagrams.packets
        places = _places(packets.capture, packets.number)
        order = np.argsort(places, kind="stable")
        chunk = self._log[self._at : self._at + 2 * len(places)]
        wanted = _places(chunk["capture"], chunk["number"])
        at = np.minimum(np.searchsorted(places[order], wanted), len(places) - 1)
        here = places[order[at]] == wanted
        count = len(here) if here.all() else int(np.argmin(here))
        self._at += count
        rows, slots = [], []
        for row, entry in zip(order[at[:count]].tolist(), chunk[:count].tolist(), strict=True):
            time, ordinal = int(packets.time[row]), int(ordinals[row])
            mine = self._slots(entry[2], time)
            for slot in mine:
                rows.append(row)
                slots.append(slot)
            if row in groups:
                self._join(groups[row], mine)
            if entry[3]:
                self._take(entry[3], ordinal, time, mine)
        return np.array(rows, np.int64), np.array(slots, np.int32)

    def _slots(self, key: int, time: int) -> tuple[int, ...]:
        """The call that a message of this Call-ID and time is of, if its packets are kept."""
        known = self._calls.get(key)
        if not known:
            return ()
        call, slot = next(((c, s) for c, s in reversed(known) if c.started <= time), known[0])
        return (slot,) if time <= call.until else ()

    def _take(self, direction: int, ordinal: int, time: int, slots: Iterable[int]) -> None:
        """A message ended at frame `ordinal`: give its segments to its call."""
        held = self._held.get(direction, [])
        behind = next((i for i, segment in enumerate(held) if segment.ordinal > ordinal), len(held))
        mine = [segment for segment in held[:behind] if segment.time >= time - MAX_HELD_FOR]
        if len(mine) > 1 and mine[1].begins:
            del mine[0]  # the message before ended with it
        for segment in mine:
            self._choose_late(segment.ordinal, segment.number, slots)
        # The last segment stays: the next message may begin in it.
        self._held[direction] = held[max(behind - 1, 0) :]

    def _choose_late(self, ordinal: int, number: int, slots: Iterable[int]) -> None:
        for slot in slots:
            for column, value in zip(self._late, (ordinal, number, slot), strict=True):
                column.append(value)

    def _fragments(self, datagrams: DatagramBatch, ordinals: Int64) -> dict[int, _Group]:
        """Group the fragments of the batch with those before them; the first of each may tell its flow."""
        groups: dict[int, _Group] = {}
        packets = datagrams.packets
        for row in np.flatnonzero(datagrams.kind == KIND_FRAGMENT).tolist():
            begin, realm, time = int(datagrams.payload[row]), int(datagrams.realm[row]), int(packets.time[row])
            data = packets.buffer[begin : begin + int(datagrams.length[row])].tobytes()
            fragment = parse_fragment(data, realm, whole=True)
            if fragment is None:
                continue
            group = self._group(fragment.key, time, first=fragment.offset == 0)
            groups[row] = group
            frame = (int(ordinals[row]), int(packets.number[row]))
            group.frames.append(frame)
            self._choose_late(*frame, group.slots)
            packet = whole_packet(fragment.header, fragment.body) if fragment.offset == 0 else None
            if packet is not None:
                inner = decode_frame(packet, LINKTYPE_RAW, realm=realm)
                inner.packets.time[0] = time
                for kind, protocol in ((KIND_UDP, UDP), (KIND_TCP, TCP)):
                    self._join(group, self._claimed(inner, kind, protocol)[1].tolist())
        return groups

    def _group(self, key: Key, time: int, *, first: bool) -> _Group:
        group = self._groups.get(key)
        if group is None or time - group.time > MAX_AGE or (first and group.begun):
            group = self._groups[key] = _Group(time)
            self._groups.move_to_end(key)
            if len(self._groups) > MAX_GROUPS:
                self._groups.popitem(last=False)
        group.begun |= first
        return group

    def _join(self, group: _Group, slots: Iterable[int]) -> None:
        """A fragmented datagram belongs to these calls."""
        for slot in slots:
            if slot not in group.slots:
                group.slots.add(slot)
                for ordinal, number in group.frames:
                    self._choose_late(ordinal, number, (slot,))


def _places(capture: Int32, number: Int64) -> Int64:
    """Capture and frame number as one number."""
    return capture.astype(np.int64) << 40 | number


def _keys(datagrams: DatagramBatch, rows: Int64, protocol: int) -> UInt64:
    source = datagrams.source_high[rows], datagrams.source_low[rows], datagrams.source_port[rows]
    destination = datagrams.destination_high[rows], datagrams.destination_low[rows], datagrams.destination_port[rows]
    return flow_keys(protocol, source, destination, datagrams.realm[rows])


def _segment_start(datagrams: DatagramBatch, row: int) -> bytes:
    """First octets of a TCP segment's data."""
    begin, length = int(datagrams.payload[row]), int(datagrams.length[row])
    buffer = datagrams.packets.buffer
    header = (int(buffer[begin + 12]) >> 4) * 4 if length > 12 else length
    return buffer[begin + header : begin + min(length, header + _START_OCTETS)].tobytes()
