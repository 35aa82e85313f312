"""The call document."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recorder.document import clean, describe, format_time, parse, schema
from recorder.model import CallState, Identity, IdentityOrigin, Side
from tests.calls import CAPTURE, SECOND, START, answered_call, audio, document, stream

PUBLISHED = Path(__file__).parents[2] / "docs" / "call.schema.json"
CONTRACT = [
    *("schema", "id", "call_id", "group_id", "caller", "callee", "started", "ringing", "answered", "ended"),
    *("duration_s", "talk_s", "state", "sip_status", "sip_reason", "ended_by", "streams", "dtmf", "holds"),
    *("audio", "metadata", "captures", "warnings"),
]
STREAM = [
    *("media", "participant", "label", "channel", "codec", "payload_type", "clock_rate", "ssrc", "source"),
    *("destination", "started", "ended", "packets", "lost", "expected", "duplicates", "late", "reordered"),
    *("jitter_ms", "mos", "copies", "encrypted"),
]


def test_members_are_those_of_the_contract_in_its_order():
    told = json.loads(document().to_bytes())
    assert list(told) == CONTRACT
    assert list(told["streams"][0]) == STREAM
    assert list(told["caller"]) == ["uri", "name", "address"]
    assert list(told["dtmf"][0]) == ["at", "participant", "digit", "duration_ms", "via"]
    assert list(told["holds"][0]) == ["from", "to", "by"]
    assert list(told["audio"]) == ["file", "format", "sample_rate", "channels", "samples", "started", "sha256"]
    assert list(told["metadata"]) == ["file", "sha256"]
    assert list(told["captures"][0]) == ["file", "sha256", "first_packet", "last_packet"]
    assert list(told["warnings"][0]) == ["code", "text"]


def test_tags_are_told_last_and_only_where_there_are_any():
    call = answered_call()
    call.tags = ("sales", "vip")
    told = document(call).to_bytes()
    assert list(json.loads(told)) == [*CONTRACT, "tags"]
    assert json.loads(told)["tags"] == ["sales", "vip"]
    assert parse(told).tags == ("sales", "vip")
    assert parse(document().to_bytes()).tags == ()


def test_an_answered_call_is_told_with_its_figures():
    told = json.loads(document().to_bytes())
    assert told["schema"] == "spanrec/call/1"
    assert told["started"] == "2026-03-01T09:15:02.123456Z"
    assert (told["duration_s"], told["talk_s"], told["state"]) == (12.5, 10.5, "completed")
    assert told["caller"] == {"uri": "sip:+4930111@example.com", "name": "Zoë", "address": "192.0.2.1:5060"}
    assert told["streams"][0]["ssrc"] == "0x0000beef"
    assert told["streams"][0]["destination"] == "[2001:db8::2]:4002"
    assert told["streams"][0]["expected"] == 500
    assert told["streams"][0]["jitter_ms"] == {"mean": 1.235, "max": 10.0}
    assert told["streams"][0]["mos"] == 4.2
    assert told["group_id"] == told["id"]


def test_what_never_happened_is_null():
    call = answered_call()
    call.ringing = call.answered = call.ended = None
    call.call_id = call.sip_status = call.sip_reason = call.ended_by = call.callee.address = None
    call.callee.identities.clear()
    call.state = CallState.MEDIA_ONLY
    call.holds[0] = call.holds[0].__class__(START, None, Side.CALLER)
    nothing = stream(jitter_mean_ms=None, jitter_max_ms=None, mos=float("nan"), side=None, channel=None)
    told = json.loads(describe(call, [nothing], None, "00" * 32, [CAPTURE]).to_bytes())
    absent = ("call_id", "ringing", "answered", "talk_s", "sip_status", "sip_reason", "ended_by", "audio")
    assert all(told[member] is None for member in absent)
    assert told["callee"] == {"uri": None, "name": None, "address": None}
    assert told["ended"] == format_time(call.last_seen)
    assert told["holds"][0]["to"] is None
    assert told["streams"][0]["jitter_ms"] == {"mean": None, "max": None}
    assert told["streams"][0]["mos"] is told["streams"][0]["participant"] is told["streams"][0]["channel"] is None


@pytest.mark.parametrize(
    ("call_id", "answered", "state"), [(None, None, "media-only"), ("a", None, "failed"), ("a", START, "incomplete")]
)
def test_a_call_that_outlives_its_capture_has_a_state(call_id, answered, state):
    call = answered_call()
    call.state, call.call_id, call.answered = CallState.ACTIVE, call_id, answered
    assert describe(call, [], None, "", [CAPTURE]).state == state


def test_a_clock_that_steps_back_makes_no_negative_duration():
    call = answered_call()
    call.ended = call.started - SECOND
    told = describe(call, [], None, "", [CAPTURE])
    assert (told.duration_s, told.talk_s) == (0.0, 0.0)
    assert told.ended == told.started


def test_duration_agrees_with_the_times_as_printed():
    call = answered_call()
    call.started, call.ended, call.answered = 999, 1_000, None
    assert describe(call, [], None, "", [CAPTURE]).duration_s == 0.000001


def test_a_call_without_id_is_a_mistake_of_the_caller():
    call = answered_call()
    call.id = None
    with pytest.raises(ValueError, match="no id"):
        describe(call, [], None, "", [])


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_text_from_the_wire_becomes_valid_json(text):
    call = answered_call(call_id=text or "x")
    call.caller.identities[:] = [Identity(text, text, IdentityOrigin.ADDRESS)]
    call.sip_reason = text
    data = describe(call, [stream(codec=text)], audio(), "", [CAPTURE]).to_bytes()
    told = json.loads(data.decode())
    assert told["caller"]["uri"] == clean(text)
    assert parse(data).sip_reason == clean(text)


def test_octets_that_were_no_utf8_are_replaced_and_pairs_are_kept():
    assert clean("a\udce9b") == "a�b"
    assert clean("\ud83d\ude00") == "😀"
    assert clean("Zoë") == "Zoë"


def test_a_name_that_looks_like_json_changes_nothing():
    call = answered_call()
    call.caller.identities[:] = [Identity('"from_": ', '\\"from_": ', IdentityOrigin.ADDRESS)]
    assert parse(describe(call, [], None, "", [CAPTURE]).to_bytes()).caller.uri == '"from_": '


def test_a_document_reads_back_as_it_was():
    told = document()
    assert parse(told.to_bytes()) == told
    assert told.to_bytes().endswith(b"\n}\n")


def test_members_of_nobody_are_refused_on_reading():
    data = document().to_bytes().replace(b'"sip_status"', b'"sip_state"')
    with pytest.raises(ValidationError):
        parse(data)


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_time_of_a_capture_can_be_written(nanoseconds):
    text = format_time(nanoseconds)
    assert len(text) == 27
    assert text.endswith("Z")


def test_the_published_schema_is_that_of_the_types():
    assert json.loads(PUBLISHED.read_text()) == schema(), "make schema"
