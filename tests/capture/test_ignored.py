"""The kernel's hash set of directions, and the choice of segments, against plain Python."""

import random
import struct

import numpy as np

from capture._tcp_kernels import FLAG_SYN, select_segments
from capture.address import Endpoint
from capture.batch import KIND_TCP
from capture.ignored import IgnoredDirections
from capture.layers import decode_layers
from tests.packets import batch, tcp


def test_the_set_does_what_a_set_does():
    chance = random.Random(1)
    ends = [Endpoint(chance.randrange(3), chance.randrange(1 << 64), chance.randrange(1 << 16)) for _ in range(60)]
    ignored, naive = IgnoredDirections(), set()
    for _ in range(20_000):
        direction = (chance.choice(ends), chance.choice(ends), chance.choice((0, 7, 0xFFFFFFFF)))
        if chance.random() < 0.4:
            ignored.discard(*direction)
            naive.discard(direction)
        else:
            ignored.add(*direction)
            naive.add(direction)
    assert len(ignored.state) > 1 << 12
    for source in ends:
        for destination in ends:
            for realm in (0, 7, 0xFFFFFFFF):
                assert ((source, destination, realm) in ignored) == ((source, destination, realm) in naive)


def naive_choice(frame: bytes, sport: int, ignored: set[int], wire: int) -> tuple[int, ...] | None:
    """Sequence number, flags, octets of data and octets cut off, None where the segment does not matter."""
    segment = frame[34:]
    sequence, offset, flags = struct.unpack("!4xI4xBB", segment[:14])
    header = (offset >> 4) * 4
    size = wire - 34 - header
    if header < 20 or size < 0 or (not size and not flags & 7):
        return None
    if flags & FLAG_SYN:
        ignored.discard(sport)
    if sport in ignored:
        return None
    data = max(0, len(segment) - header)
    return sequence, flags, data, size - data


def test_segments_are_chosen_as_plain_python_chooses_them():
    chance = random.Random(2)
    for _ in range(60):
        frames = []
        for _ in range(40):
            flags = chance.choice(("A", "PA", "S", "SA", "FA", "R"))
            frame = tcp(bytes(chance.choice((0, 0, 1, 50))), sport=chance.randrange(6), flags=flags)
            octets = bytearray(bytes(frame))
            if chance.random() < 0.3:
                octets[46] = chance.randrange(256)
            frames.append(bytes(octets))
        snap = chance.choice((54, 58, 80, 200))
        directions, naive = IgnoredDirections(), {1, 3, 4}
        decoded = decode_layers(batch(frames, snap=snap))
        assert (decoded.kind == KIND_TCP).all()
        for port in naive:
            source = Endpoint(int(decoded.source_high[0]), int(decoded.source_low[0]), port)
            directions.add(source, Endpoint(0, int(decoded.destination_low[0]), 5060), 0)
        chosen = np.empty((40, 6), np.int64)
        columns = ("source_high", "source_low", "destination_high", "destination_low", "source_port")
        count = select_segments(
            decoded.packets.buffer,
            np.arange(40),
            decoded.payload,
            decoded.length,
            decoded.missing,
            *(getattr(decoded, name) for name in columns),
            decoded.destination_port,
            decoded.realm,
            directions.keys,
            directions.state,
            chosen,
        )
        ours = [(row, sequence, flags, size, cut) for row, sequence, flags, _, size, cut in chosen[:count].tolist()]
        ports = decoded.source_port.tolist()
        choices = [naive_choice(f[:snap], ports[k], naive, len(f)) for k, f in enumerate(frames)]
        assert ours == [(row, *choice) for row, choice in enumerate(choices) if choice is not None]
