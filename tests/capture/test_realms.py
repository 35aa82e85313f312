"""Realms by the identifiers of networks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import CookedLinuxV2, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN

from capture.layers import decode_frame
from capture.realms import realm_of_vlans, realm_of_vni

ETHERNET = 1
SLL2 = 276
DATAGRAM = IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=4000, dport=5060) / b"OPTIONS"


def realm_on_the_wire(*vlans: int, vni: int | None = None) -> int:
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for vlan in vlans:
        frame /= Dot1Q(vlan=vlan)
    frame /= DATAGRAM
    if vni is not None:
        carrier = Ether(src="02:00:00:00:00:03", dst="02:00:00:00:00:04") / Dot1Q(vlan=9)
        frame = carrier / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=4789) / VXLAN(vni=vni, flags=8) / frame
    return int(decode_frame(bytes(frame), ETHERNET).realm[0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4095), max_size=3))
def test_tags_give_the_realm_of_packets_behind_them(vlans):
    assert realm_of_vlans(*vlans) == realm_on_the_wire(*vlans)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, (1 << 24) - 1), st.lists(st.integers(0, 4095), max_size=2))
def test_a_network_identifier_gives_the_realm_of_packets_in_its_tunnel(vni, vlans):
    assert realm_of_vni(vni, *vlans) == realm_on_the_wire(*vlans, vni=vni)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4095), max_size=3))
def test_what_is_captured_on_all_interfaces_is_in_the_same_realms(vlans):
    packet = Dot1Q(vlan=vlans[0]) if vlans else DATAGRAM
    for vlan in vlans[1:]:
        packet /= Dot1Q(vlan=vlan)
    cooked = CookedLinuxV2(ifindex=2, lladdrtype=1) / (packet / DATAGRAM if vlans else packet)
    assert int(decode_frame(bytes(cooked), SLL2).realm[0]) == realm_of_vlans(*vlans)


@pytest.mark.parametrize("vlans", [(), (0,)])
def test_what_is_in_no_network_is_in_realm_0(vlans):
    assert realm_of_vlans(*vlans) == 0


def test_the_order_of_tags_counts():
    assert realm_of_vlans(10, 100) != realm_of_vlans(100, 10)
