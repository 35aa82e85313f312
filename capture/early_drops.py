"""Frames that were lost before they came to any socket: the network card's buffers or the kernel's queue were full.

In: names of interfaces. Out: how many frames were lost since it was opened. A ring's own counters tell nothing of
these, so that a recorder which reads only them calls a call whole that is not. The files are opened once and read again
and again, for a process that may open none later on.

The card's counters are of one interface. The kernel's queue (net.core.netdev_max_backlog, frames of each processor) is
counted for the whole machine only: what it loses may be of another interface.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from capture.interface import ANY

SOFTNET = Path("/proc/net/softnet_stat")
NETWORK = Path("/sys/class/net")
_OF_THE_CARD = ("rx_missed_errors", "rx_fifo_errors")
"""Drivers count a full receive ring in the one or the other, some in both."""


class _Counter:
    """A counter in a file. It may begin at 0 again."""

    def __init__(self, path: Path, value: Callable[[str], int]) -> None:
        self._path = path
        self._value = value
        self._descriptor: int | None = None
        self.reopen()
        self._last = self._read() or 0

    def growth(self) -> int:
        """Since the last call; 0 where it cannot be read."""
        now = self._read()
        if now is None:
            return 0
        grown = now - self._last if now >= self._last else now
        self._last = now
        return grown

    def reopen(self) -> None:
        """The file is another one now. Where it may not be opened, nothing is read from here on."""
        self.close()
        with suppress(OSError):
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self) -> int | None:
        if self._descriptor is None:
            return None
        try:
            return self._value(os.pread(self._descriptor, 1 << 18, 0).decode("ascii"))
        except (OSError, ValueError, IndexError):
            return None


class EarlyDrops:
    """Counts from 0 on that only grow. Never raises: what cannot be read adds nothing."""

    def __init__(self, interfaces: Iterable[str], softnet: Path = SOFTNET, network: Path = NETWORK) -> None:
        self.in_card = 0
        """Frames for which the interfaces' own receive rings had no room."""
        self.in_queue = 0
        """Frames for which the kernel's queues had no room, of all interfaces of the machine."""
        self._queue = _Counter(softnet, _second_columns)
        self._cards = {
            name: [_Counter(network / name / "statistics" / each, int) for each in _OF_THE_CARD]
            for name in interfaces
            if name != ANY
        }

    @property
    def notes(self) -> list[str]:
        """What was lost and what to do about it, in sentences."""
        notes = []
        if self.in_card:
            notes.append(f"The network card's receive ring was full, {self.in_card} frames are lost (ethtool -G).")
        if self.in_queue:
            what = "The kernel's queue before all programs was full"
            notes.append(f"{what}, {self.in_queue} frames are lost (sysctl net.core.netdev_max_backlog).")
        return notes

    def count(self) -> int:
        """Frames lost since the last call."""
        in_queue = self._queue.growth()
        in_card = sum(max(counter.growth() for counter in card) for card in self._cards.values())
        self.in_queue += in_queue
        self.in_card += in_card
        return in_queue + in_card

    def reopen(self, interface: str) -> None:
        """The interface was made anew."""
        for counter in self._cards.get(interface, ()):
            counter.reopen()

    def close(self) -> None:
        """Close the files. What was counted can still be asked for."""
        for counter in (self._queue, *(each for card in self._cards.values() for each in card)):
            counter.close()


def _second_columns(text: str) -> int:
    """Sum over the processors of the frames dropped (hexadecimal), as the kernel's softnet_data has them."""
    return sum(int(line.split()[1], 16) for line in text.splitlines())
