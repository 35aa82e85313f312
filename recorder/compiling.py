"""The first run's kernels, compiled by two processes at once.

In: nothing. Out: compiled kernels in numba's cache. This process compiles those that read packets and tell them apart,
a child those that take what is of interest into a window and make streams and audio of it, for one interpreter compiles
on one processor only. Each half takes about as long. A child that fails costs time and nothing else: what is not in the
cache is compiled when it is called.
"""

import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from capture.batch import DatagramBatch, PacketBatch

_PATIENCE = 180.0
"""s that the child may take."""
_PCAP = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
"""The header of a capture without packets."""


def compile_kernels() -> None:
    """Have everything that replay needs compiled."""
    from recorder.collection import no_collections
    from recorder.warmup import type_operators_once

    try:
        child = subprocess.Popen(
            [sys.executable, "-c", "from recorder.compiling import compile_in_child; compile_in_child()"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return  # a sandbox that lets no program start
    with child, no_collections():
        type_operators_once()
        compile_reading()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()


def compile_in_child() -> None:
    """What the child does."""
    from recorder.collection import no_collections, no_last_collection
    from recorder.warmup import choose_kernel_cache, type_operators_once

    choose_kernel_cache()
    with no_collections():
        type_operators_once()
        compile_media()
    no_last_collection()


def compile_reading() -> None:
    """Read a capture without packets and tell apart what is not in it: types alone decide what is compiled."""
    from capture.damage import DamageLog
    from capture.pcap import PcapReader
    from capture.window import Window as Octets
    from recorder.engine import prepare

    PcapReader(0, DamageLog()).read(Octets(np.frombuffer(_PCAP, np.uint8)), 1)
    prepare(_no_packets())


def compile_media() -> None:
    """Take a batch and a window without packets through all that is done with them."""
    from capture.tcpstreams import TcpReassembler
    from decoders import _stream_columns as cols
    from decoders.rtp import FlowTable, Stager, Window
    from decoders.timeline import EntrySpace, FormatTable, Placer, StreamTable
    from recorder._track_kernels import record
    from recorder.identity import MediaIdentity

    window = Window(1, 1)
    flows = FlowTable(1)
    stager, identity = Stager(flows, window), MediaIdentity(flows)
    none, nobody = np.empty(0, np.int64), np.empty(0, np.int32)
    datagrams = _no_datagrams()
    TcpReassembler().feed(datagrams, none)
    stager.stage(datagrams, datagrams.kind, 0, 0)
    stager.group()
    entries = EntrySpace().lay_out(nobody, none, none, stager.order, window)
    entries.receive(StreamTable(1), FormatTable(), window, 0, 0, 0, 0, 0)
    jobs, placer = np.empty((0, cols.JOB), np.int64), Placer()
    record(
        jobs, none, 0, nobody, entries.bounds, entries.taken, entries.kind, entries.position, entries.source,
        entries.size, window.arena, placer.left, placer.right, placer.out, 0,
    )  # fmt: skip
    identity.begin(0)
    for _ in identity.look(stager):
        pass
    stager.carry(np.zeros(0, np.bool_))


def _no_packets() -> "PacketBatch":
    from capture.batch import PacketBatch

    long, short = np.empty(0, np.int64), np.empty(0, np.int32)
    return PacketBatch(np.frombuffer(_PCAP, np.uint8), long, long, short, short, short, long, short)


def _no_datagrams() -> "DatagramBatch":
    from capture.batch import DatagramBatch

    kind, short, realm = np.empty(0, np.uint8), np.empty(0, np.int32), np.empty(0, np.uint32)
    address, port = np.empty(0, np.uint64), np.empty(0, np.uint16)
    return DatagramBatch(
        _no_packets(), kind, np.empty(0, np.int64), short, short, address, address, address, address, port, port, realm,
        port,
    )  # fmt: skip
