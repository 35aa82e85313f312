"""Streams that carry the same media: one packet seen at several places, or passed on by a relay.

In: streams and unannounced flows as they begin. Out: which stream of the call a stream is a copy of, which of two hops
is heard, and pairs of calls that belong together. Equal SSRCs must run in step, other ones must have equal payloads
(`recorder/identity.py`). It binds no flow to a call and touches no audio.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from capture.address import Endpoint
from decoders import _stream_columns as cols
from decoders.rtp import Stager
from decoders.timeline import StreamTable
from recorder.identity import MediaIdentity, most_lag
from recorder.shard import Layout
from recorder.stream_index import Member, StreamIndex
from recorder.streams import CallMedia, MediaStream

SAME_LAG = 20_000_000
"""ns by which the sightings of one packet at several hops may differ in their lag."""
SILENT_FOR = 1_000_000_000
"""ns without a packet after which a nearer sighting no longer keeps a farther one from being heard."""
TAKEN_OVER = 60_000_000
"""ns without a packet after which a recording session that begins has taken a call over from another one, and does not
show the same media at a second hop."""


class _Beginning(NamedTuple):
    """The first packet of a flow that is no stream yet."""

    flow: int
    source: Endpoint
    destination: Endpoint
    first_time: int
    first_sequence: int
    first_stamp: int


@dataclass(frozen=True, slots=True)
class SameMedia:
    """Compares beginning streams with those in progress."""

    index: StreamIndex
    table: StreamTable
    stager: Stager
    identity: MediaIdentity
    group: Callable[[int, int], None]
    """Two calls (by index) carry the same media."""

    # In one call

    def primary_of(self, media: CallMedia, stream: MediaStream) -> MediaStream | None:
        """The stream of the call that shows the same packets at another place, if there is one."""
        for other in media.streams:
            alike = other.primary is None and other.ssrc == stream.ssrc and other.media == stream.media
            if alike and other.speaker is stream.speaker and self._runs_with(other, stream):
                return other
        return None

    def yield_to_nearer(self, media: CallMedia, stream: MediaStream) -> None:
        """Of one direction at two hops (a relay that rewrites its packets), the one nearer the speaker is heard."""
        flows = self.stager.flows
        gone = TAKEN_OVER if media.call.received else SILENT_FOR
        for other in media.streams:
            apart = not (other.hops & stream.hops) and bool(other.hops) and bool(stream.hops)
            same = other.speaker is stream.speaker and other.media == stream.media and other.primary is None
            heard = int(flows.last[other.flow]) >= stream.first_time - gone
            if not (apart and same and heard) or other.alternate:
                continue
            if other.nearness <= stream.nearness:
                stream.alternate = True
            else:
                other.alternate = True

    def step_in(self, layout: Layout, lasts: list[int], now: int) -> None:
        """Let farther sightings be heard where the nearer one fell silent.

        `lasts`: capture time of the last packet of each member's flow, ns; `now`: capture time reached, ns.
        """
        for x, (media, stream) in enumerate(layout.members):
            if stream.alternate and now - lasts[x] < SILENT_FOR and self._is_alone(media, stream, lasts[x]):
                stream.alternate = False
                self.index.refresh()

    def _is_alone(self, media: CallMedia, stream: MediaStream, last: int) -> bool:
        """Nobody nearer to the speaker is heard now."""
        flows = self.stager.flows
        return all(
            other is stream
            or other.alternate
            or other.speaker is not stream.speaker
            or other.media != stream.media
            or last - int(flows.last[other.flow]) > SILENT_FOR
            for other in media.streams
        )

    # Between calls

    def relate(self, media: CallMedia, stream: MediaStream) -> None:
        """Group calls that carry the same media: an equal SSRC that runs in step in another call.

        Where the other is a recording session, what it carries is another sighting of the call's media.
        """
        others = self.index.by_ssrc.get(stream.ssrc, ())
        found = [(self._lag(o, stream), m, o) for m, o in others if m is not media and self._in_step(o, stream)]
        # A load generator plays the same to many calls: only the nearest may be the one that was passed on.
        nearest = min((lag for lag, _, _ in found), default=0)
        for lag, other_media, other in found:
            if lag <= nearest + SAME_LAG:
                self._join(other_media, other, media, stream)
        for twin in self.identity.twins(stream.flow):
            for other_media, other in self.index.by_flow.get(twin, ()):
                if other.ssrc != stream.ssrc:
                    self._join(other_media, other, media, stream)

    def find_twins(self, unclaimed: Iterable[int]) -> None:
        """Compare the payloads of beginning flows: calls of a relay that rewrites its packets belong together."""
        for flow in unclaimed:
            self.identity.begin(flow)
        for one, other in self.identity.look(self.stager):
            for media, stream in self.index.by_flow.get(one, ()):
                for other_media, other_stream in self.index.by_flow.get(other, ()):
                    if stream.ssrc != other_stream.ssrc:
                        self._join(media, stream, other_media, other_stream)

    def shown_elsewhere(self, flow: int) -> Member | None:
        """The stream whose media an unannounced flow shows at another hop, by its SSRC or its payloads."""
        table, window = self.stager.flows, self.stager.window
        first = int(self.stager.order[self.stager.starts[flow]])
        source, destination = table.source(flow), table.destination(flow)
        time, sequence, stamp = window.time[first], window.sequence[first], window.stamp[first]
        beginning = _Beginning(flow, source, destination, int(time), int(sequence), int(stamp))
        found = [
            (self._lag(other, beginning), other.first_time, other.row, media, other)
            for media, other in self.index.by_ssrc.get(int(table.ssrcs[flow]), ())
            if other.primary is None and not media.recording_session and self._in_step(other, beginning)
        ]
        if found:
            return min(found, key=lambda each: each[:3])[3:]
        for twin in self.identity.twins(flow):
            for media, other in self.index.by_flow.get(twin, ()):
                if other.primary is None and not other.alternate and not media.recording_session:
                    return media, other
        return None

    def _join(self, one: CallMedia, stream: MediaStream, other: CallMedia, other_stream: MediaStream) -> None:
        """Two streams carry the same media: group their calls, or count what a recording session carries."""
        if one is other:
            return
        if one.recording_session:
            other_stream.forks |= {one.call.index}
        elif other.recording_session:
            stream.forks |= {other.call.index}
        else:
            self.group(one.call.index, other.call.index)

    # Of one SSRC

    def _runs_with(self, other: MediaStream, stream: MediaStream | _Beginning) -> bool:
        """Whether sequence number and timestamp of a beginning stream continue those of another."""
        state = self.table.state[other.row]
        if state[cols.STARTED]:
            sequence, stamp = int(state[cols.TOP]), int(state[cols.UTS])
        else:
            sequence, stamp = other.first_sequence, other.first_stamp
        steps = (stream.first_sequence - sequence + 1500) & 0xFFFF
        ticks = (stream.first_stamp - stamp + 480_000) & 0xFFFFFFFF
        return steps < 3000 and ticks < 960_000 and stream.flow != other.flow

    def _in_step(self, other: MediaStream, stream: MediaStream | _Beginning) -> bool:
        """Whether a beginning stream of the same SSRC shows the packets of another one, passed on by somebody."""
        if other.flow == stream.flow:
            return True
        if not self._runs_with(other, stream) or self.stager.flows.last[other.flow] < stream.first_time - SILENT_FOR:
            return False
        return self._lag(other, stream) <= most_lag(other.source, other.destination, stream.source, stream.destination)

    def _lag(self, other: MediaStream, stream: MediaStream | _Beginning) -> int:
        """ns between the sightings of the same packet in two streams of one SSRC, by their timestamps."""
        state = self.table.state[other.row]
        stamp, time, clock = other.first_stamp, other.first_time, 8000
        if state[cols.STARTED]:
            stamp, time = int(state[cols.UTS]), int(state[cols.LAST_TIME])
            clock = int(state[cols.SEGMENT_CLOCK]) or clock
        ahead = ((stream.first_stamp - stamp + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        return abs(stream.first_time - time - ahead * 1_000_000_000 // clock)
