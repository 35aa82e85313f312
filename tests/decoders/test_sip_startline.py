"""Start lines, and where messages begin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.sip_startline import find_line, find_message, may_become_start, parse_start_line


@pytest.mark.parametrize(
    ("line", "method", "uri", "noted"),
    [
        ("INVITE sip:a@b SIP/2.0", "INVITE", "sip:a@b", False),
        ("X-New!%*_+`'~ urn:x SIP/2.0", "X-New!%*_+`'~", "urn:x", False),
        ("INVITE  sip:a@b   SIP/2.0 ", "INVITE", "sip:a@b", True),
        ("INVITE\tsip:a@b sip/2.0", "INVITE", "sip:a@b", True),
        ("INVITE <sip:a@b> SIP/2.0", "INVITE", "sip:a@b", True),
        ("INVITE sip:a@b; lr SIP/2.0", "INVITE", "sip:a@b; lr", True),
        ("OPTIONS sip:a@b SIP/7.0", "OPTIONS", "sip:a@b", True),
    ],
)
def test_request_lines(line, method, uri, noted):
    start = parse_start_line(line)
    assert (start.method, start.request_uri, start.status, bool(start.notes)) == (method, uri, None, noted)


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("SIP/2.0 200 OK", 200, "OK"),
        ("SIP/2.0 100 ", 100, ""),
        ("SIP/2.0 100", 100, ""),
        ("sip/2.0  180   Es klingelt ", 180, "Es klingelt"),
        ("SIP/2.0 699 SIP/2.0", 699, "SIP/2.0"),
    ],
)
def test_status_lines(line, status, reason):
    assert parse_start_line(line)[1:5] == (None, None, status, reason)


@pytest.mark.parametrize(
    "line",
    [
        *("", " ", "SIP/2.0", "SIP/2.0 OK", "SIP/2.0 000 x", "SIP/2.0 20 x", "SIP/2.0 \u0662\u0660\u0660 x"),
        *("INVITE sip:a@b", "INVITE SIP/2.0", "INV:ITE sip:a@b SIP/2.0", "INVITE sip:a@b SIP/2", "GET / HTTP/1.1"),
        "INVITE " + "x" * 9000 + " SIP/2.0",
    ],
)
def test_other_lines_are_none(line):
    assert parse_start_line(line) is None


def test_messages_are_found_behind_a_little_junk_and_lines_only_where_lines_begin():
    line = b"BYE sip:a@b SIP/2.0\r\n"
    assert find_message(line) == 0
    assert find_message(b"\r\n\0 " + line) == 4
    assert find_message(b"\xff" * 64 + line) == 64
    assert find_message(b"\xff" * 65 + line) is None
    assert find_line(b":" + line + line) == 1 + len(line)
    assert find_line(line, 1) == -1
    assert find_line(b"a=b\n" + line.replace(b"\r", b"")) == 4


@pytest.mark.parametrize(
    ("text", "expected"), [(b"S", True), (b"SIP/2.0 20", True), (b"INV", True), (b"\x16\x03", False)]
)
def test_the_beginning_of_a_line_tells_whether_it_can_become_a_start(text, expected):
    assert may_become_start(text) is expected


@given(st.binary(max_size=200))
def test_a_message_that_is_found_has_a_start_line(data):
    at = find_message(data)
    if at is not None:
        line = data[at:].partition(b"\n")[0].partition(b"\r")[0]
        assert parse_start_line(line.decode("latin-1")) is not None
