"""Captures of calls, made packet by packet: SIP and RTP over UDP in Ethernet frames, at times of our choosing.

In: samples, addresses and seconds after `START`. Out: nanosecond pcap files, recordings made of them by `replay`, and
the channels that must be heard. What is heard is computed from the packets alone, with the encoders and tables of
`pcaps.make.sources`, never with spanrec's own.
"""

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import soundfile

from pcaps.make.sources import decode, encode, speech_like
from recorder.replay import replay
from recorder.replay_types import ReplayOptions

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
"""Capture time of second 0."""
ALICE, BOB, RELAY = "192.0.2.10", "192.0.2.20", "192.0.2.30"
ALICE_RTP, BOB_RTP = (ALICE, 4000), (BOB, 6000)
PAYLOAD_TYPES = {"PCMU": 0, "PCMA": 8, "G722": 9}
CODECS = {number: name for name, number in PAYLOAD_TYPES.items()}
AUDIO = ("0 PCMU/8000", "8 PCMA/8000", "9 G722/8000", "101 telephone-event/8000", "13 CN/8000")

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Rtp:
    """One RTP packet on the wire, `at` seconds after START."""

    at: float
    source: Address
    destination: Address
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    payload_type: int = 0
    marker: bool = False

    def octets(self) -> bytes:
        """As sent."""
        kind = self.payload_type | 128 * self.marker
        head = struct.pack("!BBHII", 128, kind, self.sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, self.ssrc)
        return head + self.payload


def talk(
    samples: "np.ndarray[tuple[int], np.dtype[np.int16]]",
    source: Address = ALICE_RTP,
    destination: Address = BOB_RTP,
    *,
    at: float = 1.0,
    codec: str = "PCMU",
    ms: int = 20,
    ssrc: int = 0xA11CE,
    sequence: int = 1000,
    timestamp: int = 160_000,
    skew: float = 0.0,
) -> list[Rtp]:
    """Samples sent in step, a packet every `ms`; `skew` is how much faster (1e-6: 1 ppm) the speaker's clock runs."""
    octets = encode(codec, samples)
    size = 8 * ms
    return [
        Rtp(
            at + k * ms / 1000 / (1 + skew),
            source,
            destination,
            sequence + k,
            timestamp + size * k,
            ssrc,
            octets[size * k : size * (k + 1)].tobytes(),
            PAYLOAD_TYPES[codec],
        )
        for k in range(len(octets) // size)
    ]


def both(seconds: float, seed: int = 1, at: float = 1.0, **changes: object) -> tuple[list[Rtp], list[Rtp]]:
    """Alice and Bob talking at the same time, Bob 12.5 ms behind."""
    alice = talk(speech_like(seed, seconds), at=at, **changes)
    bob = talk(speech_like(seed + 1, seconds), BOB_RTP, ALICE_RTP, at=at + 0.0125, ssrc=0xB0B, sequence=30_000)
    return alice, bob


def later(packets: Iterable[Rtp], seconds: float) -> list[Rtp]:
    """The same packets, arriving later."""
    return [replace(packet, at=packet.at + seconds) for packet in packets]


def through(packets: Iterable[Rtp], source: Address, destination: Address, **changes: object) -> list[Rtp]:
    """The same packets on another leg."""
    return [replace(packet, source=source, destination=destination, **changes) for packet in packets]


def sdp(address: Address, formats: Sequence[str] = AUDIO, *lines: str, profile: str = "RTP/AVP") -> str:
    """A session description with one audio description; `lines` are added to it."""
    host, port = address
    kinds = " ".join(each.split()[0] for each in formats)
    family = f"IP{ip_address(host).version}"
    head = ["v=0", f"o=- 1 1 IN {family} {host}", "s=-", f"c=IN {family} {host}", "t=0 0"]
    media = [f"m=audio {port} {profile} {kinds}", *(f"a=rtpmap:{each}" for each in formats)]
    return "".join(f"{line}\r\n" for line in [*head, *media, *(f"a={line}" for line in lines)])


@dataclass
class Capture:
    """Frames and their times."""

    frames: list[tuple[int, bytes]] = field(default_factory=list)

    def datagram(self, at: float, source: Address, destination: Address, payload: bytes) -> None:
        """One UDP datagram over IPv4."""
        udp = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0) + payload
        ends = ip_address(source[0]).packed + ip_address(destination[0]).packed
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0x4000, 64, 17, 0) + ends
        ip = ip[:10] + _checksum(ip).to_bytes(2, "big") + ip[12:]
        self.frames.append((START + round(at * 1e9), b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + ip + udp))

    def rtp(self, *streams: Iterable[Rtp]) -> "Capture":
        """Add media."""
        for packets in streams:
            for packet in packets:
                self.datagram(packet.at, packet.source, packet.destination, packet.octets())
        return self

    def call(self, *, end: float | None = 30.0, answer: float = 0.5, **changes: object) -> "SipCall":
        """Signal a call from Alice to Bob that is answered at `answer` and hung up at `end` (None: never)."""
        call = SipCall(self, **changes)  # type: ignore[arg-type]
        call.request(0.1, "INVITE", sdp(call.caller_media))
        call.response(0.2, 180, "Ringing")
        call.response(answer, 200, "OK", sdp(call.callee_media))
        call.request(answer + 0.01, "ACK")
        if end is not None:
            call.hang_up(end)
        return call

    def write(self, path: Path, snap: int = 65535) -> Path:
        """Write the frames in order of time as a nanosecond pcap."""
        with path.open("wb") as out:
            out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, snap, 1))
            for time, frame in sorted(self.frames, key=lambda each: each[0]):
                kept = frame[:snap]
                out.write(struct.pack("<IIII", time // SECOND, time % SECOND, len(kept), len(frame)) + kept)
        return path


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


@dataclass
class SipCall:
    """One dialog at one hop, request by request."""

    capture: Capture
    call_id: str = "call-1"
    caller: str = ALICE
    callee: str = BOB
    caller_media: Address = ALICE_RTP
    callee_media: Address = BOB_RTP
    cseq: int = 1

    def request(self, at: float, method: str, body: str = "", *, by_callee: bool = False) -> None:
        """A request within the call, by the caller unless told otherwise. A re-INVITE takes the next CSeq."""
        ends = (self.callee, self.caller) if by_callee else (self.caller, self.callee)
        if method in ("BYE", "UPDATE") or (method == "INVITE" and at > 0.1):
            self.cseq += 1
        tagged = not (method == "INVITE" and self.cseq == 1)
        here, there = ("<sip:bob@example.org>;tag=b", "<sip:alice@example.org>;tag=a")
        if not by_callee:
            here, there = there, here if tagged else "<sip:bob@example.org>"
        self._send(at, ends, f"{method} sip:{ends[1]} SIP/2.0", here, there, method, body, ends[0])

    def response(
        self, at: float, status: int, reason: str, body: str = "", method: str = "INVITE", *, by_caller: bool = False
    ) -> None:
        """A response to the last request, by the callee unless told otherwise."""
        ends = (self.caller, self.callee) if by_caller else (self.callee, self.caller)
        names = "<sip:alice@example.org>;tag=a", "<sip:bob@example.org>;tag=b"
        here, there = names[::-1] if by_caller else names
        self._send(at, ends, f"SIP/2.0 {status} {reason}", here, there, method, body, ends[1])

    def hang_up(self, at: float) -> None:
        """BYE by the caller, and its 200."""
        self.request(at, "BYE")
        self.response(at + 0.01, 200, "OK", method="BYE")

    def _send(
        self, at: float, ends: tuple[str, str], first: str, here: str, there: str, method: str, body: str, via: str
    ) -> None:
        lines = [
            first,
            f"Via: SIP/2.0/UDP {via}:5060;branch=z9hG4bK{self.cseq}{method}",
            f"From: {here}",
            f"To: {there}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {self.cseq} {method}",
            f"Contact: <sip:{ends[0]}>",
        ]
        if body:
            lines.append("Content-Type: application/sdp")
        lines += [f"Content-Length: {len(body)}", "", body]
        self.capture.datagram(at, (ends[0], 5060), (ends[1], 5060), "\r\n".join(lines).encode())


@dataclass
class Recording:
    """One recording as it stands on disk."""

    directory: Path
    document: dict
    audio: "np.ndarray[tuple[int, int], np.dtype[np.int16]] | None"
    rate: int = 0

    @property
    def started(self) -> float:
        """When sample 0 reached the wire, seconds after START."""
        return seconds(self.document["audio"]["started"])

    @property
    def caller(self) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
        """The left channel."""
        return self.audio[:, 0]

    @property
    def callee(self) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
        """The right channel."""
        return self.audio[:, 1]

    @property
    def warnings(self) -> list[str]:
        """Codes of the warnings."""
        return [each["code"] for each in self.document["warnings"]]

    def expected(self, *segments: Sequence[Rtp]) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
        """A channel of this length that holds exactly these packets of G.711.

        Each segment stands where the first packet of it arrived, and follows its timestamps from there.
        """
        channel = np.zeros(len(self.audio), np.int16)
        for packets in segments:
            base = packets[0]
            anchor = round((base.at - self.started) * self.rate)
            for packet in packets:
                step = (packet.timestamp - base.timestamp + 2**31) % 2**32 - 2**31
                samples = decode(CODECS[packet.payload_type], np.frombuffer(packet.payload, np.uint8))
                at = anchor + step
                assert at >= 0, "the packet sounds before the recording begins"
                assert at + len(samples) <= len(channel), "the packet sounds after the recording ends"
                channel[at : at + len(samples)] = samples
        return channel


def seconds(moment: str) -> float:
    """Seconds after START of a moment as documents write it."""
    whole = np.datetime64(moment.removesuffix("Z"), "ns").astype(np.int64)
    return (int(whole) - START) / 1e9


class Quiet:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def progress(self, packets: int, calls: int, bytes_done: int, bytes_total: int | None) -> None:
        """Nobody looks."""

    def call_done(self, document: object, directory: str) -> None:
        """The tree is read afterwards."""

    def warning(self, text: str) -> None:
        """Keep it."""
        self.said.append(text)


def record(captures: Sequence[Path], out: Path, **options: object) -> list[Recording]:
    """Replay captures into `out` and read what stands there, in order of start."""
    replay(ReplayOptions(tuple(map(str, captures)), out, workers=options.pop("workers", 1), **options), Quiet())
    recordings = []
    for path in sorted(out.rglob("call.json")):
        document = json.loads(path.read_text())
        audio, rate = None, 0
        if document["audio"] is not None:
            audio, rate = soundfile.read(path.parent / document["audio"]["file"], dtype="int16", always_2d=True)
        recordings.append(Recording(path.parent, document, audio, rate))
    return sorted(recordings, key=lambda each: (each.document["started"], each.document["id"]))


def record_one(capture: Capture, tmp_path: Path, *, snap: int = 65535, **options: object) -> Recording:
    """Replay a made capture that holds one call."""
    recordings = record([capture.write(tmp_path / "made.pcap", snap)], tmp_path / "out", **options)
    assert len(recordings) == 1, [(r.document["call_id"], r.document["state"]) for r in recordings]
    return recordings[0]


def hears(recording: Recording, caller: Sequence[Sequence[Rtp]], callee: Sequence[Sequence[Rtp]]) -> None:
    """Assert that both channels hold these segments and nothing else."""
    left, right = recording.expected(*caller), recording.expected(*callee)
    np.testing.assert_array_equal(recording.caller, left)
    np.testing.assert_array_equal(recording.callee, right)
