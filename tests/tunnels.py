"""Every link layer and tunnel that the layer kernels know, as functions that wrap a scapy packet.

`INNER_IP` holds tunnels that carry IP, `INNER_ETHERNET` those that carry Ethernet; each takes the packet and gives an
Ethernet frame around it. `LINKS` gives, for a link type, the frame that carries an IP packet.
"""

import struct
from collections.abc import Callable

from scapy.contrib.erspan import ERSPAN_I, ERSPAN_II, ERSPAN_III, ERSPAN_PlatformSpecific
from scapy.contrib.etherip import EtherIP
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.contrib.mpls import MPLS, EoMCW
from scapy.contrib.tzsp import TZSP, TZSPTagEnd, TZSPTagPadding, TZSPTagRawRSSIByte
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.layers.ipsec import AH, ESP, SecurityAssociation
from scapy.layers.l2 import GRE, LLC, SNAP, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

Wrap = Callable[[Packet], Packet]


def ether(packet: Packet | bytes, ethertype: int | None = None) -> Packet:
    """An Ethernet frame; the type is scapy's choice unless given."""
    head = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
    frame = Ether(**head) if ethertype is None else Ether(type=ethertype, **head)
    return frame / (Raw(packet) if isinstance(packet, bytes) else packet)


def outer(**fields: object) -> Packet:
    """The IP header around a tunnel."""
    return IP(src="203.0.113.1", dst="203.0.113.2", **fields)


def outer_udp(port: int) -> Packet:
    return outer() / UDP(sport=49152, dport=port)


def gre(packet: Packet, flags: int, protocol: int, fields: bytes) -> Packet:
    """GRE with the given first word and optional fields."""
    return ether(outer(proto=47) / Raw(struct.pack("!HH", flags, protocol) + fields + bytes(packet)))


def esp_null(packet: Packet, *, tunnel: bool, algorithm: str = "HMAC-SHA1-96") -> Packet:
    ends = IP(src="203.0.113.1", dst="203.0.113.2") if tunnel else None
    association = SecurityAssociation(
        ESP, spi=0x1234, crypt_algo="NULL", auth_algo=algorithm, auth_key=b"k" * 20, tunnel_header=ends
    )
    return ether(association.encrypt(IP(bytes(packet))))


def authenticated(packet: Packet) -> Packet:
    association = SecurityAssociation(AH, spi=0x1234, auth_algo="HMAC-SHA1-96", auth_key=b"k" * 20)
    return ether(association.encrypt(IP(bytes(packet))))


def extended(packet: Packet, *headers: Packet) -> Packet:
    """The UDP datagram of an IPv4 packet, over IPv6 with extension headers."""
    base = IPv6(src="2001:db8::1", dst="2001:db8::2")
    for header in headers:
        base /= header
    return ether(base / packet[UDP].copy())


def six(packet: Packet) -> Packet:
    """The UDP datagram of an IPv4 packet, over IPv6."""
    return IPv6(src="2001:db8::1", dst="2001:db8::2") / packet[UDP].copy()


INNER_IP: dict[str, Wrap] = {
    "plain": ether,
    "802.1Q": lambda p: ether(Dot1Q(vlan=100) / p),
    "priority tag": lambda p: ether(Dot1Q(vlan=0, prio=5) / p),
    "802.1ad": lambda p: ether(Dot1AD(vlan=7) / Dot1Q(vlan=100) / p),
    "QinQ 0x9100": lambda p: ether(struct.pack("!HHHH", 7, 0x8100, 100, 0x0800) + bytes(p), 0x9100),
    "three tags": lambda p: ether(Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / p),
    "VN-tag": lambda p: ether(struct.pack("!IH", 0x12345678, 0x0800) + bytes(p), 0x8926),
    "E-tag": lambda p: ether(bytes(6) + b"\x08\x00" + bytes(p), 0x893F),
    "Cisco metadata": lambda p: ether(b"\x01\x01\x00\x01\x00\x05\x08\x00" + bytes(p), 0x8909),
    "LLC SNAP": lambda p: Ether(bytes(ether(LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x800) / p, len(p) + 8))),
    "MPLS": lambda p: ether(MPLS(label=16, s=1) / p, 0x8847),
    "MPLS stack": lambda p: ether(MPLS(label=16, s=0) / MPLS(label=17, s=0) / MPLS(label=18, s=1) / p, 0x8847),
    "MPLS upstream": lambda p: ether(MPLS(label=16, s=1) / p, 0x8848),
    "PPPoE": lambda p: ether(PPPoE(sessionid=5) / PPP(proto=0x21) / p),
    "IP in IP": lambda p: ether(outer() / p),
    "IPv6 in IPv4": lambda p: ether(outer(proto=41) / six(p)),
    "IPv4 in IPv6": lambda p: ether(IPv6(src="2001:db8:f::1", dst="2001:db8:f::2", nh=4) / p),
    "IPv6 in IPv6": lambda p: ether(IPv6(src="2001:db8:f::1", dst="2001:db8:f::2", nh=41) / six(p)),
    "IPv4 options": lambda p: ether(
        IP(bytes(IP(src="192.0.2.1", dst="198.51.100.2", options=b"\x94\x04\0\0") / p[UDP]))
    ),
    "IPv6 hop-by-hop": lambda p: extended(p, IPv6ExtHdrHopByHop()),
    "IPv6 three headers": lambda p: extended(
        p, IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(addresses=["2001:db8::9"]), IPv6ExtHdrDestOpt()
    ),
    "IPv6 atomic fragment": lambda p: extended(p, IPv6ExtHdrFragment(offset=0, m=0, id=5)),
    "GRE": lambda p: ether(outer() / GRE() / p),
    "GRE checksum": lambda p: ether(outer() / GRE(chksum_present=1) / p),
    "GRE key": lambda p: ether(outer() / GRE(key_present=1, key=5) / p),
    "GRE checksum, key, sequence": lambda p: ether(
        outer() / GRE(chksum_present=1, key_present=1, key=5, seqnum_present=1, seqence_number=9) / p
    ),
    "GRE routing": lambda p: gre(p, 0x4000, 0x0800, bytes(4) + struct.pack("!HBBI", 0x800, 0, 4, 1) + bytes(4)),
    "GRE IPv6": lambda p: ether(outer() / GRE() / six(p)),
    "GRE MPLS": lambda p: ether(outer() / GRE(proto=0x8847) / MPLS(label=16, s=1) / p),
    "PPTP": lambda p: gre(p, 0x3081, 0x880B, struct.pack("!HHII", len(p) + 4, 1, 2, 3) + b"\xff\x03\x00\x21"),
    "PPTP compressed": lambda p: gre(p, 0x2001, 0x880B, struct.pack("!HH", len(p) + 1, 1) + b"\x21"),
    "ERSPAN III with raw IP": lambda p: ether(
        outer() / GRE(seqnum_present=1, proto=0x22EB) / Raw(b"\x20\x05" + bytes(8) + b"\x08\x00" + bytes(p))
    ),
    "GTP-U": lambda p: ether(outer_udp(2152) / GTP_U_Header(teid=5) / p),
    "GTP-U sequence": lambda p: ether(outer_udp(2152) / GTP_U_Header(teid=5, S=1, seq=9) / p),
    "GTP-U extension": lambda p: ether(
        outer_udp(2152) / GTP_U_Header(teid=5, E=1, next_ex=0x85) / GTPPDUSessionContainer(type=1, QFI=3) / p
    ),
    "GENEVE IP": lambda p: ether(outer_udp(6081) / GENEVE(vni=5, proto=0x0800) / p),
    "VXLAN IP": lambda p: ether(outer_udp(4790) / VXLAN(vni=5) / p),
    "MPLS in UDP": lambda p: ether(outer_udp(6635) / MPLS(label=16, s=1) / p),
    "MPLS in IP": lambda p: ether(outer(proto=137) / MPLS(label=16, s=1) / p),
    "AH": authenticated,
    "ESP NULL": lambda p: esp_null(p, tunnel=False),
    "ESP NULL SHA-256": lambda p: esp_null(p, tunnel=False, algorithm="SHA2-256-128"),
    "ESP NULL tunnel": lambda p: esp_null(p, tunnel=True),
}

INNER_ETHERNET: dict[str, Wrap] = {
    "MPLS pseudowire": lambda f: ether(MPLS(label=16, s=1) / Raw(bytes(f)), 0x8847),
    "MPLS pseudowire, control word": lambda f: ether(MPLS(label=16, s=1) / EoMCW(seq=1) / f, 0x8847),
    "GRE bridged": lambda f: ether(outer() / GRE(proto=0x6558) / f),
    "NVGRE": lambda f: ether(outer() / GRE(proto=0x6558, key_present=1, key=0x123456) / f),
    "ERSPAN I": lambda f: ether(outer() / GRE(proto=0x88BE) / ERSPAN_I() / f),
    "ERSPAN II": lambda f: ether(outer() / GRE(seqnum_present=1, proto=0x88BE) / ERSPAN_II(vlan=3) / f),
    "ERSPAN III": lambda f: ether(outer() / GRE(seqnum_present=1, proto=0x22EB) / ERSPAN_III(vlan=3) / f),
    "ERSPAN III, platform": lambda f: ether(
        outer() / GRE(seqnum_present=1, proto=0x22EB) / ERSPAN_III(o=1) / ERSPAN_PlatformSpecific(platf_id=1) / f
    ),
    "VXLAN": lambda f: ether(outer_udp(4789) / VXLAN(vni=5, flags="Instance") / f),
    "VXLAN Linux port": lambda f: ether(outer_udp(8472) / VXLAN(vni=5, flags="Instance") / f),
    "VXLAN next protocol": lambda f: ether(outer_udp(4790) / VXLAN(vni=5) / f),
    "VXLAN group policy": lambda f: ether(outer_udp(4789) / VXLAN(vni=5, flags="Instance+G", gpid=77) / f),
    "GENEVE": lambda f: ether(outer_udp(6081) / GENEVE(vni=5, proto=0x6558) / f),
    "GENEVE options": lambda f: ether(
        outer_udp(6081) / Raw(b"\x03\x40\x65\x58\x00\x00\x05\x00" + bytes(12) + bytes(f))
    ),
    "GTP-U Ethernet": lambda f: ether(outer_udp(2152) / Raw(struct.pack("!BBHI", 0x30, 255, len(f), 5) + bytes(f))),
    "TZSP": lambda f: ether(outer_udp(37008) / TZSP(type=0, encapsulated_protocol=1) / TZSPTagEnd() / f),
    "TZSP tags": lambda f: ether(
        outer_udp(37008)
        / TZSP(type=0, encapsulated_protocol=1)
        / TZSPTagPadding()
        / TZSPTagRawRSSIByte(raw_rssi=3)
        / TZSPTagEnd()
        / f
    ),
    "EtherIP": lambda f: ether(outer() / EtherIP() / f),
}

LINKS: dict[int, list[Callable[[bytes], bytes]]] = {
    1: [lambda ip: bytes(ether(ip, 0x0800))],
    113: [lambda ip: struct.pack("!HHH8sH", 0, 1, 6, b"\2\0\0\0\0\1", 0x0800) + ip],
    276: [
        lambda ip: struct.pack("!HHIHBB8s", 0x0800, 0, 2, 1, 0, 6, b"\2\0\0\0\0\1") + ip,
        lambda ip: struct.pack("!HHIHBB8sHH", 0x8100, 0, 2, 1, 0, 6, b"\2\0\0\0\0\1", 9, 0x0800) + ip,
    ],
    101: [lambda ip: ip],
    12: [lambda ip: ip],
    14: [lambda ip: ip],
    228: [lambda ip: ip],
    0: [lambda ip: struct.pack("<I", 2) + ip, lambda ip: struct.pack(">I", 2) + ip],
    108: [lambda ip: struct.pack(">I", 2) + ip],
    9: [lambda ip: b"\xff\x03\x00\x21" + ip, lambda ip: b"\x00\x21" + ip, lambda ip: b"\x21" + ip],
    50: [lambda ip: b"\xff\x03\x00\x21" + ip, lambda ip: b"\x0f\x00\x08\x00" + ip],
    51: [lambda ip: struct.pack("!BBHHH", 0x11, 0, 5, len(ip) + 2, 0x21) + ip],
    104: [lambda ip: b"\x0f\x00\x08\x00" + ip],
}
LINKS6: dict[int, list[Callable[[bytes], bytes]]] = {
    101: [lambda ip: ip],
    229: [lambda ip: ip],
    0: [lambda ip, n=number: struct.pack("<I", n) + ip for number in (10, 23, 24, 28, 30)],
    9: [lambda ip: b"\x00\x57" + ip],
}
