"""The first run's kernels, compiled by two processes at once.

In: nothing. Out: compiled kernels in numba's cache. This process compiles those that strip layers, a child those of the
media, for one interpreter compiles on one processor only. A child that fails costs time and nothing else: what is not
in the cache is compiled when it is called.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np

from capture.batch import KIND_NONE, KIND_UDP, DatagramBatch, PacketBatch

_PATIENCE = 180.0
"""s that the child may take."""
_HEADERS = 42
"""Octets of the Ethernet, IPv4 and UDP headers of a rehearsal's frames."""
_UDP = 17


def compile_kernels() -> None:
    """Have everything that replay needs compiled."""
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", "from recorder.compiling import compile_media; compile_media()"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return  # a sandbox that lets no program start
    with child:
        from capture.layers import decode_frame

        decode_frame(bytes(64), 1)
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()


def compile_media() -> None:
    """Record the rehearsal's calls from datagrams whose layers nobody had to strip, and forget them."""
    from decoders.demux import RTCP, classify
    from recorder.engine import Engine, Prepared
    from recorder.messages import rows_of_interest
    from recorder.rehearsal import script
    from recorder.warmup import choose_kernel_cache

    choose_kernel_cache()
    with TemporaryDirectory(prefix="spanrec-compiling-") as place:
        engine = Engine(lambda _: Path(place), lambda _: None, identify=lambda _: uuid4())
        source = script()
        while not source.ended:
            batch = source.poll(0.0)
            if batch is not None:
                datagrams = _datagrams(batch)
                kinds = classify(datagrams)
                engine.ingest(Prepared(datagrams, kinds, rows_of_interest(datagrams, kinds, RTCP)))
        engine.finish()


def _datagrams(packets: PacketBatch) -> DatagramBatch:
    """What `decode_layers` gives for a rehearsal's frames, without its kernels; what is not UDP is left out."""
    n = len(packets)
    heads = np.stack([packets.buffer[begin : begin + _HEADERS] for begin in packets.offset.tolist()])
    numbers = heads.astype(np.uint64)
    addresses = np.zeros((4, n), np.uint64)
    for row, begin in ((1, 26), (3, 30)):
        addresses[row] = 0xFFFF << 32
        for place in range(4):
            addresses[row] |= numbers[:, begin + place] << np.uint64(8 * (3 - place))
    ports = np.zeros((2, n), np.uint16)
    for row, begin in ((0, 34), (1, 36)):
        ports[row] = numbers[:, begin] << np.uint64(8) | numbers[:, begin + 1]
    return DatagramBatch(
        packets=packets,
        kind=np.where(heads[:, 23] == _UDP, KIND_UDP, KIND_NONE).astype(np.uint8),
        payload=packets.offset + _HEADERS,
        length=packets.captured - _HEADERS,
        missing=np.zeros(n, np.int32),
        source_high=addresses[0],
        source_low=addresses[1],
        destination_high=addresses[2],
        destination_low=addresses[3],
        source_port=ports[0],
        destination_port=ports[1],
        realm=np.zeros(n, np.uint32),
        ip_id=np.zeros(n, np.uint16),
    )
