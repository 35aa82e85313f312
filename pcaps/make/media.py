"""RTP of one speaker, made from a known source, and what a listener must hear of it.

In: a seed and a codec, then a script of speech, pauses, digits and faults. Out: media captures that sipp plays, and the
facts for the index: packets, losses, digits, and which source samples stand at which RTP timestamp.
"""

import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pcaps.make.sources import Octets, encode, speech_like

PACKET_MS = 20
SOURCE_SECONDS = 20
EVENT_TYPE = 101
DIGITS = "0123456789*#ABCD"

PAYLOAD_TYPES = {"PCMU": 0, "PCMA": 8, "G722": 9}
SOURCE_RATES = {"PCMU": 8000, "PCMA": 8000, "G722": 16000}
"""Of the samples that go in; the RTP clock is 8000 for all three (RFC 3551, section 4.5.2 for G722)."""


def encode_source(codec: str, seed: int) -> Octets:
    """The whole source encoded, 160 octets per 20 ms. G.722 by ffmpeg, for it is no table."""
    source = speech_like(seed, SOURCE_SECONDS, SOURCE_RATES[codec])
    if codec != "G722":
        return encode(codec, source)
    command = [
        "ffmpeg",
        "-loglevel",
        "error",
        "-f",
        "s16le",
        "-ar",
        "16000",
        "-ac",
        "1",
        "-i",
        "-",
        "-c:a",
        "g722",
        "-f",
        "g722",
        "-",
    ]
    done = subprocess.run(command, input=source.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8)


@dataclass(frozen=True, slots=True)
class Sent:
    """One RTP packet and when it is sent, ms after the media began."""

    at: float
    packet: bytes


@dataclass
class Talker:
    """A speaker whose source runs on with time, whether it is sent or not. `at` is now, in ms."""

    seed: int
    codec: str
    ssrc: int
    sequence: int
    timestamp: int
    payload_type: int = -1
    at: float = 0.0
    part_start: float = 0.0
    marker: bool = True
    part: list[Sent] = field(default_factory=list)
    packets: int = 0
    """Distinct ones sent."""
    lost: int = 0
    duplicates: int = 0
    reordered: int = 0
    segments: list[dict[str, Any]] = field(default_factory=list)
    digits: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.payload_type < 0:
            self.payload_type = PAYLOAD_TYPES[self.codec]
        self._octets = encode_source(self.codec, self.seed)
        self._first_sequence = self.sequence

    def _packet(self, payload: bytes, kind: int, timestamp: int) -> bytes:
        second = kind | (0x80 if self.marker else 0)
        self.marker = False
        head = struct.pack("!BBHII", 0x80, second, self.sequence & 0xFFFF, timestamp & 0xFFFFFFFF, self.ssrc)
        self.sequence += 1
        return head + payload

    def _advance(self) -> None:
        self.at += PACKET_MS
        self.timestamp += 8 * PACKET_MS

    def speak(self, seconds: float, fault: str | None = None) -> "Talker":
        """Send speech. `fault` "lost" keeps every 10th packet back, "twice" sends it twice, "late" sends it after the
        next one."""
        count = round(seconds * 1000 / PACKET_MS)
        for index in range(count):
            hit = fault is not None and index % 10 == 5
            start = round(self.at / PACKET_MS) * 160
            packet = self._packet(self._octets[start : start + 160].tobytes(), self.payload_type, self.timestamp)
            if hit and fault == "lost":
                self.lost += 1
                self._advance()
                continue
            self._note(self.timestamp)
            self.packets += 1
            late = hit and fault == "late"
            self.reordered += late
            self.part.append(Sent(self.at + (PACKET_MS * 1.25 if late else 0), packet))
            if hit and fault == "twice":
                self.duplicates += 1
                self.part.append(Sent(self.at + 1, packet))
            self._advance()
        return self

    def _note(self, timestamp: int) -> None:
        """Grow the last segment by this packet's samples, or begin a new one."""
        per_packet = SOURCE_RATES[self.codec] * PACKET_MS // 1000
        first = round(self.at / PACKET_MS) * per_packet
        last = self.segments[-1] if self.segments else None
        same = last is not None and last["ssrc"] == f"0x{self.ssrc:08x}"
        if same and last["first_sample"] + last["samples"] == first:
            last["samples"] += per_packet
            return
        self.segments.append({
            "ssrc": f"0x{self.ssrc:08x}", "timestamp": timestamp & 0xFFFFFFFF, "seed": self.seed,
            "rate": SOURCE_RATES[self.codec], "first_sample": first, "samples": per_packet,
        })  # fmt: skip

    def pause(self, seconds: float) -> "Talker":
        """Send nothing; the RTP clock runs on, and the next packet has the marker of a new talk spurt."""
        for _ in range(round(seconds * 1000 / PACKET_MS)):
            self._advance()
        self.marker = True
        return self

    def digit(self, digit: str, milliseconds: int = 100) -> "Talker":
        """An RFC 4733 event in place of speech: updates every 20 ms, its end three times."""
        start, self.marker = self.timestamp, True
        count = milliseconds // PACKET_MS
        for index in range(1, count + 1):
            duration = 160 * index
            last = index == count
            payload = struct.pack("!BBH", DIGITS.index(digit), (0x80 if last else 0) | 10, duration)
            for copy in range(3 if last else 1):
                self.part.append(Sent(self.at + copy, self._packet(payload, EVENT_TYPE, start)))
                self.packets += 1
            self._advance()
        self.digits.append({"digit": digit, "duration_ms": milliseconds, "via": "rfc4733"})
        return self

    def restart(self, ssrc: int, sequence: int, timestamp: int) -> "Talker":
        """Go on as another stream, as a gateway does whose media moves."""
        self.ssrc, self.sequence, self.timestamp, self.marker = ssrc, sequence, timestamp, True
        self._first_sequence = sequence
        return self

    def cut(self, path: Path) -> None:
        """Write what was said since the last cut as a capture for sipp's play_pcap_audio."""
        with path.open("wb") as out:
            out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
            for sent in sorted(self.part, key=lambda one: one.at):
                when = round((sent.at - self.part_start) * 1000) + 10**9
                size = len(sent.packet)
                ip = struct.pack("!BBHHHBBHII", 0x45, 0, 28 + size, 0, 0, 64, 17, 0, 0x7F000001, 0x7F000001)
                frame = bytes(12) + b"\x08\0" + ip + struct.pack("!HHHH", 6000, 6000, 8 + size, 0) + sent.packet
                out.write(struct.pack("<IIII", when // 10**6, when % 10**6, len(frame), len(frame)) + frame)
        self.part, self.part_start = [], self.at

    def facts(self, participant: str, source: str, destination: str) -> dict[str, Any]:
        """The index's entry for this speaker's stream."""
        return {
            "participant": participant, "codec": self.codec, "payload_type": self.payload_type, "clock_rate": 8000,
            "ssrc": f"0x{self.ssrc:08x}", "first_sequence": self._first_sequence, "source": source,
            "destination": destination, "packets": self.packets,
            "lost": self.lost, "duplicates": self.duplicates, "reordered": self.reordered, "copies": 0,
            "exact": self.codec != "G722", "audio": self.segments,
        }  # fmt: skip
