import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from capture.address import parse_endpoint
from capture.batch import KIND_UDP
from capture.hep import MOST_PAYLOAD, parse_hep
from capture.hep_frames import HEADROOM, LINKTYPE_ETHERNET, LINKTYPE_RAW, put_frame
from capture.layers import decode_frame
from tests.hep_packets import SIP_MESSAGE, chunk, hep3

ENDS = [("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8::2")]


def frame_of(data: bytes) -> tuple[bytes, int]:
    packet = parse_hep(data)
    room = bytearray(b"\xaa" * (3 + HEADROOM + len(packet.payload)))
    size, link_type = put_frame(memoryview(room), 3, packet)
    assert room[:3] == b"\xaa" * 3
    assert set(room[3 + size :]) <= {0xAA}
    return bytes(room[3 : 3 + size]), link_type


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("vlan", [0, 100])
@given(payload=st.binary(min_size=1, max_size=200))
def test_a_packet_becomes_the_datagram_that_it_tells_of(ends, vlan, payload):
    data = hep3(payload, source=ends[0], destination=ends[1], more=chunk(18, vlan.to_bytes(2, "big")))
    frame, link_type = frame_of(data)
    assert link_type == (LINKTYPE_ETHERNET if vlan else LINKTYPE_RAW)
    found = decode_frame(frame, link_type)
    assert found.kind[0] == KIND_UDP
    assert frame[found.payload[0] : found.payload[0] + found.length[0]] == payload
    source, destination = parse_endpoint(ends[0], 5060), parse_endpoint(ends[1], 5080)
    assert (found.source_high[0], found.source_low[0], found.source_port[0]) == source
    assert (found.destination_high[0], found.destination_low[0], found.destination_port[0]) == destination
    assert bool(found.realm[0]) == bool(vlan)


@pytest.mark.parametrize("ends", ENDS)
def test_lengths_and_checksums_are_those_that_another_stack_computes(ends):
    frame, _ = frame_of(hep3(SIP_MESSAGE + b"x", source=ends[0], destination=ends[1]))
    packet = (IP if ends is ENDS[0] else IPv6)(frame)
    transport = packet.payload
    given_sums = (getattr(packet, "chksum", None), transport.chksum)
    for layer in (packet, transport):
        for name in ("len", "plen", "chksum"):
            if name in layer.fields:
                delattr(layer, name)
    again = type(packet)(bytes(packet))
    if ends is ENDS[0]:
        again.payload.chksum = 0
    assert bytes(again) == frame
    assert given_sums == (getattr(again, "chksum", None), again.payload.chksum)


def test_a_vlan_is_a_tag_of_an_ethernet_frame():
    frame, _ = frame_of(hep3(more=chunk(18, b"\x00\x64")))
    assert Ether(frame).vlan == 100
    assert Ether(frame)[IP].src == "192.0.2.1"


def test_the_largest_message_fits_its_lengths():
    import zlib

    frame, link_type = frame_of(hep3(packed=zlib.compress(bytes(MOST_PAYLOAD))))
    assert decode_frame(frame, link_type).length[0] == MOST_PAYLOAD
    assert len(frame) == 65_535
