"""From a call that no server could be had for to an entry of the spool: its packets are there when it is published.

In: what sessions could not deliver (in their loop), recordings as they are published (in the publisher's thread).
Whichever comes first waits for the other, bounded in number. Out: entries of the spool, by a link to the packets.
"""

import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from capture.errors import SpanrecError
from recorder.document import CallDocument
from recorder.siprec.spool import PACKETS, Spool
from recorder.siprec.spool_entry import SpooledCall
from recorder.siprec.src_sessions import Kept

MOST_WAITING = 4096


class Spooling:
    """Fills one spool."""

    def __init__(self, spool: Spool, trouble: Callable[[str], None], *, leave_packets: bool) -> None:
        """`trouble` takes sentences about a disk that refuses. `leave_packets`: they stay with the recording too."""
        self._spool = spool
        self._trouble = trouble
        self._leave = leave_packets
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, list[Kept]] = OrderedDict()
        self._published: OrderedDict[str, Path] = OrderedDict()
        """Directories, of recordings without packets too: a call that is kept later must not wait for them."""

    def keep(self, kept: Kept) -> None:
        """A call was not delivered, or not all of it, and is over."""
        identifier = str(kept.picture.id)
        with self._lock:
            directory = self._published.get(identifier)
            if directory is None:
                self._kept.setdefault(identifier, []).append(kept)
                _trim(self._kept)
        if directory is not None:
            threading.Thread(target=self._take, args=([kept], directory), name="spanrec-spool").start()

    def published(self, document: CallDocument, directory: Path) -> None:
        """A recording has its final name."""
        with self._lock:
            kept = self._kept.pop(document.id, [])
            self._published[document.id] = directory
            _trim(self._published)
        if kept:
            self._take(kept, directory)

    def _take(self, kept: list[Kept], directory: Path) -> None:
        if not (directory / PACKETS).exists():
            self._trouble(f"{directory}: the call was not delivered, and ended before its packets could be kept")
            return
        for each in kept:
            instance = replace(
                each.instance, servers=tuple(replace(server, credentials=None) for server in each.instance.servers)
            )
            call = SpooledCall(each.picture, instance, each.since, time.time_ns())
            try:
                work = self._spool.work(call)
                _link(directory / PACKETS, work / PACKETS)
                self._spool.put(call, work)
            except (SpanrecError, OSError) as error:
                self._trouble(str(error))
                return
        if not self._leave:
            (directory / PACKETS).unlink(missing_ok=True)


def _link(packets: Path, to: Path) -> None:
    try:
        os.link(packets, to)
    except OSError:
        shutil.copyfile(packets, to)


def _trim(known: "OrderedDict[str, list[Kept]] | OrderedDict[str, Path]") -> None:
    while len(known) > MOST_WAITING:
        known.popitem(last=False)
