"""What servers are told of calls: valid by the schema, complete first, then what differs."""

import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from recorder.metadata_ids import group_uuid, id_text
from recorder.model import CallState, Side
from recorder.rs_metadata import parse_rs_metadata
from recorder.siprec.snapshot import Told, ToldStream, complete, elements_of, partial, why_no_extension
from recorder.siprec.src_decision import Overrides
from recorder.siprec.srs_metadata import MetadataState
from tests.siprec_fakes import SECOND, START, held, over, party, picture

SCHEMA = Path(__file__).parents[2] / "schema" / "metadata.xsd"
RS = "{urn:ietf:params:xml:ns:recording:1}"
AT = START + 20 * SECOND


@cache
def schema():
    return etree.XMLSchema(etree.parse(SCHEMA))


def checked(data):
    root = etree.fromstring(data)
    schema().assertValid(root)
    assert data.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<recording ')
    for element in root.iter():
        if etree.QName(element).localname.endswith("-time"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", element.text)
    assert parse_rs_metadata(data).notes == []
    return root


def told(call, **changes):
    streams = tuple(
        ToldStream(each.side, each.media_index, str(place), each.sending) for place, each in enumerate(call.streams, 1)
    )
    return replace(Told(call, streams, START + 3 * SECOND), **changes)


def changes(before, now):
    found = partial(elements_of([before] if before else []), elements_of([now] if now else []), AT)
    return None if found is None else checked(found.data)


def tags(root):
    return [etree.QName(child).localname for child in root]


def test_a_complete_snapshot_has_all_elements_in_the_order_of_the_schema():
    call = picture()
    root = checked(complete(elements_of([told(call)])))
    assert tags(root) == [
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
    ]
    assert root.find(f"{RS}session").get("session_id") == id_text(call.id)
    assert root.find(f"{RS}group").get("group_id") == id_text(group_uuid(call.group))
    assert [element.text for element in root.iter(f"{RS}label")] == ["1", "2"]
    for name in ("sessionrecordingassoc", "participantsessionassoc", "participantstreamassoc", "group"):
        assert all(element.find(f"{RS}associate-time") is not None for element in root.iterfind(RS + name))
    defined = {element.get("stream_id") for element in root.iterfind(f"{RS}stream")}
    sent = [element.text for element in root.iter(f"{RS}send")]
    assert set(sent) == defined == {element.text for element in root.iter(f"{RS}recv")}


def test_two_calls_of_one_conversation_share_their_group():
    first = picture()
    second = picture(2, group=first.group)
    root = checked(complete(elements_of([told(first), told(second)])))
    assert tags(root).count("group") == 1
    assert tags(root).count("session") == 2
    refs = {element.findtext(f"{RS}group-ref") for element in root.iterfind(f"{RS}session")}
    assert refs == {root.find(f"{RS}group").get("group_id")}


def test_no_call_at_all_is_an_empty_document():
    assert tags(checked(complete(elements_of([])))) == ["datamode"]


def test_nothing_new_is_no_partial():
    call = picture()
    assert changes(told(call), told(call)) is None


def test_hold_takes_send_from_the_held_and_recv_from_the_holder_and_resume_gives_both_back():
    call = picture()
    root = changes(told(call), told(held(call, Side.CALLER)))
    assert tags(root) == ["datamode", "participantstreamassoc", "participantstreamassoc"]
    holder, other = root.findall(f"{RS}participantstreamassoc")
    assert [etree.QName(each).localname for each in holder][:-1] == ["send"]
    assert [etree.QName(each).localname for each in other][:-1] == ["recv"]
    root = changes(told(held(call, Side.CALLER)), told(call))
    for association in root.findall(f"{RS}participantstreamassoc"):
        assert [etree.QName(each).localname for each in association][:-1] == ["send", "recv"]


def test_a_new_participant_of_the_same_session_takes_the_place_of_one_who_leaves():
    call = picture()
    carol = replace(party(Side.CALLEE, call.id, "carol"), joined=AT)
    root = changes(told(call), told(replace(call, parties=(call.parties[0], carol))))
    assert [element.find(f"{RS}nameID").get("aor") for element in root.iterfind(f"{RS}participant")] == [
        "sip:carol@example.com"
    ]
    members = {
        element.get("participant_id"): element.find(f"{RS}disassociate-time") is not None
        for element in root.iterfind(f"{RS}participantsessionassoc")
    }
    bob = id_text(call.parties[1].participant_id)
    assert members == {id_text(carol.participant_id): False, bob: True}
    media = {element.get("participant_id"): element for element in root.iterfind(f"{RS}participantstreamassoc")}
    assert media[bob].find(f"{RS}send") is None
    assert media[id_text(carol.participant_id)].find(f"{RS}send") is not None


def test_a_participant_who_leaves_contributes_to_nothing():
    call = picture()
    gone = replace(call, parties=(call.parties[0], replace(call.parties[1], left=AT)))
    root = changes(told(call), told(gone))
    assert tags(root) == ["datamode", "participantsessionassoc", "participantstreamassoc"]
    assert root.find(f"{RS}participantstreamassoc/{RS}send") is None
    assert root.findtext(f"{RS}participantsessionassoc/{RS}disassociate-time") is not None


def test_the_end_has_stop_time_reason_and_everybody_leaves():
    call = picture()
    root = changes(told(call), told(over(call), until=START + 9 * SECOND))
    assert tags(root) == [
        "datamode",
        "session",
        "sessionrecordingassoc",
        "participantsessionassoc",
        "participantsessionassoc",
    ]
    session = root.find(f"{RS}session")
    assert session.find(f"{RS}stop-time") is not None
    assert (session.find(f"{RS}reason").get("cause"), session.find(f"{RS}reason").get("protocol")) == ("16", "Q.850")
    assert all(
        element.find(f"{RS}disassociate-time") is not None for element in root.iterfind(f"{RS}participantsessionassoc")
    )


def test_a_call_whose_end_was_not_seen_has_no_stop_time():
    call = replace(over(picture()), state=CallState.INCOMPLETE)
    assert checked(complete(elements_of([told(call)]))).find(f"{RS}session/{RS}stop-time") is None


def test_a_new_stream_names_its_label_so_that_an_offer_must_go_with_it():
    call = picture()
    fewer = replace(told(call), streams=told(call).streams[:1])
    assert partial(elements_of([fewer]), elements_of([told(call)]), AT).labels
    assert not partial(elements_of([told(call)]), elements_of([told(held(call, Side.CALLER))]), AT).labels


def test_a_call_that_joins_a_conversation_tells_its_group():
    call = picture()
    root = changes(told(call), told(replace(call, group=uuid4())))
    assert tags(root) == ["datamode", "group", "session"]


def test_our_own_server_reads_every_step_as_it_was_meant():
    state = MetadataState()
    call = picture()
    steps = [told(call), told(held(call, Side.CALLEE)), told(call), told(over(call), until=AT)]
    state.take(complete(elements_of(steps[:1])))
    for before, now in pairwise(steps):
        state.take(partial(elements_of([before]), elements_of([now]), AT).data)
    (session,) = state.view().sessions
    assert session.stop == START + 9 * SECOND
    assert session.facts.call_id == call.call_id
    assert [len(flow.senders) for flow in session.flows] == [1, 1]
    assert state.view().notes == ()


def test_a_call_that_is_delivered_late_says_so():
    root = checked(complete(elements_of([told(over(picture()), late=True)])))
    assert root.find("{urn:spanrec:metadata:1}delivery").get("late") == "true"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_no_name_and_no_text_makes_an_invalid_document(aor, name, text):
    call = picture(session_ids=(text,), call_id=text)
    caller = replace(call.parties[0], names=(("sip:a@b", name),), params=((text, name),))
    overrides = Overrides(callee_aor=aor, callee_name=name)
    checked(complete(elements_of([told(replace(call, parties=(caller, call.parties[1])), overrides=overrides)])))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('<t:x xmlns:t="urn:t">1</t:x>', ""),
        ('<x xmlns="urn:t"><y/></x>\n<z xmlns="urn:z"/>', ""),
        ("<x>1</x>", "namespace of its own"),
        ('<x xmlns="">1</x>', "no namespace"),
        ("words", "no element"),
        ("<t:x/>", "not well-formed"),
        ("<!-- a -->", "comment"),
        ("<x", "not well-formed"),
        ('<a xmlns="urn:a"/></recording><recording>', "not well-formed"),
        ('<!DOCTYPE x><a xmlns="urn:a"/>', "not well-formed"),
    ],
)
def test_extensions_are_checked_when_they_are_read(text, wrong):
    found = why_no_extension(text)
    assert wrong in found
    assert bool(found) is bool(wrong)
    if not wrong:
        overrides = Overrides(group_extension=text, session_extension=text)
        checked_own = etree.fromstring(complete(elements_of([told(picture(), overrides=overrides)])))
        schema().assertValid(checked_own)
