"""The recording server's sessions: who may record, how it answers, what it asks, what an operator can do."""

import asyncio
from ipaddress import ip_network

import pytest

from capture.errors import SpanrecError
from decoders.sdp import CryptoKey, parse_sdp
from recorder.sip_ua.api import EndedBy, RefusedError, UnreachableError
from recorder.siprec.admission import AdmissionRules, Allowed
from recorder.siprec.control import ControlError, EventKind
from recorder.siprec.sdp_write import crypto_line
from recorder.siprec.srs_message import Strictness
from recorder.siprec.srs_sessions import MOST_WAITING, RecordingServer, ServerSettings
from tests.srs_lab import (
    CALL,
    SECOND,
    SRC,
    SrsLab,
    line,
    message,
    metadata,
    multipart,
    partial,
    peer,
    response,
    sdp,
)

OFFER = sdp(line(6000, "1"), line(6002, "2"))
BODY, KIND = multipart(OFFER, metadata())


@pytest.fixture
def lab(tmp_path):
    made = SrsLab(tmp_path / "out")
    yield made
    made.finish()


def play(lab, script):
    asyncio.run(script(lab))


def refused(lab, request, who=None):
    """(status, headers) of an INVITE that is refused."""

    async def script(lab):
        incoming = lab.invite(request, who)
        assert incoming.session is None
        assert lab.ports.open_ports == []
        found.append((incoming.refused[0], dict(incoming.refused[2])))

    found = []
    play(lab, script)
    return found[0]


def accepted(lab, request, who=None):
    async def script(lab):
        found.append(lab.invite(request, who))

    found = []
    play(lab, script)
    assert found[0].session is not None, found[0].refused
    return found[0]


# What is a recording session


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("tagged", [True, False])
def test_strictly_only_both_marks_make_a_recording_session(tmp_path, required, tagged):
    lab = SrsLab(tmp_path / "out", settings=ServerSettings(strictness=Strictness.STRICT))
    request = message(
        "INVITE", body=BODY, content_type=KIND, require="siprec" if required else "",
        contact=f"<sip:src@{SRC}>{';+sip.src' if tagged else ''}",
    )  # fmt: skip
    if required and tagged:
        accepted(lab, request)
    else:
        status, headers = refused(lab, request)
        assert (status, headers) == ((403, {}) if required else (421, {"Require": "siprec"}))
    lab.finish()


@pytest.mark.parametrize(
    ("contact", "require", "warned"),
    [
        (f"<sip:src@{SRC}>;+sip.src", "siprec", []),
        (f"<sip:src@{SRC};+sip.src>", "siprec", []),
        (f"<sip:src@{SRC}>;src", "siprec", []),
        (f"<<sip:src@{SRC}>;+sip.src>", "siprec", []),
        (f"<sip:src@{SRC};+sip.src", "siprec", []),
        (f"<sip:src@{SRC}>;+sip.src", "", ["siprec-marks"]),
        (f"<sip:src@{SRC}>", "siprec", ["siprec-marks"]),
        (f"<sip:src@{SRC}>", "", ["siprec-marks"]),
        ("", "", ["siprec-marks"]),
    ],
)
def test_leniently_any_sign_will_do_and_what_is_missing_is_said(tmp_path, contact, require, warned):
    lab = SrsLab(tmp_path / "out")

    async def script(lab):
        incoming = lab.invite(message("INVITE", body=BODY, content_type=KIND, contact=contact, require=require))
        lab.bye(incoming)

    play(lab, script)
    (recording,) = lab.finish()
    assert [code for code in recording.codes if code == "siprec-marks"] == warned


def test_a_call_without_any_sign_is_none_of_ours_unless_the_settings_say_so(tmp_path):
    plain = message("INVITE", body=OFFER, content_type="application/sdp", require="", contact=f"<sip:x@{SRC}>")
    lab = SrsLab(tmp_path / "one")
    assert refused(lab, plain) == (421, {"Require": "siprec"})
    assert lab.server.admission.refused == {"not-siprec": 1}
    lab.finish()
    lab = SrsLab(tmp_path / "two", settings=ServerSettings(strictness=Strictness.ANYTHING))
    accepted(lab, plain)
    assert len(lab.finish()) == 1


def test_another_recording_server_is_told_that_we_are_one(lab):
    request = message("INVITE", contact=f"<sip:srs@{SRC}>;+sip.srs")
    assert refused(lab, request)[0] == 403


def test_our_contact_has_the_tag_of_a_recording_server(lab):
    incoming = accepted(lab, message("INVITE", body=BODY, content_type=KIND))
    assert list(incoming.contact_params) == ["+sip.srs"]


def test_what_we_lack_is_named(lab):
    request = message("INVITE", body=BODY, content_type=KIND, require="siprec, precondition, foo")
    assert refused(lab, request) == (420, {"Unsupported": "precondition, foo"})
    accepted(lab, message("INVITE", "other@src", BODY, KIND, require="siprec, timer, 100rel"))


# Bodies


def with_part(part):
    body = BODY.replace(b"--b1--", b"--b1\r\n" + part + b"\r\n--b1--")
    return message("INVITE", body=body, content_type=KIND)


def test_a_part_that_may_be_passed_over_is(lab):
    accepted(lab, with_part(b"Content-Type: application/gtd\r\nContent-Disposition: signal;handling=optional\r\n\r\nx"))


def test_a_part_that_must_be_understood_and_is_not_refuses_the_session(lab):
    part = b"Content-Type: application/gtd\r\nContent-Disposition: signal; handling = required\r\n\r\nx"
    status, headers = refused(lab, with_part(part))
    assert status == 415
    assert "application/rs-metadata+xml" in headers["Accept"]


def test_a_packed_body_is_not_unpacked(lab):
    request = message("INVITE", body=b"\x1f\x8b", content_type=KIND, headers=["Content-Encoding: gzip"])
    assert refused(lab, request) == (415, {"Accept-Encoding": "identity"})


def test_sdp_that_must_be_handled_is(lab):
    body = BODY.replace(
        b"Content-Type: application/sdp",
        b"Content-Disposition: session;handling=required\r\nContent-Type: application/SDP",
    )
    accepted(lab, message("INVITE", body=body, content_type=KIND))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n",
        sdp("m=video 6000 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"),
        sdp("m=audio 6000 RTP/AVP 96\r\na=rtpmap:96 EVS/16000\r\n"),
        sdp("m=audio 6000 RTP/AVP 101\r\na=rtpmap:101 telephone-event/8000\r\n"),
        sdp("m=audio 6000 UDP/TLS/RTP/SAVPF 0\r\na=fingerprint:sha-256 AA\r\n"),
        sdp("m=audio 6000 RTP/SAVP 0\r\n"),
        sdp("m=audio nonsense RTP/AVP 0\r\n"),
        sdp("m=audio 0 RTP/AVP 0\r\n"),
        b"no description at all",
    ],
)
def test_an_offer_of_which_nothing_can_be_taken_is_refused(lab, body):
    request = message("INVITE", body=body, content_type="application/sdp" if body else "")
    assert refused(lab, request)[0] == 488
    assert lab.server.admission.refused == {"offer": 1}


# Limits


def test_a_body_that_is_too_large_is_refused(tmp_path):
    lab = SrsLab(tmp_path / "out", rules=AdmissionRules(largest_body=4096))
    request = message("INVITE", body=BODY + b"x" * 4096, content_type=KIND)
    assert refused(lab, request)[0] == 413
    lab.finish()


def test_within_a_session_a_body_that_is_too_large_costs_that_request_only(tmp_path):
    lab = SrsLab(tmp_path / "out", rules=AdmissionRules(largest_body=len(BODY) + 100))

    async def script(lab):
        incoming = lab.record()
        reply = await lab.again(incoming, None, partial("<x/>" * 2000), "UPDATE")
        assert reply.status == 413
        assert lab.server.count == 1
        lab.bye(incoming)

    play(lab, script)
    lab.finish()


def test_without_ports_new_sessions_are_asked_to_come_later(tmp_path):
    lab = SrsLab(tmp_path / "out", pairs=3)

    async def script(lab):
        first = lab.record()
        second = lab.record(call_id="rs-2@src")
        assert second.refused[0] == 503
        assert dict(second.refused[2]) == {"Retry-After": "5"}
        assert len(lab.ports.open_ports) == 2
        reply = await lab.again(first, sdp(line(6000, "1"), line(6002, "2"), line(6004, "3"), line(6006, "4")))
        assert reply.status == 500
        assert len(lab.ports.open_ports) == 2
        lab.bye(first)
        third = lab.record(call_id="rs-3@src")
        assert third.session is not None
        lab.bye(third)

    play(lab, script)
    lab.finish()


def test_a_client_whose_offers_are_wide_leaves_ports_to_others(tmp_path):
    """Whatever one address offers, its sessions have no more streams than its share; within a session too."""
    lab = SrsLab(tmp_path / "out", pairs=40, rules=AdmissionRules(streams_of_one=20))
    wide = sdp(*(line(6000 + 2 * number, str(number)) for number in range(16)))

    async def script(lab):
        first = lab.record(wide)
        assert len(lab.ports.open_ports) == 16
        second = lab.record(wide, call_id="rs-2@src")
        assert second.refused[:2] == (503, "Full For This Client")
        assert dict(second.refused[2]) == {"Retry-After": "5"}
        assert lab.server.admission.refused == {"streams-of-one": 1}
        assert len(lab.ports.open_ports) == 16
        narrow = lab.record(call_id="rs-3@src")
        reply = await lab.again(narrow, sdp(*(line(6000 + 2 * number, str(number)) for number in range(8))))
        assert (reply.status, reply.reason) == (500, "Full For This Client")
        body, kind = multipart(wide, metadata())
        other = lab.invite(message("INVITE", "rs-4@src", body, kind), peer("192.0.2.77"))
        assert other.session is not None
        lab.bye(first)
        # What was released only now still counts: the ports rest too.
        assert lab.record(wide, call_id="rs-5@src").refused[0] == 503
        for each in (narrow, other):
            lab.bye(each)

    play(lab, script)
    lab.finish()


@pytest.mark.parametrize(
    ("rules", "why"),
    [(AdmissionRules(most_sessions=1), "full"), (AdmissionRules(most_of_one=1), "full-for-one")],
)
def test_more_sessions_than_allowed_are_refused_until_one_ends(tmp_path, rules, why):
    lab = SrsLab(tmp_path / "out", rules=rules)

    async def script(lab):
        first = lab.record()
        second = lab.record(call_id="rs-2@src")
        assert second.refused[0] == 503
        assert lab.server.admission.refused == {why: 1}
        lab.bye(first)
        lab.bye(lab.record(call_id="rs-3@src"))

    play(lab, script)
    lab.finish()


def test_a_full_disk_refuses_new_sessions(tmp_path):
    full = [None]
    lab = SrsLab(tmp_path / "out", full=lambda: full[0])

    async def script(lab):
        first = lab.record()
        full[0] = "disk-full"
        assert lab.record(call_id="rs-2@src").refused[0] == 503
        assert (await lab.again(first, OFFER)).status == 200
        lab.bye(first)

    play(lab, script)
    assert lab.server.admission.refused == {"disk-full": 1}
    lab.finish()


@pytest.mark.parametrize(
    ("allowed", "who", "may"),
    [
        (Allowed(network=ip_network("192.0.2.0/24")), peer(), True),
        (Allowed(network=ip_network("10.0.0.0/8")), peer(), False),
        (Allowed(network=ip_network("2001:db8::/32")), peer("2001:db8::1"), True),
        (Allowed(network=ip_network("2001:db8::/32")), peer(), False),
        (Allowed(certificate="DNS:sbc.example"), peer(certificate=("DNS:SBC.example",)), True),
        (Allowed(certificate="DNS:*.example"), peer(certificate=("CN:x", "DNS:sbc.example")), True),
        (Allowed(certificate="DNS:*.example"), peer(certificate=("DNS:a.b.example",)), False),
        (Allowed(certificate="DNS:sbc.example"), peer(certificate=("CN:sbc.example",)), False),
        (Allowed(certificate="DNS:sbc.example"), peer(), False),
        (Allowed(user="sbc"), peer(user="sbc"), True),
        (Allowed(user="sbc"), peer(), False),
        (Allowed(network=ip_network("192.0.2.0/24"), user="sbc"), peer(), False),
    ],
)
def test_who_may_record_is_told_by_address_certificate_or_user(tmp_path, allowed, who, may):
    lab = SrsLab(tmp_path / "out", rules=AdmissionRules(allowed=(allowed,)))
    request = message("INVITE", body=BODY, content_type=KIND)
    if may:
        accepted(lab, request, who)
    else:
        assert refused(lab, request, who)[0] == 403
        assert lab.server.admission.refused == {"not-allowed": 1}
    lab.finish()


def test_one_address_gets_no_more_than_its_rate_and_others_go_on(tmp_path):
    lab = SrsLab(tmp_path / "out", rules=AdmissionRules(rate=0.001, burst=3))

    async def script(lab):
        statuses = []
        for number in range(6):
            incoming = lab.invite(message("INVITE", f"rs-{number}@src", b"", require=""))
            statuses.append(incoming.refused[0])
        assert statuses == [488, 488, 488, 503, 503, 503]
        assert lab.invite(message("INVITE", "x@y", b"", require=""), peer("192.0.2.77")).refused[0] == 488

    play(lab, script)
    assert lab.server.admission.refused == {"offer": 4, "rate": 3}
    lab.finish()


def test_before_the_engine_runs_invites_wait_and_none_is_forgotten(lab):
    async def script(lab):
        lab.server.hold()
        one, two = lab.record(call_id="rs-1@src"), lab.record(call_id="rs-2@src")
        assert (one.session, one.refused, two.session) == (None, None, None)
        assert lab.ports.open_ports == []
        lab.server.go_on()
        assert one.session is not None
        assert two.session is not None
        assert lab.server.count == 2
        later = lab.record(call_id="rs-3@src")
        assert later.session is not None
        for each in (one, two, later):
            lab.bye(each)

    asyncio.run(script(lab))


def test_invites_beyond_those_that_can_wait_are_asked_to_come_later(lab):
    async def script(lab):
        lab.server.hold()
        waiting = [lab.record(call_id=f"rs-{number}@src") for number in range(MOST_WAITING)]
        beyond = lab.record(call_id="rs-beyond@src")
        assert beyond.refused[0] == 503
        assert all(each.refused is None for each in waiting)

    asyncio.run(script(lab))


def test_draining_refuses_new_sessions_and_waits_for_the_others(lab):
    async def script(lab):
        session = lab.record()
        drained = asyncio.ensure_future(lab.server.drain(5))
        await asyncio.sleep(0)
        assert lab.record(call_id="rs-2@src").refused[0] == 503
        assert (await lab.again(session, OFFER)).status == 200
        assert not drained.done()
        lab.bye(session)
        assert await drained == 0
        lab.server.admission.draining = False
        other = lab.record(call_id="rs-3@src")
        assert await lab.server.drain(0.01) == 1
        await lab.server.close()
        assert other.session.over

    play(lab, script)


# Within a session


def test_the_answer_has_every_line_in_its_place(lab):
    crypto = crypto_line(CryptoKey(3, "AEAD_AES_256_GCM", b"k" * 44))[2:]
    offer = sdp(
        line(6000, "a", "rtcp-mux", formats="9 0 8 18 96 101", profile="RTP/AVPF").replace(
            "a=label", "a=rtpmap:96 opus/48000/2\r\na=label"
        ),
        "m=video 6010 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\na=label:v\r\na=sendonly\r\n",
        line(6002, "b", crypto, profile="RTP/SAVPF"),
        "m=application 6020 UDP/BFCP *\r\n",
        line(6004, None, "inactive", formats="8 13"),
        "m=audio 6030 RTP/AVP 98\r\na=rtpmap:98 EVS/16000\r\n",
    )
    answer = accepted(lab, message("INVITE", body=offer, content_type="application/sdp")).answer
    assert [(m.media, bool(m.port), m.protocol) for m in answer.media] == [
        ("audio", True, "RTP/AVPF"),
        ("video", False, "RTP/AVP"),
        ("audio", True, "RTP/SAVPF"),
        ("application", False, "UDP/BFCP"),
        ("audio", True, "RTP/AVP"),
        ("audio", False, "RTP/AVP"),
    ]
    first, _, second, _, third, _ = answer.media
    assert list(first.formats) == [9, 0, 8, 18, 96, 101]
    assert first.formats[101].fmtp == "0-15"
    assert (first.label, second.label, third.label) == ("a", "b", None)
    assert (first.rtcp_mux, second.rtcp_mux) == (True, False)
    assert [m.direction for m in (first, second, third)] == ["recvonly", "recvonly", "inactive"]
    assert [(key.tag, key.suite, len(key.key)) for key in second.crypto] == [(3, "AEAD_AES_256_GCM", 44)]
    assert second.crypto[0].key != b"k" * 44
    assert list(third.formats) == [8, 13]


@pytest.mark.parametrize(
    ("lines", "host", "directions"),
    [
        ((line(6000, "1", "sendrecv"),), SRC, ["recvonly"]),
        ((line(6000, "1", ""),), SRC, ["recvonly"]),
        ((line(6000, "1", "recvonly"),), SRC, ["inactive"]),
        ((line(6000, "1", "inactive"),), SRC, ["inactive"]),
        ((line(6000, "1", ""),), "0.0.0.0", ["inactive"]),
        ((line(6000, "1", "sendonly"),), "0.0.0.0", ["recvonly"]),
        ((line(6000), line(6002), line(6004), line(6006)), SRC, ["recvonly"] * 4),
    ],
)
def test_directions_are_answered_as_the_offer_allows(lab, lines, host, directions):
    request = message("INVITE", body=sdp(*lines, host=host), content_type="application/sdp")
    assert [m.direction for m in accepted(lab, request).answer.media] == directions


def test_our_version_counts_what_changes_and_theirs_is_not_trusted(lab):
    async def script(lab):
        incoming = lab.record()
        versions = [incoming.answer.origin.version]
        for lines in (
            (line(6000, "1"), line(6002, "2")),
            (line(6000, "1"), line(6002, "2", "inactive")),
            (line(6000, "1"), line(6002, "2", "inactive")),
            (line(6000, "1"), line(6002, "2")),
        ):
            reply = await lab.again(incoming, sdp(*lines))
            versions.append(parse_sdp(reply.body.data).origin.version)
        assert [version - versions[0] for version in versions] == [0, 0, 1, 1, 2]
        lab.bye(incoming)

    play(lab, script)


def test_our_key_changes_only_where_theirs_or_their_address_does(lab):
    def offer(key, port):
        return sdp(line(port, "1", crypto_line(CryptoKey(1, "AES_CM_128_HMAC_SHA1_80", key * 30))[2:],
                        profile="RTP/SAVP"))  # fmt: skip

    async def script(lab):
        incoming = lab.record(offer(b"a", 6000))
        keys = [incoming.answer.media[0].crypto[0].key]
        for key, port in ((b"a", 6000), (b"b", 6000), (b"b", 6100)):
            reply = await lab.again(incoming, offer(key, port))
            keys.append(parse_sdp(reply.body.data).media[0].crypto[0].key)
        assert keys[0] == keys[1]
        assert len({keys[0], keys[2], keys[3]}) == 3
        lab.bye(incoming)

    play(lab, script)


def test_a_line_that_was_taken_away_can_be_used_again(lab):
    async def script(lab):
        incoming = lab.record()
        for lines, ports in (
            ((line(6000, "1"), line(0, "2")), 1),
            ((line(6000, "1"), line(6008, "7")), 2),
            ((line(0, "1"), line(0, "7")), 0),
            ((line(0, "1"), line(0, "7")), 0),
            ((line(6000, "1"), line(6002, "2"), line(6004, "3")), 3),
        ):
            reply = await lab.again(incoming, sdp(*lines))
            assert len(parse_sdp(reply.body.data).media) == len(lines)
            assert len(lab.ports.open_ports) == ports
        lab.bye(incoming)
        assert lab.ports.open_ports == []

    play(lab, script)


def test_an_offer_that_cannot_be_taken_leaves_the_session_as_it_was(lab):
    async def script(lab):
        incoming = lab.record()
        for body in (b"v=0\r\nm=audio x RTP/AVP 0\r\n", b"no description"):
            assert (await lab.within(incoming, message("INVITE", "rs-1@src", body, "application/sdp"))).status == 488
        assert len(lab.ports.open_ports) == 2
        assert lab.server.count == 1
        lab.bye(incoming)

    play(lab, script)


def test_a_reinvite_without_an_offer_gets_ours_and_its_answer_is_heard(lab):
    async def script(lab):
        incoming = lab.record()
        answer = sdp(line(7000, "1"), line(7002, "2"))
        incoming.session.ack = message("ACK", "rs-1@src", answer, "application/sdp")
        reply = await lab.again(incoming, None)
        assert [m.port for m in parse_sdp(reply.body.data).media] == [m.port for m in incoming.answer.media]
        await asyncio.sleep(0)
        assert str(lab.ports.terms[40000].source) == f"{SRC}:7000"
        lab.bye(incoming)

    play(lab, script)


def test_updates_with_and_without_a_description_are_answered(lab):
    async def script(lab):
        incoming = lab.record()
        plain = await lab.again(incoming, None, partial(f'<session session_id="{CALL}"/>'), "UPDATE")
        assert (plain.status, plain.body) == (200, None)
        offered = await lab.again(incoming, OFFER, metadata(), "UPDATE")
        assert len(parse_sdp(offered.body.data).media) == 2
        assert (await lab.within(incoming, message("INFO", "rs-1@src", b"x", "text/plain"))).status == 200
        assert (await lab.within(incoming, message("UPDATE", "rs-1@src", require="foo"))).status == 420
        lab.bye(incoming)

    play(lab, script)


def test_rtcp_goes_where_the_offer_says_and_by_its_keys(lab):
    offer = sdp(
        line(6000, "1", "rtcp:7777 IN IP4 192.0.2.99"), line(6002, "2"), line(6004, "3", "rtcp-mux", formats="9")
    )
    accepted(lab, message("INVITE", body=offer, content_type="application/sdp"))
    terms = lab.ports.terms
    assert str(terms[40000].rtcp_to) == "192.0.2.99:7777"
    assert str(terms[40002].rtcp_to) == f"{SRC}:6003"
    assert (str(terms[40004].rtcp_to), terms[40004].mux, terms[40004].clock_rate) == (f"{SRC}:6004", True, 8000)


# Snapshots


def settle(lab, rounds=5):
    async def wait():
        for _ in range(rounds):
            await asyncio.sleep(0)

    return wait()


def test_a_partial_document_before_any_complete_one_has_a_snapshot_asked_for(lab):
    async def script(lab):
        incoming = lab.record(said=partial(f'<session session_id="{CALL}"/>'))
        await settle(lab)
        ((method, body),) = incoming.session.sent
        assert (method, body.content_type, body.disposition) == (
            "UPDATE",
            "application/rs-metadata+xml",
            "recording-session",
        )
        assert b"requestsnapshot" in body.data
        lab.server.look(lab.now + 60 * SECOND)
        await settle(lab)
        assert [each for each in incoming.session.sent if each[0] == "UPDATE"] == [(method, body)]
        await lab.again(incoming, OFFER, metadata())
        lab.bye(incoming)

    play(lab, script)


def test_a_session_that_never_had_metadata_is_asked_after_a_while(lab):
    async def script(lab):
        incoming = lab.invite(message("INVITE", body=OFFER, content_type="application/sdp"))
        lab.server.look(lab.now + 1 * SECOND)
        await settle(lab)
        assert incoming.session.sent == []
        incoming.session.answers = [RefusedError(488, "Not Acceptable Here", None)]
        lab.server.look(lab.now + 6 * SECOND)
        await settle(lab)
        assert [method for method, _ in incoming.session.sent] == ["UPDATE"]
        (info,) = await lab.server._list()
        assert "488" in info.note
        lab.bye(incoming)

    play(lab, script)


def test_an_src_that_takes_no_update_is_never_asked(lab):
    async def script(lab):
        incoming = lab.record(said=partial(f'<session session_id="{CALL}"/>'), allow="INVITE, ACK, BYE")
        await settle(lab)
        lab.server.look(lab.now + 10 * SECOND)
        await settle(lab)
        assert incoming.session.sent == []
        lab.bye(incoming)

    play(lab, script)


# SRCs that are gone


def test_a_silent_src_is_asked_whether_it_is_there(lab):
    async def script(lab):
        incoming = lab.record()
        lab.server.look(lab.now + 59 * SECOND)
        await settle(lab)
        assert incoming.session.sent == []
        lab.now += 61 * SECOND
        lab.server.look(lab.now)
        await settle(lab)
        assert [method for method, _ in incoming.session.sent] == ["OPTIONS"]
        lab.server.look(lab.now + 30 * SECOND)
        await settle(lab)
        assert len(incoming.session.sent) == 1
        lab.now += 61 * SECOND
        incoming.session.answers = [RefusedError(405, "Method Not Allowed", None)]
        lab.server.look(lab.now)
        await settle(lab)
        assert lab.server.count == 1

        async def gone(method, body=None, headers=()):
            incoming.session.end(EndedBy.TRANSPORT)
            raise UnreachableError("nobody there")

        incoming.session.request = gone
        lab.now += 61 * SECOND
        lab.server.look(lab.now)
        await settle(lab)
        assert lab.server.count == 0
        assert lab.ports.open_ports == []

    play(lab, script)


def test_media_is_a_sign_of_life(lab):
    async def script(lab):
        incoming = lab.record()
        lab.speak(incoming, 0, 70)
        lab.after(70)
        lab.server.look(lab.now)
        await settle(lab)
        assert incoming.session.sent == []
        lab.bye(incoming)

    play(lab, script)


# Sessions that we begin


def test_a_session_of_ours_has_no_offer_and_answers_that_of_the_src(tmp_path):
    lab = SrsLab(tmp_path / "out", settings=ServerSettings(host="192.0.2.9"))

    async def script(lab):
        body, kind = multipart(OFFER, metadata())
        lab.agent.next = response(200, body, kind)
        assert await lab.server._call("1234", "sip:src.example") == ["r1"]
        (new,) = lab.agent.invites
        assert (new.uri, new.body) == ("sip:1234@src.example", None)
        assert ("Require", "siprec") in new.headers
        assert list(new.contact_params) == ["+sip.srs"]
        answer = parse_sdp(lab.agent.acknowledged.data)
        assert [(m.direction, m.label) for m in answer.media] == [("recvonly", "1"), ("recvonly", "2")]
        lab.turn()
        (info,) = await lab.server._list()
        assert (info.caller, info.callee) == ("sip:alice@a.example", "sip:bob@b.example")
        await lab.server._each("r1", lambda session: session.stop())
        lab.turn()
        assert lab.ports.open_ports == []

    play(lab, script)
    (recording,) = lab.finish()
    assert recording.document.caller.uri == "sip:alice@a.example"
    assert "siprec-marks" not in recording.codes


@pytest.mark.parametrize(
    "answer", [response(200, b"v=0\r\ns=-\r\n"), response(200), RefusedError(486, "Busy", None), UnreachableError("no")]
)
def test_an_src_that_offers_nothing_is_an_error_for_who_asked(tmp_path, answer):
    lab = SrsLab(tmp_path / "out", settings=ServerSettings(host="192.0.2.9"))

    async def script(lab):
        lab.agent.next = answer
        with pytest.raises(ControlError):
            await lab.server._call("", "sip:x@src.example")
        assert lab.ports.open_ports == []
        assert lab.server.count == 0

    play(lab, script)
    lab.finish()


# What an operator sees and does


def test_events_tell_what_happens(lab):
    heard = []
    stop = lab.server.listen(heard.append)

    async def script(lab):
        incoming = lab.record()
        await lab.server._pause("r1", paused=True)
        await lab.server._pause("r1", paused=False)
        lab.record(call_id="rs-2@src", description=b"v=0\r\n")
        lab.bye(incoming)
        stop()
        lab.bye(lab.record(call_id="rs-3@src"))

    play(lab, script)
    assert [event.kind for event in heard] == [
        EventKind.START,
        EventKind.PAUSE,
        EventKind.RESUME,
        EventKind.FAILURE,
        EventKind.STOP,
    ]
    assert {event.call_id for event in heard} == {"rs-1@src", "rs-2@src"}
    assert heard[3].details == {"status": 488, "why": "offer"}


def test_a_session_is_found_by_its_id_by_its_call_id_and_by_those_of_its_call(lab):
    async def script(lab):
        incoming = lab.record()
        (info,) = await lab.server._list()
        assert (info.role, info.state, info.rs_call_id) == ("srs", "recording", "rs-1@src")
        assert info.calls == tuple(str(call.id) for call in lab.active)
        assert [(leg.label, leg.participant, leg.local) for leg in info.legs] == [
            ("1", "sip:alice@a.example", "192.0.2.9:40000"),
            ("2", "sip:bob@b.example", "192.0.2.9:40002"),
        ]
        for name in (info.id, info.rs_call_id, *info.calls):
            assert len(lab.server._which(name)) == 1
        with pytest.raises(ControlError):
            lab.server._which("nothing")
        assert await lab.server._request("r1", "INFO", "text/plain", b"x") == "200 X"
        with pytest.raises(ControlError):
            await lab.server._request("r1", "REGISTER", "", b"")
        lab.bye(incoming)
        (over,) = await lab.server._list()
        assert over.state == "ended"

    play(lab, script)


def test_commands_come_from_other_threads(tmp_path):
    from recorder.siprec.loop import SessionLoop

    lab = SrsLab(tmp_path / "out")
    loop = SessionLoop()
    loop.start()
    try:

        async def make():
            return RecordingServer(
                lab.agent, lab.ports, lab.calls, lab.server.admission, run=loop.run, clock=lambda: lab.now
            )

        server = loop.run(make()).result(5)

        async def come():
            lab.record()

        loop.run(come()).result(5)
        assert [info.id for info in server.sessions()] == ["r1"]
        assert server.pause("r1") == ["r1"]
        assert server.resume("r1") == ["r1"]
        assert server.request("r1", "OPTIONS", "", b"") == "200 X"
        assert server.stop("r1") == ["r1"]
        with pytest.raises(SpanrecError):
            server.stop("r1")
    finally:
        loop.close()
        lab.finish()
