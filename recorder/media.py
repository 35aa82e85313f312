"""The media engine: RTP flows become streams of calls, window by window.

In: a window of staged packets, the endpoint registry, and the calls that signalling knows. Out: samples in the calls'
tracks and, when a call is over, the reports of its streams. Decisions stand on capture content and capture time alone:
a window ends at the same packet whatever the batches or workers. Read `MediaEngine._pass` first: it is the order of
things. Whose a flow is, others decide (`recorder/claiming.py`, `recorder/handover.py`).
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capture.address import Endpoint
from capture.batch import Int64
from decoders import _stream_columns as cols
from decoders.rtcp import RtcpCompound, RttEstimator
from decoders.rtp import Stager
from decoders.timeline import Entries, EntrySpace, FormatTable, StreamTable
from recorder.binding import Binding
from recorder.claiming import Claiming
from recorder.endpoints import EndpointRegistry
from recorder.handover import Handover
from recorder.identity import MediaIdentity
from recorder.model import Call
from recorder.renewal import Renewals
from recorder.same_media import SameMedia
from recorder.shard import Layout, Shard
from recorder.stream_index import StreamIndex
from recorder.streams import CallMedia, Listening
from recorder.tracks import FilePool, StoreError, Track, files_allowed
from recorder.unclaimed import UnclaimedFlows

HOLD = 500_000_000
"""ns of a beginning stream that must be seen before its place is settled."""


@dataclass(slots=True)
class MediaEngine:
    """Owns the flows and streams of all calls in progress."""

    registry: EndpointRegistry
    stager: Stager
    epoch: int
    """Capture time that the timeline counts from, ns."""
    new_media_call: Callable[[int, int, int, Endpoint, Endpoint], Call]
    """(time, frame, capture, source, destination) -> a call for media without signalling."""
    same_media: Callable[[int, int], None]
    """Two calls (by index) carry the same media."""
    absorbed: Callable[[Call], None]
    """A call without signalling turned out to be part of another and is no more."""
    directory_of: Callable[[Call], Path]
    workers: int = 1
    executor: Executor | None = None
    store_failed: Callable[[Call, StoreError], None] | None = None
    """Told, by any thread, of a call whose audio cannot be written any more; without it, that is an error."""
    headed: bool = False
    """Tracks in the making are playable files."""
    listening: Callable[[Call], Listening] = lambda _: Listening.HEARD
    """How much of a beginning call's media is wanted."""
    table: StreamTable = field(default_factory=StreamTable)
    formats: FormatTable = field(default_factory=FormatTable)
    calls: dict[int, CallMedia] = field(default_factory=dict)
    unclaimed: UnclaimedFlows = field(init=False)
    _index: StreamIndex = field(init=False)
    _identity: MediaIdentity = field(init=False)
    _same: SameMedia = field(init=False)
    _claiming: Claiming = field(init=False)
    _handover: Handover = field(init=False)
    _renewals: Renewals = field(init=False)
    _shards: list[Shard] = field(init=False)
    _entries: EntrySpace = field(default_factory=EntrySpace)
    _round_trips: RttEstimator = field(default_factory=RttEstimator)

    def __post_init__(self) -> None:
        registry, stager, table, formats = self.registry, self.stager, self.table, self.formats
        allowed = files_allowed(self.workers)
        failed = self._track_failed if self.store_failed is not None else None
        self._shards = [
            Shard(table, formats, self.directory_of, self.epoch, FilePool(allowed, headed=self.headed, failed=failed))
            for _ in range(self.workers)
        ]
        self._renewals = Renewals(registry, table, formats)
        self._index = index = StreamIndex(self.workers)
        self._identity = identity = MediaIdentity(stager.flows)
        self._same = same = SameMedia(index, table, stager, identity, self.same_media)
        self.unclaimed = unclaimed = UnclaimedFlows(stager, index)
        binding = Binding(registry, stager, index, table, formats, identity, same)
        self._claiming = Claiming(
            registry, stager, index, self.calls, binding, same, identity, unclaimed, self._begin_call
        )
        self._handover = Handover(
            registry, stager, index, self.calls, binding, unclaimed, self._shards, self.directory_of, self.absorbed
        )

    # Windows

    def close_window(self, now: int, *, full: bool = False, final: bool = False) -> None:
        """Process what is staged. `now`: capture time reached (ns); `full`: there is no room to wait for more."""
        self._pass(now, 0 if final else HOLD, final=final)
        if full and self.stager.crowded:
            # What is held back would leave no room for what comes: nothing waits any longer.
            self._pass(now, 0, final=False)
        if full and not self.stager.flows_free:
            self.unclaimed.make_room()
        self.stager.refuse_new_flows(not self.stager.flows_free)

    def _pass(self, now: int, hold: int, *, final: bool) -> None:
        """Claim, receive and place what is staged; what has begun less than `hold` ns ago may wait."""
        stager = self.stager
        flows = stager.group().tolist()
        self._handover.revisit(now)
        self._renewals.begin(self.calls)
        self._handover.resume(flows, now)
        self._claiming.meet(flows, now, forced=hold == 0 or final)
        keep = np.zeros(stager.window.count, np.bool_)
        self.unclaimed.hold(keep)
        layout = self._index.layout()
        if layout.members:
            self._process(layout, now, hold, keep)
        self._renewals.finish(keep, stager)
        self._handover.finish()
        self._after(layout, now)
        stager.carry(keep)
        self.unclaimed.forget_idle(now)

    def _process(self, layout: Layout, now: int, hold: int, keep: NDArray[np.bool_]) -> None:
        """Run all shards over the streams' packets and mark what is not settled."""
        stager, window = self.stager, self.stager.window
        begins: Int64 = stager.starts[layout.flows]
        counts: Int64 = stager.starts[layout.flows + 1] - begins
        self._handover.split(layout, begins, counts)
        self._renewals.limit((stream for _, stream in layout.members), begins, counts, stager)
        entries = self._entries.lay_out(layout.rows, begins, counts, stager.order, window)
        before = self.table.state[layout.rows][:, (cols.LAST_CAPTURE, cols.LAST_NUMBER)]
        if self.executor is None:
            for part, shard in enumerate(self._shards):
                shard.run(layout, part, entries, window, now, hold)
        else:
            running = [
                self.executor.submit(shard.run, layout, part, entries, window, now, hold)
                for part, shard in enumerate(self._shards)
            ]
            for task in running:
                task.result()
        self._note_captures(layout, entries, before)
        for x in np.flatnonzero(entries.taken < counts).tolist():
            keep[entries.order[entries.bounds[x] + entries.taken[x] : entries.bounds[x + 1]]] = True

    def _note_captures(self, layout: Layout, entries: Entries, before: Int64) -> None:
        """Widen calls' ranges of frames where media went over to another capture.

        `before`: (last capture, last frame) of each member before this window, shape (n, 2).
        """
        window = self.stager.window
        used = window.capture[: window.count]
        mixed = window.count > 0 and bool((used != used[0]).any())
        crossed = (before[:, 0] != self.table.state[layout.rows, cols.LAST_CAPTURE]) | mixed
        for x in np.flatnonzero((entries.taken > 0) & crossed).tolist():
            media = layout.members[x][0]
            if before[x, 1]:
                media.call.see(int(before[x, 0]), int(before[x, 1]))
            mine = entries.order[entries.bounds[x] : entries.bounds[x] + entries.taken[x]]
            for capture in np.unique(used[mine]).tolist():
                numbers = window.number[mine[used[mine] == capture]]
                media.call.see(capture, int(numbers.min()))
                media.call.see(capture, int(numbers.max()))

    def _after(self, layout: Layout, now: int) -> None:
        """Note when each call last had media, and let sightings step in where the nearer one fell silent."""
        lasts = self.stager.flows.last[layout.flows].tolist()
        for (media, _), last in zip(layout.members, lasts, strict=True):
            if last > media.last_media:
                media.last_media = last
        self._same.step_in(layout, lasts, now)

    # Calls

    def start_call(self, call: Call) -> CallMedia:
        """Media for this call may come."""
        media = CallMedia(call, listening=self.listening(call))
        self.calls[call.index] = media
        return media

    def _begin_call(self, time: int, number: int, capture: int, source: Endpoint, destination: Endpoint) -> CallMedia:
        """A call of media that nobody announced."""
        return self.start_call(self.new_media_call(time, number, capture, source, destination))

    def end_call(self, call: Call) -> CallMedia | None:
        """The call is over: what it had. Its flows are free, its files closed."""
        media = self.calls.pop(call.index, None)
        if media is None:
            return None
        for stream in media.streams:
            state = self.table.state[stream.row]
            if state[cols.STARTED]:
                call.see(int(state[cols.LAST_CAPTURE]), int(state[cols.LAST_NUMBER]))
            if self._index.remove(media, stream):
                self._identity.forget(stream.flow)
                self.stager.flows.states[stream.flow] = 0  # the next call may want to hear it
                self.unclaimed.spend(stream.flow)
        shard = self._shards[call.index % self.workers]
        for track in media.tracks:
            shard.pool.close(track)
        return media

    def listen_less(self, call: Call, listening: Listening) -> None:
        """Record no more audio of a call in progress: only count its packets, or pass them over."""
        media = self.calls.get(call.index)
        if media is None or listening >= media.listening:
            return
        media.listening = listening
        for stream in media.streams:
            stream.muted = True
            self._index.ignore_where_nobody_listens(stream.flow, self.stager.flows)
        self._index.refresh()

    def _track_failed(self, track: Track, error: StoreError) -> None:
        for media in list(self.calls.values()):
            if track in media.tracks and self.store_failed is not None:
                self.store_failed(media.call, error)

    def give_back_unclaimed(self) -> None:
        """The capture is over: count what nobody claimed."""
        self.unclaimed.finish()

    def hear_rtcp(self, time: int, compound: RtcpCompound) -> None:
        """Note what RTCP tells of the streams in progress: names, and how the far end receives them."""
        for description in compound.descriptions:
            for _, stream in self._index.by_ssrc.get(description.ssrc, ()):
                stream.cname = description.cname or stream.cname
        for _, block in compound.blocks():
            for _, stream in self._index.by_ssrc.get(block.ssrc, ()):
                clock = int(self.table.state[stream.row, cols.SEGMENT_CLOCK]) or 8000
                stream.far_end_loss = block.fraction_lost / 256
                stream.far_end_jitter_ms = block.jitter * 1000 / clock
        for trip in self._round_trips.feed(time, compound):
            for _, stream in self._index.by_ssrc.get(trip.source, ()):
                stream.rtt_ms = trip.rtt_ns / 1e6

    def release_rows(self, media: CallMedia) -> None:
        """The reports of an ended call are made; its state may be used again."""
        for stream in media.streams:
            self.table.release(stream.row)
