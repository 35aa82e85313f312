import gzip
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.hep import MOST_PAYLOAD, HepPacket, Refusal, length_of_hep, parse_hep, refusal_of
from tests.hep_packets import SIP_MESSAGE, chunk, hep2, hep3, hep3_of

TIME = 1_700_000_000_123_456_000
RTCP = bytes.fromhex("80c80006000000010000000200000003000000040000000500000006")


def parsed(data: bytes) -> HepPacket:
    packet = parse_hep(data)
    assert isinstance(packet, HepPacket), packet
    return packet


@pytest.mark.parametrize("ends", [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")])
@pytest.mark.parametrize(
    ("build", "version", "time", "kind", "capture_id"),
    [
        (hep3, 3, TIME, 1, 2001),
        (hep2, 2, TIME, None, 99),
        (lambda **ends: hep2(order=">", **ends), 2, TIME, None, 99),
        (lambda **ends: hep2(version=1, **ends), 1, None, None, 0),
    ],
    ids=["HEP3", "HEP2", "HEP2 in network order", "HEP1"],
)
def test_every_version_says_who_sent_what_and_when(ends, build, version, time, kind, capture_id):
    packet = parsed(build(source=ends[0], destination=ends[1]))
    octets = [bytes.fromhex("c0000201"), bytes.fromhex("c0000202")]
    if ":" in ends[0]:
        octets = [bytes.fromhex("20010db8") + bytes(11) + bytes([last]) for last in (1, 2)]
    assert [packet.source, packet.destination] == octets
    assert (packet.source_port, packet.destination_port) == (5060, 5080)
    assert packet.payload == SIP_MESSAGE
    assert (packet.version, packet.time, packet.type, packet.capture_id) == (version, time, kind, capture_id)


def test_chunks_beyond_the_usual_ones_are_read_and_unknown_ones_passed_over():
    more = chunk(17, b"a@b") + chunk(18, struct.pack("!H", 0x6064)) + chunk(15, b"vendor's", vendor=7) + chunk(99, b"?")
    packet = parsed(hep3(key=b"secret", more=more))
    assert (packet.correlation, packet.vlan, packet.key, packet.payload) == (b"a@b", 0x64, b"secret", SIP_MESSAGE)


def test_what_follows_a_packet_is_not_its_payload():
    assert parsed(hep3() + b"more").payload == SIP_MESSAGE


@pytest.mark.parametrize("squeeze", [zlib.compress, gzip.compress])
def test_compressed_payload_is_unpacked(squeeze):
    assert parsed(hep3(packed=squeeze(SIP_MESSAGE * 50))).payload == SIP_MESSAGE * 50


@pytest.mark.parametrize(
    ("packed", "refusal"),
    [
        (zlib.compress(bytes(MOST_PAYLOAD)), None),
        (zlib.compress(bytes(MOST_PAYLOAD + 1)), Refusal.TOO_LARGE),
        (zlib.compress(bytes(50_000_000)), Refusal.TOO_LARGE),
        (zlib.compress(SIP_MESSAGE)[:-5], Refusal.BAD_COMPRESSION),
        (b"not compressed", Refusal.BAD_COMPRESSION),
        (zlib.compress(b""), Refusal.NO_PAYLOAD),
    ],
    ids=["the most", "one octet more", "a bomb", "cut", "plain", "nothing"],
)
def test_compression_yields_a_datagram_or_is_refused(packed, refusal):
    packet = parse_hep(hep3(packed=packed))
    assert packet == refusal if refusal else isinstance(packet, HepPacket)


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"", Refusal.NOT_HEP),
        (b"\x01", Refusal.NOT_HEP),
        (SIP_MESSAGE, Refusal.NOT_HEP),
        (b"HEP3", Refusal.MALFORMED),
        (b"HEP3\x00\x05", Refusal.MALFORMED),
        (b"HEP3\x00\x06", Refusal.NO_ENDPOINTS),
        (hep3()[:-1], Refusal.MALFORMED),
        (hep3_of(struct.pack("!HHH", 0, 1, 5)), Refusal.MALFORMED),
        (hep3_of(struct.pack("!HHH", 0, 1, 0)), Refusal.MALFORMED),
        (hep3_of(chunk(7, b"\x01")), Refusal.MALFORMED),
        (hep3_of(b"\x00\x00\x00"), Refusal.MALFORMED),
        (hep3_of(chunk(3, b"123"), chunk(4, b"1234")), Refusal.MALFORMED),
        (hep3_of(chunk(3, b"1234"), chunk(6, bytes(16)), chunk(15, b"x")), Refusal.NO_ENDPOINTS),
        (hep3(b""), Refusal.NO_PAYLOAD),
        (hep2()[:27], Refusal.MALFORMED),
        (hep2(b""), Refusal.NO_PAYLOAD),
        (b"\x02\x10\x63\x11" + bytes(60), Refusal.NOT_HEP),
        (hep2(bytes(MOST_PAYLOAD + 1)), Refusal.TOO_LARGE),
    ],
)
def test_what_is_unsound_is_refused_for_its_reason(data, refusal):
    assert parse_hep(data) == refusal


@pytest.mark.parametrize(
    ("kind", "payload", "refusal"),
    [
        (1, SIP_MESSAGE, None),
        (None, SIP_MESSAGE, None),
        (5, RTCP, None),
        (4, b"\x80\x00" + bytes(20), None),
        (5, b'{"sender_information":{}}', Refusal.RTCP_JSON),
        (8, bytes(20), Refusal.OTHER_PROTOCOL),
        (100, b"a line of a log", Refusal.OTHER_PROTOCOL),
    ],
)
def test_only_sip_and_raw_media_reports_are_of_use(kind, payload, refusal):
    assert refusal_of(parsed(hep3(payload, kind=kind))) == refusal


def test_a_time_that_cannot_be_is_none():
    assert parsed(hep3(time=None)).time is None
    assert parsed(hep3(time=None, more=chunk(9, struct.pack("!I", 5)) + chunk(10, b"\xff" * 4))).time is None
    assert parsed(hep2().replace(struct.pack("<I", 123_456), b"\xff" * 4)).time is None


@given(st.binary(max_size=300))
def test_any_octets_give_a_packet_or_a_refusal(data):
    for octets in (data, b"HEP3" + struct.pack("!H", 6 + len(data)) + data, b"\x02\x10\x02\x11" + data):
        found = parse_hep(octets)
        length_of_hep(octets)
        assert isinstance(found, Refusal) or (0 < len(found.payload) <= MOST_PAYLOAD)


@given(st.binary(min_size=6, max_size=40), st.integers(0, 5))
def test_the_length_of_a_packet_is_told_from_its_head_alone(rest, cut):
    data = hep3_of(chunk(15, rest))
    assert length_of_hep(data[:6]) == len(data)
    assert length_of_hep(data[:cut]) is None
