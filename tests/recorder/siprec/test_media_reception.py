"""Ports, monitor and reports together, on true sockets and with other programs."""

import os
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from capture.address import Endpoint, parse_endpoint
from capture.batch import PacketBatch
from capture.layers import decode_layers
from capture.media_ports import MediaPortOptions, MediaPorts
from decoders.demux import RTCP, classify
from decoders.rtcp import parse_rtcp
from recorder.siprec.media_reception import MediaReception, PortTerms

LOW = 14_500 + os.getpid() % 16 * 1000
"""Below the ports that the system gives out, and not those of a run beside this one."""
OPTIONS = MediaPortOptions(low=LOW, high=LOW + 499, linger=0.0, rest=0.0, pace=0.002)


@contextmanager
def reception(interval: float = 0.2, **more: dict[str, str]) -> Iterator[MediaReception]:
    opened = MediaReception(MediaPorts(OPTIONS), interval=interval, **more)  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def datagrams(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((host, 0))
        opened.settimeout(3.0)
        yield opened


def endpoint(opened: socket.socket) -> Endpoint:
    found = parse_endpoint(*opened.getsockname()[:2])
    assert found is not None
    return found


def rtp(sequence: int, ssrc: int = 0xA) -> bytes:
    return struct.pack("!BBHII", 0x80, 0, sequence, sequence * 160, ssrc) + bytes(160)


def poll(source: MediaReception, seconds: float) -> Iterator[PacketBatch]:
    """Batches as they come, each good until the next."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        batch = source.poll(0.02)
        if batch is not None:
            assert len(batch)
            yield batch


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_sender_hears_how_its_media_arrive_from_the_port_that_was_announced(host: str) -> None:
    with reception() as source, datagrams(host) as media, datagrams(host) as control:
        port = source.open(host)
        for sequence in (1, 2, 4, 5):
            media.sendto(rtp(sequence), (host, port.rtp.port))
        report = struct.pack("!BBHIQIII", 0x80, 200, 6, 0xA, 0x0123456789ABCDEF, 0, 4, 640)
        control.sendto(report, (host, port.rtcp.port))
        source.agree(port, PortTerms(cname="here"))
        assert sum(len(batch) for batch in poll(source, 0.3)) == 5
        octets, sender = control.recvfrom(1000)
        assert sender[:2] == (host, port.rtcp.port)
        compound = parse_rtcp(octets)
        (block,) = compound.receiver_reports[0].blocks
        assert (block.ssrc, block.cumulative_lost, block.highest_sequence, block.lsr) == (0xA, 1, 5, 0x456789AB)
        assert 0 <= block.dlsr < 65536
        state = source.state(port)
        assert (state.address, state.rtcp_from, state.lost) == (endpoint(media), endpoint(control), 1)
        source.release(port)
        while not compound.byes:
            compound = parse_rtcp(control.recv(1000))


def test_only_the_sender_s_packets_reach_the_engine_and_the_counts_say_so() -> None:
    with reception() as source, datagrams() as media, datagrams() as other:
        port = source.open("127.0.0.1")
        for sequence in range(10):
            media.sendto(rtp(sequence), ("127.0.0.1", port.rtp.port))
            other.sendto(rtp(sequence, 0xBAD), ("127.0.0.1", port.rtp.port))
            other.sendto(b"INVITE sip:x SIP/2.0\r\n\r\n", ("127.0.0.1", port.rtp.port))
        sources = np.concatenate([decode_layers(batch).source_port for batch in poll(source, 0.1)])
        assert sources.tolist() == [media.getsockname()[1]] * 10
        counters = source.counters()
        assert counters.packets == 10
        assert counters.note == "datagrams turned away, of strays or no media: 20"
        assert (source.state(port).strays, source.state(port).foreign) == (10, 10)


def test_behind_a_nat_rows_and_descriptions_have_the_announced_address() -> None:
    with reception(announced={"127.0.0.1": "203.0.113.5"}) as source, datagrams() as media:
        port = source.open("127.0.0.1")
        assert port.rtp.host == "203.0.113.5"
        media.sendto(rtp(1), ("127.0.0.1", port.rtp.port))
        seen = [decode_layers(batch).destination_low.tolist() for batch in poll(source, 0.1)]
        assert seen == [[port.rtp.low]]


def test_a_port_that_nobody_sends_to_is_known_as_such() -> None:
    with reception() as source:
        port = source.open("127.0.0.1")
        source.agree(port, PortTerms())
        assert list(poll(source, 0.3)) == []
        state = source.state(port)
        assert (state.last, state.packets, state.address) == (None, 0, None)


def as_capture(packets: list[tuple[int, bytes]]) -> bytes:
    """A pcap of raw IP packets with their times."""
    head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101)
    records = [
        struct.pack("<IIII", when // 10**9, when % 10**9, len(octets), len(octets)) + octets
        for when, octets in sorted(packets)
    ]
    return head + b"".join(records)


def in_ipv4(source: Endpoint, destination: Endpoint, octets: bytes) -> bytes:
    from scapy.layers.inet import IP, UDP
    from scapy.packet import Raw

    head = IP(src=source.host, dst=destination.host) / UDP(sport=source.port, dport=destination.port)
    return bytes(head / Raw(octets))


@pytest.mark.skipif(shutil.which("ffmpeg") is None or shutil.which("tshark") is None, reason="needs ffmpeg and tshark")
def test_tshark_finds_our_reports_answer_those_that_ffmpeg_sends(tmp_path: Path) -> None:
    ports = MediaPorts(OPTIONS)
    seen: list[tuple[int, bytes]] = []
    true_send = ports.send

    def send(place: int, octets: bytes, to: Endpoint) -> bool:
        seen.append((time.time_ns(), in_ipv4(port.rtp._replace(port=port.rtp.port + (place & 1)), to, octets)))
        return true_send(place, octets, to)

    ports.send = send  # type: ignore[method-assign]
    source = MediaReception(ports, interval=0.8)
    port = source.open("127.0.0.1")
    source.agree(port, PortTerms(cname="judged"))
    to = f"rtp://127.0.0.1:{port.rtp.port}?rtcpport={port.rtcp.port}"
    command = ["ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=8000"]
    with subprocess.Popen(
        [*command, "-t", "2", "-c:a", "pcm_mulaw", "-f", "rtp", to], stdout=subprocess.DEVNULL
    ) as ffmpeg:
        for batch in poll(source, 3.0):
            kinds = classify(decode_layers(batch))
            for row in np.flatnonzero(kinds == RTCP).tolist():
                begin, size = int(batch.offset[row]), int(batch.captured[row])
                seen.append((int(batch.time[row]), batch.buffer[begin : begin + size].tobytes()))
        assert ffmpeg.wait(10) == 0
    state = source.state(port)
    assert state.packets > 10
    assert state.lost == 0
    source.release(port)
    source.close()
    (tmp_path / "rtcp.pcap").write_bytes(as_capture(seen))
    told = subprocess.run(
        ["tshark", "-r", tmp_path / "rtcp.pcap", "-d", f"udp.port=={port.rtcp.port},rtcp", "-V",
         "-o", "rtcp.show_roundtrip_calculation:TRUE", "-o", "rtcp.roundtrip_min_threshhold:0"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    frames = told.stdout.split("\nFrame ")
    ours = [each for each in frames if "Receiver Report (201)" in each]
    assert len(ours) >= 3
    assert all("Malformed" not in each and "length check: OK" in each and "judged" in each for each in ours)
    # tshark looks for the sender report that each LSR names, and takes DLSR off the time between the two.
    trips = [int(ms) for each in ours for ms in re.findall(r"\[Roundtrip Delay\(ms\): (-?\d+)\]", each)]
    assert trips
    assert all(abs(trip) <= 5 for trip in trips)
    assert "Goodbye" in ours[-1]
