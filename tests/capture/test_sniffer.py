"""The source over scapy's sockets gives what the ring source gives, over both kinds of socket that scapy has."""

import subprocess
import sys
import time

import pytest
from scapy.layers.l2 import Dot1Q, Ether

from bench.veth import add_pair, entered, is_possible, run, wire
from capture.libpcap import library
from capture.live import LiveCaptureError
from capture.ring import RingOptions, RingSource
from capture.sniffer import SnifferSource
from tests.capture.live_frames import Sender, datagram, take, without_net_raw

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and network namespaces")


@pytest.fixture(scope="module")
def over():
    with wire("sniff", pairs=2) as made:
        yield made


def opened(over, *interfaces, **options):
    """scapy's own table of interfaces is read anew: it knows those of the machine."""
    from scapy.config import conf

    with entered(over.namespace):
        conf.ifaces.reload()
        return SnifferSource(interfaces, **options)


def frames():
    tagged = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / Dot1Q(vlan=5) / datagram(b"tagged").payload
    return [bytes(datagram(b"one")), bytes(tagged), bytes(datagram(bytes(1400)))]


def test_it_gives_what_the_ring_gives(over):
    sniffer = opened(over, "rx0", expression="", capture=3)
    with entered(over.namespace):
        ring = RingSource(["rx0"], RingOptions(expression="", ring_size=1 << 20, block_size=64 << 10), capture=3)
    with Sender(over.namespace, "tx0") as sender:
        sender.send(*frames())
    ours, theirs = take(sniffer, 3), take(ring, 3)
    assert [each.octets for each in ours] == frames()
    for one, other in zip(ours, theirs, strict=True):
        assert one._replace(time=0) == other._replace(time=0)
        assert abs(one.time - other.time) < 5_000_000
    assert (sniffer.counters().packets, sniffer.counters().octets) == (3, sum(map(len, frames())))
    sniffer.close()
    ring.close()


def test_interfaces_come_in_time_order_and_nothing_is_none(over):
    sniffer = opened(over, "rx0", "rx1")
    assert sniffer.poll(0.05) is None
    with Sender(over.namespace, "tx0") as one, Sender(over.namespace, "tx1") as other:
        for number in range(40):
            (one if number % 2 else other).send(datagram(b"%d" % number))
    time.sleep(0.1)
    assert [each.octets[42:] for each in take(sniffer, 40)] == [b"%d" % number for number in range(40)]
    sniffer.close()


@pytest.mark.skipif(library() is None, reason="libpcap is not installed")
def test_its_filter_is_widened_too(over):
    sniffer = opened(over, "rx0", expression="udp port 5060")
    with Sender(over.namespace, "tx0") as sender:
        sender.send(datagram(port=1, to=2), *frames())
    assert [each.octets for each in take(sniffer, 3)] == frames()
    sniffer.close()


def test_an_interface_that_goes_away_is_told_and_opened_again(over):
    add_pair(over.namespace, "txs", "rxs")
    sniffer = opened(over, "rxs", expression="")
    run("ip", "-n", over.namespace, "link", "del", "txs")
    deadline = time.monotonic() + 5
    while sniffer.counters().up and time.monotonic() < deadline:
        sniffer.poll(0.1)
    assert not sniffer.counters().up
    assert "rxs" in sniffer.counters().note
    add_pair(over.namespace, "txs", "rxs")
    with entered(over.namespace):
        while not sniffer.counters().up and time.monotonic() < deadline:
            sniffer.poll(0.1)
    with Sender(over.namespace, "txs") as sender:
        sender.send(datagram(b"again"))
    assert [each.octets[42:] for each in take(sniffer, 1)] == [b"again"]
    sniffer.close()
    run("ip", "-n", over.namespace, "link", "del", "txs")


def test_what_cannot_be_opened_is_refused_with_a_reason(over):
    with pytest.raises(LiveCaptureError, match="nowhere"):
        opened(over, "nowhere")
    with pytest.raises(LiveCaptureError, match="Name an interface"):
        opened(over)
    with without_net_raw(), pytest.raises(LiveCaptureError, match="not permitted"):
        opened(over, "rx0")


PCAP = """
import sys, time
from scapy.config import conf
conf.use_pcap = True
from capture.sniffer import SnifferSource
source = SnifferSource(["rx0"], expression="udp port 5060")
print("ready", flush=True)
found = []
deadline = time.monotonic() + 10
while len(found) < 2 and time.monotonic() < deadline:
    batch = source.poll(0.2)
    if batch is not None:
        found += [batch.buffer[a : a + n].tobytes() for a, n in zip(batch.offset, batch.captured)]
print(b"".join(found).hex())
"""


@pytest.mark.skipif(library() is None, reason="libpcap is not installed")
def test_it_works_over_libpcap_as_other_systems_do(over):
    command = over.inside(sys.executable, "-c", PCAP)
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader,
        Sender(over.namespace, "tx0") as sender,
    ):
        assert reader.stdout.readline() == "ready\n"
        sent = [bytes(datagram(b"one")), bytes(datagram(b"two"))]
        sender.send(datagram(port=1, to=2), *sent)
        assert reader.communicate(timeout=20)[0].strip() == b"".join(sent).hex()
