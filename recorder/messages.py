"""SIP messages in packet order, whatever carried them: UDP, IP fragments, TCP or WebSocket.

In: the rows of a batch that are not media. Out: parsed messages with where and when they were seen. Keeps what is
incomplete (fragments, TCP segments, half messages) within the bounds of the reassemblers.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from capture.address import Endpoint
from capture.batch import KIND_FRAGMENT, KIND_TCP, DatagramBatch, Int64, UInt8, UInt16, UInt64
from capture.fragments import FragmentReassembler, Payload
from capture.tcpstreams import Segment, TcpPacket, TcpReassembler
from decoders.demux import SIP
from decoders.sip import SipMessage, parse_message
from decoders.sipstream import SipStream
from recorder.model import Sighting, Transport

MAX_STREAMS = 20_000
"""Directions of TCP whose framing is kept; the one unused for longest goes first."""


class Message(NamedTuple):
    """A SIP message and its sighting."""

    parsed: SipMessage
    seen: Sighting
    data: bytes = b""
    """As it stood on the wire."""


class Found(NamedTuple):
    """Octets of one message before they are parsed."""

    row: int
    """Of the batch, which completed it."""
    data: bytes
    seen: Sighting


Direction = tuple[Endpoint, Endpoint, int]
_found: Callable[[tuple[int, bytes, Sighting]], Found] = partial(tuple.__new__, Found)
_sighting: Callable[[tuple[int, int, int, Endpoint, Endpoint, Transport, int]], Sighting] = partial(
    tuple.__new__, Sighting
)
"""Both of all their fields, without the interpreter: there are two for every message."""


@dataclass(slots=True)
class MessageReader:
    """Puts messages together from the rows of one batch after the other."""

    fragments: FragmentReassembler = field(default_factory=FragmentReassembler)
    tcp: TcpReassembler = field(default_factory=TcpReassembler)
    unsound: int = 0
    """What looked like SIP and was none."""
    incomplete: int = 0
    """Datagrams that began like text and whose other fragments are missing."""
    secure: AbstractSet[tuple[int, int]] = frozenset()
    """(capture, frame number) of messages that were decrypted on their way here."""
    _streams: "OrderedDict[Direction, SipStream]" = field(default_factory=OrderedDict)
    _place: tuple[int, int] = (0, 0)
    """Capture and frame number of the last row, for what the end of the capture brings forth."""

    def find(self, datagrams: DatagramBatch, kinds: UInt8, rows: Int64) -> list[Found]:
        """What the signalling `rows` (ascending) of a batch complete, in order.

        To be called for every batch, once: the time of any packet may end the wait for a missing TCP segment.
        """
        carried = datagrams.kind[rows]
        found: list[Found] = list(self._datagrams(datagrams, rows[kinds[rows] == SIP]))
        fragments = rows[carried == KIND_FRAGMENT]
        rebuilt: list[TcpPacket] = []
        if len(fragments):
            for piece in self.fragments.feed(datagrams, fragments):
                if isinstance(piece, Payload):
                    found.append(self._rebuilt(datagrams, piece))
                else:
                    rebuilt.append(piece)
        segments = rows[carried == KIND_TCP]
        packets = datagrams.packets
        for segment in self.tcp.feed(datagrams, segments, rebuilt):
            row = segment.packet
            found.extend(self._frame(segment, row, int(packets.number[row]), int(packets.capture[row])))
        self._place = (int(packets.capture[-1]), int(packets.number[-1]))
        found.sort(key=lambda f: f.row)
        self.incomplete += len(self.fragments.take_incomplete())
        return found

    def finish(self) -> Iterator[Message]:
        """Messages that wait for octets that will not come."""
        capture, number = self._place
        found: list[Found] = []
        for segment in self.tcp.flush():
            found.extend(self._frame(segment, 0, number, capture))
        for each in found:
            message = self.parse(each)
            if message is not None:
                yield message
        self.fragments.finish()
        self.incomplete += len(self.fragments.take_incomplete())

    def parse(self, found: Found) -> Message | None:
        """The message, None where it is none after all."""
        message = parse_message(found.data)
        if message is None:
            self.unsound += 1
            return None
        return Message(message, found.seen, found.data)

    def _datagrams(self, datagrams: DatagramBatch, rows: Int64) -> Iterator[Found]:
        """Messages that came in one datagram each. Columns become numbers of Python's own all at once."""
        packets, secure = datagrams.packets, self.secure
        begins = datagrams.payload[rows]
        fields = zip(
            rows.tolist(),
            begins.tolist(),
            (begins + datagrams.length[rows]).tolist(),
            packets.time[rows].tolist(),
            packets.number[rows].tolist(),
            packets.capture[rows].tolist(),
            _endpoints(datagrams.source_high, datagrams.source_low, datagrams.source_port, rows),
            _endpoints(datagrams.destination_high, datagrams.destination_low, datagrams.destination_port, rows),
            datagrams.realm[rows].tolist(),
            strict=True,
        )
        for row, begin, end, time, number, capture, source, destination, realm in fields:
            transport = Transport.TLS if secure and (capture, number) in secure else Transport.UDP
            seen = _sighting((time, number, capture, source, destination, transport, realm))
            yield _found((row, packets.buffer[begin:end].tobytes(), seen))

    def _rebuilt(self, datagrams: DatagramBatch, piece: Payload) -> Found:
        packets, row = datagrams.packets, piece.packet
        seen = Sighting(
            time=piece.time,
            packet=int(packets.number[row]),
            capture=int(packets.capture[row]),
            source=piece.source,
            destination=piece.destination,
            realm=piece.realm,
        )
        return Found(row, piece.data, seen)

    def _frame(self, segment: Segment, row: int, number: int, capture: int) -> Iterator[Found]:
        """Messages that a segment completes."""
        key = (segment.source, segment.destination, segment.realm)
        stream = self._streams.get(key)
        if stream is None or segment.start:
            stream = self._streams[key] = SipStream()
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
        self._streams.move_to_end(key)
        messages = stream.feed(segment.data, segment.gap)
        if segment.end:
            messages += stream.finish()
        if stream.interested is False:
            self.tcp.ignore(*key)
        if segment.end or stream.interested is False:
            self._streams.pop(key, None)
        for data in messages:
            seen = Sighting(
                time=segment.time,
                packet=number,
                capture=capture,
                source=segment.source,
                destination=segment.destination,
                transport=Transport.WS if stream.transport == "ws" else Transport.TCP,
                realm=segment.realm,
            )
            yield Found(row, data, seen)


def _endpoints(high: UInt64, low: UInt64, port: UInt16, rows: Int64) -> Iterator[Endpoint]:
    return map(_endpoint, high[rows].tolist(), low[rows].tolist(), port[rows].tolist())


_endpoint = lru_cache(maxsize=4096)(Endpoint)
"""Servers and telephones signal from the same few addresses again and again."""


def rows_of_interest(datagrams: DatagramBatch, kinds: UInt8, rtcp: int) -> Int64:
    """Rows that Python must look at: SIP, RTCP, TCP segments and fragments."""
    wanted = (kinds == SIP) | (kinds == rtcp) | (datagrams.kind == KIND_TCP) | (datagrams.kind == KIND_FRAGMENT)
    return np.flatnonzero(wanted)
