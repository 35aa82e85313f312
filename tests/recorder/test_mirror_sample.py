"""What is counted of a mirror's packets."""

import numpy as np
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from recorder.mirror_sample import Copies, MirrorFigures, MirrorSample
from tests.packets import SECOND, batch

OWN = bytes.fromhex("02000000000f")
OTHERS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


def rtp(sequence: int, *, swapped: bool = False, ssrc: int = 7, port: int = 4000) -> IP:
    ends = ("192.0.2.1", "198.51.100.2")
    source, destination = reversed(ends) if swapped else ends
    header = (
        bytes((0x80, 0)) + sequence.to_bytes(2, "big") + (160 * sequence).to_bytes(4, "big") + ssrc.to_bytes(4, "big")
    )
    return IP(src=source, dst=destination, id=sequence) / UDP(sport=port, dport=port) / Raw(header + bytes(160))


def figures(frames: list, **options) -> MirrorFigures:
    sample = MirrorSample(1500, OWN)
    for begin in range(0, len(frames), 50):
        times = options["times"][begin : begin + 50] if "times" in options else None
        first = SECOND + begin * 1_000_000
        times = times or [first + 1_000_000 * k for k in range(len(frames[begin : begin + 50]))]
        sample.add(batch(frames[begin : begin + 50], times=times))
    return sample.figures(5.0, 3)


def test_packets_octets_and_drops_are_counted():
    frame = Ether(**OTHERS) / rtp(1)
    seen = figures([frame, Ether(**OTHERS) / ARP()])
    assert (seen.packets, seen.octets, seen.dropped, seen.datagrams) == (2, len(frame) + 42, 3, 1)
    assert (seen.longest, seen.seconds) == (len(frame), 5.0)


def test_both_directions_are_a_conversation_and_one_alone_is_one_way():
    both = [Ether(**OTHERS) / rtp(n, swapped=n % 2 == 1) for n in range(60)]
    alone = [Ether(**OTHERS) / rtp(n, port=6000, ssrc=9) for n in range(30)]
    seen = figures(both + alone)
    assert seen.conversations == 2
    assert [(str(a), str(b)) for a, b in seen.one_way] == [("192.0.2.1:6000", "198.51.100.2:6000")]


def test_what_looks_like_rtp_now_and_then_is_no_conversation():
    assert figures([Ether(**OTHERS) / rtp(n, ssrc=n) for n in range(60)]).conversations == 0


def test_copies_count_wherever_they_come_from_but_only_at_once():
    frames, times = [], []
    for n in range(40):
        at = SECOND + n * 20_000_000
        frames += [Ether(**OTHERS) / rtp(n), Ether(**OTHERS) / Dot1Q(vlan=5) / rtp(n)]
        times += [at, at + 200_000]
    seen = figures(frames, times=times)
    assert (seen.copies, seen.copies_elsewhere, seen.conversations) == (40, 40, 1)
    late = figures([Ether(**OTHERS) / rtp(1)] * 2, times=[SECOND, SECOND + 500_000_000])
    assert late.copies == 0


def test_copies_agree_with_a_list_of_all_that_came():
    random = np.random.default_rng(3)
    keys, steps = random.integers(1, 40, 3000).tolist(), random.integers(0, 4_000_000, 3000).tolist()
    copies, seen, now, expected = Copies(), {}, SECOND, 0
    for key, step in zip(keys, steps, strict=True):
        now += step
        expected += now - seen.get(key, -SECOND) <= 50_000_000
        copies.is_copy(key, now, 0)
        seen[key] = now
    assert copies.found == expected


def test_sip_is_counted_by_what_it_is():
    head = b"Via: SIP/2.0/UDP 192.0.2.1\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
    ends = IP(src="192.0.2.1", dst="198.51.100.2") / UDP(sport=5060, dport=5060)
    frames = [
        Ether(**OTHERS) / ends / Raw(line + b"\r\n" + head) for line in (b"OPTIONS sip:a SIP/2.0", b"SIP/2.0 200 OK")
    ]
    seen = figures(frames + frames[:1])
    assert (seen.sip_requests, seen.sip_responses, seen.copies) == (1, 1, 1)


def test_frames_for_others_are_told_from_broadcast_and_our_own():
    frames = [Ether(**OTHERS) / rtp(1), Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(), Ether(dst=OWN.hex(":")) / rtp(2)]
    seen = figures(frames)
    assert (seen.ethernet, seen.for_others) == (3, 1)


def test_fragments_cut_and_oversized_frames_are_counted():
    pieces = [Ether(**OTHERS) / piece for piece in fragment(IP() / UDP() / Raw(bytes(3000)), 1000)]
    large = Ether(**OTHERS) / IP() / UDP() / Raw(bytes(4000))
    cut = bytes(Ether(**OTHERS) / rtp(1))[:120]
    seen = figures([*pieces, large, cut])
    assert (seen.fragments, seen.oversized, seen.longest, seen.cut) == (len(pieces), 1, len(large), 1)


def test_arbitrary_octets_are_counted_without_complaint():
    random = np.random.default_rng(5)
    frames = [random.bytes(int(size)) for size in random.integers(0, 200, 2000)]
    for start in ("8100", "0800", "86dd", "88a8"):
        frames += [frame[:12] + bytes.fromhex(start) + frame[14:] for frame in frames[:200]]
    seen = figures(frames)
    assert seen.packets == len(frames)
