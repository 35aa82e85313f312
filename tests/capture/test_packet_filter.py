"""Kernel filters, run over every frame that the layers know: what may hold a call passes, whatever is asked for."""

import ctypes

import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, LLC, STP, Dot1Q, Dot3, Ether
from scapy.packet import Raw

from capture.batch import KIND_FRAGMENT, KIND_NONE, KIND_OTHER, KIND_TCP, KIND_UDP
from capture.layers import decode_frame
from capture.libpcap import compile_expression, library
from capture.live import LiveCaptureError
from capture.packet_filter import compile_filter, default_expression, protect
from tests.capture.frames import every_frame
from tests.naive_bpf import HARDWARE_TYPE, IFINDEX, PACKET_TYPE, PROTOCOL, passes
from tests.packets import udp

pytestmark = pytest.mark.skipif(library() is None, reason="libpcap is not installed")

NOTHING = "udp port 1 and host 192.0.2.99"
USABLE = (KIND_UDP, KIND_TCP, KIND_FRAGMENT)
FRAMES = [(name, bytes(frame), link_type) for name, frame, link_type in every_frame()]
ETHERNET = [(name, frame) for name, frame, link_type in FRAMES if link_type == 1]
TUNNEL_PORTS = (2152, 4500, 4789, 4790, 6081, 6635, 8472, 37008)
TAGS = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")


def kind(frame, link_type=1):
    return int(decode_frame(frame, link_type).kind[0])


def is_open(frame):
    """Whether ports are where a filter looks for them: right behind IP, behind at most two tags, of no tunnel."""
    at = 12
    for _ in range(2):
        at += 4 if frame[at : at + 2] in TAGS else 0
    ethertype, ip = frame[at : at + 2], frame[at + 2 :]
    if ethertype == b"\x08\x00":
        protocol, later, ports = ip[9], int.from_bytes(ip[6:8], "big") & 0x1FFF, ip[(ip[0] & 15) * 4 :]
    elif ethertype == b"\x86\xdd":
        protocol, later, ports = ip[6], 0, ip[40:]
    else:
        return False
    if later or protocol not in (6, 17):
        return False
    return protocol == 6 or not {int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:4], "big")} & {*TUNNEL_PORTS}


@pytest.mark.parametrize("expression", [default_expression(), "ip or ip6 or arp", "udp or tcp or not udp"])
def test_wide_filters_let_every_frame_pass_that_the_layers_can_use(expression):
    program = compile_filter(expression, 1).instructions
    kept = [name for name, frame in ETHERNET if kind(frame) in USABLE and not passes(program, frame)]
    assert kept == []


def test_what_hides_a_call_passes_a_filter_that_takes_nothing_and_the_rest_does_not():
    program = compile_filter(NOTHING, 1).instructions
    usable = [(name, frame) for name, frame in ETHERNET if kind(frame) in USABLE]
    hidden = {name for name, frame in usable if not is_open(frame)}
    assert {"three tags", "VXLAN", "IPv4 fragment", "IPv6 fragment"} <= hidden
    assert [name for name, frame in usable if not is_open(frame) and not passes(program, frame)] == []
    assert [name for name, frame in usable if is_open(frame) and passes(program, frame)] == []


@pytest.mark.parametrize("tags", [0, 1, 2])
@pytest.mark.parametrize(("port", "wanted"), [(5060, True), (5061, False)])
def test_a_port_is_found_behind_up_to_two_tags_and_without_the_one_taken_off(tags, port, wanted):
    program = compile_filter("udp port 5060", 1).instructions
    frame = Ether(dst="02:00:00:00:00:02")
    for vlan in range(tags):
        frame /= Dot1Q(vlan=vlan + 1)
    whole = bytes(frame / IP() / UDP(sport=40000, dport=port) / Raw(b"x"))
    assert passes(program, whole) is wanted
    if tags:
        assert passes(program, whole[:12] + whole[16:]) is wanted


def test_all_fragments_pass_where_the_first_is_asked_for():
    program = compile_filter("udp port 5060", 1).instructions
    sip = udp(bytes(3000), sport=5060, dport=5060)
    for part in fragment(IP(bytes(sip)), fragsize=1000):
        assert passes(program, bytes(Ether() / part))
    six = IPv6() / IPv6ExtHdrFragment(offset=100) / Raw(bytes(100))
    assert passes(program, bytes(Ether() / six))
    assert passes(program, bytes(Ether() / IPv6() / IPv6ExtHdrHopByHop() / UDP(dport=5060)))


def test_bulk_is_kept_back_only_when_asked():
    https = bytes(Ether() / IP() / TCP(sport=40000, dport=443) / Raw(b"bulk"))
    sip = bytes(Ether() / IP() / TCP(sport=40000, dport=5061) / Raw(b"sip"))
    quic = bytes(Ether() / IP() / UDP(sport=40000, dport=443) / Raw(b"or a TURN relay"))
    assert passes(compile_filter(default_expression(), 1).instructions, https)
    without = compile_filter(default_expression(without_tcp=[80, 443]), 1).instructions
    assert [passes(without, frame) for frame in (https, sip, quic)] == [False, True, True]


def test_the_default_keeps_back_what_cannot_carry_a_call():
    program = compile_filter(default_expression(), 1).instructions
    for frame in (Ether() / ARP(), Ether() / IP(proto=1) / Raw(bytes(20)), Ether(type=0x88CC) / Raw(bytes(40))):
        assert kind(bytes(frame)) in (KIND_NONE, KIND_OTHER)
        assert not passes(program, bytes(frame))


def test_frames_with_llc_pass_because_ip_may_be_behind_it():
    frame = bytes(Dot3() / LLC() / STP())
    assert passes(compile_filter(NOTHING, 1).instructions, frame)


def test_raw_ip_is_filtered_from_its_first_octet():
    program = compile_filter("udp port 5060", 101).instructions
    packet = udp(b"x", sport=5060, dport=5060)
    assert passes(program, bytes(IP(bytes(packet))))
    assert not passes(program, bytes(IP() / UDP(sport=1, dport=2)))
    assert all(passes(program, bytes(part)) for part in fragment(IP() / UDP(dport=5060) / Raw(bytes(3000)), 1000))


@pytest.mark.parametrize(
    ("protocol", "packet", "wanted"),
    [
        (0x0800, IP() / UDP(sport=5060, dport=5060), True),
        (0x0800, IP() / UDP(sport=1, dport=2), False),
        (0x0800, IP(proto=47) / Raw(bytes(30)), True),
        (0x86DD, IPv6() / UDP(sport=5060, dport=5060), True),
        (0x86DD, IPv6() / UDP(sport=1, dport=2), False),
        (0x8100, Raw(bytes(40)), True),
        (0x8847, Raw(bytes(40)), True),
        (0x0806, Raw(bytes(40)), False),
    ],
)
def test_cooked_sockets_have_the_link_header_asked_of_the_kernel(protocol, packet, wanted):
    known = {PROTOCOL: protocol, PACKET_TYPE: 0, IFINDEX: 2, HARDWARE_TYPE: 1}
    assert passes(compile_filter("udp port 5060", 276).instructions, bytes(packet), known) is wanted


class Program(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


def test_libpcap_runs_the_programs_as_the_interpreter_does():
    run = library().bpf_filter
    for expression in (NOTHING, "udp port 5060", "host 192.0.2.1 and not tcp", "udp[8] = 0x49 and less 500"):
        instructions = compile_filter(expression, 1).instructions
        program = (Program * len(instructions))(*(Program(*each) for each in instructions))
        for _, frame in ETHERNET:
            assert bool(run(program, frame, len(frame), len(frame))) == passes(instructions, frame)


@pytest.mark.parametrize("word", ["vlan", "mpls", "pppoes", "geneve", "protochain"])
def test_words_that_would_lose_packets_are_refused_by_name(word):
    with pytest.raises(LiveCaptureError, match=f"must not hold the word '{word}'"):
        protect(f"udp and ({word} 7 or tcp)")


def test_names_that_only_begin_like_such_words_are_none():
    assert protect("host 192.0.2.1 or ip proto 17").startswith("(host")


@pytest.mark.parametrize("expression", ["udp port", "udp) or (tcp", "udp or", "port sip-and-friends", "\0"])
def test_what_libpcap_refuses_is_refused_with_its_words(expression):
    with pytest.raises(LiveCaptureError, match=r"not understood|NUL"):
        compile_filter(expression, 1)


def test_link_addresses_are_refused_where_there_are_none():
    with pytest.raises(LiveCaptureError):
        compile_filter("ether host 02:00:00:00:00:01", 276)


def test_too_long_a_filter_is_refused():
    hosts = " or ".join(f"host 10.{n // 250}.{n % 250}.1" for n in range(200))
    with pytest.raises(LiveCaptureError, match="too long"):
        compile_filter(hosts, 1)


def test_a_program_needs_no_privileges_and_is_the_same_each_time():
    assert compile_expression("udp port 5060", 1) == compile_expression("udp port 5060", 1)
