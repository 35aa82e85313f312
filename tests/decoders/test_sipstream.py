"""SIP over TCP and WebSocket: where messages begin and end, and when a connection is none of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.sip import parse_message
from decoders.sipstream import MAX_BUFFER, SipStream
from tests.decoders.test_websocket import frame

SDP = b"v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\nm=audio 4000 RTP/AVP 0\r\n"


def message(number=1, body=SDP, length=None):
    head = f"INVITE sip:b@c SIP/2.0\r\nCall-ID: {number}\r\nContent-Type: application/sdp\r\n"
    counted = len(body) if length is None else length
    return f"{head}Content-Length: {counted}\r\n\r\n".encode() + body


ONE, TWO, THREE = message(1), message(2, b""), message(3)


def test_several_messages_in_a_segment_and_one_over_many():
    stream = SipStream()
    assert stream.feed(ONE + TWO + THREE[:50]) == [ONE, TWO]
    assert stream.feed(THREE[50:-1]) == []
    assert stream.feed(THREE[-1:]) == [THREE]
    assert (stream.interested, stream.transport, stream.skipped, stream.notes) == (True, "tcp", 0, [])


def test_keep_alives_between_messages_are_passed_over():
    stream = SipStream()
    assert stream.feed(b"\r\n\r\n") == []
    assert stream.interested is None
    assert stream.feed(b"\r\n" + ONE + b"\r\n\r\n") == [ONE]
    assert stream.feed(b"\r\n") == []
    assert stream.feed(TWO) == [TWO]
    assert stream.skipped == 0


@pytest.mark.parametrize("name", [b"l: ", b"CONTENT-LENGTH  :", b"Content-Length:\r\n  "])
def test_content_length_is_found_however_it_is_written(name):
    data = ONE.replace(b"Content-Length: ", name)
    assert SipStream().feed(data + TWO) == [data, TWO]


def test_without_content_length_a_body_is_empty_unless_it_is_a_session_description():
    bare = b"BYE sip:b@c SIP/2.0\r\nCall-ID: 1\r\n\r\n"
    described = b"SIP/2.0 200 OK\r\nCall-ID: 2\r\n\r\n" + SDP
    stream = SipStream()
    assert stream.feed(bare + TWO + described + THREE) == [bare, TWO, described, THREE]
    assert stream.feed(described) == [described]
    assert stream.notes == ["no usable Content-Length"]


def test_a_wrong_content_length_costs_no_later_message():
    stream = SipStream()
    assert stream.feed(message(1, SDP, length=10) + TWO) == [message(1, SDP, 10)[: -len(SDP) + 10], TWO]
    assert stream.skipped == len(SDP) - 11, "the blank after the cut is no more than a blank"
    swallowing = message(4, SDP, length=len(SDP) + 30)
    assert [parse_message(m).call_id for m in stream.feed(swallowing + TWO + THREE)] == ["4", "3"]
    assert stream.feed(message(5, b"", length=MAX_BUFFER)) == []
    assert stream.feed(TWO) == [TWO]
    assert "message too long" in stream.notes


def test_a_lone_carriage_return_ends_a_start_line_as_it_does_for_the_parser():
    broken = TWO.replace(b"sip:b@c", b"sip:b\r@c")
    stream = SipStream()
    assert stream.feed(ONE + broken + THREE) == [ONE, THREE]
    assert parse_message(broken) is None
    assert stream.skipped == len(broken)


def test_contradicting_content_lengths_are_not_used():
    data = ONE.replace(b"Content-Type", b"l: 3\r\nContent-Type")
    assert SipStream().feed(data + TWO) == [data, TWO]


def test_after_a_gap_framing_starts_again_and_the_cut_message_is_given_as_far_as_it_is():
    stream = SipStream()
    assert stream.feed(ONE + THREE[:-20]) == [ONE]
    assert stream.feed(b"io 4000 RTP/AVP 0\r\n" + TWO, gap=2) == [THREE[:-20], TWO]
    assert parse_message(THREE[:-20]).notes == (f"body truncated: {len(SDP) - 20} of {len(SDP)} octets",)
    assert stream.feed(ONE[:30]) == []
    assert stream.feed(TWO, gap=1000) == [TWO]


def test_a_connection_joined_in_the_middle_of_a_message_is_taken_up_at_the_next():
    stream = SipStream()
    assert stream.feed(ONE[40:]) == []
    assert stream.interested is None
    assert stream.feed(TWO[:10]) == []
    assert stream.feed(TWO[10:] + THREE) == [TWO, THREE]
    assert stream.interested is True


def test_the_end_of_the_stream_gives_a_cut_message_whose_header_is_whole():
    stream = SipStream()
    stream.feed(ONE[:-5])
    assert stream.finish() == [ONE[:-5]]
    stream.feed(ONE[:30])
    assert stream.finish() == []


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
        bytes(range(256)) * 17,
        b"220 mail.example.com ESMTP\r\n" * 3000,
    ],
)
def test_other_connections_are_given_up(data):
    stream = SipStream()
    assert stream.feed(data) == []
    assert stream.interested is False
    assert stream.feed(ONE) == []


def test_what_cannot_be_told_yet_stays_open():
    stream = SipStream()
    for data in (b"I", b"NVITE sip:b", b"@c SIP"):
        stream.feed(data)
        assert stream.interested is None
    assert stream.feed(ONE[18:]) == [ONE]


def test_a_header_without_end_is_given_up_and_memory_stays_bounded():
    stream = SipStream()
    found = stream.feed(ONE[:30])
    for _ in range(400):
        found += stream.feed(b"X: " + b"y" * 1000 + b"\r\n")
        assert len(stream._buffer) < MAX_BUFFER
    for _ in range(400):
        found += stream.feed(b"z" * 1000)
    assert found == []
    assert len(stream._buffer) <= 8192
    assert stream.feed(b"\n" + TWO) == [TWO]


GET = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade : WebSocket\r\nSec-WebSocket-Protocol: SIP\r\n\r\n"


@pytest.mark.parametrize(("hello", "mask"), [(GET, b"abcd"), (SWITCH, b"")])
def test_sip_over_websocket_is_followed_from_its_upgrade(hello, mask):
    stream = SipStream()
    # RFC 7118, section 5: Content-Length may be absent, the WebSocket message is the SIP message.
    bare = ONE.replace(b"Content-Length: %d\r\n" % len(SDP), b"")
    data = hello + frame(bare, mask=mask) + frame(b"\r\n\r\n", mask=mask) + frame(TWO, 2, mask=mask)
    found = [part for octet in data for part in stream.feed(bytes([octet]))]
    assert found == [bare, TWO]
    assert (stream.transport, stream.interested) == ("ws", True)


def test_sip_over_websocket_is_known_mid_stream_and_again_after_a_gap():
    stream = SipStream()
    assert stream.feed(frame(ONE, mask=b"\x01\x02\x03\x04")) == [ONE]
    assert stream.feed(frame(TWO)[5:], gap=5) == []
    assert stream.feed(frame(THREE, mask=b"\xff\x00\xff\x00")) == [THREE]
    assert (stream.transport, stream.interested) == ("ws", True)


def test_a_websocket_without_subprotocol_is_given_up_when_it_carries_something_else():
    unnamed = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
    stream = SipStream()
    stream.feed(unnamed)
    assert stream.interested is None
    for _ in range(10):
        stream.feed(frame(b'{"json": 1}'))
    assert stream.interested is False
    stream = SipStream()
    assert stream.feed(unnamed + frame(b"hello") + frame(ONE)) == [ONE]
    assert stream.interested is True


def test_compressed_messages_are_noted():
    stream = SipStream()
    assert stream.feed(GET + frame(ONE, reserved=4)) == []
    assert stream.notes == ["compressed WebSocket message"]


BODIES = st.binary(max_size=80).filter(lambda body: b"SIP/" not in body)


@given(st.lists(BODIES, min_size=1, max_size=6), st.data())
def test_messages_come_back_however_the_stream_is_cut(bodies, data):
    messages = [message(number, body) for number, body in enumerate(bodies)]
    octets = b"\r\n\r\n".join(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=10)))
    stream, found = SipStream(), []
    for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        found += stream.feed(octets[start:end])
    assert found == messages


PIECES = st.one_of(
    st.sampled_from(
        [ONE, TWO, ONE[:40], ONE[40:], GET, SWITCH, frame(ONE), frame(TWO, mask=b"abcd"), b"\r\n", b"\x16\x03\x01"]
    ),
    st.binary(max_size=50),
)


@given(st.lists(st.tuples(PIECES, st.sampled_from([0, 0, 0, 1, 9999])), max_size=12))
def test_no_octets_raise_and_what_comes_out_is_sip(pieces):
    stream = SipStream()
    for piece, gap in pieces:
        for found in stream.feed(piece, gap):
            assert parse_message(found) is not None
        assert stream.interested in (True, False, None)
    stream.finish()
