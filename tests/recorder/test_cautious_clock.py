"""The time to delete by."""

from hypothesis import given
from hypothesis import strategies as st

from recorder.cautious_clock import DOUBT, IDLE, JUMP, CautiousClock

HOUR = 3_600_000_000_000
DAY = 24 * HOUR
NOW = 20_000 * DAY


class Machine:
    """A machine with two clocks."""

    def __init__(self, newest: int | None = NOW) -> None:
        self.wall, self.steady = NOW, 7
        self.notes: list[str] = []
        self.clock = CautiousClock(newest, self.notes.append)

    def after(self, time: int, step: int = 0) -> int:
        """Time passes; then somebody sets the wall clock by `step`. How much later than at first is it believed?"""
        self.wall += time + step
        self.steady += time
        return self.clock.read(self.wall, self.steady) - NOW


def test_a_clock_that_runs_is_believed():
    machine = Machine()
    assert [machine.after(HOUR) for _ in range(3)] == [HOUR, 2 * HOUR, 3 * HOUR]
    assert machine.notes == []


def test_small_corrections_are_believed_and_steps_back():
    machine = Machine()
    assert machine.after(HOUR, JUMP) == 2 * HOUR
    assert machine.after(0, -10 * DAY) == 2 * HOUR - 10 * DAY
    assert machine.notes == []


def test_a_clock_far_ahead_is_not_believed_for_a_day():
    machine = Machine()
    machine.after(0)
    assert machine.after(HOUR, 365 * DAY) == HOUR
    assert machine.after(DOUBT - 1) == HOUR + DOUBT - 1
    assert machine.after(1) == HOUR + DOUBT + 365 * DAY
    assert machine.after(HOUR) == 2 * HOUR + DOUBT + 365 * DAY
    assert len(machine.notes) == 1


def test_a_clock_that_was_set_right_again_had_no_effect():
    machine = Machine()
    machine.after(0)
    assert machine.after(HOUR, 365 * DAY) == HOUR
    assert machine.after(HOUR, -365 * DAY) == 2 * HOUR
    assert machine.after(HOUR, 365 * DAY) == 3 * HOUR
    assert len(machine.notes) == 2


def test_a_service_that_starts_far_behind_its_newest_recording_waits_a_day():
    machine = Machine(newest=NOW - 3 * IDLE)
    assert machine.after(0) == -2 * IDLE
    assert machine.after(DOUBT) == DOUBT
    assert Machine(newest=NOW - IDLE).after(0) == 0
    assert Machine(newest=None).after(0) == 0
    assert Machine(newest=NOW + 400 * DAY).after(0) == 0


@given(st.lists(st.tuples(st.integers(0, 3 * HOUR), st.sampled_from([0, 0, HOUR // 2, -HOUR, 5 * DAY, -5 * DAY]))))
def test_it_is_never_ahead_of_the_wall_clock(steps):
    machine = Machine()
    for time, step in steps:
        assert machine.after(time, step) <= machine.wall - NOW
