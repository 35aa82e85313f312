import gzip
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zstandard

from capture.followed import first_time
from capture.pipe_source import PipeSource
from tests import capture_files as made

PCAPS = Path(__file__).resolve().parents[2] / "pcaps"
FEW = made.packets(6)


@pytest.fixture(scope="module", autouse=True)
def _kernels_are_ready(tmp_path_factory):
    """Their first use takes seconds where no cache of them is there yet."""
    for octets in (made.pcap(FEW), made.pcapng(FEW)):
        path = tmp_path_factory.mktemp("kernels") / "it"
        path.write_bytes(octets)
        assert first_time(path) is not None


class Pipe:
    """A named pipe, what writes into it, and the source at its other end."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "pipe"
        os.mkfifo(self.path)
        self.source = PipeSource(self.path, capture=2)
        self._writer = self.path.open("wb", buffering=0)

    def write(self, octets: bytes) -> None:
        self._writer.write(octets)

    def end(self) -> None:
        self._writer.close()

    def numbers(self, patience: float = 5.0, least: int = 1) -> list[int]:
        """Frame numbers that come until `least` have, or patience is over."""
        found: list[int] = []
        until = time.monotonic() + patience
        while len(found) < least and time.monotonic() < until and not self.source.ended:
            batch = self.source.poll(0.05)
            if batch is not None:
                assert set(batch.capture.tolist()) == {2}
                found += batch.number.tolist()
        return found

    def close(self) -> None:
        self.source.close()
        self._writer.close()


@pytest.fixture
def pipe(tmp_path):
    opened = Pipe(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_every_whole_packet_comes_at_once_and_a_part_of_one_waits(pipe, form):
    octets = made.pcap(FEW) if form == "pcap" else made.pcapng(FEW)
    end_of = [len(made.pcap(FEW[:k]) if form == "pcap" else made.pcapng(FEW[:k])) for k in range(len(FEW) + 1)]
    assert len(octets) == end_of[-1]
    pipe.write(octets[: end_of[2] + 5])
    assert pipe.numbers(least=2) == [1, 2]
    assert pipe.source.poll(0.05) is None
    pipe.write(octets[end_of[2] + 5 :])
    assert pipe.numbers(least=4) == [3, 4, 5, 6]
    assert pipe.source.counters().packets == 6
    assert pipe.source.counters().up


def test_a_stream_that_says_nothing_costs_no_more_than_the_time_out(pipe):
    head = made.pcap([])
    for octets in (b"", head[:2], head[2:20], head[20:]):
        pipe.write(octets)
        begun = time.monotonic()
        assert pipe.source.poll(0.1) is None
        assert 0.09 < time.monotonic() - begun < 1


def test_the_end_of_a_stream_is_told_and_ends_nothing_else(pipe):
    pipe.write(made.pcap(FEW))
    pipe.end()
    assert pipe.numbers(least=6) == [1, 2, 3, 4, 5, 6]
    assert pipe.source.poll(0.01) is None
    assert pipe.source.ended
    counters = pipe.source.counters()
    assert not counters.up
    assert counters.note == "the stream has ended after 6 packets"


def test_a_stream_that_breaks_off_inside_a_packet_gives_what_came_before(pipe):
    pipe.write(made.pcap(FEW)[:-3])
    pipe.end()
    assert pipe.numbers(least=5) == [1, 2, 3, 4, 5]
    while not pipe.source.ended:
        pipe.source.poll(0.01)
    assert "the capture ends inside a packet" in pipe.source.counters().note


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"tcpdump: eth1: You don't have permission to capture on that device", "neither pcap nor pcapng"),
        (b"", "it is empty"),
        (b"\xa1\xb2\xc3\xd4\x00", "ends inside the pcap header"),
    ],
)
def test_a_stream_that_is_no_capture_is_told(pipe, octets, why):
    pipe.write(octets)
    pipe.end()
    until = time.monotonic() + 5
    while not pipe.source.ended and time.monotonic() < until:
        assert pipe.source.poll(0.01) is None
    assert why in pipe.source.counters().note
    assert not pipe.source.counters().up


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_packed_stream_never_holds_up_the_poll(pipe, pack):
    octets = pack(made.pcap(FEW))
    pipe.write(octets[:20])
    begun = time.monotonic()
    assert pipe.source.poll(0.1) is None
    assert time.monotonic() - begun < 1
    pipe.write(octets[20:])
    pipe.end()
    assert pipe.numbers(least=6) == [1, 2, 3, 4, 5, 6]


def test_a_reader_that_falls_behind_makes_the_writer_wait(pipe):
    octets = made.pcap(made.packets(2000, size=1200))
    done = threading.Event()

    def send() -> None:
        for _ in range(40):
            pipe.write(octets if not _ else octets[24:])
        done.set()

    writer = threading.Thread(target=send)
    writer.start()
    assert not done.wait(0.5)
    seen = 0
    while seen < 80_000:
        seen += len(pipe.numbers())
    writer.join(5)
    assert done.is_set()
    assert seen == 80_000


def test_closing_ends_the_wait_for_a_first_writer(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    source = PipeSource(path)
    assert source.poll(0.01) is None
    source.close()
    source._thread.join(5)
    assert not source._thread.is_alive()
    assert source.poll(5) is None


READ_STANDARD_INPUT = """
from capture.followed import first_time
from capture.pipe_source import PipeSource
source = PipeSource()
packets = 0
while not source.ended:
    batch = source.poll(0.1)
    if batch is not None:
        packets += len(batch)
        print(packets, flush=True)
print(source.name, source.counters().note, flush=True)
"""


@pytest.mark.skipif(not shutil.which("tcpdump") or os.geteuid() != 0, reason="tcpdump captures, as root")
def test_what_tcpdump_writes_comes_while_it_captures():
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        place = peer.getsockname()
        capture = ["tcpdump", "--immediate-mode", "-n", "-i", "lo", "-U", "-w", "-", f"udp dst port {place[1]}"]
        reading = [sys.executable, "-c", READ_STANDARD_INPUT]
        with (
            subprocess.Popen(capture, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as dump,
            subprocess.Popen(reading, stdin=dump.stdout, stdout=subprocess.PIPE) as reader,
        ):
            dump.stdout.close()
            assert b"listening on lo" in dump.stderr.readline()
            for k in range(1, 4):
                peer.sendto(b"packet", place)
                assert int(reader.stdout.readline()) == k
            dump.terminate()
            assert reader.stdout.read().decode() == "- the stream has ended after 3 packets\n"


def test_a_regular_file_on_standard_input_is_read_to_its_end():
    with (PCAPS / "pcmu.pcap").open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", READ_STANDARD_INPUT], stdin=file, capture_output=True, check=True, timeout=60
        )
    header = 24
    octets = (PCAPS / "pcmu.pcap").read_bytes()
    count, at = 0, header
    while at < len(octets):
        at += 16 + struct.unpack_from("<I", octets, at + 8)[0]
        count += 1
    assert done.stdout.decode().splitlines()[-1] == f"- the stream has ended after {count} packets"
