"""Kernels of the timeline: the unwrapped timestamp and the position of each packet; see `decoders.timeline`."""

import numpy as np
from numba import njit

from capture.batch import Int32, Int64, UInt8, UInt16, UInt32
from decoders._stream_columns import (
    BASELINE,
    BASELINE_KNOWN,
    DRIFT,
    FORMATS,
    JUMP,
    JUMP_AT_START,
    KIND_EVENT,
    KIND_NOISE,
    KIND_OTHER,
    KIND_UNKNOWN,
    LAST_END,
    LEAP,
    MAX_MISORDER,
    OLD_POSITION,
    OLD_UTS,
    RESTARTS,
    SEGMENT_CLOCK,
    SEGMENT_POSITION,
    SEGMENT_UTS,
    SETTLED,
    SHIFTS,
    STARTED,
    STRAY,
    TICKS,
    TOP,
    UNHEARD,
    UTS,
)


@njit(cache=True, nogil=True, inline="always")
def ticks_of(nanoseconds: int) -> int:
    """Timeline ticks of a duration; exact splitting keeps years within 64 bits."""
    return nanoseconds // 1_000_000 * 14_112 + nanoseconds % 1_000_000 * 14_112 // 1_000_000


@njit(cache=True, nogil=True, inline="always")
def signed_32(difference: int) -> int:
    """A 32-bit difference as signed."""
    d = difference & 0xFFFFFFFF
    return d - 0x100000000 if d >= 0x80000000 else d


@njit(cache=True, nogil=True)
def _goes_on(
    i: int,
    last: int,
    top: int,
    stamps: UInt32,
    sequences: UInt16,
    types: UInt8,
    kinds: UInt8,
) -> int:
    """Whether the timestamp that packet i jumped to is where its stream goes on.

    1 if the packet that follows it by sequence number has a timestamp nearer to it than to the highest before, 0 if
    not, so that i is a stray, -1 if there is no such packet yet.
    """
    sequence = np.int64(sequences[i])
    stamp = np.int64(stamps[i])
    others = 0
    for k in range(i + 1, last):
        step = (np.int64(sequences[k]) - sequence) & 0xFFFF
        if step == 0 or kinds[types[k] & 127] in (KIND_EVENT, KIND_NOISE, KIND_UNKNOWN):
            continue
        following = np.int64(stamps[k])
        if step < MAX_MISORDER:
            return 1 if abs(signed_32(following - stamp)) < abs(signed_32(following - top)) else 0
        others += 1
        if others == 4:
            return 0
    return -1


@njit(cache=True, nogil=True)
def _unwrap(
    state: Int64,
    first: int,
    last: int,
    top: int,
    high: int,
    final: bool,
    times: Int64,
    stamps: UInt32,
    sequences: UInt16,
    types: UInt8,
    kinds: UInt8,
    clocks: Int32,
    epoch: int,
    uts: Int64,
    position: Int64,
    delay: Int64,
) -> tuple[int, int, int, bool]:
    """Timestamps without wraps, positions by the mapping in force and delays against it, up to a change of mapping.

    The mapping changes with the clock, and where a timestamp jumps though its sequence number does not. `top` is the
    highest timestamp, `high` the sequence number that came with it. Gives (the packet reached, top, high, whether
    that packet needs those behind it to be understood).
    """
    f = state[FORMATS]
    heard = False
    for i in range(first, last):
        kind = kinds[f, types[i] & 127]
        stamp = np.int64(stamps[i])
        clock = np.int64(clocks[f, types[i] & 127])
        arrival = ticks_of(times[i] - epoch)
        if top < 0:
            top = np.int64(stamp + (1 << 33))
            high = np.int64(sequences[i]) - 1
            state[SEGMENT_UTS] = top
            state[SEGMENT_POSITION] = arrival
            state[SEGMENT_CLOCK] = clock
            state[OLD_UTS] = UNHEARD
            state[LAST_END] = arrival
        here = top + signed_32(stamp - top)
        uts[i] = here
        position[i] = arrival
        delay[i] = UNHEARD
        if kind in (KIND_EVENT, KIND_UNKNOWN):
            continue
        if clock != state[SEGMENT_CLOCK]:
            if heard:
                return i, top, high, False
            state[OLD_UTS] = UNHEARD
            state[SEGMENT_UTS] = here
            state[SEGMENT_CLOCK] = clock
            state[SEGMENT_POSITION] = max(arrival - state[BASELINE], state[LAST_END])
        place = state[SEGMENT_POSITION] + (here - state[SEGMENT_UTS]) * TICKS // clock
        off = arrival - place - state[BASELINE]
        # The same number again is a duplicate, whose timestamp says nothing.
        older = (np.int64(sequences[i]) - high - 1) & 0xFFFF >= 65536 - MAX_MISORDER
        back = here < top - clock // 8
        ahead = here > top + clock and off < -LEAP
        if (back or ahead) and not older and kind not in (KIND_NOISE, KIND_OTHER):
            onward = _goes_on(i, last, top, stamps, sequences, types, kinds[f])
            if onward < 0 and not final:
                return i, top, high, True
            if onward <= 0:
                uts[i] = top
                position[i] = UNHEARD
                continue
            if heard:
                return i, top, high, False
            state[OLD_POSITION] = state[SEGMENT_POSITION] + (top - state[SEGMENT_UTS]) * TICKS // clock
            state[OLD_UTS] = top
            here = top + ((stamp - top) & 0xFFFFFFFF)
            place = arrival - state[BASELINE]
            state[SEGMENT_UTS] = here
            state[SEGMENT_POSITION] = place
            state[RESTARTS] += 1
            top = here
            uts[i] = here
        elif state[OLD_UTS] != UNHEARD and (here < state[SEGMENT_UTS] or (older and here > top)):
            # Of before the mapping changed, unless timestamps jumped and it fits better after that.
            was = state[OLD_UTS] + signed_32(stamp - state[OLD_UTS])
            before = state[OLD_POSITION] + (was - state[OLD_UTS]) * TICKS // clock
            if abs(before - place) < LEAP or abs(arrival - before - state[BASELINE]) < abs(off):
                place = before
                uts[i] = min(was, top)
        if (older or kind == KIND_NOISE) and place - arrival + state[BASELINE] > STRAY:
            uts[i] = top
            position[i] = UNHEARD
            continue
        position[i] = place
        if uts[i] >= top and kind != KIND_NOISE and not older:
            delay[i] = arrival - place
            top = here
            heard = True
        if not older:
            high = np.int64(sequences[i])
    return last, top, high, False


@njit(cache=True, nogil=True)
def _moves(low: int, baseline: int, duration: int) -> bool:
    """Whether a block whose least delay is `low` must be moved on the timeline."""
    offset = low - baseline
    if -DRIFT <= offset <= DRIFT:
        return False
    if offset <= -LEAP:
        return True
    return duration >= (SETTLED if offset > 0 else SETTLED // 2)


@njit(cache=True, nogil=True)
def _align(
    state: Int64, first: int, last: int, final: bool, goes_on: bool, uts: Int64, position: Int64, delay: Int64
) -> int:
    """Move blocks of packets to where their delay says; gives the index behind the last packet that is settled.

    `goes_on`: the last packet came just now, so that more of its block may follow.
    """
    i = first
    shift = np.int64(0)
    measured = first
    edge = state[LAST_END]
    while i < last:
        begin = i
        low = np.int64(0)
        since = np.int64(0)
        until = np.int64(0)
        previous = UNHEARD
        while i < last:
            d = delay[i]
            if d != UNHEARD:
                arrival = d + position[i]
                if previous == UNHEARD:
                    low = d
                    since = arrival
                else:
                    step = d - previous
                    if state[BASELINE_KNOWN]:
                        early = step < -JUMP and d - shift < state[BASELINE] - JUMP
                        if step > JUMP or early or step < -LEAP:
                            break
                    elif step > JUMP_AT_START or step < -JUMP_AT_START:
                        break
                low = min(low, d)
                until = arrival
                previous = d
            i += 1
        if previous == UNHEARD:
            for k in range(begin, i):
                position[k] += shift
            break
        if not state[BASELINE_KNOWN]:
            state[BASELINE] = low
            state[BASELINE_KNOWN] = 1
        elif _moves(low - shift, state[BASELINE], until - since):
            offset = low - shift - state[BASELINE]
            head = begin
            while delay[head] == UNHEARD:
                head += 1
            if offset <= -LEAP and position[head] + shift + offset < edge:
                # The capture's clock stepped back: go on behind what is placed, and measure from there.
                moved = edge - position[head] - shift
                state[BASELINE] += offset - moved
                offset = moved
            state[OLD_POSITION] = state[SEGMENT_POSITION] + shift
            state[OLD_UTS] = state[SEGMENT_UTS]
            shift += offset
            if offset > LEAP // 5 or offset < -LEAP // 5:
                state[RESTARTS] += 1
            else:
                state[SHIFTS] += 1
            boundary = uts[head]
            for k in range(begin, i):
                position[k] += shift if uts[k] >= boundary else shift - offset
            state[SEGMENT_POSITION] += (boundary - state[SEGMENT_UTS]) * TICKS // state[SEGMENT_CLOCK]
            state[OLD_POSITION] += (boundary - state[SEGMENT_UTS]) * TICKS // state[SEGMENT_CLOCK]
            state[OLD_UTS] = boundary
            state[SEGMENT_UTS] = boundary
            begin = i
        elif not final and i == last and (begin > first or goes_on) and abs(low - shift - state[BASELINE]) > JUMP:
            # Late or early, but for too short a time to say whether it stays so.
            state[SEGMENT_POSITION] += shift
            return begin
        for k in range(begin, i):
            position[k] += shift
        for k in range(measured, i):
            if delay[k] != UNHEARD and position[k] > edge:
                edge = position[k]
        measured = i
    state[SEGMENT_POSITION] += shift
    return last


@njit(cache=True, nogil=True)
def locate(
    state: Int64,
    first: int,
    last: int,
    final: bool,
    goes_on: bool,
    times: Int64,
    stamps: UInt32,
    sequences: UInt16,
    types: UInt8,
    kinds: UInt8,
    clocks: Int32,
    epoch: int,
    uts: Int64,
    position: Int64,
    delay: Int64,
) -> int:
    """Unwrapped timestamp and position of a stream's entries first..last; gives how far they are settled.

    `goes_on`: the last of them came just now. Packets from the returned index on must be looked at again together with
    those that follow them.
    """
    top = state[UTS] if state[STARTED] else np.int64(-1)
    high = state[TOP] & 0xFFFF
    begin = first
    while begin < last:
        end, top, high, waits = _unwrap(
            state, begin, last, top, high, final, times, stamps, sequences, types, kinds, clocks, epoch, uts,
            position, delay,
        )  # fmt: skip
        settled = _align(state, begin, end, final or end < last, goes_on, uts, position, delay)
        if settled < end or waits:
            return settled
        begin = end
    return last
