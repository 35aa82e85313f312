"""Layers and tunnels: what comes out is the innermost datagram that scapy put in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from capture.address import Endpoint
from capture.batch import KIND_FRAGMENT, KIND_NONE, KIND_OTHER, KIND_TCP, KIND_UDP, DatagramBatch
from capture.layers import decode_frame, decode_layers
from tests.capture.frames import PAYLOAD, every_frame, other_frames
from tests.packets import batch, ethernet, udp
from tests.tunnels import INNER_ETHERNET, INNER_IP, ether, outer_udp

OTHER_NAMES = {name for name, _, _ in other_frames()}
SOUND = [(name, bytes(frame), link) for name, frame, link in every_frame() if name not in OTHER_NAMES]
SIP = b"OPTIONS sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\n\r\n"
RTP = b"\x80\x00\x12\x34" + bytes(168)
STUN = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
TUNNEL_PORTS = (2152, 4500, 4789, 6081, 6635, 8472, 37008)


def payload(decoded: DatagramBatch, row: int = 0) -> bytes:
    at = int(decoded.payload[row])
    return decoded.packets.buffer[at : at + int(decoded.length[row])].tobytes()


def realm(packet: Packet) -> int:
    decoded = decode_frame(bytes(packet), 1)
    assert decoded.kind[0] == KIND_UDP
    return int(decoded.realm[0])


@pytest.mark.parametrize(("name", "frame", "link"), SOUND, ids=[name for name, _, _ in SOUND])
def test_every_link_and_tunnel_gives_the_datagram_inside(name: str, frame: bytes, link: int):
    decoded = decode_frame(frame, link)
    assert decoded.kind[0] == KIND_UDP
    assert payload(decoded) == PAYLOAD
    assert (decoded.source_port[0], decoded.destination_port[0], decoded.missing[0]) == (4000, 5000, 0)
    inner6 = decoded.source_high[0] != 0
    source = Endpoint(int(decoded.source_high[0]), int(decoded.source_low[0]), 4000)
    assert source.host == ("2001:db8::1" if inner6 else "192.0.2.1")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(sorted(INNER_IP) + sorted(INNER_ETHERNET)), min_size=1, max_size=5))
def test_tunnels_nest_in_any_order(names: list[str]):
    ip: Packet = udp(PAYLOAD)
    frame = ether(ip)
    for name in names:
        if name in INNER_ETHERNET:
            frame = INNER_ETHERNET[name](frame)
        elif UDP not in ip or name in ("IPv4 options", "AH") or name.startswith(("ESP", "IPv6", "GRE IPv6")):
            continue  # these rebuild the innermost datagram instead of carrying a packet
        elif IP in frame:
            frame = INNER_IP[name](IP(bytes(frame[IP])))
    decoded = decode_frame(bytes(frame), 1)
    assert decoded.kind[0] == KIND_UDP
    assert payload(decoded) == PAYLOAD


@pytest.mark.parametrize("port", TUNNEL_PORTS)
@pytest.mark.parametrize("content", [SIP, RTP, STUN, b"", b"\x08", bytes(40), b"\xff" * 40])
def test_other_traffic_on_the_port_of_a_tunnel_stays_what_it_is(port: int, content: bytes):
    for sport, dport in ((4000, port), (port, 4000), (port, port)):
        decoded = decode_frame(bytes(ethernet(udp(content, sport=sport, dport=dport))), 1)
        assert decoded.kind[0] == KIND_UDP
        assert payload(decoded) == content
        assert (decoded.source_port[0], decoded.destination_port[0]) == (sport, dport)


def test_a_tunnel_with_nothing_of_ip_inside_is_a_datagram():
    frame = ether(outer_udp(4789) / VXLAN(vni=5) / ether(b"\x00\x01" + bytes(26), 0x0806))
    decoded = decode_frame(bytes(frame), 1)
    assert (decoded.kind[0], decoded.destination_port[0], decoded.realm[0]) == (KIND_UDP, 4789, 0)


def test_kinds_other_than_datagrams():
    kinds = {name: decode_frame(bytes(frame), link).kind[0] for name, frame, link in other_frames()}
    assert kinds["TCP"] == KIND_TCP
    assert kinds["ARP"] == KIND_NONE
    assert kinds["ICMP"] == kinds["no UDP header"] == KIND_OTHER
    assert kinds["IPv4 fragment"] == kinds["IPv6 fragment"] == kinds["IPv4 fragment in VXLAN"] == KIND_FRAGMENT
    assert decode_frame(bytes(ethernet(udp())), 147).kind[0] == KIND_NONE  # LINKTYPE_USER0


def test_tcp_and_fragments_point_at_their_headers():
    for name, frame, link in other_frames():
        decoded = decode_frame(bytes(frame), link)
        if name == "TCP":
            assert payload(decoded)[2:4] == b"\x00\x50"
            assert len(payload(decoded)) == 20 + len(PAYLOAD)
            assert (decoded.source_port[0], decoded.destination_port[0]) == (5060, 80)
        elif "fragment" in name:
            assert payload(decoded)[0] >> 4 == (6 if "IPv6" in name else 4)
            assert decoded.source_low[0] != 0


@pytest.mark.parametrize("wrong", [0, 3, 9999])
def test_a_wrong_udp_length_gives_way_to_what_ip_says(wrong: int):
    frame = ether(IP() / UDP(len=wrong) / Raw(PAYLOAD))
    assert payload(decode_frame(bytes(frame), 1)) == PAYLOAD


def test_a_short_udp_length_trims_the_payload_and_padding_is_no_payload():
    frame = bytes(ether(IP() / UDP(len=8 + 10) / Raw(PAYLOAD)))
    assert payload(decode_frame(frame, 1)) == PAYLOAD[:10]
    assert payload(decode_frame(bytes(ethernet(udp(b"a"))) + bytes(17), 1)) == b"a"
    assert payload(decode_frame(bytes(ethernet(udp(b""))) + bytes(18), 1)) == b""


def test_a_total_length_of_zero_means_the_whole_frame():
    frame = bytes(ether(IP(len=0) / UDP(len=0) / Raw(PAYLOAD * 2000)))
    decoded = decode_frame(frame, 1)
    assert decoded.kind[0] == KIND_UDP
    assert payload(decoded) == PAYLOAD * 2000


@pytest.mark.parametrize("name", ["plain", "802.1Q", "GTP-U", "MPLS", "IPv6 in IPv4"])
def test_what_a_snap_length_cuts_is_counted_as_missing(name: str):
    frame = bytes(INNER_IP[name](udp(PAYLOAD)))
    for cut in range(len(PAYLOAD)):
        decoded = decode_frame(frame[: len(frame) - cut], 1, wire=len(frame))
        assert decoded.kind[0] == KIND_UDP
        assert payload(decoded) == PAYLOAD[: len(PAYLOAD) - cut]
        assert decoded.missing[0] == cut


def test_rows_keep_the_order_and_number_of_their_frames():
    frames = [ethernet(udp(bytes([k]) * k, sport=1000 + k)) for k in range(1, 50)]
    decoded = decode_layers(batch(frames))
    assert decoded.source_port.tolist() == [1000 + k for k in range(1, 50)]
    assert [payload(decoded, row) for row in range(49)] == [bytes([k]) * k for k in range(1, 50)]


def test_an_empty_batch_decodes_to_an_empty_batch():
    assert len(decode_layers(batch([]))) == 0


def test_a_writable_buffer_is_taken_as_well():
    packets = batch([ethernet(udp(b"x"))])
    packets.buffer = packets.buffer.copy()
    assert decode_layers(packets).kind.tolist() == [KIND_UDP]


def test_no_virtual_network_is_realm_zero_and_a_priority_tag_is_none():
    assert realm(ether(udp())) == 0
    assert realm(ether(Dot1Q(vlan=0, prio=5) / udp())) == 0


def test_vlans_and_network_identifiers_are_realms_of_their_own():
    inner = ether(udp())
    realms = [
        realm(ether(Dot1Q(vlan=5) / udp())),
        realm(ether(Dot1Q(vlan=6) / udp())),
        realm(ether(Dot1AD(vlan=5) / Dot1Q(vlan=6) / udp())),
        realm(ether(Dot1AD(vlan=6) / Dot1Q(vlan=5) / udp())),
        realm(ether(outer_udp(4789) / VXLAN(vni=5) / inner)),
        realm(ether(outer_udp(4789) / VXLAN(vni=6) / inner)),
        realm(ether(outer_udp(4789) / VXLAN(vni=5) / ether(Dot1Q(vlan=5) / udp()))),
    ]
    assert len(set(realms)) == len(realms)
    assert 0 not in realms
    assert realm(ether(Dot1AD(vlan=5) / udp())) == realms[0]


@pytest.mark.parametrize("name", ["GRE key", "GTP-U", "MPLS stack", "PPPoE", "IP in IP", "AH", "ESP NULL tunnel"])
def test_what_differs_by_direction_makes_no_realm(name: str):
    assert realm(INNER_IP[name](udp())) == 0


@pytest.mark.parametrize("name", ["ERSPAN II", "ERSPAN III", "TZSP", "GRE bridged", "VXLAN"])
def test_what_carries_a_tunnel_says_nothing_of_the_realm_inside(name: str):
    tunnel = INNER_ETHERNET[name](ether(Dot1Q(vlan=9) / udp()))
    carried = ether(Dot1Q(vlan=77) / IP(bytes(tunnel[IP])))
    assert realm(carried) == realm(tunnel) != 0


def test_frames_rebuilt_elsewhere_keep_their_realm():
    decoded = decode_frame(bytes(udp()), 101, realm=4711)
    assert decoded.realm[0] == 4711


def test_the_identification_of_ipv4_is_told():
    assert decode_frame(bytes(ethernet(udp())), 1).ip_id[0] == 7
    assert decode_frame(bytes(ether(Dot1Q(vlan=3) / udp())), 1).ip_id[0] == 7
    assert decode_frame(bytes(ether(IPv6() / UDP() / Raw(b"x"))), 1).ip_id[0] == 0


def test_layers_nested_without_end_stop():
    frame = udp(PAYLOAD)
    for _ in range(60):
        frame = IP(src="203.0.113.1", dst="203.0.113.2") / frame
    assert decode_frame(bytes(ethernet(frame)), 1).kind[0] == KIND_OTHER
