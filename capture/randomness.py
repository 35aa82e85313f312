"""Random numbers of the system's generator, taken many at a time.

In: nothing. Out: what `random.SystemRandom` gives, from the same source and as hard to guess. A system call for every
number lets go of the interpreter's lock each time, some thirty times a call; here it is one in a few hundred numbers.
"""

import os
from collections import deque
from random import SystemRandom
from typing import Final
from weakref import WeakSet

_OCTETS: Final = 16
"""Of one helping: all that a UUID, tag or branch needs."""
_HELPINGS: Final = 256
_RESOLUTION: Final = 53
"""Bits of a float's mantissa."""


class BufferedRandom(SystemRandom):
    """For any number of threads. No helping is given twice, after a fork neither."""

    def __init__(self) -> None:
        self._left: deque[bytes] = deque()
        _all.add(self)
        super().__init__()

    def random(self) -> float:
        """From 0 up to 1, all of 53 bits random."""
        return self.getrandbits(_RESOLUTION) * 2.0**-_RESOLUTION

    def getrandbits(self, k: int, /) -> int:
        """`k` random bits. Raises ValueError for a negative number."""
        if not 0 <= k <= 8 * _OCTETS:
            return super().getrandbits(k)
        return int.from_bytes(self._helping(), "big") >> (8 * _OCTETS - k)

    def randbytes(self, n: int) -> bytes:
        """`n` random octets."""
        return self._helping()[:n] if 0 <= n <= _OCTETS else super().randbytes(n)

    def _helping(self) -> bytes:
        while True:
            try:
                return self._left.popleft()
            except IndexError:
                octets = os.urandom(_OCTETS * _HELPINGS)
                self._left.extend(octets[at : at + _OCTETS] for at in range(0, len(octets), _OCTETS))


_all: WeakSet[BufferedRandom] = WeakSet()


def _forget() -> None:
    """A child must not go on with what its parent goes on with."""
    for each in _all:
        each._left.clear()


os.register_at_fork(after_in_child=_forget)
