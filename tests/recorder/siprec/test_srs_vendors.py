"""What SRCs in the field send (seen in messages of real ones): each habit in a session of its own.

Whatever an SRC does, the audio is recorded, and what can be read of its metadata is used.
"""

import re

import pytest

from recorder.sip_ua.api import EndedBy
from tests.srs_lab import (
    ALICE,
    BOB,
    CALL,
    S1,
    S2,
    SRC,
    SrsLab,
    line,
    message,
    metadata,
    multipart,
    run,
    sdp,
    stamp,
)

OFFER = sdp(line(6000, "1"), line(6002, "2"))
RFC = 'xmlns="urn:ietf:params:xml:ns:recording:1"'
UUIDS = {
    "urn:uuid:": lambda name: f"urn:uuid:{name * 8}-{name * 4}-{name * 4}-{name * 4}-{name * 12}",
    "hex": lambda name: name * 32,
    "plain": lambda name: f"id-of-{name}",
}


def renamed(form):
    """The snapshot with identifiers of another form."""
    text = metadata()
    for letter, known in zip("abcdef", (ALICE, BOB, CALL, S1, S2), strict=False):
        text = text.replace(known, UUIDS[form](letter))
    return text


def draft():
    """As the drafts before RFC 7865 have it: `id`, `session`, send and recv inside of the participant."""
    return (
        f'<recording xmlns="urn:ietf:params:xml:ns:recording" id="root"><dataMode>complete</dataMode>'
        f'<session id="{CALL}"><start-time>{stamp(0, "")}</start-time></session>'
        f'<participant id="p1" session="{CALL}"><nameID aor="sip:alice@a.example"><name>Alice</name></nameID>'
        f"<send>s1</send><recv>s2</recv><extensiondata><x>1</x></extensiondata></participant>"
        f'<participant id="p2" session="{CALL}"><aor>sip:bob@b.example</aor><name>Bob</name><send>s2</send>'
        f"<recv>s1</recv></participant>"
        f'<stream id="s1" session="{CALL}"><label>1</label><mode>separate</mode></stream>'
        f'<stream id="s2" session="{CALL}"><label>2</label></stream></recording>'
    )


def interleaved():
    """Elements in an order of its own (Cisco)."""
    text = metadata()
    head, body = text[: text.index("<session ")], text[text.index("<session ") : -len("</recording>")]
    elements = [found.group(0) for found in re.finditer(r"<(\w+) [^>]*>.*?</\1>", body)]
    kinds = ["participantstreamassoc", "stream", "participantsessionassoc", "participant", "session"]
    elements.sort(key=lambda element: kinds.index(re.match(r"<(\w+)", element).group(1)))
    return head + "".join(elements) + "</recording>"


def prefixed():
    return re.sub(r"<(/?)(?!\?)", r"<\1tns:", metadata()).replace(RFC, RFC.replace("xmlns=", "xmlns:tns="))


METADATA = {
    "the RFC's namespace": metadata(),
    "the drafts' namespace": metadata().replace(":recording:1", ":recording"),
    "the namespace siprec": metadata().replace("ns:recording:1", "ns:siprec"),
    "no namespace": metadata().replace(f" {RFC}", ""),
    "a prefix": prefixed(),
    "a prefix that is not declared": prefixed().replace(f" {RFC.replace('xmlns=', 'xmlns:tns=')}", ""),
    "the root recording_metadata": metadata().replace("recording ", "recording_metadata ").replace(
        "</recording>", "</recording_metadata>"
    ),
    "dataMode": metadata().replace("datamode", "dataMode"),
    "no datamode": metadata().replace("<datamode>complete</datamode>", ""),
    "elements of the drafts": draft(),
    "elements in another order": interleaved(),
    "urn:uuid identifiers": renamed("urn:uuid:"),
    "hexadecimal identifiers": renamed("hex"),
    "plain identifiers": renamed("plain"),
    "times without a zone": metadata().replace("Z</", "</"),
    "times with a zone without its colon": metadata().replace("Z</", "+0000</"),
    "a byte order mark and blank lines": "\ufeff\r\n\r\n" + metadata(),
    "no XML declaration": metadata().partition("?>")[2],
    "a bare ampersand": metadata().replace("<name>Alice<", "<name>Alice & Co<"),
    "an AoR without a scheme": metadata().replace("sip:bob@b.example", "bob@b.example"),
    "an AoR that is a name-addr": metadata().replace('"sip:bob', '"&quot;Bob&quot; &lt;sip:bob').replace(
        'b.example"', 'b.example&gt;"'
    ),
    "streams without a session": metadata().replace(f' session_id="{CALL}"><label>', "><label>"),
    "no participantsessionassoc": re.sub("<participantsessionassoc.*?</participantsessionassoc>", "", metadata()),
    "an extension of somebody's own": metadata(more='<x:y xmlns:x="urn:x"><x:z a="1">2</x:z></x:y>'),
    "a document type": metadata().replace("?>", '?><!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b SYSTEM "/etc/passwd">]>'),
}  # fmt: skip


@pytest.fixture
def lab(tmp_path):
    return SrsLab(tmp_path / "out")


def recorded(lab, begin):
    """The recording of a session in which both sides speak for a second."""

    async def script(lab):
        session = begin(lab)
        assert session.session is not None, session.refused
        for place, media in enumerate(session.answer.media):
            if media.port:
                lab.speak(session, place, 1, value=0x90 + 16 * place)
        lab.after(1)
        lab.bye(session)

    (recording,) = run(lab, script)
    return recording


def whole(recording):
    """Both participants, each heard on its side."""
    assert recording.document.state == "completed"
    assert recording.document.caller.uri.endswith("alice@a.example")
    assert "bob@b.example" in recording.document.callee.uri
    assert [(s.participant, s.packets) for s in recording.document.streams] == [("caller", 50), ("callee", 50)]


@pytest.mark.parametrize("habit", METADATA)
def test_metadata_of_any_make_tell_who_it_was(lab, habit):
    recording = recorded(lab, lambda lab: lab.record(said=METADATA[habit]))
    whole(recording)
    unsound = habit not in (
        "the RFC's namespace", "no datamode", "dataMode", "an extension of somebody's own", "urn:uuid identifiers",
        "hexadecimal identifiers", "plain identifiers", "an AoR without a scheme", "an AoR that is a name-addr",
        "streams without a session", "no participantsessionassoc", "elements in another order", "no XML declaration",
        "a byte order mark and blank lines", "a prefix", "the root recording_metadata",
    )  # fmt: skip
    assert recording.codes == (["metadata-unsound"] if unsound else [])
    assert "root:" not in (recording.directory / "metadata.xml").read_text()


def invite(body, kind, **how):
    return lambda lab: lab.invite(message("INVITE", body=body, content_type=kind, **how))


def bodies():
    body, kind = multipart(OFFER, metadata())
    said = metadata().encode()
    plain = "application/rs-metadata+xml"
    yield "application/rs-metadata", body.replace(b"rs-metadata+xml", b"rs-metadata"), kind
    yield "no disposition", body.replace(b"Content-Disposition: recording-session\r\n", b""), kind
    yield "parts in the other order", *multipart_of([(plain, said), ("application/sdp", OFFER)])
    yield "an unquoted boundary", body, "multipart/mixed;boundary=b1"
    yield "a boundary that is not the declared one", body, 'multipart/mixed; boundary="other"'
    yield "no boundary parameter", body, "multipart/mixed"
    yield (
        "a part of another kind",
        *multipart_of([("application/sdp", OFFER), ("application/gtd", b"x"), (plain, said)]),
    )
    yield "line feeds alone in the heads of parts", body.replace(b"\r\n\r\n", b"\n\n"), kind
    yield "a blank line before the first part", b"\r\n\r\n" + body, kind
    yield "no closing delimiter", body[: body.rindex(b"--b1--")], kind
    yield "something before and after the parts", b"preamble\r\n" + body + b"\r\nepilogue", kind
    yield "another kind of multipart", body, kind.replace("mixed", "related")
    yield "upper case", body.replace(b"application/sdp", b"APPLICATION/SDP"), kind.upper().replace('"B1"', '"b1"')
    yield "Header:value without a blank", body.replace(b"Content-Type: ", b"Content-Type:"), kind
    yield (
        "a description that begins with a blank line",
        *multipart_of([("application/sdp", b"\r\n" + OFFER), (plain, said)]),
    )
    yield (
        "a second description",
        *multipart_of([("application/sdp", OFFER + b"\r\n--foreign\r\nv=0\r\n"), (plain, said)]),
    )
    inner, inner_kind = multipart(OFFER, metadata(), "inner")
    yield "multipart in multipart", *multipart_of([(inner_kind, inner)])


def multipart_of(parts):
    """(body, type)."""
    whole = b"".join(f"--q\r\nContent-Type: {kind}\r\n\r\n".encode() + data + b"\r\n" for kind, data in parts)
    return whole + b"--q--\r\n", "multipart/mixed;boundary=q"


BODIES = {name: (body, kind) for name, body, kind in bodies()}


@pytest.mark.parametrize("habit", BODIES)
def test_bodies_of_any_make_are_taken_apart(lab, habit):
    whole(recorded(lab, invite(*BODIES[habit])))


OFFERS = {
    "labels that are words": (sdp(line(6000, "caller"), line(6002, "callee")), metadata(labels=("caller", "callee"))),
    "label 0": (sdp(line(6000, "0"), line(6002, "1")), metadata(labels=("0", "1"))),
    "no direction": (sdp(line(6000, "1", ""), line(6002, "2", "")), metadata()),
    "sendrecv": (sdp(line(6000, "1", "sendrecv"), line(6002, "2", "sendrecv")), metadata()),
    "an address of each line": (
        sdp(
            line(6000, "1").replace("\r\na=", f"\r\nc=IN IP4 {SRC}\r\na=", 1),
            line(6002, "2").replace("\r\na=", f"\r\nc=IN IP4 {SRC}\r\na=", 1),
            host="0.0.0.0",
        ),
        metadata(),
    ),
    "the same port for every call": (sdp(line(35001, "1"), line(35002, "2")), metadata()),
    "no rtpmap at all": (
        sdp("m=audio 6000 RTP/AVP 0\r\na=label:1\r\n", "m=audio 6002 RTP/AVP 0\r\na=label:2\r\n"),
        metadata(),
    ),
    "line feeds alone": (OFFER.replace(b"\r\n", b"\n"), metadata()),
}


@pytest.mark.parametrize("habit", OFFERS)
def test_offers_of_any_make_are_answered(lab, habit):
    recording = recorded(lab, lambda lab: lab.record(*OFFERS[habit]))
    whole(recording)
    assert recording.codes == []


def test_labels_that_come_second_first_go_to_whom_the_metadata_name(lab):
    """OpenSIPS with rtpengine: label 1 before label 0."""
    offer = sdp(line(6002, "2"), line(6000, "1"))
    recording = recorded(lab, lambda lab: lab.record(offer))
    assert [(s.participant, s.ssrc) for s in recording.document.streams] == [
        ("callee", "0x00000007"),
        ("caller", "0x00000008"),
    ]


def test_labels_that_fit_no_line_leave_the_order_to_tell(lab):
    recording = recorded(lab, lambda lab: lab.record(said=metadata(labels=("7", "8"))))
    whole(recording)
    assert recording.codes == ["sides-assumed"]


def test_lines_without_labels_leave_the_order_to_tell(lab):
    recording = recorded(lab, lambda lab: lab.record(sdp(line(6000), line(6002))))
    whole(recording)
    assert recording.codes == ["sides-assumed"]


def test_one_label_for_two_lines_loses_neither(lab):
    offer = sdp(line(6000, "1"), line(6002, "1"))
    recording = recorded(lab, lambda lab: lab.record(offer))
    assert [s.packets for s in recording.document.streams] == [50, 50]


def test_empty_identifiers_make_a_recording_of_what_there_is(lab):
    said = metadata()
    for known in (ALICE, BOB, CALL, S1, S2):
        said = said.replace(known, "")
    recording = recorded(lab, lambda lab: lab.record(said=said))
    assert [(s.participant, s.packets) for s in recording.document.streams] == [("caller", 50), ("callee", 50)]
    assert "metadata-unsound" in recording.codes


def test_a_payload_type_that_was_not_offered_is_decoded_where_it_is_static(lab):
    async def script(lab):
        session = lab.record()
        lab.speak(session, 0, 1, payload_type=8)
        lab.after(1)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert [(s.codec, s.packets) for s in recording.document.streams] == [("PCMA/8000", 50)]


def test_a_bye_with_metadata_and_two_content_types_is_read(lab):
    """SEMS: the second one is empty."""

    async def script(lab):
        session = lab.record()
        lab.speak(session, 0, 1)
        lab.after(1)
        said = metadata(stop=1).encode()
        bye = message("BYE", body=said, content_type="application/rs-metadata+xml", headers=["Content-Type:"])
        session.session.end(EndedBy.PEER, bye)
        lab.turn()

    (recording,) = run(lab, script)
    assert recording.document.state == "completed"
    assert recording.document.ended[:19] == stamp(1)[:19]


def test_an_identifier_for_two_kinds_is_an_error_that_is_noted(lab):
    """RFC 7865, section 6.10."""
    recording = recorded(lab, lambda lab: lab.record(said=metadata().replace(S1, ALICE)))
    (warning,) = [each for each in recording.document.warnings if each.code == "metadata-unsound"]
    assert "one identifier for a participant and a stream" in warning.text


def test_names_beyond_ascii_in_the_character_set_of_the_part(lab):
    """RFC 7865, section 5.1: the parameter goes before the XML declaration."""
    said = metadata().replace("<name>Bob</name>", "<name>Zoë</name>").encode("latin-1")
    body, kind = multipart(OFFER, said)
    body = body.replace(b"rs-metadata+xml", b"rs-metadata+xml; charset=iso-8859-1")
    recording = recorded(lab, invite(body, kind))
    assert recording.document.callee.name == "Zoë"


def test_cisco_without_metadata_is_known_by_its_header(lab):
    headers = ['X-Cisco-Recording-Participant: sip:alice@a;media-index="0"']
    begin = invite(OFFER, "application/sdp", require="", contact=f"<sip:x@{SRC}>", headers=headers)
    recording = recorded(lab, begin)
    assert [s.packets for s in recording.document.streams] == [50, 50]
    assert set(recording.codes) == {"siprec-marks", "metadata-missing"}


def test_entities_and_depth_are_bounded(lab):
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    said = f'<!DOCTYPE r [<!ENTITY l0 "lol">{laughs}]>' + metadata().partition("?>")[2].replace("Alice", "&l9;")
    deep = "<x>" * 2000 + "</x>" * 2000
    recording = recorded(lab, lambda lab: lab.record(said=said.replace("</recording>", f"{deep}</recording>")))
    assert [s.packets for s in recording.document.streams] == [50, 50]
    assert len(recording.document.caller.name or "") < 100


def test_identifiers_that_are_made_anew_in_each_message_are_the_same_call_and_the_same_people(lab):
    def anew(number):
        said = metadata()
        for known in (ALICE, BOB, CALL, S1, S2):
            said = said.replace(known, f"{number}{known[1:]}")
        return said

    async def script(lab):
        session = lab.record(said=anew(1))
        for place in (0, 1):
            lab.speak(session, place, 3, value=0x90 + 16 * place)
        for number in (2, 3):
            lab.after(1)
            await lab.again(session, OFFER, anew(number))
        lab.after(1)
        lab.bye(session)

    (recording,) = run(lab, script)
    assert recording.document.caller.uri == "sip:alice@a.example"
    assert [(s.participant, s.packets) for s in recording.document.streams] == [("caller", 150), ("callee", 150)]
    assert recording.codes == []
    assert (recording.directory / "metadata.xml").read_text().count("<participant ") == 2
