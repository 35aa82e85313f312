import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from ipaddress import ip_address

import pytest

from capture import media_ports
from capture.media_ports import MediaPortOptions, MediaPorts
from capture.port_steering import Collectors

V4, V6 = socket.AF_INET, socket.AF_INET6
HOSTS = {V4: "127.0.0.1", V6: "::1"}


@pytest.fixture
def collectors() -> Iterator[Collectors]:
    try:
        opened = Collectors(1 << 20)
    except OSError as error:
        pytest.skip(f"socket lookup programs cannot be used here: {error}")
    with closing(opened):
        yield opened


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def bound(opened: ExitStack, host: str, port: int = 0) -> socket.socket:
    made = opened.enter_context(socket.socket(V6 if ":" in host else V4, socket.SOCK_DGRAM))
    made.bind((host, port))
    made.settimeout(2.0)
    return made


def collected(collectors: Collectors, family: socket.AddressFamily) -> list[bytes]:
    """What is in the collector of an IP version."""
    found = []
    with socket.socket(family, socket.SOCK_DGRAM, fileno=os.dup(collectors.descriptors[family == V6])) as reader:
        reader.setblocking(False)
        while True:
            try:
                found.append(reader.recv(100))
            except BlockingIOError:
                return found


@pytest.mark.parametrize("family", [V4, V6])
def test_datagrams_to_a_port_are_collected_while_it_is_open(
    collectors: Collectors, opened: ExitStack, family: socket.AddressFamily
) -> None:
    port, sender = bound(opened, HOSTS[family]), bound(opened, HOSTS[family])
    to = port.getsockname()
    sender.sendto(b"before", to)
    collectors.add(ip_address(HOSTS[family]), to[1])
    sender.sendto(b"one", to)
    sender.sendto(b"two", to)
    collectors.remove(to[1])
    sender.sendto(b"after", to)
    assert [port.recv(100), port.recv(100)] == [b"before", b"after"]
    assert collected(collectors, family) == [b"one", b"two"]


def test_the_same_port_of_another_address_is_left_alone(collectors: Collectors, opened: ExitStack) -> None:
    port, other, sender = bound(opened, "127.0.0.1"), bound(opened, "127.0.0.2"), bound(opened, "127.0.0.1")
    number = port.getsockname()[1]
    other_here = bound(opened, "127.0.0.3", number)
    collectors.add(ip_address("127.0.0.1"), number)
    sender.sendto(b"not ours", ("127.0.0.3", number))
    sender.sendto(b"nor this", other.getsockname())
    assert other_here.recv(100) == b"not ours"
    assert other.recv(100) == b"nor this"
    assert collected(collectors, V4) == []


def test_tcp_to_the_same_port_is_left_alone(collectors: Collectors, opened: ExitStack) -> None:
    listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    collectors.add(ip_address("127.0.0.1"), listener.getsockname()[1])
    opened.enter_context(socket.create_connection(listener.getsockname(), 2.0))
    opened.enter_context(listener.accept()[0])


def test_without_collectors_ports_have_their_datagrams_again(collectors: Collectors, opened: ExitStack) -> None:
    port, sender = bound(opened, "127.0.0.1"), bound(opened, "127.0.0.1")
    collectors.add(ip_address("127.0.0.1"), port.getsockname()[1])
    collectors.close()
    collectors.close()
    sender.sendto(b"back", port.getsockname())
    assert port.recv(100) == b"back"


def test_making_and_closing_leaves_no_descriptor(collectors: Collectors) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        Collectors(1 << 16).close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_sources_side_by_side_have_their_own_ports(collectors: Collectors, opened: ExitStack) -> None:
    collectors.close()
    low = 31_000
    sources = [MediaPorts(MediaPortOptions(low=low + 100 * k, high=low + 100 * k + 99, pace=0.0)) for k in (0, 1)]
    with closing(sources[0]), closing(sources[1]):
        sender = bound(opened, "127.0.0.1")
        for number, source in enumerate(sources):
            sender.sendto(b"x" * (number + 1), ("127.0.0.1", source.open("127.0.0.1").rtp.port))
        for number, source in enumerate(sources):
            batch = source.poll(1.0)
            assert batch is not None
            assert batch.captured.tolist() == [28 + number + 1]


def test_without_the_right_to_steer_each_port_is_asked(opened: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> Collectors:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(media_ports, "Collectors", refuse)
    with closing(MediaPorts(MediaPortOptions(low=31_000, high=31_099, pace=0.0))) as source:
        assert not source.steered
        port = source.open("127.0.0.1")
        bound(opened, "127.0.0.1").sendto(b"media", ("127.0.0.1", port.rtp.port))
        batch = source.poll(1.0)
        assert batch is not None
        assert batch.captured.tolist() == [33]


def test_two_servers_on_a_machine_have_each_its_own_ports(collectors: Collectors, opened: ExitStack) -> None:
    one, two, sender = (bound(opened, "127.0.0.1") for _ in range(3))
    here = ip_address("127.0.0.1")
    collectors.add(here, one.getsockname()[1])
    with closing(Collectors(1 << 20)) as others:
        others.add(here, two.getsockname()[1])
        for _ in range(3):
            sender.sendto(b"one", one.getsockname())
            sender.sendto(b"two", two.getsockname())
        assert collected(collectors, V4) == [b"one"] * 3
        assert collected(others, V4) == [b"two"] * 3
    sender.sendto(b"still", one.getsockname())
    assert collected(collectors, V4) == [b"still"]
