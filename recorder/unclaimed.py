"""RTP flows that belong to no call: those that may yet, those that never will, those whose call is over.

In: flows that nobody claimed, and capture time. Out: what of a window must wait, and counts of what ended in no
recording. Their number is bounded: a flow is dropped when it falls silent, or when the flow table is full. It claims
nothing itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from decoders.rtp import IGNORED, Stager
from decoders.sdp import STATIC_FORMATS
from recorder.stream_index import StreamIndex

IDLE = 10_000_000_000
"""ns without a packet after which an unclaimed flow is forgotten."""
MIN_PACKETS = 8
"""Packets in sequence that make media without signalling a call."""

_NO_SPEECH = {"CN", "TELEPHONE-EVENT", "RED", "H261", "H263", "JPEG", "NV", "CELB", "MPV", "MP2T", "MPA"}


@dataclass(slots=True)
class UnclaimedFlows:
    """Flows without a stream."""

    stager: Stager
    index: StreamIndex
    flows: int = 0
    packets: int = 0
    """RTP-like packets that ended in no recording, and the flows that had nothing else."""
    waiting: set[int] = field(default_factory=set)
    """Flows whose packets stay in the window: signalling may be late."""
    ignored: set[int] = field(default_factory=set)
    spent: set[int] = field(default_factory=set)
    """Flows that go on after their call: another call may yet announce them, but they make none of their own."""

    def hold(self, keep: NDArray[np.bool_]) -> None:
        """Mark the packets of waiting flows in `keep`, one item per packet of the window."""
        stager = self.stager
        for flow in self.waiting:
            keep[stager.order[stager.starts[flow] : stager.starts[flow + 1]]] = True

    def ignore(self, flow: int) -> None:
        """Nothing can be made of a flow: its packets are only counted from now on."""
        table = self.stager.flows
        self.ignored.add(flow)
        table.states[flow] = IGNORED
        self.index.see_at(flow, table.source(flow), table.destination(flow))

    def reconsider(self, flow: int, now: int) -> None:
        """An ignored flow counts as one that begins at capture time `now`, ns."""
        self.ignored.discard(flow)
        self.stager.flows.states[flow] = 0
        self.stager.flows.first[flow] = now

    def spend(self, flow: int) -> None:
        """The call of a flow is over: what comes is counted anew."""
        self.spent.add(flow)
        self.stager.flows.packets[flow] = 0

    def forget_idle(self, now: int) -> None:
        """Drop flows that fell silent; their number must not grow with the capture."""
        if not self.ignored and not self.spent:
            return
        table = self.stager.flows
        self._drop(flow for flow in sorted(self.ignored | self.spent) if now - int(table.last[flow]) > IDLE)

    def make_room(self) -> None:
        """Drop all that nobody waits for."""
        self._drop(sorted(self.ignored | self.spent))

    def finish(self) -> None:
        """The capture is over: count what nobody claimed."""
        self._drop(sorted(self.ignored))

    def _drop(self, flows: Iterable[int]) -> None:
        table = self.stager.flows
        gone = []
        for flow in flows:
            if flow in self.ignored:
                self.flows += 1
                self.packets += int(table.packets[flow])
                self.ignored.discard(flow)
            self.spent.discard(flow)
            self.index.forget_at(flow, table.source(flow), table.destination(flow))
            gone.append(flow)
        self.stager.remove(np.array(gone, np.int32))


def is_speech(stager: Stager, flow: int) -> bool:
    """Whether a flow's packets of the window are audio beyond doubt: in sequence, of a static type (RFC 3551, 6)."""
    window = stager.window
    mine = stager.order[stager.starts[flow] : stager.starts[flow + 1]]
    sequences = window.sequence[mine].astype(np.int64)
    steps = (sequences[1:] - sequences[:-1]) & 0xFFFF
    steps = steps[steps > 0]  # a packet that was mirrored twice says nothing
    if len(steps) + 1 < MIN_PACKETS:
        return False
    kind = int(np.bincount(window.type[mine] & 127).argmax())
    known = STATIC_FORMATS.get(kind)
    if known is None or known.encoding.upper() in _NO_SPEECH:
        return False
    return bool(10 * np.count_nonzero(steps < 20) >= 6 * len(steps))
