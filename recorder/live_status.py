"""The state of the live service as values, made by its loop.

In: the engine, the calls in progress, the sources' counters. Out: `Snapshot` and `LiveCall`s for the status board. It
changes nothing but its own tallies, and is asked about once a second.
"""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from decoders import _stream_columns as cols
from decoders.quality import Scale
from recorder.engine import Engine
from recorder.live_calls import LiveCalls, LiveRecord
from recorder.model import Call, CallState, StreamReport
from recorder.reports import streams_so_far
from recorder.status import DiskDelay, LiveCall, LiveState, LiveStream, MosHistogram, Traffic, live_state
from recorder.status_board import RateMeter
from recorder.streams import CallMedia

MINUTE = 60.0
"""s for which the longest delay to the disk is told."""


@dataclass(slots=True)
class Tally:
    """What is counted since the service started."""

    ended: dict[CallState, int] = field(default_factory=dict)
    mos: dict[Scale, MosHistogram] = field(default_factory=dict)
    _delays: deque[tuple[float, float]] = field(default_factory=deque)
    """When, and how late audio was on the disk."""

    def note_end(self, call: Call, streams: Iterable[StreamReport]) -> None:
        """A call is over; `streams`: those whose quality counts."""
        self.ended[call.state] = self.ended.get(call.state, 0) + 1
        for stream in streams:
            if stream.mos is not None and stream.mos_scale is not None:
                scale = Scale(stream.mos_scale)
                self.mos[scale] = self.mos.get(scale, MosHistogram()).with_value(stream.mos)

    def note_delay(self, now: float, delay: float) -> None:
        """Audio was on the disk `delay` s after the wire. `now`: monotonic, s."""
        self._delays.append((now, delay))

    def delay(self, now: float) -> DiskDelay | None:
        """The last delay and the longest of the last minute."""
        while self._delays and now - self._delays[0][0] > MINUTE:
            self._delays.popleft()
        return DiskDelay(self._delays[-1][1], max(delay for _, delay in self._delays)) if self._delays else None


def traffic(engine: Engine) -> Traffic:
    """What went through the engine."""
    counts = engine.counts
    return Traffic(
        sip=counts.sip_messages,
        sip_ignored=counts.sip_ignored,
        sip_unsound=engine.messages.unsound,
        rtp=counts.rtp,
        rtcp=counts.rtcp,
    )


class CallLister:
    """Makes the list of calls in progress, for as long as somebody looks."""

    def __init__(self, engine: Engine, live: LiveCalls) -> None:
        self._engine = engine
        self._live = live
        self._rates = RateMeter()

    def states(self) -> dict[LiveState, int]:
        """How many calls are in each state."""
        counts: dict[LiveState, int] = {}
        for record in self._live.records.values():
            state = live_state(record.call)
            counts[state] = counts.get(state, 0) + 1
        return counts

    def streams(self) -> int:
        """RTP streams of calls in progress."""
        media = self._engine.media.calls if self._engine.media is not None else {}
        return sum(len(media[index].streams) for index in self._live.records if index in media)

    def calls(self, now: int) -> list[LiveCall]:
        """Calls in progress at capture time `now`, oldest first."""
        media = self._engine.media.calls if self._engine.media is not None else {}
        listed = [self._call(record, media.get(index), now) for index, record in self._live.records.items()]
        self._rates.end_round()
        return listed

    def _call(self, record: LiveRecord, media: CallMedia | None, now: int) -> LiveCall:
        call = record.call
        ended = call.ended if call.ended is not None else now
        return LiveCall(
            id=str(call.id),
            call_id=call.call_id,
            state=live_state(call),
            started=call.started,
            answered=call.answered,
            duration=max(ended - call.started, 0) / 1e9,
            caller=call.caller.uri,
            callee=call.callee.uri,
            action=record.decision.action,
            streams=self._streams(media, now),
            warnings=tuple(warning.code for warning in call.warnings),
        )

    def _streams(self, media: CallMedia | None, now: int) -> tuple[LiveStream, ...]:
        engine = self._engine
        if media is None or engine.media is None:
            return ()
        return tuple(self._stream(media, report, now) for report in streams_so_far(media, engine.media.table))

    def _stream(self, media: CallMedia, report: StreamReport, now: int) -> LiveStream:
        assert self._engine.media is not None
        key = (media.call.index, report.ssrc, report.source, report.destination)
        rows = [s.row for s in media.streams if s.ssrc == report.ssrc and s.source == report.source]
        figures = self._engine.media.table.figures[rows[0]] if rows else None
        jitter = float(figures[cols.JITTER]) * 1000 / report.clock_rate if figures is not None else None
        return LiveStream(
            side=report.side,
            codec=report.codec,
            source=str(report.source),
            destination=str(report.destination),
            packets=report.packets,
            lost=report.lost,
            jitter_ms=jitter,
            mos=report.mos,
            packets_per_second=self._rates.per_second(key, report.packets, time.monotonic()),
            last_packet_age=max(now - report.ended, 0) / 1e9,
        )
