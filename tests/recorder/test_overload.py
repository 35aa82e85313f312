"""Whole calls are given up, the newest, and only while there is too much."""

from hypothesis import given
from hypothesis import strategies as st

from recorder.overload import BEHIND, CALM, PATIENCE, RECOVERED, Overload


def test_nothing_is_given_up_where_the_recorder_keeps_up():
    overload = Overload()
    assert [overload.judge(now, 0.1, 0, 100) for now in range(60)] == [0] * 60
    assert not overload.active


def test_first_no_further_call_is_begun_then_a_tenth_goes():
    overload = Overload()
    assert overload.judge(0.0, BEHIND, 0, 100) == 0
    assert overload.active
    assert overload.judge(PATIENCE / 2, BEHIND, 0, 100) == 0, "a measure is given time"
    assert overload.judge(PATIENCE, BEHIND, 0, 100) == 10
    assert overload.judge(2 * PATIENCE, BEHIND, 0, 90) == 9
    assert overload.shed == 19


def test_drops_of_the_kernel_count_as_too_much():
    overload = Overload()
    overload.judge(0.0, 0.0, 7, 3)
    assert overload.active
    assert overload.judge(PATIENCE, 0.0, 7, 3) == 1, "at least one"


def test_it_is_over_after_a_while_of_calm_and_not_before():
    overload = Overload()
    overload.judge(0.0, BEHIND, 0, 10)
    overload.judge(1.0, 0.0, 0, 10)
    overload.judge(0.9 + CALM, 0.0, 0, 10)
    assert overload.active
    overload.judge(1.0 + CALM, 0.0, 0, 10)
    assert not overload.active


def test_between_the_marks_nothing_changes():
    overload = Overload()
    overload.judge(0.0, BEHIND, 0, 10)
    between = (RECOVERED + BEHIND) / 2
    assert [overload.judge(float(now), between, 0, 10) for now in range(1, 30)] == [0] * 29
    assert overload.active


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 5), st.integers(0, 500)), max_size=60))
def test_never_more_than_there_are(looks):
    overload = Overload()
    for second, (behind, dropped, recording) in enumerate(looks):
        assert 0 <= overload.judge(float(second), behind, dropped, recording) <= recording
