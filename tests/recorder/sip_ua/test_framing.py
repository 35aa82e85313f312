"""Messages on a stream of our own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.sip_ua.framing import MAX_HEAD, Framer, FramingError


def message(body: bytes = b"", name: bytes = b"Content-Length") -> bytes:
    return b"OPTIONS sip:a@b SIP/2.0\r\nVia: x\r\n%s: %d\r\n\r\n" % (name, len(body)) + body


@given(st.lists(st.binary(max_size=60), max_size=5), st.lists(st.integers(1, 40), min_size=1), st.booleans())
def test_messages_are_whole_however_they_are_cut(bodies, cuts, compact):
    wanted = [message(body, b"l" if compact else b"Content-Length") for body in bodies]
    stream, framer, found = b"".join(wanted), Framer(), []
    place = 0
    while place < len(stream):
        size = cuts[place % len(cuts)]
        found += framer.feed(stream[place : place + size])
        place += size
    assert found == wanted
    assert not framer.waiting


@given(st.lists(st.integers(1, 7), min_size=1))
def test_double_line_ends_are_pings_and_single_ones_are_not(cuts):
    framer, stream = Framer(), b"\r\n\r\n" + message() + b"\r\n" + message() + b"\r\n\r\n\r\n\r\n"
    found, place = [], 0
    while place < len(stream):
        size = cuts[place % len(cuts)]
        found += framer.feed(stream[place : place + size])
        place += size
    assert len(found) == 2
    assert framer.pings == 3


@pytest.mark.parametrize(
    "octets",
    [
        b"OPTIONS sip:a@b SIP/2.0\r\n\r\n",
        b"A b c\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"A b c\r\nContent-Length: 99999999\r\n\r\n",
        b"x" * MAX_HEAD,
    ],
)
def test_what_cannot_be_framed_ends_the_connection(octets):
    with pytest.raises(FramingError):
        Framer().feed(octets)


@given(st.binary(max_size=300))
def test_nothing_else_is_raised(octets):
    framer = Framer()
    try:
        framer.feed(octets)
    except FramingError:
        return
