"""Conditions of the policy."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.realms import realm_of_vlans
from decoders.sip import parse_message
from recorder import policy_conditions as conditions
from recorder.call_facts import CallFacts, Heard
from recorder.policy_conditions import Direction, Local, matcher, network
from tests.calls import endpoint

HOME = Local((network("10.0.0.0/8"),), (matcher("example.com"), matcher("*.example.com")))


def facts(caller: str = "sip:alice@example.com", callee: str = "sip:bob@example.net", **more: object) -> CallFacts:
    return CallFacts(call_id="a@b", callers=(Heard(caller, "Alice"),), callees=(Heard(callee),), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("alice", "alice", True),
        ("alice", "ALICE", True),
        ("alice", "alice2", False),
        ("+4930*", "+493012", True),
        ("+4930*", "0+493012", False),
        ("*30", "030", True),
        ("*", "", True),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "acb", False),
        ("a*b*b", "ab", False),
        ("*a*", "bab", True),
        ("a.c", "abc", False),
        ("[a]?", "[a]?", True),
        ("/^0[0-9]+$/", "0123", True),
        ("/^0[0-9]+$/", "1023", False),
        ("/li/", "alice", True),
        ("/LI/", "alice", False),
        ("/(?i)LI/", "alice", True),
        ("/", "/", True),
        ("Zoë*", "ZOË K", True),
    ],
)
def test_a_pattern_fits_what_it_says(pattern, text, fits):
    assert matcher(pattern)(text) is fits


@given(st.lists(st.text("ab*", max_size=4), min_size=1).map("*".join), st.text("ab", max_size=12))
def test_stars_stand_for_any_characters_like_in_a_shell(pattern, text):
    from fnmatch import fnmatchcase

    assert not pattern or matcher(pattern)(text) is fnmatchcase(text, pattern)


@pytest.mark.parametrize("source", ["(a+)+", "(a|aa)*b", "((a*)b?)+", "(?:a+)+", "(x|y){3,}", "(a+){8}", "(?P<n>a*)*"])
def test_expressions_that_could_take_for_ever_are_refused(source):
    with pytest.raises(ValueError, match="can take for ever"):
        matcher(f"/{source}/")


@pytest.mark.parametrize("source", [r"^(sip|sips):", r"[(a+)+]", r"\(a+\)+", r"([0-9]{3}-)+", r"(a+)?", r"[]+(]*\)+"])
def test_other_expressions_are_taken(source):
    assert matcher(f"/{source}/")("x") is False or source == "(a+)?"


@pytest.mark.parametrize(("pattern", "says"), [("", "an empty pattern"), ("/(/", "is no regular expression")])
def test_what_is_no_pattern_is_said(pattern, says):
    with pytest.raises(ValueError, match=says):
        matcher(pattern)


def test_no_text_takes_long():
    begin = time.perf_counter()
    for pattern in ("*a*a*a*a*a*a*b", "/a*a*b/", "/a.*a.*b$/"):
        assert matcher(pattern)("a" * 60_000) is False
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize(
    ("pattern", "uri", "fits"),
    [
        ("+4930111", "tel:+49-30-111", True),
        ("tel:+4930111", "tel:+49-30-111", True),
        ("+4930111", "sip:+4930111@gw.example.com;user=phone", True),
        ("alice", "sip:alice:secret@example.com", True),
        ("alice@*", "sip:alice@EXAMPLE.com:5070;x=y", True),
        ("alice@example.com", "sips:alice@example.com", True),
        ("sip:alice@example.com", "sip:alice@example.com:5070", True),
        ("*@example.com", "sip:alice@example.com.evil.net", False),
        ("alice", "sip:bob@alice", False),
        ("/^sips:/", "sips:bob@example.com", True),
        ("/;user=phone/", "sip:1@example.com;user=phone", True),
    ],
)
def test_an_identity_is_known_by_number_address_or_uri(pattern, uri, fits):
    assert conditions.caller([pattern])(facts(caller=uri)) is fits
    assert conditions.callee([pattern])(facts(callee=uri)) is fits
    assert conditions.number([pattern])(facts("sip:0@other.net", uri)) is fits
    assert conditions.number(["nobody", pattern])(facts(uri, "sip:0@other.net")) is fits


def test_names_are_compared_too():
    assert conditions.caller_name(["ali*"])(facts())
    assert not conditions.caller_name(["*"])(CallFacts(callers=(Heard("sip:a@b"),)))


@pytest.mark.parametrize("name", ["X-Tenant", "x-tenant", "X-TENANT"])
def test_a_header_is_known_in_any_case(name):
    message = parse_message(b"INVITE sip:a SIP/2.0\r\nx-TeNaNt: other\r\nX-Tenant:  acme-north \r\n\r\n")
    assert message is not None
    found = CallFacts(header=message.getlist)
    assert conditions.header(name, ["acme*"])(found)
    assert conditions.header(name, ["none", "*"])(found)
    assert not conditions.header(name, ["acme"])(found)
    assert not conditions.header("X-Other", ["*"])(found)


@pytest.mark.parametrize(("name", "line"), [("Subject", "s: hello"), ("s", "Subject: hello"), ("s", "S : hello")])
def test_a_compact_header_is_the_same_header(name, line):
    message = parse_message(f"INVITE sip:a SIP/2.0\r\n{line}\r\n\r\n".encode())
    assert message is not None
    assert conditions.header(name, ["hello"])(CallFacts(header=message.getlist))


@pytest.mark.parametrize(
    ("text", "host", "lies"),
    [
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.1", False),
        ("192.0.2.77/24", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("0.0.0.0/0", "192.0.2.2", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/65", "2001:db8::8000:0:0:1", False),
        ("2001:db8::/65", "2001:db8::7fff:0:0:1", True),
        ("::/0", "2001:db8::1", True),
    ],
)
def test_an_address_lies_in_a_network_or_not(text, host, lies):
    held = conditions.address([network(text)])
    where, elsewhere = endpoint(host, 4000), endpoint("198.51.100.1" if ":" in text else "fe80::1", 1)
    assert network(text).holds(where) is lies
    assert held(facts(source=where, destination=elsewhere)) is lies
    assert held(facts(source=elsewhere, destination=where)) is lies
    assert held(facts(media=(elsewhere, where))) is lies
    assert held(facts()) is False


@pytest.mark.parametrize(
    ("caller", "callee", "source", "destination", "goes"),
    [
        ("sip:1@a.net", "sip:2@b.net", "192.0.2.1", "10.1.1.1", Direction.INBOUND),
        ("sip:1@a.net", "sip:2@b.net", "10.1.1.1", "192.0.2.1", Direction.OUTBOUND),
        ("sip:1@a.net", "sip:2@b.net", "10.1.1.1", "10.2.2.2", Direction.INTERNAL),
        ("sip:1@a.net", "sip:2@b.net", "192.0.2.1", "192.0.2.2", Direction.TRANSIT),
        ("sip:1@EXAMPLE.com:5080", "sip:2@b.net", "192.0.2.1", "192.0.2.2", Direction.OUTBOUND),
        ("sip:1@a.net", "sip:2@pbx.example.com", "192.0.2.1", "192.0.2.2", Direction.INBOUND),
        ("sip:1@10.9.9.9", "sip:2@10.0.0.1", "192.0.2.1", "192.0.2.2", Direction.INTERNAL),
    ],
)
def test_a_call_goes_the_way_that_its_sides_say(caller, callee, source, destination, goes):
    call = facts(caller, callee, source=endpoint(source, 5060), destination=endpoint(destination, 5060))
    held: Sequence[Direction] = [way for way in Direction if conditions.direction([way], HOME)(call)]
    assert list(held) == [goes]
    assert conditions.direction(list(Direction), HOME)(call)


def test_a_virtual_network_is_known_by_its_tags():
    held = conditions.realm([realm_of_vlans(100), realm_of_vlans(10, 200)])
    assert held(facts(realm=realm_of_vlans(100)))
    assert held(facts(realm=realm_of_vlans(10, 200)))
    assert not held(facts(realm=realm_of_vlans(200)))
    assert not held(facts())


def test_a_share_of_the_calls_is_the_same_wherever_it_is_asked_for():
    # As `printf a@b | sha256sum` tells it.
    assert conditions.place(facts()) == 0x7508D8B5 / 2**32
    calls = [CallFacts(call_id=f"{number}@example.com") for number in range(4000)]
    chosen = sum(map(conditions.percent(10), calls))
    assert 320 < chosen < 480
    assert all(map(conditions.percent(100), calls))


def test_more_percent_hold_for_the_same_calls_and_for_more():
    calls = [CallFacts(call_id=str(number)) for number in range(500)]
    ten, thirty = conditions.percent(10), conditions.percent(30)
    assert all(thirty(call) for call in calls if ten(call))
    assert sum(map(thirty, calls)) > sum(map(ten, calls))


def test_both_directions_of_media_alone_have_one_place():
    one, other = endpoint("192.0.2.1", 4000), endpoint("192.0.2.2", 4002)
    assert conditions.place(CallFacts(media=(one, other))) == conditions.place(CallFacts(media=(other, one)))


def test_octets_that_are_no_text_have_a_place_too():
    assert 0 <= conditions.place(CallFacts(call_id="\udcff")) < 1
