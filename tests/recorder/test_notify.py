"""What the service manager is told."""

import os
import socket
import threading

import pytest

from recorder.notify import ServiceManager


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def service(manager: socket.socket, **environment: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": manager.getsockname(), **environment})


def test_each_message_is_what_the_protocol_has(manager):
    told = service(manager)
    told.ready("capturing on eth1")
    assert manager.recv(1000) == b"READY=1\nSTATUS=capturing on eth1"
    told.status("12 calls")
    assert manager.recv(1000) == b"STATUS=12 calls"
    told.reloading()
    first, second = manager.recv(1000).split(b"\n")
    assert first == b"RELOADING=1"
    assert int(second.removeprefix(b"MONOTONIC_USEC=")) > 0
    told.stopping("3 calls to finish")
    assert manager.recv(1000) == b"STOPPING=1\nSTATUS=3 calls to finish"
    told.more_time(30)
    assert manager.recv(1000) == b"EXTEND_TIMEOUT_USEC=30000000"
    told.close()


def test_a_reload_that_was_announced_is_ended_once(manager):
    told = service(manager)
    told.reloaded("nothing to tell")
    told.reloading()
    told.reloaded("2 rules")
    told.reloaded("2 rules")
    told.status("later")
    messages = [manager.recv(1000) for _ in range(3)]
    assert messages[0].startswith(b"RELOADING=1")
    assert messages[1:] == [b"READY=1\nSTATUS=2 rules", b"STATUS=later"]
    told.close()


def test_an_abstract_address_is_reached():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"\0spanrec-test-{os.getpid()}"
        listening.bind(name)
        listening.settimeout(5)
        told = ServiceManager({"NOTIFY_SOCKET": "@" + name[1:]})
        told.ready("up")
        assert listening.recv(1000).startswith(b"READY=1")
        told.close()


def test_the_same_status_is_not_repeated(manager):
    told = service(manager)
    for status in ("quiet", "quiet", "busy"):
        told.status(status)
    assert [manager.recv(1000), manager.recv(1000)] == [b"STATUS=quiet", b"STATUS=busy"]
    told.close()


def test_a_status_is_one_line_and_gives_no_orders(manager):
    told = service(manager)
    told.status("a call from \nMAINPID=1\n" + "x" * 500)
    message = manager.recv(1000)
    assert message.startswith(b"STATUS=a call from MAINPID=1 ")
    assert b"\n" not in message
    assert len(message) < 250
    told.close()


def test_the_watchdog_gets_its_beat_but_not_every_time(manager):
    told = service(manager, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    assert told.watchdog_interval == 30
    for _ in range(100):
        told.beat()
    assert manager.recv(1000) == b"WATCHDOG=1"
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1000)
    told.close()


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}],
)
def test_without_a_watchdog_there_is_no_beat(manager, environment):
    told = service(manager, **environment)
    assert told.watchdog_interval is None
    told.beat()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1000)
    told.close()


def test_children_do_not_inherit_the_address(manager):
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1", "HOME": "/"}
    ServiceManager(environment).close()
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative", "/no/such/socket"])
def test_without_a_manager_nothing_happens(address):
    told = ServiceManager({"NOTIFY_SOCKET": address})
    told.ready("up")
    told.stopping("down")
    told.close()


def test_a_manager_that_does_not_read_stops_nobody(manager):
    told = service(manager)
    said = threading.Thread(target=lambda: [told.status(str(n)) for n in range(5000)], daemon=True)
    said.start()
    said.join(timeout=10)
    assert not said.is_alive()
    told.close()
