"""The first run's kernels, compiled by two processes at once.

In: nothing. Out: compiled kernels in numba's cache. This process compiles those that packets pass on their way into the
window, a child those that make streams and audio of a window, for one interpreter compiles on one processor only. Each
half takes about as long. A child that fails costs time and nothing else: what is not in the cache is compiled when it
is called.
"""

import struct
import subprocess
import sys

import numpy as np

_PATIENCE = 180.0
"""s that the child may take."""
_PCAP = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
"""The header of a capture without packets."""
_ROOM = 4096
"""Packets of the rehearsal that are staged, with 256 octets for each."""


def compile_kernels() -> None:
    """Have everything that replay needs compiled."""
    from recorder.collection import no_collections

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
        compile_reading()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()


def compile_in_child() -> None:
    """What the child does."""
    from recorder.collection import no_collections, no_last_collection
    from recorder.warmup import choose_kernel_cache

    choose_kernel_cache()
    with no_collections():
        compile_media()
    no_last_collection()


def compile_reading() -> None:
    """Read a capture without packets, and stage those of the rehearsal."""
    from capture.damage import DamageLog
    from capture.pcap import PcapReader
    from capture.window import Window as Octets
    from decoders.rtp import FlowTable, Stager, Window
    from recorder.engine import prepare
    from recorder.messages import MessageReader
    from recorder.rehearsal import script

    PcapReader(0, DamageLog()).read(Octets(np.frombuffer(_PCAP, np.uint8)), 1)
    stager, messages, source = Stager(FlowTable(64), Window(_ROOM, _ROOM << 8)), MessageReader(), script()
    while not source.ended:
        batch = source.poll(0.0)
        if batch is not None:
            prepared = prepare(batch)
            messages.find(*prepared)
            stager.stage(prepared.datagrams, prepared.kinds, 0, int(batch.time[-1]) + 1)


def compile_media() -> None:
    """Take a window without packets through all that is done with one: types alone decide what is compiled."""
    from decoders import _stream_columns as cols
    from decoders.rtp import FlowTable, Stager, Window
    from decoders.timeline import EntrySpace, FormatTable, Placer, StreamTable
    from recorder._track_kernels import record
    from recorder.identity import MediaIdentity

    window = Window(1, 1)
    flows = FlowTable(1)
    stager, identity = Stager(flows, window), MediaIdentity(flows)
    none, nobody = np.empty(0, np.int64), np.empty(0, np.int32)
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
