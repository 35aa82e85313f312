"""The second opinion: what tshark counts otherwise is said, and why."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from capture.errors import CaptureError
from recorder.replay import replay
from recorder.replay_types import Dissector, ReplayOptions, Selection
from tests.capture_builder import Capture, Quiet, both

PCAPS = Path(__file__).parents[2] / "pcaps"

needs_tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark gives the second opinion")


def differences(out: Path, *captures: Path, **options: object) -> list[str]:
    given = ReplayOptions(tuple(map(str, captures)), out, workers=1, verify=True, **options)
    return list(replay(given, Quiet()).differences)


@needs_tshark
@pytest.mark.parametrize("name", ["pcmu.pcap", "loss.pcap", "tcp.pcapng", "transfer_attended.pcap", "srtp_sdes.pcap"])
def test_captures_of_the_lab_show_no_difference(name: str, tmp_path: Path) -> None:
    assert differences(tmp_path / "out", PCAPS / name) == []


@needs_tshark
def test_a_relayed_call_differs_by_its_copies_alone(tmp_path: Path) -> None:
    said = differences(tmp_path / "out", PCAPS / "relayed.pcap")
    assert len(said) == 2
    assert all("as expected, for spanrec counts it as a copy" in sentence for sentence in said)


@needs_tshark
def test_packets_sent_twice_are_told_with_both_counts(tmp_path: Path) -> None:
    (said,) = differences(tmp_path / "out", PCAPS / "impaired.pcap")
    assert said.startswith(
        "stream 0xca11034b 10.33.0.11:21000 -> 10.33.0.12:22000: tshark counts 250 packets and 0 lost"
    )
    assert "spanrec 245 and 5; as expected" in said


@needs_tshark
def test_a_selection_hides_nothing_from_the_comparison(tmp_path: Path) -> None:
    assert differences(tmp_path / "out", PCAPS / "pcmu.pcap", selection=Selection(call_ids=("nobody",))) == []


@needs_tshark
def test_several_captures_are_compared_as_one(tmp_path: Path) -> None:
    capture = Capture().rtp(*both(2))
    capture.call(end=4.0)
    halves = [Capture(capture.frames[::2]), Capture(capture.frames[1::2])]
    paths = [half.write(tmp_path / f"half-{k}.pcap") for k, half in enumerate(halves)]
    assert differences(tmp_path / "out", *paths) == []


@needs_tshark
def test_tls_without_and_with_its_keys(tmp_path: Path) -> None:
    path = PCAPS / "tls.pcap"
    assert differences(tmp_path / "without", path) == []
    options = {"dissector": Dissector.TSHARK, "keylog": PCAPS / "tls.keys"}
    assert differences(tmp_path / "with", path, **options) == []


@needs_tshark
def test_streams_that_no_call_has_are_named(tmp_path: Path) -> None:
    one, two = both(2)
    capture = Capture().rtp(one, two)
    capture.call(end=4.0)
    capture.rtp([replace(packet, source=("192.0.2.77", 40), destination=("192.0.2.78", 40)) for packet in one[:5]])
    capture.rtp(
        [
            replace(packet, source=("192.0.2.79", 8), destination=("192.0.2.80", 8), payload_type=77, ssrc=7)
            for packet in one
        ]
    )
    few, odd = sorted(differences(tmp_path / "out", capture.write(tmp_path / "a.pcap")), key=len, reverse=True)
    assert few.endswith("spanrec binds it to no call; as expected, for so few without signalling are no call")
    assert "stream 0x00000007 192.0.2.79:8 -> 192.0.2.80:8: tshark counts 100 packets" in odd


@needs_tshark
def test_a_capture_that_tshark_reads_in_part_is_said(tmp_path: Path) -> None:
    whole = (PCAPS / "pcmu.pcap").read_bytes()
    path = tmp_path / "cut.pcap"
    path.write_bytes(whole[:-100])
    said = differences(tmp_path / "out", path)
    assert any(sentence.startswith("tshark read cut.pcap only in part: ") for sentence in said)
    assert not any(str(tmp_path) in sentence for sentence in said)


@needs_tshark
def test_damage_that_tshark_stops_at_shows_in_the_counts(tmp_path: Path) -> None:
    whole = bytearray((PCAPS / "pcmu.pcap").read_bytes())
    middle = whole.index(b"\x80\x00", len(whole) // 2)
    whole[middle : middle + 4000] = b"\xff" * 4000
    path = tmp_path / "damaged.pcap"
    path.write_bytes(whole)
    said = differences(tmp_path / "out", path)
    assert said[0].startswith("tshark read damaged.pcap only in part: ")
    assert any(sentence.startswith("stream 0xca1101b5") for sentence in said)


def test_without_tshark_the_user_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CaptureError, match="install the package tshark"):
        differences(tmp_path / "out", PCAPS / "pcmu.pcap")
    assert not list((tmp_path / "out").rglob("call.json"))
