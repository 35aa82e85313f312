"""Media identity: two flows that carry the same media, because somebody in between passed it on.

In: the packets of beginning flows, window by window. Out: pairs of flows with equal payloads, whatever their SSRCs say,
and for flows of equal SSRC whether one runs in step with the other. Content alone proves little (music on hold, a test
call played many times), so time and addresses must agree: what is passed on leaves from where it arrived, a little
later. Silence, tones and payloads that many flows share prove nothing.

Bounds: each flow is looked at until it gave MOST_MARKS marks or MOST_PACKETS packets; MOST_KNOWN marks are remembered.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from capture.batch import Int32, Int64, UInt64
from decoders import _identity_kernels as kernels
from decoders.rtp import FlowTable, Stager

MOST_MARKS = 16
MOST_PACKETS = 600
MOST_KNOWN = 1 << 16
MOST_AT_ONCE = 1 << 16
"""Marks taken from one window."""
MOST_SHARING = 6
"""Flows that share a mark before it proves nothing."""
ENOUGH = 4
"""Marks that two flows must share."""
LAG = 500_000_000
"""ns by which the copy of a payload may be later or earlier."""
RELAYED_LAG = 200_000_000
UNRELATED_LAG = 60_000_000
FORKED_LAG = 5_000_000

Pair = tuple[int, int]


@dataclass(slots=True)
class _Sampled:
    """What was seen of one flow; ten thousand calls have twenty thousand, so it holds no empty collections."""

    marks: list[int] = field(default_factory=list)
    repeated: frozenset[int] = frozenset()
    """Marks that came again: a tone."""
    shared: dict[int, set[int]] | None = None
    """Other flow -> marks that both have, where there are any."""
    twins: tuple[int, ...] = ()
    """Flows with the same media, in the order in which they were found."""


class MediaIdentity:
    """Compares the payloads of flows that began lately."""

    def __init__(self, flows: FlowTable) -> None:
        self._flows = flows
        self._sampled: dict[int, _Sampled] = {}
        self._open: dict[int, None] = {}
        self._seen: dict[int, list[int]] = {}
        """Mark -> flow and time in ns of each of its sightings in turn."""
        self._until: Int64 = np.zeros(flows.capacity, np.int64)
        """Capture time of the last packet of each flow that was looked at, ns: what waits in a window comes again."""
        self._looked_at: Int32 = np.zeros(flows.capacity, np.int32)
        self._flow: Int32 = np.zeros(MOST_AT_ONCE, np.int32)
        self._mark: UInt64 = np.zeros(MOST_AT_ONCE, np.uint64)
        self._time: Int64 = np.zeros(MOST_AT_ONCE, np.int64)

    def begin(self, flow: int) -> None:
        """A flow begins: look at its first packets."""
        if flow not in self._sampled:
            self._sampled[flow] = _Sampled()
            self._open[flow] = None
            self._until[flow], self._looked_at[flow] = -1, 0

    def forget(self, flow: int) -> None:
        """A flow is over."""
        self._open.pop(flow, None)
        gone = self._sampled.pop(flow, None)
        for mark in gone.marks if gone is not None else ():
            left = [part for each in _in_pairs(self._seen.get(mark, [])) if each[0] != flow for part in each]
            if left:
                self._seen[mark] = left
            else:
                self._seen.pop(mark, None)

    def twins(self, flow: int) -> tuple[int, ...]:
        """Flows known to carry the same media."""
        sampled = self._sampled.get(flow)
        return sampled.twins if sampled is not None else ()

    def look(self, stager: Stager) -> Iterator[Pair]:
        """Take in the window's packets of beginning flows; gives the pairs of flows found alike."""
        if not self._open:
            return
        window = stager.window
        flows = np.array(list(self._open), np.int32)
        count = kernels.mark_payloads(
            flows, stager.starts, stager.order, window.packets, window.arena,
            self._until, self._looked_at, MOST_PACKETS, self._flow, self._mark, self._time,
        )  # fmt: skip
        columns = self._flow[:count].tolist(), self._mark[:count].tolist(), self._time[:count].tolist()
        for flow, mark, time in zip(*columns, strict=True):
            yield from self._take(flow, mark, time)
        for flow in flows[self._looked_at[flows] >= MOST_PACKETS].tolist():
            self._open.pop(flow, None)

    def _take(self, flow: int, mark: int, time: int) -> Iterator[Pair]:
        sampled = self._sampled[flow]
        if mark in sampled.marks:
            sampled.repeated |= {mark}
        elif len(sampled.marks) < MOST_MARKS:
            sampled.marks.append(mark)
            yield from self._compare(flow, sampled, mark, time)
            self._remember(flow, mark, time)
        else:
            self._open.pop(flow, None)

    def _remember(self, flow: int, mark: int, time: int) -> None:
        if mark in self._seen:
            self._seen[mark] += flow, time
            return
        self._seen[mark] = [flow, time]
        if len(self._seen) > MOST_KNOWN:
            del self._seen[next(iter(self._seen))]

    def _compare(self, flow: int, sampled: _Sampled, mark: int, time: int) -> Iterator[Pair]:
        known = self._seen.get(mark, [])
        if len(known) >= 2 * MOST_SHARING:
            return
        for other, at in _in_pairs(known):
            peer = self._sampled.get(other)
            if peer is None or other in sampled.twins or abs(time - at) > LAG or not self._passes_on(other, flow):
                continue
            if sampled.shared is None:
                sampled.shared = {}
            shared = sampled.shared.setdefault(other, set())
            shared.add(mark)
            if len(shared - sampled.repeated - peer.repeated) >= ENOUGH:
                sampled.twins += (other,)
                peer.twins += (flow,)
                yield other, flow

    def _passes_on(self, one: int, other: int) -> bool:
        """Whether the two flows meet at a host that may have passed the media on, and that is not its source."""
        a, b = self._flows.addresses[one].tolist(), self._flows.addresses[other].tolist()
        return (a[2:] == b[:2] and b[2:] != a[:2]) or (b[2:] == a[:2] and a[2:] != b[:2])


def _in_pairs(known: list[int]) -> Iterator[Pair]:
    return zip(known[::2], known[1::2], strict=True)


def most_lag(one: tuple[int, ...], to_one: tuple[int, ...], other: tuple[int, ...], to_other: tuple[int, ...]) -> int:
    """ns by which two flows of equal SSRC may lie apart and still be the same packets.

    One source that plays the same to several places (a load generator) has no lag to excuse it; a relay may buffer.
    Arguments are (high, low, port) of the sources and destinations.
    """
    if one == other:
        return FORKED_LAG
    if to_one[:2] == other[:2] or to_other[:2] == one[:2]:
        return RELAYED_LAG
    return UNRELATED_LAG
