"""Random numbers taken from the system many at a time are as good as those taken one by one."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from capture.randomness import BufferedRandom


def test_numbers_fill_their_range_evenly():
    random = BufferedRandom()
    bits = [random.getrandbits(12) for _ in range(20_000)]
    assert max(bits) < 1 << 12
    ones = [sum(value >> place & 1 for value in bits) for place in range(12)]
    assert all(9_000 < count < 11_000 for count in ones)
    floats = [random.random() for _ in range(20_000)]
    assert 0 <= min(floats) < 0.01 < 0.99 < max(floats) < 1
    assert 0.48 < sum(floats) / len(floats) < 0.52


def test_threads_never_get_the_same_number():
    random = BufferedRandom()

    def take(_: int) -> list[int]:
        return [random.getrandbits(128) for _ in range(5_000)]

    with ThreadPoolExecutor(4) as pool:
        taken = [number for numbers in pool.map(take, range(4)) for number in numbers]
    assert len(set(taken)) == len(taken)


def test_a_process_that_is_forked_has_numbers_of_its_own():
    random = BufferedRandom()
    random.getrandbits(8)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, random.randbytes(16))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() != random.randbytes(16)


def test_lengths_of_any_size_are_served():
    random = BufferedRandom()
    assert [len(random.randbytes(length)) for length in (0, 1, 16, 17, 400)] == [0, 1, 16, 17, 400]
    assert random.getrandbits(0) == 0
    assert random.getrandbits(4096) >> 3900
    with pytest.raises(ValueError, match="non-negative"):
        random.getrandbits(-1)
