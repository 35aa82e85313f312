"""Python's search for cycles of dead values: none while modules are imported, rare while captures are replayed, none at
the end.

In: nothing. Out: nothing; the interpreter's thresholds while a context lasts. Messages, calls and documents are
trees that go when the last reference goes; looking through all calls in progress for cycles, every few hundred new
values, took a fifth of the time. What may hold a cycle (errors, libraries) is still found, later.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_VALUES = 50_000
"""Values made, more than were dropped, before the young ones are looked at: some MB."""
NEW_VALUES_OFFLINE = 500_000
"""The same where nobody waits for the next packet, so that the look may take longer: a replay that makes documents of
100,000 messages spent a fourteenth of its time on looks that found one cycle in every twenty calls."""


@contextmanager
def no_collections() -> Iterator[None]:
    """Look for no cycles: importing makes values by the hundred thousand, and nearly all of them stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def rare_collections(new_values: int = NEW_VALUES) -> Iterator[None]:
    """Look for cycles rarely, and never among the values that are there already: modules, kernels."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(new_values, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def no_last_collection() -> None:
    """Let the interpreter end without a last look at everything that there is: numba's modules alone, all of them alive
    until then, took a third of a short run. What must be closed has been closed."""
    gc.freeze()
