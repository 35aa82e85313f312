"""Which server a session goes to, and when one is down."""

import re
from collections import Counter
from random import Random

from recorder.siprec.servers import BUSY_PING, IDLE_PING, LONGEST_BACKOFF, Servers, goes_on
from recorder.siprec.src_decision import Choice, Server

A, B, C = Server("sip:a"), Server("sip:b", weight=3), Server("sip:c", weight=6)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def servers():
    clock, changes = Clock(), []
    return Servers(clock, lambda server, up: changes.append((server.uri, up)), Random(7)), clock, changes


def test_the_order_is_kept_and_what_is_down_is_left_out_until_its_time_comes():
    health, clock, changes = servers()
    assert health.order([A, B, C], Choice.ORDER) == [A, B, C]
    health.failed(A, unreachable=True)
    assert changes == [("sip:a", False)]
    assert health.order([A, B, C], Choice.ORDER) == [B, C]
    assert health.order([A, B], Choice.ORDER, last_resort=True) == [B, A]
    clock.now += 1.1
    assert health.order([A, B, C], Choice.ORDER) == [B, C, A]
    health.succeeded(A)
    assert changes[-1] == ("sip:a", True)
    assert health.order([A, B, C], Choice.ORDER) == [A, B, C]


def test_weights_draw_in_their_proportion():
    health, _, _ = servers()
    first = Counter(health.order([A, B, C], Choice.WEIGHT)[0].uri for _ in range(4000))
    assert abs(first["sip:a"] - 400) < 90
    assert abs(first["sip:c"] - 2400) < 150
    assert sorted(each.uri for each in health.order([A, B, C], Choice.WEIGHT)) == ["sip:a", "sip:b", "sip:c"]


def test_a_refusal_alone_takes_nothing_down_and_two_in_a_row_do():
    health, _, changes = servers()
    health.failed(A)
    health.succeeded(A)
    health.failed(A)
    assert changes == []
    health.failed(A)
    assert changes == [("sip:a", False)]


def test_retry_after_is_kept_to_even_where_pings_are_answered():
    health, clock, _ = servers()
    health.failed(A, retry_after=50)
    clock.now += 10
    health.pinged(A, answered=True)
    assert health.order([A, B], Choice.ORDER) == [B]
    clock.now += 41
    health.pinged(A, answered=True)
    assert health.order([A, B], Choice.ORDER) == [A, B]


def test_sessions_that_fail_at_the_same_time_are_one_failure():
    health, clock, changes = servers()
    for _ in range(200):
        health.failed(A, unreachable=True)
    assert changes == [("sip:a", False)]
    assert health.wait(A) == 1
    clock.now += 1
    for _ in range(200):
        health.failed(A, unreachable=True)
    assert health.wait(A) == 2


def test_the_time_out_doubles_up_to_its_limit():
    health, clock, _ = servers()
    waits = []
    for _ in range(8):
        health.failed(A, unreachable=True)
        waits.append(health.wait(A))
        clock.now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, LONGEST_BACKOFF, LONGEST_BACKOFF, LONGEST_BACKOFF]


def test_pings_find_a_dead_server_and_one_that_returns():
    health, clock, changes = servers()
    health.watch([A])
    assert health.due() == [A]
    assert health.due() == [], "one ping at a time"
    health.pinged(A, answered=True)
    assert health.due() == []
    clock.now += IDLE_PING
    health.hold(A, +1)
    assert health.due() == [A]
    health.pinged(A, answered=False)
    assert changes == []
    assert health.due() == [A], "asked again at once"
    health.pinged(A, answered=False)
    assert changes == [("sip:a", False)]
    assert health.silent_for(A) > 0
    clock.now += 1 + health.wait(A)
    assert health.due() == [A]
    health.pinged(A, answered=True)
    assert changes[-1] == ("sip:a", True)


def test_a_server_that_never_answers_options_is_not_taken_for_dead():
    health, clock, changes = servers()
    health.hold(A, +1)
    for _ in range(10):
        clock.now += BUSY_PING
        if health.due():
            health.pinged(A, answered=False)
    assert changes == []


def test_what_nobody_asks_for_is_forgotten():
    health, clock, _ = servers()
    for number in range(100):
        health.watch([Server(f"sip:{number}")])
    clock.now += 4000
    health.watch([A])
    assert health.due() == [A]


def test_codes_that_end_it():
    assert goes_on(503, None)
    assert goes_on(503, re.compile("4..|6.."))
    assert not goes_on(486, re.compile("4..|6.."))
    assert goes_on(486, re.compile("48"))
