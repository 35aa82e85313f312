"""Recording sessions that SRCs send us, from the INVITE to the files: the real engine, media as batches."""

import asyncio
import gc
import struct
from email import message_from_bytes, policy
from pathlib import Path
from weakref import ref

import pytest
from lxml import etree

from decoders.sdp import CryptoKey, parse_sdp
from decoders.srtp_protect import SrtpSender
from recorder.sip_ua.api import RefusedError
from recorder.siprec.received import FILE, Received, ReceivedFile, read, session_of
from recorder.siprec.sdp_write import crypto_line
from recorder.siprec.srs_call import MOST_AORS, MOST_SESSIONS
from tests.srs_lab import (
    ALICE,
    BOB,
    CALL,
    CAROL,
    GROUP,
    S1,
    S2,
    S3,
    SECOND,
    SrsLab,
    line,
    message,
    metadata,
    multipart,
    partial,
    run,
    sdp,
    stamp,
)

SCHEMA = Path(__file__).parents[2] / "schema" / "metadata.xsd"
SR = "{urn:spanrec:metadata:1}"
OTHER_CALL = "b3RoZXJvdGhlcm90aGVyb3Q="


@pytest.fixture
def lab(tmp_path):
    return SrsLab(tmp_path / "out")


def both_speak(lab, session, seconds, **how):
    for place in (0, 1):
        lab.speak(session, place, seconds, value=0x90 + 16 * place, **how)


def heard(samples):
    """Share of samples that are not silence, by channel."""
    return [round(float((samples[:, channel] != 0).mean()), 2) for channel in range(samples.shape[1])]


def document_of(recording):
    return etree.fromstring((recording.directory / "metadata.xml").read_bytes())


def test_a_session_becomes_a_recording_like_any_other(lab):
    async def script(lab):
        lab.after(0.2)
        session = lab.record()
        both_speak(lab, session, 4.0)
        lab.after(4.5)
        lab.bye(session)
        lab.after(8)

    (recording,) = run(lab, script)
    document = recording.document
    assert (document.state, document.warnings) == ("completed", ())
    assert (document.caller.uri, document.caller.name) == ("sip:alice@a.example", "Alice")
    assert (document.callee.uri, document.callee.name) == ("sip:bob@b.example", "Bob")
    assert document.call_id == "rs-1@src"
    assert (document.started[:19], document.answered[:19]) == (stamp(0)[:19], stamp(0)[:19])
    assert document.duration_s == pytest.approx(4.7)
    assert [(s.participant, s.packets, s.codec) for s in document.streams] == [
        ("caller", 200, "PCMU/8000"),
        ("callee", 200, "PCMU/8000"),
    ]
    samples = recording.samples()
    assert samples.shape == (32000, 2)
    assert len(set(samples[:, 0])) == len(set(samples[:, 1])) == 1
    assert samples[0, 0] != samples[0, 1]
    assert lab.ports.open_ports == []
    etree.XMLSchema(etree.parse(str(SCHEMA))).assertValid(document_of(recording))
    (told,) = document_of(recording).iterfind(f".//{SR}recorded-by")
    assert (told.get("call-id"), told.get("src"), told.get("packets")) == ("rs-1@src", "192.0.2.20:5060", "400")


def test_what_the_src_sent_is_kept_word_for_word(lab):
    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 1.0)
        lab.after(1)
        await lab.again(session, None, partial(f'<session session_id="{CALL}"/>'), "UPDATE")
        lab.bye(session, partial(f'<session session_id="{CALL}"><stop-time>{stamp(3)}</stop-time></session>'))
        lab.after(8)

    (recording,) = run(lab, script)
    kept = list(read(recording.directory))
    assert [each.what for each in kept] == ["INVITE", "UPDATE", "BYE"]
    assert kept[0].body == multipart(sdp(line(6000, "1"), line(6002, "2")), metadata())[0]
    assert [each.call_id for each in kept] == ["rs-1@src"] * 3
    # Any program that reads MIME reads it.
    parsed = message_from_bytes((recording.directory / FILE).read_bytes(), policy=policy.default)
    kinds = [part.get_content_type() for part in parsed.iter_parts()]
    assert kinds == ["multipart/mixed", "application/rs-metadata+xml", "application/rs-metadata+xml"]
    first = next(iter(parsed.iter_parts()))
    assert [part.get_content_type() for part in first.iter_parts()] == [
        "application/sdp",
        "application/rs-metadata+xml",
    ]


def test_where_the_settings_say_so_nothing_that_was_received_is_kept(tmp_path):
    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 1.0)
        lab.after(1)
        lab.bye(session)

    (recording,) = run(SrsLab(tmp_path / "out", keep=False), script)
    assert sorted(path.name for path in recording.directory.iterdir()) == ["audio.wav", "call.json", "metadata.xml"]


# Metadata first, late, last, never


def test_without_metadata_the_first_line_is_the_callers(lab):
    async def script(lab):
        session = lab.invite(message("INVITE", body=sdp(line(6000), line(6002)), content_type="application/sdp"))
        both_speak(lab, session, 2.0)
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert [(s.participant, s.packets) for s in recording.document.streams] == [("caller", 100), ("callee", 100)]
    assert recording.codes == ["metadata-missing"]
    assert recording.document.caller.uri is None
    assert recording.document.state == "completed"


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "INFO"])
def test_metadata_that_come_late_follow_the_lines_that_are_recorded_already(lab, method):
    """They name Bob first, but it is Alice whose line was taken for the caller's."""
    offer = sdp(line(6000, "2"), line(6002, "1"))

    async def script(lab):
        session = lab.invite(message("INVITE", body=offer, content_type="application/sdp"))
        both_speak(lab, session, 4.0)
        lab.after(2)
        await lab.again(session, offer if method == "INVITE" else None, metadata(), method)
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    document = recording.document
    assert (document.caller.uri, document.callee.uri) == ("sip:bob@b.example", "sip:alice@a.example")
    assert [(s.participant, s.packets) for s in document.streams] == [("caller", 200), ("callee", 200)]
    assert recording.samples()[100, 0] != recording.samples()[100, 1]


def test_metadata_only_in_the_bye_still_tell_who_it_was(lab):
    async def script(lab):
        offer = sdp(line(6000, "1"), line(6002, "2"))
        session = lab.invite(message("INVITE", body=offer, content_type="application/sdp"))
        both_speak(lab, session, 1.0)
        lab.after(1)
        lab.bye(session, metadata(stop=1))
        lab.after(8)

    (recording,) = run(lab, script)
    assert (recording.document.caller.uri, recording.document.state) == ("sip:alice@a.example", "completed")
    assert "metadata-missing" not in recording.codes


def test_metadata_that_nobody_can_read_cost_no_audio(lab):
    async def script(lab):
        session = lab.record(said=b"\xff\xfe\x00 no xml at all")
        both_speak(lab, session, 1.0)
        lab.after(1)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert {"metadata-missing", "metadata-unsound"} <= set(recording.codes)
    assert heard(recording.samples()) == [1.0, 1.0]


def test_a_session_without_a_call_records_nothing_until_one_begins(lab):
    """A persistent recording session (RFC 7866, section 10)."""

    async def script(lab):
        session = lab.record(sdp(line(6000, "1", "inactive"), line(6002, "2", "inactive")), f"{partial('')}")
        lab.after(20)
        assert lab.active == []
        # What is sent all the same is of no call.
        assert lab.ports.muted == {40000, 40002}
        await lab.again(session, sdp(line(6000, "1"), line(6002, "2")), metadata(start=20))
        assert lab.ports.muted == set()
        both_speak(lab, session, 2.0)
        lab.after(2)
        stop = f'<session session_id="{CALL}"><stop-time>{stamp(22)}</stop-time></session>'
        await lab.again(session, None, partial(stop), "UPDATE")
        lab.after(20)
        assert lab.active == []
        await lab.again(session, sdp(line(6000, "1"), line(6002, "2")), metadata(session=OTHER_CALL, start=42))
        both_speak(lab, session, 3.0, sequence=5000)
        lab.after(3)
        lab.bye(session)

    first, second = run(lab, script)
    assert (first.document.state, second.document.state) == ("completed", "completed")
    assert [s.packets for s in first.document.streams] == [100, 100]
    assert [s.packets for s in second.document.streams] == [150, 150]
    assert first.document.ended[:19] == stamp(22)[:19]
    assert second.document.started[:19] == stamp(42)[:19]
    assert first.document.group_id == second.document.group_id


# Hold, pause


def test_a_hold_that_the_metadata_tell(lab):
    """RFC 8068, section 3.2.2: the held one loses `send`, the holder loses `recv`."""
    held = (
        f'<participantstreamassoc participant_id="{ALICE}"><send>{S1}</send></participantstreamassoc>'
        f'<participantstreamassoc participant_id="{BOB}"><recv>{S1}</recv></participantstreamassoc>'
    )
    taken_back = (
        f'<participantstreamassoc participant_id="{ALICE}"><send>{S1}</send><recv>{S2}</recv></participantstreamassoc>'
        f'<participantstreamassoc participant_id="{BOB}"><send>{S2}</send><recv>{S1}</recv></participantstreamassoc>'
    )

    async def script(lab):
        session = lab.record()
        lab.speak(session, 0, 6)
        lab.after(2)
        await lab.again(session, None, partial(held), "UPDATE")
        lab.after(2)
        await lab.again(session, None, partial(taken_back), "UPDATE")
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    (hold,) = recording.document.holds
    assert (hold.by, hold.from_[:19], hold.to[:19]) == ("caller", stamp(2)[:19], stamp(4)[:19])


def test_a_hold_that_only_the_directions_tell(lab):
    """OpenSIPS: only the held party's line goes inactive, its o= line stays as it was."""

    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 6)
        lab.after(2)
        reply = await lab.again(session, sdp(line(6000, "1"), line(6002, "2", "inactive")), metadata())
        assert [m.direction for m in answer(reply).media] == ["recvonly", "inactive"]
        lab.after(2)
        await lab.again(session, sdp(line(6000, "1"), line(6002, "2")), metadata())
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert [(hold.by, hold.from_[:19], hold.to[:19]) for hold in recording.document.holds] == [
        ("caller", stamp(2)[:19], stamp(4)[:19])
    ]
    assert recording.codes == []


def answer(reply):
    assert reply.status == 200, reply
    return parse_sdp(reply.body.data)


@pytest.mark.parametrize("how", ["inactive", "address"])
def test_a_pause_of_the_recording_is_marked(lab, how):
    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 2)
        lab.after(2)
        if how == "inactive":
            await lab.again(session, sdp(line(6000, "1", "inactive"), line(6002, "2", "inactive")), metadata())
        else:
            await lab.again(session, sdp(line(6000, "1", ""), line(6002, "2", ""), host="0.0.0.0"), metadata())
        lab.after(4)
        await lab.again(session, sdp(line(6000, "1"), line(6002, "2")), metadata())
        both_speak(lab, session, 2, sequence=900)
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    (warning,) = recording.document.warnings
    assert warning.code == "paused"
    assert f"from {stamp(2)[:19]}" in warning.text
    assert f"to {stamp(6)[:19]}" in warning.text
    assert recording.document.holds == ()
    samples = recording.samples()
    assert len(samples) == pytest.approx(64000, abs=320)
    assert heard(samples) == [0.5, 0.5]


# The recording is paused by us


def test_a_pause_from_our_side_records_nothing_and_tells_the_src(lab):
    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 2)
        lab.after(2)
        (found,) = await lab.server._list()
        await lab.server._pause(found.id, paused=True)
        lab.turn()
        assert lab.ports.muted == {40000, 40002}
        method, body = session.session.sent[-1]
        described = parse_sdp(body.data)
        assert (method, [m.direction for m in described.media]) == ("INVITE", ["inactive", "inactive"])
        assert described.origin.version == session.answer.origin.version + 1
        assert [info.state for info in await lab.server._list()] == ["paused"]
        # While we pause, an offer of the SRC does not end that.
        reply = await lab.again(session, sdp(line(6000, "1"), line(6002, "2")), metadata())
        assert [m.direction for m in answer(reply).media] == ["inactive", "inactive"]
        lab.after(3)
        await lab.server._pause("rs-1@src", paused=False)
        lab.turn()
        assert lab.ports.muted == set()
        assert [m.direction for m in parse_sdp(session.session.sent[-1][1].data).media] == ["recvonly", "recvonly"]
        both_speak(lab, session, 1, sequence=900)
        lab.after(1)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert recording.codes == ["paused"]
    assert f"from {stamp(2)[:19]}" in recording.document.warnings[0].text
    assert len(recording.samples()) == pytest.approx(48000, abs=320)


def test_an_src_that_will_not_be_told_is_not_recorded_all_the_same(lab):
    async def script(lab):
        session = lab.record()
        session.session.answers = [RefusedError(405, "Method Not Allowed", None)]
        await lab.server._pause("r1", paused=True)
        lab.turn()
        (info,) = await lab.server._list()
        assert info.state == "paused"
        assert "405" in info.note
        assert lab.ports.muted == {40000, 40002}
        lab.bye(session)

    run(lab, script)


# Transfers, conferences, several calls


def test_after_a_transfer_the_document_has_both_callees_and_says_when_they_changed(lab):
    """RFC 8068, section 3.2.3."""
    transferred = (
        f'<participant participant_id="{CAROL}"><nameID aor="sip:carol@c.example"/></participant>'
        f'<stream stream_id="{S3}" session_id="{CALL}"><label>2</label></stream>'
        f'<participantsessionassoc participant_id="{BOB}" session_id="{CALL}"><disassociate-time>{stamp(2)}'
        f'</disassociate-time></participantsessionassoc><participantsessionassoc participant_id="{CAROL}" '
        f'session_id="{CALL}"><associate-time>{stamp(2)}</associate-time></participantsessionassoc>'
        f'<participantstreamassoc participant_id="{CAROL}"><send>{S3}</send><recv>{S1}</recv></participantstreamassoc>'
        f'<participantstreamassoc participant_id="{ALICE}"><send>{S1}</send><recv>{S3}</recv></participantstreamassoc>'
    )

    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 4)
        lab.after(2)
        await lab.again(session, sdp(line(6000, "1"), line(6002, "2")), partial(transferred))
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    document = recording.document
    assert (document.caller.uri, document.callee.uri) == ("sip:alice@a.example", "sip:bob@b.example")
    assert [(s.participant, s.packets) for s in document.streams] == [("caller", 200), ("callee", 200)]
    root = document_of(recording)
    etree.XMLSchema(etree.parse(str(SCHEMA))).assertValid(root)
    names = {p.get("participant_id"): p.find("{*}nameID").get("aor") for p in root.iterfind("{*}participant")}
    assert sorted(names.values()) == ["sip:alice@a.example", "sip:bob@b.example", "sip:carol@c.example"]
    parts = {
        names[part.get("participant_id")]: (part.findtext("{*}associate-time"), part.findtext("{*}disassociate-time"))
        for part in root.iterfind("{*}participantsessionassoc")
    }
    assert parts["sip:bob@b.example"][1][:19] == parts["sip:carol@c.example"][0][:19] == stamp(2)[:19]


def test_a_third_participant_with_a_line_of_its_own_is_heard_beside_the_callee(lab):
    """RFC 8068, section 3.3.3, with separate streams."""
    joined = (
        f'<participant participant_id="{CAROL}"><nameID aor="sip:carol@c.example"/></participant>'
        f'<stream stream_id="{S3}" session_id="{CALL}"><label>3</label></stream>'
        f'<participantsessionassoc participant_id="{CAROL}" session_id="{CALL}"/>'
        f'<participantstreamassoc participant_id="{CAROL}"><send>{S3}</send></participantstreamassoc>'
    )

    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 4)
        lab.after(2)
        reply = await lab.again(session, sdp(line(6000, "1"), line(6002, "2"), line(6004, "3")), partial(joined))
        session.body = reply.body
        lab.speak(session, 2, 2, value=0xB0)
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert [(s.participant, s.packets) for s in recording.document.streams] == [
        ("caller", 200),
        ("callee", 200),
        ("callee", 100),
    ]
    samples = recording.samples()
    assert samples[1000, 1] != samples[20000, 1]
    assert samples[1000, 0] == samples[20000, 0]


def test_one_mixed_line_is_recorded_and_said_to_be_mixed(lab):
    """RFC 8068, section 3.3.1."""
    flows = "".join(
        f'<participantstreamassoc participant_id="{person}"><send>{S1}</send><recv>{S1}</recv></participantstreamassoc>'
        for person in (ALICE, BOB)
    )

    async def script(lab):
        session = lab.record(sdp(line(6000, "1")), metadata(labels=("1",), associations=flows))
        lab.speak(session, 0, 2)
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert recording.codes == ["mixed-stream"]
    assert [s.packets for s in recording.document.streams] == [100]
    assert heard(recording.samples())[0] == 1.0


def two_calls():
    """Two calls in one document, with two lines each (RFC 8068, section 3.5)."""
    one = metadata()
    other = metadata(session=OTHER_CALL, labels=("3", "4"))
    for ours, theirs in ((ALICE, CAROL), (BOB, "ZGF2aWRkYXZpZGRhdmlkZA=="), (S1, S3), (S2, "c3RyZWFtNHN0cmVhbTRzdA==")):
        other = other.replace(ours, theirs)
    other = other.replace("alice@a", "carol@c").replace("bob@b", "david@d")
    inner = other.partition("<session ")[1] + other.partition("<session ")[2].removesuffix("</recording>")
    return one.removesuffix("</recording>") + inner + "</recording>"


def test_two_calls_in_one_session_are_two_recordings_of_one_group(lab):
    async def script(lab):
        lines = [line(6000 + 2 * place, str(place + 1)) for place in range(4)]
        session = lab.record(sdp(*lines), two_calls())
        for place in range(4):
            lab.speak(session, place, 2 + place // 2, value=0x90 + place)
        lab.after(3)
        lab.bye(session)

    one, two = sorted(run(lab, script), key=lambda each: each.document.caller.uri)
    assert (one.document.callee.uri, two.document.callee.uri) == ("sip:bob@b.example", "sip:david@d.example")
    assert [s.packets for s in one.document.streams] == [100, 100]
    assert [s.packets for s in two.document.streams] == [150, 150]
    assert one.document.group_id == two.document.group_id
    assert one.codes == two.codes == []
    tied = {each.text for each in document_of(one).iterfind(f".//{SR}tied-by")}
    assert tied == {"recording metadata"}


# Several sessions of one call


def test_two_sessions_of_one_call_are_one_recording(lab):
    async def script(lab):
        first = lab.record(call_id="rs-1@src")
        second = lab.record(call_id="rs-2@src")
        for session in (first, second):
            both_speak(lab, session, 4)
        lab.after(4)
        lab.bye(first)
        lab.after(0.5)
        lab.bye(second)

    (recording,) = run(lab, script)
    assert [(s.participant, s.packets, s.copies) for s in recording.document.streams] == [
        ("caller", 200, 1),
        ("callee", 200, 1),
    ]
    assert recording.codes == []
    assert {each.call_id for each in read(recording.directory)} == {"rs-1@src", "rs-2@src"}
    told = document_of(recording).findall(f".//{SR}recorded-by")
    assert [(each.get("call-id"), each.get("packets")) for each in told] == [("rs-1@src", "400"), ("rs-2@src", "400")]


def test_a_call_goes_on_in_the_same_recording_when_its_src_comes_again(lab):
    """The SRC was restarted, or fails over to us and back: another INVITE with the same session_id."""

    async def script(lab):
        first = lab.record(call_id="rs-1@src")
        both_speak(lab, first, 2)
        lab.after(2)
        lab.lose(first)
        lab.after(6)
        assert len(lab.active) == 1
        second = lab.record(call_id="rs-2@src")
        both_speak(lab, second, 2, sequence=500)
        lab.after(2)
        lab.bye(second)

    (recording,) = run(lab, script)
    assert recording.codes == ["interrupted"]
    assert f"to {stamp(8)[:19]}" in recording.document.warnings[0].text
    assert recording.document.state == "completed"
    samples = recording.samples()
    assert len(samples) == pytest.approx(80000, abs=400)
    assert heard(samples) == pytest.approx([0.4, 0.4], abs=0.01)


@pytest.mark.parametrize(("away", "recordings"), [(2, 1), (20, 2)])
def test_after_a_bye_the_same_call_may_come_again_at_once_or_later(lab, away, recordings):
    """Some SRCs pause so. Later it is another recording of the same conversation."""

    async def script(lab):
        first = lab.record(call_id="rs-1@src")
        both_speak(lab, first, 2)
        lab.after(2)
        lab.bye(first)
        lab.after(away)
        second = lab.record(call_id="rs-2@src")
        both_speak(lab, second, 2, sequence=9000)
        lab.after(2)
        lab.bye(second)

    found = run(lab, script)
    assert len(found) == recordings
    assert len({each.document.group_id for each in found}) == 1
    assert {each.document.state for each in found} == {"completed"}
    assert ("interrupted" in found[0].codes) is (recordings == 1)


def test_a_session_identifier_that_an_src_uses_again_and_again_joins_nothing(lab):
    async def script(lab):
        first = lab.record(said=metadata(session="1"), call_id="rs-1@src")
        second = lab.record(said=metadata(session="1"), call_id="rs-2@src")
        both_speak(lab, first, 1)
        both_speak(lab, second, 1)
        lab.after(1)
        lab.bye(first)
        lab.bye(second)

    assert len(run(lab, script)) == 2


def test_other_people_under_the_same_identifier_are_another_call(lab):
    async def script(lab):
        first = lab.record()
        others = metadata().replace("alice@a", "x@x").replace("bob@b", "y@y")
        second = lab.record(said=others, call_id="rs-2@src")
        both_speak(lab, first, 1)
        both_speak(lab, second, 1)
        lab.after(1)
        lab.bye(first)
        lab.bye(second)

    assert len(run(lab, script)) == 2


# Ends


def test_a_session_whose_src_is_gone_ends_with_what_came_last(lab):
    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 2)
        lab.after(10)
        lab.lose(session)
        lab.after(70)
        assert lab.active == []

    (recording,) = run(lab, script)
    assert (recording.document.state, recording.codes) == ("incomplete", ["end-not-seen"])
    assert recording.document.duration_s == pytest.approx(10, abs=0.1)


def test_the_stop_time_and_the_reasons_are_those_of_the_call(lab):
    stop = (
        f'<session session_id="{CALL}"><reason cause="16" protocol="Q.850">Normal</reason>'
        f"<stop-time>{stamp(3)}</stop-time></session>"
    )

    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 3)
        lab.after(4)
        lab.bye(session, partial(stop))

    (recording,) = run(lab, script)
    assert recording.document.ended[:19] == stamp(3)[:19]
    (reason,) = document_of(recording).iterfind("{*}session/{*}reason")
    assert (reason.get("cause"), reason.get("protocol"), reason.text) == ("16", "Q.850", "Normal")


def test_a_call_that_is_delivered_after_its_end_is_recorded_and_says_so(lab):
    async def script(lab):
        lab.after(600)
        session = lab.record(said=metadata(start=0, stop=300))
        both_speak(lab, session, 20)
        lab.after(20)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert (recording.document.started[:19], recording.document.ended[:19]) == (stamp(0)[:19], stamp(300)[:19])
    assert [s.packets for s in recording.document.streams] == [1000, 1000]
    assert recording.codes == ["delivered-late"]


def test_a_clock_that_cannot_be_right_is_not_believed(lab):
    async def script(lab):
        session = lab.record(said=metadata(start=86400))
        both_speak(lab, session, 1)
        lab.after(1)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert recording.codes == ["clock-differs"]
    assert recording.document.started[:19] == stamp(0)[:19]


def test_what_we_stop_ourselves_is_no_completed_call(lab):
    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 2)
        lab.after(2)
        assert await lab.server._each("r1", lambda each: each.stop()) == ["r1"]
        assert session.session.sent[-1][0] == "BYE"
        lab.after(8)
        assert lab.active == []

    (recording,) = run(lab, script)
    assert (recording.document.state, recording.codes) == ("incomplete", ["stopped"])
    assert recording.document.duration_s == pytest.approx(2, abs=0.1)


def test_after_the_clock_was_set_all_times_are_by_the_new_one(tmp_path):
    """Capture time runs on an hour before the wall clock."""
    hour = 3600 * SECOND
    lab = SrsLab(tmp_path / "out", correction=hour)
    lab.now += hour

    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 2)
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert recording.codes == []
    document = recording.document
    assert (document.started[:19], document.answered[:19]) == (stamp(0)[:19], stamp(0)[:19])
    assert document.ended[:19] == stamp(2)[:19]
    assert document.audio.started[:19] == stamp(0)[:19]
    (told,) = document_of(recording).iterfind(f".//{SR}recorded-by")
    assert (told.get("started")[:19], told.get("ended")[:19]) == (stamp(0)[:19], stamp(2)[:19])


# What our own SRC says


def test_roles_holds_and_outcome_that_our_own_src_tells_are_taken_over(lab):
    ours = (
        metadata(labels=("1", "2"))
        .replace("<recording ", '<recording xmlns:sr="urn:spanrec:metadata:1" ')
        .replace(
            "</session>",
            f'<sr:call state="completed" started="{stamp(0)}" ringing="{stamp(0)}" answered="{stamp(1)}" '
            f'ended="{stamp(4)}" ended-by="callee" sip-status="200"><sr:call-id>abc@pbx</sr:call-id>'
            f'<sr:hold begin="{stamp(2)}" end="{stamp(3)}" by="callee"/></sr:call></session>',
        )
        .replace(
            "<name>Alice</name></nameID>",
            '<name>Alice</name></nameID><sr:party role="callee" address="10.0.0.1:5060">'
            '<sr:identity origin="P-Asserted-Identity" uri="sip:alice@a.example" name="Alice"/></sr:party>',
        )
        .replace("<name>Bob</name></nameID>", '<name>Bob</name></nameID><sr:party role="caller"/>')
    )

    async def script(lab):
        session = lab.record(said=ours)
        both_speak(lab, session, 4)
        lab.after(4.2)
        lab.bye(session, ours)

    (recording,) = run(lab, script)
    document = recording.document
    assert (document.call_id, document.caller.uri, document.callee.uri) == (
        "abc@pbx",
        "sip:bob@b.example",
        "sip:alice@a.example",
    )
    assert document.callee.address == "10.0.0.1:5060"
    assert (document.answered[:19], document.ended[:19], document.ended_by) == (stamp(1)[:19], stamp(4)[:19], "callee")
    assert [(hold.by, hold.from_[:19]) for hold in document.holds] == [("callee", stamp(2)[:19])]
    # Alice speaks on the first line, and is the callee.
    assert [(s.participant, s.ssrc) for s in document.streams] == [("callee", "0x00000007"), ("caller", "0x00000008")]
    assert recording.codes == []


# Media


def test_srtp_is_decrypted_by_the_keys_that_the_src_offers(lab):
    keys = [CryptoKey(1, "AES_CM_128_HMAC_SHA1_80", bytes([place]) * 30) for place in (1, 2)]
    crypto = [crypto_line(key)[2:] for key in keys]

    async def script(lab):
        offer = sdp(*(line(6000 + 2 * n, str(n + 1), crypto[n], profile="RTP/SAVP") for n in (0, 1)))
        session = lab.record(offer)
        for place in (0, 1):
            lab.speak(session, place, 2, protect=SrtpSender(keys[place]).protect)
        theirs = [m.crypto[0] for m in session.answer.media]
        assert [(key.tag, key.suite) for key in theirs] == [(1, "AES_CM_128_HMAC_SHA1_80")] * 2
        assert len({*(key.key for key in theirs), *(key.key for key in keys)}) == 4
        assert lab.ports.terms[40000].decrypt == (keys[0],)
        assert lab.ports.terms[40000].encrypt == theirs[0]
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert [(s.packets, s.encrypted) for s in recording.document.streams] == [(100, True), (100, True)]
    assert heard(recording.samples()) == [1.0, 1.0]


def test_a_new_source_on_a_line_goes_on_in_the_same_channel(lab):
    async def script(lab):
        session = lab.record()
        lab.speak(session, 0, 2, ssrc=0x11)
        lab.speak(session, 0, 2, ssrc=0x22, begin=2.0, sequence=9000)
        lab.after(4)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert [(s.participant, s.ssrc) for s in recording.document.streams] == [
        ("caller", "0x00000011"),
        ("caller", "0x00000022"),
    ]
    assert heard(recording.samples())[0] == pytest.approx(1.0, abs=0.02)


def test_a_line_that_is_added_and_one_that_is_taken_away(lab):
    async def script(lab):
        session = lab.record(sdp(line(6000, "1")))
        lab.speak(session, 0, 4)
        lab.after(2)
        reply = await lab.again(session, sdp(line(6000, "1"), line(6002, "2")), metadata())
        session.body = reply.body
        lab.speak(session, 1, 1)
        lab.after(1)
        reply = await lab.again(session, sdp(line(6000, "1"), line(0, "2")), metadata())
        assert [m.port for m in answer(reply).media] == [40000, 0]
        assert len(lab.ports.open_ports) == 1
        lab.after(1)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert [(s.participant, s.packets) for s in recording.document.streams] == [("caller", 200), ("callee", 50)]


def test_the_place_of_a_line_may_be_taken_for_a_stream_of_the_other_side(lab):
    """RFC 7866, section 7.1.1: a label means something for one message only."""
    other_way = metadata(labels=("9", "1"))

    async def script(lab):
        session = lab.record()
        both_speak(lab, session, 2)
        lab.after(4)
        await lab.again(session, sdp(line(6000, "1"), line(6002, "9")), other_way)
        lab.speak(session, 1, 2, ssrc=0x99)
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert [(s.participant, s.ssrc) for s in recording.document.streams][-1] == ("caller", "0x00000099")


def test_times_that_are_told_anew_in_each_message_count_the_first_time(lab):
    """OpenSIPS gives the time of the message as associate-time."""

    async def script(lab):
        session = lab.record(said=metadata(start=None))
        both_speak(lab, session, 4)
        lab.after(3)
        later = metadata(start=None).replace(stamp(0), stamp(3))
        await lab.again(session, sdp(line(6000, "1"), line(6002, "2")), later)
        lab.after(1)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert recording.document.started[:19] == recording.document.answered[:19] == stamp(0)[:19]


def test_groups_of_the_metadata_join_calls_of_several_sessions(lab):
    async def script(lab):
        first = lab.record(call_id="rs-1@src")
        other = metadata(session=OTHER_CALL).replace("bob@b", "carol@c")
        second = lab.record(said=other, call_id="rs-2@src")
        alone = metadata(session="YWxvbmVhbG9uZWFsb25lYQ==").replace(GROUP, "b3RoZXJncm91cA==")
        third = lab.record(said=alone, call_id="rs-3@src")
        for session in (first, second, third):
            both_speak(lab, session, 1, ssrc=100 + int(session.message.call_id[3]))
        lab.after(1)
        for session in (first, second, third):
            lab.bye(session)

    recordings = run(lab, script)
    groups = {each.document.call_id: each.document.group_id for each in recordings}
    assert groups["rs-1@src"] == groups["rs-2@src"] != groups["rs-3@src"]


# What is kept in memory


def test_a_call_that_is_written_is_let_go_of_and_the_next_one_of_its_session_belongs_with_it(lab):
    lab.publisher.take = lambda ended, correction: identifiers.append(ended.group)
    identifiers = []

    async def script(lab):
        first = lab.record()
        (call,) = lab.active
        kept, group = ref(call), call.id
        del call
        lab.bye(first)
        lab.after(20)
        gc.collect()
        assert kept() is None
        lab.bye(lab.record(call_id="rs-2@src"))
        lab.after(20)
        assert identifiers == [group, group]

    run(lab, script)


def test_a_call_of_endless_sessions_keeps_some_of_them_and_of_the_people(lab):
    async def script(lab):
        for number in range(MOST_SESSIONS + 10):
            people = metadata().replace("alice@a", f"alice{number}@a")
            session = lab.record(said=people, call_id=f"rs-{number}@src")
            (call,) = lab.active
            lab.after(0.1)
            lab.lose(session)
        assert len(call.recorded_by) == MOST_SESSIONS
        assert max(len(told.aors) for told in call.recorded_by) <= MOST_AORS + 8

    run(lab, script)


# A restart of the process


def test_a_call_goes_on_after_a_restart_when_its_src_invites_anew(tmp_path):
    first = SrsLab(tmp_path / "out")

    async def before(lab):
        session = lab.record(call_id="rs-1@src")
        both_speak(lab, session, 6)
        lab.after(6)
        lab.kill()

    asyncio.run(before(first))
    second = SrsLab(tmp_path / "out", now=first.now + 4_000_000_000)

    async def after(lab):
        (call,) = lab.active
        session = lab.record(call_id="rs-2@src")
        assert lab.active == [call]
        both_speak(lab, session, 4, sequence=9000)
        lab.after(4)
        lab.bye(session)

    (recording,) = run(second, after)
    document = recording.document
    assert (document.state, document.caller.uri) == ("completed", "sip:alice@a.example")
    assert document.started[:19] == stamp(0)[:19]
    assert "interrupted" in recording.codes
    samples = recording.samples()
    assert len(samples) == pytest.approx(14 * 8000, abs=1600)
    assert samples[-8000, 0] != 0
    assert [each.what for each in read(recording.directory)] == ["INVITE", "INVITE", "BYE"]


def test_a_call_whose_src_does_not_come_again_after_a_restart_is_what_was_heard_of_it(tmp_path):
    first = SrsLab(tmp_path / "out")

    async def before(lab):
        session = lab.record()
        both_speak(lab, session, 6)
        lab.after(6)
        lab.kill()

    asyncio.run(before(first))

    async def after(lab):
        lab.after(70)
        assert lab.active == []

    (recording,) = run(SrsLab(tmp_path / "out", now=first.now + 4_000_000_000), after)
    document = recording.document
    assert (document.state, document.callee.name) == ("incomplete", "Bob")
    assert [s.packets for s in document.streams] == [300, 300]
    assert {"interrupted", "end-not-seen"} <= set(recording.codes)


def test_a_call_that_was_over_before_a_restart_keeps_its_people_and_is_not_called_late(tmp_path):
    first = SrsLab(tmp_path / "out")
    left = "".join(
        f'<participantsessionassoc participant_id="{each}" session_id="{CALL}"><associate-time>{stamp(0)}'
        f"</associate-time><disassociate-time>{stamp(6)}</disassociate-time></participantsessionassoc>"
        for each in (ALICE, BOB)
    )
    over = partial(
        f'<session session_id="{CALL}"><start-time>{stamp(0)}</start-time><stop-time>{stamp(6)}</stop-time>'
        f"</session>{left}"
    )

    async def before(lab):
        session = lab.record()
        both_speak(lab, session, 6)
        lab.after(6)
        lab.bye(session, over)
        lab.kill()

    asyncio.run(before(first))

    async def after(lab):
        lab.after(20)
        assert lab.active == []

    (recording,) = run(SrsLab(tmp_path / "out", now=first.now + 4_000_000_000), after)
    document = recording.document
    assert (document.caller.uri, document.callee.uri) == ("sip:alice@a.example", "sip:bob@b.example")
    assert (document.caller.name, document.callee.name) == ("Alice", "Bob")
    assert document.state == "completed"
    assert "delivered-late" not in recording.codes
    assert [s.packets for s in document.streams] == [300, 300]


def test_what_a_crash_cut_off_of_the_kept_messages_is_taken_off(tmp_path):
    file = ReceivedFile(tmp_path, "b" * 32, CALL)
    message = Received(1_790_000_000_000_000_000, "rs@x", "192.0.2.1:5060", "INVITE", "text/plain", b"--bb\r\n\r\nx")
    file.add(message)
    file.add(message)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-20])
    assert list(read(tmp_path)) == [message]
    again = ReceivedFile(tmp_path, "c" * 32)
    again.add(message)
    again.close()
    assert list(read(tmp_path)) == [message, message]
    assert session_of(tmp_path) == CALL


# What media can be


def packet(sequence, payload, *, payload_type=0, stamp=None, ssrc=7, marker=False, sources=()):
    head = struct.pack(
        ">BBHII",
        0x80 | len(sources),
        payload_type | 0x80 * marker,
        sequence,
        160 * sequence if stamp is None else stamp,
        ssrc,
    )
    return head + b"".join(struct.pack(">I", source) for source in sources) + payload


def send_at(lab, session, place, seconds, octets):
    now, lab.now = lab.now, lab.now + round(seconds * SECOND)
    lab.send(session, place, octets)
    lab.now = now


def test_g722_is_recorded_at_its_true_rate(lab):
    async def script(lab):
        offer = sdp(line(6000, "1", formats="9 101"), line(6002, "2", formats="9 101"))
        session = lab.record(offer)
        both_speak(lab, session, 2, payload_type=9)
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert [(s.codec, s.clock_rate, s.packets) for s in recording.document.streams] == [("G722/8000", 8000, 100)] * 2
    assert (recording.document.audio.sample_rate, recording.document.audio.samples) == (16000, 32000)


def test_key_presses_among_the_audio_are_in_the_document(lab):
    """RFC 4733: one event of 100 ms, its last packet three times."""

    async def script(lab):
        session = lab.record()
        lab.speak(session, 0, 1)
        for number in range(8):
            ended = number >= 5
            event = struct.pack(">BBH", 5, 10 | 0x80 * ended, min(160 * (number + 1), 800))
            press = packet(150 + number, event, payload_type=101, stamp=160 * 150, marker=number == 0)
            send_at(lab, session, 0, 1 + number / 50, press)
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    ((digit),) = recording.document.dtmf
    assert (digit.participant, digit.digit, digit.duration_ms, digit.via) == ("caller", "5", 100, "rfc4733")


def test_packets_that_were_lost_are_counted_and_leave_silence(lab):
    async def script(lab):
        session = lab.record()
        lab.speak(session, 0, 1)
        lab.speak(session, 0, 1, begin=1.2, sequence=160)
        lab.after(3)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert [(s.packets, s.lost, s.expected) for s in recording.document.streams] == [(100, 10, 110)]
    samples = recording.samples()[:, 0]
    assert not samples[8000:9600].any()
    assert samples[:8000].all()
    assert samples[9600:17600].all()


def test_contributors_in_the_packets_of_a_mixer_are_no_audio(lab):
    async def script(lab):
        session = lab.record()
        for number in range(50):
            send_at(lab, session, 0, number / 50, packet(number, b"\x90" * 160, sources=(1, 2, 3)))
        lab.after(1)
        lab.bye(session)

    (recording,) = run(lab, script)
    samples = recording.samples()[:, 0]
    assert len(samples) == 8000
    assert len(set(samples.tolist())) == 1


def test_comfort_noise_is_taken_and_sounds_between_the_talk(lab):
    async def script(lab):
        session = lab.record(sdp(line(6000, "1", formats="0 13"), line(6002, "2", formats="0 13")))
        lab.speak(session, 0, 1)
        send_at(lab, session, 0, 1.0, packet(150, b"\x20", payload_type=13, stamp=160 * 150))
        lab.speak(session, 0, 1, begin=2.0, sequence=200)
        lab.after(4)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert heard(recording.samples()[8000:16000])[0] > 0.5


def test_media_that_comes_before_the_engine_knows_the_session_is_not_lost(lab):
    """The SRC sends as soon as it has the answer, and the engine may be a moment behind."""

    async def script(lab):
        turn, lab.calls.turn = lab.calls.turn, lambda now: None
        session = lab.record()
        lab.speak(session, 0, 3)
        lab.after(2)
        lab.calls.turn = turn
        lab.after(2)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert [(s.participant, s.packets) for s in recording.document.streams] == [("caller", 150)]
