"""SIP messages: ordinary ones, odd ones, broken ones; and what nobody may do to the parser."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.sip import looks_like_sip, parse_message, parse_sipfrag

SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
INVITE = (
    b"INVITE sip:bob@example.com SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK74bf9;rport\r\n"
    b"Max-Forwards: 70\r\n"
    b'From: "Alice \\"A\\"" <sip:alice@example.com>;tag=9fxced76sl\r\n'
    b"To: Bob <sip:bob@example.com>\r\n"
    b"Call-ID: 2xTb9vxSit55XU7p8@example.com\r\n"
    b"CSeq: 1 INVITE\r\n"
    b"Contact: <sip:alice@192.0.2.1>\r\n"
    b"Content-Type: application/sdp\r\n"
    b"Content-Length: %d\r\n\r\n" % len(SDP)
)


def invite(*headers, body=b"", method="INVITE"):
    """A short request with the header lines given."""
    lines = [f"{method} sip:bob@example.com SIP/2.0", *headers, "", ""]
    return parse_message("\r\n".join(lines).encode() + body)


def test_an_ordinary_invite_is_read_whole():
    message = parse_message(INVITE + SDP)
    assert message.notes == ()
    assert (message.method, message.request_uri, message.status) == ("INVITE", "sip:bob@example.com", None)
    assert message.call_id == "2xTb9vxSit55XU7p8@example.com"
    assert message.cseq == (1, "INVITE")
    assert (message.from_.display_name, message.from_.uri) == ('Alice "A"', "sip:alice@example.com")
    assert (message.from_.tag, message.to.tag) == ("9fxced76sl", None)
    assert message.top_branch == "z9hG4bK74bf9"
    assert message.contact.uri == "sip:alice@192.0.2.1"
    assert message.content_type == "application/sdp"
    assert message.body == SDP
    assert message.sdp().media[0].port == 4000
    assert message.sdp() is message.sdp()


def test_an_ordinary_response_is_read_whole():
    message = parse_message(b"SIP/2.0 486 Busy Here\r\nCSeq: 1 INVITE\r\nCall-ID: x\r\n\r\n")
    assert (message.method, message.status, message.reason) == (None, 486, "Busy Here")
    assert message.sdp() is None
    assert message.parts() == []


def test_compact_forms_and_odd_case_are_the_same_header():
    message = invite("i:x", "cSEQ : 7 INVITE", "F: <sip:a@b>;TAG=1", "t:<sip:c@d>;tag=2", "v:SIP/2.0/TCP h;branch=z")
    assert (message.call_id, message.cseq, message.from_.tag, message.to.tag) == ("x", (7, "INVITE"), "1", "2")
    assert message.get("CALL-ID") == message.get("i") == "x"
    assert message.vias[0].transport == "TCP"


@pytest.mark.parametrize("fold", ["\r\n ", "\n\t", "\r\n\t \t"])
def test_folded_lines_are_one(fold):
    message = invite(f"Call-ID:{fold}x", f"To: Bob{fold}<sip:b@c>{fold};tag=5")
    assert message.call_id == "x"
    assert (message.to.display_name, message.to.tag) == ("Bob", "5")


def test_a_start_line_is_never_folded():
    message = parse_message(b"BYE sip:a@b SIP/2.0\r\n Call-ID: x\r\n\t y\r\nCSeq: 1 BYE\r\n\r\n")
    assert (message.method, message.call_id, message.cseq) == ("BYE", "x y", (1, "BYE"))


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_any_line_end_will_do(end):
    message = parse_message(INVITE.replace(b"\r\n", end) + SDP)
    assert (message.call_id, message.body) == ("2xTb9vxSit55XU7p8@example.com", SDP)


def test_mixed_line_ends_will_do():
    message = parse_message(b"BYE sip:a@b SIP/2.0\r\nCall-ID: x\nCSeq: 2 BYE\rTo: <sip:a@b>\r\n\nbody")
    assert (message.call_id, message.cseq, message.to.uri, message.body) == ("x", (2, "BYE"), "sip:a@b", b"body")


def test_octets_beyond_content_length_are_noise():
    message = parse_message(INVITE + SDP + b"INVITE sip:x SIP/2.0\r\n\r\n")
    assert message.body == SDP
    assert message.notes == ("octets after the body",)
    assert parse_message(INVITE + SDP + b"\r\n\0\0").notes == ()


def test_a_body_shorter_than_content_length_is_noted_as_truncated():
    message = parse_message(INVITE + SDP[:-10])
    assert message.body == SDP[:-10]
    assert message.notes == (f"body truncated: {len(SDP) - 10} of {len(SDP)} octets",)


@pytest.mark.parametrize("length", ["", "-1", "abc", "99999999999", "1 2", "\u0661"])
def test_without_a_usable_content_length_the_body_is_the_rest(length):
    assert invite(f"Content-Length: {length}", body=SDP).body == SDP
    assert invite(f"Content-Length: {length}", body=SDP).notes == ("unusable Content-Length",)
    assert invite(body=SDP).notes == ()


def test_contradicting_content_lengths_leave_the_body_whole():
    message = invite("Content-Length: 3", "l: 5", body=SDP)
    assert (message.body, message.notes) == (SDP, ("contradicting Content-Length",))
    assert invite("Content-Length: 3", "l: 3", body=SDP).body == SDP[:3]


def test_a_header_cut_by_the_snap_length_gives_what_is_there():
    message = parse_message(INVITE[:250])
    assert message.from_.tag == "9fxced76sl"
    assert message.notes == ("no empty line after the header",)


@pytest.mark.parametrize("lead", [b"\r\n\r\n", b"\0\0", b" ", b"\x01\x02\x03", b"\xff" * 60, b"ab:"])
def test_blanks_and_a_little_junk_may_come_first(lead):
    message = parse_message(lead + INVITE + SDP)
    assert (message.method, message.body) == ("INVITE", SDP)
    assert message.notes == (("junk before the start line",) if lead.strip(b"\r\n\0 ") else ())
    assert looks_like_sip(lead + INVITE)


def test_junk_letters_before_a_known_method_are_told_from_a_longer_method_by_cseq():
    assert parse_message(b"DB" + INVITE).method == "INVITE"
    assert invite("CSeq: 1 REINVITE", method="REINVITE").method == "REINVITE"
    assert invite(method="XREGISTER").notes == ("junk before the start line",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"hello",
        b"\0" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"INVITE sip:a@b\r\n\r\n",
        b"SIP/2.0 99 x\r\n\r\n",
        b"SIP/2.0 2000 x\r\n\r\n",
        b"SIP/2.0 4294967301 x\r\n\r\n",
        b"SIP/2.0\r\n\r\n",
        b"\x80\x00" + bytes(170),
        b"\xff" * 65 + INVITE,
    ],
)
def test_what_is_no_sip_gives_none(data):
    assert parse_message(data) is None
    assert not looks_like_sip(data)


def test_names_are_utf_8_or_else_latin_1_line_by_line():
    message = parse_message(
        b"INVITE sip:b@c SIP/2.0\r\nFrom: J\xf6rg <sip:a@b>\r\nTo: \xe6\x9d\xb1\xe4\xba\xac <sip:c@d>\r\n\r\n"
    )
    assert (message.from_.display_name, message.to.display_name) == ("Jörg", "東京")


def test_lists_are_split_where_the_grammar_has_lists():
    message = invite(
        'Contact: "a, b" <sip:a@b;x=1,2>, <sip:c@d>;q=0.5,,',
        "m: sip:e@f",
        "Subject: one, two",
        "Via: SIP/2.0/UDP a, SIP/2.0/TCP b",
        "Via: SIP/2.0/TLS c",
    )
    assert [address.uri for address in message.contacts] == ["sip:a@b;x=1,2", "sip:c@d", "sip:e@f"]
    assert message.getlist("subject") == ["one, two"]
    assert message.get("contact").endswith(",,")
    assert [via.host for via in message.vias] == ["a", "b", "c"]
    assert message.getlist("absent") == []
    assert message.get("absent") is None


def test_identities_are_read_in_their_order():
    message = invite(
        'P-Asserted-Identity: "Alice" <sip:alice@example.com>, tel:+14085551212',
        "Remote-Party-ID: Al <sip:al@example.com>;party=calling;privacy=off",
        "Diversion: <sip:first@example.com>;reason=no-answer;counter=1",
        "Diversion: <sip:second@example.com>",
        "b: <sip:boss@example.com>",
    )
    assert [identity.uri for identity in message.asserted_identities] == ["sip:alice@example.com", "tel:+14085551212"]
    assert message.remote_party_id.params["party"] == "calling"
    assert [entry.uri for entry in message.diversion] == ["sip:first@example.com", "sip:second@example.com"]
    assert message.referred_by.uri == "sip:boss@example.com"
    assert invite().asserted_identities == []
    assert invite().remote_party_id is None


def test_transfers_name_the_dialog_that_they_replace():
    message = invite(
        "Replaces: 425928@phone.example.org;to-tag=7743;from-tag=6472;early-only",
        "Refer-To: <sip:dave@example.com?Replaces=c%40h%3Bto-tag%3D1%3Bfrom-tag%3D2&X=y>",
    )
    assert message.replaces == ("425928@phone.example.org", "7743", "6472", True)
    assert message.refer_to_replaces == ("c@h", "1", "2", False)
    assert invite("Replaces: x;to-tag=1").replaces is None
    assert invite("Refer-To: <sip:dave@example.com>").refer_to_replaces is None


def test_reasons_session_ids_and_options_are_read():
    message = invite(
        'Reason: SIP ;cause=200 ;text="Call completed elsewhere", Q.850;cause=16;text="a;b, c"',
        "Reason: preemption;text=none",
        "Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba387653f2099600ef2",
        "Require: 100rel, SIPREC",
    )
    assert message.reason_headers == [("SIP", 200, "Call completed elsewhere"), ("Q.850", 16, "a;b, c")]
    assert message.session_id.startswith("ab30317f1a784dc48ff824d0d3715d86;remote=")
    assert message.requires("siprec")
    assert not message.requires("timer")


def test_a_session_description_is_found_in_a_multipart_body():
    body = (
        b"--x\r\nContent-Type: application/isup\r\n\r\n\x00\x01\r\n--x\r\n"
        b"Content-Type: application/sdp\r\n\r\n" + SDP + b"\r\n--x--\r\n"
    )
    message = invite("Content-Type: multipart/mixed;boundary=x", body=body)
    assert message.sdp().media[0].port == 4000
    assert [part.content_type for part in message.parts()] == ["application/isup", "application/sdp"]


def test_a_session_description_without_content_type_is_taken_and_noted():
    message = invite(body=SDP)
    assert message.sdp().media[0].port == 4000
    assert message.notes == ("session description without a Content-Type",)
    assert invite("Content-Type: text/plain", body=SDP).sdp() is None


def test_notes_of_a_body_appear_once():
    message = invite("Content-Type: multipart/mixed;boundary=x", body=b"--x\r\n\r\nabc")
    message.parts()
    message.parts()
    assert message.notes == ("multipart body without its end",)


def test_broken_header_lines_cost_themselves_only():
    message = invite("no colon here", "Call-ID: x", ": nameless", "Empty:", "Another one", "CSeq: x INVITE")
    assert (message.call_id, message.get("empty"), message.cseq) == ("x", "", None)
    assert message.notes == ("header line without a colon",)


@pytest.mark.parametrize("value", ["", "1", "INVITE", "-1 INVITE", "4294967296 INVITE", "1" * 1000 + " INVITE"])
def test_an_unsound_cseq_is_none(value):
    assert invite(f"CSeq: {value}").cseq is None


def test_headers_are_bounded():
    message = invite(*[f"X-{number}: {number}" for number in range(3000)])
    assert len(message.headers) == 1024
    assert message.notes == ("too many header lines",)
    assert len(invite(*["Via: SIP/2.0/UDP h"] * 1000).vias) == 256
    assert len(invite("Contact: " + "<sip:a@b>," * 5000).contacts) <= 256


@pytest.mark.parametrize(
    "value",
    ['"' * 60000, "<" * 60000, '"\\' * 30000, '\\"' * 30000, ", " * 30000, ";" * 60000, '"<' * 30000, " \t" * 30000],
)
def test_hostile_values_take_linear_time(value):
    began = time.process_time()
    for name in ("Contact", "From", "Via", "Reason", "Content-Type", "Replaces"):
        message = invite(f"{name}: <sip:a@b>{value}", body=b"x")
        message.contacts, message.from_, message.vias, message.reason_headers, message.replaces, message.parts()
    parse_message(b"INVITE " + value.encode() + b"x SIP/2.0\r\n\r\n")
    parse_message(value.encode() + INVITE)
    assert time.process_time() - began < 2


def test_a_sipfrag_tells_how_a_transfer_goes():
    assert parse_sipfrag(b"SIP/2.0 603 Declined").status == 603
    assert parse_sipfrag(b"\r\nSIP/2.0 100 Trying\r\nX: y\r\n").reason == "Trying"
    assert parse_sipfrag(b"") is None
    assert parse_sipfrag(b"nothing") is None


def use(message):
    """Ask a message for all that it has."""
    for name in dir(type(message)):
        if not name.startswith("__"):
            value = getattr(message, name)
            if name in ("sdp", "parts"):
                value()
    repr(message)


@given(st.binary(max_size=300))
def test_no_octets_raise(data):
    message = parse_message(data)
    assert message is None or use(message) is None


@given(st.lists(st.tuples(st.integers(0, len(INVITE + SDP) - 1), st.binary(max_size=3)), max_size=12))
def test_no_mutation_of_a_message_raises(changes):
    data = bytearray(INVITE + SDP)
    for at, new in changes:
        data[at : at + 1] = new
    message = parse_message(bytes(data))
    assert message is None or use(message) is None


TOKEN = st.text("abcXYZ019-.!%*_+`'~", min_size=1, max_size=20)


@given(TOKEN, st.integers(0, 2**32 - 1), TOKEN, TOKEN, st.binary(max_size=200))
def test_what_is_written_is_read_back(call_id, number, tag, name, body):
    head = f'BYE sip:b@c SIP/2.0\r\nCall-ID: {call_id}\r\nCSeq: {number} BYE\r\nFrom: "{name}" <sip:{name}@h>;tag={tag}'
    message = parse_message(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    assert (message.call_id, message.cseq, message.body) == (call_id, (number, "BYE"), body)
    assert (message.from_.display_name, message.from_.uri, message.from_.tag) == (name, f"sip:{name}@h", tag)
    assert message.notes == ()
