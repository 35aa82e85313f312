"""Redundant payloads (RFC 2198)."""

from hypothesis import given
from hypothesis import strategies as st

from decoders.red import unpack_red

BLOCKS = st.lists(st.tuples(st.integers(0, 127), st.integers(0, 16383), st.binary(max_size=1023)), max_size=4)


def pack(blocks: list[tuple[int, int, bytes]], primary: tuple[int, bytes]) -> bytes:
    headers = b"".join(
        (1 << 31 | kind << 24 | offset << 10 | len(data)).to_bytes(4, "big") for kind, offset, data in blocks
    )
    return headers + bytes([primary[0]]) + b"".join(data for _, _, data in blocks) + primary[1]


@given(BLOCKS, st.tuples(st.integers(0, 127), st.binary(max_size=200)))
def test_what_was_packed_is_unpacked(blocks, primary):
    unpacked = unpack_red(pack(blocks, primary))
    assert unpacked is not None
    assert unpacked.primary == primary
    assert unpacked.redundant == blocks


def test_example_of_the_standard():
    # RFC 2198, section 6: DVI4 primary with one redundant LPC block, 14 octets, 8 kHz, 20 ms older.
    payload = bytes.fromhex("87028 00e 05".replace(" ", "")) + bytes(14) + bytes(84)
    unpacked = unpack_red(payload)
    assert unpacked == ((5, bytes(84)), [(7, 160, bytes(14))])


@given(st.binary(max_size=60))
def test_no_bytes_raise(payload):
    unpack_red(payload)


def test_cut_headers_and_blocks_are_refused():
    whole = pack([(0, 160, bytes(20))], (0, b""))
    assert all(unpack_red(whole[:n]) is None for n in range(len(whole)))
    assert unpack_red(b"\x80\x00\x00\x00" * 100 + b"\x00") is None
