"""What every live source of packets has in common.

In: nothing. Out: the `LiveSource` protocol that the service polls, and the `SourceCounters` that it reports. Sources
are made by their own modules: `capture.ring` (AF_PACKET), `capture.sniffer` (scapy), and others in the same shape.
"""

from dataclasses import dataclass
from typing import Protocol

from capture.batch import PacketBatch
from capture.errors import SpanrecError


class LiveCaptureError(SpanrecError):
    """An interface or a listener cannot be opened, or a filter cannot be used."""


@dataclass(frozen=True, slots=True)
class SourceCounters:
    """What a source has seen since it was opened. Counts only grow, also where an interface came back anew."""

    packets: int
    """Frames handed over."""
    octets: int
    """Octets that these frames had on the wire."""
    dropped: int
    """Frames that never reached the source because it, or what stands before it, was full."""
    frozen: int
    """Times the kernel stopped filling a ring that was full."""
    up: bool
    """Whether all of the source can give packets at present."""
    note: str | None
    """What an operator should know, in a sentence or two: whose clock the times are from, what is down and why."""


class LiveSource(Protocol):
    """Packets as they come. Not to be polled by two threads at once; `counters` may be called from any."""

    name: str
    stamped_here: bool
    """Whether times are this machine's, so that they tell how far the reader is behind."""
    # A source whose packets are apart from those of all others has a `realm: int` too (`capture.realms`).

    @property
    def ended(self) -> bool:
        """Whether nothing more can come, ever."""
        ...

    def poll(self, timeout: float) -> PacketBatch | None:
        """The next packets, waiting at most `timeout` seconds for the first; None where nothing came.

        The batch's buffer is valid until the next `poll` or `close`. Never raises for what comes over the wire or for
        an interface that goes away.
        """
        ...

    def counters(self) -> SourceCounters:
        """Cumulative counts; asking costs no more than the kernel's counters once a second."""
        ...

    def close(self) -> None:
        """Let go of descriptors and memory. A second call does nothing."""
        ...
