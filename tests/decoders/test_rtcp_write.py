"""RTCP as it is written, read back by our own parser and by tshark."""

import shutil
import struct
import subprocess

import pytest

from decoders.rtcp import parse_rtcp
from decoders.rtcp_values import ReportBlock
from decoders.rtcp_write import bye, ntp_of, receiver_report, sender_report, source_description

NOW = 1_700_000_000_250_000_000
BLOCKS = [ReportBlock(5, 255, -3, 70_000, 12, 1, 2), ReportBlock(6, 0, 0x7FFFFF, 1, 0, 0xFFFFFFFF, 0)]


def test_a_compound_reads_back_as_written():
    compound = parse_rtcp(
        sender_report(7, NOW, 2**32 + 5, 2**32 + 1, 160, BLOCKS) + source_description(7, "a-name") + bye(7, "over")
    )
    assert compound.notes == []
    (report,) = compound.sender_reports
    assert (report.ssrc, report.rtp_timestamp, report.packets, report.octets) == (7, 5, 1, 160)
    assert list(report.blocks) == BLOCKS
    assert report.unix_ns is not None
    assert abs(report.unix_ns - NOW) <= 1
    assert [(each.ssrc, each.cname) for each in compound.descriptions] == [(7, "a-name")]
    assert [(each.ssrcs, each.reason) for each in compound.byes] == [((7,), "over")]


def test_a_report_of_one_who_only_hears():
    compound = parse_rtcp(receiver_report(9, BLOCKS))
    assert [(each.ssrc, list(each.blocks)) for each in compound.receiver_reports] == [(9, BLOCKS)]


@pytest.mark.parametrize("length", range(9))
def test_names_of_every_length_end_on_a_whole_word(length):
    packet = source_description(1, "n" * length)
    assert len(packet) % 4 == 0
    compound = parse_rtcp(receiver_report(1) + packet)
    assert (compound.notes, compound.descriptions[0].cname) == ([], "n" * length)


def test_what_is_too_long_is_cut():
    compound = parse_rtcp(receiver_report(1, BLOCKS * 20) + source_description(1, "n" * 300) + bye(1, "r" * 300))
    assert compound.notes == []
    assert len(compound.receiver_reports[0].blocks) == 31
    assert compound.descriptions[0].cname == "n" * 255
    assert compound.byes[0].reason == "r" * 255


def test_the_clock_of_1900():
    assert ntp_of(0) == 2_208_988_800 << 32
    assert ntp_of(500_000_000) & 0xFFFFFFFF == 1 << 31


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_finds_nothing_wrong(tmp_path):
    payload = sender_report(7, NOW, 1600, 10, 1600, BLOCKS) + source_description(7, "a-name") + bye(7)
    udp = struct.pack("!HHHH", 5001, 6001, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + udp
    capture = tmp_path / "rtcp.pcap"
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    capture.write_bytes(head + struct.pack("<IIII", 1_700_000_000, 250_000, len(ip), len(ip)) + ip)
    command = ["tshark", "-n", "-r", str(capture), "-d", "udp.port==6001,rtcp", "-T", "json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    text = said.stdout
    assert "Malformed" not in text
    assert "_ws.expert" not in text
    for expected in ("a-name", '"rtcp.pt": "200"', '"rtcp.pt": "202"', '"rtcp.pt": "203"', "22:13:20.25"):
        assert expected in text
