"""Kernels that lay a window out by stream and decode its G.711 into interleaved frames."""

import numpy as np
from numba import njit

from capture._prefetch import LINE, prefetch
from capture.batch import Bytes, Int32, Int64, UInt8, UInt16, UInt32
from decoders._rtp_kernels import Packets
from decoders._stream_columns import (
    JOB_FIRST,
    JOB_FRAMES,
    JOB_KEPT,
    JOB_LAST,
    JOB_LOW,
    JOB_OUT,
    JOB_STEP,
    JOB_ZERO,
    KIND_ALAW,
    KIND_ULAW,
    Int16,
)

AHEAD = 8
"""Entries for which the processor is asked to fetch ahead."""

_3, _4, _7, _8 = np.int32(3), np.int32(4), np.int32(7), np.int32(8)
_1, _15, _85, _128, _132, _255 = np.int32(1), np.int32(15), np.int32(0x55), np.int32(128), np.int32(132), np.int32(255)


@njit(cache=True, nogil=True)
def gather(
    begins: Int64,
    bounds: Int64,
    by_flow: Int32,
    packets: Packets,
    order: Int32,
    time: Int64,
    stamp: UInt32,
    sequence: UInt16,
    kind: UInt8,
    source: Int64,
    size: Int32,
    missing: Int32,
) -> None:
    """Lay the staged packets of each stream one after the other, so that what follows reads memory in order."""
    for x in range(begins.shape[0]):
        begin = begins[x]
        for i in range(bounds[x], bounds[x + 1]):
            if begin + AHEAD < by_flow.shape[0]:
                prefetch(packets, by_flow[begin + AHEAD])
            p = by_flow[begin]
            begin += 1
            packet = packets[p]
            order[i] = p
            time[i] = packet["time"]
            stamp[i] = packet["stamp"]
            sequence[i] = packet["sequence"]
            kind[i] = packet["type"]
            source[i] = packet["offset"] + packet["header"]
            size[i] = packet["size"]
            missing[i] = packet["missing"]


@njit(cache=True, nogil=True)
def expand_ulaw(octets: Bytes, samples: Int16) -> None:
    """G.711 mu-law by arithmetic: in 32-bit steps without a branch it is vectorised, which a table is not."""
    for k in range(samples.shape[0]):
        code = np.int32(octets[k]) ^ _255
        value = ((((code & _15) << _3) + _132) << ((code >> _4) & _7)) - _132
        sign = -(code >> _7)
        samples[k] = np.int16((value ^ sign) - sign)


@njit(cache=True, nogil=True)
def expand_alaw(octets: Bytes, samples: Int16) -> None:
    """G.711 A-law by arithmetic, see `expand_ulaw`."""
    for k in range(samples.shape[0]):
        code = np.int32(octets[k]) ^ _85
        segment = (code >> _4) & _7
        normal = np.int32(segment + _7) >> _3
        value = np.int32(((code & _15) << _4) + _8 + (normal << _8)) << (np.int32(segment - normal) & _7)
        sign = np.int32((code >> _7) - _1)
        samples[k] = np.int16((value ^ sign) - sign)


@njit(cache=True, nogil=True)
def _sound(
    first: int,
    last: int,
    zero: int,
    step: int,
    low: int,
    side: Int16,
    out_kind: UInt8,
    position: Int64,
    source: Int64,
    size: Int32,
    arena: Bytes,
) -> None:
    """Decode entries into one channel, whose first sample is `low` samples behind `zero`."""
    frames = side.shape[0]
    half = step // 2 - zero
    for i in range(first, last):
        # Packets of one stream lie far apart: ask for the octets of a later one before they are needed.
        if i + AHEAD < source.shape[0]:
            for line in range(3):
                prefetch(arena, source[i + AHEAD] + LINE * line)
        kind = out_kind[i]
        if kind != KIND_ULAW and kind != KIND_ALAW:
            continue
        at = (position[i] + half) // step - low
        begin = source[i]
        count = np.int64(size[i])
        if at < 0:
            begin -= at
            count += at
            at = np.int64(0)
        count = min(count, frames - at)
        if count <= 0:
            continue
        if kind == KIND_ULAW:
            expand_ulaw(arena[begin : begin + count], side[at : at + count])
        else:
            expand_alaw(arena[begin : begin + count], side[at : at + count])


@njit(cache=True, nogil=True)
def place(
    jobs: Int64,
    channels: Int32,
    bounds: Int64,
    taken: Int64,
    out_kind: UInt8,
    position: Int64,
    source: Int64,
    size: Int32,
    arena: Bytes,
    left: Int16,
    right: Int16,
    out: Int16,
) -> None:
    """Decode G.711 entries into interleaved stereo, a job (row of the JOB_ columns) per track.

    Job j takes the streams from JOB_FIRST up to JOB_LAST and gives JOB_FRAMES frames from sample JOB_LOW of its track
    on at frame JOB_OUT of `out`, the first JOB_KEPT of which hold what the track already has. `left` and `right` are
    scratch of at least as many samples as the longest job.
    """
    for j in range(jobs.shape[0]):
        frames = jobs[j, JOB_FRAMES]
        target = out[2 * jobs[j, JOB_OUT] : 2 * (jobs[j, JOB_OUT] + frames)]
        one = left[:frames]
        other = right[:frames]
        one[:] = 0
        other[:] = 0
        for k in range(jobs[j, JOB_KEPT]):
            one[k] = target[2 * k]
            other[k] = target[2 * k + 1]
        zero = jobs[j, JOB_ZERO]
        step = jobs[j, JOB_STEP]
        low = jobs[j, JOB_LOW]
        for x in range(jobs[j, JOB_FIRST], jobs[j, JOB_LAST]):
            first = bounds[x]
            last = first + taken[x]
            if first == last or channels[x] < 0:
                continue
            side = one if channels[x] == 0 else other
            _sound(first, last, zero, step, low, side, out_kind, position, source, size, arena)
        for k in range(frames):
            target[2 * k] = one[k]
            target[2 * k + 1] = other[k]
