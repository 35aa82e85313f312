"""The benchmark's sender puts the calls that were planned on the wire, on time, judged by tshark."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.calls import expected_samples, plan
from bench.veth import entered, is_possible, wire
from bench.wire import starts_of
from capture.ring import RingOptions, RingSource
from pcaps.make.observe import rtp_packets, tshark_fields
from pcaps.make.sources import decode
from tests.capture.live_frames import take

CALLS, SECONDS = 12, 1.0
PACKETS = CALLS * (7 + 2 * 50)

needs_wires = pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and network namespaces")
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


@pytest.fixture(scope="module")
def received(tmp_path_factory):
    """(what the sender says, what came over the wire as a capture)."""
    out = tmp_path_factory.mktemp("wire") / "received.pcap"
    with wire("bench") as over:
        with entered(over.namespace):
            source = RingSource([over.receiver], RingOptions(ring_size=8 << 20))
        command = over.inside(sys.executable, "-m", "bench.wire", over.sender, "--calls", str(CALLS))
        command += ["--seconds", str(SECONDS), "--ramp", "0.2", "--slot", "1"]
        root = Path(__file__).resolve().parent.parent
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as sender:
            frames = take(source, PACKETS, seconds=30)
            said = json.loads(sender.communicate(timeout=20)[0])
        source.close()
    with out.open("wb") as pcap:
        pcap.write(b"".join(value.to_bytes(4, "little") for value in (0xA1B2C3D4, 0x00040002, 0, 0, 65535, 1)))
        for frame in frames:
            fields = (*divmod(frame.time // 1000, 10**6), len(frame.octets), frame.wire)
            pcap.write(b"".join(value.to_bytes(4, "little") for value in fields) + frame.octets)
    return said, out


@needs_wires
@needs_tshark
def test_everything_is_sent_once_with_right_checksums(received):
    said, capture = received
    assert (said["calls"], said["packets"], said["rtp"], said["unsent"]) == (CALLS, PACKETS, CALLS * 100, 0)
    options = ("-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE")
    right = "ip.checksum.status == 1 and udp.checksum.status == 1"
    assert len(tshark_fields(capture, right, "frame.number", options=options)) == PACKETS
    methods = [row[0] for row in tshark_fields(capture, "sip.Method", "sip.Method")]
    assert {name: methods.count(name) for name in set(methods)} == {"INVITE": CALLS, "ACK": CALLS, "BYE": CALLS}


@needs_wires
@needs_tshark
def test_every_call_carries_the_audio_that_was_planned(received):
    packets = rtp_packets(received[1])
    for number in range(CALLS):
        for side in ("caller", "callee"):
            sender = getattr(plan(number, 50, "PCMU"), side)
            mine = [packet for packet in packets if packet.ssrc == f"0x{sender.ssrc:08x}"]
            assert (mine[0].sequence, mine[0].timestamp) == (sender.sequence, sender.timestamp & 0xFFFFFFFF)
            assert mine[0].source == f"{sender.address}:{sender.port}"
            heard = decode("PCMU", np.frombuffer(b"".join(packet.payload for packet in mine), np.uint8))
            assert np.array_equal(heard, expected_samples(number, side, SECONDS, "PCMU"))


@needs_wires
@needs_tshark
def test_packets_are_paced_in_real_time(received):
    rows = tshark_fields(received[1], "rtp", "rtp.ssrc", "frame.time_epoch")
    times: dict[str, list[float]] = {}
    for ssrc, when in rows:
        times.setdefault(ssrc, []).append(float(when))
    spans = [max(each) - min(each) for each in times.values()]
    # 50 packets, 20 ms apart; how late single ones are depends on what else the machine does.
    assert len(times) == 2 * CALLS
    assert 0.9 < np.median(spans) < 1.2


def test_calls_follow_one_another_so_that_the_same_number_is_in_progress():
    starts, seconds = starts_of(100, 60.0, 10.0, 3.0)
    ends = starts + 0.34e9 + seconds * 1e9
    for now in (15e9, 30e9, 55e9):
        assert abs(int(((starts <= now) & (now < ends)).sum()) - 100) <= 2
    starts, seconds = starts_of(100, 60.0, None, 3.0)
    assert (len(starts), seconds) == (100, 60.0)
    assert starts.max() < 3e9
