"""A call's journal as frames, so that a capture that begins in the middle of a call tells its beginning too.

In: the working directory of a call in progress. Out: a `PacketBatch` of raw IP frames, one for each message, over UDP
whatever carried it, at the times of their sightings. What does not fit into a datagram is left out.
"""

from pathlib import Path

import numpy as np

from capture.address import V4_MAPPED, Endpoint
from capture.batch import PacketBatch
from capture.hep import HepPacket
from capture.hep_frames import HEADROOM, put_frame
from recorder import journal

_LONGEST = 65_000
"""Octets of a message."""


def journal_frames(directory: Path) -> PacketBatch:
    """The messages of the call so far."""
    messages = [(seen, data) for seen, data in journal.read(directory) if len(data) <= _LONGEST]
    room = bytearray(sum(len(data) + HEADROOM for _, data in messages))
    times, offsets, lengths, links = [], [], [], []
    at = 0
    for seen, data in messages:
        packet = HepPacket(
            version=3,
            source=_packed(seen.source),
            destination=_packed(seen.destination),
            source_port=seen.source.port,
            destination_port=seen.destination.port,
            payload=memoryview(data),
        )
        size, link = put_frame(memoryview(room), at, packet)
        times.append(seen.time)
        offsets.append(at)
        lengths.append(size)
        links.append(link)
        at += size
    count = len(messages)
    length = np.array(lengths, np.int32)
    return PacketBatch(
        buffer=np.frombuffer(room, np.uint8),
        time=np.array(times, np.int64),
        offset=np.array(offsets, np.int64),
        captured=length,
        wire=length.copy(),
        link_type=np.array(links, np.int32),
        number=np.arange(1, count + 1, dtype=np.int64),
        capture=np.zeros(count, np.int32),
    )


def _packed(endpoint: Endpoint) -> bytes:
    if endpoint.high == 0 and endpoint.low >> 32 == V4_MAPPED >> 32:
        return (endpoint.low & 0xFFFFFFFF).to_bytes(4, "big")
    return (endpoint.high << 64 | endpoint.low).to_bytes(16, "big")
