"""Sound frames of every kind that the layers know, each with the name of its kind."""

from collections.abc import Iterator

from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from tests.packets import udp
from tests.tunnels import INNER_ETHERNET, INNER_IP, LINKS, LINKS6, ether, extended, six

PAYLOAD = b"INVITE sip:bob@example.com SIP/2.0\r\n\r\n"
LINK_TYPES = [*LINKS, 229, 105, 147]


def every_frame() -> Iterator[tuple[str, Packet | bytes, int]]:
    """(name, frame, link type), with a UDP datagram of PAYLOAD inside wherever the name does not say otherwise."""
    packet = udp(PAYLOAD)
    for name, wrap in INNER_IP.items():
        yield name, wrap(packet), 1
    for name, wrap in INNER_ETHERNET.items():
        yield name, wrap(ether(packet)), 1
    for link_type, wraps in LINKS.items():
        for k, link in enumerate(wraps):
            yield f"link type {link_type}, form {k}", link(bytes(packet)), link_type
    for link_type, wraps in LINKS6.items():
        for k, link in enumerate(wraps):
            yield f"link type {link_type}, IPv6, form {k}", link(bytes(six(packet))), link_type
    yield from other_frames()


def other_frames() -> Iterator[tuple[str, Packet | bytes, int]]:
    """Frames without a whole UDP datagram."""
    large = udp(PAYLOAD * 60)
    yield "TCP", ether(IP(src="192.0.2.1", dst="198.51.100.2") / TCP(sport=5060) / Raw(PAYLOAD)), 1
    yield "ARP", ether(ARP()), 1
    for part in fragment(large, fragsize=800):
        yield "IPv4 fragment", ether(part), 1
        yield "IPv4 fragment in VXLAN", INNER_ETHERNET["VXLAN"](ether(part)), 1
    base = extended(large, IPv6ExtHdrFragment(id=9))[1]
    for part in fragment6(base, 800):
        yield "IPv6 fragment", ether(part), 1
    yield "ICMP", ether(IP(proto=1) / Raw(bytes(20))), 1
    yield "no UDP header", ether(IP(proto=17) / Raw(b"abc")), 1
    yield "UDP length 0", ether(IP() / UDP(len=0) / Raw(PAYLOAD)), 1
    yield "UDP length too large", ether(IP() / UDP(len=9999) / Raw(PAYLOAD)), 1
    yield "UDP length 3", ether(IP() / UDP(len=3) / Raw(PAYLOAD)), 1
    yield "IPv4 total length 0", ether(IP(len=0) / UDP() / Raw(PAYLOAD)), 1
