"""A lock that the forwarder's kernels and its Python thread share, so that a kernel may run for as long as it likes.

In: the array `counts` of the forwarder's tables. Out: nothing; who holds the lock may change the tables. Kernels hold
it for one packet at a time. Of all threads that run Python one only may take it (`TableLock`), as it does so without
letting go of the interpreter: if it let go, it might get that back late and hold up the kernels all the while. It may
take the lock again where it holds it already. Never raises.
"""

import ctypes
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
from numba import config, njit, types

from capture._fence import fence
from capture.batch import Bytes, Int64
from recorder.siprec._forward_columns import MUTEX, WANTED

_RECURSIVE = 1
"""PTHREAD_MUTEX_RECURSIVE (Linux)."""
_OCTETS = 64
"""More than any pthread_mutex_t or pthread_mutexattr_t has."""
_PATIENCE = 400
"""Looks, of some 10 ns each, for which a kernel stands aside for a thread that waits: that may have no processor."""
_TRIES = 20_000
"""Tries, of some 10 ns each, before a thread has the system wake it."""

_lock = types.ExternalFunction("pthread_mutex_lock", types.int32(types.uintp))
_try = types.ExternalFunction("pthread_mutex_trylock", types.int32(types.uintp))
_unlock = types.ExternalFunction("pthread_mutex_unlock", types.int32(types.uintp))


def new_mutex() -> Bytes:
    """Memory with a mutex in it that one thread may lock several times; it must not be moved."""
    library = ctypes.CDLL(None)
    mutex, attributes = np.zeros(_OCTETS, np.uint8), np.zeros(_OCTETS, np.uint8)
    library.pthread_mutexattr_init(ctypes.c_void_p(attributes.ctypes.data))
    library.pthread_mutexattr_settype(ctypes.c_void_p(attributes.ctypes.data), _RECURSIVE)
    library.pthread_mutex_init(ctypes.c_void_p(mutex.ctypes.data), ctypes.c_void_p(attributes.ctypes.data))
    return mutex


@njit(cache=True, nogil=True)
def _hold_compiled(counts: Int64) -> None:
    _lock(counts[MUTEX])


@njit(cache=True, nogil=True)
def _let_go_compiled(counts: Int64) -> None:
    _unlock(counts[MUTEX])
    for _ in range(_PATIENCE):
        if counts[WANTED] == 0:
            break
        fence()


# Not `nogil`: see above.
@njit(cache=True)
def _take_compiled(counts: Int64) -> None:
    counts[WANTED] = 1
    fence()
    taken = False
    for _ in range(_TRIES):
        if _try(counts[MUTEX]) == 0:
            taken = True
            break
    if not taken:
        _lock(counts[MUTEX])
    counts[WANTED] = 0


@njit(cache=True)
def _give_back_compiled(counts: Int64) -> None:
    _unlock(counts[MUTEX])


def _hold_plain(counts: Int64) -> None:
    """The same without a compiler."""
    ctypes.CDLL(None).pthread_mutex_lock(ctypes.c_void_p(int(counts[MUTEX])))


def _let_go_plain(counts: Int64) -> None:
    ctypes.CDLL(None).pthread_mutex_unlock(ctypes.c_void_p(int(counts[MUTEX])))


_plain = config.DISABLE_JIT
hold: Any = _hold_plain if _plain else _hold_compiled
"""For kernels: wait for the lock."""
let_go: Any = _let_go_plain if _plain else _let_go_compiled
"""For kernels: give it back, and let the Python thread go first where it waits."""
_take: Callable[[Int64], None] = _hold_plain if _plain else _take_compiled
_give_back: Callable[[Int64], None] = _let_go_plain if _plain else _give_back_compiled


class TableLock:
    """The lock as a context, for the one thread that runs Python. Within it nothing should wait or call a kernel."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Int64) -> None:
        self._counts = counts

    def __enter__(self) -> None:
        _take(self._counts)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _give_back(self._counts)
