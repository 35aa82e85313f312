"""The ring source over veth pairs in network namespaces: what is sent comes out, once, in order and whole."""

import shutil
import socket
import struct
import subprocess
import time
from fcntl import ioctl
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from bench.veth import add_pair, entered, is_possible, run, wire
from capture.interface import InterfaceTable
from capture.layers import decode_layers
from capture.live import LiveCaptureError
from capture.ring import RingOptions, RingSource
from tests.capture.live_frames import Sender, datagram, frames_of, many, take, without_net_raw

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and network namespaces")

SMALL = RingOptions(expression="", ring_size=2 << 20, block_size=64 << 10, retire_ms=10, pace=0.0)
PCAPS = Path(__file__).resolve().parents[2] / "pcaps"


@pytest.fixture(scope="module")
def over():
    with wire("ring", pairs=2) as made:
        yield made


def opened(over, *interfaces, capture=0, **options):
    """A source made inside the namespace; it stays there."""
    chosen = RingOptions(**{**{name: getattr(SMALL, name) for name in SMALL.__slots__}, **options})
    with entered(over.namespace):
        return RingSource(interfaces or (over.receiver,), chosen, capture=capture)


@pytest.fixture
def source(over):
    with_all = opened(over, capture=7)
    yield with_all
    with_all.close()


@pytest.fixture
def sender(over):
    with Sender(over.namespace, over.sender) as made:
        yield made


def octets(frames: list[Packet]) -> list[bytes]:
    return [bytes(frame) for frame in frames]


def test_what_is_sent_comes_out_whole_in_order_and_numbered(source, sender):
    sent = [datagram(bytes(size)) for size in (0, 1, 160, 1400, 2900)]
    before = time.time_ns()
    sender.send(*sent)
    taken = take(source, len(sent))
    assert [each.octets for each in taken] == octets(sent)
    assert [each.wire for each in taken] == [len(frame) for frame in octets(sent)]
    assert [(each.number, each.link_type, each.capture) for each in taken] == [(n, 1, 7) for n in range(1, 6)]
    times = [each.time for each in taken]
    assert times == sorted(times)
    assert before - 10**6 < times[0] <= times[-1] < time.time_ns()
    assert source.counters().packets == 5
    assert source.counters().octets == sum(len(frame) for frame in octets(sent))


def test_nothing_sent_is_none_after_the_time_out(source):
    began = time.monotonic()
    assert source.poll(0.1) is None
    assert 0.09 < time.monotonic() - began < 1.0


def test_frames_come_soon_after_they_were_sent(source, sender):
    began = time.monotonic()
    sender.send(datagram())
    while source.poll(0.05) is None:
        assert time.monotonic() - began < 3.0
    assert time.monotonic() - began < 0.5


@pytest.mark.skipif(shutil.which("tcpreplay") is None, reason="tcpreplay is not installed")
def test_a_capture_replayed_by_tcpreplay_comes_out_as_it_is(over, source):
    from scapy.utils import RawPcapReader

    capture = min((path for path in PCAPS.rglob("*.pcap")), key=lambda path: path.stat().st_size)
    with RawPcapReader(str(capture)) as reader:
        sent = [frame for frame, _ in reader]
    command = over.inside("tcpreplay", "--topspeed", "-i", over.sender, str(capture))
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    assert [each.octets for each in take(source, len(sent))] == sent


def tagged():
    inner = datagram(b"tagged" * 10)
    ether, rest = Ether(src=inner.src, dst=inner.dst), inner.payload
    return [
        ether / Dot1Q(vlan=100) / rest,
        ether / Dot1Q(vlan=4094, prio=7) / rest,
        ether / Dot1Q(vlan=0, prio=5) / rest,
        ether / Dot1AD(vlan=200) / Dot1Q(vlan=300) / rest,
        ether / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / rest,
    ]


def test_vlan_tags_that_were_taken_off_are_put_back(over, source, sender):
    with entered(over.namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as plain:
        plain.bind((over.receiver, 3))
        plain.settimeout(2.0)
        sender.send(*tagged())
        without = [plain.recv(4096) for _ in tagged()]
    sent = octets(tagged())
    assert [frame[:12] + frame[16:] for frame in sent] == without, "the kernel takes the outer tag off"
    taken = take(source, len(sent))
    assert [each.octets for each in taken] == sent
    assert [each.wire for each in taken] == [len(frame) for frame in sent]


def test_the_batch_goes_straight_into_the_layers(source, sender):
    sender.send(*tagged())
    time.sleep(0.1)
    datagrams = decode_layers(source.poll(1.0))
    begins, sizes = datagrams.payload.tolist(), datagrams.length.tolist()
    payloads = {datagrams.packets.buffer[at : at + size].tobytes() for at, size in zip(begins, sizes, strict=True)}
    assert payloads == {b"tagged" * 10}
    assert not datagrams.packets.buffer.flags.writeable


def test_interfaces_are_merged_in_time_order_from_batch_to_batch(over):
    merged = opened(over, "rx0", "rx1", retire_ms=5)
    frames = many(600)
    with Sender(over.namespace, "tx0") as one, Sender(over.namespace, "tx1") as other:
        taken = []
        for number, frame in enumerate(frames):
            (one if number % 3 else other).send(frame)
            if number % 50 == 0:
                time.sleep(0.004)
                batch = merged.poll(0.0)
                taken += frames_of(batch) if batch is not None else []
        taken += take(merged, len(frames) - len(taken))
    merged.close()
    assert [each.octets for each in taken] == frames
    assert [each.number for each in taken] == list(range(1, len(frames) + 1))


def test_a_silent_interface_keeps_the_other_waiting_for_a_moment_only(over, sender):
    merged = opened(over, "rx0", "rx1", retire_ms=10)
    walks = []
    walk = merged._rings.walk
    merged._rings.walk = lambda room: walks.append(room) or walk(room)
    sender.send(datagram())
    began = time.monotonic()
    assert merged.poll(2.0) is not None
    assert time.monotonic() - began < 1.0
    assert len(walks) < 20, "it sleeps meanwhile"
    merged.close()


def test_sockets_that_share_an_interface_lose_and_double_nothing(over, sender):
    shared = opened(over, sockets=3)
    frames = many(3000)
    taken = []
    for begin in range(0, len(frames), 500):
        sender.send(*frames[begin : begin + 500])
        taken += take(shared, 500)
    rings = {each.fileno(): each.statistics() for each in shared._ports[0].sockets}
    shared.close()
    assert len(rings) == 3
    assert sorted(each.octets for each in taken) == sorted(frames)
    times = [each.time for each in taken]
    assert times == sorted(times)


def test_loopback_packets_count_once(over):
    loop = opened(over, "lo")
    with entered(over.namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        for number in range(5):
            udp.sendto(b"once %d" % number, udp.getsockname())
    taken = take(loop, 5)
    loop.close()
    assert [each.octets[42:] for each in taken] == [b"once %d" % number for number in range(5)]


@pytest.mark.parametrize(("outgoing", "seen"), [(True, 1), (False, 0)])
def test_what_the_machine_sends_itself_is_left_out_on_request(over, outgoing, seen):
    choosing = opened(over, outgoing=outgoing)
    with Sender(over.namespace, over.receiver) as own:
        own.send(datagram(b"own"))
    taken = take(choosing, seen, seconds=1.0)
    choosing.close()
    assert len(taken) == seen


def test_any_takes_all_interfaces_with_a_cooked_header(over, sender):
    everything = opened(over, "any")
    sender.send(datagram(b"untagged"), tagged()[0])
    with entered(over.namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"loop", ("127.0.0.1", 9))
    time.sleep(0.2)
    batch = everything.poll(1.0)
    assert set(batch.link_type.tolist()) == {276}
    decoded = decode_layers(batch)
    begins, sizes = decoded.payload.tolist(), decoded.length.tolist()
    payloads = [batch.buffer[at : at + size].tobytes() for at, size in zip(begins, sizes, strict=True)]
    # Sent on one end of the pair, received on the other.
    assert payloads.count(b"untagged") == 2
    assert payloads.count(b"tagged" * 10) == 2
    assert payloads.count(b"loop") == 1
    everything.close()


def test_a_tun_interface_gives_raw_ip(over):
    with entered(over.namespace), Path("/dev/net/tun").open("r+b", buffering=0) as tun:
        ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
        run("ip", "-n", over.namespace, "link", "set", "tun0", "up")
        raw = opened(over, "tun0")
        sent = bytes(datagram(b"in a tunnel").payload)
        tun.write(sent)
        taken = take(raw, 1)
        raw.close()
    assert [(each.octets, each.link_type) for each in taken] == [(sent, 101)]


def test_a_filter_takes_what_is_asked_for_and_what_may_hide_it(over, sender):
    filtered = opened(over, expression="udp port 5060")
    wanted = [datagram(b"sip"), tagged()[0], tagged()[3]]
    wanted += [Ether(dst="02:00:00:00:00:02") / part for part in fragment(datagram(bytes(4000)).payload, fragsize=1400)]
    sender.send(datagram(port=40000, to=443), *wanted, datagram(port=40000, to=53))
    taken = take(filtered, len(wanted))
    filtered.close()
    assert [each.octets for each in taken] == octets(wanted)


def test_the_kernel_filters_all_interfaces_at_once_too(over, sender):
    filtered = opened(over, "any", expression="udp port 5060", outgoing=False)
    six = Ether(dst="02:00:00:00:00:02") / IPv6() / UDP(sport=5060, dport=5060) / b"six"
    sender.send(datagram(port=40000, to=443), datagram(b"sip"), tagged()[0], tagged()[3], six)
    taken = take(filtered, 4)
    filtered.close()
    # 20 octets of header where there were 14, and the tag that was taken off.
    assert [each.octets[-3:] for each in taken] == [b"sip", b"ged", b"ged", b"six"]
    assert [len(each.octets) for each in taken] == [
        len(bytes(each)) + 6 for each in (datagram(b"sip"), *tagged()[:4:3], six)
    ]


def promiscuity(over, name):
    with entered(over.namespace):
        table = InterfaceTable()
    found = table.require(name).promiscuity
    table.close()
    return found


def test_promiscuous_mode_is_asked_for_only_if_wanted_and_given_back(over, source):
    assert promiscuity(over, over.receiver) == 0
    wanting = opened(over, promiscuous=True)
    assert promiscuity(over, over.receiver) == 1
    wanting.close()
    assert promiscuity(over, over.receiver) == 0


def test_what_a_full_ring_loses_is_counted(over, sender):
    tiny = opened(over, ring_size=4 * 4096, block_size=4096)
    sender.send(*many(500))
    time.sleep(0.1)
    taken = take(tiny, 500, seconds=0.5)
    time.sleep(1.1)
    sender.send(datagram())
    assert len(take(tiny, 1)) == 1
    counted = tiny.counters()
    tiny.close()
    assert 0 < len(taken) < 500
    assert counted.dropped == 500 - len(taken)
    assert counted.frozen > 0
    assert counted.packets == len(taken) + 1


def test_a_batch_is_bounded_and_the_rest_comes_next(over, sender):
    bounded = opened(over, batch_rows=1024)
    frames = many(5000)
    sender.send(*frames)
    time.sleep(0.1)
    taken, sizes = [], []
    while (batch := bounded.poll(0.3)) is not None:
        sizes.append(len(batch))
        taken += frames_of(batch)
    bounded.close()
    assert max(sizes) <= 1024
    assert [each.octets for each in taken] == frames


def test_an_interface_that_goes_down_and_up_again_is_survived(over, source, sender):
    sender.send(datagram(b"before"))
    assert len(take(source, 1)) == 1
    assert source.counters().up
    run("ip", "-n", over.namespace, "link", "set", over.receiver, "down")
    assert source.poll(0.3) is None
    assert not source.counters().up
    assert "rx0" in source.counters().note
    run("ip", "-n", over.namespace, "link", "set", over.receiver, "up")
    sender.send(datagram(b"after"))
    taken = take(source, 1)
    assert [each.octets[42:] for each in taken] == [b"after"]
    source.poll(1.1)
    assert source.counters().up


@pytest.mark.parametrize("sockets", [1, 2])
def test_an_interface_that_was_made_anew_is_listened_to_again_without_privileges(over, sockets):
    add_pair(over.namespace, "txa", "rxa")
    kept = opened(over, "rxa", sockets=sockets, promiscuous=True)
    with Sender(over.namespace, "txa") as before:
        before.send(datagram(b"before"))
        assert len(take(kept, 1)) == 1
    for life in (b"second", b"third"):
        run("ip", "-n", over.namespace, "link", "del", "txa")
        with without_net_raw():
            kept.poll(0.2)
            assert not kept.counters().up
            add_pair(over.namespace, "txa", "rxa")
            kept.poll(1.1)
            kept.poll(0.0)
        with Sender(over.namespace, "txa") as after:
            after.send(datagram(life))
        assert [each.octets[42:] for each in take(kept, 1)] == [life]
        assert kept.counters().up
        assert promiscuity(over, "rxa") == 1
    kept.close()
    run("ip", "-n", over.namespace, "link", "del", "txa")


def test_a_batch_that_is_held_after_the_end_reads_as_zeros(over, sender):
    ending = opened(over)
    sender.send(datagram(b"x" * 100))
    time.sleep(0.1)
    batch = ending.poll(1.0)
    at = int(batch.offset[0])
    assert batch.buffer[at : at + 142].any()
    ending.close()
    ending.close()
    assert not batch.buffer.any()


def test_counters_may_be_asked_for_at_any_time(source):
    first = source.counters()
    assert (first.packets, first.dropped, first.frozen, first.up) == (0, 0, 0, True)
    assert "times are the kernel's" in first.note


def test_without_the_capability_it_says_which(over):
    with entered(over.namespace), without_net_raw(), pytest.raises(LiveCaptureError, match="CAP_NET_RAW"):
        RingSource(["rx0"])


@pytest.mark.parametrize(
    ("interfaces", "options", "said"),
    [
        (["nowhere"], SMALL, "There are: lo, "),
        ([], SMALL, "Name each interface once"),
        (["rx0", "rx0"], SMALL, "Name each interface once"),
        (["any", "rx0"], SMALL, "Name each interface once"),
        (["rx0"], RingOptions(block_size=5000), "power of two"),
        (["rx0"], RingOptions(batch_rows=10), "room for a block"),
        (["rx0"], RingOptions(expression="udp prt 5060"), "not understood"),
        (["rx0"], RingOptions(ring_size=1 << 50), "none above 4 GiB"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(over, interfaces, options, said):
    with entered(over.namespace), pytest.raises(LiveCaptureError, match=said):
        RingSource(interfaces, options)


def test_times_are_int64_columns_as_batches_have_them(source, sender):
    sender.send(datagram())
    time.sleep(0.05)
    batch = source.poll(1.0)
    kinds = [np.int64, np.int64, np.int32, np.int32, np.int32, np.int64, np.int32]
    columns = (batch.time, batch.offset, batch.captured, batch.wire, batch.link_type, batch.number, batch.capture)
    assert [column.dtype for column in columns] == kinds
