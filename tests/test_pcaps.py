"""The lab's captures hold what pcaps/index.json says: judged by tshark and the sources, never by our engine."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcaps.make.observe import Rtp, dialog_times, link_type, packet_count, rtp_packets
from pcaps.make.sources import decode, speech_like, through

PCAPS = Path(__file__).resolve().parent.parent / "pcaps"
INDEX: dict[str, dict[str, Any]] = json.loads((PCAPS / "index.json").read_text())
NAMES = sorted(INDEX)


def readable(stream: dict[str, Any]) -> bool:
    return stream["exact"] and not stream.get("encrypted")


EXACT = [name for name in NAMES if any(readable(s) for call in INDEX[name]["calls"] for s in call["streams"])]

pytestmark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark judges the captures")


@cache
def packets_of(name: str) -> list[Rtp]:
    return rtp_packets(PCAPS / INDEX[name]["file"])


def streams(name: str) -> list[dict[str, Any]]:
    return [stream for call in INDEX[name]["calls"] for stream in call["streams"]]


def distinct(packets: list[Rtp], ssrc: str) -> dict[int, Rtp]:
    """Packets of a stream by sequence number, copies and duplicates gone."""
    found: dict[int, Rtp] = {}
    for packet in packets:
        if packet.ssrc == ssrc:
            found.setdefault(packet.sequence, packet)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_capture_is_small_and_holds_the_packets_it_says(name: str) -> None:
    path = PCAPS / INDEX[name]["file"]
    assert path.stat().st_size < 400_000
    assert packet_count(path) == INDEX[name]["packets"]
    assert link_type(path) == INDEX[name]["link_type"] == "ether"


@pytest.mark.parametrize("name", NAMES)
def test_tshark_counts_the_packets_of_each_stream(name: str) -> None:
    packets = packets_of(name)
    assert {packet.ssrc for packet in packets} == {stream["ssrc"] for stream in streams(name)}
    for stream in streams(name):
        total = sum(packet.ssrc == stream["ssrc"] for packet in packets)
        known = distinct(packets, stream["ssrc"])
        assert len(known) == stream["packets"]
        assert total == stream["packets"] * (1 + stream["copies"]) + stream["duplicates"]
        steps = {(sequence - stream["first_sequence"]) & 0xFFFF for sequence in known}
        assert max(steps) - min(steps) + 1 - len(steps) == stream["lost"]


@pytest.mark.parametrize("name", NAMES)
def test_tshark_sees_the_calls(name: str) -> None:
    times = dialog_times(PCAPS / INDEX[name]["file"])
    assert {call_id for call_id, seen in times.items() if "invite" in seen} == {
        c["call_id"] for c in INDEX[name]["calls"]
    }
    for call in INDEX[name]["calls"]:
        seen = times[call["call_id"]]
        assert {key: seen[key] for key in call["times"]} == call["times"]
        assert seen["caller_address"] == call["caller"]["address"]
        assert ("answered" in seen) == (call["state"] == "completed")


@pytest.mark.parametrize("name", EXACT)
def test_payloads_decode_to_the_known_samples(name: str) -> None:
    packets = packets_of(name)
    for stream in streams(name):
        if not readable(stream):
            continue
        speech = [p for p in distinct(packets, stream["ssrc"]).values() if p.kind in (0, 8)]
        heard = {packet.timestamp: packet for packet in speech}
        expected = 0
        for segment in stream["audio"]:
            codec = segment.get("codec", stream["codec"])
            source = speech_like(segment["seed"], 20, segment["rate"])
            for start in range(0, segment["samples"], 160):
                packet = heard.get((segment["timestamp"] + start) & 0xFFFFFFFF)
                if packet is None:
                    assert "missing_sequences" in stream
                    continue
                first = segment["first_sample"] + start
                known = through(codec, source[first : first + 160])
                assert np.array_equal(decode(codec, np.frombuffer(packet.payload, np.uint8)), known)
                expected += 1
        assert expected == len(speech)


def test_readme_names_every_capture() -> None:
    text = (PCAPS / "README.md").read_text()
    for name in NAMES:
        assert f"`{INDEX[name]['file']}`" in text
    assert sorted(path.name for path in PCAPS.glob("*.pcap*")) == sorted(entry["file"] for entry in INDEX.values())
