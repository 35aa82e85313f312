"""Whose packets a media port lets through, and what is counted of them."""

import struct
from dataclasses import dataclass, field

import numpy as np

from capture.address import Endpoint
from capture.batch import PacketBatch
from recorder.siprec import _port_kernels as kernels
from recorder.siprec.port_monitor import PortMonitor
from tests import packets as built

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
OURS = ("192.0.2.1", 40000)
ALICE, MALLORY, OTHER = ("198.51.100.1", 6000), ("203.0.113.66", 9999), ("198.51.100.2", 7000)


def rtp(sequence: int, ssrc: int = 0xA, stamp: int | None = None, kind: int = 0) -> bytes:
    stamp = sequence * 160 if stamp is None else stamp
    return struct.pack("!BBHII", 0x80, kind, sequence & 0xFFFF, stamp & 0xFFFFFFFF, ssrc) + bytes(160)


def sender_report(ssrc: int, ntp: int = 0x0123456789ABCDEF) -> bytes:
    return struct.pack("!BBHIQIII", 0x80, 200, 6, ssrc, ntp, 0, 0, 0)


def goodbye(ssrc: int) -> bytes:
    return struct.pack("!BBHI", 0x81, 203, 1, ssrc)


def udp_4(source: tuple[str, int], destination: tuple[str, int], octets: bytes) -> bytes:
    """An IPv4 packet, as `capture.media_ports` makes them."""
    head = struct.pack("!BBHIBBH", 0x45, 0, 28 + len(octets), 0, 64, 17, 0)
    addresses = b"".join(bytes(int(part) for part in host.split(".")) for host, _ in (source, destination))
    return head + addresses + struct.pack("!4H", source[1], destination[1], 8 + len(octets), 0) + octets


@dataclass
class Wire:
    """Feeds datagrams to a monitor as the source would, and tells which came through."""

    monitor: PortMonitor = field(default_factory=lambda: PortMonitor(4))

    def __post_init__(self) -> None:
        self.monitor.begin(0)

    def batch(self, packets: list[tuple[float, tuple[str, int], bytes, int]]) -> tuple[PacketBatch, np.ndarray]:
        frames = [udp_4(source, (OURS[0], OURS[1] + place), octets) for _, source, octets, place in packets]
        times = [START + int(at * SECOND) for at, _, _, _ in packets]
        batch = built.batch(frames, link_type=built.RAW_IP, times=times)
        return batch, np.array([place for _, _, _, place in packets], np.int32)

    def feed(self, *packets: tuple[float, tuple[str, int], bytes, int]) -> list[int]:
        """(s, sender, octets, place) each; the numbers, from 0, of those that came through."""
        kept, _ = self.monitor.take(*self.batch(list(packets)))
        return (kept.number - 1).tolist()


def endpoint(place: tuple[str, int]) -> Endpoint:
    a, b, c, d = (int(part) for part in place[0].split("."))
    return Endpoint(0, 0xFFFF << 32 | a << 24 | b << 16 | c << 8 | d, place[1])


def test_the_first_sender_has_the_port_and_strays_do_not_come_through() -> None:
    wire = Wire()
    assert wire.feed((0.0, ALICE, rtp(1), 0), (0.01, MALLORY, rtp(500, 0xBAD), 0), (0.02, ALICE, rtp(2), 0)) == [0, 2]
    state = wire.monitor.state(0)
    assert (state.address, state.ssrc, state.packets, state.strays) == (endpoint(ALICE), 0xA, 2, 1)
    assert state.first == START
    assert state.last == START + SECOND // 50
    assert state.stray is not None
    assert (state.stray.address, state.stray.ssrc) == (endpoint(MALLORY), 0xBAD)


def test_after_a_second_of_silence_another_sender_takes_over() -> None:
    wire = Wire()
    wire.feed((0.0, ALICE, rtp(1), 0))
    assert wire.feed((0.9, OTHER, rtp(7, 0xB), 0), (1.1, OTHER, rtp(8, 0xB), 0), (1.2, ALICE, rtp(2), 0)) == [1]
    state = wire.monitor.state(0)
    assert (state.address, state.ssrc, state.takeovers, state.received) == (endpoint(OTHER), 0xB, 1, 1)


def test_another_ssrc_at_the_same_address_takes_over_at_once() -> None:
    wire = Wire()
    packets = [(0.0, ALICE, rtp(1), 0), (0.02, ALICE, rtp(900, 0xB), 0), (0.03, ALICE, rtp(2), 0)]
    assert wire.feed(*packets, (0.04, ALICE, rtp(901, 0xB), 0)) == [0, 1, 2, 3]
    state = wire.monitor.state(0)
    assert (state.ssrc, state.takeovers, state.received, state.lost) == (0xB, 1, 2, 0)


def test_a_source_that_goes_on_from_another_address_is_followed_at_once() -> None:
    wire = Wire()
    assert wire.feed((0.0, ALICE, rtp(65535), 0), (0.02, OTHER, rtp(65536), 0), (0.04, OTHER, rtp(65537), 0)) == [
        0,
        1,
        2,
    ]
    state = wire.monitor.state(0)
    assert (state.address, state.moves, state.takeovers, state.received, state.lost) == (endpoint(OTHER), 1, 0, 3, 0)


def test_who_only_repeats_a_source_s_packets_does_not_come_through() -> None:
    wire = Wire()
    assert wire.feed((0.0, ALICE, rtp(5), 0), (0.01, MALLORY, rtp(5), 0), (0.02, MALLORY, rtp(3), 0)) == [0]


def test_the_address_of_the_description_goes_before_whoever_came_first() -> None:
    wire = Wire()
    wire.monitor.expect(0, clock_rate=8000, secure=False, source=endpoint(ALICE))
    first = wire.feed((0.0, MALLORY, rtp(1, 0xBAD), 0), (0.01, ALICE, rtp(1), 0), (0.02, MALLORY, rtp(2, 0xBAD), 0))
    assert first == [0, 1]
    assert wire.monitor.state(0).address == endpoint(ALICE)


def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    wire = Wire()
    wire.feed((5000.0, ALICE, rtp(1), 0))
    assert wire.feed((0.0, OTHER, rtp(1, 0xB), 0)) == [0]


def test_nothing_but_rtp_and_rtcp_comes_through() -> None:
    wire = Wire()
    invite = b"INVITE sip:a@b SIP/2.0\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\n"
    junk = b"\x80\x49\x00\x01" + invite  # elsewhere this is SIP behind junk
    tunnelled = bytes.fromhex("0800000000000100") + bytes(14)
    packets = [(0.0, ALICE, octets, 0) for octets in (invite, junk, b"", b"\r\n\r\n", tunnelled)]
    assert wire.feed(*packets, (0.1, ALICE, rtp(1), 0)) == [5]
    assert wire.monitor.state(0).foreign == 5


def test_a_tunnel_inside_a_datagram_is_not_media() -> None:
    inner = udp_4(("10.0.0.1", 5060), ("10.0.0.2", 5060), b"OPTIONS sip:x SIP/2.0\r\n\r\n")
    ethernet = bytes(12) + b"\x08\x00" + inner
    vxlan = b"\x08\x00\x00\x00\x00\x00\x07\x00" + ethernet
    wire = Wire()
    assert wire.feed((0.0, ("198.51.100.1", 4789), vxlan, 0)) == []
    assert wire.monitor.state(0).foreign == 1


def test_reports_of_the_sender_tell_where_rtcp_goes_and_those_of_strays_do_not() -> None:
    wire = Wire()
    wire.feed((0.0, ALICE, rtp(1), 0))
    alice_rtcp = ("198.51.100.1", 6001)
    assert wire.feed((0.5, alice_rtcp, sender_report(0xA), 1), (0.6, MALLORY, sender_report(0xBAD), 1)) == [0]
    state = wire.monitor.state(0)
    assert (state.rtcp_from, state.rtcp_last) == (endpoint(alice_rtcp), START + SECOND // 2)
    row = wire.monitor.states[0]
    assert row[kernels.REPORT_MIDDLE] == 0x456789AB
    assert state.bye is None
    wire.feed((0.7, alice_rtcp, sender_report(0xA) + goodbye(0xA), 0))
    assert wire.monitor.state(0).bye == START + 7 * SECOND // 10


def test_encrypted_rtcp_is_handed_out_instead_of_read() -> None:
    wire = Wire()
    wire.monitor.expect(0, clock_rate=8000, secure=True, source=None)
    batch, places = wire.batch([(0.0, ALICE, rtp(1), 0), (0.1, ALICE, sender_report(0xA) + bytes(14), 1)])
    kept, secured = wire.monitor.take(batch, places)
    assert len(kept) == 2
    assert secured == [(0, sender_report(0xA) + bytes(14), START + SECOND // 10)]
    assert wire.monitor.states[0, kernels.REPORT_TIME] == 0
    wire.monitor.hear_plain(0, sender_report(0xA), START + SECOND // 10)
    assert wire.monitor.states[0, kernels.REPORT_TIME] == START + SECOND // 10


def test_losses_and_jitter_are_counted_over_the_wrap_of_sequence_numbers() -> None:
    wire = Wire()
    numbers = [65530 + n for n in range(100) if n % 10 != 3]
    wire.feed(*((0.02 * (n - 65530) + 0.004 * (n % 2), ALICE, rtp(n), 0) for n in numbers))
    state = wire.monitor.state(0)
    assert (state.received, state.lost, state.highest) == (90, 10, 65629)
    assert 20 <= state.jitter <= 32  # 4 ms are 32 units


def test_a_port_that_is_opened_anew_remembers_nobody() -> None:
    wire = Wire()
    wire.feed((0.0, ALICE, rtp(1), 0), (0.1, MALLORY, rtp(1, 0xBAD), 0))
    wire.monitor.begin(0)
    state = wire.monitor.state(0)
    assert (state.packets, state.address, state.ssrc, state.stray, state.last) == (0, None, None, None, None)


class NaivePort:
    """The rules of the lock and the statistics of RFC 3550, plainly."""

    def __init__(self, expected: tuple[str, int] | None) -> None:
        self.expected = expected
        self.locked: tuple[tuple[str, int], int] | None = None
        self.old = (0, 0)
        self.takeovers = self.moves = self.strays = self.packets = 0
        self.last = 0

    def take(self, at: int, source: tuple[str, int], ssrc: int, sequence: int, stamp: int) -> bool:
        if self.locked is None:
            self._lock(source, ssrc, at, sequence)
        elif self.locked[0] == source and self.locked[1] != ssrc:
            if self.old[0] == ssrc and at < self.old[1]:
                self.packets += 1
                return True
            before = self.locked[1]
            self._lock(source, ssrc, at, sequence)
            self.takeovers += 1
            self.old = (before, at + SECOND)
        elif self.locked[0] != source:
            if self.locked[1] == ssrc and 1 <= (sequence - self.top) % 65536 <= 100:
                self.locked = (source, ssrc)
                self.moves += 1
            elif abs(at - self.last) > SECOND or source == self.expected:
                self._lock(source, ssrc, at, sequence)
                self.takeovers += 1
            else:
                self.strays += 1
                return False
        self.last = at
        self.packets += 1
        self._count(at, sequence, stamp)
        return True

    def _lock(self, source: tuple[str, int], ssrc: int, at: int, sequence: int) -> None:
        self.locked = (source, ssrc)
        self.old = (0, 0)
        self._begin(at, sequence)

    def _begin(self, at: int, sequence: int) -> None:
        self.base = self.top = sequence
        self.bad: int | None = None
        self.received = 0
        self.jitter = 0
        self.transit: int | None = None
        self.stamp = 0
        self.first = at

    def _count(self, at: int, sequence: int, stamp: int) -> None:
        ahead = (sequence - self.top) % 65536
        if 3000 <= ahead <= 65436:
            if sequence != self.bad:
                self.bad = (sequence + 1) % 65536
                return
            self._begin(at, sequence)
            self.received = 1
            return
        self.received += 1
        if ahead < 3000:
            self.top += ahead
        since = at - self.first
        transit = ((since // SECOND) * 8000 + (since % SECOND) * 8000 // SECOND - stamp) % (1 << 32)
        if self.transit is not None and stamp != self.stamp:
            distance = (transit - self.transit) % (1 << 32)
            distance = min(distance, (1 << 32) - distance)
            if distance < 80_000:
                self.jitter += distance - ((self.jitter + 8) >> 4)
        self.transit, self.stamp = transit, stamp


def test_the_kernel_agrees_with_a_plain_twin() -> None:
    random = np.random.default_rng(11)
    senders = [ALICE, MALLORY, OTHER]
    for trial in range(60):
        expected = senders[random.integers(3)] if trial % 2 else None
        wire, twin = Wire(), NaivePort(expected)
        wire.monitor.expect(0, clock_rate=8000, secure=False, source=expected and endpoint(expected))
        at, sequence = 0.0, int(random.integers(65536))
        packets = []
        for _ in range(200):
            at += float(random.choice([0.0, 0.02, 0.4, 1.5, -0.01], p=[0.1, 0.7, 0.1, 0.05, 0.05]))
            sequence += int(random.choice([1, 0, 2, -1, 50, 4000, -3000], p=[0.7, 0.05, 0.1, 0.05, 0.05, 0.03, 0.02]))
            source = senders[random.choice(3, p=[0.8, 0.1, 0.1])]
            ssrc = int(random.choice([0xA, 0xB, 0xC], p=[0.9, 0.07, 0.03]))
            packets.append((at, source, rtp(sequence, ssrc, stamp=int(random.choice([sequence, 5])) * 160), 0))
        kept = []
        for number, (when, source, octets, _) in enumerate(packets):
            _, _, number_of, stamp, ssrc = struct.unpack_from("!BBHII", octets)
            if twin.take(START + int(when * SECOND), source, ssrc, number_of, stamp):
                kept.append(number)
        cut = int(random.integers(200))
        first = wire.feed(*packets[:cut]) if cut else []
        assert first + [cut + number for number in wire.feed(*packets[cut:])] == kept
        state = wire.monitor.state(0)
        assert twin.locked is not None
        assert (state.address, state.ssrc) == (endpoint(twin.locked[0]), twin.locked[1])
        counts = (state.packets, state.takeovers, state.moves, state.strays)
        assert counts == (twin.packets, twin.takeovers, twin.moves, twin.strays)
        figures = (state.highest, state.received, state.jitter, state.lost)
        assert figures == (twin.top, twin.received, twin.jitter >> 4, twin.top - twin.base + 1 - twin.received)
