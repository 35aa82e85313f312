"""Fuzz targets: what media packets hold. RTCP, DTMF, RED, payload formats, decoders, SRTP, and the RTP columns."""

import struct
from itertools import pairwise

import numpy as np

from capture.batch import DatagramBatch
from capture.layers import decode_layers
from decoders import _stream_columns as cols
from decoders.codecs.registry import make_decoder
from decoders.comfortnoise import ComfortNoise
from decoders.demux import classify
from decoders.dtmf import EventPacket, TelephoneEvents
from decoders.payload import opus_samples
from decoders.red import unpack_red
from decoders.rtcp import MAX_PACKETS, RttEstimator, parse_rtcp
from decoders.rtp import STOP_END, STOP_FULL, FlowTable, Stager, Window
from decoders.sdp import STATIC_FORMATS
from decoders.sdp_values import CryptoKey, PayloadFormat
from decoders.srtp import SrtpStream
from decoders.timeline import TICKS, Entries, EntrySpace, FormatTable, Placer, StreamTable
from tests.fuzz import seeds
from tests.fuzz.frames import START, Frame, batch_of, pack, unpack
from tests.fuzz.mutate import mutate_frames
from tests.fuzz.target import Target

FORMATS = [
    PayloadFormat(96, name, rate, channels, fmtp)
    for name, rate, channels, fmtp in (
        ("PCMU", 8000, 1, ""), ("PCMA", 8000, 2, ""), ("L16", 44100, 2, ""), ("L8", 8000, 1, ""),
        ("DVI4", 8000, 1, ""),
        ("G722", 8000, 1, ""), ("G729", 8000, 1, ""), ("G723", 8000, 1, ""), ("GSM", 8000, 1, ""),
        ("iLBC", 8000, 1, ""),
        ("iLBC", 8000, 1, "mode=20"), ("speex", 8000, 1, ""), ("speex", 16000, 1, ""), ("AMR", 8000, 1, ""),
        ("AMR", 8000, 1, "octet-align=1"), ("AMR", 8000, 1, "octet-align=1;crc=1"), ("AMR-WB", 16000, 1, ""),
        ("AMR-WB", 16000, 1, "octet-align=1"), ("opus", 48000, 2, ""), ("G726-16", 8000, 1, ""),
        ("G726-32", 8000, 1, ""), ("AAL2-G726-40", 8000, 1, ""), ("VDVI", 8000, 1, ""),
    )
]  # fmt: skip
SUITES = ("AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32", "AES_256_CM_HMAC_SHA1_80", "AEAD_AES_128_GCM")


def run_rtcp(data: bytes) -> None:
    """Compound packets, 200 octets each, of one conversation."""
    estimator = RttEstimator()
    for k, begin in enumerate(range(0, len(data), 200)):
        compound = parse_rtcp(data[begin : begin + 200])
        reports = compound.sender_reports
        assert len(reports) + len(compound.receiver_reports) <= MAX_PACKETS
        for report in reports:
            assert report.unix_ns is None or report.unix_ns > -(1 << 62)
        for trip in estimator.feed(START + k * 10**9, compound):
            repr(trip)
    parse_rtcp(data)


def run_dtmf(data: bytes) -> None:
    """Telephone events: 13 octets each are a packet with its times."""
    events = TelephoneEvents()
    packets = [
        EventPacket(START + step * 10**6, stamp, payload, marker > 127, (8000, 16000, 48000, 0)[marker % 4] or 8000)
        for step, stamp, marker, payload in struct.iter_unpack("<IIB4s", data[: len(data) // 13 * 13])
    ]
    events.feed(packets)
    events.feed([packet._replace(payload=packet.payload[:2]) for packet in packets[:10]])
    assert len(events.digits()) <= 16 * len(packets)


def run_payload(data: bytes) -> None:
    """Packets of 1 to 255 octets through RED and every decoder; what comes out is bounded by what went in."""
    payloads, at = [], 0
    while at < len(data) and len(payloads) < 8:
        payloads.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    for payload in payloads:
        red = unpack_red(payload)
        assert red is None or sum(len(block.data) for block in red.redundant) + len(red.primary[1]) <= len(payload)
        assert 0 <= opus_samples(payload) <= 5760
        ComfortNoise(8000).generate(payload, 80)
    chosen = FORMATS if len(data) % 16 == 0 else [FORMATS[len(data) % len(FORMATS)]]
    for fmt in chosen:
        decoder = make_decoder(fmt)
        if decoder is None:
            continue
        decoded = decoder.decode(payloads)
        assert len(decoded) == len(payloads)
        assert all(each.dtype == np.int16 and each.ndim == 1 for each in decoded)
        assert all(len(each) <= 2 * 192_000 for each in decoded)
        decoder.reset()


def run_srtp(data: bytes) -> None:
    """Packets under keys that cannot fit: none may open, none may raise."""
    for number, suite in enumerate(SUITES):
        mki = (1, 4) if len(data) % 3 == 0 else (None, 0)
        size = {0: 30, 1: 30, 2: 46, 3: 28}[number]
        stream = SrtpStream([CryptoKey(1, suite, bytes(range(size)), *mki)])
        packets = [data[begin : begin + 180] for begin in range(0, len(data), 180)]
        opened = stream.unprotect_many(packets)
        assert len(opened) == len(packets)
        for packet in packets[:4]:
            stream.unprotect_rtcp(packet)


class _Receiver:
    """The receive path from staging to samples, with tables so small that they fill up."""

    def __init__(self) -> None:
        self.flows = FlowTable(capacity=16)
        self.window = Window.empty(packets=96, octets=20_000)
        self.stager = Stager(self.flows, self.window)
        self.formats = FormatTable()
        table = dict(STATIC_FORMATS) | {
            101: PayloadFormat(101, "telephone-event", 8000),
            111: PayloadFormat(111, "opus", 48000),
        }
        self.plain = self.formats.row(table, "audio", slow=False)
        self.table = StreamTable(capacity=4)
        self.rows: dict[int, int] = {}
        self.placer = Placer()
        self.space = EntrySpace()

    def take(self, datagrams: DatagramBatch, step: int) -> None:
        """All rows of a batch, a window every `step` ns."""
        kinds = classify(datagrams)
        times = datagrams.packets.time
        row, until, stuck = 0, int(times[0]) + step, 0
        while row < len(datagrams):
            reached, reason = self.stager.stage(datagrams, kinds, row, until)
            assert row <= reached <= len(datagrams)
            if reason == STOP_END:
                assert reached == len(datagrams)
                break
            stuck = stuck + 1 if reached == row else 0
            assert stuck < 3, "a window that never has room"
            row = reached
            now = int(times[min(row, len(times) - 1)])
            self.close(now, 0 if reason == STOP_FULL or stuck else step // 4)
            until = max(until, now) + step
        self.close(int(times[-1]), 0)

    def close(self, now: int, hold: int) -> None:
        """Receive what is staged, place its G.711, carry on what is not settled."""
        stager, window = self.stager, self.window
        flows = stager.group()
        fresh = [flow for flow in flows.tolist() if flow not in self.rows]
        for flow in fresh:
            first = min(self.rows.values(), default=-1)
            self.rows[flow] = self.table.allocate(self.plain, primary=first if flow % 5 == 4 else -1)
        begins = stager.starts[flows]
        counts = stager.starts[flows + 1] - begins
        streams = np.array([self.rows[flow] for flow in flows.tolist()], np.int32)
        entries = self.space.lay_out(streams, begins, counts, stager.order, window)
        keep = np.zeros(window.count, np.bool_)
        if len(streams):
            entries.receive(self.table, self.formats, window, START, now, hold, 0, len(streams))
            assert ((entries.taken >= 0) & (entries.taken <= counts)).all()
            assert hold or (entries.taken == counts).all(), "a window that must settle all did not"
            self.place(entries)
            for x, (begin, end) in enumerate(pairwise(entries.bounds.tolist())):
                keep[entries.order[begin + int(entries.taken[x]) : end]] = True
        kept = set(window.flow[: window.count][keep].tolist())
        stager.carry(keep)
        idle = [flow for flow in self.rows if flow not in kept][:4] if stager.flows_in_use > 12 else []
        for flow in idle:
            self.table.release(self.rows.pop(flow))
        stager.remove(np.array(sorted(idle), np.int32))

    def place(self, entries: Entries) -> None:
        """Decode each stream's G.711 into a job of its own, 10 s at most."""
        state, step = self.table.state, TICKS // 8000
        jobs = []
        for x, row in enumerate(entries.streams.tolist()):
            low, high = int(state[row, cols.LOW_TICKS]), int(state[row, cols.HIGH_TICKS])
            if low < high and entries.taken[x]:
                frames = min((high - low) // step + 1, 80_000)
                jobs.append([x, x + 1, high // step - frames, frames, frames // 3, 0, 0, step])
        if jobs:
            columns = np.array(jobs, np.int64)
            self.placer.reserve(columns)
            self.placer.place(columns, np.arange(len(entries.streams), dtype=np.int32) % 2, entries, self.window)


def run_rtp(data: bytes) -> None:
    """Frames through the layer, demux, staging, receive and place columns."""
    frames = unpack(data)
    if not frames:
        return
    receiver = _Receiver()
    pace = (200_000_000, 2_000_000_000, 20_000_000)[len(data) % 3]
    for begin in range(0, len(frames), 64):
        receiver.take(decode_layers(batch_of(frames[begin : begin + 64])), pace)


def media_frames() -> list[bytes]:
    """Pieces of every capture of pcaps/, and a flood of streams."""
    found = []
    for frames in seeds.captured().values():
        media = [frame for frame in frames if len(frame.data) > 50]
        found += [pack(media[begin : begin + 60]) for begin in (5, len(media) // 2, len(media) - 60)]
    head = struct.pack("!BBHHHBBH4s4sHHHH", 0x45, 0, 60, 0, 0, 64, 17, 0, b"\1\2\3\4", b"\5\6\7\x08", 4000, 5000, 40, 0)
    rtp = [struct.pack("!BBHII", 128, k % 4, k, k * 160, k) + bytes(20) for k in range(60)]
    flood = [Frame(101, 0, 10**7, head + packet) for packet in rtp]
    return [*found, pack(flood)]


def event_packets() -> list[bytes]:
    """A press, in the form that `run_dtmf` takes."""
    return [
        b"".join(
            struct.pack("<IIB4s", 20 * k, 1000, 128 * (k == 0), bytes((5, 10 | 128 * (k > 8), 0, 160)))
            for k in range(12)
        )
    ]


def payload_groups() -> list[bytes]:
    """A few payloads, each behind its length."""
    samples = [payload[:255] for payload in seeds.rtp_payloads()]
    packed = [bytes([len(payload)]) + payload for payload in samples]
    return [b"".join(packed[begin : begin + 3]) for begin in range(0, len(packed), 3)]


TARGETS = {
    "rtcp": Target(run_rtcp, seeds.rtcp_packets, short=300),
    "dtmf": Target(run_dtmf, event_packets),
    "payload": Target(run_payload, payload_groups, limit=2048, short=60),
    "srtp": Target(run_srtp, lambda: [b"".join(seeds.payloads(3)[:5]) or bytes(900)], limit=4096, short=60),
    "rtp": Target(run_rtp, media_frames, mutate_frames, 65_536, compiled=True, short=60),
}
