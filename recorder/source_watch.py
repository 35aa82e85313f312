"""What the sources of a live service have to tell: drops, rings that were full, links that are down, silence.

In: the sources' counters, about once a second. Out: alarms, the number of packets that were lost since the last look,
and the sources' part of the status. It polls none of them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from capture.live import LiveSource
from recorder.alarms import Alarms
from recorder.status import AlarmCode, SourceStatus
from recorder.status_board import RateMeter

SILENCE = 60.0
"""s without a packet that are worth an alarm."""


@dataclass(slots=True)
class SourceWatch:
    """Looks at all sources together."""

    alarms: Alarms
    last_packet: float | None = None
    """When the last packet came, monotonic, s."""
    down: bool = False
    """A source gives nothing at present."""
    _rates: RateMeter = field(default_factory=RateMeter)
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Source -> packets dropped and times that its ring was full, as of the last look."""

    @property
    def silent_for(self) -> float | None:
        """Seconds since the last packet, None until one has come."""
        return None if self.last_packet is None else time.monotonic() - self.last_packet

    def look(self, sources: Sequence[LiveSource], wall: int, now: float) -> int:
        """Packets that the kernel dropped since the last look. `wall`: time, ns; `now`: monotonic, s."""
        lost = frozen = 0
        down = []
        for source in sources:
            counters = source.counters()
            dropped, stops = self._seen.get(source.name, (0, 0))
            lost += counters.dropped - dropped
            frozen += counters.frozen - stops
            self._seen[source.name] = (counters.dropped, counters.frozen)
            if not counters.up:
                down.append(f"{source.name}: {counters.note or 'gives nothing'}")
        self.down = bool(down)
        self.alarms.set(AlarmCode.SOURCE_DOWN, "; ".join(down) or None, wall)
        if lost:
            text = f"The kernel dropped {lost} packets of all traffic; calls in progress may miss some."
            self.alarms.happened(AlarmCode.KERNEL_DROPS, text, wall, now)
        if frozen:
            text = "The ring was full; raise --ring-size or give the machine less to do."
            self.alarms.happened(AlarmCode.RING_FROZEN, text, wall, now)
        silent = self.last_packet is not None and now - self.last_packet > SILENCE and not down
        self.alarms.set(AlarmCode.NO_PACKETS, f"No packet for {SILENCE:.0f} s." if silent else None, wall)
        return lost

    def statuses(self, sources: Sequence[LiveSource], now: float) -> tuple[SourceStatus, ...]:
        """Each source as the status shows it."""
        shown = tuple(self._status(source, now) for source in sources)
        self._rates.end_round()
        return shown

    def _status(self, source: LiveSource, now: float) -> SourceStatus:
        counters = source.counters()
        return SourceStatus(
            name=source.name,
            packets=counters.packets,
            octets=counters.octets,
            dropped=counters.dropped,
            frozen=counters.frozen,
            up=counters.up,
            packets_per_second=self._rates.per_second(source.name, counters.packets, now),
            note=counters.note,
        )
