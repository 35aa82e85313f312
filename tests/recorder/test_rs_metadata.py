import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder import rs_metadata
from recorder.rs_metadata import DataMode, parse_rs_metadata
from recorder.rs_metadata_values import MAX_NOTES, parse_time

NS = 'xmlns="urn:ietf:params:xml:ns:recording:1"'

COMPLETE = f"""<?xml version="1.0" encoding="UTF-8"?>
<recording {NS}>
  <datamode>complete</datamode>
  <group group_id="Zw=="><associate-time>2026-03-01T09:15:02Z</associate-time></group>
  <session session_id="cw=="><sipSessionID>ab30;
      remote=4775</sipSessionID><reason cause="16" protocol="Q.850">bye</reason><group-ref>Zw==</group-ref>
    <start-time>2026-03-01T10:15:02.5+01:00</start-time><stop-time>2026-03-01T09:16:00Z</stop-time>
    <x:mine xmlns:x="urn:x"><x:leaf>1</x:leaf><x:leaf>2</x:leaf></x:mine></session>
  <participant participant_id="cDE="><nameID aor="sip:alice@a"><name xml:lang="it">Alice</name></nameID>
    <nameID aor="tel:+49"/></participant>
  <participant participant_id="cDI="><nameID aor="sip:bob@b"/></participant>
  <stream stream_id="dDE=" session_id="cw=="><label>1</label></stream>
  <stream stream_id="dDI=" session_id="cw=="><label>2</label></stream>
  <sessionrecordingassoc session_id="cw=="><associate-time>2026-03-01T09:15:02Z</associate-time></sessionrecordingassoc>
  <participantsessionassoc participant_id="cDE=" session_id="cw==">
    <associate-time>2026-03-01T09:15:02Z</associate-time></participantsessionassoc>
  <participantstreamassoc participant_id="cDE="><send>dDE=</send><recv>dDI=</recv></participantstreamassoc>
  <participantstreamassoc participant_id="cDI="><send>dDI=</send><recv>dDE=</recv></participantstreamassoc>
</recording>"""

START = 1_772_356_502_000_000_000


def parse(text):
    return parse_rs_metadata(text.encode())


def test_a_complete_document_gives_all_of_its_parts():
    found = parse(COMPLETE)
    assert found.notes == []
    assert found.datamode is DataMode.COMPLETE
    assert [(g.id, g.associate) for g in found.groups] == [("Zw==", START)]
    (session,) = found.sessions
    assert (session.id, session.group, session.sip_session_ids) == ("cw==", "Zw==", ["ab30;remote=4775"])
    assert (session.start, session.stop) == (START + 500_000_000, START + 58_000_000_000)
    assert (session.associate, session.disassociate) == (START, None)
    assert session.reasons == [("Q.850", 16, "bye")]
    assert [(p.id, p.aors, p.names) for p in found.participants] == [
        ("cDE=", ["sip:alice@a", "tel:+49"], ["Alice"]),
        ("cDI=", ["sip:bob@b"], []),
    ]
    assert [(s.id, s.label, s.session) for s in found.streams] == [("dDE=", "1", "cw=="), ("dDI=", "2", "cw==")]
    assert [(p.participant, p.session, p.associate) for p in found.participant_sessions] == [("cDE=", "cw==", START)]
    assert [(p.participant, p.send, p.recv) for p in found.participant_streams] == [
        ("cDE=", ["dDE="], ["dDI="]),
        ("cDI=", ["dDI="], ["dDE="]),
    ]
    assert [(e.owner, e.path, e.text) for e in found.extension] == [
        ("session cw==", "mine/leaf", "1"),
        ("session cw==", "mine/leaf", "2"),
    ]


def test_what_elements_of_others_say_in_attributes_is_kept():
    found = parse(
        f'<recording {NS}><session session_id="s"><sr:call xmlns:sr="urn:sr" State="up"/></session></recording>'
    )
    (said,) = found.extension
    assert (said.owner, said.path, said.namespace, said.attributes) == ("session s", "call", "urn:sr", {"state": "up"})


@pytest.mark.parametrize(
    "namespace",
    ["", 'xmlns="urn:ietf:params:xml:ns:recording"', 'xmlns="urn:ietf:params:xml:ns:siprec"'],
)
def test_the_namespace_does_not_matter_but_is_noted(namespace):
    found, usual = parse(COMPLETE.replace(NS, namespace)), parse(COMPLETE)
    assert found.sessions == usual.sessions
    assert found.participant_streams == usual.participant_streams
    assert "namespace" in found.notes[0]


@pytest.mark.parametrize("declared", [True, False])
def test_a_prefix_does_not_matter_even_where_it_is_not_declared(declared):
    text = COMPLETE.replace("<", "<tns:").replace("<tns:/", "</tns:").replace("<tns:?", "<?").replace("tns:x:", "x:")
    text = text.replace(NS, 'xmlns:tns="urn:ietf:params:xml:ns:recording:1"' if declared else "")
    found = parse(text)
    assert found.participants == parse(COMPLETE).participants
    assert found.streams == parse(COMPLETE).streams
    assert bool(found.notes) is not declared


def test_the_form_of_the_drafts_is_read():
    found = parse(
        """<recording xmlns="urn:ietf:params:xml:ns:recording" id="root">
        <dataMode>partial</dataMode>
        <session id="1234-abcd"><start-time>2026-03-01T09:15:02</start-time></session>
        <participant id="urn:uuid:p1" session="1234-abcd">
          <aor>sip:alice@a</aor><name>Alice</name><send>s1</send><recv>s2</recv>
          <extensiondata id="e"><apkt:callerOrig xmlns:apkt="x">true</apkt:callerOrig></extensiondata>
        </participant>
        <stream id="s1" session="1234-abcd"><label>0</label><mode>separate</mode></stream>
        <recording_metadata/>
        </recording>"""
    )
    assert found.datamode is DataMode.PARTIAL
    assert found.sessions[0].id == "1234-abcd"
    assert found.sessions[0].start == START
    assert "taken as UTC" in found.notes[1]
    assert (found.participants[0].aors, found.participants[0].names) == (["sip:alice@a"], ["Alice"])
    assert found.participant_sessions[0].session == "1234-abcd"
    assert (found.participant_streams[0].send, found.participant_streams[0].recv) == (["s1"], ["s2"])
    assert (found.streams[0].label, found.streams[0].session) == ("0", "1234-abcd")
    assert [(e.path, e.text) for e in found.extension] == [
        ("extensiondata", ""),
        ("extensiondata/callerorig", "true"),
        ("mode", "separate"),
        ("recording_metadata", ""),
    ]


def test_participants_and_streams_inside_a_session_belong_to_it():
    found = parse(
        '<recording><session session_id="s"><participant participant_id="p"><nameID aor="sip:a@b"/></participant>'
        '<stream stream_id="t"><label>1</label></stream></session></recording>'
    )
    assert found.participant_sessions[0].session == "s"
    assert found.streams[0].session == "s"


def test_participants_without_identifiers_stay_apart():
    participant = '<participant participant_id=""><nameID aor="sip:{0}@x"/><send>{0}</send></participant>'
    found = parse(f"<recording>{participant.format(1)}{participant.format(2)}</recording>")
    assert [p.aors for p in found.participants] == [["sip:1@x"], ["sip:2@x"]]
    assert [p.send for p in found.participant_streams] == [["1"], ["2"]]
    assert "participant without an identifier" in found.notes


def test_unescaped_names_cost_only_what_cannot_be_read():
    text = COMPLETE.replace(">Alice<", '>R&D <desk> "A"<').replace("sip:alice@a", "sip:alice;phone-context=a&b@a")
    found = parse(text)
    assert "not well-formed" in found.notes[0]
    assert found.participants[0].aors[0] == "sip:alice;phone-context=a&b@a"
    assert found.participants[0].names[0].startswith("R&D")


def test_a_bare_ampersand_costs_nothing():
    found = parse(COMPLETE.replace(">Alice<", ">Tom & Jerry &amp; Co<"))
    assert found.participants[0].names == ["Tom & Jerry & Co"]
    assert found.streams == parse(COMPLETE).streams


def test_a_document_cut_off_gives_what_came_before():
    found = parse(COMPLETE[: COMPLETE.index("<sessionrecordingassoc")])
    assert len(found.streams) == 2
    assert "not well-formed" in found.notes[0]


def test_blank_lines_and_marks_before_the_declaration_are_passed_over():
    assert parse("\r\n\r\n" + COMPLETE).notes == []
    assert parse("\ufeff" + COMPLETE).notes == []
    assert parse_rs_metadata(COMPLETE.replace("UTF-8", "UTF-16").encode("utf-16")).notes == []


def test_the_charset_of_the_mime_part_goes_before_the_declaration():
    latin = COMPLETE.replace("Alice", "Jürgen").encode("latin-1")
    assert parse_rs_metadata(latin, "iso-8859-1").participants[0].names == ["Jürgen"]
    undeclared = parse_rs_metadata(latin)
    assert undeclared.participants[0].names == ["J\ufffdrgen"]
    assert "not well-formed" in undeclared.notes[0]
    assert parse_rs_metadata(COMPLETE.encode(), "x-unheard-of").streams == parse(COMPLETE).streams


def test_a_request_for_a_snapshot_is_told_apart():
    found = parse(f"<requestsnapshot {NS}><requestreason>lost state</requestreason></requestsnapshot>")
    assert found.snapshot_request
    assert found.extension[0].text == "lost state"


def test_one_identifier_for_two_kinds_of_element_is_noted():
    found = parse(COMPLETE.replace("dDE=", "cDE="))
    assert found.notes == ["one identifier for a participant and a stream: 'cDE='"]


def test_streams_that_nobody_described_are_noted_in_a_complete_document_only():
    assert parse(COMPLETE.replace("<send>dDE=", "<send>eDE=")).notes == ["no such stream: 'eDE='"]
    partial = COMPLETE.replace("<send>dDE=", "<send>eDE=").replace(">complete<", ">partial<")
    assert parse(partial).notes == []


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("", "empty"),
        (" \r\n", "empty"),
        ("v=0", "unreadable"),
        ("\x00", "unreadable"),
        ("<html><body/></html>", "root element 'html'"),
        ("<recording><datamode>whole</datamode></recording>", "datamode 'whole'"),
        ("<recording><session session_id='s'><start-time>noon</start-time></session></recording>", "no time: 'noon'"),
    ],
)
def test_what_is_unsound_is_noted(text, note):
    assert any(note in n for n in parse(text).notes)


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
BOMB = f'<!DOCTYPE r [<!ENTITY l0 "ha">{LAUGHS}]>'


@pytest.mark.parametrize(
    "body",
    [
        "<nameID aor='sip:a@b'><name>&l9;</name></nameID>",
        "<nameID aor='&l9;'/>",
        "<name>&outside;</name>",
    ],
)
def test_entities_are_neither_expanded_nor_fetched(body):
    doctype = BOMB.replace("]>", '<!ENTITY outside SYSTEM "file:///etc/passwd">]>')
    began = time.process_time()
    found = parse(f"{doctype}<recording><participant participant_id='p'>{body}</participant></recording>")
    assert time.process_time() - began < 2
    assert "document type declaration ignored" in found.notes
    assert all(len(text) < 100 and "root:" not in text for p in found.participants for text in p.names + p.aors)


def test_size_depth_and_number_of_elements_are_bounded(monkeypatch):
    deep = parse("<recording>" + "<a>" * 200 + "</a>" * 200 + "</recording>")
    assert any("nested deeper" in n for n in deep.notes)
    parse("<recording>" + "<a>" * 100_000)
    monkeypatch.setattr(rs_metadata, "MAX_ELEMENTS", 100)
    many = parse("<recording>" + "<stream stream_id='s'/>" * 500 + "</recording>")
    assert any("more than 100 elements" in n for n in many.notes)
    monkeypatch.setattr(rs_metadata, "MAX_SIZE", 1000)
    assert any("only the first 1000" in n for n in parse(COMPLETE).notes)


def test_a_flood_of_identifiers_takes_no_longer_than_it_is_long():
    streams = "".join(f"<stream stream_id='{i}'/>" for i in range(15_000))
    sends = "".join(f"<send>{i}</send>" for i in range(4_000))
    began = time.process_time()
    found = parse(
        f"<recording>{streams}<participantstreamassoc participant_id='p'>{sends}</participantstreamassoc></recording>"
    )
    assert time.process_time() - began < 2
    assert len(found.streams) == 15_000
    assert len(found.participant_streams[0].send) == rs_metadata.MAX_VALUES


@pytest.mark.parametrize(
    ("text", "expected", "sound"),
    [
        ("2026-03-01T09:15:02Z", START, True),
        ("2026-03-01t09:15:02.000000001z", START + 1, True),
        ("2026-03-01T04:15:02-05:00", START, True),
        ("2026-03-01T09:15:02+0000", START, False),
        ("2026-03-01T09:15:02", START, False),
        ("2026-03-01 09:15:02.5", START + 500_000_000, False),
        ("2026-13-01T09:15:02Z", None, False),
        ("2026-03-01T09:15:02+99:99", None, False),
        ("0001-01-01T00:00:00+23:59", -62135683140000000000, True),
        ("\u0662026-03-01T09:15:02Z", None, False),
        ("", None, False),
    ],
)
def test_times(text, expected, sound):
    found, note = parse_time(text)
    assert found == expected
    assert (note is None) is sound


TAGS = [
    "recording",
    "session",
    "participant",
    "stream",
    "nameID",
    "name",
    "send",
    "participantstreamassoc",
    "x:y",
    "start-time",
]
PIECES = [
    *(f"<{t}>" for t in TAGS),
    *(f"</{t}>" for t in TAGS),
    "<stream id='a'",
    "/>",
    "&",
    "<!DOCTYPE r [",
    "]>",
    "<![CDATA[",
    "\ud800",
]


@given(st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(PIECES) | st.text(max_size=5)).map("".join)))
def test_nothing_raises(document):
    data = document if isinstance(document, bytes) else document.encode("utf-8", "surrogatepass")
    for charset in (None, "utf-8", "latin-1", "nonsense"):
        assert len(parse_rs_metadata(data, charset).notes) <= MAX_NOTES


@given(st.data())
def test_no_mutation_of_a_real_document_raises(data):
    document = bytearray(COMPLETE.encode())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(document) - 1))
        document[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=3))
    parse_rs_metadata(bytes(document))


def test_the_examples_of_the_standards_are_sound(captures):
    files = sorted((captures.parent / "standards" / "examples").glob("*/*.xml"))
    if not files:
        pytest.skip("the standards' examples are not here")
    for file in files:
        found = parse_rs_metadata(file.read_bytes())
        assert found.notes == [], file
        assert (found.datamode is DataMode.PARTIAL) == ("partial" in file.name)
        assert found.snapshot_request == ("request" in file.name)


def test_what_opensips_sent_is_read_whole(captures):
    files = sorted((captures / "lab").glob("*/*.metadata.xml"))
    if not files:
        pytest.skip("the lab's captures are not here")
    for file in files:
        found = parse_rs_metadata(file.read_bytes())
        assert [p.aors for p in found.participants] == [["sip:alice@example.com"], ["sip:bob@example.com"]]
        assert [s.label for s in found.streams] == ["0", "1"]
        assert found.notes == ["associate-time: zone without a colon"]
        assert found.sessions[0].associate is not None
        assert {p.session for p in found.participant_sessions} == {found.sessions[0].id}
        streams = {s.id for s in found.streams}
        assert all({*p.send, *p.recv} == streams for p in found.participant_streams)
