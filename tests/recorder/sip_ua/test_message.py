"""Messages as octets: headers in order, lengths right, nothing smuggled in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.sip_checks import examine
from recorder.sip_ua.api import Body
from recorder.sip_ua.message import Request, encode_response, stamp_via, via_value, with_tag, without_tag
from tests.sip_messages import THEIRS, VIA, endpoint, parsed, request

REQUEST = (
    b"INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP proxy;branch=z9hG4bKp, SIP/2.0/TCP a:1;branch=z9hG4bKa\r\n"
    b'v: SIP/2.0/TLS z;branch=z9hG4bKz\r\nf: <sip:a@y>;tag=a\r\nt: "B, x" <sip:b@x>\r\ni: c\r\nCSeq: 7 INVITE\r\n'
    b"Record-Route: <sip:r1;lr>,<sip:r2;lr>\r\nTimestamp: 5\r\nl: 0\r\n\r\n"
)


def test_a_request_has_its_fields_in_order():
    sent = request(
        "INVITE", routes=("<sip:r;lr>",), headers=(("Contact", "<sip:a>"),), body=Body("a/b", b"12\r\n", "c")
    )
    lines = sent.encode(VIA).decode().split("\r\n")
    assert lines == [
        "INVITE sip:b@10.0.0.2 SIP/2.0",
        f"Via: {VIA}",
        "Route: <sip:r;lr>",
        "Max-Forwards: 70",
        "From: <sip:a@10.0.0.1>;tag=a",
        "To: <sip:b@10.0.0.2>",
        "Call-ID: call",
        "CSeq: 1 INVITE",
        "Contact: <sip:a>",
        "Content-Type: a/b",
        "Content-Disposition: c",
        "Content-Length: 4",
        "",
        "12",
        "",
    ]
    assert examine(parsed(sent.encode(VIA))) == ()


def test_a_response_copies_what_it_must():
    response = parsed(
        encode_response(parsed(REQUEST), 200, tag="b", source=THEIRS, headers=[("X", "y")], body=Body("a/b", b"z"))
    )
    assert response.reason == "OK"
    assert [via.host for via in response.vias] == ["proxy", "a", "z"]
    assert response.vias[0].received == "10.0.0.2"
    assert response.get("from") == "<sip:a@y>;tag=a"
    assert response.get("to") == '"B, x" <sip:b@x>;tag=b'
    assert response.call_id == "c"
    assert response.cseq == (7, "INVITE")
    assert response.getlist("record-route") == ["<sip:r1;lr>", "<sip:r2;lr>"]
    assert response.get("timestamp") is None
    assert response.body == b"z"
    trying = parsed(encode_response(parsed(REQUEST), 100))
    assert trying.get("timestamp") == "5"
    assert trying.to is not None
    assert trying.to.tag is None
    assert trying.getlist("record-route") == []


@pytest.mark.parametrize(
    ("via", "stamped"),
    [
        ("SIP/2.0/UDP 10.0.0.2;branch=x", "SIP/2.0/UDP 10.0.0.2;branch=x"),
        ("SIP/2.0/UDP host;branch=x", "SIP/2.0/UDP host;branch=x;received=10.0.0.2"),
        ("SIP/2.0/UDP 10.9.9.9:7;branch=x", "SIP/2.0/UDP 10.9.9.9:7;branch=x;received=10.0.0.2"),
        ("SIP/2.0/UDP 10.0.0.2;rport;branch=x", "SIP/2.0/UDP 10.0.0.2;rport=6000;branch=x;received=10.0.0.2"),
        ("SIP/2.0/UDP h;rport=1;received=9.9.9.9", "SIP/2.0/UDP h;rport=6000;received=10.0.0.2"),
        ("nonsense", "nonsense"),
    ],
)
def test_the_topmost_via_says_where_a_request_came_from(via: str, stamped: str):
    assert stamp_via(via, endpoint("10.0.0.2", 6000)) == stamped


def test_tags_are_put_and_taken():
    assert with_tag('"a;tag=b" <sip:x;tag=y>;x=1;tag=old', "new") == '"a;tag=b" <sip:x;tag=y>;x=1;tag=new'
    assert with_tag("sip:x;tag=old", "new") == "sip:x;tag=new"
    assert without_tag("<sip:x>;tag=old;y") == "<sip:x>;y"
    assert via_value("udp", "h", 0, "b") == "SIP/2.0/UDP h;branch=b;rport"


@given(st.text(max_size=12), st.text(max_size=12), st.binary(max_size=20))
def test_whatever_is_put_in_comes_out_as_it_was_or_is_refused(name: str, value: str, body: bytes):
    try:
        headers = ((f"Own-{name}", value),)
        data = Request("INFO", "sip:b", "<a>", "<b>", "c", 1, (), headers, Body("a/b", body)).encode(VIA)
    except ValueError:
        return
    message = parsed(data)
    assert message.body == body
    assert message.call_id == "c"
    assert message.headers["content-length"] == [str(len(body))]
    assert message.headers[f"own-{name.lower()}"] == [value.strip()]
    assert len(message.headers) == 9
