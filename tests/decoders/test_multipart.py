"""MIME bodies: exact octets of each part, whatever the boundary does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.multipart import MAX_PARTS, media_type, split_body

MIXED = "multipart/mixed;boundary=foobar"
SIPREC = (
    b"preamble\r\n--foobar\r\nContent-Type: application/sdp\r\n\r\nv=0\r\ns=-\r\n\r\n--foobar\r\n"
    b"Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session;handling=required\r\n\r\n"
    b"<recording/>\r\n--foobar--\r\nepilogue"
)


def split(body, content_type=MIXED):
    notes = []
    return split_body(body, content_type, None, notes), notes


def test_parts_of_a_recording_session_are_told_apart():
    (sdp, metadata), notes = split(SIPREC)
    assert (sdp.content_type, sdp.disposition, sdp.data) == ("application/sdp", "", b"v=0\r\ns=-\r\n")
    assert (metadata.content_type, metadata.disposition) == ("application/rs-metadata+xml", "recording-session")
    assert metadata.data == b"<recording/>"
    assert metadata.headers["content-disposition"] == "recording-session;handling=required"
    assert notes == []


def test_bare_line_feeds_and_quoted_boundaries_are_understood():
    (sdp, metadata), notes = split(SIPREC.replace(b"\r\n", b"\n"), 'Multipart/Mixed ; Boundary="foobar"')
    assert (sdp.data, metadata.data) == (b"v=0\ns=-\n", b"<recording/>")
    assert notes == []


@pytest.mark.parametrize(
    "content_type", ["multipart/mixed", "multipart/mixed;boundary=other", 'multipart/mixed;boundary=""']
)
def test_a_missing_or_wrong_boundary_is_found_in_the_body(content_type):
    parts, notes = split(SIPREC.removeprefix(b"preamble\r\n"), content_type)
    assert len(parts) == 2
    assert notes == ["multipart boundary is not the one declared"]


def test_a_body_without_any_boundary_stays_whole():
    parts, notes = split(b"v=0\r\n", "multipart/mixed;boundary=x")
    assert [part.data for part in parts] == [b"v=0\r\n"]
    assert notes == ["multipart body without a usable boundary"]


def test_a_body_that_is_cut_gives_what_is_there():
    parts, notes = split(SIPREC[: SIPREC.index(b"ording/>")])
    assert [part.data for part in parts] == [b"v=0\r\ns=-\r\n", b"<rec"]
    assert notes == ["multipart body without its end"]


def test_the_boundary_inside_a_line_or_as_a_prefix_is_data():
    body = b"--foobar\r\n\r\nx --foobar\r\n--foobarbaz\r\n--foobar--"
    (part,), notes = split(body)
    assert part.data == b"x --foobar\r\n--foobarbaz"
    assert notes == []


def test_parts_may_have_no_header_and_no_content():
    parts, _ = split(b"--foobar\r\n\r\nbody\r\n--foobar\r\nContent-Type: a/b\r\n\r\n\r\n--foobar--")
    assert [(part.content_type, part.data) for part in parts] == [("", b"body"), ("a/b", b"")]


def test_the_first_header_line_of_a_part_may_be_folded():
    (part,), _ = split(b"--foobar\r\nContent-Disposition:\r\n session\r\n\r\nx\r\n--foobar--")
    assert (part.disposition, part.data) == ("session", b"x")


def test_nested_parts_are_leaves_in_order_and_depth_is_bounded():
    inner = b"--in\r\nContent-Type: text/plain\r\n\r\n1\r\n--in\r\nContent-Type: text/html\r\n\r\n2\r\n--in--"
    body = b"--foobar\r\nContent-Type: multipart/alternative;boundary=in\r\n\r\n" + inner + b"\r\n--foobar--"
    assert [part.data for part in split(body)[0]] == [b"1", b"2"]
    for depth in range(10):
        mark = f"d{depth}".encode()
        body = b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n--%s--" % (
            mark,
            b"text/plain" if depth == 0 else b"multipart/mixed;boundary=d%d" % (depth - 1),
            body if depth else b"deep",
            mark,
        )
    parts, notes = split(body, "multipart/mixed;boundary=d9")
    assert len(parts) == 1
    assert notes == ["multipart body without a usable boundary"]


def test_transfer_encodings_are_undone():
    part = b"--foobar\r\nContent-Transfer-Encoding: %s\r\n\r\n%s\r\n--foobar--"
    assert split(part % (b"base64", b"aGVs\r\nbG8="))[0][0].data == b"hello"
    assert split(part % (b"Quoted-Printable", b"a=3Db"))[0][0].data == b"a=b"
    assert split(part % (b"binary", b"\0\xff"))[0][0].data == b"\0\xff"
    parts, notes = split(part % (b"base64", b"a"))
    assert (parts[0].data, notes) == (b"a", ["body part with unsound base64"])


def test_a_plain_body_is_its_own_part_and_an_empty_one_has_none():
    parts, _ = split(b"v=0\r\n", "Application / SDP; x=y")
    assert [(part.content_type, part.data) for part in parts] == [("application/sdp", b"v=0\r\n")]
    assert split(b"")[0] == []
    assert media_type(None) == ""


def test_the_number_of_parts_is_bounded():
    parts, notes = split(b"--foobar\r\n\r\nx\r\n" * 10000)
    assert len(parts) == MAX_PARTS
    assert "too many body parts" in notes


PIECES = [
    b"--foobar",
    b"--",
    b"\r\n",
    b"\n",
    b"Content-Type: multipart/mixed;boundary=foobar",
    b"x",
    b"\r\n\r\n",
    b"\0",
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)), max_size=40).map(b"".join))
def test_no_body_raises_and_parts_never_outgrow_it(body):
    parts, _ = split(body)
    assert sum(len(part.data) for part in parts) <= len(body)


@given(st.lists(st.binary(max_size=60).filter(lambda data: b"--foobar" not in data), min_size=1, max_size=6))
def test_parts_come_back_octet_for_octet(contents):
    body = b"".join(b"--foobar\r\nContent-Type: a/b\r\n\r\n" + data + b"\r\n" for data in contents) + b"--foobar--\r\n"
    parts, notes = split(body)
    assert [part.data for part in parts] == contents
    assert notes == []
