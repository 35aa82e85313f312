"""The journal of a call in progress: its SIP messages as they were heard, so that a restart can hear them again.

In: messages of one call. Out: a file that grows by whole records, each with its length and checksum, and from such a
file, the messages again. A record that a crash cut off ends what is read. The call tracker's state is a function of its
messages, so this is all that has to be kept of it. Bounded: a call that sends more than its share is kept up to there.
"""

import os
import struct
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from capture.address import Endpoint
from capture.errors import SpanrecError
from recorder.messages import Message
from recorder.model import Sighting, Transport

FILE = "journal"
LARGEST = 4 << 20
"""Octets of a journal: thousands of messages."""
MOST_OPEN = 256
"""Journals. A call that has been talking for a while has nothing to write."""

_RECORD = struct.Struct("<II")
"""Octets that follow, their CRC-32."""
_SEEN = struct.Struct("<qQiBIQQHQQH")
"""Time, frame number, capture, transport, realm; source and destination: high, low, port."""
_TRANSPORTS = tuple(Transport)
RECORD_OCTETS = _RECORD.size + _SEEN.size
"""Of a record beside its message."""


class JournalError(SpanrecError):
    """A journal cannot be written."""


class Journals:
    """The journals of all calls in progress. Those that were written last stay open: a call has seven messages or more
    within seconds, and to open and close a file for each costs more than to write them."""

    def __init__(self, most_open: int = MOST_OPEN) -> None:
        self._most_open = most_open
        self._open: OrderedDict[Path, _Opened] = OrderedDict()

    def append(self, directory: Path, message: Message) -> None:
        """Add a message to the journal in `directory`. Raises JournalError where the disk refuses."""
        seen = message.seen
        content = (
            _SEEN.pack(
                seen.time,
                seen.packet,
                seen.capture,
                _TRANSPORTS.index(seen.transport),
                seen.realm,
                *seen.source,
                *seen.destination,
            )
            + message.data
        )
        try:
            opened = self._opened(directory)
            if opened.size + len(content) > LARGEST:
                return
            record = _RECORD.pack(len(content), crc32(content)) + content
            written = os.write(opened.descriptor, record)
            if written < len(record):
                # Half a record would hide those behind it.
                os.ftruncate(opened.descriptor, opened.size)
                raise JournalError(f"{directory}/{FILE}: cannot be written: the disk is full")
            opened.size += written
        except OSError as error:
            raise JournalError(f"{directory}/{FILE}: cannot be written: {error.strerror or error}") from error

    def close(self, directory: Path) -> None:
        """A call is over; that it has no open journal is no error."""
        opened = self._open.pop(directory, None)
        if opened is not None:
            os.close(opened.descriptor)

    def _opened(self, directory: Path) -> "_Opened":
        known = self._open.get(directory)
        if known is not None:
            self._open.move_to_end(directory)
            return known
        while len(self._open) >= self._most_open:
            os.close(self._open.popitem(last=False)[1].descriptor)
        descriptor = os.open(f"{directory}/{FILE}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        new = self._open[directory] = _Opened(descriptor, os.fstat(descriptor).st_size)
        return new


@dataclass(slots=True)
class _Opened:
    """A journal that is open, and its octets."""

    descriptor: int
    size: int


def mend(directory: Path) -> None:
    """Take off what a crash cut off at the end, so that what is added from now on can be read."""
    whole = sum(RECORD_OCTETS + len(data) for _, data in read(directory))
    with suppress(OSError):
        if (directory / FILE).stat().st_size > whole:
            os.truncate(directory / FILE, whole)


def read(directory: Path) -> Iterator[tuple[Sighting, bytes]]:
    """Sighting and octets of each message in the journal of `directory`, up to the first that is not whole."""
    try:
        content = (directory / FILE).read_bytes()
    except OSError:
        return
    at = 0
    while at + _RECORD.size <= len(content):
        size, checksum = _RECORD.unpack_from(content, at)
        at += _RECORD.size
        record = content[at : at + size]
        at += size
        if len(record) < max(size, _SEEN.size) or crc32(record) != checksum:
            return
        time, packet, capture, transport, realm, *ends = _SEEN.unpack_from(record)
        if transport >= len(_TRANSPORTS):
            return
        source, destination = Endpoint(*ends[:3]), Endpoint(*ends[3:])
        seen = Sighting(time, packet, capture, source, destination, _TRANSPORTS[transport], realm)
        yield seen, record[_SEEN.size :]
