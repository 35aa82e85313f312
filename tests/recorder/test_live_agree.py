"""Captures sent over a wire and recorded live are what their replays are. All of them: `python -m tests.live_agree`."""

import numpy as np
import pytest

from bench.veth import is_possible
from tests.live_agree import agree, captures
from tests.same_recording import pieces, shifts_of


@pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and network namespaces")
def test_what_crosses_a_wire_is_recorded_as_its_replay_is(tmp_path):
    chosen = [path for path in captures() if path.stem in ("relayed", "impaired")]
    for each in agree(chosen, tmp_path, 2):
        assert each.calls == 1
        assert each.packets == {"relayed": 300, "impaired": 445}[each.name]
        assert each.differences == ()
        assert [one.unequal for one in each.calls_compared] == [0]


def sound(*parts):
    return np.concatenate([np.full(size, value, np.int16) for value, size in parts])


def test_pieces_that_moved_are_found_and_what_was_added_is_counted():
    theirs = sound((0, 100), (7, 50), (0, 400), (9, 50), (0, 100))
    assert pieces(theirs, 320) == [(100, 150), (550, 600)]
    assert shifts_of(theirs, theirs, 8000) == ((0,), 0)
    moved = sound((0, 103), (7, 50), (0, 399), (9, 50), (0, 98))
    assert shifts_of(moved, theirs, 8000) == ((2, 3), 0)
    more = moved.copy()
    more[300:304] = 5
    assert shifts_of(more, theirs, 8000) == ((2, 3), 4)
    less = moved.copy()
    less[560] = 0
    assert shifts_of(less, theirs, 8000)[1] == 50 + 49
