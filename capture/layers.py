"""From frames to transport payloads: link layers, tunnels, IP, UDP.

In: a `PacketBatch`. Out: a `DatagramBatch` of the same length that tells, for every frame, its innermost UDP datagram,
TCP segment or IP fragment. Links: Ethernet, Linux SLL and SLL2, raw IP, BSD loopback, PPP, PPPoE, Cisco HDLC. Stripped,
nested as they come: 802.1Q, 802.1ad, QinQ, MPLS, PPPoE, IP in IP, GRE, ERSPAN I to III, VXLAN, GENEVE, GTP-U, TZSP,
EtherIP, AH, and ESP with NULL encryption. It never reassembles, copies or raises.

Realm. Two hosts with one address are told apart by the virtual network they are in: `realm` hashes the VLAN
identifiers (802.1Q, 802.1ad; priority tags do not count) and the VXLAN or GENEVE network identifier around a packet.
Both directions of a call must come out with the same realm, so what differs by direction or by link has no part in it:
MPLS labels, GTP tunnel endpoints, GRE keys, PPPoE sessions, ERSPAN session and port VLAN, and everything outside the
innermost tunnel over IP. A mirror that routes between VLANs still shows the directions in two realms; whoever looks up
an endpoint falls back to other realms.
"""

import numpy as np

from capture._layer_kernels import decode
from capture.batch import Bytes, DatagramBatch, PacketBatch


def decode_layers(packets: PacketBatch, realm: int = 0) -> DatagramBatch:
    """Innermost datagram of every frame; `realm` is where the frames already are (0 unless rebuilt from fragments)."""
    n = len(packets)
    kind = np.empty(n, np.uint8)
    payload = np.empty(n, np.int64)
    length = np.empty(n, np.int32)
    missing = np.empty(n, np.int32)
    addresses = np.zeros((4, n), np.uint64)
    ports = np.zeros((2, n), np.uint16)
    realms = np.empty(n, np.uint32)
    ip_id = np.zeros(n, np.uint16)
    decode(
        read_only(packets.buffer),
        packets.offset,
        packets.captured,
        packets.wire,
        packets.link_type,
        realm,
        kind,
        payload,
        length,
        missing,
        addresses,
        ports,
        realms,
        ip_id,
    )
    return DatagramBatch(
        packets=packets,
        kind=kind,
        payload=payload,
        length=length,
        missing=missing,
        source_high=addresses[0],
        source_low=addresses[1],
        destination_high=addresses[2],
        destination_low=addresses[3],
        source_port=ports[0],
        destination_port=ports[1],
        realm=realms,
        ip_id=ip_id,
    )


def decode_frame(frame: bytes, link_type: int, *, wire: int | None = None, realm: int = 0) -> DatagramBatch:
    """The same for one frame: a `DatagramBatch` of length 1 over a buffer that holds only `frame`."""
    packets = PacketBatch(
        buffer=np.frombuffer(frame, np.uint8),
        time=np.zeros(1, np.int64),
        offset=np.zeros(1, np.int64),
        captured=np.array([len(frame)], np.int32),
        wire=np.array([len(frame) if wire is None else wire], np.int32),
        link_type=np.array([link_type], np.int32),
        number=np.ones(1, np.int64),
        capture=np.zeros(1, np.int32),
    )
    return decode_layers(packets, realm)


def read_only(buffer: Bytes) -> Bytes:
    """View of a buffer that cannot be written: kernels are compiled once, for read-only buffers."""
    if buffer.flags.writeable:
        buffer = buffer.view()
        buffer.flags.writeable = False
    return buffer
