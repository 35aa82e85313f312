import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import numpy as np
import pytest

from capture import _media_port_kernels as kernels
from capture.batch import KIND_UDP, PacketBatch
from capture.layers import decode_layers
from capture.live import LiveCaptureError
from capture.media_ports import MOST_DATAGRAM, MediaPort, MediaPortOptions, MediaPorts, PortsExhausted

LOW = 14_000 + os.getpid() % 16 * 1000
"""Below the ports that the system gives out, and not those of a run beside this one."""
QUICK = MediaPortOptions(low=LOW, high=LOW + 999, linger=0.0, rest=0.0, pace=0.0)


Ports = Callable[..., AbstractContextManager[MediaPorts]]


@pytest.fixture(params=["collected", "one by one"])
def ports(request: pytest.FixtureRequest) -> Ports:
    """Makes sources that read one socket for all ports, and such that read each."""
    steered = request.param == "collected"

    @contextmanager
    def make(options: MediaPortOptions = QUICK) -> Iterator[MediaPorts]:
        opened = MediaPorts(replace(options, steered=steered))
        try:
            if opened.steered is not steered:
                pytest.skip("socket lookup programs need rights that this machine does not give")
            yield opened
        finally:
            opened.close()

    return make


@contextmanager
def sender(host: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((host, 0))
        yield opened


def take(source: MediaPorts, count: int, seconds: float = 5.0) -> list[tuple[PacketBatch, np.ndarray, list[bytes]]]:
    """(batch, places, payloads) of each poll until `count` packets have come."""
    found = []
    got = 0
    deadline = time.monotonic() + seconds
    while got < count and time.monotonic() < deadline:
        batch = source.poll(0.05)
        if batch is not None:
            datagrams = decode_layers(batch)
            assert (datagrams.kind == KIND_UDP).all()
            octets = [
                batch.buffer[at : at + size].tobytes()
                for at, size in zip(datagrams.payload.tolist(), datagrams.length.tolist(), strict=True)
            ]
            found.append((batch, source.places.copy(), octets))
            got += len(batch)
    assert got == count
    return found


def payloads(source: MediaPorts, count: int) -> list[bytes]:
    return [each for _, _, octets in take(source, count) for each in octets]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_come_as_packets_from_their_sender_to_the_port(ports: Ports, host: str) -> None:
    with ports() as source, sender(host) as out:
        port = source.open(host)
        assert port.rtp.port % 2 == 0
        assert port.rtcp == port.rtp._replace(port=port.rtp.port + 1)
        before = time.time_ns()
        out.sendto(b"media", (host, port.rtp.port))
        out.sendto(b"report", (host, port.rtcp.port))
        batch = source.poll(1.0)
        assert batch is not None
        datagrams = decode_layers(batch)
        assert datagrams.source_port.tolist() == [out.getsockname()[1]] * 2
        assert datagrams.destination_port.tolist() == [port.rtp.port, port.rtcp.port]
        for column, half in ((datagrams.destination_high, port.rtp.high), (datagrams.source_low, port.rtp.low)):
            assert column.tolist() == [half] * 2
        assert datagrams.length.tolist() == [5, 6]
        assert source.places.tolist() == [port.place, port.place + 1]
        assert before <= batch.time[0] <= batch.time[1] <= time.time_ns()
        assert batch.number.tolist() == [1, 2]


def test_headers_are_those_that_another_program_would_read(ports: Ports) -> None:
    from scapy.layers.inet import IP, UDP

    with ports() as source, sender("127.0.0.1") as out:
        port = source.open("127.0.0.1")
        out.sendto(bytes(range(200)), ("127.0.0.1", port.rtp.port))
        batch = source.poll(1.0)
        assert batch is not None
        at, size = int(batch.offset[0]), int(batch.captured[0])
        octets = batch.buffer[at : at + size].tobytes()
        packet = IP(octets)
        assert (packet.src, packet.dst, packet.len) == ("127.0.0.1", "127.0.0.1", 228)
        assert (packet[UDP].sport, packet[UDP].dport, packet[UDP].len) == (out.getsockname()[1], port.rtp.port, 208)
        del packet.chksum
        assert bytes(packet) == octets


def naive_head(template: bytes, name: bytes, length: int) -> bytes:
    """What the kernels put before a datagram."""
    if len(template) == kernels.HEAD_4:
        fields = list(struct.unpack("!10H", template[:20]))
        fields[1] = (length + 28) & 0xFFFF
        fields[6:8] = struct.unpack("!2H", name[4:8])
        total = sum(fields)
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        fields[5] = 0xFFFF - total
        return struct.pack("!10H", *fields) + name[2:4] + template[22:24] + struct.pack("!H", length + 8) + bytes(2)
    size = struct.pack("!H", length + 8)
    return (
        template[:4]
        + size
        + template[6:8]
        + name[8:24]
        + template[24:40]
        + name[2:4]
        + template[42:44]
        + size
        + bytes(2)
    )


@pytest.mark.parametrize(("put", "size"), [(kernels.put_head_4, kernels.HEAD_4), (kernels.put_head_6, kernels.HEAD_6)])
def test_headers_agree_with_a_plain_twin(put, size: int) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(5)
    for _ in range(300):
        template = random.integers(0, 256, size, np.uint8)
        zeros = (2, 3, 10, 11, 12, 13, 14, 15, 20, 21, 24, 25, 26, 27) if size == kernels.HEAD_4 else (46, 47)
        template[list(zeros)] = 0
        name = random.integers(0, 256, 32, np.uint8)
        length = int(random.integers(0, 65_000))
        row = np.full(2112, 7, np.uint8)
        put(row, 64, template, name, length)
        assert row[64 - size : 64].tobytes() == naive_head(template.tobytes(), name.tobytes(), length)
        assert (row[: 64 - size] == 7).all()
        assert (row[64:] == 7).all()


def test_rows_of_many_sockets_come_in_order_of_time_and_none_is_lost(ports: Ports) -> None:
    random = np.random.default_rng(1)
    with ports() as source, sender("127.0.0.1") as out:
        opened = [source.open("127.0.0.1") for _ in range(40)]
        sent = []
        for number in range(2000):
            port = opened[random.integers(len(opened))]
            place = int(random.integers(2))
            out.sendto(b"%d" % number, ("127.0.0.1", port.rtp.port + place))
            sent.append((port.place + place, b"%d" % number))
        batch, places, octets = take(source, 2000)[0]
        assert (np.diff(batch.time) >= 0).all()
        assert list(zip(places.tolist(), octets, strict=True)) == sent
        assert source.counters().packets == 2000
        assert source.counters().dropped == 0


def test_more_than_a_batch_takes_is_left_for_the_next_and_every_socket_has_its_turn(ports: Ports) -> None:
    options = replace(QUICK, pace=10.0, batch_rows=16)
    with ports(options) as source, sender("127.0.0.1") as out:
        opened = [source.open("127.0.0.1") for _ in range(3)]
        for number in range(100):
            for port in opened:
                out.sendto(b"%d" % number, ("127.0.0.1", port.rtp.port))
        found = take(source, 300)  # without the pace, as something is left
        assert max(len(batch) for batch, _, _ in found) == 16
        for port in opened:
            mine = [octets[row] for _, places, octets in found for row in np.flatnonzero(places == port.place).tolist()]
            assert mine == [b"%d" % number for number in range(100)]
        for port in opened:
            assert any((places == port.place).any() for _, places, _ in found[:4])


def test_long_datagrams_are_cut_and_counted(ports: Ports) -> None:
    with ports() as source, sender("127.0.0.1") as out:
        port = source.open("127.0.0.1")
        out.sendto(b"x" * MOST_DATAGRAM, ("127.0.0.1", port.rtp.port))
        out.sendto(b"y" * 9000, ("127.0.0.1", port.rtp.port))
        out.sendto(b"", ("127.0.0.1", port.rtp.port))
        batch = source.poll(1.0)
        assert batch is not None
        assert decode_layers(batch).length.tolist() == [MOST_DATAGRAM, MOST_DATAGRAM, 0]
        assert (batch.wire - batch.captured).tolist() == [0, 9000 - MOST_DATAGRAM, 0]
        assert source.counters().note == "datagrams cut at 2048 octets: 1"


def test_an_announced_address_is_the_destination_of_rows(ports: Ports) -> None:
    with ports() as source, sender("127.0.0.1") as out:
        port = source.open("127.0.0.1", "203.0.113.9")
        assert str(port.rtp).startswith("203.0.113.9:")
        out.sendto(b"media", ("127.0.0.1", port.rtp.port))
        batch = source.poll(1.0)
        assert batch is not None
        assert decode_layers(batch).destination_low.tolist() == [port.rtp.low]


def test_what_was_sent_before_the_release_is_still_read(ports: Ports) -> None:
    with ports(replace(QUICK, linger=0.05)) as source, sender("127.0.0.1") as out:
        port = source.open("127.0.0.1")
        out.sendto(b"last words", ("127.0.0.1", port.rtp.port))
        source.release(port)
        source.release(port)
        assert payloads(source, 1) == [b"last words"]
        time.sleep(0.06)
        assert source.poll(0.0) is None
        assert source.opened == 0


def test_a_second_release_does_not_close_the_next_user_s_ports(ports: Ports) -> None:
    with ports(replace(QUICK, high=LOW + 1)) as source:
        first = source.open("127.0.0.1")
        source.release(first)
        source.poll(0.0)
        second = source.open("127.0.0.1")
        assert second.place == first.place
        source.release(first)
        source.poll(0.0)
        assert source.opened == 1


def test_the_pace_makes_few_batches(ports: Ports) -> None:
    with ports(replace(QUICK, pace=0.05)) as source, sender("127.0.0.1") as out:
        port = source.open("127.0.0.1")
        batches = packets = 0
        begin = time.monotonic()
        while time.monotonic() - begin < 0.4:
            out.sendto(b"x", ("127.0.0.1", port.rtp.port))
            batch = source.poll(0.001)
            batches += batch is not None
            packets += 0 if batch is None else len(batch)
        assert 2 <= batches <= 9
        assert packets > 3 * batches


def test_ports_run_out_with_an_error_that_says_so_and_come_back(ports: Ports) -> None:
    with ports(replace(QUICK, high=LOW + 9)) as source:
        opened = [source.open("127.0.0.1") for _ in range(5)]
        with pytest.raises(PortsExhausted, match=f"{LOW}-{LOW + 9}"):
            source.open("127.0.0.1")
        source.release(opened[2])
        source.poll(0.0)
        assert source.open("127.0.0.1").rtp == opened[2].rtp


def test_ports_of_other_programs_are_passed_over(ports: Ports) -> None:
    with ports(replace(QUICK, high=LOW + 5)) as source, sender("127.0.0.1") as other:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", LOW + 3))
            assert {source.open("127.0.0.1").rtp.port for _ in range(2)} == {LOW, LOW + 4}
            with pytest.raises(PortsExhausted):
                source.open("127.0.0.1")
        assert other.fileno() >= 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "203.0.113.200", "srs.example.com"])
def test_addresses_that_are_not_ours_are_refused(ports: Ports, host: str) -> None:
    with ports() as source:
        with pytest.raises(LiveCaptureError):
            source.open(host)
        assert source.opened == 0


def test_ten_thousand_ports_opened_and_released_leave_nothing_behind(ports: Ports) -> None:
    with ports(replace(QUICK, high=LOW + 199)) as source:
        source.release(source.open("127.0.0.1"))
        source.poll(0.0)
        files = len(os.listdir("/proc/self/fd"))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(10_000):
            source.release(source.open("127.0.0.1"))
            if number % 50 == 0:
                source.poll(0.0)
        source.poll(0.0)
        assert source.opened == 0
        assert len(os.listdir("/proc/self/fd")) == files
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 8192


def test_without_file_descriptors_an_error_says_so(ports: Ports) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ports() as source:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(PortsExhausted, match="ulimit"):
                source.open("127.0.0.1")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ports_open_and_close_while_another_thread_polls(ports: Ports) -> None:
    with ports(replace(QUICK, linger=0.02, pace=0.002)) as source:
        heard: list[bytes] = []
        done = threading.Event()

        def listen() -> None:
            while not done.is_set():
                batch = source.poll(0.02)
                if batch is not None:
                    datagrams = decode_layers(batch)
                    heard.extend(
                        batch.buffer[at : at + size].tobytes()
                        for at, size in zip(datagrams.payload.tolist(), datagrams.length.tolist(), strict=True)
                    )

        def use(worker: int) -> None:
            with sender("127.0.0.1") as out:
                for number in range(100):
                    port: MediaPort = source.open("127.0.0.1")
                    for packet in range(3):
                        out.sendto(b"%d/%d/%d" % (worker, number, packet), ("127.0.0.1", port.rtp.port))
                    source.release(port)
                    source.counters()

        listener = threading.Thread(target=listen)
        users = [threading.Thread(target=use, args=(worker,)) for worker in range(3)]
        for thread in (listener, *users):
            thread.start()
        for thread in users:
            thread.join()
        time.sleep(0.1)
        done.set()
        listener.join()
        expected = {b"%d/%d/%d" % (w, n, p) for w in range(3) for n in range(100) for p in range(3)}
        assert len(heard) == len(expected)
        assert set(heard) == expected
        assert source.opened == 0


def test_drops_of_a_full_socket_are_counted_also_after_it_is_closed(ports: Ports) -> None:
    options = replace(QUICK, receive_buffer=4096, collector_buffer=4096)
    with ports(options) as source, sender("127.0.0.1") as out:
        port = source.open("127.0.0.1")
        for _ in range(500):
            out.sendto(bytes(172), ("127.0.0.1", port.rtp.port))
        dropped = source.counters().dropped
        assert 0 < dropped < 500
        batches = take(source, 500 - dropped)
        assert sum(len(batch) for batch, _, _ in batches) == 500 - dropped
        source.release(port)
        source.poll(0.0)
        assert source.opened == 0
        assert source.counters().dropped == dropped


def test_answers_leave_from_the_port_that_was_announced(ports: Ports) -> None:
    with ports() as source, sender("127.0.0.1") as other:
        port = source.open("127.0.0.1")
        to = port.rtp._replace(port=other.getsockname()[1])
        assert source.send(port.place + 1, b"report", to)
        other.settimeout(2.0)
        assert other.recvfrom(100) == (b"report", ("127.0.0.1", port.rtcp.port))
        source.release(port)
        source.poll(0.0)
        assert not source.send(port.place + 1, b"report", to)


def test_nothing_comes_of_a_closed_source(ports: Ports) -> None:
    with ports() as source:
        source.open("127.0.0.1")
        assert not source.ended
        source.close()
        source.close()
        assert source.ended
        assert source.poll(0.0) is None
        assert not source.counters().up
        with pytest.raises(PortsExhausted):
            source.open("127.0.0.1")
