"""Send a capture over an interface with its own timing: `send_capture(namespace, interface, path)`.

In: a capture of Ethernet frames. Out: the same frames on the wire, each as long after the first as it was captured.
The thread that sends goes before all other programs where the system lets it, so that frames are late by some tens of
microseconds; how late the latest one was is said.
"""

import ctypes
import os
import socket
import threading
import time
from pathlib import Path

from bench.veth import entered
from capture.source import CaptureSource

LEAD = 0.05
"""Seconds before the first frame."""


def frames_of(path: Path) -> list[tuple[int, bytes]]:
    """(ns, octets) of each frame."""
    found = []
    for batch in CaptureSource([path], hash_files=False):
        rows = zip(batch.time.tolist(), batch.offset.tolist(), batch.captured.tolist(), strict=True)
        found += [(when, batch.buffer[at : at + size].tobytes()) for when, at, size in rows]
    return found


def send_capture(namespace: str, interface: str, path: Path) -> float:
    """Send all frames; gives the lateness of the latest one, ms."""
    frames = frames_of(path)
    first = frames[0][0]
    latest = 0.0
    with entered(namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        out.bind((interface, 0))
        begin = time.monotonic() + LEAD
        for when, octets in frames:
            due = begin + (when - first) / 1e9
            rest = due - time.monotonic()
            if rest > 0:
                time.sleep(rest)
            out.send(octets)
            latest = max(latest, time.monotonic() - due)
    return latest * 1000


def go_first() -> None:
    """This thread goes before all other programs, where the system lets it; wakes are exact to some microseconds."""
    try:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_RR, os.sched_param(1))
    except OSError:
        return
    pr_set_timerslack = 29
    ctypes.CDLL(None).prctl(pr_set_timerslack, 1000, 0, 0, 0)
