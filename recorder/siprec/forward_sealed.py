"""Media that is encrypted, on its way through Python: calls with SDES keys, and legs that encrypt.

In: packets that the kernels left aside. Out: plain packets back to the kernels, and protected ones from the legs'
sockets. Packets of a flow stay in order. Never raises for what comes over the wire.
"""

import socket
from collections.abc import Mapping

import numpy as np

from capture.batch import Bytes, Int64
from capture.layers import read_only
from decoders.srtp_protect import SrtpSender
from recorder.siprec import _forward_sealed_kernels as ready
from recorder.siprec._forward_columns import OUTGOING_COUNT, REFUSED, SEALED_COLUMNS, SEALED_COUNT, Tables
from recorder.siprec._forward_kernels import take_packets
from recorder.siprec._forward_sealed_kernels import note_ready, take_chain, take_outgoing, take_sealed
from recorder.siprec.forward_sources import FlowRow


class SealedMedia:
    """What is taken out of the tables, for a moment each time."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._octets = np.zeros(len(tables.sealed_octets), np.uint8)
        self._sealed = np.zeros((len(tables.sealed), SEALED_COLUMNS), np.int64)
        self._ready = np.zeros((len(tables.outgoing), ready.READY_COLUMNS), np.int64)
        self._buffer = read_only(self._octets)

    def prepare(self) -> None:
        """Have the kernels compiled or loaded."""
        take_sealed(self._tables, self._sealed, self._octets)
        take_outgoing(self._tables, self._ready, self._octets)
        take_chain(self._tables, 0, self._sealed, self._octets)
        take_packets(self._tables, 0, self._buffer, *np.zeros((3, 0), np.int64))
        row = np.zeros(ready.READY_COLUMNS, np.int64)
        note_ready(self._tables, row, False)
        self._tables.legs[0] = 0

    def open_rows(self, flows: Mapping[int, FlowRow]) -> None:
        """Decrypt what is in `sealed`, and have it forwarded."""
        if not self._tables.counts[SEALED_COUNT]:
            return
        count = take_sealed(self._tables, self._sealed, self._octets)
        rows = self._sealed[:count]
        for flow in np.unique(rows[:, 0]).tolist():
            placed = flows.get(flow)
            if placed is not None:
                self._open(flow, placed, rows[rows[:, 0] == flow])

    def open_waiting(self, flow: int, placed: FlowRow) -> None:
        """Decrypt what waits in a flow's chain, and have it forwarded."""
        count = take_chain(self._tables, flow, self._sealed, self._octets)
        self._open(flow, placed, self._sealed[:count])

    def send_protected(self, legs: Mapping[int, tuple[socket.socket, SrtpSender]]) -> None:
        """Encrypt and send what is in `outgoing`; `legs` by their rows."""
        if not self._tables.counts[OUTGOING_COUNT]:
            return
        count = take_outgoing(self._tables, self._ready, self._octets)
        by_leg: dict[int, list[int]] = {}
        for place, number in enumerate(self._ready[:count, ready.READY_LEG].tolist()):
            by_leg.setdefault(number, []).append(place)
        for number, places in by_leg.items():
            found = legs.get(number)
            rows = self._ready[places]
            if found is None:  # it is closed, or encrypts no more
                for row in rows:
                    note_ready(self._tables, row, False)
                continue
            opened, sender = found
            packets = _packets(self._octets, rows[:, ready.READY_AT], rows[:, ready.READY_SIZE])
            for row, octets in zip(rows, sender.protect_many(packets), strict=True):
                self._send(opened, row, octets)

    def _send(self, opened: socket.socket, row: Int64, octets: bytes) -> None:
        for _ in range(2):
            try:
                opened.send(octets)
            except ConnectionRefusedError:
                self._tables.legs[row[ready.READY_LEG], REFUSED] = row[ready.READY_TIME]
                continue
            except OSError:
                break
            note_ready(self._tables, row, True)
            return
        note_ready(self._tables, row, False)

    def _open(self, flow: int, placed: FlowRow, rows: Int64) -> None:
        if placed.srtp is None or not len(rows):
            return
        packets = placed.srtp.unprotect_many(_packets(self._octets, rows[:, 1], rows[:, 2]))
        opened = [(packet, time) for packet, time in zip(packets, rows[:, 3], strict=True) if packet is not None]
        if not opened:
            return
        sizes = np.array([len(packet) for packet, _ in opened], np.int64)
        buffer = np.frombuffer(b"".join(packet for packet, _ in opened), np.uint8)
        times = np.array([time for _, time in opened], np.int64)
        take_packets(self._tables, flow, buffer, np.cumsum(sizes) - sizes, sizes, times)


def _packets(octets: Bytes, begins: Int64, sizes: Int64) -> list[bytes]:
    return [octets[at : at + size].tobytes() for at, size in zip(begins.tolist(), sizes.tolist(), strict=True)]
