"""Kernels of `media_ports`: datagrams of many sockets into rows, a system call a socket and no Python.

In: an epoll descriptor, columns that tell of each socket, and the slots of `datagram_slots` with their structures as
words of 64 bits (little-endian). Out: rows with IP and UDP headers before what was received, and their columns.
"""

import numpy as np
from numba import njit, types

from capture.batch import Bytes, Int32, Int64, UInt32

MOST_HEAD = 48
"""Octets of an IPv6 and a UDP header."""
HEAD_4 = 28
HEAD_6 = 48
TURN = 64
"""Datagrams taken from one socket in the second round."""

ROWS, SLOTS, MORE, TURN_OF, CUT, STRANGE, RESULT = range(7)
"""Columns of a pass's result: rows and slots filled; whether something was left waiting; which ready socket is the
first next time; datagrams that were cut; those without a time of the kernel's; RESULT is their number."""

# Words of struct mmsghdr and of the control message.
NAME_SIZE, CONTROL_SIZE, LENGTH = 1, 5, 7
_NAME_ROOM = 32
CONTROL_ROOM = 96
"""Octets kept for control messages: the time, and where a datagram was sent to."""
_TIMED = 32
"""Octets of a control message with a time alone."""
_MESSAGE_OCTETS = 64
_STAMP = 35 << 32 | 1
"""Level SOL_SOCKET in the lower half, type SO_TIMESTAMPNS in the upper one."""
_SENT_TO_4 = 20 << 32 | 0
_SENT_TO_6 = 74 << 32 | 41
"""IP_ORIGDSTADDR and IPV6_ORIGDSTADDR likewise."""
_MOST_AT_ONCE = 1024
"""Datagrams of one call (UIO_MAXIOV)."""
_DONTWAIT_TRUNC = 0x40 | 0x20

_SOL_SOCKET = 1
_SO_MEMINFO = 55
_DROPS = 8
"""Place of the count of drops in SO_MEMINFO (linux/sock_diag.h)."""

epoll_wait = types.ExternalFunction("epoll_wait", types.int32(types.int32, types.uintp, types.int32, types.int32))
recvmmsg = types.ExternalFunction(
    "recvmmsg", types.int32(types.int32, types.uintp, types.uint32, types.int32, types.uintp)
)
getsockopt = types.ExternalFunction(
    "getsockopt", types.int32(types.int32, types.int32, types.int32, types.uintp, types.uintp)
)


@njit(cache=True, nogil=True)
def put_head_4(row: Bytes, at: int, template: Bytes, name: Bytes, length: int) -> None:
    """IPv4 and UDP headers (RFC 791, RFC 768) that end before `at`; `name` is the sender's struct sockaddr_in."""
    start = at - HEAD_4
    for k in range(HEAD_4):
        row[start + k] = template[k]
    for k in range(4):
        row[start + 12 + k] = name[4 + k]
    row[start + 20], row[start + 21] = name[2], name[3]
    total, datagram = length + HEAD_4, length + 8
    row[start + 2], row[start + 3] = total >> 8 & 0xFF, total & 0xFF
    row[start + 24], row[start + 25] = datagram >> 8 & 0xFF, datagram & 0xFF
    words = np.int64(0)
    for k in range(0, 20, 2):
        words += np.int64(row[start + k]) << 8 | np.int64(row[start + k + 1])
    check = 0xFFFF - words % 0xFFFF  # RFC 1071, as the value modulo 65535
    row[start + 10], row[start + 11] = check >> 8, check & 0xFF


@njit(cache=True, nogil=True)
def put_head_6(row: Bytes, at: int, template: Bytes, name: Bytes, length: int) -> None:
    """IPv6 and UDP headers (RFC 8200), without a checksum (RFC 6935); `name` is a struct sockaddr_in6."""
    start = at - HEAD_6
    for k in range(HEAD_6):
        row[start + k] = template[k]
    for k in range(16):
        row[start + 8 + k] = name[8 + k]
    row[start + 40], row[start + 41] = name[2], name[3]
    datagram = length + 8
    row[start + 4], row[start + 5] = datagram >> 8 & 0xFF, datagram & 0xFF
    row[start + 44], row[start + 45] = datagram >> 8 & 0xFF, datagram & 0xFF


@njit(cache=True, nogil=True)
def frame_row(
    slot: int,
    row: int,
    socket: int,
    now: int,
    headroom: int,
    room: int,
    rows: Bytes,
    names: Bytes,
    messages: Int64,
    controls: Int64,
    heads: Int32,
    templates: Bytes,
    time: Int64,
    offset: Int64,
    captured: Int32,
    wire: Int32,
    place: Int32,
    result: Int64,
) -> None:
    """Headers of the datagram in a slot, and its columns in a row."""
    length = messages[slot, LENGTH] & 0xFFFFFFFF
    head = np.int64(heads[socket])
    if head == HEAD_4:
        put_head_4(rows[slot], headroom, templates[socket], names[slot], length)
    else:
        put_head_6(rows[slot], headroom, templates[socket], names[slot], length)
    if messages[slot, CONTROL_SIZE] >= _TIMED and controls[slot, 1] == _STAMP:
        time[row] = controls[slot, 2] * 1_000_000_000 + controls[slot, 3]
    else:
        time[row] = now
        result[STRANGE] += 1
    if length > room:
        result[CUT] += 1
    offset[row] = slot * rows.shape[1] + headroom - head
    captured[row] = min(length, room) + head
    wire[row] = length + head
    place[row] = socket


@njit(cache=True, nogil=True)
def receive_ready(
    epoll: int,
    events: UInt32,
    descriptor_at: int,
    socket_of: Int32,
    likely: int,
    now: int,
    headroom: int,
    room: int,
    rows: Bytes,
    names: Bytes,
    messages: Int64,
    controls: Int64,
    heads: Int32,
    templates: Bytes,
    time: Int64,
    offset: Int64,
    captured: Int32,
    wire: Int32,
    place: Int32,
    result: Int64,
) -> None:
    """Take what waits at all sockets, until the slots are full.

    `likely` is how many datagrams a socket should have: so many are asked for first, as to ask for more than there are
    costs as much as one; a second round sees to the sockets that have more. `events` has room for an event of each
    socket, which holds its descriptor in word `descriptor_at`; `socket_of` tells a descriptor's socket, -1 where it is
    none of ours. `heads` and `templates` are by socket. `now` (ns) stands where the kernel gives no time. `result`
    goes on from what stands there; TURN_OF is also what the last pass left.
    """
    turn = result[TURN_OF]
    more = result[MORE]
    for asked in (likely, TURN):
        result[MORE] = more
        ready = np.int64(epoll_wait(epoll, events.ctypes.data, events.shape[0], 0))
        for each in range(ready):
            which = (each + turn) % ready
            descriptor = np.int64(events[which, descriptor_at])
            socket = np.int64(socket_of[descriptor]) if descriptor < len(socket_of) else np.int64(-1)
            if socket < 0:
                continue
            slot = result[SLOTS]
            room_left = len(rows) - slot
            if room_left == 0:
                result[MORE] = 1
                result[TURN_OF] = which
                break
            first = messages.ctypes.data + slot * _MESSAGE_OCTETS
            got = int(recvmmsg(descriptor, first, min(asked, room_left), _DONTWAIT_TRUNC, 0))
            if got == min(asked, room_left):
                result[MORE] = 1
            for taken in range(slot, slot + got):
                frame_row(
                    taken, result[ROWS], socket, now, headroom, room, rows, names, messages, controls, heads, templates,
                    time, offset, captured, wire, place, result,
                )  # fmt: skip
                messages[taken, NAME_SIZE] = _NAME_ROOM
                messages[taken, CONTROL_SIZE] = CONTROL_ROOM
                result[ROWS] += 1
            if got > 0:
                result[SLOTS] += got


@njit(cache=True, nogil=True)
def sent_to(messages: Int64, controls: Int64, slot: int) -> int:
    """The port that the datagram in a slot was sent to, -1 where the kernel does not tell."""
    if messages[slot, CONTROL_SIZE] < _TIMED + 32:
        return -1
    kind = controls[slot, 5]
    if kind != _SENT_TO_4 and kind != _SENT_TO_6:
        return -1
    word = controls[slot, 6]  # family in host order, then the port in network order
    return (word >> 16 & 0xFF) << 8 | (word >> 24 & 0xFF)


@njit(cache=True, nogil=True)
def receive_collected(
    collector: int,
    lowest: int,
    descriptors: Int32,
    now: int,
    headroom: int,
    room: int,
    rows: Bytes,
    names: Bytes,
    messages: Int64,
    controls: Int64,
    heads: Int32,
    templates: Bytes,
    time: Int64,
    offset: Int64,
    captured: Int32,
    wire: Int32,
    place: Int32,
    result: Int64,
) -> None:
    """Take what waits at a collector (`port_steering`), until the slots are full, in rows of the ports it was sent to.

    `lowest` is the port of socket 0, `descriptors` those of all sockets, -1 where one is closed: what was sent there is
    dropped. `result` goes on from what stands there.
    """
    while True:
        slot = result[SLOTS]
        asked = min(_MOST_AT_ONCE, len(rows) - slot)
        if asked == 0:
            result[MORE] = 1
            return
        first = messages.ctypes.data + slot * _MESSAGE_OCTETS
        got = int(recvmmsg(collector, first, asked, _DONTWAIT_TRUNC, 0))
        for taken in range(slot, slot + got):
            socket = sent_to(messages, controls, taken) - lowest
            if 0 <= socket < len(descriptors) and descriptors[socket] >= 0:
                frame_row(
                    taken, result[ROWS], socket, now, headroom, room, rows, names, messages, controls, heads, templates,
                    time, offset, captured, wire, place, result,
                )  # fmt: skip
                result[ROWS] += 1
            messages[taken, NAME_SIZE] = _NAME_ROOM
            messages[taken, CONTROL_SIZE] = CONTROL_ROOM
        if got > 0:
            result[SLOTS] += got
        if got < asked:
            return


@njit(cache=True, nogil=True)
def read_drops(descriptors: Int32, facts: UInt32, size: UInt32, drops: Int64) -> None:
    """Datagrams that the kernel dropped for each socket so far; -1 descriptors keep their number.

    `facts` has shape (9,), `size` shape (1,): room for SO_MEMINFO.
    """
    for socket in range(len(descriptors)):
        if descriptors[socket] >= 0:
            size[0] = 36
            failed = getsockopt(descriptors[socket], _SOL_SOCKET, _SO_MEMINFO, facts.ctypes.data, size.ctypes.data)
            if failed == 0 and size[0] == 36:
                drops[socket] = max(drops[socket], np.int64(facts[_DROPS]))
