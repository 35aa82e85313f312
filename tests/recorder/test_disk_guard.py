"""Whether there is room for more recordings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.disk_guard import DiskGuard, DiskMarkError


def test_recording_stops_below_one_mark_and_resumes_at_the_other():
    guard = DiskGuard("2%", "4%")
    answers = [guard.low(free, 1000) for free in (50, 20, 19, 30, 39, 40, 30, 20, 19)]
    assert answers == [False, False, True, True, True, False, False, False, True]


def test_marks_may_be_octets_and_never_flutter_the_wrong_way_round():
    guard = DiskGuard("1KB", "500B")
    assert [guard.low(free, 10_000) for free in (999, 600, 999, 1000)] == [True, True, True, False]


@given(st.lists(st.integers(0, 1000)))
def test_it_changes_only_beyond_the_marks(seen):
    guard, before = DiskGuard("10%", "20%"), False
    for free in seen:
        now = guard.low(free, 1000)
        assert now is (free < 100 or (before and free < 200))
        before = now


@pytest.mark.parametrize(("stop", "resume", "says"), [("much", "4%", "stop_at: 'much'"), ("2%", "", "resume_at: ")])
def test_what_is_no_mark_is_said(stop, resume, says):
    with pytest.raises(DiskMarkError, match=says):
        DiskGuard(stop, resume)
