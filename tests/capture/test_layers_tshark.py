"""Real captures: what the layers find in each frame against what tshark finds there.

`SPANREC_ALL_CAPTURES=1` compares every capture there is instead of one of each kind.
"""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scapy.utils import RawPcapNgReader, RawPcapReader

from capture.batch import KIND_FRAGMENT, KIND_TCP, KIND_UDP, PacketBatch
from capture.fragments import FragmentReassembler, Payload
from capture.layers import decode_layers
from capture.tcpstreams import TcpReassembler

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

OF_EVERY_KIND = (
    "arkime__arkime/gtp-iphone.pcap",
    "open5gs__open5gs/ipsec_to_ipsec_call.pcapng",
    "open5gs__open5gs/volte.pcapng",
    "odedshimon__BruteShark/DTMFsipinfo.pcap",
    "irontec__sngrep/ipv6frag.pcap",
    "zeek__zeek/erspan.pcap",
    "ahmedelemamn__Wireshark-Captures/eth_qinq_tunnel.pcapng",
    "ahmedelemamn__Wireshark-Captures/hdlc_cisco.pcapng",
    "ahmedelemamn__Wireshark-Captures/ppp_noauth.pcapng",
    "ahmedelemamn__Wireshark-Captures/dtmf_relay_sip_rfc4733.pcapng",
    "seladb__PcapPlusPlus/sll2.pcap",
    "snort3__snort3_demo/gtpingtp.pcap",
    "drepkovsky__sip-proxy-js/reject.pcapng",
    "aboutsip__pkts/fragmented_tcp_sip.pcap",
)
EXPLAINED = {
    # L2TP is not stripped: its datagrams stay datagrams to port 1701.
    "nb6-startup.pcap",
    # Random bits flipped: where the IP or UDP length is beyond the frame we believe IP, tshark the frame or UDP.
    "fuzz-2006-06-26-2594.pcap",
    "rtp-seg-fault-1.pcapng",
}
HEURISTICS = ("-o", "esp.enable_null_encryption_decode_heuristic:TRUE", "-o", "tcp.desegment_tcp_streams:FALSE")


def chosen(captures: Path) -> list[Path]:
    if os.environ.get("SPANREC_ALL_CAPTURES"):
        return sorted(path for path in captures.rglob("*.pcap*") if path.name not in EXPLAINED)
    return [captures / "real" / name for name in OF_EVERY_KIND]


def read(path: Path) -> PacketBatch:
    """All packets of a capture, by scapy."""
    frames, links, times = [], [], []
    with path.open("rb") as file:
        reader = RawPcapReader(file)
        for octets, meta in reader:
            frames.append(octets)
            if isinstance(reader, RawPcapNgReader):
                links.append(meta.linktype)
                times.append((meta.tshigh << 32 | meta.tslow) * (10**9 // meta.tsresol))
            else:
                links.append(reader.linktype)
                times.append(meta.sec * 10**9 + meta.usec * (1 if reader.nano else 1000))
    sizes = np.array([len(frame) for frame in frames], np.int32)
    ends = np.cumsum(sizes, dtype=np.int64)
    return PacketBatch(
        buffer=np.frombuffer(b"".join(frames), np.uint8),
        time=np.array(times, np.int64),
        offset=ends - sizes,
        captured=sizes,
        wire=sizes,
        link_type=np.array(links, np.int32),
        number=np.arange(1, len(frames) + 1),
        capture=np.zeros(len(frames), np.int32),
    )


def tshark(path: Path, fields: str, *options: str) -> list[list[str]]:
    """The last occurrence of each field in every frame."""
    wanted = [word for field in fields.split() for word in ("-e", field)]
    command = ["tshark", "-n", "-r", str(path), *HEURISTICS, *options, "-T", "fields", "-E", "occurrence=l", *wanted]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line.split("\t") for line in run.stdout.splitlines()]


def innermost(protocols: str) -> str:
    """The last transport protocol of a frame that is not inside an ICMP error."""
    found = [name for name in protocols.partition(":icmp")[0].split(":") if name in ("udp", "tcp")]
    return found[-1] if found and ":icmp" not in protocols else ""


def test_every_frame_holds_the_datagram_that_tshark_sees(captures: Path):
    fields = "frame.protocols udp.srcport udp.dstport udp.length tcp.srcport tcp.dstport tcp.len"
    whole = ("-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE")
    compared = 0
    for path in chosen(captures):
        packets = read(path)
        decoded = decode_layers(packets)
        for row, theirs in enumerate(tshark(path, fields, *whole)):
            protocols, *numbers = theirs
            kind = decoded.kind[row]
            if kind == KIND_FRAGMENT:
                continue
            at, size = int(decoded.payload[row]), int(decoded.length[row] + decoded.missing[row])
            ours: tuple[int, ...] = (int(decoded.source_port[row]), int(decoded.destination_port[row]))
            name = innermost(protocols)
            assert kind == {"udp": KIND_UDP, "tcp": KIND_TCP}.get(name, kind), (path.name, row + 1, protocols)
            assert name or kind not in (KIND_UDP, KIND_TCP), (path.name, row + 1, protocols)
            if name == "udp":
                assert (*ours, size + 8) == tuple(map(int, numbers[:3])), (path.name, row + 1)
            elif name == "tcp":
                header = (int(packets.buffer[at + 12]) >> 4) * 4
                assert (*ours, size - header) == tuple(map(int, numbers[3:])), (path.name, row + 1)
            compared += 1
    assert compared > 2000


def test_every_fragmented_datagram_is_put_together_as_tshark_does(captures: Path):
    """As sets: tshark puts mirrored copies together as well, we drop them."""
    fields = "frame.protocols udp.srcport udp.length tcp.srcport tcp.len ip.reassembled.length ipv6.reassembled.length"
    count = 0
    for path in chosen(captures):
        decoded = decode_layers(read(path))
        rows = np.flatnonzero(decoded.kind == KIND_FRAGMENT)
        rebuilt = FragmentReassembler().feed(decoded, rows)
        ours = {("udp" if isinstance(each, Payload) else "tcp", each.source.port, len(each.data)) for each in rebuilt}
        theirs = set()
        for protocols, sport, size, tcp_sport, tcp_size, whole4, whole6 in tshark(path, fields) if len(rows) else ():
            name = innermost(protocols)
            if not (whole4 or whole6) or (name == "udp" and sport == "2152"):
                continue  # port 2152: the datagram inside is a fragment of its own
            if name == "udp":
                theirs.add(("udp", int(sport), int(size) - 8))
            elif name == "tcp" and int(tcp_size):
                theirs.add(("tcp", int(tcp_sport), int(tcp_size)))
        assert ours == theirs, path.name
        count += len(ours)
    assert count > 10


def follow(path: Path) -> dict[tuple[str, str], list[bytes]]:
    """Octets of every TCP direction by `tshark -z follow`."""
    streams = {int(line[0]) for line in tshark(path, "tcp.stream") if line[0]}
    wanted = [word for number in sorted(streams) for word in ("-z", f"follow,tcp,raw,{number}")]
    command = ["tshark", "-n", "-q", "-r", str(path), *HEURISTICS, *wanted]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = defaultdict(list)
    for block in output.split("Follow: tcp,raw")[1:]:
        a, b = re.search(r"Node 0: (.*)\nNode 1: (.*)\n", block).groups()
        lines = block.partition("Node 1: ")[2].splitlines()[1:]
        lines = lines[: next((k for k, line in enumerate(lines) if line.startswith("===")), len(lines))]
        found[a, b].append(bytes.fromhex("".join(line for line in lines if not line.startswith("\t"))))
        found[b, a].append(bytes.fromhex("".join(line.strip() for line in lines if line.startswith("\t"))))
    return found


@pytest.mark.parametrize(
    "name",
    [
        "aboutsip__pkts/fragmented_tcp_sip.pcap",
        "NormB__sipnab/sip-over-tcp.pcap",
        "ahmedelemamn__Wireshark-Captures/sip_prack_do_183.pcapng",
        "goffinet__sip_captures/test_voip.pcap.pcapng",
    ],
)
def test_tcp_streams_are_those_that_tshark_follows(captures: Path, name: str):
    path = captures / "real" / name
    decoded = decode_layers(read(path))
    reassembler = TcpReassembler()
    ours: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    segments = reassembler.feed(decoded, np.flatnonzero(decoded.kind == KIND_TCP)) + reassembler.flush()
    for segment in segments:
        streams = ours[str(segment.source), str(segment.destination)]
        if segment.start:
            streams.append(b"")
        streams[-1] += segment.data
    theirs = {ends: sorted(filter(None, streams)) for ends, streams in follow(path).items() if any(streams)}
    assert {ends: sorted(streams) for ends, streams in ours.items()} == theirs
    assert theirs
