"""Fragments of UDP, TCP and tunnels, over IPv4 and IPv6, become the datagrams that they were cut from."""

import random
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet, Raw

import capture.fragments
from capture.batch import KIND_FRAGMENT
from capture.fragments import MAX_AGE, FragmentReassembler, Payload
from capture.layers import decode_layers
from capture.tcpstreams import TcpPacket
from tests.packets import SECOND, batch, udp
from tests.tunnels import INNER_ETHERNET, INNER_IP, ether

TEXT = b"INVITE sip:bob@example.com SIP/2.0\r\n" + bytes(range(256)) * 15
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2")


def pieces(text: bytes = TEXT, *, size: int = 800, number: int = 7, **ports: int) -> list[Packet]:
    """Fragments of a UDP datagram over IPv4."""
    packet = udp(text, **ports)
    packet.id = number
    return fragment(packet, fragsize=size)


def pieces6(text: bytes = TEXT, number: int = 9) -> list[Packet]:
    packet = V6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(id=number) / UDP(sport=4000, dport=5000) / Raw(text)
    return fragment6(packet, 900)


def feed(
    reassembler: FragmentReassembler,
    packets: Sequence[Packet | bytes],
    times: list[int] | None = None,
    snap: int | None = None,
) -> list[Payload | TcpPacket]:
    frames = [packet if isinstance(packet, bytes) or packet.name == "Ethernet" else ether(packet) for packet in packets]
    datagrams = decode_layers(batch(frames, times=times, snap=snap))
    return reassembler.feed(datagrams, np.flatnonzero(datagrams.kind == KIND_FRAGMENT))


def data(results: Sequence[Payload | TcpPacket]) -> list[bytes]:
    return [result.data for result in results]


def test_a_datagram_comes_out_whole_at_the_fragment_that_completes_it():
    result = feed(FragmentReassembler(), [udp(b"other"), *pieces(size=2000), udp(b"other")])
    assert len(result) == 1
    payload = result[0]
    assert isinstance(payload, Payload)
    assert payload.data == TEXT
    assert (payload.packet, payload.time, payload.realm) == (2, SECOND + 2_000_000, 0)
    assert (str(payload.source), str(payload.destination)) == ("192.0.2.1:4000", "198.51.100.2:5000")


def test_fragments_come_in_any_order():
    for order in permutations(pieces(size=1300)):
        assert data(feed(FragmentReassembler(), order)) == [TEXT]


def test_fragments_of_ipv6_are_put_together():
    result = feed(FragmentReassembler(), pieces6()[::-1])
    assert data(result) == [TEXT]
    assert str(result[0].source) == "[2001:db8::1]:4000"


def test_fragments_of_many_datagrams_do_not_mix():
    texts = [TEXT[: 2000 + k] for k in range(20)]
    packets = [part for k, text in enumerate(texts) for part in pieces(text, number=k)]
    packets += [part for k, text in enumerate(texts) for part in pieces6(text, number=k)]
    random.Random(3).shuffle(packets)
    reassembler = FragmentReassembler()
    assert sorted(data(feed(reassembler, packets))) == sorted(texts * 2)
    assert reassembler.counters.datagrams == 40


def test_the_same_addresses_and_identification_in_two_vlans_are_two_datagrams():
    first, second = pieces(TEXT), pieces(TEXT[::-1])
    packets = []
    for a, b in zip(first, second, strict=True):
        packets += [ether(Dot1Q(vlan=5) / a), ether(Dot1Q(vlan=6) / b)]
    result = feed(FragmentReassembler(), packets)
    assert data(result) == [TEXT, TEXT[::-1]]
    assert result[0].realm != result[1].realm


def test_fragments_may_come_in_different_batches():
    reassembler = FragmentReassembler()
    results = [feed(reassembler, [part]) for part in pieces()]
    assert [len(each) for each in results] == [0] * (len(results) - 1) + [1]


def test_tcp_in_fragments_comes_out_as_a_segment():
    packet = IP(src="192.0.2.1", dst="198.51.100.2", id=3) / TCP(sport=4000, dport=5060, seq=99, flags="PA") / Raw(TEXT)
    result = feed(FragmentReassembler(), fragment(packet, fragsize=800))
    assert isinstance(result[0], TcpPacket)
    assert (result[0].sequence, result[0].flags, result[0].data, result[0].missing) == (99, 0x18, TEXT, 0)


@pytest.mark.parametrize("name", ["GTP-U", "IP in IP", "GRE key", "ESP NULL", "AH", "IPv6 in IPv4"])
def test_tunnels_cut_into_fragments_are_followed_after_reassembly(name: str):
    parts = fragment(INNER_IP[name](udp(TEXT))[IP], fragsize=1400)
    assert len(parts) > 2
    assert data(feed(FragmentReassembler(), parts)) == [TEXT]


@pytest.mark.parametrize("name", ["VXLAN", "ERSPAN II", "GENEVE", "TZSP"])
def test_fragments_inside_tunnels_and_fragments_of_those_are_put_together(name: str):
    inner = [INNER_ETHERNET[name](ether(part)) for part in pieces(size=1400)]
    assert data(feed(FragmentReassembler(), inner)) == [TEXT]
    cut = []
    for k, part in enumerate(inner):
        part[IP].id = 1000 + k
        cut += fragment(part[IP], fragsize=600)
    assert data(feed(FragmentReassembler(), cut)) == [TEXT]


def test_mirrored_copies_come_out_once():
    reassembler = FragmentReassembler()
    doubled = [part for part in pieces() for _ in range(2)]
    assert data(feed(reassembler, doubled)) == [TEXT]
    assert data(feed(FragmentReassembler(), pieces() + pieces())) == [TEXT]
    assert reassembler.counters.duplicates == len(doubled) // 2
    reassembler.finish()
    assert reassembler.counters.expired == 0


def test_an_identification_used_again_is_another_datagram():
    other = TEXT[::-1]
    assert data(feed(FragmentReassembler(), pieces() + pieces(other))) == [TEXT, other]


def test_the_first_copy_of_an_octet_wins_and_overlaps_are_counted():
    first, second, *rest = pieces(size=800)
    forged = second.copy()
    forged.frag -= 10
    forged[Raw].load = b"\xee" * 80 + second[Raw].load
    del forged.len, forged.chksum
    reassembler = FragmentReassembler()
    assert data(feed(reassembler, [first, forged, *rest])) == [TEXT]
    assert reassembler.counters.overlapped == 1


def test_a_datagram_that_lacks_a_fragment_is_reported_with_its_beginning():
    reassembler = FragmentReassembler()
    assert feed(reassembler, pieces()[:-1]) == []
    assert reassembler.take_incomplete() == []
    reassembler.finish()
    (report,) = reassembler.take_incomplete()
    assert (report.number, report.time, str(report.source)) == (1, SECOND, "192.0.2.1:4000")
    assert TEXT.startswith(report.data)
    assert len(report.data) >= 700
    assert reassembler.take_incomplete() == []
    assert reassembler.counters.expired == 1


def test_what_is_no_text_or_has_no_beginning_is_only_counted():
    reassembler = FragmentReassembler()
    feed(reassembler, pieces(b"\x80" + TEXT)[:2] + pieces(number=8)[1:] + fragment(IP() / ICMP() / Raw(TEXT), 800)[:1])
    reassembler.finish()
    assert reassembler.take_incomplete() == []
    assert reassembler.counters.expired == 3


def test_datagrams_are_given_up_after_a_while():
    reassembler = FragmentReassembler()
    first, *rest = pieces(size=2000)
    assert feed(reassembler, [first, *rest], [SECOND, SECOND + MAX_AGE + 1]) == []
    assert reassembler.counters.expired == 1
    assert data(feed(FragmentReassembler(), [first, *rest], [SECOND, SECOND + MAX_AGE])) == [TEXT]


def test_the_oldest_goes_first_when_room_is_short(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capture.fragments, "MAX_DATAGRAMS", 10)
    reassembler = FragmentReassembler()
    firsts, lasts = zip(*(pieces(TEXT[:1200], number=k, size=808) for k in range(30)), strict=True)
    assert len(feed(reassembler, [*firsts, *lasts[20:]])) == 10
    assert reassembler.counters.evicted == 20
    monkeypatch.setattr(capture.fragments, "MAX_COST", 5000)
    reassembler = FragmentReassembler()
    feed(reassembler, firsts)
    assert reassembler._cost <= 5000
    assert reassembler.counters.evicted > 0


def test_a_cut_fragment_never_completes_a_datagram():
    reassembler = FragmentReassembler()
    assert feed(reassembler, pieces(), snap=500) == []
    reassembler.finish()
    assert len(reassembler.take_incomplete()) == 1


def test_no_datagram_is_greater_than_ip_allows():
    reassembler = FragmentReassembler()
    parts = pieces(size=1400)
    parts[-1].frag = 8191
    assert feed(reassembler, parts) == []
    assert reassembler.counters.malformed == 1


def test_a_fragment_beyond_the_end_is_refused():
    parts = pieces(size=1400)
    beyond = parts[0].copy()
    beyond.frag = 2000
    reassembler = FragmentReassembler()
    assert data(feed(reassembler, [parts[-1], beyond, *parts[:-1]])) == [TEXT]
    assert reassembler.counters.malformed == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 50), st.booleans()), max_size=25))
def test_nonsense_never_raises_and_never_leaks(steps: list[tuple[int, int, int, bool]]):
    reassembler = FragmentReassembler()
    packets: list[Packet] = []
    for number, offset, size, more in steps:
        body = Raw(TEXT[: size * 4])
        if number < 2:
            packets.append(IP(id=number, frag=offset, flags="MF" if more else 0, proto=17) / body)
        else:
            packets.append(V6 / IPv6ExtHdrFragment(id=number, offset=offset, m=more, nh=17) / body)
    feed(reassembler, packets)
    reassembler.finish()
    assert reassembler._cost == 0


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=20, max_size=200), st.sampled_from([0x45, 0x4F, 0x60]), st.integers(1, 0x3FFF))
def test_random_octets_never_raise(octets: bytes, first: int, flags: int):
    packet = bytes([first]) + octets[1:6] + flags.to_bytes(2, "big") + octets[8:]
    reassembler = FragmentReassembler()
    feed(reassembler, [ether(packet, 0x0800), ether(packet, 0x86DD)])
    reassembler.finish()
    assert reassembler._cost == 0
