"""What our SRC sends, beside what OpenSIPS sent for the same call. The captures are never part of the project."""

import pytest

from tests.siprec_beside_opensips import beside, explanation, flow_explanation


def test_every_difference_from_opensips_is_explained(captures, tmp_path):
    path = captures / "lab" / "opensips_siprec_early_busy.pcap"
    if not path.exists():
        pytest.skip(f"the collection of captures has no {path.name}")
    rows = beside([path], tmp_path)
    assert [row for row in rows if not row[-1]] == []
    elements = {row[1] for row in rows}
    assert {"session/sipSessionID", "requests", "header From", "SDP/o version"} <= elements
    assert not {"datamode", "participant sip:alice@example.com/nameID/name"} & elements


def test_what_nobody_foresaw_has_no_explanation():
    assert explanation("session/start-time", "", "2026-11-22T20:23:10+0000") == ""
    assert explanation("stream of sip:bob@example.com/label", "2", "2") == ""
    assert explanation("participant sip:bob@example.com/nameID@aor", "sip:b@x", "sip:bob@x") == ""
    assert flow_explanation("INVITE complete sendonly; UPDATE partial; UPDATE partial; BYE partial", "BYE") == ""
