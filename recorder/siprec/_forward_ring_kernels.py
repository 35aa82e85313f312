"""The forwarder's loop over the rings of interfaces, from a frame in a ring to datagrams sent, without Python.

In: the rings of a `RingSource`, the forwarder's tables, scratch. Out: what `_forward_kernels` says. It runs until
`counts[STOP]` is set, so a thread that runs Python changes the tables under their lock meanwhile. Blocks go back to the
Linux kernel as soon as all their packets are sent or kept.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from capture._layer_kernels import decode
from capture._ring_kernels import ROWS, count_off, give_back, walk_rings
from capture.batch import Bytes, Int32, Int64, UInt8, UInt16, UInt32, UInt64
from capture.rings import RingView
from recorder.siprec._forward_columns import FLOW_COLUMNS, STOP, Tables
from recorder.siprec._forward_kernels import forward_rows
from recorder.siprec._ring_wait import wait_readable

_WAIT = 20
"""ms without packets after which it looks whether it is to end."""


class Scratch(NamedTuple):
    """Columns of a `DatagramBatch`, and the row of a flow."""

    kind: UInt8
    payload: Int64
    length: Int32
    missing: Int32
    addresses: UInt64
    ports: UInt16
    realm: UInt32
    ip_id: UInt16
    wanted: Int64


def make_scratch(rows: int) -> Scratch:
    """Room for so many frames."""
    return Scratch(
        np.zeros(rows, np.uint8),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int32),
        np.zeros(rows, np.int32),
        np.zeros((4, rows), np.uint64),
        np.zeros((2, rows), np.uint16),
        np.zeros(rows, np.uint32),
        np.zeros(rows, np.uint16),
        np.zeros(FLOW_COLUMNS, np.int64),
    )


@njit(cache=True, nogil=True)
def forward_rings(tables: Tables, rings: RingView, frames: Bytes, polls: Int64, scratch: Scratch) -> None:
    """Forward what comes until it is told to stop. `frames` is `rings.octets`, not to be written."""
    while tables.counts[STOP] == 0:
        walk_rings(
            rings.octets, rings.halves, rings.words, rings.table, rings.time, rings.offset, rings.captured, rings.wire,
            rings.link_type, rings.block, rings.remaining, rings.result,
        )  # fmt: skip
        count = rings.result[ROWS]
        if count > 0:
            _forward_frames(tables, rings, frames, scratch, count)
            count_off(rings.block[:count], rings.remaining)
        give_back(rings.words, rings.table, rings.remaining)
        if count == 0:
            wait_readable(polls, _WAIT)


@njit(cache=True, nogil=True)
def _forward_frames(tables: Tables, rings: RingView, frames: Bytes, scratch: Scratch, count: int) -> None:
    """Decode and forward the frames that were walked."""
    scratch.addresses[:, :count] = 0
    scratch.ports[:, :count] = 0
    scratch.ip_id[:count] = 0
    decode(
        frames, rings.offset[:count], rings.captured, rings.wire, rings.link_type, 0, scratch.kind, scratch.payload,
        scratch.length, scratch.missing, scratch.addresses, scratch.ports, scratch.realm, scratch.ip_id,
    )  # fmt: skip
    forward_rows(
        tables, scratch.wanted, frames, scratch.kind[:count], scratch.payload, scratch.length, scratch.missing,
        scratch.addresses[0], scratch.addresses[1], scratch.addresses[2], scratch.addresses[3],
        scratch.ports[0], scratch.ports[1], scratch.realm, rings.time,
    )  # fmt: skip
    rings.tally[0] += count
    for row in range(count):
        rings.tally[1] += rings.wire[row]
