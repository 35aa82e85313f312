"""Status values as JSON and back."""

import json
from dataclasses import replace

import pytest

from recorder import status_json
from recorder.status import StatusError
from tests.live_status import ALARM, ladder, live_call, snapshot


def test_what_is_written_reads_back_as_it_was():
    whole = snapshot(20, alarms=(ALARM,))
    calls = tuple(live_call(index) for index in range(20))
    steps = tuple(ladder(1))
    assert status_json.read_snapshot(status_json.snapshot_json(whole)) == whole
    assert status_json.read_calls(status_json.calls_json(calls)) == calls
    assert status_json.read_call(status_json.call_json(calls[4])) == calls[4]
    assert status_json.read_ladder(status_json.ladder_json(steps)) == steps
    assert status_json.read_calls(status_json.calls_json(())) == ()


def test_times_are_rfc_3339_with_microseconds():
    told = json.loads(status_json.call_json(replace(live_call(0), started=1_772_356_502_123_456_789)))
    assert told["started"] == "2026-03-01T09:15:02.123456Z"


def test_octets_that_were_no_text_on_the_wire_are_valid_unicode():
    told = status_json.call_json(replace(live_call(0), call_id="a\udc80b", caller="sip:\udcff@x"))
    assert json.loads(told)["call_id"] == "a�b"
    assert json.loads(told)["caller"] == "sip:�@x"


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"time": 5}', b'{"calls": {}}', b"\xff", b"null"])
def test_what_is_no_answer_of_spanrec_is_said_to_be_none(content):
    for read in (status_json.read_snapshot, status_json.read_calls, status_json.read_call, status_json.read_ladder):
        with pytest.raises(StatusError, match="understands"):
            read(content)
