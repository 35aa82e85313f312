"""Names of recordings' directories."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.naming import LONGEST, UNKNOWN, directory_name, safe_name, user_part

IDENTIFIER = "1234abcd-0000-5000-8000-000000000001"
SAFE = re.compile(r"[A-Za-z0-9+](?:[A-Za-z0-9+.-]*[A-Za-z0-9+])?")


def test_a_directory_tells_when_who_and_which():
    name = directory_name("2026-03-01T09:15:02.123456Z", "sip:+49301@example.com", "sips:bob@example.org", IDENTIFIER)
    assert name == "2026/03/01/091502_+49301_bob_1234abcd"
    assert directory_name("2026-03-01T09:15:02.0Z", None, "", IDENTIFIER, 32).endswith(
        f"_unknown_unknown_{IDENTIFIER.replace('-', '')}"
    )


@pytest.mark.parametrize(
    ("uri", "user"),
    [
        ("sip:alice@example.com", "alice"),
        ("SIPS:Alice:secret@example.com;transport=tls", "Alice"),
        ("sip:+4930;phone-context=example@example.com", "+4930"),
        ("tel:+49-30-123;ext=4", "+49-30-123"),
        ("sip:gateway.example.com:5060;lr", "gateway.example.com:5060"),
        ("alice@example.com", "alice"),
        ("anonymous", "anonymous"),
        ("", ""),
        (None, ""),
        ("sip:", ""),
    ],
)
def test_the_user_part_of_a_uri(uri, user):
    assert user_part(uri) == user


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("sip:../../etc/passwd@h", "etc-passwd"),
        ("sip:..@h", UNKNOWN),
        ("sip:.@h", UNKNOWN),
        ("sip:\x00\x1b[31m@h", "31m"),
        ("sip:Zoë Müller@h", "Zo-M-ller"),
        ("sip:a_b@h", "a-b"),
        ("sip:CON@h", "x-CON"),
        ("sip:com7.txt@h", "x-com7.txt"),
        ("sip:-rf@h", "rf"),
        ("sip:名@h", UNKNOWN),
        (f"sip:{'9' * 500}@h", "9" * LONGEST),
    ],
)
def test_names_from_the_wire_are_made_safe(uri, name):
    assert safe_name(uri) == name


@given(st.text(st.characters(exclude_categories=())))
def test_no_name_leaves_the_allowed_characters_or_length(text):
    for uri in (text, f"sip:{text}@example.com"):
        name = safe_name(uri)
        assert SAFE.fullmatch(name)
        assert len(name) <= LONGEST
        assert ".." not in name.split("/")


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_a_directory_has_four_levels_and_three_separators(caller, callee):
    name = directory_name("2026-03-01T09:15:02.123456Z", caller, callee, IDENTIFIER)
    assert name.count("/") == 3
    assert name.rpartition("/")[2].count("_") == 3
    assert len(name) <= 11 + 6 + 2 * LONGEST + 8 + 3
