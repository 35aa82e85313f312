"""Pictures of calls: what sessions that record them elsewhere are told, and when."""

from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest

from capture.source import CaptureSource
from recorder.engine import Engine, prepare
from recorder.model import CallState, Side
from recorder.siprec.picture import CallPicture, Phase
from recorder.siprec.pictures import Pictures
from tests.capture_builder import ALICE_RTP, BOB_RTP, Capture, SipCall, sdp

PCAPS = Path("pcaps")


def pictures_of(path: Path, tmp_path: Path, batch_size: int = 1) -> list[CallPicture]:
    """All pictures of a capture's calls; with one packet a batch, each change is one picture."""

    def directory(call):
        where = tmp_path / "work" / str(call.index)
        where.mkdir(parents=True, exist_ok=True)
        return where

    engine = Engine(directory, lambda _: None, identify=lambda _: uuid4())
    pictures = Pictures(engine.registry, engine.tracker.group_identifier)
    engine.observers, engine.begun, engine.dropped = (pictures,), pictures.begun, pictures.dropped
    found: list[CallPicture] = []
    for batch in CaptureSource([path], batch_size=batch_size, hash_files=False):
        engine.ingest(prepare(batch))
        found += pictures.turn()
    engine.finish()
    return [*found, *pictures.turn()]


def test_a_call_is_early_then_answered_then_over(tmp_path):
    found = pictures_of(PCAPS / "pcmu.pcap", tmp_path)
    phases = [each.phase for each in found]
    assert [phase for i, phase in enumerate(phases) if phase not in phases[:i]] == list(Phase)
    assert len({each.id for each in found}) == 1
    last = found[-1]
    assert last.answered is not None
    assert last.ended is not None
    first_of_the_end = next(each for each in found if each.phase is Phase.OVER)
    assert first_of_the_end.state is CallState.COMPLETED
    assert all(party.left == first_of_the_end.ended for party in first_of_the_end.parties)
    assert [party.side for party in last.parties] == [Side.CALLER, Side.CALLEE]
    assert all(party.names[0][0].startswith("sip:") for party in last.parties)


def test_both_directions_are_told_once_both_sides_have_spoken_of_their_media(tmp_path):
    found = pictures_of(PCAPS / "pcmu.pcap", tmp_path)
    assert found[0].streams == ()
    answered = next(each for each in found if each.phase is Phase.ANSWERED)
    assert [(stream.side, stream.media, stream.sending) for stream in answered.streams] == [
        (Side.CALLER, "audio", True),
        (Side.CALLEE, "audio", True),
    ]
    assert all(stream.formats[0].encoding == "PCMU" for stream in answered.streams)


def test_a_hold_is_told_when_it_begins_and_when_it_ends(tmp_path):
    found = [each for each in pictures_of(PCAPS / "hold.pcap", tmp_path) if each.phase is Phase.ANSWERED]
    held = [bool(each.held_by) for each in found]
    assert held.index(True) > 0
    assert held[-1] is False
    during = found[held.index(True)]
    assert not all(stream.sending for stream in during.streams)
    assert all(stream.sending for stream in found[-1].streams)


def test_behind_a_relay_each_direction_is_the_one_of_its_speakers_own_hop(tmp_path):
    found = pictures_of(PCAPS / "relayed.pcap", tmp_path)
    answered = [each for each in found if each.phase is Phase.ANSWERED]
    assert len(answered[-1].streams) == 2


def test_nothing_new_is_no_picture(tmp_path):
    found = pictures_of(PCAPS / "pcmu.pcap", tmp_path)
    assert all(one != other for one, other in pairwise(found))
    assert len(found) < 10


@pytest.mark.parametrize(("line", "wanted"), [("recordpref:off", "off"), ("recordpref:pause", "pause"), ("x:y", None)])
def test_what_a_participant_prefers_is_told(tmp_path, line, wanted):
    made = Capture()
    call = SipCall(made)
    call.request(0.1, "INVITE", sdp(ALICE_RTP, ("0 PCMU/8000",), line))
    call.response(0.5, 200, "OK", sdp(BOB_RTP, ("0 PCMU/8000",)))
    found = pictures_of(made.write(tmp_path / "made.pcap"), tmp_path)
    assert found[-1].record_preference == wanted


def test_recording_sessions_of_others_have_no_pictures(tmp_path, captures):
    found = pictures_of(captures / "lab" / "opensips_siprec_udp.pcap", tmp_path)
    assert len({each.id for each in found}) == 1


def test_a_call_that_turned_out_to_be_part_of_another_is_over_for_those_who_were_told_of_it(tmp_path):
    told: dict[bool, list[CallPicture]] = {}
    for early in (True, False):
        engine = Engine(lambda _: tmp_path, lambda _: None, identify=lambda _: uuid4())
        pictures = Pictures(engine.registry, engine.tracker.group_identifier)
        engine.begun = pictures.begun
        call = engine._media_call(1_000, 0, 0, ALICE_RTP, BOB_RTP)
        before = list(pictures.turn()) if early else []
        pictures.dropped(call)
        told[early] = [*before, *pictures.turn()]
    assert [each.phase for each in told[True]] == [Phase.ANSWERED, Phase.OVER]
    assert told[False] == []
