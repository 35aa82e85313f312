import socket
import struct
import time
import zlib

import pytest

import capture.hep_source as module
from capture.hep import Refusal
from capture.hep_source import HepSource
from capture.layers import decode_layers
from capture.live import LiveCaptureError
from tests.hep_packets import SIP_MESSAGE, chunk, hep2, hep3

NOW = 1_700_000_000_000_000_000
RTCP = bytes.fromhex("80c80006000000010000000200000003000000040000000500000006")


class Listening:
    """A source on a free port of the loopback, and a sender."""

    def __init__(self, **options: object) -> None:
        self.source = HepSource("127.0.0.1:0", clock=lambda: NOW, **options)
        self.place = ("127.0.0.1", int(self.source.place.rpartition(":")[2]))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.open = [self.udp]

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.udp.sendto(datagram, self.place)

    def connect(self) -> socket.socket:
        peer = socket.create_connection(self.place, timeout=5)
        self.open.append(peer)
        return peer

    def payloads(self, count: int = 1, patience: float = 5.0) -> list[bytes]:
        """Payloads of the next frames, `count` of them."""
        found: list[bytes] = []
        until = time.monotonic() + patience
        while len(found) < count and time.monotonic() < until:
            batch = self.source.poll(0.05)
            if batch is None:
                continue
            rows = decode_layers(batch)
            for at, size in zip(rows.payload.tolist(), rows.length.tolist(), strict=True):
                found.append(batch.buffer[at : at + size].tobytes())
        return found

    def is_hung_up(self, peer: socket.socket) -> bool:
        """Whether the source closes a connection, or has done so."""
        peer.settimeout(0.05)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            self.source.poll(0.02)
            try:
                return peer.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                return True
        return False

    def close(self) -> None:
        self.source.close()
        for each in self.open:
            each.close()


@pytest.fixture
def listen():
    opened: list[Listening] = []

    def build(**options: object) -> Listening:
        opened.append(Listening(**options))
        return opened[-1]

    yield build
    for each in opened:
        each.close()


def test_datagrams_of_every_version_come_out_as_frames(listen):
    heard = listen()
    heard.send(hep3(b"three"), hep2(b"two"), hep2(b"one", version=1), hep3(RTCP, kind=5))
    assert heard.payloads(4) == [b"three", b"two", b"one", RTCP]
    counters = heard.source.counters()
    assert (counters.packets, counters.octets, counters.up, counters.note) == (4, 4 * 28 + 5 + 3 + 3 + 28, True, None)


def test_frames_are_numbered_on_and_carry_the_index_of_their_source(listen):
    heard = listen(capture=3)
    numbers = []
    for _ in range(2):
        heard.send(hep3(), hep3())
        while len(numbers) % 2 or not numbers or len(numbers) < 2:
            batch = heard.source.poll(1)
            numbers += batch.number.tolist()
            assert set(batch.capture.tolist()) == {3}
    assert numbers == [1, 2]


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (NOW - 59 * 10**9, NOW - 59 * 10**9),
        (NOW + 60 * 10**9, NOW + 60 * 10**9),
        (NOW - 61 * 10**9, NOW),
        (NOW + 3600 * 10**9, NOW),
        (None, NOW),
    ],
)
def test_the_senders_time_counts_where_it_is_near_ours(listen, sent, taken):
    heard = listen()
    heard.send(hep3(time=sent))
    assert heard.source.poll(5).time.tolist() == [taken]


def test_how_near_is_a_matter_of_choice(listen):
    heard = listen(clock_distance=0.5)
    heard.send(hep3(time=NOW - 400_000_000), hep3(time=NOW - 600_000_000))
    times: list[int] = []
    while len(times) < 2:
        times += heard.source.poll(5).time.tolist()
    assert times == [NOW - 400_000_000, NOW]


def test_without_the_right_key_nothing_is_taken(listen):
    heard = listen(key="s3cret")
    heard.send(hep3(b"none"), hep3(b"wrong", key=b"S3cret"), hep3(b"shorter", key=b"s3cre"), hep2(b"old"))
    heard.send(hep3(b"right", key=b"s3cret"))
    assert heard.payloads() == [b"right"]
    assert heard.source.refused == {Refusal.UNAUTHORISED: 4}
    note = heard.source.counters().note
    assert note == "packets refused: 4 without the right key"
    assert "s3cret" not in note + repr(heard.source) + heard.source.name


def test_refused_packets_are_counted_by_reason_and_stop_nothing(listen):
    heard = listen()
    heard.send(b"", b"GET / HTTP/1.1\r\n", hep3()[:40], hep3(b'{"report":1}', kind=5), hep3(b"log", kind=100))
    heard.send(hep3(packed=zlib.compress(bytes(10_000_000))), hep3(packed=b"?"), hep3(b""), hep3(b"sound"))
    assert heard.payloads() == [b"sound"]
    assert heard.source.refused == {
        Refusal.NOT_HEP: 2,
        Refusal.MALFORMED: 1,
        Refusal.RTCP_JSON: 1,
        Refusal.OTHER_PROTOCOL: 1,
        Refusal.TOO_LARGE: 1,
        Refusal.BAD_COMPRESSION: 1,
        Refusal.NO_PAYLOAD: 1,
    }


def test_poll_waits_no_longer_than_told(listen):
    heard = listen()
    begun = time.monotonic()
    assert heard.source.poll(0.1) is None
    assert 0.09 < time.monotonic() - begun < 1
    heard.send(b"garbage")
    begun = time.monotonic()
    assert heard.source.poll(0.1) is None
    assert time.monotonic() - begun < 1


def test_a_stream_is_cut_into_its_packets_however_it_arrives(listen):
    heard = listen()
    messages = [SIP_MESSAGE + bytes([k]) * (k * 37) for k in range(40)]
    octets = b"".join(hep3(message) for message in messages)
    peer = heard.connect()
    found: list[bytes] = []
    for at in range(0, len(octets), 1009):
        peer.sendall(octets[at : at + 1009])
        found += heard.payloads(1, 0.02)
    assert found + heard.payloads(len(messages) - len(found)) == messages


def test_more_than_a_batch_holds_comes_with_the_next(listen, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 10)
    heard = listen()
    messages = [b"%d" % k for k in range(25)]
    heard.connect().sendall(b"".join(hep3(message) for message in messages))
    assert heard.payloads(25) == messages
    heard.send(*(hep3(message) for message in messages))
    assert heard.payloads(25) == messages


def test_a_stream_that_is_no_hep_is_hung_up(listen):
    heard = listen()
    peer = heard.connect()
    peer.sendall(hep3(b"sound") + b"OPTIONS sip:a SIP/2.0\r\n")
    assert heard.payloads() == [b"sound"]
    assert heard.is_hung_up(peer)
    assert heard.source.refused == {Refusal.NOT_HEP: 1}


def test_a_stream_that_stops_inside_a_packet_is_hung_up(listen, monkeypatch):
    monkeypatch.setattr(module, "STALLED", 0.05)
    monkeypatch.setattr(module, "_REAP_EVERY", 0.0)
    heard = listen()
    quiet, stuck = heard.connect(), heard.connect()
    stuck.sendall(hep3()[:30])
    assert heard.is_hung_up(stuck)
    quiet.sendall(hep3(b"still here"))
    assert heard.payloads() == [b"still here"]


def test_a_silent_connection_is_hung_up_in_the_end(listen, monkeypatch):
    monkeypatch.setattr(module, "IDLE", 0.05)
    monkeypatch.setattr(module, "_REAP_EVERY", 0.0)
    heard = listen()
    assert heard.is_hung_up(heard.connect())


def test_connections_are_limited_and_those_that_send_stay(listen):
    heard = listen(connections=2)
    agents = [heard.connect() for _ in range(2)]
    for agent in agents:
        agent.sendall(hep3(b"hello"))
    assert heard.payloads(2) == [b"hello"] * 2
    assert heard.is_hung_up(heard.connect())
    for agent in agents:
        agent.sendall(hep3(b"again"))
    assert heard.payloads(2) == [b"again"] * 2
    assert heard.source.turned_away == 1


def test_a_connection_that_never_sent_makes_room(listen):
    heard = listen(connections=1)
    silent = heard.connect()
    heard.source.poll(0.05)
    agent = heard.connect()
    agent.sendall(hep3(b"agent"))
    assert heard.payloads() == [b"agent"]
    assert heard.is_hung_up(silent)


def test_datagrams_that_the_kernel_dropped_are_counted(listen):
    heard = listen()
    heard.source._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    heard.send(*(hep3(bytes(1200)) for _ in range(50)))
    taken = len(heard.payloads(50, 0.3))
    assert 0 < taken < 50
    assert heard.source.counters().dropped == 50 - taken


def test_it_listens_on_ipv6_too():
    try:
        source = HepSource("[::1]:0")
    except LiveCaptureError as error:
        pytest.skip(str(error))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.sendto(hep3(b"six", source="2001:db8::1", destination="2001:db8::2"), source._udp.getsockname()[:2])
        batch = source.poll(5)
    assert batch.captured.tolist() == [40 + 8 + 3]
    source.close()


def test_it_listens_on_the_loopback_unless_told_otherwise_and_says_when_anyone_may_feed_it():
    assert module.DEFAULT_PLACE == "127.0.0.1:9060"
    for place, key, exposed in (("127.0.0.1:0", None, False), ("0.0.0.0:0", None, True), ("0.0.0.0:0", "k", False)):
        source = HepSource(place, key=key)
        assert source.exposed is exposed
        source.close()


def test_a_closed_source_is_down_and_gives_nothing(listen):
    heard = listen()
    peer = heard.connect()
    heard.source.close()
    heard.source.close()
    assert heard.source.poll(1) is None
    assert heard.source.counters().up is False
    peer.settimeout(5)
    with pytest.raises(ConnectionError):
        peer.sendall(b"x") or time.sleep(0.1) or peer.sendall(b"x")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("proxy.example.org:9060", "no IP address"),
        ("127.0.0.1:sip", "no port from 0 to 65535"),
        ("127.0.0.1:70000", "no port from 0 to 65535"),
        ("192.0.2.1:9060", "this machine does not have that address"),
    ],
)
def test_a_place_that_cannot_be_listened_on_is_explained(place, text):
    with pytest.raises(LiveCaptureError, match=text):
        HepSource(place)


def test_a_place_that_is_taken_is_explained(listen):
    with pytest.raises(LiveCaptureError, match="another program listens there"):
        HepSource(listen().source.place)


def test_a_vlan_keeps_equal_addresses_apart(listen):
    heard = listen()
    heard.send(hep3(), hep3(more=chunk(18, struct.pack("!H", 7))))
    realms: list[int] = []
    while len(realms) < 2:
        realms += decode_layers(heard.source.poll(5)).realm.tolist()
    assert realms[0] == 0
    assert realms[1] != 0
