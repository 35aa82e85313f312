"""WebSocket frames back to messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.websocket import MAX_MESSAGE, WebSocketReader, begins_with_sip_frame

SIP = b"INVITE sip:a@b SIP/2.0\r\nCall-ID: x\r\n\r\n"


def frame(payload, opcode=1, final=True, mask=b"", reserved=0):
    """One frame (RFC 6455, section 5.2), masked where a mask is given."""
    head = bytes([final << 7 | reserved << 4 | opcode])
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([masked | len(payload)])
    elif len(payload) < 65536:
        head += bytes([masked | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + len(payload).to_bytes(8, "big")
    if mask:
        payload = bytes(octet ^ mask[index % 4] for index, octet in enumerate(payload))
    return head + mask + payload


@pytest.mark.parametrize("mask", [b"", b"\x01\x80\xff\x00"])
@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 65535, 65536])
@pytest.mark.parametrize("opcode", [1, 2])
def test_a_frame_of_any_size_is_a_message(size, mask, opcode):
    payload = (bytes(range(256)) * 257)[:size]
    assert WebSocketReader().feed(frame(payload, opcode, mask=mask)) == [payload]


def test_fragments_are_joined_around_control_frames():
    reader = WebSocketReader()
    data = (
        frame(b"ab", final=False) + frame(b"ping", 9) + frame(b"cd", 0, final=False) + frame(b"", 10) + frame(b"e", 0)
    )
    assert reader.feed(data + frame(b"next")) == [b"abcde", b"next"]
    assert reader.notes == []


def test_a_compressed_message_is_refused_with_all_its_fragments():
    reader = WebSocketReader()
    data = frame(b"zip", final=False, reserved=4) + frame(b"zip", 0) + frame(b"plain")
    assert reader.feed(data) == [b"plain"]
    assert reader.notes == ["compressed WebSocket message"]


def test_a_message_too_long_is_skipped_without_being_held():
    reader = WebSocketReader()
    long = frame(bytes(MAX_MESSAGE + 1))
    found = [message for start in range(0, len(long), 1000) for message in reader.feed(long[start : start + 1000])]
    assert found == []
    assert len(reader._buffer) == 0
    assert reader.feed(frame(b"next")) == [b"next"]
    assert reader.feed(frame(bytes(MAX_MESSAGE), final=False) + frame(b"x", 0) + frame(b"after")) == [b"after"]
    assert reader.notes == ["WebSocket message too long"]


@pytest.mark.parametrize("bad", [frame(b"x", 3), frame(b"x", 11), frame(bytes(126), 9), frame(b"x", 8, final=False)])
def test_an_unsound_frame_ends_until_a_segment_begins_with_sip(bad):
    reader = WebSocketReader()
    assert reader.feed(bad + frame(b"lost")) == []
    assert not reader.synchronised
    assert reader.feed(frame(b"no sip")) == []
    assert reader.feed(frame(SIP, mask=b"abcd")) == [SIP]


def test_after_a_loss_the_cut_message_is_forgotten():
    reader = WebSocketReader()
    reader.feed(frame(SIP)[:20])
    reader.lose()
    assert reader.feed(b"rest of it") == []
    assert reader.feed(frame(SIP) + frame(b"more")) == [SIP, b"more"]
    assert WebSocketReader().feed(frame(b"tail", 0)) == []


def test_a_segment_that_begins_with_a_frame_of_sip_is_known():
    assert begins_with_sip_frame(frame(SIP))
    assert begins_with_sip_frame(frame(SIP, 2, mask=b"1234"))
    assert begins_with_sip_frame(frame(SIP + bytes(3000))[:100])
    assert not begins_with_sip_frame(SIP)
    assert not begins_with_sip_frame(frame(b"hello"))
    assert not begins_with_sip_frame(b"\x81")


@given(st.lists(st.binary(max_size=300), max_size=6), st.binary(min_size=4, max_size=4), st.data())
def test_messages_come_back_however_they_are_cut(payloads, mask, data):
    stream = b"".join(
        frame(payload[:2], final=False, mask=mask) + frame(payload[2:], 0, mask=mask) for payload in payloads
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, found = WebSocketReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert found == payloads


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_octets_raise(pieces):
    reader = WebSocketReader()
    for piece in pieces:
        reader.feed(piece)
        assert len(reader._buffer) <= 400
