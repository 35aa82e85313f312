"""VLAN tags and tunnels, seen from outside."""

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from recorder.mirror_layers import MirrorLayers
from tests.packets import batch, udp


@pytest.mark.parametrize(
    ("around", "vlans", "tunnels"),
    [
        (Ether(), set(), {}),
        (Ether() / Dot1Q(vlan=100), {100}, {}),
        (Ether() / Dot1AD(vlan=7) / Dot1Q(vlan=100), {7, 100}, {}),
        (Ether() / Dot1Q(vlan=3) / IP() / UDP(dport=4789) / VXLAN() / Ether(), {3}, {"VXLAN": 1}),
        (Ether() / IP() / GRE(), set(), {"GRE": 1}),
        (Ether() / IP() / GRE(proto=0x88BE), set(), {"ERSPAN": 1}),
        (Ether() / IP(proto=4), set(), {"IP in IP": 1}),
        (Ether(type=0x8847) / Raw(bytes.fromhex("00001140")), set(), {"MPLS": 1}),
    ],
)
def test_tags_and_tunnels_are_seen_from_outside(around, vlans, tunnels):
    layers = MirrorLayers()
    layers.add(batch([around / udp(bytes(160))]))
    assert (layers.vlans, dict(layers.tunnels)) == (vlans, tunnels)


def test_arbitrary_octets_lead_nowhere_outside():
    random = np.random.default_rng(7)
    frames = [random.bytes(int(size)) for size in random.integers(0, 120, 1000)]
    layers = MirrorLayers()
    for start in ("8100", "0800", "86dd", "88a8"):
        layers.add(batch([frame[:12] + bytes.fromhex(start) + frame[14:] for frame in frames]))
    assert max(layers.vlans) < 4096
