import random
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders import dtmf
from decoders.dtmf import DIGITS, EventPacket, TelephoneEvents, parse_info_digit

MS = 1_000_000


def payload(event, duration, *, end=False):
    return bytes([event, 0x80 * end | 10]) + duration.to_bytes(2, "big")


def press(digit, *, at_ms, timestamp, duration_ms=100, rate=8000):
    """The packets of one press as a sender conforming to RFC 4733 makes them: updates each 20 ms, the end thrice."""
    event = DIGITS.index(digit)
    ticks = rate * 20 // 1000
    updates = range(1, duration_ms // 20)
    packets = [EventPacket((at_ms + 20 * i) * MS, timestamp, payload(event, i * ticks), i == 1, rate) for i in updates]
    total = rate * duration_ms // 1000
    end = payload(event, total, end=True)
    packets += [EventPacket((at_ms + duration_ms + 20 * i) * MS, timestamp, end, False, rate) for i in range(3)]
    return packets


def heard(packets):
    events = TelephoneEvents()
    events.feed(packets)
    return events.digits()


def typed(packets):
    return "".join(press.digit for press in heard(packets))


def test_each_press_is_one_digit_with_its_time_and_duration():
    packets = press("5", at_ms=1000, timestamp=800) + press("#", at_ms=2000, timestamp=8800, duration_ms=200)
    assert [(p.time, p.digit, p.duration_ms, p.ended) for p in heard(packets)] == [
        (1020 * MS, "5", 100, True),
        (2020 * MS, "#", 200, True),
    ]


def test_all_sixteen_keys_are_known():
    packets = [p for i, key in enumerate(DIGITS) for p in press(key, at_ms=1000 * i, timestamp=8000 * i)]
    assert typed(packets) == "0123456789*#ABCD"


def test_the_same_key_twice_is_two_digits():
    assert typed(press("1", at_ms=0, timestamp=0) + press("1", at_ms=150, timestamp=1200)) == "11"


def test_the_duration_follows_the_clock_of_the_payload_type():
    assert heard(press("1", at_ms=0, timestamp=0, rate=48000))[0].duration_ms == 100


@given(st.randoms(use_true_random=False), st.integers(0, 0xFFFFFFFF))
def test_order_and_copies_of_packets_change_nothing(rng, start):
    packets = []
    for i, key in enumerate("2255#41"):
        packets += press(key, at_ms=300 * i, timestamp=(start + 2400 * i) & 0xFFFFFFFF)
    shuffled = packets + rng.sample(packets, 10)
    rng.shuffle(shuffled)
    assert heard(shuffled) == heard(packets)
    assert typed(packets) == "2255#41"


def test_packets_may_come_in_several_batches():
    packets = press("7", at_ms=0, timestamp=0) + press("8", at_ms=500, timestamp=4000)
    events = TelephoneEvents()
    for packet in packets:
        events.feed([packet])
    assert events.digits() == heard(packets)
    assert events.digits() == heard(packets)


def test_a_press_whose_end_is_lost_lasts_as_long_as_it_was_heard():
    packets = press("3", at_ms=0, timestamp=0)[:-3] + press("4", at_ms=400, timestamp=3200)
    (lost, whole) = heard(packets)
    assert (lost.digit, lost.duration_ms, lost.ended) == ("3", 80, False)
    assert (whole.digit, whole.ended) == ("4", True)


def test_a_press_of_which_only_one_end_came_is_a_digit():
    assert heard(press("3", at_ms=0, timestamp=0)[-1:])[0].duration_ms == 100


def long_press(key, segments, rest):
    event = DIGITS.index(key)
    packets = []
    for i in range(segments):
        time = i * 0xFFFF * 125_000
        packets += [
            EventPacket(time + 20 * MS, i * 0xFFFF, payload(event, 160), i == 0, 8000),
            EventPacket(time + 0xFFFF * 125_000, i * 0xFFFF, payload(event, 0xFFFF), False, 8000),
        ]
    time = segments * 0xFFFF * 125_000
    return [*packets, EventPacket(time + 20 * MS, segments * 0xFFFF, payload(event, rest, end=True), False, 8000)]


@pytest.mark.parametrize("lost", [None, 1, 3])
def test_segments_of_a_long_press_are_joined(lost):
    packets = [p for i, p in enumerate(long_press("9", 2, 800)) if i != lost]
    (found,) = heard(packets)
    assert found.duration_ms == round((2 * 0xFFFF + 800) / 8)
    assert found.ended


def test_a_new_press_that_begins_where_a_segment_ends_is_told_by_its_marker():
    packets = long_press("9", 1, 800)
    packets[-1] = packets[-1]._replace(marker=True)
    assert typed(packets) == "99"


def test_a_sender_that_moves_the_timestamp_with_each_update_presses_once():
    moved = [
        EventPacket(20 * i * MS, 1000 + 160 * (i - 1), payload(5, 160 * i, end=i == 5), i == 1, 8000)
        for i in range(1, 6)
    ]
    (found,) = heard(moved)
    assert (found.digit, found.duration_ms, found.ended) == ("5", 100, True)


def test_events_packed_into_one_packet_are_all_heard():
    packed = payload(1, 800, end=True) + payload(2, 800, end=True) + payload(3, 400)
    assert [(p.digit, p.duration_ms, p.ended) for p in heard([EventPacket(0, 0, packed, True, 8000)])] == [
        ("1", 100, True),
        ("2", 100, True),
        ("3", 50, False),
    ]


def test_octets_after_an_unfinished_event_are_not_events():
    assert typed([EventPacket(0, 0, payload(1, 160) + payload(2, 160), True, 8000)]) == "1"


def test_events_of_no_duration_are_ignored():
    assert (
        heard([EventPacket(0, 0, payload(1, 0), True, 8000), EventPacket(1, 0, payload(1, 0, end=True), False, 8000)])
        == []
    )


def test_flash_and_other_events_are_counted_but_are_no_digits():
    events = TelephoneEvents()
    events.feed(
        [EventPacket(0, 0, payload(dtmf.FLASH, 80, end=True), True, 8000), *press("1", at_ms=50, timestamp=400)]
    )
    events.feed([EventPacket(MS, 9000, payload(36, 80, end=True), True, 8000)])
    assert [p.digit for p in events.digits()] == ["1"]
    assert events.other == {dtmf.FLASH: 1, 36: 1}


def test_packets_that_are_too_short_are_counted():
    events = TelephoneEvents()
    events.feed([EventPacket(0, 0, b"\x01\x80\x00", True, 8000), EventPacket(0, 0, b"", True, 8000)])
    assert events.digits() == []
    assert events.malformed == 2


def test_a_timestamp_that_comes_again_much_later_is_another_press():
    packets = press("1", at_ms=0, timestamp=0) + press("1", at_ms=120_000, timestamp=0)
    assert typed(packets) == "11"


def test_a_flood_of_events_is_bounded(monkeypatch):
    monkeypatch.setattr(dtmf, "MAX_SEGMENTS", 50)
    events = TelephoneEvents()
    events.feed(EventPacket(i, 1000 * i, payload(1, 80, end=True), True, 8000) for i in range(80))
    assert len(events.digits()) == 50
    assert events.overflowed == 30


@given(
    st.lists(
        st.builds(
            EventPacket,
            st.integers(0, 10**15),
            st.integers(0, 0xFFFFFFFF),
            st.binary(max_size=80),
            st.booleans(),
            st.sampled_from([0, 8000, 48000]),
        ),
        max_size=40,
    )
)
def test_no_packets_raise(packets):
    for found in heard(packets):
        assert found.digit in DIGITS
        assert found.duration_ms is None or found.duration_ms >= 0


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/dtmf-relay", b"Signal=5\r\nDuration=160", ("5", 160)),
        ("application/dtmf-relay", b"Signal= 5\r\nDuration= 160\r\n", ("5", 160)),
        ("Application/DTMF-Relay; charset=utf-8", b"signal=*\nduration=100\n", ("*", 100)),
        ("application/dtmf-relay", b"\r\nDuration=250\r\nSignal=#\r\n", ("#", 250)),
        ("application/dtmf-relay", b"Signal=11\r\nDuration=160\r\n", ("#", 160)),
        ("application/dtmf-relay", b"Signal=d", ("D", None)),
        ("application/dtmf-relay", b"Signal=16\r\nDuration=160\r\n", None),
        ("application/dtmf-relay", b"Signal=!\r\n", None),
        ("application/dtmf-relay", b"Signal=55\r\n", None),
        ("application/dtmf-relay", b"Signal=5\r\nDuration=abc\r\n", ("5", None)),
        ("application/dtmf-relay", b"Duration=160\r\n", None),
        ("application/dtmf-relay", b"Signal=\xb2\r\n", None),
        ("application/dtmf-relay", b"", None),
        ("application/dtmf", b"5", ("5", None)),
        ("application/dtmf", b" a\r\n", ("A", None)),
        ("application/dtmf", b"Signal=5\r\nDuration=160\r\n", ("5", 160)),
        ("application/dtmf", b"55", None),
        ("application/dtmf", b"5" + b" " * 5000, None),
        ("text/plain", b"5", None),
        ("", b"5", None),
    ],
)
def test_info_bodies(content_type, body, expected):
    assert parse_info_digit(content_type, body) == expected


@given(st.text(max_size=40), st.binary(max_size=200))
def test_no_info_body_raises(content_type, body):
    for kind in (content_type, "application/dtmf-relay", "application/dtmf"):
        found = parse_info_digit(kind, body)
        assert found is None or found[0] in DIGITS


EVENT_FIELDS = ["frame.time_epoch", "rtp.ssrc", "rtp.timestamp", "rtp.marker", "rtp.payload"]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not here")
@pytest.mark.parametrize(
    ("name", "payload_type", "expected"),
    [
        ("asterisk__testsuite/ulaw-2013785496.pcap", 101, ["2013785496"]),
        ("cps274203__RTPExtractor/DTMF_API.pcap", 101, ["123456890ABCD*#123#00"]),
        ("ahmedelemamn__Wireshark-Captures/sip_dtmf_nte_rfc2833.pcapng", 101, ["123456789*0#"]),
    ],
)
def test_digits_of_real_captures(captures, name, payload_type, expected):
    path = captures / "real" / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    command = ["tshark", "-n", "-r", str(path), "--enable-heuristic", "rtp_udp"]
    command += ["-Y", f"rtp.p_type == {payload_type}", "-T", "fields", "-E", "separator=|"]
    command += [word for field in EVENT_FIELDS for word in ("-e", field)]
    streams = {}
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        time, ssrc, timestamp, marker, data = line.split("|")
        packet = EventPacket(int(float(time) * 1e9), int(timestamp), bytes.fromhex(data), marker in ("1", "True"), 8000)
        streams.setdefault(ssrc, []).append(packet)
    assert [typed(packets) for packets in streams.values()] == expected
    random.Random(1).shuffle(packets := next(iter(streams.values())))
    assert [typed(packets)] == expected[:1]
