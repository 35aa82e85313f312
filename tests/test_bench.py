"""The benchmark's generator makes sound captures, judged by tshark."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.calls import expected_samples, plan
from pcaps.make.observe import packet_count, rtp_packets, tshark_fields
from pcaps.make.sources import decode

GENERATOR = Path(__file__).resolve().parent.parent / "bench" / "generate.py"


def generate(path: Path, *options: str) -> Path:
    subprocess.run([sys.executable, str(GENERATOR), str(path), *options], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(
        tmp_path_factory.mktemp("bench") / "calls.pcap", "--calls", "8", "--seconds", "2", "--codec", "pcma"
    )


def test_every_checksum_is_right(capture: Path) -> None:
    options = ("-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE")
    wrong = tshark_fields(
        capture, "ip.checksum.status != 1 or udp.checksum.status != 1", "frame.number", options=options
    )
    assert wrong == []


def test_time_never_goes_back(capture: Path) -> None:
    times = [float(row[0]) for row in tshark_fields(capture, "frame", "frame.time_epoch")]
    assert times == sorted(times)
    assert len(times) == packet_count(capture) == 8 * (7 + 200)


def test_streams_carry_the_expected_samples(capture: Path) -> None:
    packets = rtp_packets(capture)
    for number in range(8):
        for side in ("caller", "callee"):
            sender = getattr(plan(number, 100, "PCMA"), side)
            mine = [packet for packet in packets if packet.ssrc == f"0x{sender.ssrc:08x}"]
            assert (mine[0].sequence, mine[0].timestamp) == (sender.sequence, sender.timestamp & 0xFFFFFFFF)
            assert mine[0].source == f"{sender.address}:{sender.port}"
            heard = decode("PCMA", np.frombuffer(b"".join(packet.payload for packet in mine), np.uint8))
            assert np.array_equal(heard, expected_samples(number, side, 2.0, "PCMA"))


def test_the_same_arguments_give_the_same_octets(tmp_path: Path) -> None:
    one = generate(tmp_path / "one.pcap", "--short", "20").read_bytes()
    assert generate(tmp_path / "two.pcap", "--short", "20").read_bytes() == one


def test_a_mix_of_messages_has_no_media(tmp_path: Path) -> None:
    capture = generate(tmp_path / "sip.pcap", "--sip-only", "1000")
    methods = [row[0] for row in tshark_fields(capture, "sip.Method", "sip.Method")]
    assert len(tshark_fields(capture, "sip", "frame.number")) == packet_count(capture)
    assert methods.count("INVITE") == 43
    assert methods.count("REGISTER") + methods.count("OPTIONS") == 349
