"""Kernels of the receiver: sequence numbers, RFC 3550 statistics and the place of each packet on the timeline.

Positions are ticks of 1/14,112,000 s since the engine's epoch: a whole number of ticks for every sample of every
audio rate in use (8 to 48 kHz and the 11.025 kHz family). `decoders.timeline` explains the rules and owns the columns.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from capture.batch import Bytes, Int32, Int64, UInt8, UInt16, UInt32

Int16 = NDArray[np.int16]
Floats = NDArray[np.float64]

TICKS = 14_112_000
"""Timeline ticks in a second."""

# Columns of a stream's integer state.
(
    FORMATS, PRIMARY, STARTED, BASE, TOP, BAD, SEEN, SEEN_1, SEEN_2, SEEN_3, RECEIVED, DUPLICATES, REORDERED, LATE,
    EXPECTED, EPOCHS, GAPS, UTS, TRANSIT, TRANSIT_CLOCK, AFTER_EVENT, SEGMENT_UTS, SEGMENT_POSITION, SEGMENT_CLOCK,
    OLD_UTS, OLD_POSITION, BASELINE, BASELINE_KNOWN, FIRST_TIME, LAST_TIME, FIRST_STAMP, LOW_TICKS, HIGH_TICKS,
    LAST_END, SHIFTS, RESTARTS, AUDIO, EVENTS, NOISE, UNKNOWN, STRAYS, SNAPPED, AUDIO_TYPE, FIRST_NUMBER, LAST_NUMBER,
    OTHERS, LAST_CAPTURE, STATE,
) = range(48)  # fmt: skip
"""STATE is the number of columns. OTHERS counts what of a window is left to decoders; LOW_TICKS and HIGH_TICKS
bound what of it the kernels place."""

JOB_FIRST, JOB_LAST, JOB_LOW, JOB_FRAMES, JOB_KEPT, JOB_OUT, JOB_ZERO, JOB_STEP, JOB = range(9)
"""Columns of a job for `place`; JOB is their number."""

JITTER, JITTER_MAX, JITTER_SUM, JITTER_COUNT, STATISTICS = range(5)
"""Columns of a stream's floating-point state, jitter in RTP clock units; STATISTICS is their number."""

KIND_UNKNOWN = 0
KIND_ULAW = 1
KIND_ALAW = 2
KIND_CODEC = 3
"""Audio that a decoder object decodes."""
KIND_EVENT = 4
KIND_NOISE = 5
KIND_REDUNDANT = 6
KIND_SILENT = 7
"""Audio that cannot be decoded: it keeps its place, and stays silent."""
KIND_OTHER = 8
"""Not audio."""

MAX_DROPOUT = 3000
MAX_MISORDER = 100
HISTORY = 256
"""Sequence numbers behind the highest for which duplicates are known."""

JUMP = TICKS // 25
"""40 ms: a step of the delay that begins a new block."""
JUMP_AT_START = TICKS // 4
"""While the baseline is not known, only a step of 250 ms separates blocks."""
DRIFT = TICKS // 100
"""10 ms: channels may be this far off the capture clock before packets are moved."""
SETTLED = TICKS * 2 // 5
"""400 ms: how long a block must last to move packets later."""
LEAP = TICKS
"""1 s: no network makes packets this early; the sender's timestamp jumped."""
LATE_TICKS = TICKS * 6 // 100
"""60 ms: what a usual jitter buffer would have discarded."""
STRAY = 5 * TICKS
"""A packet this far behind what was placed belongs to no place."""
UNHEARD = -(1 << 62)
"""Delay of a packet that says nothing of the delay: an event, noise, or one out of order."""


@njit(cache=True, nogil=True, inline="always")
def ticks_of(nanoseconds: int) -> int:
    """Timeline ticks of a duration; exact splitting keeps years within 64 bits."""
    return nanoseconds // 1_000_000 * 14_112 + nanoseconds % 1_000_000 * 14_112 // 1_000_000


@njit(cache=True, nogil=True, inline="always")
def _signed(difference: int) -> int:
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
            return 1 if abs(_signed(following - stamp)) < abs(_signed(following - top)) else 0
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
        here = top + _signed(stamp - top)
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
            was = state[OLD_UTS] + _signed(stamp - state[OLD_UTS])
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
def _align(state: Int64, first: int, last: int, final: bool, uts: Int64, position: Int64, delay: Int64) -> int:
    """Move blocks of packets to where their delay says; gives the index behind the last packet that is settled."""
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
        elif not final and i == last and begin > first and low - shift - state[BASELINE] > JUMP:
            # Late, but for too short a time to say whether it stays so.
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

    Packets from the returned index on must be looked at again together with those that follow them.
    """
    top = state[UTS] if state[STARTED] else np.int64(-1)
    high = state[TOP] & 0xFFFF
    begin = first
    while begin < last:
        end, top, high, waits = _unwrap(
            state, begin, last, top, high, final, times, stamps, sequences, types, kinds, clocks, epoch, uts,
            position, delay,
        )  # fmt: skip
        settled = _align(state, begin, end, final or end < last, uts, position, delay)
        if settled < end or waits:
            return settled
        begin = end
    return last


@njit(cache=True, nogil=True, inline="always")
def _seen(state: Int64, extended: int) -> int:
    """Whether the packet with this extended sequence number was received, as far as the history goes."""
    word = (extended >> 6) & 3
    return (state[SEEN + word] >> (extended & 63)) & 1


@njit(cache=True, nogil=True, inline="always")
def _mark(state: Int64, extended: int) -> None:
    """Remember a received packet."""
    state[SEEN + ((extended >> 6) & 3)] |= np.int64(1) << (extended & 63)


@njit(cache=True, nogil=True)
def _advance(state: Int64, extended: int) -> None:
    """Move the highest sequence number up to `extended`, forgetting what falls out of the history."""
    top = state[TOP]
    if extended - top >= HISTORY:
        for word in range(4):
            state[SEEN + word] = 0
    else:
        for gone in range(top + 1, extended + 1):
            state[SEEN + ((gone >> 6) & 3)] &= ~(np.int64(1) << (gone & 63))
    state[TOP] = extended
    _mark(state, extended)


@njit(cache=True, nogil=True)
def _begin(state: Int64, extended: int) -> None:
    """RFC 3550 A.1 init_seq; what an earlier sequence of the same source expected is kept."""
    if state[STARTED]:
        state[EXPECTED] += state[TOP] - state[BASE] + 1
        state[EPOCHS] += 1
    for word in range(4):
        state[SEEN + word] = 0
    state[BASE] = extended
    state[TOP] = extended
    state[BAD] = -1
    _mark(state, extended)


NEW = 0
REPEATED = 1
ASTRAY = 2
UNDECIDED = 3


@njit(cache=True, nogil=True)
def _sequence(state: Int64, sequence: int, following: int, final: bool) -> int:
    """RFC 3550 A.1 update_seq with a look ahead: NEW, REPEATED, ASTRAY or UNDECIDED (needs the next packet).

    `following` is the sequence number of the stream's next packet in order of arrival, -1 where there is none yet.
    Where A.1 drops the first packet after a jump, the look ahead lets a recorder keep its audio.
    """
    if not state[STARTED]:
        _begin(state, sequence + 65536)
        return NEW
    top = state[TOP]
    delta = (sequence - top) & 0xFFFF
    if delta == 0:
        return REPEATED
    if delta < MAX_DROPOUT:
        if delta > 1:
            state[GAPS] += 1
        _advance(state, top + delta)
        return NEW
    if delta > 65536 - MAX_MISORDER:
        extended = top - (65536 - delta)
        if extended >= state[BASE] - MAX_MISORDER and _seen(state, extended):
            return REPEATED
        _mark(state, extended)
        state[REORDERED] += 1
        state[BASE] = min(state[BASE], extended)
        return NEW
    if following < 0 and not final:
        return UNDECIDED
    if following == ((sequence + 1) & 0xFFFF) or state[BAD] == sequence:
        _begin(state, ((top >> 16) + 2) * 65536 + sequence)
        return NEW
    state[BAD] = (sequence + 1) & 0xFFFF
    return ASTRAY


@njit(cache=True, nogil=True)
def _jitter(state: Int64, figures: Floats, kind: int, clock: int, nanoseconds: int, stamp: int) -> None:
    """RFC 3550 section 6.4.1, in order of arrival; events and noise are left out (their timestamps stand still)."""
    if kind in (KIND_EVENT, KIND_NOISE):
        state[AFTER_EVENT] = 1
        return
    arrival = nanoseconds // 1_000_000_000 * clock + nanoseconds % 1_000_000_000 * clock // 1_000_000_000
    transit = (arrival - stamp) & 0xFFFFFFFF
    if state[AFTER_EVENT] == 0 and state[TRANSIT_CLOCK] == clock:
        d = abs(_signed(transit - state[TRANSIT]))
        if d < 10 * clock:
            figures[JITTER] += (d - figures[JITTER]) / 16.0
            milliseconds = figures[JITTER] * 1000.0 / clock
            figures[JITTER_MAX] = max(figures[JITTER_MAX], milliseconds)
            figures[JITTER_SUM] += milliseconds
            figures[JITTER_COUNT] += 1
    state[AFTER_EVENT] = 0
    state[TRANSIT] = transit
    state[TRANSIT_CLOCK] = clock


@njit(cache=True, nogil=True)
def _as_copy(first: Int64, sequence: int, stamp: int) -> int:
    """Place a packet of a second sighting by the first one's mapping; gives its position, or UNHEARD if it has it."""
    top = first[TOP]
    delta = (sequence - top) & 0xFFFF
    extended = top + (delta - 65536 if delta >= 32768 else delta)
    if extended <= top and top - extended < HISTORY:
        if _seen(first, extended):
            return UNHEARD
        _mark(first, extended)
    if first[SEGMENT_CLOCK] == 0:
        return UNHEARD
    highest = first[UTS]
    here = highest + _signed(stamp - highest)
    since = here - first[SEGMENT_UTS]
    if since < 0 and first[OLD_UTS] != UNHEARD:
        since = _signed(stamp - first[OLD_UTS])
        return first[OLD_POSITION] + since * TICKS // first[SEGMENT_CLOCK]
    return first[SEGMENT_POSITION] + since * TICKS // first[SEGMENT_CLOCK]


DROPPED = 255
"""Kind of an entry that leaves no sound."""


@njit(cache=True, nogil=True)
def _receive_stream(
    table: Int64,
    state: Int64,
    figures: Floats,
    first: int,
    last: int,
    horizon: int,
    final: bool,
    order: Int32,
    times: Int64,
    stamps: UInt32,
    sequences: UInt16,
    types: UInt8,
    sizes: Int32,
    w_missing: Int32,
    w_number: Int64,
    w_capture: Int32,
    kinds: UInt8,
    clocks: Int32,
    epoch: int,
    uts: Int64,
    position: Int64,
    out_kind: UInt8,
) -> int:
    """Statistics and placing of one stream's entries; gives the index behind the last one that was taken."""
    f = state[FORMATS]
    primary = state[PRIMARY]
    for i in range(first, last):
        k = i + 1
        while k < horizon and sequences[k] == sequences[i]:
            k += 1
        following = np.int64(sequences[k]) if k < horizon else np.int64(-1)
        kind = kinds[f, types[i] & 127]
        clock = np.int64(clocks[f, types[i] & 127])
        stamp = np.int64(stamps[i])
        out_kind[i] = DROPPED
        verdict = _sequence(state, np.int64(sequences[i]), following, final)
        if verdict == UNDECIDED:
            return i
        if not state[STARTED]:
            state[STARTED] = 1
            state[FIRST_TIME] = times[i]
            state[FIRST_NUMBER] = w_number[order[i]]
            state[FIRST_STAMP] = stamp
            state[UTS] = uts[i]
        state[LAST_TIME] = max(state[LAST_TIME], times[i])
        state[LAST_NUMBER] = w_number[order[i]]
        state[LAST_CAPTURE] = w_capture[order[i]]
        if verdict == REPEATED:
            state[DUPLICATES] += 1
            continue
        if verdict == ASTRAY:
            state[STRAYS] += 1
            continue
        state[RECEIVED] += 1
        if primary < 0 and position[i] < state[LAST_END] - STRAY:
            state[STRAYS] += 1
            continue
        _jitter(state, figures, kind, clock, times[i] - epoch, stamp)
        if w_missing[order[i]] > 0:
            state[SNAPPED] += 1
        if kind == KIND_EVENT:
            state[EVENTS] += 1
        elif kind == KIND_NOISE:
            state[NOISE] += 1
        elif kind == KIND_UNKNOWN:
            state[UNKNOWN] += 1
        else:
            state[AUDIO] += 1
            state[AUDIO_TYPE] = types[i] & 127
            if uts[i] > state[UTS]:
                state[UTS] = uts[i]
            if ticks_of(times[i] - epoch) - position[i] - state[BASELINE] > LATE_TICKS:
                state[LATE] += 1
        if primary >= 0:
            position[i] = _as_copy(table[primary], np.int64(sequences[i]), stamp)
            if position[i] == UNHEARD:
                continue
        out_kind[i] = kind
        if kind in (KIND_ULAW, KIND_ALAW):
            end = position[i] + sizes[i] * TICKS // clock
            if position[i] < state[LOW_TICKS]:
                state[LOW_TICKS] = position[i]
            if end > state[HIGH_TICKS]:
                state[HIGH_TICKS] = end
        else:
            state[OTHERS] += 1
        if position[i] > state[LAST_END] and kind != KIND_EVENT and kind != KIND_UNKNOWN:
            state[LAST_END] = position[i]
    return last


@njit(cache=True, nogil=True)
def receive(
    table: Int64,
    statistics: Floats,
    streams: Int32,
    bounds: Int64,
    taken: Int64,
    order: Int32,
    times: Int64,
    stamps: UInt32,
    sequences: UInt16,
    types: UInt8,
    sizes: Int32,
    w_missing: Int32,
    w_number: Int64,
    w_capture: Int32,
    kinds: UInt8,
    clocks: Int32,
    epoch: int,
    now: int,
    hold: int,
    uts: Int64,
    position: Int64,
    delay: Int64,
    out_kind: UInt8,
) -> None:
    """Run the receiver over the entries of each stream: order[bounds[x]:bounds[x + 1]] belongs to streams[x].

    `hold` (ns) is how much of a beginning stream must have been seen before its place is settled; 0 settles all.
    Writes `taken[x]`, the number of entries that are settled; the rest must come again with the next window.
    """
    for x in range(streams.shape[0]):
        state = table[streams[x]]
        figures = statistics[streams[x]]
        first = bounds[x]
        last = bounds[x + 1]
        taken[x] = 0
        if first == last:
            continue
        # The extent of what this window places, for the caller.
        state[LOW_TICKS] = np.int64(1) << 62
        state[HIGH_TICKS] = UNHEARD
        state[OTHERS] = 0
        if hold > 0 and not state[STARTED] and now - times[first] < hold:
            continue
        settled = locate(
            state, first, last, hold == 0, times, stamps, sequences, types, kinds, clocks, epoch, uts, position,
            delay,
        )  # fmt: skip
        settled = _receive_stream(
            table, state, figures, first, settled, last, hold == 0, order, times, stamps, sequences, types, sizes,
            w_missing, w_number, w_capture, kinds, clocks, epoch, uts, position, out_kind,
        )  # fmt: skip
        taken[x] = settled - first


@njit(cache=True, nogil=True)
def gather(
    begins: Int64,
    bounds: Int64,
    by_flow: Int32,
    w_time: Int64,
    w_stamp: UInt32,
    w_sequence: UInt16,
    w_type: UInt8,
    w_offset: Int64,
    w_header: Int32,
    w_size: Int32,
    order: Int32,
    time: Int64,
    stamp: UInt32,
    sequence: UInt16,
    kind: UInt8,
    source: Int64,
    size: Int32,
) -> None:
    """Lay the staged packets of each stream one after the other, so that what follows reads memory in order."""
    for x in range(begins.shape[0]):
        begin = begins[x]
        for i in range(bounds[x], bounds[x + 1]):
            p = by_flow[begin]
            begin += 1
            order[i] = p
            time[i] = w_time[p]
            stamp[i] = w_stamp[p]
            sequence[i] = w_sequence[p]
            kind[i] = w_type[p]
            source[i] = w_offset[p] + w_header[p]
            size[i] = w_size[p]


_3, _4, _7, _8 = np.int32(3), np.int32(4), np.int32(7), np.int32(8)
_1, _15, _85, _128, _132, _255 = np.int32(1), np.int32(15), np.int32(0x55), np.int32(128), np.int32(132), np.int32(255)


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
