"""Plain twins of the kernels of RTP: staging by flow, RFC 3550's receiver, placing on the timeline."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from pcaps.make.sources import alaw_table, ulaw_table

AUDIO, EVENT, NOISE, UNKNOWN = "audio", "event", "noise", "unknown"


@dataclass(frozen=True)
class Staged:
    """What the window keeps of one packet."""

    flow: tuple
    time: int
    stamp: int
    sequence: int
    type: int
    header: int
    payload: bytes
    whole: bytes
    missing: int
    number: int


def read(packet: bytes, missing: int) -> tuple[int, int, int, int, int, bytes]:
    """(type octet, sequence, timestamp, SSRC, header octets, payload without padding) of an RTP packet."""
    header = 12 + 4 * (packet[0] & 15)
    if packet[0] & 16:
        header += 4 + 4 * int.from_bytes(packet[header + 2 : header + 4], "big")
    body = len(packet) - header
    if packet[0] & 32 and not missing:
        body -= packet[-1]
    payload = packet[header : header + max(body, 0)]
    fields = packet[1], *(int.from_bytes(packet[a:b], "big") for a, b in ((2, 4), (4, 8), (8, 12)))
    return *fields, header, payload


class Stage:
    """Packets by flow, in order of arrival."""

    def __init__(self, flows: int, packets: int, octets: int) -> None:
        self.room = (flows, packets, octets)
        self.staged: list[Staged] = []
        self.flows: dict[tuple, list[int]] = {}
        self.ignored: set[tuple] = set()

    def take(self, rows: list[tuple], row: int, until: int) -> tuple[int, str]:
        """Rows are (time, is RTP, ends, realm, octets, missing, number). Gives (row reached, why it stopped)."""
        flows, packets, octets = self.room
        while row < len(rows):
            time, rtp, ends, realm, packet, missing, number = rows[row]
            if time >= until:
                return row, "time"
            if rtp:
                kind, sequence, stamp, ssrc, header, payload = read(packet, missing)
                flow = (*ends, ssrc, realm)
                if len(self.staged) >= packets or sum(len(s.whole) for s in self.staged) > octets:
                    return row, "full"
                if flow not in self.flows and len(self.flows) == flows:
                    return row, "full"
                counted = self.flows.setdefault(flow, [time, time, 0])
                counted[1] = time
                counted[2] += 1
                if flow not in self.ignored:
                    one = Staged(flow, time, stamp, sequence, kind, header, payload, packet, missing, number)
                    self.staged.append(one)
            row += 1
        return row, "end"

    def grouped(self) -> dict[tuple, list[int]]:
        """Flow -> indices of its staged packets."""
        found: dict[tuple, list[int]] = defaultdict(list)
        for index, packet in enumerate(self.staged):
            found[packet.flow].append(index)
        return dict(found)

    def carry(self, keep: list[bool]) -> None:
        """Go on with the marked packets."""
        self.staged = [packet for packet, kept in zip(self.staged, keep, strict=True) if kept]


@dataclass
class Receiver:
    """RFC 3550, appendix A.1, A.3 and A.8, with a look ahead instead of a first packet lost at a restart."""

    clock: int = 8000
    base: int = 0
    top: int | None = None
    bad: int = -1
    expected_before: int = 0
    epochs: int = 0
    received: int = 0
    duplicates: int = 0
    reordered: int = 0
    strays: int = 0
    gaps: int = 0
    jitter: float = 0.0
    jitters: list[float] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    transit: int | None = None
    stood_still: bool = False

    def hear(self, packets: list[tuple[int, int, int, str]]) -> None:
        """All packets of a source, (ns, sequence, timestamp, kind), in order of arrival."""
        for index, (time, sequence, stamp, kind) in enumerate(packets):
            following = next((s for _, s, _, _ in packets[index + 1 :] if s != sequence), -1)
            if self._take(sequence, following):
                self.received += 1
                self._jitter(time, stamp, kind)

    def _take(self, sequence: int, following: int) -> bool:
        if self.top is None:
            self._begin(65536 + sequence)
            return True
        delta = (sequence - self.top) & 0xFFFF
        if delta < 3000:
            if delta == 0:
                self.duplicates += 1
                return False
            self.gaps += delta > 1
            self.top += delta
            self.seen = {s for s in self.seen if self.top - s < 256} | {self.top}
            return True
        if delta > 65536 - 100:
            extended = self.top - (65536 - delta)
            if extended in self.seen:
                self.duplicates += 1
                return False
            self.seen.add(extended)
            self.reordered += 1
            self.base = min(self.base, extended)
            return True
        if following == (sequence + 1) & 0xFFFF or self.bad == sequence:
            self.expected_before += self.top - self.base + 1
            self.epochs += 1
            self._begin(((self.top >> 16) + 2) * 65536 + sequence)
            return True
        self.bad = (sequence + 1) & 0xFFFF
        self.strays += 1
        return False

    def _begin(self, extended: int) -> None:
        self.base = self.top = extended
        self.seen = {extended}
        self.bad = -1

    def _jitter(self, time: int, stamp: int, kind: str) -> None:
        if kind in (EVENT, NOISE):
            self.stood_still = True
            return
        transit = (time // 10**9 * self.clock + time % 10**9 * self.clock // 10**9 - stamp) & 0xFFFFFFFF
        if self.transit is not None and not self.stood_still:
            difference = (transit - self.transit) & 0xFFFFFFFF
            difference = min(difference, 2**32 - difference)
            if difference < 10 * self.clock:
                self.jitter += (difference - self.jitter) / 16
                self.jitters.append(self.jitter)
        self.stood_still = False
        self.transit = transit

    @property
    def expected(self) -> int:
        """Packets that the source sent, as its sequence numbers tell."""
        return self.expected_before + (self.top - self.base + 1 if self.top is not None else 0)


def place(
    frames: np.ndarray, entries: list[tuple[int, str | None, int, bytes]], zero: int, step: int, low: int
) -> np.ndarray:
    """Frames (n, 2) with entries (channel, law, position in ticks, octets) decoded into them, the last one on top."""
    result = frames.copy()
    for channel, law, position, octets in entries:
        if law is None or channel < 0:
            continue
        table = {"PCMU": ulaw_table, "PCMA": alaw_table}[law]()
        first = (position - zero + step // 2) // step - low
        for k, octet in enumerate(octets):
            if 0 <= first + k < len(result):
                result[first + k, channel] = table[octet]
    return result
