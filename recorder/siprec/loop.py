"""The thread in which recording sessions live: one asyncio loop, beside the engine's.

In: functions and coroutines, from any thread. Out: their results as futures. An exception of a function that nobody
waits for is told to `failed` and ends nothing.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class SessionLoop:
    """Runs between `start` and `close`."""

    def __init__(self, failed: Callable[[BaseException], None] = lambda _: None) -> None:
        self._failed = failed
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._tell)
        self._thread = threading.Thread(target=self._run, name="spanrec-sessions", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function called in the loop, in order of the calls of this method."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def run(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Have a coroutine run in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    @property
    def inside(self) -> bool:
        """Whether this is the loop's own thread."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Cancel what still runs, and end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        else:
            self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def _tell(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._failed(context.get("exception") or RuntimeError(str(context.get("message"))))
