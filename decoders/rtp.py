"""RTP by the window: flows are recognised and their packets staged until a few seconds of them are seen together.

In: a batch's transport payloads and what `demux` made of them. Out: columns of staged packets, each with the flow
(source, destination, SSRC, realm) that it belongs to. Which call a flow is of is not known here, nor asked.
"""

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


class FlowTable:
    """Flows of RTP by (source, destination, SSRC, realm) in an open-addressed table of fixed size."""

    def __init__(self, capacity: int = FLOWS) -> None:
        n = self.capacity = capacity
        self.slots: Int32 = np.full(4 * n, -1, np.int32)
        self.rows: UInt64 = _lines(n)
        """A flow's key and counts, a line of the processor's cache each. The next columns are views of it."""
        self.addresses: UInt64 = self.rows[:, : kernels.PORTS_SSRC]
        """Shape (capacity, 4): source high, low, destination high, low."""
        halves = self.rows.view(np.uint32)
        self.ssrcs: UInt32 = halves[:, 2 * kernels.PORTS_SSRC]
        self.ports: UInt32 = halves[:, 2 * kernels.PORTS_SSRC + 1]
        """Source port << 16 | destination port."""
        self.realms: UInt32 = halves[:, 2 * kernels.REALM]
        self.last: Int64 = self.rows.view(np.int64)[:, kernels.LAST]
        """Capture time of its last packet, ns."""
        self.packets: Int64 = self.rows.view(np.int64)[:, kernels.PACKETS]
        self.first: Int64 = np.zeros(n, np.int64)
        self.states: NDArray[np.int8] = np.zeros(n, np.int8)
        """IGNORED: packets of the flow are counted and not staged."""
        self.free: Int32 = np.arange(n, dtype=np.int32)[::-1].copy()
        self.live: NDArray[np.bool_] = np.zeros(n, np.bool_)

    def source(self, flow: int) -> Endpoint:
        """Where the flow comes from."""
        high, low = self.addresses[flow, :2].tolist()
        return Endpoint(high, low, int(self.ports[flow]) >> 16)

    def destination(self, flow: int) -> Endpoint:
        """Where the flow goes."""
        high, low = self.addresses[flow, 2:].tolist()
        return Endpoint(high, low, int(self.ports[flow]) & 0xFFFF)


class Window:
    """Staged packets in order of arrival, of which the first `count` rows are in use."""

    def __init__(self, packets: int, octets: int) -> None:
        self.flow: Int32 = np.empty(packets, np.int32)
        self.packets: kernels.Packets = _lines(packets).view(kernels.PACKET).reshape(packets)
        """Shape (packets,); the next columns are views of it."""
        self.time: Int64 = self.packets["time"]
        self.stamp: UInt32 = self.packets["stamp"]
        """RTP timestamp."""
        self.sequence: UInt16 = self.packets["sequence"]
        self.type: UInt8 = self.packets["type"]
        """Marker bit and payload type, as on the wire."""
        self.offset: Int64 = self.packets["offset"]
        """Of the RTP header in `arena`."""
        self.header: Int32 = self.packets["header"]
        """Octets of header, CSRC list and extension."""
        self.size: Int32 = self.packets["size"]
        """Octets of payload, padding taken off."""
        self.whole: Int32 = self.packets["whole"]
        """Octets of the RTP packet."""
        self.missing: Int32 = self.packets["missing"]
        """Octets that a snap length cut off."""
        self.number: Int64 = self.packets["number"]
        self.capture: Int32 = self.packets["capture"]
        self.arena: Bytes = np.empty(octets + 65536, np.uint8)
        self.count = 0
        self.octets = 0

    @classmethod
    def empty(cls, packets: int = WINDOW_PACKETS, octets: int = WINDOW_OCTETS) -> "Window":
        """A window with room for so much."""
        return cls(packets, octets)

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
            flows.slots, flows.rows, flows.states, flows.first, flows.free, window.flow, window.packets, window.arena,
            self._counts,
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
        count, octets = kernels.carry(keep, w.count, w.flow, w.packets, w.arena)
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
        kernels.rebuild(table.slots, table.rows, table.live)


def _lines(count: int) -> UInt64:
    """Zeros of shape (count, 8), each row a line of the processor's cache."""
    room = np.zeros(8 * count + 8, np.uint64)
    begin = -(room.ctypes.data // 8) % 8
    return room[begin : begin + 8 * count].reshape(count, 8)
