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

ROWS, MORE, TURN_OF, CUT, STRANGE, RESULT = range(6)
"""Columns of a pass's result: rows filled; whether something was left waiting; which ready socket is the first next
time; datagrams that were cut; those without a time of the kernel's; RESULT is their number."""

# Words of struct mmsghdr and of the control message.
NAME_SIZE, CONTROL_SIZE, LENGTH = 1, 5, 7
_NAME_ROOM = 32
_CONTROL_ROOM = 32
_MESSAGE_OCTETS = 64
_STAMP = 35 << 32 | 1
"""Level SOL_SOCKET in the lower half, type SO_TIMESTAMPNS in the upper one."""
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
    """Columns and headers of a datagram that a slot got, and the slot made ready for the next."""
    length = messages[row, LENGTH] & 0xFFFFFFFF
    head = np.int64(heads[socket])
    if head == HEAD_4:
        put_head_4(rows[row], headroom, templates[socket], names[row], length)
    else:
        put_head_6(rows[row], headroom, templates[socket], names[row], length)
    if messages[row, CONTROL_SIZE] == _CONTROL_ROOM and controls[row, 1] == _STAMP:
        time[row] = controls[row, 2] * 1_000_000_000 + controls[row, 3]
    else:
        time[row] = now
        result[STRANGE] += 1
    if length > room:
        result[CUT] += 1
    offset[row] = row * rows.shape[1] + headroom - head
    captured[row] = min(length, room) + head
    wire[row] = length + head
    place[row] = socket
    messages[row, NAME_SIZE] = _NAME_ROOM
    messages[row, CONTROL_SIZE] = _CONTROL_ROOM


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
    """Take what waits at all sockets, until the rows are full.

    `likely` is how many datagrams a socket should have: so many are asked for first, as to ask for more than there are
    costs as much as one; a second round sees to the sockets that have more. `events` has room for an event of each
    socket, which holds its descriptor in word `descriptor_at`; `socket_of` tells a descriptor's socket, -1 where it is
    none of ours. `heads` and `templates` are by socket. `now` (ns) stands where the kernel gives no time. In `result`,
    TURN_OF is also what the last pass left there.
    """
    turn = result[TURN_OF]
    result[:] = 0
    count = 0
    for asked in (likely, TURN):
        result[MORE] = 0
        ready = np.int64(epoll_wait(epoll, events.ctypes.data, events.shape[0], 0))
        for each in range(ready):
            which = (each + turn) % ready
            descriptor = np.int64(events[which, descriptor_at])
            socket = np.int64(socket_of[descriptor]) if descriptor < len(socket_of) else np.int64(-1)
            if socket < 0:
                continue
            room_left = len(rows) - count
            if room_left == 0:
                result[MORE] = 1
                result[TURN_OF] = which
                break
            first = messages.ctypes.data + count * _MESSAGE_OCTETS
            got = int(recvmmsg(descriptor, first, min(asked, room_left), _DONTWAIT_TRUNC, 0))
            if got == min(asked, room_left):
                result[MORE] = 1
            for row in range(count, count + got):
                frame_row(
                    row, socket, now, headroom, room, rows, names, messages, controls, heads, templates,
                    time, offset, captured, wire, place, result,
                )  # fmt: skip
            if got > 0:
                count += got
        if count == len(rows):
            break
    result[ROWS] = count


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
