"""One worker's part of a window: the media of its calls, from entries to samples in files.

In: the entries of the streams of some calls. Out: samples in the calls' tracks, and the streams' statistics moved on.
A call always belongs to the same worker, so nothing here is shared between threads but read-only columns.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from capture.batch import Int32, Int64
from decoders import _stream_columns as cols
from decoders.rtp import Window
from decoders.timeline import TICKS, Entries, FormatTable, Placer, StreamTable
from recorder._track_kernels import record
from recorder.decoding import decode_window
from recorder.model import Call
from recorder.streams import CallMedia, MediaStream
from recorder.tracks import FilePool, Track

OVERLAP = TICKS * 6 // 100
"""60 ms: two sources on one channel that overlap by more than this sound together, on layers of their own."""
FAR = 1 << 61
LONGEST = 60
"""Seconds that one window may add to a track in one piece; beyond it, the clock of the capture is at fault."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the streams of all calls lie in the entries: by worker, call and track, first sightings before copies."""

    members: list[tuple[CallMedia, MediaStream]]
    rows: Int32
    flows: Int32
    channels: Int32
    cuts: list[int]
    """Worker w has the members from cuts[w] up to cuts[w + 1]."""


@dataclass(slots=True)
class Plan:
    """What of a worker's members needs no decision: a call with one track that all its streams have found.

    `runs` are ranges of members, (n, 2); `zero` and `step` are their tracks'. The other calls are in `decide`.
    """

    runs: Int64
    tracks: list[Track]
    zero: Int64
    step: Int64
    decide: list[tuple[int, int]]


@dataclass(slots=True)
class Shard:
    """A worker's own scratch space and open files."""

    table: StreamTable
    formats: FormatTable
    directory_of: Callable[[Call], Path]
    epoch: int
    pool: FilePool = field(default_factory=FilePool)
    placer: Placer = field(default_factory=Placer)
    _plan: Plan | None = None
    _planned: Layout | None = None

    def run(self, layout: Layout, part: int, entries: Entries, window: Window, now: int, hold: int) -> None:
        """Take the entries of the layout's part: receive, place, decode, write."""
        first, last = layout.cuts[part : part + 2]
        if first == last:
            return
        entries.receive(self.table, self.formats, window, self.epoch, now, hold, first, last)
        if self._plan is None or self._planned is not layout:
            self._plan, self._planned = _make_plan(layout, first, last), layout
        plan = self._plan
        for begin, end in plan.decide:
            if entries.taken[begin:end].any():
                self._decide(layout, entries, window, begin, end)
        self._place_planned(plan, layout, entries, window)
        others = self.table.state[layout.rows[first:last], cols.OTHERS] > 0
        for x in range(first, last):
            media, stream = layout.members[x]
            if (others[x - first] or stream.noise is not None) and entries.taken[x]:
                decode_window(self, media, stream, entries, x, window)

    def _place_planned(self, plan: Plan, layout: Layout, entries: Entries, window: Window) -> None:
        """Place the G.711 of calls that need no decision, all in a few steps."""
        if not plan.tracks:
            return
        state = self.table.state
        first = int(plan.runs[0, 0])
        rows = layout.rows[first : int(plan.runs[-1, 1])]
        heard = (layout.channels[first : first + len(rows)] >= 0) & (entries.taken[first : first + len(rows)] > 0)
        edges = (plan.runs - first).reshape(-1)[: 2 * len(plan.runs)]
        low = np.where(heard, state[rows, cols.LOW_TICKS], FAR)
        high = np.where(heard, state[rows, cols.HIGH_TICKS], -FAR)
        # Every second range is a run, the others are what lies between two runs.
        edges = edges[:-1]
        low = np.minimum.reduceat(low, edges)[::2]
        high = np.maximum.reduceat(high, edges)[::2]
        active = np.flatnonzero(low < high)
        if len(active) == 0:
            return
        zero, step = plan.zero[active], plan.step[active]
        end = (high[active] - zero + step // 2) // step
        low = np.maximum((low[active] - zero + step // 2) // step, 0)
        low = np.maximum(low, end - LONGEST * TICKS // step)
        jobs = np.zeros((len(active), cols.JOB), np.int64)
        jobs[:, cols.JOB_FIRST : cols.JOB_LAST + 1] = plan.runs[active]
        jobs[:, cols.JOB_LOW] = low
        jobs[:, cols.JOB_FRAMES] = end - low
        jobs[:, cols.JOB_ZERO] = zero
        jobs[:, cols.JOB_STEP] = step
        wanted = end > low
        tracks = [plan.tracks[run] for run in active[wanted].tolist()]
        jobs = jobs[wanted]
        self._flush(jobs, tracks, layout, entries, window)

    def _decide(self, layout: Layout, entries: Entries, window: Window, first: int, last: int) -> None:
        """Take one call's entries where its sample 0, its channels or its tracks may have to be settled."""
        media = layout.members[first][0]
        self._settle_channels(layout, entries, first, last)
        self._anchor(layout, entries, media, first, last)
        if media.zero is None:
            return
        self._plan = None
        state = self.table.state
        x = first
        while x < last:
            begin, (rate, layer) = x, _kind(layout.members[x][1])
            low, high = FAR, -FAR
            while x < last and _kind(layout.members[x][1]) == (rate, layer):
                if layout.channels[x] >= 0 and entries.taken[x]:
                    low = min(low, int(state[layout.rows[x], cols.LOW_TICKS]))
                    high = max(high, int(state[layout.rows[x], cols.HIGH_TICKS]))
                x += 1
            if rate == 0 or low >= high:
                continue
            track = self.track(media, rate, layer)
            end = track.sample_at(high)
            sample = max(track.sample_at(low), 0, end - LONGEST * rate)
            if end > sample:
                job = np.array([[begin, x, sample, end - sample, 0, 0, track.zero, track.step]], np.int64)
                self._flush(job, [track], layout, entries, window)

    def _flush(self, jobs: Int64, tracks: list[Track], layout: Layout, entries: Entries, window: Window) -> None:
        """Decode the jobs and write each to its track, as many at once as can have their files open."""
        for first in range(0, len(tracks), self.pool.limit):
            some = slice(first, first + self.pool.limit)
            self._record(jobs[some], tracks[some], layout, entries, window)

    def _record(self, jobs: Int64, tracks: list[Track], layout: Layout, entries: Entries, window: Window) -> None:
        placer, pool = self.placer, self.pool
        places = jobs[:, [cols.JOB_LOW, cols.JOB_FRAMES]].tolist()
        files = [track.begin(pool, low, count) for track, (low, count) in zip(tracks, places, strict=True)]
        descriptors = np.array(files, np.int64)
        has = np.array([track.frames for track in tracks], np.int64)
        jobs[:, cols.JOB_KEPT] = np.clip(has - jobs[:, cols.JOB_LOW], 0, jobs[:, cols.JOB_FRAMES])
        longest = int(jobs[:, cols.JOB_FRAMES].max())
        placer.make_room(longest, longest)
        at = 0
        while True:
            at = record(
                jobs, descriptors, at, layout.channels, entries.bounds, entries.taken, entries.kind, entries.position,
                entries.source, entries.size, window.arena, placer.left, placer.right, placer.out,
                placer.out.ctypes.data,
            )  # fmt: skip
            if at == len(tracks):
                break
            # Once more, slowly: what is wrong comes to light, or was not.
            self._record_one(jobs[at : at + 1], tracks[at], layout, entries, window)
            files[at] = -1
            at += 1
        for track, fd, (low, count) in zip(tracks, files, places, strict=True):
            if fd >= 0:
                track.end(pool, fd, low, count)

    def _record_one(self, job: Int64, track: Track, layout: Layout, entries: Entries, window: Window) -> None:
        low, count, kept = job[0, [cols.JOB_LOW, cols.JOB_FRAMES, cols.JOB_KEPT]].tolist()
        if kept:
            track.read(self.pool, low, kept, self.placer.out)
        self.placer.place(job, layout.channels, entries, window)
        track.write(self.pool, low, self.placer.out[: 2 * count])

    def track(self, media: CallMedia, rate: int, layer: int) -> Track:
        """The call's track of a rate and layer, made if it is not there."""
        found = media.track(rate, layer)
        if found is None:
            if media.directory is None:
                media.directory = self.directory_of(media.call)
            name = "audio.wav" if not media.tracks else f"track-{len(media.tracks)}.pcm"
            found = Track(media.directory / name, rate, media.zero or 0, layer)
            self._plan = None
            media.tracks.append(found)
        return found

    def _settle_channels(self, layout: Layout, entries: Entries, first: int, last: int) -> None:
        """Sources that sound at the same time on one channel get layers of their own."""
        state = self.table.state
        ends: dict[int, tuple[int, MediaStream]] = {}
        for x in range(first, last):
            _, stream = layout.members[x]
            row = stream.row
            if layout.channels[x] < 0 or stream.primary is not None or not entries.taken[x]:
                continue
            low, high = int(state[row, cols.LOW_TICKS]), int(state[row, cols.HIGH_TICKS])
            if low > FAR:
                continue
            other = ends.get(int(layout.channels[x]))
            if other is not None and low < other[0] - OVERLAP and other[1].layer == stream.layer:
                stream.layer += 1
            else:
                ends[int(layout.channels[x])] = (high, stream)
        for _, stream in layout.members[first:last]:
            if stream.primary is not None:
                stream.layer = stream.primary.layer

    def _anchor(self, layout: Layout, entries: Entries, media: CallMedia, first: int, last: int) -> None:
        """Find the call's sample 0; make room in front where media that waited began before it."""
        lows = []
        for x in range(first, last):
            _, stream = layout.members[x]
            fresh = media.zero is None or stream.low == 0
            if layout.channels[x] < 0 or stream.primary is not None or not fresh or not entries.taken[x]:
                continue
            begin, end = int(entries.bounds[x]), int(entries.bounds[x]) + int(entries.taken[x])
            kinds = entries.kind[begin:end]
            heard = (kinds == cols.KIND_ULAW) | (kinds == cols.KIND_ALAW) | (kinds == cols.KIND_CODEC)
            heard |= (kinds == cols.KIND_REDUNDANT) | (kinds == cols.KIND_SILENT)
            if heard.any():
                stream.low = int(entries.position[begin:end][heard].min())
                lows.append((stream.low, stream))
        if not lows:
            return
        low, stream = min(lows, key=lambda item: item[0])
        if media.zero is not None and low >= media.zero:
            return
        state = self.table.state[stream.row]
        first_time = int(state[cols.FIRST_TIME])
        arrival = (first_time - self.epoch) // 1_000_000 * 14_112 + (
            first_time - self.epoch
        ) % 1_000_000 * 14_112 // 10**6
        if media.zero is not None and media.zero - low > LONGEST * TICKS:
            return
        if media.zero is not None:
            for track in media.tracks:
                track.prepend(self.pool, -track.sample_at(low))
        media.zero = low
        for track in media.tracks:
            track.zero = low
        media.started = first_time - (arrival - low) * 1_000_000_000 // TICKS


def _kind(stream: MediaStream) -> tuple[int, int]:
    """What decides the track of a stream's G.711."""
    return stream.fast_rate, stream.layer


def _make_plan(layout: Layout, first: int, last: int) -> Plan:
    """Sort the calls of members[first:last] into those that need a decision in every window and the others."""
    runs: list[tuple[int, int]] = []
    tracks: list[Track] = []
    decide: list[tuple[int, int]] = []
    x = first
    while x < last:
        begin, media = x, layout.members[x][0]
        plain = media.zero is not None and len(media.tracks) == 1
        channels: set[int] = set()
        while x < last and layout.members[x][0] is media:
            stream, channel = layout.members[x][1], int(layout.channels[x])
            if channel >= 0 and stream.primary is None:
                plain = plain and stream.low != 0 and channel not in channels
                channels.add(channel)
            plain = plain and _kind(stream) == (media.tracks[0].rate, 0)
            x += 1
        if plain:
            runs.append((begin, x))
            tracks.append(media.tracks[0])
        else:
            decide.append((begin, x))
    return Plan(
        runs=np.array(runs, np.int64).reshape(-1, 2),
        tracks=tracks,
        zero=np.array([track.zero for track in tracks], np.int64),
        step=np.array([track.step for track in tracks], np.int64),
        decide=decide,
    )


def channels_of(members: list[tuple[CallMedia, MediaStream]]) -> Int32:
    """The channel of each stream, shape (n,), -1 where it is not heard."""
    return np.array([stream.channel for _, stream in members], np.int32)
