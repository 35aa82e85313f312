"""The board between the service's loop and its readers."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from recorder import status_board
from recorder.status import StatusError
from recorder.status_board import QUESTIONS, WATCHED, RateMeter, StatusBoard
from tests.live_status import Pretender, identifier, ladder, live_call, snapshot


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_readers_get_the_latest_and_its_age():
    clock = Clock()
    board = StatusBoard(snapshot(1), clock)
    clock.now += 2.5
    assert (board.snapshot(), board.age()) == (snapshot(1), 2.5)
    board.publish(snapshot(2))
    assert (board.snapshot(), board.age()) == (snapshot(2), 0.0)


def test_calls_are_wanted_only_while_somebody_looks():
    clock = Clock()
    board = StatusBoard(snapshot(1), clock)
    assert not board.watched
    board.publish(snapshot(1), [live_call(0)])
    assert board.calls() == (live_call(0),)
    assert board.watched
    clock.now += WATCHED
    assert not board.watched


def test_the_first_to_look_waits_for_the_loop():
    with Pretender(3) as service, ThreadPoolExecutor(4) as readers:
        told = [reader.result(10) for reader in [readers.submit(service.board.calls) for _ in range(4)]]
    assert [[call.id for call in calls] for calls in told] == [[identifier(index) for index in range(3)]] * 4


def test_a_loop_that_hangs_is_told_after_a_while(monkeypatch):
    monkeypatch.setattr(status_board, "PATIENCE", 0.05)
    board = StatusBoard(snapshot(1))
    for question in (board.calls, lambda: board.ladder(identifier(0))):
        with pytest.raises(StatusError, match="too busy"):
            question()
    # Nobody waits for the answer any more, so nobody is made to look for it.
    assert board.answer(lambda call: pytest.fail("looked")) == 1


def test_ladders_are_answered_by_the_loop():
    with Pretender(3) as service:
        assert service.board.ladder(identifier(2)) == tuple(ladder(2))
        assert service.board.ladder("none") is None
    assert service.asked == [identifier(2), "none"]


def test_what_goes_wrong_in_answering_reaches_who_asked_and_not_the_loop():
    board = StatusBoard(snapshot(1))

    def broken(call: str):
        raise KeyError(call)

    with ThreadPoolExecutor(1) as readers:
        asked = readers.submit(board.ladder, "x")
        while not board.answer(broken):
            pass
        with pytest.raises(KeyError):
            asked.result(5)


def test_only_so_many_may_wait(monkeypatch):
    monkeypatch.setattr(status_board, "PATIENCE", 0.5)
    board = StatusBoard(snapshot(1))
    refused = []

    def ask() -> None:
        try:
            board.ladder("x")
        except StatusError as error:
            refused.append(str(error))

    readers = [threading.Thread(target=ask) for _ in range(QUESTIONS + 3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sum("too many" in text for text in refused) == 3
    assert board.answer(lambda call: None) == QUESTIONS


def test_a_rate_is_over_the_time_since_the_round_before():
    meter = RateMeter()
    assert meter.per_second("a", 100, 1.0) == 0.0
    meter.end_round()
    assert meter.per_second("a", 150, 1.5) == 100.0
    assert meter.per_second("b", 9, 1.5) == 0.0
    meter.end_round()
    assert meter.per_second("a", 10, 2.5) == 0.0, "a counter that begins anew"
    meter.end_round()
    meter.end_round()
    assert meter.per_second("a", 1000, 4.0) == 0.0, "gone for a round"
