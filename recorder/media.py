"""The media engine: RTP flows become streams of calls, window by window.

In: a window of staged packets, the endpoint registry, and the calls that signalling knows. Out: samples in the calls'
tracks and, when a call is over, the reports of its streams. Decisions stand on capture content and capture time alone:
a window ends at the same packet whatever the batches or workers, and flows are met in order of their first packet.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capture.address import Endpoint
from capture.batch import Int32, Int64
from decoders import _stream_columns as cols
from decoders.rtcp import RtcpCompound, RttEstimator
from decoders.rtp import IGNORED, Stager
from decoders.sdp import STATIC_FORMATS, PayloadFormat
from decoders.srtp import SrtpStream
from decoders.timeline import Entries, EntrySpace, FormatTable, StreamTable
from recorder.encryption import looks_encrypted, protection
from recorder.endpoints import WAIT, Claim, EndpointRegistry, Rule
from recorder.identity import MediaIdentity, most_lag
from recorder.model import Call, CallState, Side
from recorder.renewal import Renewals, formats_of
from recorder.shard import Layout, Shard, channels_of
from recorder.streams import CallMedia, MediaStream
from recorder.tracks import FilePool, files_allowed

HOLD = 500_000_000
"""ns of a beginning stream that must be seen before its place is settled."""
IDLE = 10_000_000_000
"""ns without a packet after which an unclaimed flow is forgotten."""
MIN_PACKETS = 8
"""Packets in sequence that make media without signalling a call."""
SAME_LAG = 20_000_000
"""ns by which the sightings of one packet at several hops may differ in their lag."""
SILENT_FOR = 1_000_000_000
"""ns without a packet after which a nearer sighting no longer keeps a farther one from being heard."""


@dataclass(slots=True)
class Unclaimed:
    """RTP-like packets that ended in no recording."""

    flows: int = 0
    packets: int = 0


class _Sighting(NamedTuple):
    """The beginning of a flow that is no stream yet."""

    flow: int
    source: Endpoint
    destination: Endpoint
    first_time: int
    first_sequence: int
    first_stamp: int


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
    table: StreamTable = field(default_factory=StreamTable)
    formats: FormatTable = field(default_factory=FormatTable)
    calls: dict[int, CallMedia] = field(default_factory=dict)
    unclaimed: Unclaimed = field(default_factory=Unclaimed)
    media_only: bool = True
    _streams: dict[int, list[tuple[CallMedia, MediaStream]]] = field(default_factory=dict)
    _ignored: set[int] = field(default_factory=set)
    _waiting: set[int] = field(default_factory=set)
    _spent: set[int] = field(default_factory=set)
    """Flows that go on after their call: another call may yet announce them, but they make none of their own."""
    _at: dict[Endpoint, set[int]] = field(default_factory=dict)
    _pairs: dict[tuple[Endpoint, Endpoint], CallMedia] = field(default_factory=dict)
    _by_ssrc: dict[int, list[tuple[CallMedia, MediaStream]]] = field(default_factory=dict)
    _shards: list[Shard] = field(default_factory=list)
    _entries: EntrySpace = field(default_factory=EntrySpace)
    _layout: Layout | None = None
    """None when streams came or went since it was made."""
    _moved: list[tuple[MediaStream, int]] = field(default_factory=list)
    """(stream, capture time): the stream of a flow that changed hands ends, or begins, at that time."""
    _renewals: Renewals = field(init=False)
    _round_trips: RttEstimator = field(default_factory=RttEstimator)
    _identity: MediaIdentity = field(init=False)

    def __post_init__(self) -> None:
        self._renewals = Renewals(self.registry, self.table, self.formats)
        self._identity = MediaIdentity(self.stager.flows)
        allowed = files_allowed(self.workers)
        self._shards = [
            Shard(self.table, self.formats, self.directory_of, self.epoch, FilePool(allowed))
            for _ in range(self.workers)
        ]

    # Windows

    def close_window(self, now: int, *, full: bool = False, final: bool = False) -> None:
        """Process what is staged. `now`: capture time reached (ns); `full`: there is no room to wait for more."""
        self._pass(now, 0 if final else HOLD, final=final)
        if full and self.stager.crowded:
            # What is held back would leave no room for what comes: nothing waits any longer.
            self._pass(now, 0, final=False)
        if full and not self.stager.flows_free:
            self._drop(sorted(self._ignored | self._spent))
        self.stager.refuse_new_flows(not self.stager.flows_free)

    def _pass(self, now: int, hold: int, *, final: bool) -> None:
        """Claim, receive and place what is staged; what has begun less than `hold` ns ago may wait."""
        stager = self.stager
        window = stager.window
        flows = stager.group()
        self._revisit(now)
        self._renewals.begin(self.calls)
        self._meet(flows, now, hold == 0 or final, final)
        keep = np.zeros(window.count, np.bool_)
        for flow in self._waiting:
            keep[stager.order[stager.starts[flow] : stager.starts[flow + 1]]] = True
        layout = self._layout or self._sort()
        if layout.members:
            self._process(layout, now, hold, keep)
        self._renewals.finish(keep, stager)
        self._end_moved()
        self._after(layout, now)
        stager.carry(keep)
        self._forget_idle(now)

    def _process(self, layout: Layout, now: int, hold: int, keep: NDArray[np.bool_]) -> None:
        """Run all shards over the streams' packets and mark what is not settled."""
        stager, window = self.stager, self.stager.window
        begins: Int64 = stager.starts[layout.flows]
        counts: Int64 = stager.starts[layout.flows + 1] - begins
        self._split(layout, begins, counts)
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

    def _split(self, layout: Layout, begins: Int64, counts: Int64) -> None:
        """Give packets of a flow that changed hands to the old stream before that time, to the new one after it."""
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

    def _end_moved(self) -> None:
        """Streams whose flow went to another call get no more packets."""
        for stream, at in self._moved:
            held = self._streams.get(stream.flow, [])
            if stream.since != at and len(held) > 1:
                held[:] = [member for member in held if member[1] is not stream]
                self._layout = None
        self._moved.clear()

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

    def _sort(self) -> Layout:
        """Lay the streams out for the kernels: by worker, call and track, first sightings before their copies."""
        members = [member for found in self._streams.values() for member in found]
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
        layout = Layout(
            members=members,
            rows=np.array([stream.row for _, stream in members], np.int32),
            flows=np.array([stream.flow for _, stream in members], np.int32),
            channels=channels_of(members),
            cuts=[int(np.searchsorted(owners, w)) for w in range(self.workers)] + [len(members)],
        )
        self._layout = layout
        return layout

    def _after(self, layout: Layout, now: int) -> None:
        """Note when each call last had media, and let sightings step in where the nearer one fell silent."""
        flows = self.stager.flows
        lasts = flows.last[layout.flows].tolist()
        for (media, _), last in zip(layout.members, lasts, strict=True):
            if last > media.last_media:
                media.last_media = last
        for x, (media, stream) in enumerate(layout.members):
            if stream.alternate and now - lasts[x] < SILENT_FOR and self._is_alone(media, stream, lasts[x]):
                stream.alternate = False
                self._layout = None

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

    # Flows

    def _meet(self, flows: Int32, now: int, forced: bool, final: bool) -> None:
        """Claim the flows that no call has yet, in order of their first packet."""
        fresh = [f for f in flows.tolist() if f not in self._streams and f not in self._ignored]
        if self._spent:
            for flow in fresh:
                if flow in self._spent:
                    self._resume(flow, now)
            fresh = [f for f in fresh if f not in self._spent and f not in self._streams]
        table = self.stager.flows
        fresh.sort(key=lambda f: (int(table.first[f]), self._first_number(f), f))
        unclaimed = [flow for flow in fresh if not self._claim_flow(flow, int(table.first[flow]))]
        self._waiting.difference_update(fresh)
        self._find_twins(unclaimed)
        for flow in unclaimed:
            if self._claim_reverse(flow):
                continue
            if forced or now - int(table.first[flow]) >= WAIT:
                self._give_up(flow)
            else:
                self._waiting.add(flow)

    def _resume(self, flow: int, now: int) -> None:
        """A flow whose call is over belongs to the next call that announces it, from then on."""
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
            self._moved.append((self._bind(flow, media, claim, begin=dropped), claim.by.since))
            self._spent.discard(flow)
        self.unclaimed.packets += dropped

    def _first_number(self, flow: int) -> int:
        return int(self.stager.window.number[self.stager.order[self.stager.starts[flow]]])

    def _claim_flow(self, flow: int, at: int) -> bool:
        """Bind a flow to every call that claims it; False where none does."""
        table = self.stager.flows
        source, destination = table.source(flow), table.destination(flow)
        claims = self.registry.claims(source, destination, int(table.realms[flow]), at)
        bound = False
        for claim in claims:
            media = self.calls.get(claim.by.call)
            if media is not None:
                self._bind(flow, media, claim)
                bound = True
        return bound or self._claim_reverse(flow)

    def _claim_reverse(self, flow: int) -> bool:
        """Bind a flow to the call of its other direction; False where there is none."""
        source, destination = self.stager.flows.source(flow), self.stager.flows.destination(flow)
        pair = self._pairs.get((destination, source))
        if pair is not None:
            self._bind_reverse(flow, pair, source, destination)
        return pair is not None

    def _bind(self, flow: int, media: CallMedia, claim: Claim, begin: int = 0) -> MediaStream:
        """A claimed flow becomes a stream from its packet `begin` of the window on."""
        formats = dict(STATIC_FORMATS) | formats_of(claim)
        encrypted, keys = protection(self.registry, claim)
        return self._open(
            flow,
            media,
            claim.speaker,
            claim.rule,
            formats,
            claim.by.media,
            hops=self.registry.hops(claim.by),
            since=claim.by.since,
            claim=claim,
            encrypted=encrypted,
            srtp=SrtpStream(keys) if encrypted and keys else None,
            begin=begin,
        )

    def _bind_reverse(self, flow: int, media: CallMedia, source: Endpoint, destination: Endpoint) -> None:
        """The other direction of a stream that is placed already."""
        other = next(s for s in media.streams if (s.source, s.destination) == (destination, source))
        rule = other.rule if other.rule is Rule.MEDIA_ONLY else Rule.REVERSE
        formats = dict(other.formats)
        if other.claim is not None:
            formats.update(other.claim.by.formats)
        keys = [key for e in self.registry.of(media.call.index, other.speaker.other) for key in e.crypto]
        self._open(
            flow,
            media,
            other.speaker.other,
            rule,
            formats,
            other.media,
            hops=other.hops,
            since=other.since,
            claim=other.claim,
            encrypted=other.encrypted,
            srtp=SrtpStream(keys) if other.encrypted and keys else None,
        )

    def _open(
        self,
        flow: int,
        media: CallMedia,
        speaker: Side,
        rule: Rule,
        formats: dict[int, PayloadFormat],
        kind: str,
        *,
        hops: frozenset[int],
        since: int,
        claim: Claim | None,
        encrypted: bool,
        srtp: SrtpStream | None,
        begin: int = 0,
    ) -> MediaStream:
        """A stream of a call begins."""
        table, window = self.stager.flows, self.stager.window
        mine = self.stager.order[self.stager.starts[flow] + begin : self.stager.starts[flow + 1]]
        first = int(mine[0])
        encrypted = encrypted or (kind == "audio" and looks_encrypted(window, mine, formats))
        row = self.formats.row(formats, kind, slow=encrypted)
        stream = MediaStream(
            row=-1,
            flow=flow,
            ssrc=int(table.ssrcs[flow]),
            source=table.source(flow),
            destination=table.destination(flow),
            media=kind,
            speaker=speaker,
            rule=rule,
            hops=hops,
            formats=formats,
            first_time=int(window.time[first]),
            first_sequence=int(window.sequence[first]),
            first_stamp=int(window.stamp[first]),
            since=since,
            claim=claim,
            encrypted=encrypted,
            srtp=srtp,
            fast_rate=_fast_rate(formats) if kind == "audio" and not encrypted else 0,
            muted=media.recording_session,
        )
        stream.primary = self._sighting_of(media, stream)
        stream.row = self.table.allocate(row, stream.primary.row if stream.primary else -1)
        if stream.primary is None:
            self._yield_to_nearer(media, stream)
        self._streams.setdefault(flow, []).append((media, stream))
        media.streams.append(stream)
        for where in (stream.source, stream.destination):
            self._at.setdefault(where, set()).add(flow)
        self._pairs[stream.source, stream.destination] = media
        media.call.see(int(window.capture[first]), int(window.number[first]))
        self._relate(media, stream)
        if kind == "audio" and not encrypted:
            self._identity.begin(flow)
        self._layout = None
        return stream

    def _sighting_of(self, media: CallMedia, stream: MediaStream) -> MediaStream | None:
        """The stream of the call that shows the same packets at another place, if there is one."""
        for other in media.streams:
            alike = other.primary is None and other.ssrc == stream.ssrc and other.media == stream.media
            if alike and other.speaker is stream.speaker and self._runs_with(other, stream):
                return other
        return None

    def _runs_with(self, other: MediaStream, stream: "MediaStream | _Sighting") -> bool:
        """Whether sequence number and timestamp of a beginning stream continue those of another."""
        state = self.table.state[other.row]
        if state[cols.STARTED]:
            sequence, stamp = int(state[cols.TOP]), int(state[cols.UTS])
        else:
            sequence, stamp = other.first_sequence, other.first_stamp
        steps = (stream.first_sequence - sequence + 1500) & 0xFFFF
        ticks = (stream.first_stamp - stamp + 480_000) & 0xFFFFFFFF
        return steps < 3000 and ticks < 960_000 and stream.flow != other.flow

    def _yield_to_nearer(self, media: CallMedia, stream: MediaStream) -> None:
        """Of one direction at two hops (a relay that rewrites its packets), the one nearer the speaker is heard."""
        flows = self.stager.flows
        for other in media.streams:
            apart = not (other.hops & stream.hops) and bool(other.hops) and bool(stream.hops)
            same = other.speaker is stream.speaker and other.media == stream.media and other.primary is None
            heard = int(flows.last[other.flow]) >= stream.first_time - SILENT_FOR
            if not (apart and same and heard) or other.alternate:
                continue
            if other.nearness <= stream.nearness:
                stream.alternate = True
            else:
                other.alternate = True

    def _relate(self, media: CallMedia, stream: MediaStream) -> None:
        """Group calls that carry the same media: an equal SSRC that runs in step in another call.

        Where the other is a recording session, what it carries is another sighting of the call's media.
        """
        others = self._by_ssrc.setdefault(stream.ssrc, [])
        found = [(self._lag(o, stream), m, o) for m, o in others if m is not media and self._in_step(o, stream)]
        # A load generator plays the same to many calls: only the nearest may be the one that was passed on.
        nearest = min((lag for lag, _, _ in found), default=0)
        for lag, other_media, other in found:
            if lag <= nearest + SAME_LAG:
                self._join(other_media, other, media, stream)
        others.append((media, stream))
        for twin in self._identity.twins(stream.flow):
            for other_media, other in self._streams.get(twin, ()):
                if other.ssrc != stream.ssrc:
                    self._join(other_media, other, media, stream)

    def _in_step(self, other: MediaStream, stream: "MediaStream | _Sighting") -> bool:
        """Whether a beginning stream of the same SSRC shows the packets of another one, passed on by somebody."""
        if other.flow == stream.flow:
            return True
        if not self._runs_with(other, stream) or self.stager.flows.last[other.flow] < stream.first_time - SILENT_FOR:
            return False
        return self._lag(other, stream) <= most_lag(other.source, other.destination, stream.source, stream.destination)

    def _lag(self, other: MediaStream, stream: "MediaStream | _Sighting") -> int:
        """ns between the sightings of the same packet in two streams of one SSRC, by their timestamps."""
        state = self.table.state[other.row]
        stamp, time, clock = other.first_stamp, other.first_time, 8000
        if state[cols.STARTED]:
            stamp, time = int(state[cols.UTS]), int(state[cols.LAST_TIME])
            clock = int(state[cols.SEGMENT_CLOCK]) or clock
        ahead = ((stream.first_stamp - stamp + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        return abs(stream.first_time - time - ahead * 1_000_000_000 // clock)

    def _find_twins(self, unclaimed: Iterable[int]) -> None:
        """Compare the payloads of beginning flows: calls of a relay that rewrites its packets belong together."""
        for flow in unclaimed:
            self._identity.begin(flow)
        for one, other in self._identity.look(self.stager):
            for media, stream in self._streams.get(one, ()):
                for other_media, other_stream in self._streams.get(other, ()):
                    if stream.ssrc != other_stream.ssrc:
                        self._join(media, stream, other_media, other_stream)

    def _join(self, one: CallMedia, stream: MediaStream, other: CallMedia, other_stream: MediaStream) -> None:
        """Two streams carry the same media: group their calls, or count what a recording session carries."""
        if one is other:
            return
        if one.recording_session:
            other_stream.forks.add(one.call.index)
        elif other.recording_session:
            stream.forks.add(other.call.index)
        else:
            self.same_media(one.call.index, other.call.index)

    def _shown_elsewhere(self, flow: int) -> tuple[CallMedia, MediaStream] | None:
        """The stream whose media an unannounced flow shows at another hop, by its SSRC or its payloads."""
        table, window = self.stager.flows, self.stager.window
        first = int(self.stager.order[self.stager.starts[flow]])
        source, destination = table.source(flow), table.destination(flow)
        time, sequence, stamp = window.time[first], window.sequence[first], window.stamp[first]
        sighting = _Sighting(flow, source, destination, int(time), int(sequence), int(stamp))
        found = [
            (self._lag(other, sighting), other.first_time, other.row, media, other)
            for media, other in self._by_ssrc.get(int(table.ssrcs[flow]), ())
            if other.primary is None and not media.recording_session and self._in_step(other, sighting)
        ]
        if found:
            return min(found, key=lambda each: each[:3])[3:]
        for twin in self._identity.twins(flow):
            for media, other in self._streams.get(twin, ()):
                if other.primary is None and not other.alternate and not media.recording_session:
                    return media, other
        return None

    def _give_up(self, flow: int) -> None:
        """Nobody announced this flow in time: a call of its own, or nothing that can be recorded."""
        if self._as_media(flow) is None:
            self._ignore(flow)
            return
        shown = self._shown_elsewhere(flow)
        if shown is not None:
            self._open_sighting(flow, *shown)
            return
        table, window = self.stager.flows, self.stager.window
        source, destination = table.source(flow), table.destination(flow)
        first = int(self.stager.order[self.stager.starts[flow]])
        call = self.new_media_call(
            int(window.time[first]), int(window.number[first]), int(window.capture[first]), source, destination
        )
        media = self.start_call(call)
        self._open(
            flow, media, Side.CALLER, Rule.MEDIA_ONLY, dict(STATIC_FORMATS), "audio",
            hops=frozenset(), since=int(window.time[first]), claim=None, encrypted=False, srtp=None,
        )  # fmt: skip

    def _open_sighting(self, flow: int, media: CallMedia, other: MediaStream) -> None:
        """The media of a stream at a hop that nobody announced: counted, and heard only where the other is silent."""
        stream = self._open(
            flow, media, other.speaker, Rule.IDENTITY, dict(other.formats), other.media,
            hops=frozenset(), since=other.since, claim=None, encrypted=other.encrypted, srtp=None,
        )  # fmt: skip
        stream.alternate = stream.primary is None

    def _as_media(self, flow: int) -> int | None:
        """The payload type of a flow that is audio beyond doubt, None where it may be anything."""
        window = self.stager.window
        mine = self.stager.order[self.stager.starts[flow] : self.stager.starts[flow + 1]]
        if not self.media_only:
            return None
        sequences = window.sequence[mine].astype(np.int64)
        steps = (sequences[1:] - sequences[:-1]) & 0xFFFF
        steps = steps[steps > 0]  # a packet that was mirrored twice says nothing
        if len(steps) + 1 < MIN_PACKETS:
            return None
        types = window.type[mine] & 127
        kind = int(np.bincount(types).argmax())
        known = STATIC_FORMATS.get(kind)
        if known is None or known.encoding.upper() in _NO_SPEECH:
            return None
        follows = np.count_nonzero(steps < 20)
        return kind if 10 * follows >= 6 * len(steps) else None

    def _ignore(self, flow: int) -> None:
        self._identity.forget(flow)
        self._ignored.add(flow)
        self.stager.flows.states[flow] = IGNORED
        for where in (self.stager.flows.source(flow), self.stager.flows.destination(flow)):
            self._at.setdefault(where, set()).add(flow)

    def _revisit(self, now: int) -> None:
        """Endpoints were announced: flows seen there may belong to another call from then on."""
        changed, self.registry.changed = self.registry.changed, set()
        for flow in sorted({flow for where in changed for flow in self._at.get(where, ())}):
            if flow in self._ignored:
                self._ignored.discard(flow)
                self.stager.flows.states[flow] = 0
                self.stager.flows.first[flow] = now
            elif flow in self._streams:
                self._hand_over(flow, now)

    def _hand_over(self, flow: int, now: int) -> None:
        table, starts = self.stager.flows, self.stager.starts
        if starts[flow] == starts[flow + 1]:
            return
        source, destination = table.source(flow), table.destination(flow)
        held = self._streams[flow]
        for claim in self.registry.claims(source, destination, int(table.realms[flow]), now):
            media = self.calls.get(claim.by.call)
            if media is None or any(m is media for m, _ in held):
                continue
            if self._adopt(flow, media, claim):
                return
            for other_media, other in held:
                if other_media.call.ended is not None and claim.by.since > other.since:
                    self._moved.append((other, claim.by.since))
            stream = self._bind(flow, media, claim)
            if now - claim.by.since < 4 * WAIT:
                self._moved.append((stream, claim.by.since))

    def _adopt(self, flow: int, media: CallMedia, claim: Claim) -> bool:
        """Signalling came late: the call takes over what was recorded as media without signalling."""
        orphan = next((m for m, _ in self._streams[flow] if m.call.state is CallState.MEDIA_ONLY), None)
        if orphan is None or media.zero is not None or media.streams:
            return False
        turned = next(s for s in orphan.streams if s.flow == flow).speaker is not claim.speaker
        media.zero, media.started = orphan.zero, orphan.started
        media.tracks, media.streams, media.last_media = orphan.tracks, orphan.streams, orphan.last_media
        shard = self._shards[orphan.call.index % self.workers]
        for track in media.tracks:
            if turned:
                track.swap_channels(shard.pool)
            shard.pool.close(track)
            media.directory = self.directory_of(media.call)
            track.path = track.path.rename(media.directory / track.path.name)
        for stream in media.streams:
            if turned:
                stream.speaker = stream.speaker.other
            stream.rule, stream.hops, stream.claim = claim.rule, self.registry.hops(claim.by), claim
            self._pairs[stream.source, stream.destination] = media
            for held in (self._streams.get(stream.flow, []), self._by_ssrc.get(stream.ssrc, [])):
                held[:] = [(media, s) if s is stream else (m, s) for m, s in held]
        for capture, (first, last) in orphan.call.captures.items():
            media.call.see(capture, first)
            media.call.see(capture, last)
        del self.calls[orphan.call.index]
        self.absorbed(orphan.call)
        self._layout = None
        return True

    def _forget_idle(self, now: int) -> None:
        """Drop unclaimed flows that fell silent; their number must not grow with the capture."""
        if not self._ignored and not self._spent:
            return
        table = self.stager.flows
        gone = [flow for flow in sorted(self._ignored | self._spent) if now - int(table.last[flow]) > IDLE]
        self._drop(gone)

    def _drop(self, flows: Iterable[int]) -> None:
        table = self.stager.flows
        gone = []
        for flow in flows:
            if flow in self._ignored:
                self.unclaimed.flows += 1
                self.unclaimed.packets += int(table.packets[flow])
                self._ignored.discard(flow)
            self._spent.discard(flow)
            for where in (table.source(flow), table.destination(flow)):
                there = self._at.get(where)
                if there is not None:
                    there.discard(flow)
                    if not there:
                        del self._at[where]
            gone.append(flow)
        self.stager.remove(np.array(gone, np.int32))

    # Calls

    def start_call(self, call: Call) -> CallMedia:
        """Media for this call may come."""
        media = CallMedia(call)
        self.calls[call.index] = media
        return media

    def end_call(self, call: Call) -> CallMedia | None:
        """The call is over: what it had. Its flows are free, its files closed."""
        media = self.calls.pop(call.index, None)
        if media is None:
            return None
        flows = self.stager.flows
        for stream in media.streams:
            state = self.table.state[stream.row]
            if state[cols.STARTED]:
                call.see(int(state[cols.LAST_CAPTURE]), int(state[cols.LAST_NUMBER]))
            held = self._streams.get(stream.flow, [])
            held[:] = [member for member in held if member[1] is not stream]
            same = self._by_ssrc.get(stream.ssrc, [])
            same[:] = [member for member in same if member[1] is not stream]
            if not same:
                self._by_ssrc.pop(stream.ssrc, None)
            if self._pairs.get((stream.source, stream.destination)) is media:
                del self._pairs[stream.source, stream.destination]
            if not held and stream.flow in self._streams:
                del self._streams[stream.flow]
                self._identity.forget(stream.flow)
                self._spent.add(stream.flow)
                flows.packets[stream.flow] = 0
        shard = self._shards[call.index % self.workers]
        for track in media.tracks:
            shard.pool.close(track)
        self._layout = None
        return media

    def give_back_unclaimed(self) -> None:
        """The capture is over: count what nobody claimed."""
        self._drop(sorted(self._ignored))

    def hear_rtcp(self, time: int, compound: RtcpCompound) -> None:
        """Note what RTCP tells of the streams in progress: names, and how the far end receives them."""
        for description in compound.descriptions:
            for _, stream in self._by_ssrc.get(description.ssrc, ()):
                stream.cname = description.cname or stream.cname
        for _, block in compound.blocks():
            for _, stream in self._by_ssrc.get(block.ssrc, ()):
                clock = int(self.table.state[stream.row, cols.SEGMENT_CLOCK]) or 8000
                stream.far_end_loss = block.fraction_lost / 256
                stream.far_end_jitter_ms = block.jitter * 1000 / clock
        for trip in self._round_trips.feed(time, compound):
            for _, stream in self._by_ssrc.get(trip.source, ()):
                stream.rtt_ms = trip.rtt_ns / 1e6

    def release_rows(self, media: CallMedia) -> None:
        """The reports of an ended call are made; its state may be used again."""
        for stream in media.streams:
            self.table.release(stream.row)


_NO_SPEECH = {"CN", "TELEPHONE-EVENT", "RED", "H261", "H263", "JPEG", "NV", "CELB", "MPV", "MP2T", "MPA"}


def _fast_rate(formats: dict[int, PayloadFormat]) -> int:
    """Rate of the G.711 in a payload map, 0 where it has none."""
    rates = [f.clock_rate for f in formats.values() if f.encoding.upper() in ("PCMU", "PCMA") and f.channels == 1]
    return max(set(rates), key=rates.count) if rates else 0
