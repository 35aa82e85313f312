"""What recording clients in the field do, each as a session that sipp plays to a running server.

In: nothing. Out: `HABITS`: the script of each, and what must come of it. The habits are those seen in messages of real
clients; audio, people and identifiers are ours.
"""

import re
from collections.abc import Callable, Sequence

from decoders.sdp import SessionDescription
from tests.srs_lab import ALICE, BOB, CALL, CAROL, S1, S2, S3, metadata, multipart, partial, sdp, stamp
from tests.srs_lab_stage import DAVID, OTHER, S4, Expected, Habit, Stage

SECONDS = 3.0
RFC = 'xmlns="urn:ietf:params:xml:ns:recording:1"'
KIND = "application/rs-metadata+xml"
BOTH = ("sendonly", "sendonly")
Script = Callable[[Stage], None]


def plain(stage: Stage) -> None:
    stage.record()
    talk_and_end(stage)


def talk_and_end(stage: Stage, codec: str = "PCMU", payload_type: int = -1) -> None:
    stage.both_talk(SECONDS, codec, payload_type)
    stage.wait(SECONDS + 0.4)
    stage.bye()


def hold(stage: Stage) -> None:
    """OpenSIPS: only the line of who is held goes inactive; its metadata stay as they are."""
    said = stage.said()
    stage.invite(*multipart(stage.offer(*BOTH), said))
    stage.talk(0, stage.talker().speak(4.0))
    stage.talk(1, stage.talker().speak(1.0).pause(1.8).speak(1.2))
    for directions in (("sendonly", "inactive"), BOTH):
        stage.wait(1.4)
        stage.again(stage.offer(*directions), said)
    stage.wait(1.9)
    stage.bye()


def hold_by_metadata(stage: Stage) -> None:
    """RFC 8068, 3.2.2, as partial documents by UPDATE."""
    stage.record()
    stage.talk(0, stage.talker().speak(4.0))
    stage.talk(1, stage.talker().speak(1.0).pause(1.8).speak(1.2))
    held = (
        f'<participantstreamassoc participant_id="{ALICE}"><send>{S1}</send></participantstreamassoc>'
        f'<participantstreamassoc participant_id="{BOB}"><recv>{S1}</recv></participantstreamassoc>'
    )
    back = (
        f'<participantstreamassoc participant_id="{ALICE}"><send>{S1}</send><recv>{S2}</recv></participantstreamassoc>'
        f'<participantstreamassoc participant_id="{BOB}"><send>{S2}</send><recv>{S1}</recv></participantstreamassoc>'
    )
    for flows in (held, back):
        stage.wait(1.4)
        stage.update(stage.own(partial(flows)))
    stage.wait(1.6)
    stage.bye()


def pause(stage: Stage, *, by_address: bool = False) -> None:
    said = stage.said()
    stage.invite(*multipart(stage.offer(*BOTH), said))
    for place in (0, 1):
        stage.talk(place, stage.talker().speak(1.0).pause(2.0).speak(1.0))
    stage.wait(1.4)
    if by_address:
        stage.again(stage.offer("", "", host="0.0.0.0"), said)
    else:
        stage.again(stage.offer("inactive", "inactive"), said)
    stage.wait(1.4)
    stage.again(stage.offer(*BOTH), said)
    stage.wait(1.8)
    stage.bye()


def transfer(stage: Stage) -> None:
    """RFC 8068, 3.2.3: Carol takes Bob's place on the second line."""
    stage.record()
    transferred = (
        f'<participant participant_id="{CAROL}"><nameID aor="sip:carol@c.example"/></participant>'
        f'<stream stream_id="{S3}" session_id="{CALL}"><label>2</label></stream>'
        f'<participantsessionassoc participant_id="{BOB}" session_id="{CALL}"><disassociate-time>{stamp(2)}'
        f'</disassociate-time></participantsessionassoc><participantsessionassoc participant_id="{CAROL}" '
        f'session_id="{CALL}"><associate-time>{stamp(2)}</associate-time></participantsessionassoc>'
        f'<participantstreamassoc participant_id="{CAROL}"><send>{S3}</send><recv>{S1}</recv></participantstreamassoc>'
        f'<participantstreamassoc participant_id="{ALICE}"><send>{S1}</send><recv>{S3}</recv></participantstreamassoc>'
    )
    stage.talk(0, stage.talker().speak(4.0))
    stage.talk(1, stage.talker().speak(1.2))
    stage.wait(1.5)
    stage.update(stage.said(partial(transferred)))
    stage.talk(1, stage.talker().speak(2.0), begin=2.2)
    stage.wait(3.0)
    stage.bye()


def three_way(stage: Stage) -> None:
    """RFC 8068, 3.3.3: a third line for Carol."""
    stage.record()
    joined = (
        f'<participant participant_id="{CAROL}"><nameID aor="sip:carol@c.example"/></participant>'
        f'<stream stream_id="{S3}" session_id="{CALL}"><label>3</label></stream>'
        f'<participantsessionassoc participant_id="{CAROL}" session_id="{CALL}"/>'
        f'<participantstreamassoc participant_id="{CAROL}"><send>{S3}</send></participantstreamassoc>'
    )
    stage.talk(0, stage.talker().speak(4.0))
    stage.talk(1, stage.talker().speak(1.2))
    stage.wait(1.5)
    stage.again(stage.offer(*BOTH, "sendonly"), stage.said(partial(joined)))
    stage.talk(2, stage.talker().speak(1.5), begin=2.4)
    stage.wait(3.0)
    stage.bye()


def other_ssrc(stage: Stage) -> None:
    stage.record()
    # A new source is placed where it arrived, which a sender of 20 ms knows to some samples only.
    talker = stage.talker().speak(1.5).pause(0.04)
    talker.restart(talker.ssrc ^ 0x5555, 17, 99_000)
    stage.talk(0, talker.speak(1.5))
    stage.talk(1, stage.talker().speak(SECONDS))
    stage.wait(SECONDS + 0.4)
    stage.bye()


def g722(stage: Stage) -> None:
    stage.invite(*multipart(stage.offer(*BOTH, formats="9 101"), stage.said()))
    talk_and_end(stage, "G722")


def digits(stage: Stage) -> None:
    stage.record()
    stage.talk(0, stage.talker().speak(1.0).digit("5").speak(0.6).digit("#").speak(0.8))
    stage.talk(1, stage.talker().speak(SECONDS))
    stage.wait(SECONDS + 0.4)
    stage.bye()


def one_mixed_line(stage: Stage) -> None:
    flows = "".join(
        f'<participantstreamassoc participant_id="{person}"><send>{S1}</send><recv>{S1}</recv></participantstreamassoc>'
        for person in (ALICE, BOB)
    )
    stage.invite(*multipart(stage.offer("sendonly"), stage.said(labels=("1",), associations=flows)))
    stage.talk(0, stage.talker().speak(SECONDS))
    stage.wait(SECONDS + 0.4)
    stage.bye()


def four_lines(stage: Stage) -> None:
    """RFC 8068, 3.5: two calls in one session."""
    other = metadata(session=OTHER, labels=("3", "4"))
    for ours, theirs in ((ALICE, CAROL), (BOB, DAVID), (S1, S3), (S2, S4)):
        other = other.replace(ours, theirs)
    other = other.replace("alice@a", "carol@c").replace("bob@b", "david@d")
    inner = "<session " + other.partition("<session ")[2]
    both = metadata().removesuffix("</recording>") + inner
    stage.invite(*multipart(stage.offer(*BOTH, *BOTH), stage.said(both)))
    for place in range(4):
        stage.talk(place, stage.talker().speak(SECONDS))
    stage.wait(SECONDS + 0.4)
    stage.bye()


def metadata_later(stage: Stage, *, update: bool) -> None:
    offer = stage.offer(*BOTH)
    stage.invite(offer, "application/sdp")
    stage.both_talk(SECONDS)
    stage.wait(1.0)
    if update:
        stage.update(stage.said())
    else:
        stage.again(offer, stage.said())
    stage.wait(SECONDS - 0.6)
    stage.bye()


def metadata_in_bye(stage: Stage) -> None:
    """SEMS: with a second Content-Type that is empty."""
    stage.invite(stage.offer(*BOTH), "application/sdp")
    stage.both_talk(SECONDS)
    stage.wait(SECONDS + 0.4)
    stage.bye(stage.said().encode(), KIND, ["Content-Type:"])


def drafts(stage: Stage) -> None:
    """As the drafts before RFC 7865 have it: `id`, `session`, send and recv inside of the participant."""
    said = (
        f'<recording xmlns="urn:ietf:params:xml:ns:recording" id="root"><dataMode>complete</dataMode>'
        f'<session id="{CALL}"><start-time>{stamp(0, "")}</start-time></session>'
        f'<participant id="{ALICE}" session="{CALL}"><nameID aor="sip:alice@a.example"><name>Alice</name></nameID>'
        f"<send>{S1}</send><recv>{S2}</recv><extensiondata><x>1</x></extensiondata></participant>"
        f'<participant id="{BOB}" session="{CALL}"><aor>sip:bob@b.example</aor><name>Bob</name><send>{S2}</send>'
        f'<recv>{S1}</recv></participant><stream id="{S1}" session="{CALL}"><label>1</label><mode>separate</mode>'
        f'</stream><stream id="{S2}" session="{CALL}"><label>2</label></stream></recording>'
    )
    stage.invite(*multipart(stage.offer(*BOTH), stage.said(said)))
    talk_and_end(stage)


def rewritten(old: str, new: str) -> Script:
    """A session whose metadata are written otherwise."""

    def script(stage: Stage) -> None:
        stage.invite(*multipart(stage.offer(*BOTH), re.sub(old, new, stage.said())))
        talk_and_end(stage)

    return script


def marks(contact: str, require: str) -> Script:
    def script(stage: Stage) -> None:
        stage.contact, stage.require = contact, require
        plain(stage)

    return script


def no_metadata(stage: Stage) -> None:
    """Cisco's forking: nothing of SIPREC but a header field."""
    stage.contact, stage.require = "<sip:x@[local_ip]:[local_port]>", ""
    header = 'X-Cisco-Recording-Participant: sip:alice@a;media-index="0"'
    stage.invite(stage.offer(*BOTH), "application/sdp", headers=[header])
    talk_and_end(stage)


def video(stage: Stage) -> None:
    more = "m=video 6010 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\na=label:3\r\na=sendonly\r\n"
    stage.invite(*multipart(stage.offer(*BOTH, more=more), stage.said()))
    talk_and_end(stage)


def refused_video(answers: Sequence[SessionDescription]) -> str:
    found = [(each.media, bool(each.port)) for each in answers[0].media] if answers else []
    return "" if found == [("audio", True), ("audio", True), ("video", False)] else f"answered {found}"


def body(change: Callable[[bytes, bytes], tuple[bytes, str]]) -> Script:
    """A session whose body is put together otherwise."""

    def script(stage: Stage) -> None:
        stage.invite(*change(stage.offer(*BOTH), stage.said().encode()))
        talk_and_end(stage)

    return script


def upper_case(offer: bytes, said: bytes) -> tuple[bytes, str]:
    made, kind = multipart(offer, said)
    return made.replace(b"application/sdp", b"APPLICATION/SDP"), kind.replace("multipart/mixed", "Multipart/Mixed")


def alone_in_upper_case(stage: Stage) -> None:
    stage.invite(stage.offer(*BOTH), "application/SDP")
    stage.wait(0.5)
    stage.update(stage.said())
    stage.both_talk(SECONDS)
    stage.wait(SECONDS)
    stage.bye()


def in_other_order(offer: bytes, said: bytes) -> tuple[bytes, str]:
    """Metadata first and of the older type, without a disposition; a part that nobody knows; a blank line before all;
    a boundary that is not quoted."""
    parts = ((b"application/rs-metadata", said), (b"application/gtd", b"x"), (b"application/sdp", offer))
    made = b"".join(b"--q\r\nContent-Type:" + kind + b"\r\n\r\n" + data + b"\r\n" for kind, data in parts)
    return b"\r\n" + made + b"--q--\r\n", "multipart/mixed;boundary=q"


def reversed_labels(stage: Stage) -> None:
    """OpenSIPS with rtpengine: the second label stands on the first line, and 0 is one."""
    offer = sdp(stage.line(0, label="1"), stage.line(1, label="0"), host="127.0.0.1")
    stage.invite(*multipart(offer, stage.said(labels=("0", "1"))))
    talk_and_end(stage)


def no_labels(stage: Stage) -> None:
    offer = sdp(stage.line(0, label=None), stage.line(1, label=None), host="127.0.0.1")
    stage.invite(*multipart(offer, stage.said()))
    talk_and_end(stage)


def another_payload_type(stage: Stage) -> None:
    stage.record()
    talk_and_end(stage, "PCMA")


def bare_addresses(stage: Stage) -> None:
    stage.parties = "sip:src@127.0.0.1;tag=a", "sip:srs@127.0.0.1"
    plain(stage)


def odd_ack(stage: Stage) -> None:
    stage.invite(*multipart(stage.offer(*BOTH), stage.said()), ack="INVITE")
    talk_and_end(stage)


def odd_bye(stage: Stage) -> None:
    stage.record()
    stage.both_talk(SECONDS)
    stage.wait(SECONDS + 0.4)
    stage.bye(named="INVITE")


WARNED = frozenset({"metadata-unsound"})
LATE = (Expected(warnings=frozenset({"sides-assumed"})),)
"""Metadata that come after the audio has begun."""
UNMARKED = frozenset({"siprec-marks"})

HABITS = (
    Habit("plain-udp", "as RFC 7866 has it, UDP", plain),
    Habit("plain-tcp", "the same, TCP", plain, transport="t1"),
    Habit("hold", "hold: the held one's line inactive, the same metadata", hold, (Expected(holds=1),)),
    Habit(
        "hold-metadata", "hold by partial metadata in UPDATE", hold_by_metadata,
        (Expected(holds=1),),
    ),
    Habit("pause", "pause and resume: all lines inactive", pause, (Expected(warnings=frozenset({"paused"})),)),
    Habit(
        "pause-address", "pause by c=0.0.0.0", lambda stage: pause(stage, by_address=True),
        (Expected(warnings=frozenset({"paused"})),),
    ),
    Habit(
        "transfer", "Carol in Bob's place, another SSRC on his line", transfer,
        (Expected(streams=("caller", "callee", "callee"), names=frozenset({"sip:carol@c.example"})),),
    ),
    Habit(
        "three-way", "a third line for Carol by re-INVITE", three_way,
        (Expected(streams=("caller", "callee", "callee"), names=frozenset({"sip:carol@c.example"})),),
    ),
    Habit("ssrc", "another SSRC on a line", other_ssrc, (Expected(streams=("caller", "callee", "caller")),)),
    Habit("g722", "G.722", g722),
    Habit("dtmf", "RFC 4733 events 5 and #", digits, (Expected(digits="5#"),)),
    Habit(
        "one-line", "one m-line, mixed", one_mixed_line,
        (Expected(streams=("caller",), warnings=frozenset({"mixed-stream"})),),
    ),
    Habit(
        "four-lines", "four m-lines of two calls", four_lines,
        (Expected(), Expected(parties=("sip:carol@c.example", "sip:david@d.example"))), transport="t1",
    ),
    Habit("later-reinvite", "metadata only in a re-INVITE", lambda stage: metadata_later(stage, update=False),
        LATE,
    ),
    Habit("later-update", "metadata only in an UPDATE", lambda stage: metadata_later(stage, update=True), LATE),
    Habit("bye", "metadata only in the BYE, two Content-Type", metadata_in_bye, LATE),
    Habit("drafts", "the drafts' namespace and elements", drafts, (Expected(warnings=WARNED),)),
    Habit("no-namespace", "no namespace", rewritten(f" {RFC}", ""), (Expected(warnings=WARNED),)),
    Habit("zone", "times with +0000", rewritten(r"Z</", "+0000</"), (Expected(warnings=WARNED),)),
    Habit(
        "ampersand", "a bare ampersand in a name", rewritten(">Alice<", ">Alice & Co<"), (Expected(warnings=WARNED),)
    ),
    Habit(
        "no-require", "no Require", marks("<sip:src@[local_ip]:[local_port];transport=[transport]>;+sip.src", ""),
        (Expected(warnings=UNMARKED),),
    ),
    Habit(
        "tag-inside", "+sip.src inside of the URI",
        marks("<sip:src@[local_ip]:[local_port];transport=[transport];+sip.src>", "Require: siprec"),
    ),
    Habit(
        "no-marks", "neither Require nor +sip.src",
        marks("<sip:src@[local_ip]:[local_port];transport=[transport]>", ""), (Expected(warnings=UNMARKED),),
    ),
    Habit(
        "no-metadata", "no SIPREC at all, Cisco's header", no_metadata,
        (Expected(parties=(None, None), warnings=UNMARKED | {"metadata-missing"}),),
    ),
    Habit("video", "video offered", video, answered=refused_video),
    Habit("upper-case", "APPLICATION/SDP in Multipart/Mixed", body(upper_case)),
    Habit("upper-case-alone", "application/SDP alone, then UPDATE", alone_in_upper_case, LATE),
    Habit("order", "parts in another order, rs-metadata, a foreign part", body(in_other_order)),
    Habit(
        "labels", "labels 1 and 0, in that order", reversed_labels, (Expected(streams=("callee", "caller")),),
    ),
    Habit(
        "no-labels", "no labels on the lines", no_labels, (Expected(warnings=frozenset({"sides-assumed"})),),
    ),
    Habit("payload-type", "PCMA where PCMU was offered", another_payload_type),
    Habit("addresses", "From and To without <>", bare_addresses),
    Habit("ack", "ACK whose CSeq says INVITE", odd_ack),
    Habit("bye-cseq", "BYE whose CSeq says INVITE", odd_bye),
)  # fmt: skip
