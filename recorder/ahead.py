"""Work that runs a few steps ahead in a thread of its own.

In: a function and its inputs. Out: its results in order, the next ones being made while one is used. An error comes
out where its result would have.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

DEPTH = 12
"""Results that may wait: with five hundred calls a window has as many batches, and closing it takes as long as
preparing them."""


def run_ahead(function: Callable[[In], Out], inputs: Iterable[In], depth: int = DEPTH) -> Iterator[Out]:
    """`map(function, inputs)`, `depth` steps ahead. Inputs are drawn in the thread too."""
    iterator = iter(inputs)

    def step() -> tuple[bool, Out | None]:
        for item in iterator:
            return True, function(item)
        return False, None

    thread = ThreadPoolExecutor(1)
    try:
        coming: deque[Future[tuple[bool, Out | None]]] = deque(thread.submit(step) for _ in range(depth))
        while True:
            more, result = coming.popleft().result()
            if not more:
                return
            coming.append(thread.submit(step))
            yield result  # type: ignore[misc]
    finally:
        thread.shutdown(cancel_futures=True)
