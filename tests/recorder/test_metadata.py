"""Documents are checked by the schema of RFC 7865 with two validators, and beyond it by what the RFC's text demands."""

import re
from base64 import b64decode
from dataclasses import replace
from datetime import datetime
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from capture.address import parse_endpoint
from recorder.metadata import build_metadata
from recorder.metadata_ids import Identifiers, group_uuid, id_text
from recorder.metadata_text import aor_uri, xml_text
from recorder.model import (
    AudioReport,
    Call,
    CallState,
    CaptureReport,
    GroupReason,
    Hold,
    Identity,
    IdentityOrigin,
    RecordingSession,
    Side,
    StreamReport,
    Warning_,
)

SCHEMA = Path(__file__).parents[1] / "schema" / "metadata.xsd"
RS = "{urn:ietf:params:xml:ns:recording:1}"
SR = "{urn:spanrec:metadata:1}"
SECOND = 1_000_000_000
START = 1_772_356_502_123_456_789
CALL_ID = UUID("6f0a3f4e-5b0c-5c1e-9d6b-2a7e8f1c4d35")
CALLER, CALLEE = parse_endpoint("10.0.0.1", 5060), parse_endpoint("2001:db8::2", 5060)
RTP_A, RTP_B = parse_endpoint("10.0.0.1", 4000), parse_endpoint("2001:db8::2", 6000)


@cache
def lxml_schema():
    return etree.XMLSchema(etree.parse(SCHEMA))


@cache
def second_schema():
    """A validator apart from libxml2, None where it is not installed."""
    if find_spec("xmlschema") is None:
        return None
    return import_module("xmlschema").XMLSchema(str(SCHEMA))


def a_call(**changes):
    call = Call(index=0, call_id="a84b4c76e66710@pc33", started=START, first_packet=1, capture=0, id=CALL_ID)
    call.ringing, call.answered, call.ended = START + SECOND, START + 2 * SECOND, START + 9 * SECOND
    call.last_seen, call.state, call.sip_status, call.sip_reason = call.ended, CallState.COMPLETED, 200, "OK"
    call.ended_by = Side.CALLER
    call.caller.address, call.callee.address = CALLER, CALLEE
    call.caller.joined, call.callee.joined = call.started, call.answered
    call.caller.identities = [Identity("sip:alice@atlanta.com", "Alice", IdentityOrigin.ADDRESS)]
    call.callee.identities = [Identity("sip:bob@biloxi.com", None, IdentityOrigin.ADDRESS)]
    call.captures = {0: (1, 900)}
    for name, value in changes.items():
        setattr(call, name, value)
    return call


def a_stream(side, label, **changes):
    source, destination = (RTP_A, RTP_B) if side is Side.CALLER else (RTP_B, RTP_A)
    stream = StreamReport(
        media="audio",
        side=side,
        label=label,
        channel=0 if side is Side.CALLER else 1,
        codec="PCMU/8000",
        payload_type=0,
        clock_rate=8000,
        ssrc=0xDEADBEEF,
        source=source,
        destination=destination,
        started=START + 2 * SECOND,
        ended=START + 8 * SECOND,
        packets=300,
        lost=2,
        duplicates=1,
        late=0,
        reordered=3,
        jitter_mean_ms=0.51234,
        jitter_max_ms=2.0,
        mos=4.3712,
        r_factor=91.3,
        mos_scale="narrowband",
        burst_ratio=1.0,
        copies=1,
        encrypted=False,
        decrypted=False,
        rule="destination",
    )
    return replace(stream, **changes)


STREAMS = (a_stream(Side.CALLER, "1"), a_stream(Side.CALLEE, "2"))
AUDIO = AudioReport("audio.wav", "wav", 8000, 2, 48000, START + 2 * SECOND, "ab" * 32)
CAPTURES = (CaptureReport("trace.pcap", "cd" * 32, 1000, 900, ("EN10MB",), START, START + 9 * SECOND, ()),)


def build(call=None, streams=STREAMS, audio=AUDIO, *, participants=None, group=None, version="1.2.3"):
    call = call or a_call()
    ids = Identifiers(call.id, participants or {})
    return build_metadata(call, streams, audio, CAPTURES, ids=ids, group_id=group or call.id, version=version)


def checked(data):
    """The root of a document after every check that holds for all of them."""
    assert data.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<recording ')
    root = etree.fromstring(data)
    lxml_schema().assertValid(root)
    if second_schema():
        second_schema().validate(data.decode())
    check_identifiers(root)
    for element in root.iter(f"{RS}start-time", f"{RS}stop-time", f"{RS}associate-time", f"{RS}disassociate-time"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", element.text)
    for begin, end in (("start-time", "stop-time"), ("associate-time", "disassociate-time")):
        for parent in root:
            times = [parent.findtext(RS + name) for name in (begin, end)]
            assert None in times or datetime.fromisoformat(times[0]) <= datetime.fromisoformat(times[1])
    return root


def check_identifiers(root):
    """Identifiers are 16 octets, each of one element only, and every reference resolves (RFC 7865, section 6.10)."""
    defined = {}
    for kind in ("group", "session", "participant", "stream"):
        for element in root.iterfind(RS + kind):
            identifier = element.get(f"{kind}_id")
            assert len(b64decode(identifier, validate=True)) == 16
            assert identifier not in defined
            defined[identifier] = kind
    for element in root.iter():
        if element.tag in (f"{RS}send", f"{RS}recv"):
            assert defined[element.text] == "stream"
        if element.tag == f"{RS}group-ref":
            assert defined[element.text] == "group"
        for kind in ("session", "participant"):
            if element.get(f"{kind}_id") and element.tag != RS + kind:
                assert defined[element.get(f"{kind}_id")] == kind


def name_ids(root, index):
    participant = root.findall(f"{RS}participant")[index]
    return [(n.get("aor"), n.findtext(f"{RS}name")) for n in participant.iterfind(f"{RS}nameID")]


def test_a_completed_call_is_a_complete_document_in_the_order_of_the_schema():
    root = checked(build())
    assert root.findtext(f"{RS}datamode") == "complete"
    assert [etree.QName(e).localname for e in root] == [
        "datamode",
        "group",
        "session",
        "participant",
        "participant",
        "stream",
        "stream",
        "sessionrecordingassoc",
        "participantsessionassoc",
        "participantsessionassoc",
        "participantstreamassoc",
        "participantstreamassoc",
        "provenance",
    ]
    session = root.find(f"{RS}session")
    assert session.get("session_id") == id_text(CALL_ID)
    assert session.findtext(f"{RS}start-time") == "2026-03-01T09:15:02.123456Z"
    assert session.findtext(f"{RS}stop-time") == "2026-03-01T09:15:11.123456Z"
    assert [e.findtext(f"{RS}associate-time") for e in root.iterfind(f"{RS}participantsessionassoc")] == [
        "2026-03-01T09:15:02.123456Z",
        "2026-03-01T09:15:04.123456Z",
    ]


def test_each_participant_sends_its_own_stream_and_receives_the_others():
    root = checked(build())
    labels = {s.get("stream_id"): s.findtext(f"{RS}label") for s in root.iterfind(f"{RS}stream")}
    found = [
        ([labels[e.text] for e in a.iterfind(f"{RS}send")], [labels[e.text] for e in a.iterfind(f"{RS}recv")])
        for a in root.iterfind(f"{RS}participantstreamassoc")
    ]
    assert found == [(["1"], ["2"]), (["2"], ["1"])]


def test_the_same_call_gives_the_same_bytes_and_another_call_other_identifiers():
    assert build() == build()
    other = build(a_call(id=UUID(int=7)))
    ids = re.compile(rb'_id="([^"]+)"')
    assert not set(ids.findall(build())) & set(ids.findall(other))


@pytest.mark.parametrize(
    ("valid", "spoilt"),
    [
        (b"complete", b"whole"),
        (b'state="completed"', b'state="done"'),
        (b"0xdeadbeef", b"0xDEADBEEF"),
        (b"2026-03-01T", b"2026-03-01 "),
    ],
)
def test_the_schema_judges_the_standards_part_and_our_own(valid, spoilt):
    root = etree.fromstring(build().replace(valid, spoilt, 1))
    assert not lxml_schema().validate(root)


def test_no_identifier_comes_from_what_is_personal():
    anonymous = a_call(call_id="another@host")
    anonymous.caller.identities = [Identity("sip:+4930123456@carol.example", "Carol", IdentityOrigin.ASSERTED)]
    ids = re.compile(rb'_id="([^"]+)"')
    assert ids.findall(build(anonymous)) == ids.findall(build())


def test_a_group_has_an_identifier_of_its_own_even_where_the_call_is_alone():
    root = checked(build())
    assert root.find(f"{RS}group").get("group_id") == id_text(group_uuid(CALL_ID)) != id_text(CALL_ID)
    assert root.find(f"{RS}group/{RS}disassociate-time") is not None


def test_calls_of_one_conversation_share_their_group():
    second = a_call(id=UUID(int=9), group_reasons=[(0, GroupReason.REPLACES), (3, GroupReason.REPLACES)])
    root = checked(build(second, group=CALL_ID))
    group = root.find(f"{RS}group")
    first = checked(build(a_call(group=0))).find(f"{RS}group")
    assert group.get("group_id") == first.get("group_id")
    assert group.find(f"{RS}disassociate-time") is None
    assert first.find(f"{RS}disassociate-time") is None
    assert [e.text for e in group.iterfind(f"{SR}conversation/{SR}tied-by")] == ["Replaces"]
    assert group.find(f"{SR}conversation").get("first-call") == str(CALL_ID)


def test_the_schema_knows_every_reason_that_ties_calls():
    root = checked(build(a_call(id=UUID(int=9), group_reasons=list(enumerate(GroupReason))), group=CALL_ID))
    assert [e.text for e in root.iterfind(f"{RS}group/{SR}conversation/{SR}tied-by")] == list(GroupReason)


def test_a_party_that_stays_through_a_transfer_keeps_its_identifier():
    first = Identifiers(CALL_ID)
    root = checked(build(a_call(id=UUID(int=9)), participants={Side.CALLER: first.participant(Side.CALLER)}))
    assert root.find(f"{RS}participant").get("participant_id") == id_text(first.participant(Side.CALLER))


def test_session_ids_come_from_the_session_id_header_only():
    assert checked(build()).find(f"{RS}session/{RS}sipSessionID") is None
    heard = "ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba387653f2099600ef2"
    root = checked(build(a_call(session_ids=(heard, heard))))
    assert [e.text for e in root.iter(f"{RS}sipSessionID")] == [heard]
    assert root.findtext(f".//{SR}call-id") == "a84b4c76e66710@pc33"


def test_reasons_are_those_of_reason_headers():
    call = a_call(reason_headers=(("Q.850", 16, "Terminated"), ("SIP", 200, ""), ("X", 70_000, "too large")))
    root = checked(build(call))
    found = [(e.get("protocol"), e.get("cause"), e.text) for e in root.iterfind(f"{RS}session/{RS}reason")]
    assert found == [("Q.850", "16", "Terminated"), ("SIP", "200", None)]
    assert len(root.findall(f".//{SR}call/{SR}reason")) == 3


def test_identities_stand_in_order_of_trust_once_for_each_name():
    call = a_call()
    call.caller.identities = [
        Identity("sip:+4930@carrier", None, IdentityOrigin.ASSERTED),
        Identity("tel:+4930", "Alice", IdentityOrigin.ASSERTED),
        Identity("sip:+4930@carrier", "A. Lice", IdentityOrigin.REMOTE_PARTY),
        Identity("sip:alice@atlanta.com", "Alice", IdentityOrigin.ADDRESS),
        Identity("sip:alice@atlanta.com", "Ally", IdentityOrigin.ADDRESS),
        Identity("sip:carol@x", "Carol", IdentityOrigin.DIVERSION),
    ]
    call.callee.identities = [
        Identity("sip:bob@biloxi.com", " ", IdentityOrigin.ADDRESS),
        Identity("sip:line1@10.0.0.2", None, IdentityOrigin.REQUEST_URI),
    ]
    root = checked(build(call))
    assert name_ids(root, 0) == [
        ("sip:+4930@carrier", "A. Lice"),
        ("tel:+4930", "Alice"),
        ("sip:alice@atlanta.com", "Alice"),
        ("sip:alice@atlanta.com", "Ally"),
    ]
    assert name_ids(root, 1) == [("sip:bob@biloxi.com", None)]
    origins = [e.get("origin") for e in root.findall(f".//{SR}identity")]
    assert origins[0] == "P-Asserted-Identity"
    assert origins[5:] == ["Diversion", "To", "Request-URI"]


def test_an_unknown_party_is_anonymous_and_a_request_uri_serves_where_nothing_better_was_heard():
    call = a_call()
    call.caller.identities = []
    call.callee.identities = [Identity("sip:line1@10.0.0.2", None, IdentityOrigin.REQUEST_URI)]
    root = checked(build(call))
    assert name_ids(root, 0) == [("sip:anonymous@anonymous.invalid", None)]
    assert name_ids(root, 1) == [("sip:line1@10.0.0.2", None)]


def test_capabilities_of_the_contact_are_parameters():
    call = a_call()
    call.caller.contact_params = (("isfocus", ""), ("audio", "TRUE"))
    params = checked(build(call)).findall(f"{RS}participantsessionassoc/{RS}param")
    assert [(p.get("pname"), p.get("pval")) for p in params] == [("isfocus", ""), ("audio", "TRUE")]


def test_what_was_not_seen_is_absent():
    open_ended = a_call(state=CallState.INCOMPLETE, answered=None)
    open_ended.callee.joined = None
    root = checked(build(open_ended))
    assert root.find(f"{RS}session/{RS}stop-time") is None
    assert root.find(f"{RS}participantsessionassoc/{RS}disassociate-time") is None
    assert root.find(f"{RS}sessionrecordingassoc/{RS}disassociate-time") is not None
    media_only = a_call(state=CallState.MEDIA_ONLY, call_id=None, ended=None, answered=None, ringing=None)
    root = checked(build(media_only))
    assert root.find(f"{RS}session/{RS}start-time") is None
    assert root.find(f".//{SR}call-id") is None


def test_a_call_without_media_has_no_streams_and_no_audio():
    root = checked(build(a_call(state=CallState.REFUSED, sip_status=486), streams=(), audio=None))
    assert root.find(f"{RS}stream") is None
    assert root.find(f"{RS}participantstreamassoc") is None
    assert root.find(f".//{SR}audio") is None


def test_a_stream_of_nobody_known_is_listed_but_sent_by_none():
    root = checked(build(streams=(*STREAMS, a_stream(None, "3", channel=None))))
    assert len(root.findall(f"{RS}stream")) == 3
    assert len(root.findall(f".//{RS}send")) == 2
    assert checked(build(streams=(a_stream(None, "1"),))).find(f"{RS}participantstreamassoc") is None


def test_streams_that_share_a_label_are_still_told_apart():
    root = checked(build(streams=(a_stream(Side.CALLER, "1"), a_stream(Side.CALLER, "1", ssrc=5))))
    assert len(root.findall(f"{RS}stream")) == 2


def test_times_that_contradict_each_other_never_end_before_they_begin():
    call = a_call(ended=START - SECOND)
    call.callee.left = START - 5 * SECOND
    checked(build(call))


def test_stream_facts_tell_of_the_wire():
    stream = a_stream(
        Side.CALLER, "1", encrypted=True, rtcp_cname="c\x00n", rtt_ms=12.5, far_end_fraction_lost=0.25, lost=-1
    )
    media = checked(build(streams=(stream,))).find(f".//{SR}media")
    assert media.get("ssrc") == "0xdeadbeef"
    assert (media.get("source"), media.get("destination")) == ("10.0.0.1:4000", "[2001:db8::2]:6000")
    assert media.get("encryption") == "not-decrypted"
    assert dict(media.find(f"{SR}packets").attrib)["expected"] == "299"
    assert dict(media.find(f"{SR}jitter").attrib) == {"mean-ms": "0.512", "max-ms": "2"}
    assert media.find(f"{SR}quality").get("mos") == "4.371"
    assert dict(media.find(f"{SR}rtcp").attrib) == {
        "cname": "c\ufffdn",
        "round-trip-ms": "12.5",
        "far-end-fraction-lost": "0.25",
    }


def test_unknown_figures_are_absent():
    unknown = dict.fromkeys(("jitter_mean_ms", "jitter_max_ms", "mos", "r_factor", "mos_scale", "burst_ratio"))
    media = checked(build(streams=(a_stream(Side.CALLER, "1", **unknown),))).find(f".//{SR}media")
    assert [etree.QName(e).localname for e in media] == ["packets"]
    nan = checked(build(streams=(a_stream(Side.CALLER, "1", jitter_mean_ms=float("nan"), jitter_max_ms=None),)))
    assert nan.find(f".//{SR}jitter") is None


def test_provenance_names_program_audio_and_captures():
    provenance = checked(build())[-1]
    assert dict(provenance.find(f"{SR}program").attrib) == {"name": "spanrec", "version": "1.2.3"}
    assert provenance.find(f"{SR}audio").get("sha256") == "ab" * 32
    capture = provenance.find(f"{SR}capture")
    assert (capture.get("file"), capture.get("first-packet"), capture.get("last-packet")) == ("trace.pcap", "1", "900")


def test_holds_warnings_and_foreign_recording_sessions_are_told():
    session = RecordingSession("rs-1@src", START, None, CALLER, None, ("c2Vzc2lvbg==",), ("sip:alice@atlanta.com",))
    call = a_call(
        holds=[Hold(START, START + SECOND, Side.CALLEE), Hold(START, None, Side.CALLER)],
        warnings=[Warning_("cut-packets", "Some packets are cut.")],
        recorded_by=[session],
    )
    facts = checked(build(call)).find(f".//{SR}call")
    assert [h.get("by") for h in facts.iterfind(f"{SR}hold")] == ["callee", "caller"]
    assert facts.find(f"{SR}warning").get("code") == "cut-packets"
    recorded = facts.find(f"{SR}recorded-by")
    assert (recorded.get("call-id"), recorded.get("src"), recorded.get("srs")) == ("rs-1@src", "10.0.0.1:5060", None)
    assert recorded.findtext(f"{SR}aor") == "sip:alice@atlanta.com"


def test_foreign_elements_stand_only_where_the_schema_allows_any():
    root = checked(build())
    parents = {
        etree.QName(e.getparent()).localname for e in root.iter(f"{SR}*") if not e.getparent().tag.startswith(SR)
    }
    assert parents == {"group", "session", "participant", "stream", "recording"}
    for element in root.iter(f"{RS}*"):
        own = [e.tag.startswith(SR) for e in element]
        assert own == sorted(own)
        assert not any(key.startswith("{") for key in element.attrib)


@pytest.mark.parametrize(
    ("heard", "aor"),
    [
        ("sip:alice@atlanta.com;user=phone", "sip:alice@atlanta.com;user=phone"),
        ("sip:*#06#@host", "sip:*%2306%23@host"),
        ("tel:+49-30-123;phone-context=example.com", "tel:+49-30-123;phone-context=example.com"),
        ("sip:jürgen@münchen.de", "sip:j%C3%BCrgen@m%C3%BCnchen.de"),
        ("sip:a b@c", "sip:a%20b@c"),
        ("sip:a%20b@c", "sip:a%20b@c"),
        ("sip:100%@c", "sip:100%25@c"),
        ("sip:a@[2001:db8::1]:5060", "sip:a@%5B2001:db8::1%5D:5060"),
        ("<sip:a@b>", "sip:a@b"),
        ("1001", "sip:1001"),
        ("10.0.0.1:5060", "sip:10.0.0.1:5060"),
        ("sip://a@b:99999999999", "sip:%2F%2Fa@b:99999999999"),
        ("sip:\udcff@b\ud800", "sip:%FF@b%EF%BF%BD"),
        ("sip:a\x00\r\nb@c", "sip:a%00%0D%0Ab@c"),
        (" ", "sip:anonymous@anonymous.invalid"),
    ],
)
def test_addresses_of_record_become_valid_uris(heard, aor):
    assert aor_uri(heard) == aor


def test_what_xml_forbids_is_replaced_visibly():
    assert xml_text("A\x00l\x1bi\ud800c\udcffe\ufffe\t☎ 😀") == "A\ufffdl\ufffdi\ufffdc\ufffde\ufffd\t☎ 😀"


ODD = st.text(st.characters(exclude_categories=()), max_size=30)
URIS = st.one_of(ODD, ODD.map(lambda t: f"sip:{t}"), ODD.map(lambda t: f"sip:{t}@[::1]"), ODD.map(lambda t: f"//{t}"))
IDENTITIES = st.lists(st.builds(Identity, URIS, st.none() | ODD, st.sampled_from(IdentityOrigin)), max_size=4)


@settings(max_examples=150, deadline=None)
@given(caller=IDENTITIES, callee=IDENTITIES, text=ODD, other=ODD, cause=st.integers(-(10**6), 10**6))
def test_no_names_or_addresses_make_an_invalid_document(caller, callee, text, other, cause):
    call = a_call(
        call_id=text,
        sip_reason=other,
        session_ids=(text, other),
        reason_headers=((text, cause, other),),
        warnings=[Warning_(text, other)],
        recorded_by=[RecordingSession(text, START, START, None, CALLEE, (other,), (text,))],
    )
    call.caller.identities, call.callee.identities = caller, callee
    call.caller.contact_params = ((text, other),)
    streams = (a_stream(Side.CALLER, text, codec=other, rtcp_cname=text, rule=other), a_stream(Side.CALLEE, other))
    data = build(call, streams)
    checked(data)
    assert build(call, streams) == data


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40).filter(lambda t: t.strip()))
def test_a_name_that_xml_can_hold_comes_back_as_it_was(name):
    call = a_call()
    call.caller.identities = [Identity("sip:a@b", name, IdentityOrigin.ADDRESS)]
    expected = "".join("\ufffd" if c in "\ufffe\uffff" else c for c in name)
    assert name_ids(etree.fromstring(build(call)), 0) == [("sip:a@b", expected)]
