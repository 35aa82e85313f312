from ipaddress import ip_address

import pytest

from capture.listening import format_place, parse_address, parse_place
from capture.live import LiveCaptureError


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("127.0.0.1:9060", "127.0.0.1", 9060),
        ("127.0.0.1", "127.0.0.1", 5),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::1]:9060", "::1", 9060),
        ("[::1]", "::1", 5),
        ("::1", "::1", 5),
        ("2001:db8::9060", "2001:db8::9060", 5),
    ],
)
def test_a_place_is_an_address_and_perhaps_a_port(text, address, port):
    assert parse_place(text, 5) == (ip_address(address), port)
    assert parse_place(format_place(ip_address(address), port), 7) == (ip_address(address), port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":9060",
        "localhost",
        "localhost:9060",
        "127.0.0.1:",
        "127.0.0.1:-1",
        "127.0.0.1:65536",
        "1.2.3:5",
        "[::1",
        "::1]:5:6",
    ],
)
def test_anything_else_is_refused_with_what_was_given(text):
    with pytest.raises(LiveCaptureError, match=r"is no IP address|has no port"):
        parse_place(text, 5)


def test_names_are_never_looked_up():
    with pytest.raises(LiveCaptureError, match="give the address of this machine"):
        parse_address("localhost")
