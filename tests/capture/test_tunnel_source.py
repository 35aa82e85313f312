"""Tunnels that end at this machine: over the loopback, and over wires in a network namespace."""

import os
import socket
import struct
import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

from bench.veth import entered, is_possible, run, wire
from capture.batch import KIND_UDP
from capture.datagram_slots import DatagramSlots, ask_for_times
from capture.layers import decode_layers
from capture.live import LiveCaptureError
from capture.ring import RingOptions, RingSource
from capture.source import CaptureSource
from capture.tunnel_source import MOST_FRAME, TunnelSource
from tests.capture.live_frames import Sender, datagram, frames_of, take, without_net_raw
from tests.capture_builder import record
from tests.packets import udp
from tests.tunnels import INNER_ETHERNET, ether

PCAPS = Path(__file__).resolve().parents[2] / "pcaps"
HERE = f"127.{os.getpid() >> 8 & 127}.{os.getpid() & 255}.1"
"""An address of the loopback that no other process of the tests listens on."""
ERSPAN = b"\x10" + bytes(7)
"""An ERSPAN II header."""
VXLAN = b"\x08\0\0\0\0\0\x05\0"
KINDS = ["GRE bridged", "ERSPAN I", "ERSPAN II", "ERSPAN III", "ERSPAN III, platform", "NVGRE"]
UDP_KINDS = ["VXLAN", "VXLAN group policy", "GENEVE", "GENEVE options", "TZSP", "TZSP tags"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets take root")
needs_wires = pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and network namespaces")


@pytest.fixture
def tunnels():
    source = TunnelSource(HERE, gre=os.geteuid() == 0)
    yield source
    source.close()


def send(kind: str, frame: bytes, to: str = HERE, times: int = 1) -> None:
    """Send a frame through the kernel in a tunnel of this kind."""
    packet = INNER_ETHERNET[kind](Ether(frame))
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    if packet[IP].proto == 17:
        way, octets, place = (socket.SOCK_DGRAM, 0), bytes(packet[UDP].payload), (to, packet[UDP].dport)
    else:
        way, octets, place = (socket.SOCK_RAW, 47), bytes(packet[IP].payload), (to, 0)
    with socket.socket(family, *way) as peer:
        for _ in range(times):
            peer.sendto(octets, place)


def datagrams(source: TunnelSource, count: int = 1, patience: float = 5.0) -> list[bytes]:
    """Payloads of the datagrams inside the tunnels."""
    found: list[bytes] = []
    until = time.monotonic() + patience
    while len(found) < count and time.monotonic() < until:
        batch = source.poll(0.05)
        if batch is None:
            continue
        rows = decode_layers(batch)
        for row in np.flatnonzero(rows.kind == KIND_UDP).tolist():
            at = int(rows.payload[row])
            found.append(batch.buffer[at : at + int(rows.length[row])].tobytes())
    return found


@needs_root
@pytest.mark.parametrize("kind", KINDS + UDP_KINDS)
def test_every_kind_of_tunnel_gives_what_it_carries(tunnels, kind):
    send(kind, bytes(ether(udp(b"inside"))))
    assert datagrams(tunnels) == [b"inside"]


@pytest.mark.parametrize("kind", ["ERSPAN II", "VXLAN"])
def test_tunnels_over_ipv6_give_what_they_carry(kind):
    if kind == "ERSPAN II" and os.geteuid() != 0:
        pytest.skip("raw sockets take root")
    try:
        source = TunnelSource("::1", gre=kind == "ERSPAN II", udp_ports=() if kind == "ERSPAN II" else (4789,))
    except LiveCaptureError as error:
        pytest.skip(str(error))
    send(kind, bytes(ether(udp(b"inside"))), "::1")
    send(kind, bytes(ether(udp(b"inside again"))), "::1")
    batch = source.poll(5)
    packet = IPv6(batch.buffer[int(batch.offset[0]) :][: int(batch.captured[0])].tobytes())
    assert (packet.src, packet.dst, packet.plen) == ("::1", "::1", int(batch.captured[0]) - 40)
    rows = decode_layers(batch)
    found = [batch.buffer[at : at + size].tobytes() for at, size in zip(rows.payload, rows.length, strict=True)]
    assert found == [b"inside", b"inside again"][: len(found)]
    source.close()


def test_what_came_over_udp_has_sound_headers_and_its_sender():
    source = TunnelSource(HERE, gre=False, udp_ports=(4789,))
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind((HERE, 0))
        for size in (1, 200, 1501):
            peer.sendto(bytes(size), (HERE, 4789))
        frames = [each.octets for each in take(source, 3)]
        port = peer.getsockname()[1]
    for frame, size in zip(frames, (1, 200, 1501), strict=True):
        packet = IP(frame)
        assert (packet.src, packet.dst, packet.sport, packet.dport) == (HERE, HERE, port, 4789)
        assert (packet.len, packet[UDP].len, len(frame)) == (28 + size, 8 + size, 28 + size)
        given_sum = packet.chksum
        del packet.chksum
        assert IP(bytes(packet)).chksum == given_sum
    source.close()


def test_frames_have_the_kernels_times_and_are_numbered_on(tunnels):
    before = time.time_ns()
    send("VXLAN", bytes(ether(udp(b"inside"))), times=2)
    time.sleep(0.1)
    between = time.time_ns()
    time.sleep(0.1)
    send("GENEVE", bytes(ether(udp(b"inside"))))
    frames = take(tunnels, 3)
    assert [frame.number for frame in frames] == [1, 2, 3]
    assert before <= frames[0].time <= frames[1].time < between - 50_000_000
    assert frames[2].time > between + 50_000_000
    assert {(frame.link_type, frame.capture) for frame in frames} == {(101, 0)}
    counters = tunnels.counters()
    assert (counters.packets, counters.octets) == (3, sum(frame.wire for frame in frames))
    assert (counters.dropped, counters.up, counters.note) == (0, True, None)


def test_a_frame_that_is_too_long_is_cut_and_told(tunnels):
    inner = bytes(ether(udp(bytes(MOST_FRAME))))
    send("VXLAN", inner)
    (frame,) = take(tunnels, 1)
    assert frame.wire == 28 + 8 + len(inner)
    assert len(frame.octets) == 28 + MOST_FRAME
    assert tunnels.counters().note == f"frames cut at {MOST_FRAME} octets: 1"


def test_what_the_kernel_had_to_drop_is_counted(tunnels):
    for opened in tunnels._opened:
        opened.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    send("VXLAN", bytes(ether(udp(bytes(500)))), times=60)
    taken = len(take(tunnels, 60, 0.3))
    assert 0 < taken < 60
    assert tunnels.counters().dropped == 60 - taken


def test_no_socket_starves_the_others(tunnels):
    send("VXLAN", bytes(ether(udp(b"many"))), times=1500)
    send("TZSP", bytes(ether(udp(b"one"))))
    found = datagrams(tunnels, 1501)
    assert found.count(b"many") == 1500
    assert b"one" in found


def test_poll_waits_no_longer_than_told(tunnels):
    begun = time.monotonic()
    assert tunnels.poll(0.1) is None
    assert 0.09 < time.monotonic() - begun < 1
    send("VXLAN", bytes(ether(udp(b"inside"))))
    begun = time.monotonic()
    assert tunnels.poll(0) is not None
    assert time.monotonic() - begun < 1


def test_a_closed_source_is_down_and_gives_nothing(tunnels):
    tunnels.close()
    tunnels.close()
    assert tunnels.poll(1) is None
    assert tunnels.counters().up is False


@pytest.mark.parametrize(
    ("address", "options", "text"),
    [
        ("0.0.0.0", {}, "name the one that tunnels are sent to"),
        ("switch.example.org", {}, "no IP address"),
        ("192.0.2.1", {"gre": False}, "this machine does not have that address"),
        ("127.0.0.1", {"gre": False, "udp_ports": ()}, "no kind of tunnel is left"),
    ],
)
def test_what_cannot_be_listened_for_is_explained(address, options, text):
    with pytest.raises(LiveCaptureError, match=text):
        TunnelSource(address, **options)


@needs_root
def test_a_missing_right_is_explained():
    with without_net_raw(), pytest.raises(LiveCaptureError, match="give CAP_NET_RAW"):
        TunnelSource(HERE)


def test_a_port_that_is_taken_is_explained(tunnels):
    with pytest.raises(LiveCaptureError, match="another program listens there"):
        TunnelSource(HERE, gre=False)


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20), st.integers(0, 3))
def test_many_datagrams_at_once_are_those_that_come_one_by_one(sent, begin):
    slots = DatagramSlots(24, 64, 200)
    with (
        socket.socket(type=socket.SOCK_DGRAM) as many,
        socket.socket(type=socket.SOCK_DGRAM) as one,
        socket.socket(type=socket.SOCK_DGRAM) as peer,
    ):
        for each in (many, one, peer):
            each.bind((HERE, 0))
        ask_for_times(many)
        for octets in sent:
            peer.sendto(octets, many.getsockname())
            peer.sendto(octets, one.getsockname())
        assert slots.receive(many, begin) == len(sent)
        assert slots.receive(many, begin) == 0
        for row in range(begin, begin + len(sent)):
            expected, sender = one.recvfrom(1000)
            length = int(slots.lengths[row])
            assert length == len(expected)
            assert slots.rows[row, 64 : 64 + min(length, 200)].tobytes() == expected[:200]
            family, port, address = struct.unpack("=H2s4s", slots.names[row, :8].tobytes())
            assert family == socket.AF_INET
            assert (socket.inet_ntoa(address), int.from_bytes(port, "big")) == sender
            assert abs(int(slots.times[row]) - time.time_ns()) < 10 * 10**9


def test_a_call_that_came_through_a_tunnel_is_the_call_that_was_mirrored(tunnels, tmp_path):
    capture = PCAPS / "pcmu.pcap"
    mirrored: list[tuple[int, bytes]] = []
    for batch in CaptureSource([capture], hash_files=False):
        mirrored += [(frame.time, frame.octets) for frame in frames_of(batch)]
    received: list[bytes] = []
    for begin in range(0, len(mirrored), 100):
        part = mirrored[begin : begin + 100]
        for _, octets in part:
            send("VXLAN", octets)
        received += [frame.octets for frame in take(tunnels, len(part))]
    with (tmp_path / "received.pcap").open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101))
        for (moment, _), octets in zip(mirrored, received, strict=True):
            out.write(struct.pack("<IIII", *divmod(moment, 10**9), len(octets), len(octets)) + octets)
    (live,) = record([tmp_path / "received.pcap"], tmp_path / "live")
    (replayed,) = record([capture], tmp_path / "replayed")
    assert live.document["audio"]["sha256"] == replayed.document["audio"]["sha256"]
    for key in ("call_id", "state", "caller", "callee", "started", "answered", "ended", "streams", "warnings"):
        assert live.document[key] == replayed.document[key], key


@pytest.fixture(scope="module")
def over():
    with wire("tunnel") as made:
        run("ip", "-n", made.namespace, "address", "add", "10.9.0.2/24", "dev", made.receiver)
        with entered(made.namespace):
            for setting in ("all", made.receiver):
                Path(f"/proc/sys/net/ipv4/conf/{setting}/rp_filter").write_text("0")
        yield made


def mirrored_to(over, packet, address: str = "10.9.0.2"):
    """A tunnel packet from a switch, as it is on the wire to this machine."""
    described = run("ip", "-n", over.namespace, "-o", "link", "show", over.receiver)
    link = described.split("link/ether ")[1].split()[0]
    return Ether(src="02:00:00:00:00:09", dst=link) / IP(src="10.9.0.9", dst=address) / packet


@needs_wires
def test_the_kernel_puts_fragments_of_the_carrier_together(over):
    carried = GRE(seqnum_present=1, proto=0x88BE) / Raw(ERSPAN + bytes(ether(udp(bytes(1400)))))
    pieces = fragment(mirrored_to(over, carried), fragsize=800)
    assert len(pieces) == 2
    with entered(over.namespace):
        source = TunnelSource("10.9.0.2")
    with closing(source), Sender(over.namespace, over.sender) as sender:
        sender.send(*reversed(pieces))
        assert datagrams(source) == [bytes(1400)]


@needs_wires
def test_beside_a_ring_on_the_same_interface_nothing_comes_twice(over):
    inner = bytes(ether(udp(b"tunnelled")))
    vxlan = UDP(sport=49152, dport=4789) / Raw(VXLAN + inner)
    erspan = GRE(seqnum_present=1, proto=0x88BE) / Raw(ERSPAN + inner)
    large = UDP(sport=49152, dport=4789) / Raw(VXLAN + bytes(1500))
    ours = [mirrored_to(over, vxlan), mirrored_to(over, erspan), *fragment(mirrored_to(over, large), fragsize=800)]
    others = [
        datagram(b"plain"),
        mirrored_to(over, vxlan, "10.9.0.3"),
        mirrored_to(over, UDP(dport=5060) / Raw(b"sip")),
    ]
    small = {"ring_size": 2 << 20, "block_size": 64 << 10, "retire_ms": 10, "pace": 0.0, "outgoing": False}
    with ExitStack() as stack:
        with entered(over.namespace):
            source = stack.enter_context(closing(TunnelSource("10.9.0.2")))
            without, with_default, with_all, with_some = (
                stack.enter_context(closing(RingSource((over.receiver,), RingOptions(**options, **small))))
                for options in (
                    {},
                    {"excluded": source.expression},
                    {"excluded": source.expression, "expression": ""},
                    {"excluded": source.expression, "expression": "udp port 9"},
                )
            )
        with Sender(over.namespace, over.sender) as sender:
            sender.send(*ours, *others)
        assert sorted(IP(frame.octets).proto for frame in take(source, 3)) == [17, 17, 47]
        assert len(take(without, 7)) == 7
        wanted = [bytes(each) for each in others]
        assert [each.octets for each in take(with_default, 3)] == wanted
        assert [each.octets for each in take(with_all, 3)] == wanted
        assert [each.octets for each in take(with_some, 1)] == wanted[1:2]


@needs_wires
def test_no_interface_is_promiscuous_for_it_and_no_switch_is_answered(over):
    erspan = GRE(seqnum_present=1, proto=0x88BE) / Raw(ERSPAN + bytes(ether(udp(b"inside"))))
    vxlan = UDP(sport=49152, dport=4789) / Raw(VXLAN + bytes(ether(udp(b"inside"))))
    with entered(over.namespace):
        source = TunnelSource("10.9.0.2")
        wire_side = RingSource((over.sender,), RingOptions(expression="", ring_size=2 << 20, block_size=64 << 10))
    with closing(source), closing(wire_side), Sender(over.namespace, over.sender) as sender:
        assert "promiscuity 0" in run("ip", "-n", over.namespace, "-d", "-o", "link", "show", over.receiver)
        sent = [mirrored_to(over, erspan), mirrored_to(over, vxlan)]
        sender.send(*sent)
        assert datagrams(source, 2) == [b"inside"] * 2
        assert [each.octets for each in take(wire_side, 2)] == [bytes(each) for each in sent]
