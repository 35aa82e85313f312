"""DTMF digits out of telephone-event packets (RFC 4733) and SIP INFO bodies.

In: the telephone-event packets of one stream (one SSRC), in any order and with losses and copies; or one INFO body.
Out: `KeyPress` values. Never raises on bytes from a wire. Tones inside the audio are not looked for.

Only the sixteen DTMF events (RFC 4733, table 3: 0-9, *, #, A-D) are digits. Others, such as event 16 (hook flash),
the modem and fax tones 32-49 and 52-60 or MF digits, press no key: they are counted in `TelephoneEvents.other`.

Bound: `MAX_SEGMENTS` events or segments of events of a stream; what comes after is counted in `overflowed`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

DIGITS = "0123456789*#ABCD"
"""DTMF digits by event code (RFC 4733, table 3)."""
FLASH = 16
"""Event code of the hook flash; not a digit."""

MAX_SEGMENTS = 20_000
MAX_PACKED = 16
"""Events that one packet may pack (RFC 4733, section 2.5.1.5)."""
LONGEST = 0xFFFF
"""Duration at which a long event is cut into segments (RFC 4733, section 2.5.2.3)."""
FORGOTTEN_AFTER = 60_000_000_000
"""ns of capture time after which an equal timestamp is another event: RTP timestamps restart, and wrap."""


class EventPacket(NamedTuple):
    """A telephone-event packet."""

    time: int
    """Capture time, ns."""
    timestamp: int
    """RTP timestamp: where the event began."""
    payload: bytes
    marker: bool
    clock_rate: int


@dataclass(frozen=True, slots=True)
class KeyPress:
    """One press of a key."""

    time: int
    """Capture time of the first packet that told of it, ns."""
    digit: str
    duration_ms: int | None
    """As the sender counted it; None where an INFO body gives none."""
    ended: bool
    """The sender said that it ended; else `duration_ms` is what was heard of it."""


@dataclass(slots=True)
class _Segment:
    """What all packets with one timestamp and event code say."""

    event: int
    timestamp: int
    clock_rate: int
    first: int
    last: int
    duration: int = 0
    marker: bool = False
    ended: bool = False

    def is_continued_by(self, other: "_Segment") -> bool:
        """`other` is more of this event, not another press of the same key.

        A segment of a long event begins where the one before ends, without the marker (RFC 4733, section 2.5.2.3).
        Senders that move the timestamp with every update, against section 2.5.1.2, are seen by an event that would
        begin within itself.
        """
        ahead = other.timestamp - self.timestamp & 0xFFFFFFFF
        return (
            other.event == self.event
            and not other.marker
            and (ahead == LONGEST or ahead <= self.duration)
            and other.first - self.last < FORGOTTEN_AFTER
        )


class TelephoneEvents:
    """Collects the telephone events of one stream (one SSRC)."""

    def __init__(self) -> None:
        self.other: dict[int, int] = {}
        """Event code -> how often, for what is not DTMF; filled by `digits`."""
        self.malformed = 0
        """Packets with less than four octets."""
        self.overflowed = 0
        """Events beyond `MAX_SEGMENTS`, not kept."""
        self._segments: list[_Segment] = []
        self._latest: dict[tuple[int, int], _Segment] = {}

    def feed(self, packets: Iterable[EventPacket]) -> None:
        """Take packets in any order; copies and retransmitted ends change nothing."""
        for packet in packets:
            if len(packet.payload) < 4:
                self.malformed += 1
                continue
            timestamp = packet.timestamp
            for offset in range(0, min(len(packet.payload) - 3, 4 * MAX_PACKED), 4):
                event, flags, high, low = packet.payload[offset : offset + 4]
                duration = high << 8 | low
                self._update(packet, event, timestamp, duration, ended=bool(flags & 0x80))
                if not flags & 0x80 and duration != LONGEST:
                    break  # only what has ended can be followed by another event in the same packet
                timestamp = timestamp + duration & 0xFFFFFFFF

    def digits(self) -> list[KeyPress]:
        """The DTMF digits heard so far, in order of time."""
        self.other = {}
        presses = []
        for segments in self._joined():
            head = segments[0]
            duration = _duration(segments)
            if duration == 0:
                continue  # RFC 4733, section 2.3.5: to be ignored
            if head.event >= len(DIGITS):
                self.other[head.event] = self.other.get(head.event, 0) + 1
                continue
            milliseconds = round(duration * 1000 / head.clock_rate) if head.clock_rate > 0 else None
            presses.append(KeyPress(head.first, DIGITS[head.event], milliseconds, segments[-1].ended))
        return presses

    def _update(self, packet: EventPacket, event: int, timestamp: int, duration: int, *, ended: bool) -> None:
        key = (timestamp, event)
        segment = self._latest.get(key)
        if segment is None or packet.time - segment.last > FORGOTTEN_AFTER:
            if len(self._segments) == MAX_SEGMENTS:
                self.overflowed += 1
                return
            segment = _Segment(event, timestamp, packet.clock_rate, packet.time, packet.time)
            self._segments.append(segment)
            self._latest[key] = segment
        segment.first = min(segment.first, packet.time)
        segment.last = max(segment.last, packet.time)
        segment.duration = max(segment.duration, duration)
        segment.marker |= packet.marker
        segment.ended |= ended

    def _joined(self) -> list[list[_Segment]]:
        """Segments grouped to events, in order of time."""
        events: list[list[_Segment]] = []
        latest: dict[int, list[_Segment]] = {}
        for segment in sorted(self._segments, key=lambda segment: segment.first):
            before = latest.get(segment.event)
            if before and before[-1].is_continued_by(segment):
                before.append(segment)
            else:
                latest[segment.event] = [segment]
                events.append(latest[segment.event])
        return events


def _duration(segments: list[_Segment]) -> int:
    """Ticks of the whole event: what the full segments before the last one covered, and the last one."""
    longest = 0
    base = 0
    for before, segment in zip([None, *segments], segments, strict=False):
        if before is not None and segment.timestamp - before.timestamp & 0xFFFFFFFF == LONGEST:
            base += LONGEST
        longest = max(longest, base + segment.duration)
    return longest


_SIGNAL = re.compile(rb"^[ \t]*Signal[ \t]*[=:][ \t]*([0-9A-Da-d*#]|1[0-5])[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_DURATION = re.compile(rb"^[ \t]*Duration[ \t]*[=:][ \t]*([0-9]{1,6})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_BARE = re.compile(rb"\s*([0-9A-Da-d*#])\s*\Z")
_LONGEST_BODY = 1024


def parse_info_digit(content_type: str, body: bytes) -> tuple[str, int | None] | None:
    """Digit and duration in ms (None where not said) of an INFO body, None where it presses no key.

    Reads the two bodies in common use, neither of which has a standard: `application/dtmf-relay` with lines
    `Signal=5` and `Duration=160`, and `application/dtmf` with the digit alone (or the lines as well). A signal of 10
    to 15 is the event code of *, # and A to D. Hook flash (16 or !) is no digit.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("application/dtmf-relay", "application/dtmf") or len(body) > _LONGEST_BODY:
        return None
    bare = _BARE.match(body) if kind == "application/dtmf" else None
    if bare:
        return bare[1].decode().upper(), None
    signal = _SIGNAL.search(body)
    if not signal:
        return None
    text = signal[1].decode().upper()
    duration = _DURATION.search(body)
    return DIGITS[int(text)] if len(text) == 2 else text, int(duration[1]) if duration else None
