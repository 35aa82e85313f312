"""The thread in which a kernel forwards from the rings of interfaces, without ever waiting for the interpreter.

In: a source that lends its rings, and the forwarder's tables. Out: packets forwarded as long as it is open. The thread
that owns it goes on to run Python, changes the tables under their lock, and has to `tend` it.
"""

import mmap
import os
import threading
from contextlib import suppress
from typing import Protocol, runtime_checkable

from capture._ring_kernels import KEEP_OUTGOING
from capture.layers import read_only
from capture.ring_socket import RingShape
from capture.rings import RingPlan, Rings, RingView
from recorder.siprec._forward_columns import STOP, Tables
from recorder.siprec._forward_ring_kernels import forward_rings, make_scratch
from recorder.siprec._ring_wait import polled


@runtime_checkable
class LendsRings(Protocol):
    """What of `capture.ring.RingSource` is needed here, and said there."""

    def lend(self) -> tuple[RingView, list[int]]:
        """The rings, and descriptors that tell when they have something."""
        ...

    def tend(self) -> bool:
        """Whether the rings must be taken back."""
        ...

    def take_back(self) -> None:
        """The kernel has ended."""
        ...


class RingPump:
    """Runs between `__enter__` and `__exit__`."""

    def __init__(self, tables: Tables, source: LendsRings, niceness: int) -> None:
        self._tables = tables
        self._source = source
        self._niceness = niceness
        self._thread: threading.Thread | None = None
        self._errors: list[Exception] = []

    def __enter__(self) -> "RingPump":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def tend(self) -> None:
        """To be called at least once a second. Raises what ended the thread."""
        if self._errors:
            raise self._errors[0]
        if self._source.tend():
            self._stop()
            self._source.take_back()
            self._start()

    def _start(self) -> None:
        self._tables.counts[STOP] = 0
        self._thread = threading.Thread(target=self._run, name="spanrec-pump", daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self._tables.counts[STOP] = 1
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        hurry(self._niceness)
        try:
            rings, descriptors = self._source.lend()
            forward(self._tables, rings, descriptors)
        except Exception as error:  # for the thread that tends it
            self._errors.append(error)


def prepare_rings(tables: Tables) -> None:
    """Have the kernels of this thread compiled or loaded."""
    tables.counts[STOP] = 1
    nothing = Rings([RingPlan(RingShape(mmap.PAGESIZE, 1, 1), 1, KEEP_OUTGOING)], mmap.PAGESIZE)
    forward(tables, nothing.view(), [])


def forward(tables: Tables, rings: RingView, descriptors: list[int]) -> None:
    """Forward until `counts[STOP]` is set."""
    scratch = make_scratch(len(rings.time))
    forward_rings(tables, rings, read_only(rings.octets), polled(descriptors), scratch)


def hurry(niceness: int) -> None:
    """Let the calling thread go before others, where the system allows it."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
