"""Fixtures for decoders: a voice made of numbers, FFmpeg as the judge, RTP payloads of real captures."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def speech() -> Callable[[int, float], NDArray[np.int16]]:
    """Something like speech: harmonics of a moving pitch in syllables, between pauses of faint noise."""

    def make(rate: int, seconds: float, seed: int = 1) -> NDArray[np.int16]:
        random = np.random.default_rng(seed)
        time = np.arange(round(rate * seconds)) / rate
        pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time) + 8 * np.sin(2 * np.pi * 5 * time)
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        voice = np.zeros(len(time))
        for harmonic in range(1, 25):
            formants = sum(np.exp(-(((harmonic * pitch - centre) / 220) ** 2)) for centre in (500, 1500, 2500))
            voice += formants * np.sin(harmonic * phase + harmonic) / (1 + harmonic / 8)
        syllables = np.clip(np.sin(2 * np.pi * 2.3 * time) + 0.4, 0, None)
        return np.clip(voice * syllables * 5000 + random.normal(0, 12, len(time)), -32768, 32767).astype(np.int16)

    return make


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., bytes]:
    """Run FFmpeg over standard input and return its standard output."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")

    def run(data: bytes, *arguments: str) -> bytes:
        command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-bitexact", *arguments]
        return subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout

    return run


@pytest.fixture(scope="session")
def rtp_packets(captures: Path) -> Callable[[str], list[bytes]]:
    """UDP payloads of a capture over Ethernet that look like RTP, in order."""
    from scapy.utils import RawPcapReader

    def read(name: str) -> list[bytes]:
        found = sorted(captures.glob(f"**/{name}"))
        if not found:
            pytest.skip(f"{name} is not among the captures")
        with RawPcapReader(str(found[0])) as reader:
            datagrams = [_udp_payload(bytes(frame)) for frame, _ in reader]
        return [data for data in datagrams if len(data) > 12 and data[0] >> 6 == 2 and not 64 <= data[1] & 0x7F < 96]

    return read


def _udp_payload(frame: bytes) -> bytes:
    if frame[12:14] != b"\x08\x00" or frame[23] != 17:
        return b""
    udp = 14 + 4 * (frame[14] & 15)
    return frame[udp + 8 : udp + int.from_bytes(frame[udp + 4 : udp + 6], "big")]


@pytest.fixture(scope="session")
def rtp_payloads(rtp_packets: Callable[[str], list[bytes]]) -> Callable[..., list[bytes]]:
    """Payloads of the stream with the payload type (and SSRC) given, in RTP order."""

    def read(name: str, payload_type: int, ssrc: int | None = None) -> list[bytes]:
        packets = [packet for packet in rtp_packets(name) if packet[1] & 0x7F == payload_type]
        if ssrc is not None:
            packets = [packet for packet in packets if int.from_bytes(packet[8:12], "big") == ssrc]
        first = int.from_bytes(packets[0][2:4], "big")
        packets.sort(key=lambda packet: int.from_bytes(packet[2:4], "big") - first & 0xFFFF)
        return [packet[12 + 4 * (packet[0] & 15) :] for packet in packets]

    return read
