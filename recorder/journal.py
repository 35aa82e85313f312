"""The journal of a call in progress: its SIP messages as they were heard, so that a restart can hear them again.

In: messages of one call. Out: a file that grows by whole records, each with its length and checksum, and from such a
file, the messages again. A record that a crash cut off ends what is read. The call tracker's state is a function of its
messages, so this is all that has to be kept of it. Bounded: a call that sends more than its share is kept up to there.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from capture.address import Endpoint
from capture.errors import SpanrecError
from recorder.messages import Message
from recorder.model import Sighting, Transport

FILE = "journal"
LARGEST = 4 << 20
"""Octets of a journal: thousands of messages."""

_RECORD = struct.Struct("<II")
"""Octets that follow, their CRC-32."""
_SEEN = struct.Struct("<qQiBIQQHQQH")
"""Time, frame number, capture, transport, realm; source and destination: high, low, port."""
_TRANSPORTS = tuple(Transport)
RECORD_OCTETS = _RECORD.size + _SEEN.size
"""Of a record beside its message."""


class JournalError(SpanrecError):
    """A journal cannot be written."""


def append(directory: Path, message: Message) -> None:
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
    path = f"{directory}/{FILE}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            before = os.fstat(descriptor).st_size
            if before + len(content) <= LARGEST:
                record = _RECORD.pack(len(content), crc32(content)) + content
                if os.write(descriptor, record) < len(record):
                    # Half a record would hide those behind it.
                    os.ftruncate(descriptor, before)
                    raise JournalError(f"{path}: cannot be written: the disk is full")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise JournalError(f"{path}: cannot be written: {error.strerror or error}") from error


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
