"""Sending frames and taking them from a live source: what the tests of live sources share."""

import ctypes
import os
import socket
import time
from contextlib import contextmanager
from typing import NamedTuple

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bench.veth import entered

CAP_NET_RAW = 13


class Taken(NamedTuple):
    """A frame as it came out of a source."""

    octets: bytes
    time: int
    wire: int
    link_type: int
    number: int
    capture: int


def frames_of(batch):
    offsets, sizes = batch.offset.tolist(), batch.captured.tolist()
    octets = [batch.buffer[at : at + size].tobytes() for at, size in zip(offsets, sizes, strict=True)]
    columns = (batch.time, batch.wire, batch.link_type, batch.number, batch.capture)
    return [Taken(*row) for row in zip(octets, *(column.tolist() for column in columns), strict=True)]


def take(source, count, seconds=5.0):
    """Frames until there are `count`, and some time more for those that should not be there."""
    taken = []
    deadline = time.monotonic() + seconds
    while len(taken) < count and time.monotonic() < deadline:
        batch = source.poll(0.2)
        if batch is not None:
            taken += frames_of(batch)
    extra = source.poll(0.15)
    return taken + (frames_of(extra) if extra is not None else [])


class Sender:
    """A packet socket that sends whole frames."""

    def __init__(self, namespace, interface):
        with entered(namespace):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.bind((interface, 0))

    def send(self, *frames):
        for frame in frames:
            self.socket.send(bytes(frame))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def datagram(payload=b"hello", port=5060, to=5060):
    return (
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src="192.0.2.1", dst="198.51.100.2")
        / UDP(sport=port, dport=to)
        / Raw(payload)
    )


def many(count, flows=50):
    """Different frames of several flows."""
    template = bytes(datagram(bytes(20)))
    made = []
    for number in range(count):
        frame = bytearray(template)
        frame[34:36] = (10_000 + number % flows).to_bytes(2, "big")
        frame[-4:] = number.to_bytes(4, "big")
        made.append(bytes(frame))
    return made


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("process", ctypes.c_int))


@contextmanager
def without_net_raw():
    """This thread may not make packet sockets meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(ctypes.byref(header), sets) == 0
    before = sets[0]
    sets[0] = before & ~(1 << CAP_NET_RAW)
    assert libc.capset(ctypes.byref(header), sets) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(ctypes.byref(header), sets) == 0
