"""One worker's part of a window: the media of its calls, from entries to samples in files.

In: the entries of the streams of some calls. Out: samples in the calls' tracks, and the streams' statistics moved on.
A call always belongs to the same worker, so nothing here is shared between threads but read-only columns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from capture.batch import Int32
from decoders import _stream_kernels as kernels
from decoders.rtp import Window
from decoders.timeline import TICKS, Entries, FormatTable, Job, Placer, StreamTable
from recorder.decoding import decode_window
from recorder.model import Call
from recorder.streams import CallMedia, MediaStream
from recorder.tracks import FilePool, Track

OVERLAP = TICKS * 6 // 100
"""60 ms: two sources on one channel that overlap by more than this sound together, on layers of their own."""
FAR = 1 << 61
MOST_FRAMES = 1 << 21
"""Frames decoded before they are written: bounds the scratch space."""
LONGEST = 60
"""Seconds that one window may add to a track in one piece; beyond it, the clock of the capture is at fault."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What of a window a worker has: streams[first:last] of the entries, `members` in the same order."""

    entries: Entries
    members: list[tuple[CallMedia, MediaStream]]
    first: int
    last: int
    channels: Int32


@dataclass(slots=True)
class Shard:
    """A worker's own scratch space and open files."""

    table: StreamTable
    formats: FormatTable
    directory_of: Callable[[Call], Path]
    epoch: int
    pool: FilePool = field(default_factory=FilePool)
    placer: Placer = field(default_factory=Placer)

    def run(self, part: Slice, window: Window, now: int, hold: int) -> None:
        """Take the slice's entries: receive, place, decode, write."""
        if part.first == part.last:
            return
        part.entries.receive(self.table, self.formats, window, self.epoch, now, hold, part.first, part.last)
        jobs: list[tuple[Job, Track]] = []
        frames = 0
        for first, last in _by_call(part):
            media = part.members[first][0]
            if not part.entries.taken[first:last].any():
                continue
            self._settle_channels(part, first, last)
            self._anchor(part, media, first, last)
            for job in self._jobs(part, media, first, last):
                jobs.append(job)
                frames += job[0].frames
                # A second job for a track must find what the first one wrote.
                if frames > MOST_FRAMES or job[1].layer or len(media.tracks) > 1:
                    self._flush(jobs, part, window)
                    jobs, frames = [], 0
        self._flush(jobs, part, window)
        others = self.table.state[part.entries.streams, kernels.OTHERS]
        for x in range(part.first, part.last):
            media, stream = part.members[x]
            if (others[x] or stream.noise is not None) and part.entries.taken[x]:
                decode_window(self, media, stream, part.entries, x, window)

    def track(self, media: CallMedia, rate: int, layer: int) -> Track:
        """The call's track of a rate and layer, made if it is not there."""
        found = media.track(rate, layer)
        if found is None:
            if media.directory is None:
                media.directory = self.directory_of(media.call)
            name = "audio.wav" if not media.tracks else f"track-{len(media.tracks)}.pcm"
            found = Track(media.directory / name, rate, media.zero or 0, layer)
            media.tracks.append(found)
        return found

    def _settle_channels(self, part: Slice, first: int, last: int) -> None:
        """Sources that sound at the same time on one channel get layers of their own."""
        state = self.table.state
        ends: dict[int, tuple[int, MediaStream]] = {}
        for x in range(first, last):
            _, stream = part.members[x]
            row = stream.row
            if part.channels[x] < 0 or stream.primary is not None or not part.entries.taken[x]:
                continue
            low, high = int(state[row, kernels.LOW_TICKS]), int(state[row, kernels.HIGH_TICKS])
            if low > FAR:
                continue
            other = ends.get(int(part.channels[x]))
            if other is not None and low < other[0] - OVERLAP and other[1].layer == stream.layer:
                stream.layer += 1
            else:
                ends[int(part.channels[x])] = (high, stream)

    def _anchor(self, part: Slice, media: CallMedia, first: int, last: int) -> None:
        """Find the call's sample 0; make room in front where media that waited began before it."""
        entries, lows = part.entries, []
        for x in range(first, last):
            _, stream = part.members[x]
            fresh = media.zero is None or stream.low == 0
            if part.channels[x] < 0 or stream.primary is not None or not fresh or not entries.taken[x]:
                continue
            begin, end = int(entries.bounds[x]), int(entries.bounds[x]) + int(entries.taken[x])
            kinds = entries.kind[begin:end]
            heard = (kinds == kernels.KIND_ULAW) | (kinds == kernels.KIND_ALAW) | (kinds == kernels.KIND_CODEC)
            heard |= (kinds == kernels.KIND_REDUNDANT) | (kinds == kernels.KIND_SILENT)
            if heard.any():
                stream.low = int(entries.position[begin:end][heard].min())
                lows.append((stream.low, stream))
        if not lows:
            return
        low, stream = min(lows, key=lambda item: item[0])
        if media.zero is not None and low >= media.zero:
            return
        state = self.table.state[stream.row]
        first_time = int(state[kernels.FIRST_TIME])
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

    def _jobs(self, part: Slice, media: CallMedia, first: int, last: int) -> Iterator[tuple[Job, Track]]:
        """What each track gets of the G.711 in this window, one at a time."""
        if media.zero is None:
            return
        state = self.table.state
        x = first
        while x < last:
            stream = part.members[x][1]
            rate, layer = stream.fast_rate, stream.layer
            begin = x
            low, high = FAR, -FAR
            while x < last and (part.members[x][1].fast_rate, part.members[x][1].layer) == (rate, layer):
                stream = part.members[x][1]
                if part.channels[x] >= 0 and part.entries.taken[x]:
                    low = min(low, int(state[stream.row, kernels.LOW_TICKS]))
                    high = max(high, int(state[stream.row, kernels.HIGH_TICKS]))
                    stream.high = max(stream.high, int(state[stream.row, kernels.HIGH_TICKS]))
                x += 1
            if rate == 0 or low >= high:
                continue
            track = self.track(media, rate, layer)
            sample = max(track.sample_at(low), 0)
            end = track.sample_at(high)
            sample = max(sample, end - LONGEST * rate)
            if end > sample:
                kept = min(max(track.frames - sample, 0), end - sample)
                yield Job(begin, x, sample, end - sample, kept, track.zero, track.step), track

    def _flush(self, jobs: list[tuple[Job, Track]], part: Slice, window: Window) -> None:
        """Decode and write the jobs."""
        if not jobs:
            return
        placer, pool = self.placer, self.pool
        placer.reserve([job for job, _ in jobs])
        for job, track in jobs:
            if job.kept:
                track.read(pool, job.low, job.kept, placer.out[2 * job.out :])
        placer.place([job for job, _ in jobs], part.channels, part.entries, window)
        for job, track in jobs:
            track.write(pool, job.low, placer.out[2 * job.out : 2 * (job.out + job.frames)])


def _by_call(part: Slice) -> list[tuple[int, int]]:
    """Ranges of the slice's streams that belong to one call each."""
    ranges = []
    begin = part.first
    for x in range(part.first + 1, part.last + 1):
        if x == part.last or part.members[x][0] is not part.members[begin][0]:
            ranges.append((begin, x))
            begin = x
    return ranges


def channels_of(members: list[tuple[CallMedia, MediaStream]]) -> Int32:
    """The channel of each stream, shape (n,), -1 where it is not heard."""
    return np.array([stream.channel for _, stream in members], np.int32)
