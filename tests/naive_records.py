"""The obvious way to walk captures, to find records again and to merge: twins of the kernels in `capture`."""

from fractions import Fraction
from itertools import accumulate

UNKNOWN = -(2**63)
GAP = 90 * 24 * 3600 * 10**9
FULL, SHORT, IMPLAUSIBLE = "full", "short", "implausible"


def number(data, at, big):
    return int.from_bytes(data[at : at + 4], "big" if big else "little")


def far(a, b):
    return b != UNKNOWN and abs(a - b) > GAP


def walk_pcap(data, position, stop, big, header, scale, limit, previous, room):
    """(rows of (time, offset, captured, wire), position after them, reason)."""
    rows = []
    while len(rows) < room and (position < stop or len(rows) < 2):
        if len(data) - position < header:
            return rows, position, SHORT
        seconds, fraction, size, wire = (number(data, position + at, big) for at in (0, 4, 8, 12))
        time = seconds * 10**9 + fraction * scale
        empty = size == 0 and (far(time, previous) or seconds == wire == 0)
        if size > limit or empty:
            return rows, position, IMPLAUSIBLE
        if position + header + size > len(data):
            return rows, position, SHORT
        rows.append((time, position + header, size, min(max(size, wire), 2**31 - 1)))
        previous = time
        position += header + size
    return rows, position, FULL


def plausible_record(data, at, big, scale, limit, near):
    """Octets of a record's packet if all its header says can be so, else 0."""
    seconds, fraction, size, wire = (number(data, at + field, big) for field in (0, 4, 8, 12))
    if not 0 < size <= wire <= limit or fraction * scale >= 10**9:
        return 0
    return 0 if far(seconds * 10**9 + fraction * scale, near) else size


def chain(data, at, final, big, header, scale, limit, near, lone):
    """True, False, or None where the data end too soon to say."""
    wanted = 3 if near == UNKNOWN else 2
    last = near
    for link in range(wanted):
        if at == len(data) and final and link:
            return True
        if at + header > len(data):
            return link == wanted - 1 if final else None
        size = plausible_record(data, at, big, scale, limit, near)
        if not size:
            return False
        near = number(data, at, big) * 10**9 + number(data, at + 4, big) * scale
        at += header + size
        if at > len(data):
            return link >= 1 if final else None
        if lone and last != UNKNOWN and abs(near - last) <= 3600 * 10**9:
            return True
    return True


def find_pcap(data, position, stop, final, big, header, scale, limit, near, lone):
    """(place, True | None | False) as `chain` says of the first place that is not False."""
    for at in range(position, stop):
        verdict = chain(data, at, final, big, header, scale, limit, near, lone)
        if verdict is not False:
            return at, verdict
    return max(position, stop), False


def keep_plausible_times(times, count, previous):
    kept = []
    for row in range(count):
        stray = far(times[row], previous) and row + 1 < len(times) and not far(times[row + 1], previous)
        kept.append(not stray)
        previous = previous if stray else times[row]
    return kept, previous


def nanoseconds(ticks, exponent, binary):
    unit = Fraction(1, 2**exponent if binary else 10**exponent)
    return int(ticks * unit * 10**9)


def blocks(data, position, big):
    """(position, kind, whole block) of each sound block up to the first that is none."""
    while len(data) - position >= 12:
        stated = number(data, position + 4, big)
        length = -(-stated // 4) * 4
        if not 12 <= stated <= 16 << 20 or position + length > len(data):
            return
        if number(data, position + length - 4, big) not in (stated, length):
            return
        yield position, number(data, position, big), data[position : position + length]
        position += length


def pcapng_packets(data, position, big, interfaces):
    """(time, offset, captured, wire, link) of enhanced, obsolete and simple packets up to anything else than a packet.

    `interfaces` holds (link type, exponent, binary, offset in ns, snapshot length).
    """
    rows = []
    previous = 0
    for at, kind, whole in blocks(data, position, big):
        if kind in (1, 0x0A0D0D0A):
            break
        if kind in (2, 6):
            if len(whole) < 32:
                break
            which = number(whole, 8, big)
            if kind == 2:
                which = which >> 16 if big else which & 0xFFFF
            size = number(whole, 20, big)
            if which >= len(interfaces) or size > len(whole) - 32:
                break
            link, exponent, binary, offset, _ = interfaces[which]
            ticks = number(whole, 12, big) << 32 | number(whole, 16, big)
            previous = min(nanoseconds(ticks, exponent, binary), 2**62) + offset
            rows.append((previous, at + 28, size, min(max(size, number(whole, 24, big)), 2**31 - 1), link))
        elif kind == 3:
            if len(whole) < 16 or not interfaces:
                break
            wire = number(whole, 8, big)
            size = min(wire, len(whole) - 16, interfaces[0][4] or wire)
            rows.append((previous, at + 12, size, min(wire, 2**31 - 1), interfaces[0][0]))
    return rows


def merged(captures):
    """(capture, row) of all packets in order, given each capture's times."""
    keyed = [
        (latest, rank, row) for rank, times in enumerate(captures) for row, latest in enumerate(accumulate(times, max))
    ]
    return [(rank, row) for _, rank, row in sorted(keyed)]


KNOWN_TYPES = {*range(1, 11), 0xBAD, 0x40000BAD, 0x0A0D0D0A}
SECTION = 0x0A0D0D0A
MAGIC = 0x1A2B3C4D


def block_length(data, at, big):
    """Octets of the block there, 0 where it is none, None where the data end first."""
    stated = number(data, at + 4, big)
    if not 12 <= stated <= 16 << 20:
        return 0
    length = -(-stated // 4) * 4
    if at + length > len(data):
        return None
    return length if number(data, at + length - 4, big) in (stated, length) else 0


def block_holds(data, at, final, big, interfaces):
    """Is there a block of a known type, and a block or the end behind it? True, False, or None: not to be said yet."""
    for first in (True, False):
        ended = None if not final else not first
        if at == len(data) and final and not first:
            return True
        known = len(data) - at < 4 or number(data, at, big) in KNOWN_TYPES
        if first and not known:
            return False
        if at + 12 > len(data):
            return ended
        kind = number(data, at, False)
        if kind == SECTION:
            orders = [order for order in (False, True) if number(data, at + 8, order) == MAGIC]
            if not orders:
                return False
            big = orders[0]
        length = block_length(data, at, big)
        if length is None:
            return ended
        if not length:
            return False
        if first and number(data, at, big) == 6 and length >= 32 and number(data, at + 8, big) < interfaces:
            size = number(data, at + 20, big)
            if -(-size // 4) * 4 == length - 32:
                return True
        at += length
    return True


def find_pcapng(data, position, stop, final, big, interfaces):
    for at in range(position, stop):
        verdict = block_holds(data, at, final, big, interfaces)
        if verdict is not False:
            return at, verdict
    return max(position, stop), False
