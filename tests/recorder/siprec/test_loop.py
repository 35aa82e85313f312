"""The sessions' thread."""

import asyncio
import threading

import pytest

from recorder.siprec.loop import SessionLoop


def test_functions_are_called_in_order_in_a_thread_of_their_own():
    loop = SessionLoop()
    loop.start()
    seen: list[int] = []
    for number in range(100):
        loop.call(seen.append, number)

    async def where() -> str:
        return threading.current_thread().name

    assert loop.run(where()).result(5) == "spanrec-sessions"
    assert seen == list(range(100))
    assert not loop.inside
    loop.close()


def test_what_fails_is_told_and_ends_nothing():
    told: list[BaseException] = []
    loop = SessionLoop(told.append)
    loop.start()
    loop.call(lambda: 1 / 0)

    async def answer() -> int:
        return 42

    assert loop.run(answer()).result(5) == 42
    assert [type(each) for each in told] == [ZeroDivisionError]
    loop.close()


def test_closing_cancels_what_still_runs():
    loop = SessionLoop()
    loop.start()
    waiting = loop.run(asyncio.sleep(3600))
    loop.close()
    assert waiting.cancelled() or waiting.done()
    with pytest.raises(RuntimeError):
        loop.call(print)
