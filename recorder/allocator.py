"""How much the C library's allocator keeps of what a program has freed.

In: nothing. Out: a setting of this process, for good. It frees nothing itself.
"""

import ctypes

LARGE = 128 << 10
"""Octets from which on an array has pages of its own, which go back to the system when it is freed."""
POOLS = 2
"""Heaps that all threads share."""
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Numbers of glibc's `mallopt`."""


def keep_little() -> None:
    """Have freed memory go back to the system, for a program whose threads come and go with large arrays.

    As it is, glibc raises its idea of "large" to the largest array that was ever freed (32 MB), and gives threads heaps
    of their own: arrays then lie in heaps that shrink only from their end. Another C library is left as it is.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, LARGE)
        set_option(_M_ARENA_MAX, POOLS)
