"""OpenSIPS' own recording sessions, as captured in a lab: what our server makes of them, and what a replay makes.

The captures stand in the third-party collection; nothing of them is kept here.
"""

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest

from capture.address import Endpoint
from capture.batch import KIND_UDP
from capture.source import CaptureSource
from decoders.demux import RTP
from recorder.engine import prepare
from recorder.messages import MessageReader
from recorder.replay import replay
from recorder.replay_types import ReplayOptions
from recorder.rs_metadata import parse_rs_metadata
from recorder.siprec.received import read
from tests.recorder.test_siprec_lab import Recordings
from tests.srs_lab import Recording, SrsLab, peer, raw_udp

SERVERS = (5090, 5091)
SOUND = ("udp", "tcp", "hold", "pause_resume", "3calls")


@dataclass
class Heard:
    """What a capture shows of recording sessions."""

    messages: list = field(default_factory=list)
    """(time, message, source, destination)."""
    media: list = field(default_factory=list)
    """(time, source, destination, octets)."""


def heard(path):
    found, reader = Heard(), MessageReader()
    for batch in CaptureSource([path], hash_files=False):
        datagrams, kinds, signalling = prepare(batch)
        for each in reader.find(datagrams, kinds, signalling):
            parsed = reader.parse(each)
            if parsed is not None and {parsed.seen.source.port, parsed.seen.destination.port} & set(SERVERS):
                found.messages.append((parsed.seen.time, parsed.parsed, parsed.seen.source, parsed.seen.destination))
        for row in np.flatnonzero((kinds == RTP) & (datagrams.kind == KIND_UDP)).tolist():
            at, size = int(datagrams.payload[row]), int(datagrams.length[row])
            ends = [
                Endpoint(int(high[row]), int(low[row]), int(port[row]))
                for high, low, port in (
                    (datagrams.source_high, datagrams.source_low, datagrams.source_port),
                    (datagrams.destination_high, datagrams.destination_low, datagrams.destination_port),
                )
            ]
            found.media.append((int(batch.time[row]), *ends, batch.buffer[at : at + size].tobytes()))
    return found


async def play(lab, path):
    """Have our server in the place of the one in the capture."""
    capture = heard(path)
    sessions, ports, flows = {}, {}, {}
    steps = sorted(
        [(each[0], 0, each[1:]) for each in capture.messages] + [(each[0], 1, each[1:]) for each in capture.media],
        key=lambda step: step[:2],
    )
    lab.now = steps[0][0]
    for time, kind, step in steps:
        lab.now = max(lab.now, time)
        if kind == 1:
            source, destination, octets = step
            # The server in the capture takes all calls at the same two ports: a flow is the last session's.
            if destination in ports:
                session, place = flows.setdefault((source, destination), ports[destination])
                target = session.answer.media[place]
                end = next((p.rtp for p in lab.ports.open_ports if p.rtp.port == target.port), None)
                if end is not None:
                    lab._rtp.append((time, raw_udp(source, end, octets)))
            continue
        lab.turn()
        said, source, destination = step
        call_id = said.call_id
        if said.method == "INVITE" and call_id not in sessions:
            sessions[call_id] = lab.invite(said, peer(source.host, source.port))
        elif said.method in ("INVITE", "UPDATE"):
            await lab.within(sessions[call_id], said)
        elif said.method == "BYE":
            lab.bye(sessions[call_id])
        elif said.status == 200 and said.cseq[1] == "INVITE" and said.sdp() is not None:
            for media in said.sdp().media:
                end = Endpoint(source.high, source.low, media.port)
                ports[end] = (sessions[call_id], media.index)
    lab.after(8)


@pytest.fixture(scope="module")
def lab_of(captures, tmp_path_factory):
    """Name of a capture -> (our recordings, those of a replay)."""
    done = {}

    def run(name):
        if name not in done:
            path = captures / "lab" / f"opensips_siprec_{name}.pcap"
            if not path.exists():
                pytest.skip(f"the collection of captures has no {path.name}")
            lab = SrsLab(tmp_path_factory.mktemp(name) / "out")
            asyncio.run(play(lab, path))
            out = tmp_path_factory.mktemp(f"{name}-replay")
            reporter = Recordings(out)
            replay(ReplayOptions(captures=(str(path),), out=out, workers=1), reporter)
            theirs = [
                Recording(document, next(out.glob(f"*/*/*/*{document.id[:8]}"))) for document, _ in reporter.found
            ]
            done[name] = lab.finish(), theirs
        return done[name]

    return run


def pairs(ours, theirs):
    """Recordings of the same call: OpenSIPS writes its Call-ID as sipSessionID."""
    by_call = {each.document.call_id: each for each in theirs}
    assert len(by_call) == len(theirs)
    return [(each, by_call[each.document.call_id]) for each in ours]


@pytest.mark.parametrize("name", SOUND)
def test_the_recording_is_the_one_that_a_replay_makes_of_the_call(lab_of, name):
    ours, theirs = lab_of(name)
    assert len(ours) == len(theirs)
    for mine, other in pairs(ours, theirs):
        assert mine.document.state == other.document.state == "completed"
        for party in ("caller", "callee"):
            assert getattr(mine.document, party).uri == getattr(other.document, party).uri
            assert getattr(mine.document, party).name == getattr(other.document, party).name
        mine_streams = {s.participant: s for s in mine.document.streams}
        other_streams = {s.participant: s for s in other.document.streams}
        assert set(mine_streams) == set(other_streams) == {"caller", "callee"}
        for side, stream in mine_streams.items():
            assert stream.ssrc == other_streams[side].ssrc
            assert stream.codec == other_streams[side].codec


def agree(one, two, shift):
    """Whether a channel is another one, `shift` samples later, from its first sound on, but where nothing was sent."""
    begin = max(int(np.flatnonzero(one)[0]), -shift)
    length = min(len(one), len(two) - shift)
    differ = np.flatnonzero(one[begin:length] != two[begin + shift : length + shift])
    return length > len(two) - 1600 and not one[begin + differ].any()


@pytest.mark.parametrize("name", ["udp", "tcp", "hold", "3calls"])
def test_every_sample_that_was_sent_to_the_server_is_that_of_the_replay(lab_of, name):
    """The session begins with the answer, so that a packet or two are not in it."""
    ours, theirs = lab_of(name)
    for mine, other in pairs(ours, theirs):
        a, b = mine.samples(), other.samples()
        for channel in (0, 1):
            one, two = a[:, channel], b[:, channel]
            assert int(np.flatnonzero(one)[0]) < 800
            assert any(agree(one, two, shift) for shift in range(-800, 800))


def test_a_hold_is_by_the_one_who_held(lab_of):
    ours, theirs = lab_of("hold")
    ((mine, other),) = pairs(ours, theirs)
    (hold,), (seen,) = mine.document.holds, other.document.holds
    assert hold.by == seen.by
    assert hold.from_[:20] == seen.from_[:20]
    assert hold.to[:20] == seen.to[:20]


def test_a_pause_is_marked_and_no_hold(lab_of):
    ours, _ = lab_of("pause_resume")
    (mine,) = ours
    assert "paused" in mine.codes
    assert mine.document.holds == ()


def test_metadata_as_opensips_writes_them_are_noted_and_kept(captures, lab_of):
    ours, _ = lab_of("hold")
    (mine,) = ours
    (warning,) = mine.document.warnings
    assert (warning.code, "zone without a colon" in warning.text) == ("metadata-unsound", True)
    sent = [path.read_bytes() for path in sorted((captures / "lab/opensips_siprec_hold").glob("*.metadata.xml"))]
    kept = list(read(mine.directory))
    kept = [each for each in kept if each.body]  # its BYE is kept too, which has none
    assert len(kept) == len(sent)
    for each, document in zip(kept, sent, strict=True):
        assert parse_rs_metadata(document).sessions
        assert document.strip() in each.body


def test_early_media_of_a_refused_call_is_a_recording_of_who_spoke(lab_of):
    ours, _ = lab_of("early_busy")
    (mine,) = ours
    assert [(s.participant, s.packets > 190) for s in mine.document.streams] == [("callee", True)]


def test_a_session_that_another_server_refused_comes_to_us_whole(lab_of):
    ours, theirs = lab_of("failover_503")
    ((mine, other),) = pairs(ours[:1], theirs)
    assert mine.document.caller.uri == other.document.caller.uri
