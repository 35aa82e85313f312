"""Fuzz targets: signalling. SIP, SDP, multipart bodies, streams, WebSocket, rs-metadata, the call tracker."""

from decoders import multipart, sdp, sip, sipstream, websocket
from decoders.dtmf import parse_info_digit
from decoders.multipart import split_body
from decoders.sdp import parse_sdp
from decoders.sip import parse_message, parse_sipfrag
from decoders.sip_checks import examine
from decoders.sipstream import SipStream
from decoders.srtp import SrtpStream
from decoders.websocket import WebSocketReader
from recorder.calls import MAX_ACTIVE, CallTracker
from recorder.model import Sighting, Transport
from recorder.rs_metadata import parse_rs_metadata
from tests.fuzz import seeds
from tests.fuzz.mutate import mutate_text
from tests.fuzz.target import Target
from tests.playbook import NODES, at, node

PROPERTIES = [name for name, value in vars(sip.SipMessage).items() if isinstance(value, property)]
MOST_NOTES = 400
"""Over all parsers that one message goes through; each has its own cap."""


def run_sip(data: bytes) -> None:
    """A message, and all that is ever asked of it."""
    message = parse_message(data)
    parse_sipfrag(data)
    parse_info_digit("application/dtmf-relay", data)
    parse_info_digit("application/dtmf", data)
    if message is None:
        return
    for name in PROPERTIES:
        getattr(message, name)
    message.requires("siprec")
    message.get("v")
    message.sdp()
    examine(message)
    assert sum(len(part.data) for part in message.parts()) <= 2 * len(data)
    assert len(message.notes) <= MOST_NOTES
    repr(message)


def run_sdp(data: bytes) -> None:
    """A session description, with its keys made ready for use."""
    session = parse_sdp(data)
    if session is None:
        return
    assert len(session.media) <= sdp.MAX_MEDIA
    assert len(session.notes) <= sdp.MAX_NOTES
    for media in session.media:
        assert len(media.formats) <= sdp.MAX_PER_MEDIA
        SrtpStream(media.crypto).unprotect(b"\x80\0" + bytes(40))


def run_multipart(data: bytes) -> None:
    """A body, with the boundary named and not."""
    for content_type in ("multipart/mixed;boundary=b1", 'multipart/related; boundary="', "application/sdp"):
        notes: list[str] = []
        parts = split_body(data, content_type, None, notes)
        assert len(parts) <= multipart.MAX_PARTS
        assert sum(len(part.data) for part in parts) <= 2 * len(data) + 64
        assert len(notes) <= MOST_NOTES


def run_stream(data: bytes) -> None:
    """SIP over TCP or WebSocket in pieces, some of them lost."""
    stream = SipStream()
    begin, pace = 0, data[0] if data else 1
    given = 0
    while begin < len(data):
        size = 1 + (pace * 37 + begin) % 700
        gap = 5 if (begin + pace) % 11 == 10 else 0
        given += sum(map(len, stream.feed(data[begin : begin + size], gap)))
        assert len(stream._buffer) <= sipstream.MAX_BUFFER + size
        begin += size
    given += sum(map(len, stream.finish()))
    assert given <= len(data)
    assert len(stream.notes) <= sipstream.MAX_NOTES


def run_websocket(data: bytes) -> None:
    """Frames in pieces, from the beginning and joined late."""
    for synchronised in (True, False):
        reader = WebSocketReader(synchronised)
        given = 0
        for begin in range(0, len(data), 97):
            given += sum(map(len, reader.feed(data[begin : begin + 97])))
        assert given <= len(data)
        assert len(reader.notes) <= websocket.MAX_NOTES
        assert len(reader._buffer) <= websocket.MAX_MESSAGE + 97


def run_rs_metadata(data: bytes) -> None:
    """A recording session's metadata."""
    found = parse_rs_metadata(data)
    assert len(found.notes) <= MOST_NOTES


def run_calls(data: bytes) -> None:
    """Messages, divided by NUL NUL, between nodes that the content chooses, through one tracker."""
    names = list(NODES)
    tracker = CallTracker()
    for number, octets in enumerate(data.split(b"\0\0")[:200], 1):
        message = parse_message(octets)
        if message is None:
            continue
        mark = sum(octets[:64])
        seen = Sighting(
            time=at(number / 10),
            packet=number,
            capture=0,
            source=node(names[mark % len(names)]),
            destination=node(names[mark // 16 % len(names)]),
            transport=Transport.UDP,
        )
        tracker.feed(message, seen)
        if mark % 5 == 0:
            tracker.feed(message, seen._replace(time=seen.time + 1, source=seen.destination, destination=seen.source))
        if mark % 17 == 0:
            tracker.expire(at(number * 40))
    tracker.finish(at(100_000))
    assert not tracker.calls_active
    assert len(tracker.unexplained) <= MAX_ACTIVE


def streams() -> list[bytes]:
    """Whole dialogs as one stream, plain and in WebSocket frames."""
    messages = seeds.sip_messages()
    plain = [b"".join(messages[begin : begin + 5]) for begin in range(0, len(messages), 5)]
    return [
        *plain,
        *(b"".join(framed(message) for message in messages[begin : begin + 3]) for begin in range(0, 30, 3)),
    ]


def framed(message: bytes) -> bytes:
    """A message in a masked frame, as clients send it."""
    mask = b"\x12\x34\x56\x78"
    covered = bytes(octet ^ mask[place % 4] for place, octet in enumerate(message))
    return b"\x81\xfe" + len(message).to_bytes(2, "big") + mask + covered


def ladders() -> list[bytes]:
    """Calls of pcaps/, message by message."""
    messages = seeds.sip_messages()
    return [b"\0\0".join(messages[begin : begin + 12]) for begin in range(0, len(messages), 12)]


TARGETS = {
    "sip": Target(run_sip, seeds.sip_messages, mutate_text),
    "sdp": Target(run_sdp, seeds.sdp_bodies, mutate_text),
    "multipart": Target(run_multipart, lambda: [seeds.MULTIPART, seeds.ODD_SIP], mutate_text),
    "sip-stream": Target(run_stream, streams, mutate_text, 65_536),
    "websocket": Target(run_websocket, lambda: [*map(framed, seeds.sip_messages()[:40])]),
    "rs-metadata": Target(run_rs_metadata, lambda: [seeds.RS_METADATA], mutate_text),
    "calls": Target(run_calls, ladders, mutate_text, 65_536, short=60),
}
