"""Numbers and copies by one instruction, against what they stand for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from capture import _octets_at as octets_at
from capture._octets_at import PLAIN, be16, be32, be64, copy, le32, octet


@njit
def _read(buffer, at):
    return octet(buffer, at), be16(buffer, at), be32(buffer, at), be64(buffer, at), le32(buffer, at)


@njit
def _copied(target, to, origin, at, size):
    copy(target, to, origin, at, size)


@given(st.binary(min_size=8, max_size=40), st.data())
def test_numbers_are_those_in_network_byte_order(octets, data):
    at = data.draw(st.integers(0, len(octets) - 8))
    sizes = {"octet": 1, "be16": 2, "be32": 4, "be64": 8}
    expected = [int.from_bytes(octets[at : at + size], "big") for size in sizes.values()]
    expected.append(int.from_bytes(octets[at : at + 4], "little"))
    buffer = np.frombuffer(octets, np.uint8)
    assert [int(number) for number in _read(buffer, at)] == expected
    assert [int(PLAIN[name](buffer, at)) for name in (*sizes, "le32")] == expected


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_copy_moves_those_octets_and_no_others(octets, data):
    size = data.draw(st.integers(0, len(octets)))
    at, to = data.draw(st.integers(0, len(octets) - size)), data.draw(st.integers(0, 300 - size))
    expected = b"\xa5" * to + octets[at : at + size] + b"\xa5" * (300 - to - size)
    for each in (_copied, PLAIN["copy"]):
        target = np.full(300, 0xA5, np.uint8)
        each(target, to, np.frombuffer(octets, np.uint8), at, size)
        assert target.tobytes() == expected


def test_every_function_has_a_plain_one():
    assert {"PLAIN", *PLAIN} == set(octets_at.__all__)
