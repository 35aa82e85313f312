"""Addresses as they come: names, brackets, quotes, parameters and the parts of URIs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.sip_address import parse_name_address, parse_replaces, parse_uri, parse_via


@pytest.mark.parametrize(
    ("value", "name", "uri", "params"),
    [
        ("<sip:a@b>", None, "sip:a@b", {}),
        ("sip:a@b;tag=1", None, "sip:a@b", {"tag": "1"}),
        ("<sip:a@b;lr>;tag=1", None, "sip:a@b;lr", {"tag": "1"}),
        ('"A, B; <C>" <sip:a@b>;tag=1', "A, B; <C>", "sip:a@b", {"tag": "1"}),
        ('"A \\"x\\" \\\\"<sip:a@b>', 'A "x" \\', "sip:a@b", {}),
        ('"" <sip:a@b>', None, "sip:a@b", {}),
        ("A. B  <tel:+1-201;phone-context=x> ; Tag = 5", "A. B", "tel:+1-201;phone-context=x", {"tag": "5"}),
        (
            '<sip:a@b>;+sip.instance="<urn:uuid:1;2>";isfocus',
            None,
            "sip:a@b",
            {"+sip.instance": "<urn:uuid:1;2>", "isfocus": None},
        ),
        ("alice@example.com", None, "alice@example.com", {}),
    ],
)
def test_sound_addresses(value, name, uri, params):
    address = parse_name_address(value)
    assert (address.display_name, address.uri, dict(address.params)) == (name, uri, params)
    assert address.sound


@pytest.mark.parametrize(
    ("value", "name", "uri"),
    [
        ('"Mr. J. User <sip:j.user@example.com>', "Mr. J. User", "sip:j.user@example.com"),
        ("Bell, Alexander <sip:a@b", "Bell, Alexander", "sip:a@b"),
        ('"A" B <sip:a@b>', "A", "sip:a@b"),
        ('"A" sip:a@b', "A", "sip:a@b"),
        ("< sip:a@b >", None, "sip:a@b"),
    ],
)
def test_unsound_addresses_are_read_and_marked(value, name, uri):
    address = parse_name_address(value)
    assert (address.display_name, address.uri, address.sound) == (name, uri, False)


@pytest.mark.parametrize("value", ["", "*", "<>", '"A" <>', ";tag=1", '"A"'])
def test_no_uri_no_address(value):
    assert parse_name_address(value) is None


def test_vias_are_read_with_blanks_anywhere():
    via = parse_via("SIP  / 2.0  / udp   [2001:db8::9] : 5061 ; branch = z9hG4bK1;received=192.0.2.1;rport=99")
    assert (via.transport, via.host, via.port) == ("UDP", "[2001:db8::9]", 5061)
    assert (via.branch, via.received, via.rport) == ("z9hG4bK1", "192.0.2.1", 99)
    assert parse_via("SIP/2.0/TCP host").port is None
    assert parse_via("SIP/2.0/TCP host:99999").port is None
    assert parse_via("SIP/2.0/TCP host;rport").rport is None


@pytest.mark.parametrize("value", ["", "SIP/2.0/UDP", "HTTP/1.1 host", "SIP/2.0/UDP ;branch=1"])
def test_a_via_without_protocol_or_host_is_none(value):
    assert parse_via(value) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sip:alice:secret@Example.COM:5070;transport=TCP?Subject=a%20b", ("sip", "alice", "example.com", 5070)),
        ("SIPS:[2001:DB8::1]:5061", ("sips", "", "[2001:db8::1]", 5061)),
        ("sip:[2001:db8::1]", ("sip", "", "[2001:db8::1]", None)),
        ("sip:+1201;ext=5@gw", ("sip", "+1201;ext=5", "gw", None)),
        ("sip:a?b@c", ("sip", "a?b", "c", None)),
        ("tel:+1-201-555;phone-context=+1", ("tel", "+1-201-555", "", None)),
        ("alice@example.com", ("", "alice", "example.com", None)),
        ("example.com:5060", ("", "", "example.com", 5060)),
        ("isbn:2983792873", ("", "", "isbn", None)),
        ("urn:service:sos", ("urn", "service:sos", "", None)),
        ("", ("", "", "", None)),
    ],
)
def test_parts_of_uris(text, expected):
    assert parse_uri(text)[:4] == expected


def test_parameters_and_header_fields_of_a_uri():
    uri = parse_uri("sip:a@b;lr;user=phone?Replaces=x%40y%3Bto-tag%3D1&X=")
    assert dict(uri.params) == {"lr": None, "user": "phone"}
    assert dict(uri.headers) == {"replaces": "x@y;to-tag=1", "x": ""}
    assert parse_uri("sip:a@b?Replaces=x@y").headers["replaces"] == "x@y", "an @ that should have been escaped"


def test_replaces_needs_a_whole_dialog():
    assert parse_replaces("x@y;from-tag=1;to-tag=2") == ("x@y", "2", "1", False)
    assert parse_replaces(";from-tag=1;to-tag=2") is None
    assert parse_replaces("x@y;from-tag=1") is None


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_no_text_raises(text):
    for parse in (parse_name_address, parse_via, parse_uri, parse_replaces):
        parse(text)
