"""Where the streams of all calls in progress are found: by flow, by SSRC, by pair of endpoints.

In: streams as they begin, change hands and end. Out: look-ups, and the layout in which the kernels go through them. It
decides nothing about a stream and reads no packet.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from capture.address import Endpoint
from decoders.rtp import IGNORED, FlowTable
from recorder.shard import Layout, channels_of
from recorder.streams import CallMedia, Listening, MediaStream

Member = tuple[CallMedia, MediaStream]
"""A stream with the media of its call."""


@dataclass(slots=True)
class StreamIndex:
    """Streams of calls; a flow that several calls claim has a stream in each."""

    workers: int = 1
    by_flow: dict[int, list[Member]] = field(default_factory=dict)
    by_ssrc: dict[int, list[Member]] = field(default_factory=dict)
    by_pair: dict[tuple[Endpoint, Endpoint], CallMedia] = field(default_factory=dict)
    """(source, destination) -> the call that had a stream there last."""
    _at: dict[Endpoint, set[int]] = field(default_factory=dict)
    _layout: Layout | None = None
    """None when streams came or went since it was made."""

    def add(self, media: CallMedia, stream: MediaStream) -> None:
        """A stream begins."""
        self.by_flow.setdefault(stream.flow, []).append((media, stream))
        self.by_ssrc.setdefault(stream.ssrc, []).append((media, stream))
        self.by_pair[stream.source, stream.destination] = media
        self.see_at(stream.flow, stream.source, stream.destination)
        media.streams.append(stream)
        self._layout = None

    def remove(self, media: CallMedia, stream: MediaStream) -> bool:
        """The call of a stream is over. True where its flow has no stream any more."""
        held = _without(self.by_flow.get(stream.flow, []), stream)
        if not _without(self.by_ssrc.get(stream.ssrc, []), stream):
            self.by_ssrc.pop(stream.ssrc, None)
        if self.by_pair.get((stream.source, stream.destination)) is media:
            del self.by_pair[stream.source, stream.destination]
        self._layout = None
        if held or stream.flow not in self.by_flow:
            return False
        del self.by_flow[stream.flow]
        return True

    def ignore_where_nobody_listens(self, flow: int, table: FlowTable) -> None:
        """Pass over the packets of a flow that no call wants to hear or count."""
        if all(media.listening is Listening.PASSED_OVER for media, _ in self.by_flow.get(flow, ())):
            table.states[flow] = IGNORED

    def end_flow(self, stream: MediaStream) -> None:
        """Another call has the flow of a stream now; a flow always keeps one."""
        held = self.by_flow.get(stream.flow, [])
        if len(held) > 1:
            _without(held, stream)
            self._layout = None

    def give(self, stream: MediaStream, media: CallMedia) -> None:
        """A stream in progress belongs to another call."""
        self.by_pair[stream.source, stream.destination] = media
        for held in (self.by_flow.get(stream.flow, []), self.by_ssrc.get(stream.ssrc, [])):
            held[:] = [(media, s) if s is stream else (m, s) for m, s in held]
        self._layout = None

    def see_at(self, flow: int, source: Endpoint, destination: Endpoint) -> None:
        """A flow was seen at these endpoints."""
        for where in (source, destination):
            self._at.setdefault(where, set()).add(flow)

    def forget_at(self, flow: int, source: Endpoint, destination: Endpoint) -> None:
        """A flow is over."""
        for where in (source, destination):
            there = self._at.get(where)
            if there is not None:
                there.discard(flow)
                if not there:
                    del self._at[where]

    def flows_at(self, endpoints: Iterable[Endpoint]) -> list[int]:
        """The flows seen at any of these endpoints, ascending."""
        return sorted({flow for where in endpoints for flow in self._at.get(where, ())})

    def refresh(self) -> None:
        """What the layout was made of has changed in a stream."""
        self._layout = None

    def layout(self) -> Layout:
        """The streams as the kernels go through them: by worker, call and track, first sightings before copies."""
        if self._layout is None:
            self._layout = self._lay_out()
        return self._layout

    def _lay_out(self) -> Layout:
        members = [member for held in self.by_flow.values() for member in held]
        members.sort(
            key=lambda m: (
                m[0].call.index % self.workers,
                m[0].call.index,
                m[1].fast_rate,
                m[1].layer,
                m[1].primary is not None,
                m[1].first_time,
                m[1].row,
            )
        )
        owners = np.array([media.call.index % self.workers for media, _ in members], np.int64)
        return Layout(
            members=members,
            rows=np.array([stream.row for _, stream in members], np.int32),
            flows=np.array([stream.flow for _, stream in members], np.int32),
            channels=channels_of(members),
            cuts=[int(np.searchsorted(owners, w)) for w in range(self.workers)] + [len(members)],
        )


def _without(held: list[Member], stream: MediaStream) -> list[Member]:
    """The same list with a stream taken out."""
    held[:] = [member for member in held if member[1] is not stream]
    return held
