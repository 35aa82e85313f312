"""Media that is encrypted, on its way through Python: calls with SDES keys, and legs that encrypt.

In: rows that the kernels left aside. Out: plain packets back to the kernels, and protected ones from the legs' sockets.
Packets of a flow stay in order. Never raises for what comes over the wire.
"""

import socket
import struct
from collections.abc import Mapping

import numpy as np

from capture.batch import DatagramBatch
from decoders.srtp_protect import SrtpSender
from recorder.siprec import _forward_columns as columns
from recorder.siprec._forward_columns import Tables
from recorder.siprec._forward_kernels import empty_chain, take_packets
from recorder.siprec._history_kernels import head_of, row_of
from recorder.siprec._leg_kernels import note_sent
from recorder.siprec.forward_sources import FlowRow


def open_rows(tables: Tables, flows: Mapping[int, FlowRow], datagrams: DatagramBatch) -> None:
    """Decrypt the rows of a batch that are in `sealed`, and have them forwarded."""
    count = int(tables.counts[columns.SEALED_COUNT])
    tables.counts[columns.SEALED_COUNT] = 0
    by_flow: dict[int, list[int]] = {}
    for row, flow in tables.sealed[:count].tolist():
        by_flow.setdefault(flow, []).append(row)
    buffer = datagrams.packets.buffer
    for flow, rows in by_flow.items():
        begins, sizes = datagrams.payload[rows].tolist(), datagrams.length[rows].tolist()
        packets = [buffer[begin : begin + size].tobytes() for begin, size in zip(begins, sizes, strict=True)]
        _take(tables, flow, flows[flow], packets, datagrams.packets.time[rows].tolist())


def open_waiting(tables: Tables, flow: int, placed: FlowRow) -> None:
    """Decrypt what waits in a flow's chain, and have it forwarded."""
    packets, times = [], []
    entry = int(head_of(tables, flow))
    while entry >= 0:
        row = tables.entries[row_of(tables, entry)]
        begin = int(row[columns.AT])
        packets.append(tables.arena[begin : begin + int(row[columns.SIZE])].tobytes())
        times.append(int(row[columns.TIME]))
        entry = int(row[columns.NEXT_ENTRY])
    empty_chain(tables, flow)
    _take(tables, flow, placed, packets, times)


def send_protected(tables: Tables, legs: Mapping[int, tuple[socket.socket, SrtpSender]]) -> None:
    """Encrypt and send what is in `outgoing`; `legs` by their rows."""
    count = int(tables.counts[columns.OUTGOING_COUNT])
    tables.counts[columns.OUTGOING_COUNT] = 0
    by_leg: dict[int, list[list[int]]] = {}
    for row in tables.outgoing[:count].tolist():
        by_leg.setdefault(row[0], []).append(row)
    oldest = int(tables.counts[columns.OLDEST])
    for number, rows in by_leg.items():
        leg = tables.legs[number]
        found = legs.get(number)
        kept = [row for row in rows if row[1] >= oldest] if found is not None else []
        leg[columns.UNSENT] += len(rows) - len(kept)
        if found is None or not kept:
            continue
        opened, sender = found
        ssrc = int(leg[columns.SSRC])
        plain = [_plain(tables, row, ssrc) for row in kept]
        for row, octets in zip(kept, sender.protect_many(plain), strict=True):
            _send(tables, number, opened, row, octets)


def _plain(tables: Tables, row: list[int], ssrc: int) -> bytes:
    _, entry, sequence, stamp, kind = row
    kept = tables.entries[row_of(tables, entry)]
    begin = int(kept[columns.AT])
    payload = tables.arena[begin : begin + int(kept[columns.SIZE])].tobytes()
    return struct.pack("!BBHII", 0x80, kind, sequence, stamp, ssrc) + payload


def _send(tables: Tables, number: int, opened: socket.socket, row: list[int], octets: bytes) -> None:
    leg = tables.legs[number]
    kept = tables.entries[row_of(tables, row[1])]
    for _ in range(2):
        try:
            opened.send(octets)
        except ConnectionRefusedError:
            leg[columns.REFUSED] = kept[columns.TIME]
            continue
        except OSError:
            break
        rate = tables.rates[leg[columns.LEG_SOURCE], kept[columns.FORMAT]]
        note_sent(leg, row[2], row[3], int(rate), int(kept[columns.TIME]), int(kept[columns.SIZE]))
        return
    leg[columns.UNSENT] += 1


def _take(tables: Tables, flow: int, placed: FlowRow, packets: list[bytes], times: list[int]) -> None:
    if placed.srtp is None or not packets:
        return
    opened = [
        (packet, time)
        for packet, time in zip(placed.srtp.unprotect_many(packets), times, strict=True)
        if packet is not None
    ]
    if not opened:
        return
    sizes = np.array([len(packet) for packet, _ in opened], np.int64)
    buffer = np.frombuffer(b"".join(packet for packet, _ in opened), np.uint8)
    take_packets(tables, flow, buffer, np.cumsum(sizes) - sizes, sizes, np.array([time for _, time in opened]))
