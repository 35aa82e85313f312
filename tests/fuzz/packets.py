"""Fuzz targets: what carries packets. Capture files, packed ones, links and tunnels, IP fragments, TCP."""

import gzip
import io
import os
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import zstandard

from capture.batch import KIND_NONE
from capture.damage import MOST_PLACES
from capture.hep import MOST_PAYLOAD, Refusal, parse_hep, refusal_of
from capture.hep_frames import HEADROOM, put_frame
from capture.layers import decode_frame, decode_layers
from capture.octets import RawOctets, unpacker
from capture.reader import CaptureFile, FileReader
from capture.tcpstreams import MAX_HELD_TOTAL
from decoders.demux import RTCP, classify
from recorder.messages import MessageReader, rows_of_interest
from tests.fuzz import seeds
from tests.fuzz.frames import LINK_TYPES, Frame, batch_of, pack, unpack
from tests.fuzz.mutate import mutate_frames
from tests.fuzz.target import Target

SCRATCH = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
MOST_UNPACKED = 8 << 20


def run_capture(data: bytes) -> None:
    """A capture file, mapped and in pieces: packets lie in their buffers and both ways give the same."""
    found = []
    with tempfile.NamedTemporaryFile(dir=SCRATCH) as scratch:
        scratch.write(data)
        scratch.flush()
        for crowded, limit in ((False, 8192), (True, 7)):
            file = CaptureFile(0, "fuzzed")
            reader = FileReader(file, Path(scratch.name), hashed=crowded)
            reader.open(crowded)
            packets, octets = 0, 0
            while (batch := reader.read(limit)) is not None:
                assert 0 < len(batch) <= limit
                ends = batch.offset + batch.captured
                assert (batch.offset >= 0).all()
                assert (ends <= len(batch.buffer)).all()
                assert (batch.captured >= 0).all()
                assert (batch.wire >= batch.captured).all()
                assert (np.diff(batch.number) > 0).all()
                packets += len(batch)
                octets += int(batch.captured.sum())
            assert len(file.damage) <= MOST_PLACES
            assert octets <= len(data)
            found.append((packets, octets, file.packets, file.started, file.ended))
    assert found[0] == found[1], f"mapped {found[0]}, in pieces {found[1]}"


def run_packed(data: bytes) -> None:
    """gzip and zstd: pieces of bounded size until the end or the first damage."""
    with tempfile.TemporaryFile(dir=SCRATCH) as scratch:
        scratch.write(data)
        scratch.flush()
        scratch.seek(0)
        raw = RawOctets(os.dup(scratch.fileno()), None, hashed=True, hold_open=True)
        source = unpacker(raw)
        given = 0
        while given < MOST_UNPACKED and (piece := source.read(65_536)):
            assert len(piece) <= 65_536
            given += len(piece)
        raw.close()


def run_layers(data: bytes) -> None:
    """Frames of every link type: whatever is found lies within its frame."""
    frames = unpack(data)
    if not frames:
        return
    batch = batch_of(frames)
    found = decode_layers(batch)
    used = found.kind != KIND_NONE
    begin, end = found.payload[used], found.payload[used] + found.length[used]
    frame_begin, frame_end = batch.offset[used], batch.offset[used] + batch.captured[used]
    assert (begin >= frame_begin).all()
    assert (end <= frame_end).all()
    assert (found.length[used] >= 0).all()
    assert (found.missing[used] >= 0).all()
    classify(found)


def run_messages(data: bytes) -> None:
    """Frames through fragment and TCP reassembly to SIP messages."""
    reader = MessageReader()
    frames = unpack(data)
    for begin in range(0, len(frames), 16):
        datagrams = decode_layers(batch_of(frames[begin : begin + 16]))
        kinds = classify(datagrams)
        rows = rows_of_interest(datagrams, kinds, RTCP)
        found = reader.find(datagrams, kinds, rows)
        assert sorted(each.row for each in found) == [each.row for each in found]
        for each in found:
            reader.parse(each)
        assert reader.tcp._held <= MAX_HELD_TOTAL
    for _ in reader.finish():
        pass


def run_hep(data: bytes) -> None:
    """A HEP packet: refused, or a frame of no more than its octets in which the layers find its payload."""
    packet = parse_hep(memoryview(data))
    if isinstance(packet, Refusal):
        return
    refusal_of(packet)
    assert 0 < len(packet.payload) <= MOST_PAYLOAD
    room = bytearray(HEADROOM + len(packet.payload))
    size, link_type = put_frame(memoryview(room), 0, packet)
    found = decode_frame(bytes(room[:size]), link_type)
    assert found.kind[0] != KIND_NONE
    assert found.missing[0] == 0


def hep() -> list[bytes]:
    """HEP of every version, with every chunk that is read."""
    from tests.hep_packets import chunk, hep2, hep3

    six = {"source": "2001:db8::1", "destination": "2001:db8::2"}
    more = chunk(17, b"a@b") + chunk(18, b"\0\x64") + chunk(99, b"?") + chunk(15, b"another's", vendor=3)
    return [
        hep3(),
        hep3(**six, key=b"key", more=more),
        hep3(packed=zlib.compress(bytes(40_000))),
        hep3(seeds.rtcp_packets()[0], kind=5),
        hep2(),
        hep2(**six, order=">"),
        hep2(version=1),
    ]


def captures() -> list[bytes]:
    """Small captures: the first 40 packets of pcaps/ as they are, and every form of the formats."""
    from tests import capture_files as made

    few = made.packets(12)
    found = [
        made.pcap(few, order, magic) for order in "<>" for magic in (0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34)
    ]  # fmt: skip
    for order in "<>":
        head = (
            made.section(order) + made.interface(order=order, resolution=9, offset=5) + made.interface(101, order=order)
        )
        found.append(head + b"".join(made.enhanced(packet, k % 2, order) for k, packet in enumerate(few)))
        found.append(
            head
            + made.block(3, struct.pack(f"{order}I", 20) + bytes(20), order)
            + found[-1]
            + made.block(4, bytes(8), order)
        )
    return [*found, *(path.read_bytes()[:6000] for path in sorted(seeds.PCAPS.glob("*.pcap*")))]


def packed() -> list[bytes]:
    """Packed captures, several members and skippable frames among them."""
    plain = captures()[:3]
    zstd = zstandard.ZstdCompressor(write_checksum=True)
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    out = io.BytesIO()
    with gzip.GzipFile("name", "wb", 9, out, mtime=1) as file:
        file.write(plain[0])
    return [
        *(gzip.compress(each, mtime=0) for each in plain),
        out.getvalue() + gzip.compress(plain[1], mtime=0) + bytes(40),
        *(zstd.compress(each) for each in plain),
        skippable + zstd.compress(plain[0]) + zstd.compress(bytes(500_000)),
        gzip.compress(bytes(3_000_000), mtime=0),
    ]


def every_link() -> list[bytes]:
    """Every tunnel and link type that the tests know, one at a time and all together."""
    from tests.capture.frames import every_frame

    frames = [Frame(link if link in LINK_TYPES else 1, 0, 10**6, bytes(frame)) for _, frame, link in every_frame()]
    return [*(pack([frame]) for frame in frames), pack(frames)]


def signalling() -> list[bytes]:
    """The captures of SIP over TCP, WebSocket and in fragments, and what scapy cuts."""
    from tests.capture.frames import other_frames

    found = [pack(seeds.shortened(frames, 0)[:150]) for frames in seeds.captured().values()]
    odd = [Frame(1, 0, 10**6, bytes(frame)) for _, frame, _ in other_frames()]
    return [*found, pack(odd)]


TARGETS = {
    "capture": Target(run_capture, captures, limit=16_384, compiled=True, short=120),
    "packed": Target(run_packed, packed, short=150),
    "hep": Target(run_hep, hep, limit=65_535, short=300),
    "layers": Target(run_layers, every_link, mutate_frames, 32_768, compiled=True, short=200),
    "messages": Target(run_messages, signalling, mutate_frames, 131_072, short=60),
}
