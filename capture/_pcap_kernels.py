"""Kernels that walk the record chain of a pcap file into columns and find it again after damage.

In: a buffer, positions in it, the file's properties. Out: columns filled in place, a position and a reason to stop.
Times are ns since the epoch, UTC; `UNKNOWN` stands for no time. They never read beyond `end`.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from capture._octets_at import be32, le32
from capture._prefetch import LINE, prefetch
from capture.batch import Bytes, Int32, Int64

UNKNOWN = np.iinfo(np.int64).min
"""No earlier packet, so no time to compare with."""
PLAUSIBLE_GAP = 90 * 24 * 3600 * 1_000_000_000
"""Neighbouring packets further apart than this (ns) are looked at twice. An error in the top octet of a time in
seconds moves it by 194 days; a capture spliced by hand rarely holds one packet from another quarter."""
NEAR_GAP = 3600 * 1_000_000_000
"""A packet that stands alone between damaged ones must be no further (ns) from the last one read."""

FULL = 0
"""The columns are full."""
SHORT = 1
"""The buffer ends at or inside a record."""
IMPLAUSIBLE = 2
"""What stands at the position is no record."""

FOUND = 0
MORE = 1
NOTHING = 2

_AHEAD = 4096


@njit(cache=True, nogil=True)
def read_u32(buffer: Bytes, position: int, big: bool) -> int:
    """Unsigned 32-bit field in the file's byte order, as int64."""
    value = be32(buffer, position) if big else le32(buffer, position)
    return np.int64(value)  # type: ignore[return-value]  # the kernels' integers


@njit(cache=True, nogil=True)
def walk_pcap(
    buffer: Bytes,
    position: int,
    end: int,
    stop: int,
    big: bool,
    header: int,
    scale: int,
    limit: int,
    previous: int,
    time: Int64,
    offset: Int64,
    captured: Int32,
    wire: Int32,
) -> tuple[int, int, int, bool]:
    """Read records until the columns are full; (records, position after them, reason, whether a time jumped).

    Past `stop` the columns count as full, once two records are there. `header` is the octets of a record header,
    `scale` the ns of its fraction's unit, `limit` the most octets of a packet, `previous` the time of the one before.
    """
    count = 0
    jumped = False
    warmed = position
    while count < len(time) and (position < stop or count < 2):
        if position + header > end:
            return count, position, SHORT, jumped
        size = read_u32(buffer, position + 8, big)
        present = read_u32(buffer, position + 12, big)
        seconds = read_u32(buffer, position, big)
        now = seconds * 1_000_000_000 + read_u32(buffer, position + 4, big) * scale
        jump = previous != UNKNOWN and abs(now - previous) > PLAUSIBLE_GAP
        # Zeros are what a crash leaves in a file; they would pass for empty packets of 1970.
        if size > limit or (size == 0 and (jump or (seconds == 0 and present == 0))):
            return count, position, IMPLAUSIBLE, jumped
        following = position + header + size
        if following > end:
            return count, position, SHORT, jumped
        while warmed < following + _AHEAD:
            prefetch(buffer, warmed)
            warmed += LINE
        jumped |= jump
        time[count] = now
        offset[count] = position + header
        captured[count] = size
        wire[count] = min(max(present, size), 0x7FFFFFFF)
        count += 1
        previous = now
        position = following
    return count, position, FULL, jumped


@njit(cache=True, nogil=True)
def _chain_holds(
    buffer: Bytes,
    position: int,
    end: int,
    final: bool,
    big: bool,
    header: int,
    scale: int,
    limit: int,
    near: int,
    lone: bool,
) -> int:
    """Whether plausible records follow one another from `position`: FOUND, MORE (too few octets to say), NOTHING.

    `lone` says that one will do where its time is close to `near`.
    """
    wanted = 3 if near == UNKNOWN else 2
    lone = lone and near != UNKNOWN
    for link in range(wanted):
        if position == end and final and link > 0:
            return FOUND
        if position + header > end:
            if not final:
                return MORE
            return FOUND if link >= wanted - 1 else NOTHING
        size = read_u32(buffer, position + 8, big)
        present = read_u32(buffer, position + 12, big)
        if size == 0 or size > limit or present < size or present > limit:
            return NOTHING
        fraction = read_u32(buffer, position + 4, big) * scale
        now = read_u32(buffer, position, big) * 1_000_000_000 + fraction
        if fraction >= 1_000_000_000 or (near != UNKNOWN and abs(now - near) > PLAUSIBLE_GAP):
            return NOTHING
        position += header + size
        if position > end:
            if not final:
                return MORE
            return FOUND if link >= 1 else NOTHING
        if lone and abs(now - near) <= NEAR_GAP:
            return FOUND
        near = now
    return FOUND


@njit(cache=True, nogil=True)
def find_pcap(
    buffer: Bytes,
    position: int,
    stop: int,
    end: int,
    final: bool,
    big: bool,
    header: int,
    scale: int,
    limit: int,
    near: int,
    lone: bool,
) -> tuple[int, int]:
    """First place in [position, stop) where a chain of plausible records begins: (place, FOUND | MORE | NOTHING).

    `near` is the time of the last packet; `lone` accepts a single record close to it. With MORE the place is the first
    that cannot be judged yet; all before it are none.
    """
    while position < stop:
        # Most places fall at the first look at a length.
        if position + header > end or 0 < read_u32(buffer, position + 8, big) <= limit:
            state = _chain_holds(buffer, position, end, final, big, header, scale, limit, near, lone)
            if state != NOTHING:
                return position, state
        position += 1
    return position, NOTHING


@njit(cache=True, nogil=True)
def keep_plausible_times(time: Int64, count: int, previous: int, keep: NDArray[np.bool_]) -> int:
    """Clear `keep` where a packet's time is far from those before and after it while those agree.

    `time` may hold more than `count` rows: what is known of the packets behind. Returns the time of the last kept.
    """
    for row in range(count):
        now = time[row]
        if previous != UNKNOWN and abs(now - previous) > PLAUSIBLE_GAP and row + 1 < len(time):
            keep[row] = abs(time[row + 1] - previous) > PLAUSIBLE_GAP
        if keep[row]:
            previous = now
    return previous
