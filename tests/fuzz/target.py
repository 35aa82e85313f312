"""What a fuzzer needs to know of one part of the program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.fuzz.mutate import Mutator, mutate_octets


@dataclass(frozen=True, slots=True)
class Target:
    """`run` takes any octets and raises where the program breaks a promise."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutator = mutate_octets
    limit: int = 16_384
    """Octets of the longest input."""
    compiled: bool = False
    """Most of what runs are kernels: no fuzzer sees which way they go, so that mutation without one finds more."""
    short: int = 150
    """Inputs of the short run that is part of the tests."""
