"""The ring source: frames from network interfaces through memory that the Linux kernel fills.

In: names of interfaces and `RingOptions`. Out: `PacketBatch`es in time order whose one buffer is the memory of all
rings (AF_PACKET, TPACKET_V3). Kernels walk blocks into columns: no frame is copied, and Python runs per batch. Blocks
go back to the Linux kernel at the next poll.

All that needs privileges happens when a source is made (`ring_port` tells of interfaces that are made anew). With
several rings, frames wait until each ring is known to hold nothing earlier: until a later frame came out of it, or for
as long as a block may stay in the kernel. Batches then are in time order among each other too, unless the reader fell
behind.
"""

import mmap
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing

import numpy as np

from capture._ring_kernels import KEEP_OUTGOING, SKIP_OUTGOING, SKIP_OUTGOING_LOOPBACK, SMALLEST_FRAME
from capture.batch import PacketBatch
from capture.early_drops import EarlyDrops
from capture.interface import ANY, InterfaceTable
from capture.live import LiveCaptureError, SourceCounters
from capture.ring_port import RingOptions, RingPort
from capture.rings import RingPlan, RingRows, Rings, RingView

__all__ = ["RingOptions", "RingSource"]

_LOOK = 1.0
"""Seconds between two looks at the interfaces and at the kernel's counters."""
_LARGEST_RING = (1 << 32) - (1 << 24)
"""Octets; the kernel counts those of a ring in 32 bits."""
_NAP = 0.005
"""Seconds between two walks while frames wait for earlier ones."""
_SLACK = 0.01
"""Seconds that a block's timer may be late."""


class RingSource:
    """A `LiveSource` over the rings of some interfaces. Linux only."""

    stamped_here = True
    ended = False

    def __init__(self, interfaces: Sequence[str], options: RingOptions | None = None, *, capture: int = 0) -> None:
        """Open the interfaces (`any` is all of them). `capture` is the index that all batches carry.

        Raises `LiveCaptureError` with what to do about it.
        """
        self.name = ",".join(interfaces)
        self._options = options or RingOptions()
        _check(interfaces, self._options)
        self._capture = capture
        self._pending = RingRows.room_for(0)
        self._ages: deque[tuple[float, int]] = deque()
        """(when, its latest time) of each walk of which rows may be pending."""
        alone = len(interfaces) * self._options.sockets == 1
        self._hold = 0.0 if alone else 2 * self._options.retire_ms / 1000 + _SLACK
        """Seconds that a frame waits for earlier ones of another ring at most."""
        self._lock = threading.Lock()
        self._packets = self._octets = self._dropped = self._frozen = 0
        self._handed_over = self._next_look = self._next_count = 0.0
        with ExitStack() as opened:
            self._table = opened.enter_context(closing(InterfaceTable()))
            self._ports = [
                opened.enter_context(closing(RingPort(name, self._options, self._table))) for name in interfaces
            ]
            self._early = opened.enter_context(closing(EarlyDrops(interfaces)))
            plans = [self._plan(port) for port in self._ports for _ in port.sockets]
            self._rings = opened.enter_context(closing(Rings(plans, self._options.batch_rows)))
            for number, port in enumerate(self._ports):
                self._place(number)
                port.open()
            self._poller = self._watch()
            self._opened = opened.pop_all()

    def poll(self, timeout: float) -> PacketBatch | None:
        """Frames in time order, as soon as the kernel hands any over; see `LiveSource`."""
        self._rings.give_back()
        self._reopen()
        start = time.monotonic()
        rest = min(self._handed_over + self._options.pace - start, timeout)
        if rest > 0 and not self._rings.full:
            time.sleep(rest)
        while True:
            now = time.monotonic()
            if now >= self._next_look:
                self._look(now)
            self._walk(now)
            due = self._due(now)
            if due:
                self._handed_over = now
                return self._hand_over(due)
            left = start + timeout - now
            if left <= 0:
                return None
            if self._ages:
                left = min(left, self._ages[0][0] + self._hold - now)
            self._wait(left)

    def counters(self) -> SourceCounters:
        """See `LiveSource`. The kernel is asked at most once a second."""
        with self._lock:
            now = time.monotonic()
            if now >= self._next_count:
                self._next_count = now + _LOOK
                self._count()
            notes = [note for port in self._ports for note in port.notes] + self._early.notes
            if self._rings.damaged:
                notes.append(f"{self._rings.damaged} blocks of the ring were damaged.")
            return SourceCounters(
                packets=self._packets + int(self._rings.tally[0]),
                octets=self._octets + int(self._rings.tally[1]),
                dropped=self._dropped,
                frozen=self._frozen,
                up=all(port.up for port in self._ports),
                note=" ".join(notes),
            )

    def close(self) -> None:
        """Close the sockets. Batches that are still held read as zeros from now on."""
        with self._lock:
            self._next_count = float("inf")
            self._opened.close()

    def lend(self) -> tuple[RingView, list[int]]:
        """The rings, for a kernel that walks them by itself in place of `poll`, and descriptors that are readable when
        it has something to do. Frames of several rings are then in order only among those of each.
        """
        return self._rings.view(), [each.fileno() for port in self._ports for each in port.sockets]

    def tend(self) -> bool:
        """To be called while the rings are lent, at least once a second. True: have the kernel end, and call
        `take_back`, because an interface was made anew."""
        now = time.monotonic()
        if now >= self._next_look:
            self._look(now)
        return any(port.replaced for port in self._ports)

    def take_back(self) -> None:
        """The kernel has ended, with no block left; listen again to interfaces that were made anew."""
        self._reopen()

    def _plan(self, port: RingPort) -> RingPlan:
        outgoing = SKIP_OUTGOING
        if self._options.outgoing:
            outgoing = SKIP_OUTGOING_LOOPBACK if port.is_loopback or port.name == ANY else KEEP_OUTGOING
        return RingPlan(port.shape, port.framing.link_type, outgoing)

    def _ring_numbers(self, port: int) -> range:
        """Of the rings of the `port`-th interface; it may use fewer of them later."""
        return range(port * self._options.sockets, (port + 1) * self._options.sockets)

    def _place(self, port: int) -> None:
        """Map the rings of an interface's sockets."""
        sockets = self._ports[port].sockets
        for at, ring in enumerate(self._ring_numbers(port)):
            if at < len(sockets):
                self._rings.place(ring, sockets[at])
            else:
                self._rings.remove(ring)

    def _watch(self) -> select.poll:
        """What wakes a poll: every socket."""
        poller = select.poll()
        for port in self._ports:
            for each in port.sockets:
                poller.register(each, select.POLLIN)
        return poller

    def _walk(self, now: float) -> None:
        """Walk what is ready into the pending rows, as far as a batch has room."""
        found = self._rings.walk(self._options.batch_rows - len(self._pending))
        if len(found):
            if self._hold:
                self._ages.append((now, int(found.time[-1])))
            self._pending = self._pending.merged(found)

    def _due(self, now: float) -> int:
        """How many of the pending rows no ring can have anything before."""
        due = len(self._pending)
        if self._hold:
            horizon = self._rings.horizon
            while self._ages and self._ages[0][0] <= now - self._hold:
                horizon = max(horizon, self._ages.popleft()[1])
            # With no room for more, an interface that is silent must not keep the others waiting.
            due = int(np.searchsorted(self._pending.time, horizon, side="right")) or (due if self._rings.full else 0)
            if due == len(self._pending):
                self._ages.clear()
        return due

    def _hand_over(self, due: int) -> PacketBatch:
        """The first `due` pending rows as a batch."""
        rows, self._pending = self._pending.split(due)
        self._rings.count_off(rows)
        number = np.arange(self._packets + 1, self._packets + due + 1, dtype=np.int64)
        self._packets += due
        self._octets += int(rows.wire.sum(dtype=np.int64))
        return PacketBatch(
            buffer=self._rings.buffer,
            time=rows.time,
            offset=rows.offset,
            captured=rows.captured,
            wire=rows.wire,
            link_type=rows.link_type,
            number=number,
            capture=np.full(due, self._capture, np.int32),
        )

    def _wait(self, seconds: float) -> None:
        """Sleep until a block is ready or an interface goes away."""
        self._rings.give_back()  # blocks of which every frame was left out
        if len(self._pending):
            # A poll would return at once as long as blocks are held.
            time.sleep(min(max(seconds, 0.0), max(self._options.pace, _NAP)))
            return
        for descriptor, events in self._poller.poll(max(seconds, 0.0) * 1000):
            if events & ~select.POLLIN:
                self._next_look = 0.0
                for port in self._ports:
                    port.clear_error(descriptor)

    def _look(self, now: float) -> None:
        """Once a second: which interfaces are up, and what the kernel dropped."""
        self._next_look = now + _LOOK
        for port in self._ports:
            port.look(self._table)
        self.counters()

    def _count(self) -> None:
        """Add the kernel's counts up; reading those of a ring sets them back."""
        self._dropped += self._early.count()
        for port in self._ports:
            for each in port.sockets:
                dropped, frozen = each.statistics()
                self._dropped += dropped
                self._frozen += frozen

    def _reopen(self) -> None:
        """Listen again to interfaces that were made anew, once no frame of their rings is held."""
        for number, port in enumerate(self._ports):
            if port.replaced and not any(self._rings.is_out(ring) for ring in self._ring_numbers(number)):
                with self._lock:
                    self._count()
                    before = port.sockets
                    port.reopen(self._table)
                    self._early.reopen(port.name)
                    if port.sockets is not before:
                        self._place(number)
                        self._poller = self._watch()


def _check(interfaces: Sequence[str], options: RingOptions) -> None:
    """Raise `LiveCaptureError` for what makes no sense."""
    if not hasattr(socket, "AF_PACKET"):
        raise LiveCaptureError("This system has no AF_PACKET sockets (only Linux has). Capture with scapy instead.")
    if not interfaces or len(set(interfaces)) < len(interfaces) or (ANY in interfaces and len(interfaces) > 1):
        raise LiveCaptureError(
            f"Name each interface once, or {ANY!r} alone: {', '.join(interfaces) or 'none is named'}."
        )
    size = options.block_size
    if size < mmap.PAGESIZE or size & (size - 1):
        raise LiveCaptureError(f"A block of {size} octets: it must be a power of two and at least {mmap.PAGESIZE}.")
    if options.ring_size // max(options.sockets, 1) > _LARGEST_RING:
        raise LiveCaptureError(f"A ring of {options.ring_size >> 20} MiB: the kernel makes none above 4 GiB.")
    if options.sockets < 1 or options.batch_rows < size // SMALLEST_FRAME:
        raise LiveCaptureError(
            f"A batch must have room for a block: at least {size // SMALLEST_FRAME} rows, and an interface one socket."
        )
