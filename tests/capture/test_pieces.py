"""Pieces against a dictionary of octets."""

from hypothesis import given
from hypothesis import strategies as st

from capture.pieces import Pieces


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=15)), max_size=12))
def test_the_first_copy_of_every_octet_is_kept_in_order(parts: list[tuple[int, bytes]]):
    pieces, naive = Pieces(), {}
    for time, (start, data) in enumerate(parts):
        new = {start + k: octet for k, octet in enumerate(data) if start + k not in naive}
        naive |= new
        assert pieces.add(start, data, time) == len(new)
    assert pieces.joined() == bytes(naive[k] for k in sorted(naive))
    assert pieces.size == len(naive)
    assert pieces.end == max(naive, default=-1) + 1
    end = -1
    while pieces:
        piece = pieces.pop()
        assert piece.data
        assert piece.start >= end
        end = piece.end
    assert (pieces.size, pieces.cost, pieces.first()) == (0, 0, None)
