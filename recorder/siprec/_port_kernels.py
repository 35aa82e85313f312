"""Kernels of the port monitor: whose packets a port takes, and statistics of RFC 3550 for its reports.

In: a batch's rows in time order, with what the layers and `demux` say of them, and a row of state for each pair of
ports. Out: which rows are kept. One pass, no Python.
"""

import numpy as np
from numba import njit

from capture._octets_at import be16, be32
from capture.batch import Bytes, Int32, Int64, UInt8, UInt16, UInt64
from decoders._demux_kernels import RTCP, RTP

# Columns of a pair's state.
(
    CLOCK, SECURE, EXPECTED, EXPECTED_HIGH, EXPECTED_LOW, EXPECTED_PORT, LOCKED, HIGH, LOW, PORT, SSRC, LAST, FIRST,
    OLD_SSRC, OLD_UNTIL, BASE, TOP, BAD, RECEIVED, JITTER, TRANSIT, STAMP, TIMED, REPORT_SSRC, REPORT_MIDDLE,
    REPORT_TIME, RTCP_HIGH, RTCP_LOW, RTCP_PORT, RTCP_LAST, BYE, PACKETS, STRAYS, STRAY_HIGH, STRAY_LOW, STRAY_PORT,
    STRAY_SSRC, STRAY_LAST, TAKEOVERS, MOVES, FOREIGN, EXPECTED_PRIOR, RECEIVED_PRIOR, STATE,
) = range(44)  # fmt: skip
"""STATE is the number of columns. Addresses are halves as `capture.address` has them, as signed numbers; times are ns.
HIGH, LOW, PORT and SSRC are the sender that the port is locked to, REPORT_... its last sender report."""

SILENCE = 1_000_000_000
"""ns without a packet after which another sender may take a port over."""
OVERLAP = 1_000_000_000
"""ns for which packets of the SSRC that a sender had before are still its own."""
_DROPOUT = 3000
_MISORDER = 100
"""RFC 3550, appendix A.1."""
_FOLLOWING = 100
"""Sequence numbers by which a stream may be ahead when it goes on from another address."""

_SECOND = 1_000_000_000


@njit(cache=True, nogil=True)
def begin_source(state: Int64, time: int, sequence: int) -> None:
    """A new source: RFC 3550 A.1 init_seq, and no jitter yet."""
    state[BASE] = sequence
    state[TOP] = sequence
    state[BAD] = -1
    state[RECEIVED] = 0
    state[EXPECTED_PRIOR] = 0
    state[RECEIVED_PRIOR] = 0
    state[JITTER] = 0
    state[TIMED] = 0
    state[FIRST] = time
    state[BYE] = 0


@njit(cache=True, nogil=True)
def count_packet(state: Int64, time: int, sequence: int, stamp: int) -> None:
    """RFC 3550 A.1 (update_seq, without probation) and A.8 (jitter, in sixteenths of the RTP clock's units)."""
    state[RECEIVED] += 1
    delta = (sequence - state[TOP]) & 0xFFFF
    if delta < _DROPOUT:
        state[TOP] += delta
    elif delta <= 65536 - _MISORDER:
        if sequence == state[BAD]:
            begin_source(state, time, sequence)
            state[RECEIVED] = 1
        else:
            state[BAD] = (sequence + 1) & 0xFFFF
            state[RECEIVED] -= 1
        return
    since = time - state[FIRST]
    clock = state[CLOCK]
    arrival = since // _SECOND * clock + since % _SECOND * clock // _SECOND
    transit = (arrival - stamp) & 0xFFFFFFFF
    # Updates of one telephone event all have its first timestamp.
    if state[TIMED] and stamp != state[STAMP]:
        distance = (transit - state[TRANSIT]) & 0xFFFFFFFF
        if distance >= 1 << 31:
            distance = (1 << 32) - distance
        if distance < 10 * clock:
            state[JITTER] += distance - ((state[JITTER] + 8) >> 4)
    state[TIMED] = 1
    state[TRANSIT] = transit
    state[STAMP] = stamp


@njit(cache=True, nogil=True)
def lock(state: Int64, time: int, high: int, low: int, port: int, ssrc: int, sequence: int) -> None:
    """Take the packets of this sender from now on."""
    if state[LOCKED]:
        state[TAKEOVERS] += 1
    state[LOCKED] = 1
    state[HIGH], state[LOW], state[PORT], state[SSRC] = high, low, port, ssrc
    state[OLD_UNTIL] = 0
    begin_source(state, time, sequence)


@njit(cache=True, nogil=True)
def admit(state: Int64, time: int, high: int, low: int, port: int, ssrc: int, sequence: int, stamp: int) -> bool:
    """Whether a packet of RTP is of the sender that the port is locked to, or of one that may take it over."""
    here = state[HIGH] == high and state[LOW] == low and state[PORT] == port
    same = state[SSRC] == ssrc
    if not state[LOCKED]:
        lock(state, time, high, low, port, ssrc, sequence)
    elif here and not same:
        if ssrc == state[OLD_SSRC] and time < state[OLD_UNTIL]:
            state[PACKETS] += 1
            return True
        before = state[SSRC]
        lock(state, time, high, low, port, ssrc, sequence)
        state[OLD_SSRC], state[OLD_UNTIL] = before, time + OVERLAP
    elif not here:
        silent = abs(time - state[LAST]) > SILENCE
        expected = state[EXPECTED] and (
            state[EXPECTED_HIGH] == high and state[EXPECTED_LOW] == low and state[EXPECTED_PORT] == port
        )
        follows = same and 0 < (sequence - state[TOP]) & 0xFFFF <= _FOLLOWING
        if follows:
            state[MOVES] += 1
            state[HIGH], state[LOW], state[PORT] = high, low, port
        elif silent or expected:
            lock(state, time, high, low, port, ssrc, sequence)
        else:
            state[STRAYS] += 1
            state[STRAY_HIGH], state[STRAY_LOW], state[STRAY_PORT] = high, low, port
            state[STRAY_SSRC], state[STRAY_LAST] = ssrc, time
            return False
    state[LAST] = time
    state[PACKETS] += 1
    count_packet(state, time, sequence, stamp)
    return True


@njit(cache=True, nogil=True)
def hear_reports(state: Int64, time: int, buffer: Bytes, at: int, size: int) -> None:
    """What reports and BYE of a plain compound packet tell (RFC 3550, sections 6.4.1 and 6.6)."""
    end = at + size
    while at + 8 <= end:
        kind = buffer[at + 1]
        ssrc = be32(buffer, at + 4)
        if kind == 200 and at + 28 <= end:
            state[REPORT_SSRC] = ssrc
            state[REPORT_MIDDLE] = be32(buffer, at + 10)
            state[REPORT_TIME] = time
        elif kind == 203 and buffer[at] & 31 and ssrc == state[SSRC]:
            state[BYE] = time
        at += 4 * (1 + be16(buffer, at + 2))


@njit(cache=True, nogil=True)
def admit_reports(
    state: Int64, time: int, high: int, low: int, port: int, ssrc: int, buffer: Bytes, at: int, size: int
) -> bool:
    """Whether RTCP is of the sender that the port is locked to; where it comes from is where ours goes."""
    own = ssrc == state[SSRC] or (ssrc == state[OLD_SSRC] and time < state[OLD_UNTIL])
    if state[LOCKED] and not own and (state[HIGH] != high or state[LOW] != low):
        state[STRAYS] += 1
        return False
    state[RTCP_HIGH], state[RTCP_LOW], state[RTCP_PORT], state[RTCP_LAST] = high, low, port, time
    if not state[SECURE]:
        hear_reports(state, time, buffer, at, size)
    return True


@njit(cache=True, nogil=True)
def watch_rows(
    states: Int64,
    place: Int32,
    time: Int64,
    direct: UInt8,
    kinds: UInt8,
    buffer: Bytes,
    payload: Int64,
    length: Int32,
    high: UInt64,
    low: UInt64,
    port: UInt16,
    keep: UInt8,
) -> None:
    """Judge the rows of a batch in order: `keep` says which are kept.

    `direct` are rows whose payload stands right behind the headers that `media_ports` made, so that no tunnel in a
    datagram passes for another address. What is neither RTP nor RTCP is nobody's: SIP in it would pass for signalling.
    """
    for row in range(len(place)):
        state = states[place[row] >> 1]
        keep[row] = 0
        at, size = payload[row], length[row]
        if not direct[row] or (kinds[row] != RTP and kinds[row] != RTCP) or size < 8:
            state[FOREIGN] += 1
            continue
        source_high, source_low, source_port = np.int64(high[row]), np.int64(low[row]), np.int64(port[row])
        if kinds[row] == RTCP:
            ssrc = be32(buffer, at + 4)
            keep[row] = admit_reports(
                state, time[row], source_high, source_low, source_port, ssrc, buffer, at, size
            )  # fmt: skip
        elif size >= 12:
            keep[row] = admit(
                state, time[row], source_high, source_low, source_port, be32(buffer, at + 8), be16(buffer, at + 2),
                be32(buffer, at + 4),
            )  # fmt: skip
