"""Descriptions that are written are read as the same."""

from dataclasses import replace

import pytest

from decoders.sdp import CryptoKey, Direction, MediaDescription, Origin, PayloadFormat, SessionDescription, parse_sdp
from recorder.siprec.sdp_write import write_sdp

PCMU = PayloadFormat(0, "PCMU", 8000)
EVENTS = PayloadFormat(101, "telephone-event", 8000, fmtp="0-15")
OPUS = PayloadFormat(111, "opus", 48000, 2)
KEY = CryptoKey(1, "AES_CM_128_HMAC_SHA1_80", bytes(range(30)))


def media(**changes):
    made = MediaDescription(0, "audio", 4000, "RTP/AVP", "192.0.2.1", {0: PCMU, 101: EVENTS}, label="1")
    usual = {"direction": Direction.SENDONLY, "rtcp_port": 4001, "ptime": 20, "ssrcs": (7,)}
    return made._replace(**{**usual, **changes})


def description(*sections):
    return SessionDescription(Origin("-", "5", 2, "192.0.2.1"), "-", sections, "192.0.2.1")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"formats": {111: OPUS}},
        {"protocol": "RTP/SAVP", "crypto": (KEY, replace(KEY, tag=2, lifetime=1 << 31, mki=3, mki_length=1))},
        {"address": "2001:db8::7"},
        {"mid": "a"},
        {"direction": Direction.INACTIVE},
    ],
)
def test_what_is_written_is_read_as_the_same(changes):
    made = description(media(**changes))
    data = write_sdp(made, {7: "c7"})
    assert parse_sdp(data) == made
    assert b"a=ssrc:7 cname:c7\r\n" in data


def test_every_payload_type_has_its_rtpmap_and_what_is_refused_has_a_port_of_0():
    refused = MediaDescription(1, "image", 0, "udptl", "192.0.2.1", {}, label="2")
    data = write_sdp(description(media(), refused))
    assert b"a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n" in data
    assert data.endswith(b"m=image 0 udptl 0\r\na=label:2\r\n")


def test_an_address_of_its_own_is_written_for_rtcp():
    data = write_sdp(description(media(rtcp_address="192.0.2.2")))
    assert b"a=rtcp:4001 IN IP4 192.0.2.2\r\n" in data


def test_a_line_break_makes_no_second_line():
    bad = replace(PCMU, fmtp="x\r\na=inactive")
    data = write_sdp(description(media(formats={0: bad}, label="1\r\nm=video 1 RTP/AVP 0")))
    assert b"\r\na=inactive" not in data
    assert data.count(b"\r\nm=") == 1
