import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.address import V4_MAPPED, Endpoint, format_address, parse_endpoint

ports = st.integers(0, 0xFFFF)


@given(st.ip_addresses(v=4), ports)
def test_ipv4_comes_back_as_it_was_given(address, port):
    endpoint = parse_endpoint(str(address), port)
    assert endpoint == Endpoint(0, V4_MAPPED | int(address), port)
    assert str(endpoint) == f"{address}:{port}"
    assert endpoint.host == str(address)


@given(st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None), ports)
def test_ipv6_comes_back_in_canonical_form(address, port):
    endpoint = parse_endpoint(address.exploded, port)
    assert str(endpoint) == f"[{address.compressed}]:{port}"
    assert endpoint.high << 64 | endpoint.low == int(address)


@given(st.ip_addresses(v=4))
def test_ipv4_mapped_ipv6_is_the_ipv4_address(address):
    mapped = ipaddress.IPv6Address(V4_MAPPED | int(address))
    assert parse_endpoint(str(mapped), 1) == parse_endpoint(str(address), 1)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25]", "fe80::1"),
        (" 192.0.2.1 ", "192.0.2.1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("::", "::"),
        ("0.0.0.0", "0.0.0.0"),
    ],
)
def test_brackets_zones_and_space_do_no_harm(text, host):
    assert parse_endpoint(text, 5060).host == host


@pytest.mark.parametrize("text", ["", "example.com", "1.2.3", "1.2.3.4.5", "256.1.1.1", "2001:db8::g", "[]", "::1::"])
def test_names_and_nonsense_are_no_endpoint(text):
    assert parse_endpoint(text, 5060) is None


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_out_of_range_are_no_endpoint(port):
    assert parse_endpoint("192.0.2.1", port) is None


@given(st.text(max_size=40), st.integers(-10, 70_000))
def test_no_text_raises(text, port):
    endpoint = parse_endpoint(text, port)
    assert endpoint is None or parse_endpoint(endpoint.host, port) == endpoint


def test_unspecified_addresses_keep_their_family():
    assert format_address(0, 0) == "::"
    assert format_address(0, V4_MAPPED) == "0.0.0.0"
