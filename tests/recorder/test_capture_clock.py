"""Capture time goes on as if nobody had ever set the clock."""

import numpy as np

from recorder import clock_memory
from recorder.capture_clock import CaptureClock

WALL, SECOND = 1_800_000_000_000_000_000, 1_000_000_000
HOUR = 3600 * SECOND


def clock_at(monotonic):
    return CaptureClock.begin(WALL, monotonic)


def test_a_clock_that_only_drifts_is_followed():
    clock = clock_at(0)
    assert not clock.look(WALL + SECOND + 1_000_000, SECOND)
    assert clock.now(SECOND) == WALL + SECOND + 1_000_000


def test_a_step_does_not_show_in_capture_time():
    for step in (HOUR, -HOUR):
        clock = clock_at(0)
        assert clock.look(WALL + SECOND + step, SECOND)
        assert clock.now(2 * SECOND) == WALL + 2 * SECOND


def test_capture_time_is_right_even_before_a_step_was_seen():
    clock = clock_at(0)
    assert clock.now(5 * SECOND) == WALL + 5 * SECOND


def test_around_a_step_each_packet_is_taken_by_the_clock_that_stamped_it():
    for step in (HOUR, -HOUR):
        clock = clock_at(0)
        clock.look(WALL + SECOND + step, SECOND)
        stamps = np.array([WALL + SECOND // 2, WALL + SECOND + step], np.int64)
        assert clock.capture_times(stamps, SECOND).tolist() == [WALL + SECOND // 2, WALL + SECOND]


def test_the_next_process_goes_on_in_the_same_time(tmp_path):
    first = clock_at(0)
    first.look(WALL + SECOND + HOUR, SECOND)
    clock_memory.keep(tmp_path, first.base)
    second = CaptureClock.begin(WALL + 3 * SECOND + HOUR, 3 * SECOND)
    second.go_on(clock_memory.recall(tmp_path))
    assert second.now(3 * SECOND) == WALL + 3 * SECOND
    assert second.correction == -HOUR


def test_what_was_kept_before_the_machine_was_started_says_nothing(tmp_path, monkeypatch):
    clock_memory.keep(tmp_path, 5)
    monkeypatch.setattr(clock_memory, "_BOOT", tmp_path / "another")
    (tmp_path / "another").write_text("another\n")
    assert clock_memory.recall(tmp_path) is None
