"""Python's search for cycles of dead values: none while modules are imported, rare while captures are replayed, none at
the end.

In: nothing. Out: nothing; the interpreter's thresholds while a context lasts. Messages, calls and documents are
trees that go when the last reference goes; looking through all calls in progress for cycles, every few hundred new
values, took a fifth of the time. What may hold a cycle (errors, libraries) is still found, later.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_VALUES = 500_000
"""Values made, more than were dropped, before those that are new since the last look are looked at: some 50 MB. A look
takes as long as there are values of calls in progress, however few are dead: 0.2 to 0.5 s with six hundred calls. At a
tenth of this it was taken every five seconds and cost a thirtieth of all time, for seven dead values in a minute."""


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
def rare_collections() -> Iterator[None]:
    """Look for cycles rarely, and never among the values that are there already: modules, kernels."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(NEW_VALUES, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def no_last_collection() -> None:
    """Let the interpreter end without a last look at everything that there is: numba's modules alone, all of them alive
    until then, took a third of a short run. What must be closed has been closed."""
    gc.freeze()
