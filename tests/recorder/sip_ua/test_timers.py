"""Timers fire in order, once, and not when they were stopped."""

from random import Random

from recorder.sip_ua.timers import Intervals, Timers


def test_timers_fire_in_the_order_of_their_moments():
    timers, fired = Timers(), []
    for when in (3.0, 1.0, 2.0, 1.0):
        timers.start(when, lambda now, when=when: fired.append((when, now)))
    assert timers.next_timeout() == 1.0
    timers.run(2.5)
    assert fired == [(1.0, 2.5), (1.0, 2.5), (2.0, 2.5)]
    assert timers.next_timeout() == 3.0


def test_a_stopped_timer_does_nothing_and_counts_for_nothing():
    timers, fired = Timers(), []
    timer = timers.start(1.0, fired.append)
    timer.stop()
    timer.stop()
    assert timers.next_timeout() is None
    timers.run(5.0)
    assert fired == []


def test_what_a_timer_starts_for_now_fires_in_the_same_run():
    timers, fired = Timers(), []
    timers.start(1.0, lambda now: timers.start(now, fired.append))
    timers.run(1.0)
    assert fired == [1.0]


def test_many_stopped_timers_take_no_room():
    timers, dice = Timers(), Random(1)
    kept = []
    for number in range(20_000):
        timer = timers.start(1000 + dice.random(), lambda now: None)
        if number % 100:
            timer.stop()
        else:
            kept.append(timer.when)
    assert len(timers._heap) < 1000
    assert timers.next_timeout() == min(kept)


def test_the_patience_of_transactions():
    assert Intervals().patience == 32.0
