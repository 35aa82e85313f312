"""tshark as the dissector: the same columns as ours where both can read, and more where only tshark can."""

import gzip
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from capture.batch import KIND_NONE, KIND_TCP, KIND_UDP, DatagramBatch
from capture.errors import CaptureError
from capture.layers import decode_layers
from capture.source import CaptureSource
from capture.tshark import Tshark
from capture.tshark_frames import FIELDS, dissect
from capture.tshark_source import TsharkSource

PCAPS = Path(__file__).parents[2] / "pcaps"

needs_tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="this is about tshark")

INVITE = b"INVITE sip:bob@example.org SIP/2.0\r\nCall-ID: one\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path


def rows(source: CaptureSource | TsharkSource) -> Iterator[tuple[object, ...]]:
    """What the columns say of each row that is UDP or TCP: frame, time, kind, ends, octets."""
    for batch in source:
        datagrams = decode_layers(batch)
        for row in np.flatnonzero((datagrams.kind == KIND_UDP) | (datagrams.kind == KIND_TCP)).tolist():
            yield (
                int(batch.capture[row]), int(batch.number[row]), int(batch.time[row]), int(datagrams.kind[row]),
                *ends(datagrams, row), payload(datagrams, row), int(datagrams.missing[row]),
            )  # fmt: skip


def ends(datagrams: DatagramBatch, row: int) -> tuple[int, ...]:
    names = ("source_high", "source_low", "source_port", "destination_high", "destination_low", "destination_port")
    return tuple(int(getattr(datagrams, name)[row]) for name in names)


def payload(datagrams: DatagramBatch, row: int) -> bytes:
    """Payload of a datagram; of a segment its sequence number, flags and data."""
    begin = int(datagrams.payload[row])
    octets = datagrams.packets.buffer[begin : begin + int(datagrams.length[row])].tobytes()
    if datagrams.kind[row] == KIND_UDP:
        return octets
    return octets[4:8] + bytes([octets[13]]) + octets[4 * (octets[12] >> 4) :]


def written(path: Path, *packets: Packet) -> Path:
    for k, packet in enumerate(packets):
        packet.time = 1_700_000_000 + k
    wrpcap(str(path), list(packets))
    return path


@needs_tshark
@pytest.mark.parametrize("name", ["dtmf.pcap", "tcp.pcapng", "ipv6.pcap"])
def test_tshark_and_our_layers_agree_on_the_lab(name: str, scratch: Path) -> None:
    ours, theirs = CaptureSource([PCAPS / name]), TsharkSource([PCAPS / name], scratch, batch_size=50)
    assert list(rows(theirs)) == list(rows(ours))
    assert theirs.files == ours.files
    assert theirs.progress == ours.progress


@needs_tshark
@pytest.mark.parametrize(
    "name",
    [
        "sipcapture__heplify/ipip0.pcap",
        "open5gs__open5gs/volte.pcapng",
        "ahmedelemamn__Wireshark-Captures/hdlc_cisco.pcapng",
        "drepkovsky__sip-proxy-js/cancel.pcapng",
    ],
)
def test_tshark_and_our_layers_agree_on_real_encapsulations(name: str, scratch: Path, captures: Path) -> None:
    ours = list(rows(CaptureSource([captures / "real" / name])))
    theirs = list(rows(TsharkSource([captures / "real" / name], scratch)))
    # Fragments are put together by tshark here, and later on by us: all else is the same.
    assert set(ours) <= set(theirs)
    assert {row[:4] for row in theirs} >= {row[:4] for row in ours}


@needs_tshark
def test_captures_are_merged_packed_and_plain(tmp_path: Path, scratch: Path) -> None:
    frames = [Ether() / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=k, dport=9) / Raw(b"x") for k in range(6)]
    for k, frame in enumerate(frames):
        frame.time = 1_700_000_000 + k
    wrpcap(str(tmp_path / "even.pcap"), frames[::2])
    wrpcap(str(tmp_path / "odd.pcap"), frames[1::2])
    packed = tmp_path / "odd.pcap.gz"
    packed.write_bytes(gzip.compress((tmp_path / "odd.pcap").read_bytes()))
    source = TsharkSource([tmp_path / "even.pcap", packed], scratch, batch_size=2)
    assert [(row[0], row[1], row[6]) for row in rows(source)] == [
        (0, 1, 0), (1, 1, 1), (0, 2, 2), (1, 2, 3), (0, 3, 4), (1, 3, 5),
    ]  # fmt: skip
    assert [file.packets for file in source.files] == [3, 3]
    assert source.files[1].bytes == packed.stat().st_size
    source.close()
    assert not list(scratch.iterdir())


@needs_tshark
def test_sip_inside_tls_comes_out_between_the_same_ends(scratch: Path) -> None:
    source = TsharkSource([PCAPS / "tls.pcap"], scratch, keylog=PCAPS / "tls.keys")
    found = [row for row in rows(source) if row[3] == KIND_UDP and (0, row[1]) in source.secure]
    starts = [row[10].split(b"\r\n")[0].split(b" ")[0:2] for row in found]
    assert [b" ".join(start).split(b" sip:")[0] for start in starts] == [
        b"INVITE", b"SIP/2.0 100", b"SIP/2.0 180", b"SIP/2.0 200", b"ACK", b"BYE", b"SIP/2.0 200",
    ]  # fmt: skip
    assert {row[6] for row in found} | {row[9] for row in found} >= {5061}
    assert source.files[0].packets == 327


@needs_tshark
def test_sip_over_sctp_comes_out(tmp_path: Path, scratch: Path) -> None:
    chunk = SCTPChunkData(data=INVITE, beginning=1, ending=1)
    packet = Ether() / IP(src="192.0.2.1", dst="192.0.2.2") / SCTP(sport=5060, dport=5060) / chunk
    source = TsharkSource([written(tmp_path / "a.pcap", packet)], scratch)
    ((*_, octets, missing),) = rows(source)
    assert (octets, missing) == (INVITE, 0)
    assert not source.secure


@needs_tshark
def test_innermost_packets_virtual_networks_and_quotations(tmp_path: Path, scratch: Path) -> None:
    inner = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=4000, dport=5000) / Raw(b"inner")
    outer = Ether() / Dot1Q(vlan=7) / IP(src="192.0.2.1", dst="192.0.2.2")
    packets = [
        Ether() / inner,
        Ether() / Dot1Q(vlan=5) / inner,
        outer / UDP(sport=1, dport=4789) / VXLAN(vni=0x12345) / Ether() / inner,
        outer / inner,
        outer / ICMP(type=3, code=3) / IPerror(bytes(inner)[:20]) / UDPerror(bytes(inner)[20:]),
        Ether() / IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(sport=1, dport=2, seq=9, flags="PA") / Raw(b"data"),
    ]
    source = TsharkSource([written(tmp_path / "a.pcap", *packets)], scratch)
    (batch,) = list(source)
    datagrams = decode_layers(batch)
    assert datagrams.kind.tolist() == [KIND_UDP] * 4 + [KIND_NONE, KIND_TCP]
    assert [payload(datagrams, row) for row in range(4)] == [b"inner"] * 4
    assert len(set(datagrams.realm[:3].tolist())) == 3
    assert datagrams.realm[3] == datagrams.realm[0] == 0
    assert payload(datagrams, 5) == struct.pack("!IB", 9, 0x18) + b"data"


@needs_tshark
def test_what_a_snap_length_cut_off_is_missing(tmp_path: Path, scratch: Path) -> None:
    frame = bytes(Ether() / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=4000, dport=5000) / Raw(bytes(300)))
    path = tmp_path / "a.pcap"
    path.write_bytes(struct.pack("<IHHiIIIIIII", 0xA1B2C3D4, 2, 4, 0, 0, 100, 1, 1, 2, 100, len(frame)) + frame[:100])
    (theirs,) = rows(TsharkSource([path], scratch))
    (ours,) = rows(CaptureSource([path]))
    assert theirs == ours
    assert theirs[-1] == 242


@needs_tshark
def test_where_tshark_stops_is_told_as_damage(tmp_path: Path, scratch: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes((PCAPS / "pcmu.pcap").read_bytes()[:5000])
    source = TsharkSource([path, tmp_path / "absent.pcap"], scratch)
    assert len(list(rows(source))) > 10
    assert any("tshark stopped after" in damage.text for damage in source.files[0].damage)
    assert str(tmp_path) not in "".join(damage.text for damage in source.files[0].damage)
    assert not source.files[1].readable


@needs_tshark
def test_a_format_that_only_tshark_reads(tmp_path: Path, scratch: Path) -> None:
    frame = bytes(Ether() / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=4000, dport=5000) / Raw(b"snoop"))
    padded = frame + bytes(-len(frame) % 4)
    record = struct.pack("!6I", len(frame), len(frame), 24 + len(padded), 0, 1_700_000_000, 5) + padded
    path = tmp_path / "a.snoop"
    path.write_bytes(b"snoop\0\0\0" + struct.pack("!II", 2, 4) + record)
    source = TsharkSource([path], scratch)
    ((_, _, time, *_, octets, _),) = rows(source)
    assert (time, octets) == (1_700_000_000_000_005_000, b"snoop")
    assert (source.files[0].readable, source.files[0].packets, source.files[0].link_types) == (True, 1, [1])


def test_without_tshark_the_user_is_told_what_to_install(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(scratch))
    with pytest.raises(CaptureError, match="install the package tshark"):
        TsharkSource([PCAPS / "pcmu.pcap"], scratch)


def test_a_key_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such key log file"):
        Tshark(tmp_path, tmp_path / "absent.keys", "tshark")


@given(st.lists(st.text(st.characters(codec="ascii"), max_size=12), min_size=len(FIELDS), max_size=len(FIELDS)))
def test_no_row_raises(row: list[str]) -> None:
    dissect(row)
    dissect(["1", "1.5", "60", "eth:ip:udp", *row[4:]])
    dissect(["1", "1.5", "60", "eth:vlan:ip:tcp", "192.0.2.1", "192.0.2.2", *row[6:]])
    dissect(row[1:])
