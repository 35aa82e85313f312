"""The kernels against a plain twin on random traffic, and what tshark says of what was sent."""

import random
import shutil
import socket
import struct
import subprocess
from dataclasses import dataclass, field

import pytest

from tests.forwarding import BOB, RELAY, VOICE, Bench, Got, Rtp, talk


@dataclass
class Twin:
    """One source with one leg that is live, packet by packet; all flows are placed before their first packet."""

    out: list[tuple[int, int, bytes]] = field(default_factory=list)
    active: tuple | None = None
    been: set = field(default_factory=set)
    highest: int = 0
    came: set[int] = field(default_factory=set)
    newest: tuple[int, int, float] | None = None
    offsets: tuple[int, int] = (0, 0)

    def take(self, packet: Rtp) -> None:
        flow = (packet.source, packet.destination, packet.ssrc)
        if flow != self.active:
            assert self.active is None or flow[:2] == self.active[:2], "the twin knows no other hops"
            if flow in self.been and packet.at - self.newest[2] < 300:
                return
            self.active = flow
            self.been.add(flow)
            self._begin(packet)
        else:
            step = (packet.sequence - self.highest + 0x8000) % 0x10000 - 0x8000
            if step >= 3000 or step <= -1000:
                self._begin(packet)
            elif step <= -64 or packet.sequence in self.came:
                return
            elif step <= 0:
                self.came.add(packet.sequence)
                self._send(packet)
                return
            else:
                self.highest = packet.sequence
                self.came = {each for each in self.came if (self.highest - each) % 0x10000 < 64} | {packet.sequence}
        self._send(packet)
        number = (packet.sequence + self.offsets[0]) & 0xFFFF
        self.newest = (number, (packet.stamp + self.offsets[1]) & 0xFFFFFFFF, packet.at)

    def _begin(self, packet: Rtp) -> None:
        self.highest, self.came = packet.sequence, {packet.sequence}
        if self.newest is not None:
            number, stamp, at = self.newest
            passed = round((packet.at - at) * 1_000_000) * 8000 // 1_000_000_000
            self.offsets = (number + 1 - packet.sequence) & 0xFFFF, (stamp + passed - packet.stamp) & 0xFFFFFFFF

    def _send(self, packet: Rtp) -> None:
        number = (packet.sequence + self.offsets[0]) & 0xFFFF
        self.out.append((number, (packet.stamp + self.offsets[1]) & 0xFFFFFFFF, packet.payload))


def traffic(seed: int) -> list[Rtp]:
    """Talk with losses, swaps, repeats, jumps, late packets and new SSRCs."""
    chance = random.Random(seed)
    packets: list[Rtp] = []
    sequence, stamp, ssrc, at = chance.randrange(65536), chance.randrange(2**32), 1, 0.0
    for number in range(400):
        roll = chance.random()
        at += 20
        sequence, stamp = (sequence + 1) & 0xFFFF, (stamp + 160) & 0xFFFFFFFF
        if roll < 0.03:
            continue  # lost
        if roll < 0.04:
            sequence = (sequence + chance.choice([40_000, 3500, 60, 2999])) & 0xFFFF
        elif roll < 0.05:
            ssrc += 1
            sequence = chance.randrange(65536)
        packet = Rtp(at, sequence, stamp, struct.pack("!II", seed, number) * 5, ssrc)
        if roll > 0.97:
            packets.append(packet)  # mirrored twice
        if roll > 0.94 and len(packets) > 40:
            back = chance.choice([1, 3, 20, 39])
            late = packets[-back]._replace(at=at)
            if late.ssrc == ssrc:
                packets.append(late._replace(sequence=(late.sequence + chance.choice([0, 0, 1])) & 0xFFFF))
        packets.append(packet)
    return packets


@pytest.mark.parametrize("seed", range(20))
def test_kernels_number_as_their_plain_twin_does(seed):
    packets = traffic(seed)
    twin = Twin()
    for packet in packets:
        twin.take(packet)
    with Bench() as bench:
        server = bench.server()
        bench.feed(packets[:1])
        bench.place_all(VOICE)
        bench.leg(server, VOICE)
        bench.pass_time(19)
        for packet in packets[1:]:
            bench.feed([packet])
            bench.place_all(VOICE)
        got = server.got()
    assert [each.payload for each in got] == [payload for *_, payload in twin.out]
    first = twin.out[0]
    assert [((each.sequence - got[0].sequence) & 0xFFFF, (each.stamp - got[0].stamp) & 0xFFFFFFFF) for each in got] == [
        ((number - first[0]) & 0xFFFF, (stamp - first[1]) & 0xFFFFFFFF) for number, stamp, _ in twin.out
    ]


def capture_of(got: list[Got]) -> bytes:
    """A pcap of what a server got, 20 ms apart."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for place, each in enumerate(got):
        rtp = struct.pack("!BBHII", *each[:5]) + each.payload
        udp = struct.pack("!HHHH", 35000, 6000, 8 + len(rtp), 0) + rtp
        ends = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
        frame = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + ends + udp
        out += struct.pack("<IIII", 1_700_000_000 + place // 50, place % 50 * 20_000, len(frame), len(frame)) + frame
    return out


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_hears_one_stream_without_loss(tmp_path):
    spoken = [
        *talk(100, sequence=65_480),
        *talk(100, at=2000, ssrc=0x2222, sequence=7, stamp=99),
        *talk(100, at=4000, ssrc=0x2222, sequence=40_000, stamp=5),
        *talk(100, at=6400, ssrc=0x3333, source=RELAY, destination=BOB),
    ]
    with Bench() as bench:
        server = bench.server()
        bench.feed(spoken[:1])
        bench.place_all(VOICE)
        bench.leg(server, VOICE)
        for packet in spoken[1:]:
            bench.feed([packet])
            bench.place_all(VOICE)
        got = server.got()
    assert [each.payload for each in got] == [each.payload for each in spoken]
    path = tmp_path / "leg.pcap"
    path.write_bytes(capture_of(got))
    command = ["tshark", "-n", "-r", str(path), "-d", "udp.port==6000,rtp", "-q", "-z", "rtp,streams", "-z", "expert"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    rows = [line.split() for line in said.splitlines() if "35000" in line]
    assert len(rows) == 1
    assert "400" in rows[0]
    assert "0 (0.0%)" in said
    assert "Malformed" not in said
    assert "Errors" not in said
