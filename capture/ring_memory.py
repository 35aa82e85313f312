"""One range of addresses that holds all rings of a source, so that one buffer spans them.

In: sizes, and descriptors whose memory is to appear at places of the range. Out: that range as one array. A place that
nothing is mapped to reads as zeros; the range lives as long as anybody holds a view of it, so no view ever faults.
"""

import ctypes
import mmap
import os
import weakref
from functools import cache

import numpy as np

from capture.batch import Bytes

_MAP_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value


@cache
def _libc() -> ctypes.CDLL:
    found = ctypes.CDLL(None, use_errno=True)
    found.mmap.restype = ctypes.c_void_p
    found.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    found.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return found


class RingMemory:
    """Reserved addresses, whole pages of them."""

    def __init__(self, size: int) -> None:
        """Reserve `size` octets; no memory is taken. Raises OSError where the address space is limited."""
        self._address = self._map(None, size, mmap.PROT_READ, -1)
        whole = (ctypes.c_uint8 * size).from_address(self._address)
        weakref.finalize(whole, _libc().munmap, self._address, size)
        self.octets: Bytes = np.ctypeslib.as_array(whole)
        """Shape (size,). May only be written where a ring is."""

    def place(self, descriptor: int, at: int, size: int) -> None:
        """Have a descriptor's memory appear at [at, at + size)."""
        self._map(self._address + at, size, mmap.PROT_READ | mmap.PROT_WRITE, descriptor)

    def withdraw(self, at: int, size: int) -> None:
        """Let [at, at + size) read as zeros again; what was there is let go of."""
        self._map(self._address + at, size, mmap.PROT_READ, -1)

    @staticmethod
    def _map(address: int | None, size: int, protection: int, descriptor: int) -> int:
        flags = mmap.MAP_SHARED if descriptor >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        if address is not None:
            flags |= _MAP_FIXED
        found = _libc().mmap(address, size, protection, flags, descriptor, 0)
        if found is None or found == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return int(found)
