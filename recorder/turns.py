"""How long a thread keeps the interpreter to itself while others wait for it.

In: nothing. Out: a setting of the interpreter while a context lasts. A service has several threads at work at one time
(engine, sessions, publisher, forwarder), and each gives the interpreter up at every system call and kernel. To have it
back takes as long as the turn of who has got it meanwhile: with Python's 5 ms a call of thirty such steps took 150 ms
and more as soon as two threads were busy, and fifty calls a second, two thirds of what one processor can do, did not
hold. Shorter turns cost some thousand changes of threads a second, of some microseconds each.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

TURN = 0.000_5
"""s."""


@contextmanager
def short_turns() -> Iterator[None]:
    """Let threads that wait have their turn soon."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
