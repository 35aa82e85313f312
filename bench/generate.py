"""Make captures of many G.711 calls: `python bench/generate.py OUT.pcap --calls 500 --seconds 60`.

In: numbers of calls or messages. Out: a classic pcap (Ethernet, IPv4, UDP) in time order, the same octets for the same
arguments; all lengths and checksums are right. It is written slice by slice, so that its size never shows in memory.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.calls import BANK, FRAME, bank, bank_offset, expected_samples, leg, plan
from bench.signalling import (
    EPOCH_NS,
    MEDIA_NS,
    PAYLOAD_TYPES,
    Int64,
    Signalling,
    call_starts,
    record,
    signalling,
    sip_only,
)
from pcaps.make.sources import Octets

__all__ = ["expected_samples", "main", "plan", "write_capture"]

SLICE_NS = 200_000_000
"""Capture time that is made and written at a time."""
PACKET_NS = 20_000_000
JITTER_NS = 6_000_000
"""Arrival is late by up to this much; less than a packet's time, so that each stream stays in order."""
HEADERS = 70
"""pcap record 16, Ethernet 14, IPv4 20, UDP 8, RTP 12."""


@dataclass(slots=True)
class Streams:
    """Both streams of each call as columns of shape (2 * calls,): caller, callee, caller, ..."""

    start: Int64
    sequence: Int64
    timestamp: Int64
    offset: Int64
    template: NDArray[np.uint8]
    """Shape (2 * calls, HEADERS)."""
    sums: Int64
    """Of each UDP pseudo header and of the constant header words, native order, not yet folded."""
    packets: int
    octets: Octets


def streams(starts: Int64, packets: int, codec: str) -> Streams:
    legs = [leg(number, side) for number in range(len(starts)) for side in (0, 1)]
    template = np.zeros((len(legs), HEADERS), np.uint8)
    for index, sender in enumerate(legs):
        receiver = legs[index ^ 1]
        rtp = bytes([0x80, PAYLOAD_TYPES[codec], 0, 0, 0, 0, 0, 0]) + sender.ssrc.to_bytes(4, "big")
        whole = record(0, (sender.address, sender.port), (receiver.address, receiver.port), rtp + bytes(FRAME))
        template[index] = np.frombuffer(whole[:HEADERS], np.uint8)
    template[:, 40:42] = 0  # the IP checksum, made again with each packet's identification
    template[:, 56:58] = 0  # the UDP checksum
    words = (
        np.ascontiguousarray(template[:, 42:58]).view("<u2").astype(np.int64).sum(axis=1)
    )  # addresses, ports, length
    words += np.ascontiguousarray(template[:, 54:56]).view("<u2")[:, 0]  # the length again, in the pseudo header
    words += 17 << 8  # the protocol
    calls = range(len(starts))
    return Streams(
        start=(starts[:, None] + MEDIA_NS + np.array([0, 7_300_000])).ravel(),
        sequence=np.array([sender.sequence for sender in legs], np.int64),
        timestamp=np.array([sender.timestamp for sender in legs], np.int64),
        offset=np.array([bank_offset(number, side) for number in calls for side in (0, 1)], np.int64),
        template=template, sums=words, packets=packets, octets=bank(codec),
    )  # fmt: skip


def arrivals(media: Streams, stream: Int64, index: Int64) -> Int64:
    """When the `index`-th packet of a stream reaches the wire: on its 20 ms, late by a jitter of two hashes' sum."""
    key = (stream.astype(np.uint64) << np.uint64(32) | index.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    key ^= key >> np.uint64(29)
    key *= np.uint64(0xBF58476D1CE4E5B9)
    half = np.uint64(JITTER_NS // 2)
    late = (key >> np.uint64(33)) % half + (key & np.uint64(0xFFFFFFFF)) % half
    return media.start[stream] + index * PACKET_NS + late.astype(np.int64)


def folded(total: Int64) -> NDArray[np.uint16]:
    """Ones' complement of sums of 16-bit words."""
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return (0xFFFF - total).astype("<u2")


def rtp_rows(media: Streams, start: int, end: int) -> tuple[Int64, NDArray[np.uint8]]:
    """(arrival times, pcap records of shape (n, HEADERS + FRAME)) of the packets that arrive in [start, end)."""
    first = np.maximum((start - JITTER_NS - media.start) // PACKET_NS, 0)
    last = np.minimum((end - media.start) // PACKET_NS, media.packets - 1)
    counts = np.maximum(last - first + 1, 0)
    stream = np.repeat(np.arange(len(counts)), counts)
    index = np.arange(len(stream)) - np.repeat(np.cumsum(counts) - counts, counts) + first[stream]
    when = arrivals(media, stream, index)
    order = np.argsort(when, kind="stable")
    order = order[(when[order] >= start) & (when[order] < end)]
    stream, index, when = stream[order], index[order], when[order]

    rows = np.empty((len(order), HEADERS + FRAME), np.uint8)
    rows[:, :HEADERS] = media.template[stream]
    seconds, rest = np.divmod(EPOCH_NS + when, 10**9)
    ident = (index + stream * 7919) & 0xFFFF

    def put(column: int, dtype: str, values: Int64) -> None:
        width = int(dtype[-1])
        rows[:, column : column + width] = values.astype(dtype).view(np.uint8).reshape(-1, width)

    put(0, "<u4", seconds)
    put(4, "<u4", rest // 1000)
    put(34, ">u2", ident)
    rows[:, 59] |= np.where(index == 0, 0x80, 0).astype(np.uint8)
    put(60, ">u2", (media.sequence[stream] + index) & 0xFFFF)
    put(62, ">u4", (media.timestamp[stream] + index * FRAME) & 0xFFFFFFFF)
    windows = sliding_window_view(media.octets, FRAME)
    rows[:, HEADERS:] = windows[(media.offset[stream] + index * FRAME) % BANK]
    put(40, "<u2", folded(rows[:, 30:50].view("<u2").sum(axis=1, dtype=np.int64)))
    udp = folded(media.sums[stream] + rows[:, 58:].view("<u2").sum(axis=1, dtype=np.int64))
    put(56, "<u2", np.where(udp == 0, 0xFFFF, udp))
    return when, rows


def write_capture(out: BinaryIO, sip: Signalling, media: Streams | None) -> int:
    """Write a whole capture, a slice of it at a time. Returns the number of packets."""
    out.write(b"".join(value.to_bytes(4, "little") for value in (0xA1B2C3D4, 0x00040002, 0, 0, 65535, 1)))
    packets = 0
    for start in range(0, int(sip.time[-1]) + 1, SLICE_NS):
        messages = list(sip.between(start, start + SLICE_NS))
        packets += len(messages)
        if media is None:
            out.write(b"".join(octets for _, octets in messages))
            continue
        when, rows = rtp_rows(media, start, start + SLICE_NS)
        packets += len(rows)
        cuts = np.searchsorted(when, [sent for sent, _ in messages])
        done = 0
        for cut, (_, octets) in zip(cuts, messages, strict=True):
            out.write(rows[done:cut].data)
            out.write(octets)
            done = cut
        out.write(rows[done:].data)
    return packets


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make a capture of many G.711 calls.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--calls", type=int, default=500, help="calls, all begun within the first 3 s")
    parser.add_argument("--seconds", type=float, help="media of each call (60; 0.4 with --short, 4 with --concurrent)")
    parser.add_argument("--over", type=float, metavar="S", help="seconds in which all calls of --short begin")
    parser.add_argument("--codec", choices=["pcmu", "pcma"], default="pcmu")
    parser.add_argument("--known", type=Path, metavar="JSON", help="also write what each call holds")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--short", type=int, metavar="N", help="N short calls instead, 200 a second (--over)")
    group.add_argument("--concurrent", type=int, metavar="N", help="N calls at once instead, begun within 2 s")
    group.add_argument("--sip-only", type=int, metavar="N", help="about N SIP messages instead, no media")
    parser.add_argument("--call-share", type=float, default=0.3, help="of the messages of --sip-only (0.3)")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    began = time.perf_counter()
    codec = options.codec.upper()
    calls = options.short or options.concurrent or options.calls
    default = 0.4 if options.short else 4.0 if options.concurrent else 60.0
    seconds = options.seconds or default
    per_call = round(seconds * 50)
    media = None
    if options.sip_only:
        sip = sip_only(options.sip_only, options.call_share, 20_000)
        calls, per_call = int((sip.step == 0).sum()), 0
    else:
        over = options.over or (calls / 200 if options.short else 2 if options.concurrent else 3)
        gap = round(over * 1e9) // calls
        starts = call_starts(calls, gap)
        sip = signalling(starts, per_call * PACKET_NS, per_call, codec)
        media = streams(starts, per_call, codec)
    with options.out.open("wb") as out:
        packets = write_capture(out, sip, media)
        size = out.tell()
    if options.known:
        plans = [asdict(plan(number, per_call, codec)) for number in range(calls)]
        options.known.write_text(json.dumps(plans, indent=1) + "\n")
    took = time.perf_counter() - began
    print(f"{options.out.name}: {calls} calls, {packets} packets, {size / 1e6:.1f} MB in {took:.1f} s")


if __name__ == "__main__":
    main()
