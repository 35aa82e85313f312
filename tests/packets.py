"""Packets for tests: scapy builds frames, `batch` puts them into the columns that a source would fill."""

from collections.abc import Sequence

import numpy as np
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from capture.batch import PacketBatch

ETHERNET = 1
RAW_IP = 101
SECOND = 1_000_000_000


def batch(
    frames: Sequence[bytes | Packet],
    *,
    link_type: int = ETHERNET,
    times: Sequence[int] | None = None,
    snap: int | None = None,
    first_number: int = 1,
) -> PacketBatch:
    """Frames one after the other in a buffer, 1 ms apart from second 1 on unless `times` (ns) are given.

    `snap` cuts every frame to so many octets, as a snap length would.
    """
    whole = [bytes(frame) for frame in frames]
    octets = [frame[:snap] for frame in whole]
    sizes = np.array([len(each) for each in octets], np.int32)
    ends = np.cumsum(sizes, dtype=np.int64)
    if times is None:
        times = [SECOND + 1_000_000 * k for k in range(len(whole))]
    return PacketBatch(
        buffer=np.frombuffer(b"".join(octets), np.uint8),
        time=np.array(times, np.int64),
        offset=ends - sizes,
        captured=sizes,
        wire=np.array([len(each) for each in whole], np.int32),
        link_type=np.full(len(whole), link_type, np.int32),
        number=np.arange(first_number, first_number + len(whole), dtype=np.int64),
        capture=np.zeros(len(whole), np.int32),
    )


def udp(
    payload: bytes = b"payload",
    *,
    source: str = "192.0.2.1",
    destination: str = "198.51.100.2",
    sport: int = 4000,
    dport: int = 5000,
) -> Packet:
    """An IPv4 packet with a UDP datagram, without link layer."""
    return IP(src=source, dst=destination, id=7) / UDP(sport=sport, dport=dport) / Raw(payload)


def ethernet(packet: Packet) -> Packet:
    """The packet in an Ethernet II frame with fixed addresses."""
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet


def tcp(
    payload: bytes = b"",
    *,
    sequence: int = 1000,
    flags: str = "A",
    source: str = "192.0.2.1",
    destination: str = "198.51.100.2",
    sport: int = 4000,
    dport: int = 5060,
) -> Packet:
    """An Ethernet frame with an IPv4 packet with a TCP segment."""
    segment = TCP(sport=sport, dport=dport, seq=sequence & 0xFFFFFFFF, flags=flags)
    packet = ethernet(IP(src=source, dst=destination) / segment)
    return packet / Raw(payload) if payload else packet
