"""A real call through OpenSIPS and RTPProxy with a SIPREC session: our metadata against what OpenSIPS sent.

The captures and the metadata of each session stand in the third-party collection; nothing of them is kept here.
"""

from pathlib import Path

import pytest
from lxml import etree

from recorder.replay import replay
from recorder.replay_types import ReplayOptions
from recorder.rs_metadata import parse_rs_metadata

SCHEMA = Path(__file__).parents[1] / "schema" / "metadata.xsd"
NAMES = ("udp", "tcp", "hold", "pause_resume", "failover_503")
STRAIGHT = (*NAMES, "3calls")


class Recordings:
    """A reporter that keeps what was recorded."""

    def __init__(self, out):
        self.out, self.found, self.warnings = out, [], []

    def progress(self, packets, calls, bytes_done, bytes_total):
        pass

    def call_done(self, document, directory):
        self.found.append((document, (self.out / directory / "metadata.xml").read_bytes()))

    def warning(self, text):
        self.warnings.append(text)


@pytest.fixture(scope="module")
def lab(captures):
    return captures / "lab"


@pytest.fixture(scope="module")
def replayed(lab, tmp_path_factory):
    """Name of a lab capture -> (summary, recordings); each is replayed once."""
    done = {}

    def run(name):
        if name not in done:
            out = tmp_path_factory.mktemp(name)
            reporter = Recordings(out)
            capture = lab / f"opensips_siprec_{name}.pcap"
            if not capture.exists():
                pytest.skip(f"the collection of captures has no {capture.name}")
            done[name] = replay(ReplayOptions(captures=(str(capture),), out=out, workers=1), reporter), reporter.found
        return done[name]

    return run


def sent_by_opensips(lab, name):
    """The metadata that the SRC sent, in order."""
    return [path.read_bytes() for path in sorted((lab / f"opensips_siprec_{name}").glob("*.metadata.xml"))]


def people(metadata):
    return sorted((participant.aors, participant.names) for participant in metadata.participants)


def flows(metadata):
    """(AoR of the sender, AoR of the receiver) of each stream."""
    aors = {p.id: p.aors[0] for p in metadata.participants}
    known = {stream.id for stream in metadata.streams}
    sends = {stream: aors[a.participant] for a in metadata.participant_streams for stream in a.send}
    receives = {stream: aors[a.participant] for a in metadata.participant_streams for stream in a.recv}
    assert set(sends) == set(receives) == known
    return sorted((sends[stream], receives[stream]) for stream in known)


@pytest.mark.parametrize("name", NAMES)
def test_one_call_with_two_participants_and_one_stream_a_direction(replayed, name):
    summary, recordings = replayed(name)
    ((document, _),) = recordings
    assert (summary.counts.calls, summary.counts.media_only, summary.counts.rtp_unclaimed) == (1, 0, 0)
    assert summary.counts.recording_sessions == (2 if name == "failover_503" else 1)
    assert (document.caller.uri, document.callee.uri) == ("sip:alice@example.com", "sip:bob@example.com")
    assert sorted(stream.participant for stream in document.streams) == ["callee", "caller"]
    assert document.state == "completed"
    assert document.warnings == ()


@pytest.mark.parametrize("name", STRAIGHT)
def test_the_relay_and_the_recording_session_are_copies(replayed, name):
    """Each direction is seen three times: towards the relay, behind it, and on its way to the recording server."""
    _, recordings = replayed(name)
    for document, _ in recordings:
        assert [stream.copies for stream in document.streams] == [2, 2]
        assert {stream.source for stream in document.streams} == {"127.0.0.11:21000", "127.0.0.12:22000"}
        assert all(stream.packets and not stream.lost and not stream.duplicates for stream in document.streams)


@pytest.mark.parametrize("name", NAMES)
def test_all_rtp_of_the_capture_is_in_a_stream_or_one_of_its_copies(replayed, name):
    summary, ((document, _),) = replayed(name)
    heard = sum(stream.packets for stream in document.streams)
    assert heard <= summary.counts.rtp_packets <= 3 * heard
    if name in ("udp", "tcp", "failover_503"):
        # Recording begins and ends a moment after the call, so a packet or two are missing there.
        assert 3 * heard - summary.counts.rtp_packets <= 8


@pytest.mark.parametrize("name", ["udp", "tcp", "pause_resume", "failover_503"])
def test_our_metadata_name_the_participants_and_streams_that_opensips_named(lab, replayed, name):
    _, ((_, ours),) = replayed(name)
    mine, theirs = parse_rs_metadata(ours), parse_rs_metadata(sent_by_opensips(lab, name)[0])
    assert people(mine) == people(theirs)
    assert flows(mine) == flows(theirs)
    assert len(mine.streams) == 2
    assert len(mine.sessions) == len(theirs.sessions) == 1


def test_a_hold_changes_neither_participants_nor_streams(lab, replayed):
    """OpenSIPS sends its metadata at the answer, and again with each re-INVITE of the recording session, when the call
    is held and resumed. The three documents are the same but for their times: that the caller held the call, and when,
    stands only in the directions of its SDP. Ours is one snapshot of the whole call, so it has one set of streams, and
    tells of the hold in our own namespace, for RFC 7865 has no element for it.
    """
    _, ((document, ours),) = replayed("hold")
    mine, sent = parse_rs_metadata(ours), [parse_rs_metadata(each) for each in sent_by_opensips(lab, "hold")]
    assert len(sent) == 3
    for theirs in sent:
        assert people(mine) == people(theirs)
        assert flows(mine) == flows(theirs)
        assert [stream.id for stream in theirs.streams] == [stream.id for stream in sent[0].streams]
    holds = etree.fromstring(ours).findall(".//{urn:spanrec:metadata:1}hold")
    assert [(each.get("begin"), each.get("end"), each.get("by")) for each in holds] == [
        (hold.from_, hold.to, "caller") for hold in document.holds
    ]
    assert len(holds) == 1


def test_each_of_three_calls_at_once_has_the_metadata_of_its_own_session(lab, replayed):
    """The calls have the same participants, so only Call-IDs tell them apart: OpenSIPS writes them as sipSessionID,
    which is meant for the Session-ID of RFC 7989. Nobody sent one here, so ours has none, and the Call-ID in our own
    namespace. Identifiers of sessions, participants and streams are each program's own.
    """
    _, recordings = replayed("3calls")
    theirs = {}
    for each in map(parse_rs_metadata, sent_by_opensips(lab, "3calls")):
        (session,) = each.sessions
        theirs[session.sip_session_ids[0]] = each
    assert {document.call_id for document, _ in recordings} == set(theirs)
    for document, ours in recordings:
        mine, sent = parse_rs_metadata(ours), theirs[document.call_id]
        assert people(mine) == people(sent)
        assert flows(mine) == flows(sent)
        assert list(mine.sessions[0].sip_session_ids) == []
        root = etree.fromstring(ours)
        assert root.findtext(".//{urn:spanrec:metadata:1}call-id") == document.call_id
        told = [each.text for each in root.iterfind(".//{urn:spanrec:metadata:1}recorded-by/{*}session-id")]
        assert told == [sent.sessions[0].id]


def test_of_a_call_refused_after_early_media_only_what_was_sent_is_a_stream(lab, replayed):
    """OpenSIPS opens its session at the 183 and announces a stream for each direction of the SDP. Only the callee ever
    sent one: an announcement, until its 486. Ours are the streams that were on the wire, so it has that one alone; the
    participants are the same, though the callee never joined by an answer.
    """
    _, ((document, ours),) = replayed("early_busy")
    mine, theirs = parse_rs_metadata(ours), parse_rs_metadata(sent_by_opensips(lab, "early_busy")[0])
    assert people(mine) == people(theirs)
    assert flows(mine) == [("sip:bob@example.com", "sip:alice@example.com")]
    assert set(flows(mine)) < set(flows(theirs))
    assert len(theirs.streams) == 2
    assert document.answered is None


@pytest.mark.parametrize("name", [*STRAIGHT, "early_busy"])
def test_our_metadata_are_valid_where_those_of_opensips_are_not(lab, replayed, name):
    schema = etree.XMLSchema(etree.parse(str(SCHEMA)))
    _, recordings = replayed(name)
    for _, ours in recordings:
        schema.assertValid(etree.fromstring(ours))
    for theirs in sent_by_opensips(lab, name):
        assert not schema.validate(etree.fromstring(theirs))


@pytest.mark.parametrize("name", STRAIGHT)
def test_the_session_that_records_the_call_is_told_with_it(lab, replayed, name):
    _, recordings = replayed(name)
    sessions = {s.id for each in sent_by_opensips(lab, name) for s in parse_rs_metadata(each).sessions}
    told = []
    for _, ours in recordings:
        root = etree.fromstring(ours)
        recorded = root.findall(".//{urn:spanrec:metadata:1}recorded-by")
        told += [each.findtext("{urn:spanrec:metadata:1}session-id") for each in recorded]
        assert max(int(each.get("packets")) for each in recorded) > 0
    assert set(told) == sessions


def test_three_calls_at_once_with_equal_ssrcs_stay_three_calls(replayed):
    summary, recordings = replayed("3calls")
    assert (summary.counts.calls, summary.counts.recording_sessions) == (3, 3)
    assert len({document.group_id for document, _ in recordings}) == 3


def test_early_media_of_a_refused_call_is_recorded(replayed):
    _, ((document, _),) = replayed("early_busy")
    assert (document.state, document.sip_status) == ("refused", 486)
    assert [(s.participant, s.packets, s.copies) for s in document.streams] == [("callee", 201, 2)]


def test_a_held_call_goes_on_in_the_same_streams(replayed):
    _, ((document, _),) = replayed("hold")
    assert [hold.by for hold in document.holds] == ["callee"] or [hold.by for hold in document.holds] == ["caller"]
    assert len(document.streams) == 2
