"""Between the service's loop and those who ask how it is.

In: a `Snapshot` about once a second, and the calls in progress while somebody looks at them. Out: answers to any
thread (`StatusProvider`). The loop never waits for a reader: it swaps in immutable values, and answers the few
questions that need its own state between two batches. A reader that is slow or many cost the loop nothing.
"""

import queue
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from recorder.status import LadderStep, LiveCall, Snapshot, StatusError

PATIENCE = 3.0
"""s that a reader waits for the loop."""
WATCHED = 10.0
"""s after a question for which the calls stay on the board."""
QUESTIONS = 8
"""Ladders that may wait for an answer at once."""

Ladder = tuple[LadderStep, ...]


class _State(NamedTuple):
    snapshot: Snapshot
    made: float
    """By the monotonic clock."""
    calls: tuple[LiveCall, ...] | None
    """None: nobody looked when it was made."""


class _Question(NamedTuple):
    call: str
    answer: "Future[Ladder | None]"


class StatusBoard:
    """Made with the first snapshot. `publish`, `watched` and `answer` are the loop's, all else the readers'."""

    def __init__(self, snapshot: Snapshot, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._state = _State(snapshot, clock(), None)
        self._asked = -WATCHED
        self._renewed = threading.Condition()
        self._questions: queue.Queue[_Question] = queue.Queue(QUESTIONS)

    @property
    def watched(self) -> bool:
        """Somebody has asked for the calls of late: `publish` should be given them."""
        return self._clock() - self._asked < WATCHED

    def publish(self, snapshot: Snapshot, calls: Sequence[LiveCall] | None = None) -> None:
        """Swap in a new state."""
        self._state = _State(snapshot, self._clock(), None if calls is None else tuple(calls))
        if calls is not None:
            with self._renewed:
                self._renewed.notify_all()

    def answer(self, find: Callable[[str], Sequence[LadderStep] | None]) -> int:
        """Answer the questions that wait, at most QUESTIONS; gives how many there were."""
        for answered in range(QUESTIONS):
            try:
                call, answer = self._questions.get_nowait()
            except queue.Empty:
                return answered
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                found = find(call)
            except Exception as error:  # the reader is told; what the loop does goes on
                answer.set_exception(error)
            else:
                answer.set_result(None if found is None else tuple(found))
        return QUESTIONS

    def snapshot(self) -> Snapshot:
        """The latest."""
        return self._state.snapshot

    def age(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._state.made

    def calls(self) -> tuple[LiveCall, ...]:
        """Calls in progress; the first to look waits for the loop to put them on the board."""
        self._asked = self._clock()
        deadline = time.monotonic() + PATIENCE
        with self._renewed:
            while (calls := self._state.calls) is None:
                if not self._renewed.wait(deadline - time.monotonic()):
                    raise StatusError("the service is too busy to tell its calls; try again")
        return calls

    def ladder(self, call: str) -> Ladder | None:
        """Messages of a call in progress, None for no such call."""
        question = _Question(call, Future())
        try:
            self._questions.put_nowait(question)
        except queue.Full:
            raise StatusError("too many ask at once; try again") from None
        try:
            return question.answer.result(PATIENCE)
        except TimeoutError:
            question.answer.cancel()
            raise StatusError("the service is too busy to tell the messages of a call; try again") from None


class RateMeter:
    """Rates of counters that only grow, for the loop that makes snapshots."""

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[int, float]] = {}
        self._next: dict[Hashable, tuple[int, float]] = {}

    def per_second(self, key: Hashable, count: int, now: float) -> float:
        """Rate of `key` since the round before; 0 for one that is new. `now` in s by the monotonic clock."""
        self._next[key] = (count, now)
        before, then = self._last.get(key, (count, now))
        return max(0.0, (count - before) / (now - then)) if now > then else 0.0

    def end_round(self) -> None:
        """A snapshot is made: forget the keys that it did not have."""
        self._last, self._next = self._next, {}
