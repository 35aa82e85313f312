"""From a call that no server could be had for to an entry of the spool: its packets are there when it is published.

In: what sessions could not deliver, or may not be able to (in their loop), recordings as they are published (in the
publisher's thread). Whichever comes first waits for the other, bounded in number. Out: entries of the spool, by a link
to the packets. Packets that were kept in doubt, and that no session needs in the end, are removed.
"""

import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from capture.errors import SpanrecError
from recorder.document import CallDocument
from recorder.siprec.picture import CallPicture
from recorder.siprec.spool import PACKETS, Spool
from recorder.siprec.spool_entry import SpooledCall
from recorder.siprec.src_sessions import Kept

MOST_WAITING = 4096
_V = TypeVar("_V")


class Spooling:
    """Fills one spool."""

    def __init__(
        self, spool: Spool, trouble: Callable[[str], None], lost: Callable[[Kept], None], *, leave_packets: bool
    ) -> None:
        """`trouble` takes sentences about a disk that refuses; `lost` calls that were over before any packet could be
        kept. `leave_packets`: they stay with the recording too."""
        self._spool = spool
        self._trouble = trouble
        self._lost = lost
        self._leave = leave_packets
        self._lock = threading.Lock()
        self._needed: OrderedDict[str, int] = OrderedDict()
        """How many sessions may yet need the packets of a call."""
        self._kept: OrderedDict[str, list[Kept]] = OrderedDict()
        self._published: OrderedDict[str, Path] = OrderedDict()
        """Directories, of recordings without packets too: a call that is kept later must not wait for them."""

    def doubted(self, picture: CallPicture) -> None:
        """A session may not be able to deliver a call: `keep` or `spared` comes when it knows."""
        with self._lock:
            identifier = str(picture.id)
            _put(self._needed, identifier, self._needed.get(identifier, 0) + 1)

    def spared(self, picture: CallPicture) -> None:
        """It was delivered."""
        identifier = str(picture.id)
        with self._lock:
            directory = self._published.get(identifier)
            free = self._let_go(identifier) and directory is not None
        if free and directory is not None:
            self._remove(directory)

    def keep(self, kept: Kept) -> None:
        """A call was not delivered, or not all of it, and is over."""
        identifier = str(kept.picture.id)
        with self._lock:
            directory = self._published.get(identifier)
            if directory is None:
                _put(self._kept, identifier, [*self._kept.get(identifier, ()), kept])
        if directory is not None:
            threading.Thread(target=self._take, args=(kept, directory), name="spanrec-spool").start()

    def published(self, document: CallDocument, directory: Path) -> None:
        """A recording has its final name."""
        with self._lock:
            kept = self._kept.pop(document.id, [])
            _put(self._published, document.id, directory)
            spared = self._needed.get(document.id) == 0
        for each in kept:
            self._take(each, directory)
        if spared and not kept:
            self._remove(directory)

    def _take(self, kept: Kept, directory: Path) -> None:
        if not (directory / PACKETS).exists():
            self._lost(kept)
        elif not self._link(kept, directory / PACKETS):
            return  # they stay where they are
        with self._lock:
            free = self._let_go(str(kept.picture.id))
        if free:
            self._remove(directory)

    def _link(self, kept: Kept, packets: Path) -> bool:
        servers = tuple(replace(server, credentials=None) for server in kept.instance.servers)
        call = SpooledCall(kept.picture, replace(kept.instance, servers=servers), kept.since, time.time_ns())
        try:
            work = self._spool.work(call)
            _link(packets, work / PACKETS)
            self._spool.put(call, work)
        except (SpanrecError, OSError) as error:
            self._trouble(str(error))
            return False
        return True

    def _let_go(self, identifier: str) -> bool:
        """One session less needs the packets; whether none does. Under the lock."""
        left = self._needed.get(identifier, 1) - 1
        _put(self._needed, identifier, left)
        return left <= 0

    def _remove(self, directory: Path) -> None:
        if not self._leave:
            (directory / PACKETS).unlink(missing_ok=True)


def _link(packets: Path, to: Path) -> None:
    try:
        os.link(packets, to)
    except OSError:
        shutil.copyfile(packets, to)


def _put(known: "OrderedDict[str, _V]", identifier: str, value: _V) -> None:
    known[identifier] = value
    while len(known) > MOST_WAITING:
        known.popitem(last=False)
