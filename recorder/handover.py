"""Handover: session descriptions that say otherwise of flows which were met before.

In: endpoints announced since the last window, and flows that go on after their call. Out: flows that belong to another
call from the capture time of its description on, packet by packet; calls that take over what was recorded before their
signalling came. It never takes packets back from before that time.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from capture.batch import Int64
from decoders.rtp import Stager
from recorder.binding import Binding
from recorder.endpoints import WAIT, Claim, EndpointRegistry
from recorder.model import Call, CallState
from recorder.shard import Layout, Shard
from recorder.stream_index import StreamIndex
from recorder.streams import CallMedia, MediaStream
from recorder.unclaimed import UnclaimedFlows


@dataclass(frozen=True, slots=True)
class Handover:
    """Moves flows from call to call."""

    registry: EndpointRegistry
    stager: Stager
    index: StreamIndex
    calls: dict[int, CallMedia]
    binding: Binding
    unclaimed: UnclaimedFlows
    shards: Sequence[Shard]
    directory_of: Callable[[Call], Path]
    absorbed: Callable[[Call], None]
    """A call without signalling turned out to be part of another and is no more."""
    _moved: list[tuple[MediaStream, int]] = field(default_factory=list)
    """(stream, capture time): the stream of a flow that changed hands ends, or begins, at that time."""

    def revisit(self, now: int) -> None:
        """Endpoints were announced: flows seen there may belong to another call from then on."""
        changed, self.registry.changed = self.registry.changed, set()
        for flow in self.index.flows_at(changed):
            if flow in self.unclaimed.ignored:
                self.unclaimed.reconsider(flow, now)
            elif flow in self.index.by_flow:
                self._hand_over(flow, now)

    def resume(self, flows: Iterable[int], now: int) -> None:
        """Flows of the window whose call is over belong to the next call that announces them, from then on."""
        if self.unclaimed.spent:
            for flow in flows:
                if flow in self.unclaimed.spent:
                    self._resume(flow, now)

    def split(self, layout: Layout, begins: Int64, counts: Int64) -> None:
        """Give packets of a flow that changed hands to the old stream before that time, to the new one after it.

        `begins`, `counts`: each member's part of the window's order, one item per member; changed in place.
        """
        if not self._moved:
            return
        window, order = self.stager.window, self.stager.order
        place = {id(stream): x for x, (_, stream) in enumerate(layout.members)}
        for stream, at in self._moved:
            x = place.get(id(stream))
            if x is None:
                continue
            begin, count = int(begins[x]), int(counts[x])
            before = int(np.count_nonzero(window.time[order[begin : begin + count]] < at))
            if stream.since == at:
                begins[x] += before
                counts[x] -= before
            else:
                counts[x] = before

    def finish(self) -> None:
        """The window is done: streams whose flow went to another call get no more packets."""
        for stream, at in self._moved:
            if stream.since != at:
                self.index.end_flow(stream)
        self._moved.clear()

    def _resume(self, flow: int, now: int) -> None:
        table, stager = self.stager.flows, self.stager
        source, destination = table.source(flow), table.destination(flow)
        dropped = int(stager.starts[flow + 1] - stager.starts[flow])
        for claim in self.registry.claims(source, destination, int(table.realms[flow]), now):
            media = self.calls.get(claim.by.call)
            if media is None or claim.by.since > now:
                continue
            mine = stager.order[stager.starts[flow] : stager.starts[flow + 1]]
            dropped = min(dropped, int(np.count_nonzero(stager.window.time[mine] < claim.by.since)))
            if dropped == len(mine):
                break
            self._moved.append((self.binding.claimed(flow, media, claim, begin=dropped), claim.by.since))
            self.unclaimed.spent.discard(flow)
        self.unclaimed.packets += dropped

    def _hand_over(self, flow: int, now: int) -> None:
        table, starts = self.stager.flows, self.stager.starts
        if starts[flow] == starts[flow + 1]:
            return
        source, destination = table.source(flow), table.destination(flow)
        held = self.index.by_flow[flow]
        for claim in self.registry.claims(source, destination, int(table.realms[flow]), now):
            media = self.calls.get(claim.by.call)
            if media is None or any(m is media for m, _ in held):
                continue
            if self._adopt(flow, media, claim):
                return
            for other_media, other in held:
                if other_media.call.ended is not None and claim.by.since > other.since:
                    self._moved.append((other, claim.by.since))
            stream = self.binding.claimed(flow, media, claim)
            if now - claim.by.since < 4 * WAIT:
                self._moved.append((stream, claim.by.since))

    def _adopt(self, flow: int, media: CallMedia, claim: Claim) -> bool:
        """Signalling came late: the call takes over what was recorded as media without signalling."""
        held = self.index.by_flow[flow]
        orphan = next((m for m, _ in held if m.call.state is CallState.MEDIA_ONLY), None)
        if orphan is None or media.zero is not None or media.streams:
            return False
        turned = next(s for s in orphan.streams if s.flow == flow).speaker is not claim.speaker
        media.zero, media.started = orphan.zero, orphan.started
        media.tracks, media.streams, media.last_media = orphan.tracks, orphan.streams, orphan.last_media
        self._move_tracks(orphan, media, turned=turned)
        for stream in media.streams:
            if turned:
                stream.speaker = stream.speaker.other
            stream.rule, stream.hops, stream.claim = claim.rule, self.registry.hops(claim.by), claim
            self.index.give(stream, media)
        for capture, (first, last) in orphan.call.captures.items():
            media.call.see(capture, first)
            media.call.see(capture, last)
        del self.calls[orphan.call.index]
        self.absorbed(orphan.call)
        return True

    def _move_tracks(self, orphan: CallMedia, media: CallMedia, *, turned: bool) -> None:
        """The files go to the directory of the call; `turned`: its caller was taken for the callee."""
        shard = self.shards[orphan.call.index % len(self.shards)]
        for track in media.tracks:
            if turned:
                track.swap_channels(shard.pool)
            shard.pool.close(track)
            media.directory = self.directory_of(media.call)
            track.path = track.path.rename(media.directory / track.path.name)
