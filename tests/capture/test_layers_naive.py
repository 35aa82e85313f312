"""The layer kernels against their plain-Python twin, on random and on damaged frames, with and without compilation."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import capture._layer_cursor as cursor_kernels
import capture._layer_kernels as layer_kernels
import capture._link_kernels as link_kernels
import capture._octets_at as octets_at
import capture._tunnel_kernels as tunnel_kernels
from capture.address import Endpoint
from capture.batch import PacketBatch
from capture.layers import decode_layers
from tests.capture.frames import LINK_TYPES, every_frame
from tests.naive_layers import Datagram, innermost

FRAMES = [(bytes(frame), link_type) for _, frame, link_type in every_frame()]
MARGIN = b"\xa5" * 64
"""Around every frame: a kernel that reads outside it sees this, and its twin does not."""


def batch_of(frames: list[tuple[bytes, int, int]]) -> PacketBatch:
    """Frames (octets, link type, wire length) with a margin between them, so that they do not run into each other."""
    offsets, at = [], len(MARGIN)
    for octets, _, _ in frames:
        offsets.append(at)
        at += len(octets) + len(MARGIN)
    n = len(frames)
    return PacketBatch(
        buffer=np.frombuffer(MARGIN + b"".join(octets + MARGIN for octets, _, _ in frames), np.uint8),
        time=np.zeros(n, np.int64),
        offset=np.array(offsets, np.int64),
        captured=np.array([len(octets) for octets, _, _ in frames], np.int32),
        wire=np.array([wire for _, _, wire in frames], np.int32),
        link_type=np.array([link_type for _, link_type, _ in frames], np.int32),
        number=np.arange(n, dtype=np.int64),
        capture=np.zeros(n, np.int32),
    )


def rows(packets: PacketBatch) -> list[Datagram]:
    decoded = decode_layers(packets)
    columns = zip(
        decoded.kind.tolist(),
        (decoded.payload - packets.offset).tolist(),
        decoded.length.tolist(),
        decoded.missing.tolist(),
        decoded.source_high.tolist(),
        decoded.source_low.tolist(),
        decoded.destination_high.tolist(),
        decoded.destination_low.tolist(),
        decoded.source_port.tolist(),
        decoded.destination_port.tolist(),
        decoded.realm.tolist(),
        decoded.ip_id.tolist(),
        strict=True,
    )
    return [
        Datagram(kind, at, size, cut, octets(sh, sl), octets(dh, dl), sport, dport, realm, ip_id)
        for kind, at, size, cut, sh, sl, dh, dl, sport, dport, realm, ip_id in columns
    ]


def octets(high: int, low: int) -> bytes:
    return high.to_bytes(8, "big") + low.to_bytes(8, "big")


def agree(frames: list[tuple[bytes, int, int]]) -> None:
    expected = [innermost(frame, link_type, wire) for frame, link_type, wire in frames]
    for frame, got, want in zip(frames, rows(batch_of(frames)), expected, strict=True):
        assert got == want, (frame[0].hex(), frame[1], frame[2])


def mutated(seed: int, count: int) -> list[tuple[bytes, int, int]]:
    """Good frames with some octets changed, a piece cut out or repeated, and the end cut off."""
    chance = random.Random(seed)
    frames = []
    for _ in range(count):
        frame, link_type = chance.choice(FRAMES)
        octets = bytearray(frame)
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            octets[chance.randrange(min(len(octets), 150))] = chance.choice((0, 1, 4, 0xFF, chance.randrange(256)))
        if chance.random() < 0.15:
            at = chance.randrange(len(octets))
            del octets[at : at + chance.randrange(12)]
        if chance.random() < 0.1:
            at = chance.randrange(len(octets))
            octets[at:at] = octets[max(0, at - chance.randrange(60)) : at]
        wire = len(octets)
        if chance.random() < 0.4:
            del octets[chance.randrange(len(octets) + 1) :]
        if chance.random() < 0.1:
            wire = chance.randrange(2 * wire + 1)
        if chance.random() < 0.05:
            link_type = chance.choice(LINK_TYPES)
        frames.append((bytes(octets), link_type, wire))
    return frames


def test_kernels_agree_with_their_twin_on_sound_frames():
    agree([(frame, link_type, len(frame)) for frame, link_type in FRAMES])


def test_kernels_agree_with_their_twin_on_every_cut_of_every_frame():
    agree([(frame[:k], link_type, len(frame)) for frame, link_type in FRAMES for k in range(min(len(frame), 160))])


@pytest.mark.parametrize("seed", range(4))
def test_kernels_agree_with_their_twin_on_damaged_frames(seed: int):
    agree(mutated(seed, 5000))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=120), st.sampled_from(LINK_TYPES), st.integers(0, 200)), max_size=20))
def test_kernels_agree_with_their_twin_on_random_octets(frames):
    agree(frames)


def test_kernels_never_read_outside_a_frame(monkeypatch):
    """Run as plain Python over a buffer that ends with the frame: numpy checks the bounds that numba does not."""
    modules = (cursor_kernels, link_kernels, tunnel_kernels, layer_kernels)
    kernels = {name: part for module in modules for name, part in vars(module).items()} | octets_at.PLAIN
    plain = {name: part.py_func for name, part in kernels.items() if hasattr(part, "py_func")}
    plain["prefetch"] = lambda array, index: None
    for module in modules:
        for name in plain:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, plain[name])
    monkeypatch.setattr("capture.layers.decode", plain["decode"])
    for frame, link_type, wire in mutated(99, 700):
        packets = batch_of([(frame, link_type, wire)])
        packets.buffer = packets.buffer[: len(MARGIN) + len(frame)]
        assert rows(packets) == [innermost(frame, link_type, wire)]


def test_columns_that_point_outside_the_buffer_give_nothing_rather_than_a_crash():
    packets = batch_of([(b"abc", 1, 3)] * 3)
    packets.offset[:] = (-5, 10_000_000, 2)
    packets.captured[:] = (60, 60, 1_000_000)
    assert decode_layers(packets).kind.tolist() == [0, 0, 0]


def test_an_endpoint_reads_as_its_columns():
    frame, link_type = FRAMES[0]
    decoded = decode_layers(batch_of([(frame, link_type, len(frame))]))
    source = Endpoint(int(decoded.source_high[0]), int(decoded.source_low[0]), int(decoded.source_port[0]))
    assert str(source) == "192.0.2.1:4000"
