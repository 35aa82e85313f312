"""The directions of TCP that nobody wants: a bounded hash set that a kernel can ask."""

import numpy as np

from capture._tcp_kernels import EMPTY, FORGOTTEN, IGNORED, slot_of
from capture.address import Endpoint

FIRST_CAPACITY = 1 << 12
MAX_CAPACITY = 1 << 19
"""At 41 octets a slot, half of them used, this remembers 262,144 directions in 22 MB. A set that is full starts anew:
whoever is forgotten is looked at, and ignored, once more."""


class IgnoredDirections:
    """A set of (source, destination, realm); `keys` and `state` are what `slot_of` wants."""

    def __init__(self) -> None:
        self._clear(FIRST_CAPACITY)

    def _clear(self, capacity: int) -> None:
        self.keys = np.zeros((capacity, 5), np.uint64)
        self.state = np.zeros(capacity, np.uint8)
        self._used = 0

    def add(self, source: Endpoint, destination: Endpoint, realm: int) -> None:
        """Ignore a direction."""
        if 2 * self._used >= len(self.state):
            self._grow()
        key = key_of(source, destination, realm)
        slot = slot_of(self.keys, self.state, key)
        self._used += self.state[slot] == EMPTY
        self.keys[slot] = key
        self.state[slot] = IGNORED

    def discard(self, source: Endpoint, destination: Endpoint, realm: int) -> None:
        """Ignore a direction no longer."""
        slot = slot_of(self.keys, self.state, key_of(source, destination, realm))
        if self.state[slot] == IGNORED:
            self.state[slot] = FORGOTTEN

    def __contains__(self, direction: tuple[Endpoint, Endpoint, int]) -> bool:
        return bool(self.state[slot_of(self.keys, self.state, key_of(*direction))] == IGNORED)

    def _grow(self) -> None:
        keys = self.keys[self.state == IGNORED]
        capacity = len(self.state)
        if 4 * len(keys) >= capacity:  # else only forgotten keys fill it
            capacity *= 2
        if capacity > MAX_CAPACITY:
            self._clear(FIRST_CAPACITY)
            return
        self._clear(capacity)
        for key in keys:
            slot = slot_of(self.keys, self.state, key)
            self.keys[slot] = key
            self.state[slot] = IGNORED
        self._used = len(keys)


def key_of(source: Endpoint, destination: Endpoint, realm: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """The five words of a direction, as `select_segments` makes them."""
    ports = realm << 32 | source.port << 16 | destination.port
    return np.array([source.high, source.low, destination.high, destination.low, ports], np.uint64)
