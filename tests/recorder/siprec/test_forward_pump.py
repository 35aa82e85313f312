"""The kernel that forwards from a ring by itself, on a veth pair: what it does while Python does other things."""

import ctypes
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.veth import Wire, entered, is_possible, wire
from capture.ring import RingOptions, RingSource
from recorder.siprec.forward import NewFlow
from recorder.siprec.legs import LegId, LocalMedia
from tests.capture.live_frames import Sender
from tests.forwarding import FORMATS, VOICE, Bench, Got, Rtp, Server, talk

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and network namespaces")

RING = RingOptions(expression="udp", ring_size=8 << 20, block_size=64 << 10, retire_ms=2)
ETHERNET = bytes.fromhex("020000000001 020000000002 0800")
PATIENCE = 60.0


@pytest.fixture(scope="module")
def over():
    with wire("pump") as made:
        yield made


def send(sender: Sender, packets: list[Rtp]) -> None:
    sender.send(*(ETHERNET + packet.frame() for packet in packets))


def until(condition) -> None:
    """Wait for something that other threads bring about."""
    tick = threading.Event()
    for _ in range(round(PATIENCE / 0.005)):
        if condition():
            return
        tick.wait(0.005)
    raise AssertionError("it did not come about")


@contextmanager
def running(over: Wire, *interfaces: str) -> Iterator[tuple[Bench, RingSource]]:
    """A forwarder on the receiver's end of a wire."""
    with Bench(live=True) as bench:
        bench.forwarder.prepare()
        with entered(over.namespace):
            source = RingSource(interfaces or (over.receiver,), RING)
        thread = threading.Thread(target=bench.forwarder.run, args=(source,))
        thread.start()
        try:
            yield bench, source
        finally:
            bench.forwarder.stopping = True
            thread.join(PATIENCE)
            source.close()
        assert not thread.is_alive()


def connected(bench: Bench, sender: Sender, server: Server, first: list[Rtp]) -> tuple[LegId, LocalMedia]:
    """A leg that has sent the first packets of a source."""
    send(sender, first)
    found: list[NewFlow] = []
    until(lambda: found.extend(bench.forwarder.take_new_flows()) or found)
    leg = LegId(VOICE, 1)
    bench.forwarder.place(found[0], VOICE, FORMATS)
    local = bench.forwarder.open(leg, "127.0.0.1", 0)
    bench.forwarder.connect(leg, server.remote())
    until(lambda: bench.forwarder.report([leg])[leg].packets == len(first))
    return leg, local


def taken(server: Server, count: int) -> list[Got]:
    got: list[Got] = []
    until(lambda: got.extend(server.got()) or len(got) >= count)
    return got


def test_media_goes_from_the_ring_to_the_server_as_it_was_spoken(over):
    with running(over) as (bench, source), Sender(over.namespace, over.sender) as sender:
        server = bench.server()
        spoken = talk(400)
        leg, local = connected(bench, sender, server, spoken[:5])
        send(sender, spoken[5:])
        got = taken(server, 400)
        assert [each.payload for each in got] == [each.payload for each in spoken]
        assert [(each.sequence - got[0].sequence) & 0xFFFF for each in got] == list(range(400))
        assert {each.ssrc for each in got} == {local.ssrc}
        until(lambda: bench.forwarder.report([leg])[leg].packets == 400)
        assert source.counters().packets == 400
        assert source.counters().octets == sum(len(packet.frame()) + 14 for packet in spoken)


def test_packets_go_on_while_another_thread_keeps_the_interpreter(over):
    poll = ctypes.PyDLL(None).poll  # calls of a PyDLL do not let other threads run Python
    with running(over) as (bench, _), Sender(over.namespace, over.sender) as sender:
        server = bench.server()
        spoken = talk(60)
        connected(bench, sender, server, spoken[:5])
        assert len(taken(server, 5)) == 5
        waits = (ctypes.c_int * 2)(server.rtp_socket.fileno(), select.POLLIN)
        for packet in spoken[5:]:
            send(sender, [packet])
            assert poll(waits, 1, round(PATIENCE * 1000)) == 1
            (got,) = server.got()
            assert got.payload == packet.payload


def test_legs_that_come_and_go_disturb_no_other(over):
    with running(over) as (bench, _), Sender(over.namespace, over.sender) as sender:
        server, other = bench.server(), bench.server()
        spoken = talk(3000)
        connected(bench, sender, server, spoken[:5])
        forwarder = bench.forwarder
        got: list[Got] = []
        for number, begin in enumerate(range(5, len(spoken), 20)):
            send(sender, spoken[begin : begin + 20])
            leg = LegId(VOICE, 10 + number)
            forwarder.open(leg, "127.0.0.1", 0)
            forwarder.connect(leg, other.remote())
            if number % 3 == 0:
                forwarder.pause(leg)
                forwarder.resume(leg)
            if number > 4:
                forwarder.close(LegId(VOICE, 5 + number))
            got += server.got()
            other.got()
        until(lambda: got.extend(server.got()) or len(got) >= len(spoken))
        assert [each.payload for each in got] == [each.payload for each in spoken]
        assert [(each.sequence - got[0].sequence) & 0xFFFF for each in got] == list(range(len(spoken)))


def test_flows_of_several_interfaces_are_forwarded_each_in_order():
    with (
        wire("pump2", pairs=2) as over,
        running(over, "rx0", "rx1") as (bench, _),
        Sender(over.namespace, "tx0") as first,
        Sender(over.namespace, "tx1") as second,
    ):
        server = bench.server()
        spoken = talk(200)
        connected(bench, first, server, spoken[:5])
        elsewhere = talk(200, ssrc=0x2222, source=("192.0.2.7", 4444))
        for begin in range(5, 200, 5):
            send(first, spoken[begin : begin + 5])
            send(second, elsewhere[begin : begin + 5])
        assert [each.payload for each in taken(server, 200)] == [each.payload for each in spoken]
        found: list[NewFlow] = []
        until(lambda: found.extend(bench.forwarder.take_new_flows()) or found)
        assert found[0].ssrc == 0x2222


def test_an_interface_that_is_made_anew_is_listened_to_again():
    from bench.veth import add_pair, run

    with wire("pump3") as over, running(over) as (bench, source):
        server = bench.server()
        with Sender(over.namespace, over.sender) as sender:
            connected(bench, sender, server, talk(5))
        assert len(taken(server, 5)) == 5
        run(*over.inside("ip", "link", "delete", over.receiver))
        until(lambda: not source.counters().up)
        add_pair(over.namespace, over.sender, over.receiver)
        until(lambda: source.counters().up)
        again = talk(50, sequence=105, stamp=5800)
        with Sender(over.namespace, over.sender) as sender:
            send(sender, again)
        assert [each.payload for each in taken(server, 50)] == [each.payload for each in again]
