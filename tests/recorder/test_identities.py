"""Who takes part, by the headers of ladders."""

from recorder.identities import MAX_IDENTITIES, Address, address_of, anonymous
from recorder.model import IdentityOrigin, Party
from tests.playbook import play


def heard(party: Party) -> list[tuple[str, str | None, IdentityOrigin]]:
    return [(identity.uri, identity.name, identity.origin) for identity in party.identities]


def test_asserted_goes_before_remote_party_before_from():
    asserted = '| P-Asserted-Identity: "A" <sip:+1555@net>, <tel:+1555>'
    call = play(f"0.0 alice > bob INVITE {asserted} | Remote-Party-ID: <sip:rp@net>;party=calling").call
    assert heard(call.caller) == [
        ("sip:+1555@net", "A", IdentityOrigin.ASSERTED),
        ("tel:+1555", None, IdentityOrigin.ASSERTED),
        ("sip:rp@net", None, IdentityOrigin.REMOTE_PARTY),
        ("sip:alice@example.com", "Alice", IdentityOrigin.ADDRESS),
    ]
    assert (call.caller.uri, call.caller.name) == ("sip:+1555@net", "A")


def test_a_withheld_from_gives_way_to_what_the_network_asserts():
    withheld = "| f: <sip:anonymous@anonymous.invalid>;tag=a | Privacy: id"
    call = play(f"0.0 alice > bob INVITE {withheld} | P-Asserted-Identity: <sip:+1555@net>").call
    assert call.caller.uri == "sip:+1555@net"
    assert ("sip:anonymous@anonymous.invalid", None, IdentityOrigin.ADDRESS) in heard(call.caller)


def test_responses_describe_the_answering_side():
    call = play("""
        0.0 alice > bob INVITE
        1.0 alice < bob 200 | P-Asserted-Identity: <sip:desk7@net> | Remote-Party-ID: "Desk" <sip:7@net>;party=called
    """).call
    assert [uri for uri, _, _ in heard(call.callee)] == ["sip:desk7@net", "sip:7@net", "sip:bob@example.com"]
    assert len(call.caller.identities) == 1


def test_responses_alone_do_not_give_the_caller_the_callees_identity():
    call = play("""
        0.5 alice < bob 180 | P-Asserted-Identity: <sip:desk7@net>
        1.0 alice < bob 200 | P-Asserted-Identity: <sip:desk7@net>
    """).call
    assert [identity.uri for identity in call.caller.identities] == ["sip:alice@example.com"]
    assert call.callee.uri == "sip:desk7@net"


def test_a_diversion_is_kept_but_is_nobodys_own_identity():
    call = play("0.0 alice > bob INVITE | Diversion: <sip:boss@example.com>;reason=unconditional").call
    assert heard(call.callee)[-1] == ("sip:boss@example.com", None, IdentityOrigin.DIVERSION)
    assert call.callee.uri == "sip:bob@example.com"


def test_the_request_uri_stands_in_for_a_to_that_names_nobody():
    call = play("0.0 alice > bob INVITE | To: nonsense").call
    assert call.callee.uri in ("nonsense", "sip:bob@example.com")
    call = play("0.0 alice > bob INVITE | To: ").call
    assert heard(call.callee) == [("sip:bob@example.com", None, IdentityOrigin.REQUEST_URI)]


def test_capabilities_come_from_the_contact():
    call = play("0.0 alice > bob INVITE | Contact: <sip:a@1.2.3.4>;isfocus;+sip.instance=x;expires=60").call
    assert call.caller.contact_params == (("isfocus", ""), ("+sip.instance", "x"))


def test_identities_are_bounded():
    updates = "\n".join(f"{2 + i} alice > bob UPDATE | P-Asserted-Identity: <sip:{i}@net>" for i in range(40))
    call = play("0.0 alice > bob INVITE\n1.0 alice < bob 200\n" + updates).call
    assert len(call.caller.identities) == MAX_IDENTITIES


def test_addresses_compare_without_ports_parameters_and_separators():
    assert address_of("sip:alice@Example.com:5060;transport=udp") == Address("alice", "example.com")
    assert address_of("tel:+1-555-0100") == Address("+15550100", "")
    assert address_of("sip:+1(555)0100@gw;user=phone") == Address("+15550100", "gw")
    assert anonymous(address_of("sip:anonymous@anonymous.invalid"))
    assert anonymous(address_of("sip:gateway.example.com"))
