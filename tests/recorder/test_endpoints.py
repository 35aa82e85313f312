"""Which call a flow belongs to, by what was announced where and when."""

from capture.address import parse_endpoint
from decoders.sdp import STATIC_FORMATS, Direction, PayloadFormat
from recorder.endpoints import GRACE, WAIT, EndpointRegistry, Rule
from recorder.model import MediaEndpoint, Side

SECOND = 1_000_000_000
A, B, C = (parse_endpoint(f"192.0.2.{k}", 4000 + k) for k in (1, 2, 3))
SIGNALLING = parse_endpoint("192.0.2.1", 5060)
NAT = parse_endpoint("203.0.113.9", 5060)


def announcement(endpoint, side=Side.CALLER, call=0, since=10 * SECOND, **changes):
    """What one side wants."""
    known = MediaEndpoint(
        call=call, side=side, hop=0, media_index=0, media="audio", endpoint=endpoint, rtcp=None,
        formats={0: STATIC_FORMATS[0]}, direction=Direction.SENDRECV, crypto=(), encrypted=False, dtls=False,
        label=None, since=since, packet=1, realm=0,
    )  # fmt: skip
    return known._replace(**changes)


def registry(*announcements):
    """A registry that heard these, each from its own host."""
    made = EndpointRegistry()
    for each in announcements:
        made.announce(each, each.endpoint)
    return made


def only(claims):
    """The one claim there is."""
    (claim,) = claims
    return claim


def test_the_destination_decides_and_its_owner_listens():
    known = registry(announcement(A), announcement(B, Side.CALLEE))
    claim = only(known.claims(B, A, 0, 11 * SECOND))
    assert (claim.speaker, claim.rule) == (Side.CALLEE, Rule.DESTINATION)
    assert claim.receiver.endpoint == A
    assert claim.sender.endpoint == B


def test_the_source_decides_where_the_destination_is_hidden():
    known = registry(announcement(A), announcement(B, Side.CALLEE))
    claim = only(known.claims(A, C, 0, 11 * SECOND))
    assert (claim.speaker, claim.rule) == (Side.CALLER, Rule.SOURCE)
    assert claim.receiver.endpoint == B


def test_nobody_claims_what_nobody_announced():
    assert registry(announcement(A)).claims(B, C, 0, 11 * SECOND) == []


def test_the_newest_description_wins():
    known = registry(announcement(A, call=0), announcement(A, call=1, since=20 * SECOND))
    assert only(known.claims(C, A, 0, 15 * SECOND)).by.call == 0
    assert only(known.claims(C, A, 0, 21 * SECOND)).by.call == 1


def test_media_may_precede_its_description_by_so_much_and_no_more():
    known = registry(announcement(A, since=10 * SECOND))
    assert known.claims(C, A, 0, 10 * SECOND - WAIT)
    assert known.claims(C, A, 0, 10 * SECOND - WAIT - 1) == []


def test_an_ended_call_keeps_its_endpoints_for_a_grace_time():
    known = registry(announcement(A))
    known.release(0, 20 * SECOND)
    assert known.claims(C, A, 0, 20 * SECOND + GRACE)
    assert known.claims(C, A, 0, 20 * SECOND + GRACE + 1) == []
    known.forget(0)
    assert known.claims(C, A, 0, 11 * SECOND) == []


def test_a_reused_endpoint_is_the_new_calls_even_in_the_grace_time():
    known = registry(announcement(A, call=0), announcement(A, call=1, since=20 * SECOND))
    known.release(0, 20 * SECOND)
    assert only(known.claims(C, A, 0, 21 * SECOND)).by.call == 1
    known.forget(0)
    assert only(known.claims(C, A, 0, 21 * SECOND)).by.call == 1


def test_a_released_endpoint_goes_and_the_others_stay():
    known = registry(announcement(A), announcement(B, Side.CALLEE))
    known.release_endpoint(announcement(A), 12 * SECOND)
    assert known.claims(C, A, 0, 20 * SECOND) == []
    assert known.claims(C, B, 0, 20 * SECOND)


def test_an_address_behind_nat_is_known_by_where_its_message_came_from():
    known = EndpointRegistry()
    known.announce(announcement(A), NAT)
    outside = parse_endpoint("203.0.113.9", A.port)
    assert only(known.claims(C, outside, 0, 11 * SECOND)).speaker is Side.CALLEE


def test_an_announced_address_goes_before_one_guessed_behind_nat():
    known = EndpointRegistry()
    known.announce(announcement(parse_endpoint("10.0.0.1", 4001), call=0), SIGNALLING)
    known.announce(announcement(A, call=1, since=5 * SECOND), SIGNALLING)
    assert only(known.claims(C, A, 0, 11 * SECOND)).by.call == 1


def test_the_same_addresses_in_another_realm_are_other_hosts():
    known = registry(announcement(A, call=0, realm=1), announcement(A, call=1, realm=2))
    assert only(known.claims(C, A, 1, 11 * SECOND)).by.call == 0
    assert only(known.claims(C, A, 2, 11 * SECOND)).by.call == 1


def test_calls_that_announce_both_ends_all_claim_the_media():
    both = [
        announcement(where, side, call=call) for call in (0, 1) for where, side in ((A, Side.CALLER), (B, Side.CALLEE))
    ]
    assert [claim.by.call for claim in registry(*both).claims(A, B, 0, 11 * SECOND)] == [0, 1]


def test_a_changed_description_renews_what_was_claimed():
    known = registry(announcement(A), announcement(B, Side.CALLEE))
    claim = only(known.claims(A, B, 0, 11 * SECOND))
    known.take_renewed()
    known.announce(announcement(B, Side.CALLEE, since=15 * SECOND), B)
    assert known.take_renewed() == {}
    opus = {96: PayloadFormat(96, "opus", 48000, 2)}
    known.announce(announcement(B, Side.CALLEE, since=20 * SECOND, formats=opus), B)
    assert known.take_renewed() == {0: 20 * SECOND}
    assert known.renewed_claim(claim).receiver.formats == opus
