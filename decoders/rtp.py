"""RTP by the window: flows are recognised and their packets staged until a few seconds of them are seen together.

In: a batch's transport payloads and what `demux` made of them. Out: columns of staged packets, each with the flow
(source, destination, SSRC, realm) that it belongs to. Which call a flow is of is not known here, nor asked.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from capture.address import Endpoint
from capture.batch import Bytes, DatagramBatch, Int32, Int64, UInt8, UInt16, UInt32, UInt64
from decoders import _rtp_kernels as kernels
from decoders._rtp_kernels import IGNORED, STOP_END, STOP_FULL, STOP_TIME

__all__ = ["IGNORED", "STOP_END", "STOP_FULL", "STOP_TIME", "FlowTable", "Stager", "Window"]

WINDOW_PACKETS = 1 << 17
"""Packets that a window takes."""
WINDOW_OCTETS = 24 << 20
"""Octets of RTP that a window takes."""
FLOWS = 1 << 16
"""Flows at one time."""


@dataclass(slots=True)
class FlowTable:
    """Flows of RTP by (source, destination, SSRC, realm) in an open-addressed table of fixed size."""

    capacity: int = FLOWS
    slots: Int32 = field(init=False)
    addresses: UInt64 = field(init=False)
    """Shape (capacity, 4): source high, low, destination high, low."""
    ports: UInt32 = field(init=False)
    """Source port << 16 | destination port."""
    ssrcs: UInt32 = field(init=False)
    realms: UInt32 = field(init=False)
    states: NDArray[np.int8] = field(init=False)
    """IGNORED: packets of the flow are counted and not staged."""
    first: Int64 = field(init=False)
    last: Int64 = field(init=False)
    packets: Int64 = field(init=False)
    free: Int32 = field(init=False)
    live: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        n = self.capacity
        self.slots = np.full(4 * n, -1, np.int32)
        self.addresses = np.zeros((n, 4), np.uint64)
        self.ports = np.zeros(n, np.uint32)
        self.ssrcs = np.zeros(n, np.uint32)
        self.realms = np.zeros(n, np.uint32)
        self.states = np.zeros(n, np.int8)
        self.first = np.zeros(n, np.int64)
        self.last = np.zeros(n, np.int64)
        self.packets = np.zeros(n, np.int64)
        self.free = np.arange(n, dtype=np.int32)[::-1].copy()
        self.live = np.zeros(n, np.bool_)

    def source(self, flow: int) -> Endpoint:
        """Where the flow comes from."""
        high, low = self.addresses[flow, :2].tolist()
        return Endpoint(high, low, int(self.ports[flow]) >> 16)

    def destination(self, flow: int) -> Endpoint:
        """Where the flow goes."""
        high, low = self.addresses[flow, 2:].tolist()
        return Endpoint(high, low, int(self.ports[flow]) & 0xFFFF)


@dataclass(slots=True)
class Window:
    """Staged packets in order of arrival: columns of shape (WINDOW_PACKETS,), of which the first `count` are in use."""

    flow: Int32
    time: Int64
    stamp: UInt32
    """RTP timestamp."""
    sequence: UInt16
    type: UInt8
    """Marker bit and payload type, as on the wire."""
    offset: Int64
    """Of the RTP header in `arena`."""
    header: Int32
    """Octets of header, CSRC list and extension."""
    size: Int32
    """Octets of payload, padding taken off."""
    whole: Int32
    """Octets of the RTP packet."""
    missing: Int32
    """Octets that a snap length cut off."""
    number: Int64
    capture: Int32
    arena: Bytes
    count: int = 0
    octets: int = 0

    @classmethod
    def empty(cls, packets: int = WINDOW_PACKETS, octets: int = WINDOW_OCTETS) -> "Window":
        """A window with room for so much."""
        return cls(
            flow=np.empty(packets, np.int32),
            time=np.empty(packets, np.int64),
            stamp=np.empty(packets, np.uint32),
            sequence=np.empty(packets, np.uint16),
            type=np.empty(packets, np.uint8),
            offset=np.empty(packets, np.int64),
            header=np.empty(packets, np.int32),
            size=np.empty(packets, np.int32),
            whole=np.empty(packets, np.int32),
            missing=np.empty(packets, np.int32),
            number=np.empty(packets, np.int64),
            capture=np.empty(packets, np.int32),
            arena=np.empty(octets + 65536, np.uint8),
        )

    def payload(self, index: int) -> bytes:
        """Payload octets of one staged packet."""
        begin = int(self.offset[index]) + int(self.header[index])
        return self.arena[begin : begin + int(self.size[index])].tobytes()

    def packet(self, index: int) -> bytes:
        """One staged packet whole, header and padding included."""
        begin = int(self.offset[index])
        return self.arena[begin : begin + int(self.whole[index])].tobytes()


class Stager:
    """Fills a window from batches and groups what is in it by flow."""

    def __init__(self, flows: FlowTable, window: Window) -> None:
        self.flows = flows
        self.window = window
        self.starts: Int64 = np.zeros(flows.capacity + 2, np.int64)
        """After `group`: flow f has order[starts[f]:starts[f + 1]]."""
        self.order: Int32 = np.zeros(len(window.flow), np.int32)
        self._counts = np.zeros(kernels.COUNTS, np.int64)
        self._counts[kernels.COUNT_FREE] = flows.capacity
        self._removed = 0

    @property
    def flows_in_use(self) -> int:
        """Flows that the table holds."""
        return self.flows.capacity - int(self._counts[kernels.COUNT_FREE])

    @property
    def flows_free(self) -> int:
        """Flows that there is room for."""
        return int(self._counts[kernels.COUNT_FREE])

    @property
    def crowded(self) -> bool:
        """More than half of the window's room is taken."""
        window = self.window
        return 2 * window.count > len(window.flow) or 2 * window.octets > len(window.arena)

    @property
    def refused(self) -> int:
        """Packets of flows for which there was no room."""
        return int(self._counts[kernels.COUNT_REFUSED])

    def refuse_new_flows(self, refuse: bool) -> None:
        """With a full flow table, pass over the packets of further flows instead of stopping at them."""
        self._counts[kernels.COUNT_REFUSING] = refuse

    def stage(self, datagrams: DatagramBatch, kinds: UInt8, row: int, until: int) -> tuple[int, int]:
        """Stage the RTP rows from `row` on that are earlier than `until` (ns); gives (row reached, STOP_ reason)."""
        batch, flows, window = datagrams.packets, self.flows, self.window
        reached, reason = kernels.stage(
            batch.buffer, row, until, kinds, batch.time, datagrams.payload, datagrams.length, datagrams.missing,
            datagrams.source_high, datagrams.source_low, datagrams.destination_high, datagrams.destination_low,
            datagrams.source_port, datagrams.destination_port, datagrams.realm, batch.number, batch.capture,
            flows.slots, flows.addresses, flows.ports, flows.ssrcs, flows.realms, flows.states, flows.first, flows.last,
            flows.packets, flows.free, window.flow, window.time, window.stamp, window.sequence, window.type,
            window.offset, window.header, window.size, window.whole, window.missing, window.number, window.capture,
            window.arena, self._counts,
        )  # fmt: skip
        window.count = int(self._counts[kernels.COUNT_STAGED])
        window.octets = int(self._counts[kernels.COUNT_ARENA])
        return int(reached), int(reason)

    def group(self) -> Int32:
        """Sort the staged packets by flow; gives the flows that have any, ascending."""
        kernels.group_by_flow(self.window.flow, self.window.count, self.starts, self.order)
        filled = np.flatnonzero(self.starts[1:-1] - self.starts[:-2])
        return filled.astype(np.int32)

    def carry(self, keep: NDArray[np.bool_]) -> None:
        """Begin the next window with the packets marked in `keep` (shape (count,)) and drop the others."""
        w = self.window
        count, octets = kernels.carry(
            keep, w.count, w.flow, w.time, w.stamp, w.sequence, w.type, w.offset, w.header, w.size, w.whole, w.missing,
            w.number, w.capture, w.arena,
        )  # fmt: skip
        w.count, w.octets = int(count), int(octets)
        self._counts[kernels.COUNT_STAGED] = w.count
        self._counts[kernels.COUNT_ARENA] = w.octets

    def remove(self, flows: Int32) -> None:
        """Forget flows; none of them may have staged packets left."""
        if len(flows) == 0:
            return
        table = self.flows
        free = int(self._counts[kernels.COUNT_FREE])
        table.live[:] = True
        table.live[table.free[:free]] = False
        table.live[flows] = False
        table.free[free : free + len(flows)] = flows[::-1]
        self._counts[kernels.COUNT_FREE] = free + len(flows)
        kernels.rebuild(table.slots, table.addresses, table.ports, table.ssrcs, table.realms, table.live)
