"""Work that runs one step ahead in a thread of its own.

In: a function and its inputs. Out: its results in order, the next one being made while this one is used. An error
comes out where its result would have.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def run_ahead(function: Callable[[In], Out], inputs: Iterable[In]) -> Iterator[Out]:
    """`map(function, inputs)`, one step ahead. Inputs are drawn in the thread too."""
    iterator = iter(inputs)

    def step() -> tuple[bool, Out | None]:
        for item in iterator:
            return True, function(item)
        return False, None

    with ThreadPoolExecutor(1) as thread:
        coming: Future[tuple[bool, Out | None]] = thread.submit(step)
        while True:
            more, result = coming.result()
            if not more:
                return
            coming = thread.submit(step)
            yield result  # type: ignore[misc]
