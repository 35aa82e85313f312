"""poll(2) from within a kernel. In: descriptors. Out: nothing; it returns when one is readable, or time is over.

An error of a socket is forgotten, as it would end every wait from then on. Never raises.
"""

import ctypes
import select
from collections.abc import Sequence

import numpy as np
from numba import config, njit, types

from capture.batch import Int64

_READABLE = 1
"""POLLIN."""
_PAUSE = 1000
"""us after an error."""
_poll = types.ExternalFunction("poll", types.int32(types.uintp, types.uint64, types.int32))
_option = types.ExternalFunction(
    "getsockopt", types.int32(types.int32, types.int32, types.int32, types.uintp, types.uintp)
)
_sleep = types.ExternalFunction("usleep", types.int32(types.uint32))


def polled(descriptors: Sequence[int]) -> Int64:
    """Memory for `wait_readable`: a `struct pollfd` for each, little-endian, and two numbers of scratch."""
    return np.array([each | _READABLE << 32 for each in descriptors] + [0, 0], np.int64)


@njit(cache=True, nogil=True)
def _wait_compiled(polls: Int64, milliseconds: int) -> None:
    count, scratch = len(polls) - 2, polls.ctypes.data + 8 * (len(polls) - 2)
    if _poll(polls.ctypes.data, count, milliseconds) <= 0:
        return
    for k in range(count):
        returned = polls[k] >> 48 & 0xFFFF
        polls[k] &= 0xFFFFFFFFFFFF
        if returned & ~_READABLE:
            polls[count + 1] = 4
            _option(polls[k] & 0xFFFFFFFF, 1, 4, scratch, scratch + 8)  # SOL_SOCKET, SO_ERROR
            _sleep(_PAUSE)


def _wait_plain(polls: Int64, milliseconds: int) -> None:
    """The same without a compiler."""
    poller = select.poll()
    for each in polls[:-2].tolist():
        poller.register(each & 0xFFFFFFFF, select.POLLIN)
    for descriptor, returned in poller.poll(milliseconds):
        if returned & ~select.POLLIN:
            value, size = ctypes.c_int(), ctypes.c_int(4)
            ctypes.CDLL(None).getsockopt(descriptor, 1, 4, ctypes.byref(value), ctypes.byref(size))
            ctypes.CDLL(None).usleep(_PAUSE)


wait_readable = _wait_plain if config.DISABLE_JIT else _wait_compiled
