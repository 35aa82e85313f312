"""Bodies with several parts come back as they were."""

from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.multipart import split_body
from recorder.sip_ua.api import Body
from recorder.siprec.mime_write import metadata_body, sdp_body, write_body


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200), min_size=2, max_size=4))
def test_parts_come_back_octet_by_octet(parts):
    body = write_body([Body("application/x", part, "session") for part in parts])
    notes: list[str] = []
    found = split_body(body.data, body.content_type, None, notes)
    assert [part.data for part in found] == parts
    assert notes == []


def test_each_part_has_its_headers():
    body = write_body([sdp_body(b"v=0\r\n"), metadata_body(b"<recording/>")])
    first, second = split_body(body.data, body.content_type, None, [])
    assert (first.content_type, first.disposition) == ("application/sdp", "session")
    assert (second.content_type, second.disposition) == ("application/rs-metadata+xml", "recording-session")
    assert first.headers["content-length"] == "5"
    assert body.disposition is None


def test_a_single_part_is_its_own_body():
    assert write_body([metadata_body(b"<recording/>")]) == metadata_body(b"<recording/>")


def test_a_boundary_is_in_no_part():
    boundaries = iter(["abc", "def"])
    body = write_body([sdp_body(b"v=0 abc"), metadata_body(b"x")], lambda: next(boundaries))
    assert body.content_type == "multipart/mixed;boundary=def"
