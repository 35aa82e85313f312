"""The load that the recording server is measured with is what it says."""

import json
import socket
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import soundfile

from bench.calls import FRAME, expected_samples
from bench.rtp_sender import RtpSender
from bench.srs_soak import Held, grown
from bench.srs_soak_audio import Sent, compare
from bench.srs_soak_check import SIDES, Kill, Result, judge
from bench.srs_soak_src import RESTARTED, Fault, SoakCall, State, Take
from bench.srs_src import RecordingClient
from decoders.sip import parse_message
from pcaps.make.sources import decode
from recorder.rs_metadata import parse_rs_metadata
from recorder.siprec.received import Received, ReceivedFile


def test_streams_are_the_speech_of_their_calls_packet_by_packet() -> None:
    receivers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
    sender = RtpSender(4, 6)
    try:
        for stream, receiver in enumerate(receivers):
            receiver.bind(("127.0.0.1", 0))
            receiver.settimeout(2.0)
            sender.begin(stream, *receiver.getsockname())
        while (sender.sent < 6).any():
            sender.turn()
        for stream, receiver in enumerate(receivers):
            packets = [receiver.recvfrom(500) for _ in range(6)]
            assert {source for _, source in packets} == {sender.source(stream)}
            numbers = [struct.unpack_from("!HII", octets, 2) for octets, _ in packets]
            assert {ssrc for _, _, ssrc in numbers} == {int(sender.ssrc[stream])}
            assert np.diff([number for number, _, _ in numbers]).tolist() == [1] * 5 or stream < 2  # call 0 wraps
            heard = decode("PCMU", np.frombuffer(b"".join(octets[12:] for octets, _ in packets), np.uint8))
            assert (heard == expected_samples(stream // 2, ("caller", "callee")[stream % 2], 0.12)).all()
    finally:
        sender.close()
        for receiver in receivers:
            receiver.close()


def test_an_invite_offers_two_labelled_streams_and_says_who_speaks() -> None:
    sender = RtpSender(2, 1)
    with closing(sender), closing(RecordingClient(("127.0.0.1", 9), 1, sender, 1.0)) as client:
        message = parse_message(client.messages.invite(0))
    assert message is not None
    assert message.notes == ()
    assert message.requires("siprec")
    assert [part.content_type for part in message.parts()] == ["application/sdp", "application/rs-metadata+xml"]
    description = message.sdp()
    assert description is not None
    assert [media.label for media in description.media] == ["1", "2"]
    told = parse_rs_metadata(message.parts()[1].data)
    assert told.notes == []
    assert [aor for each in told.participants for aor in each.aors] == [
        "sip:+49300000000@one.example",
        "sip:+49890000000@two.example",
    ]
    one, two = (each.id for each in told.streams)
    assert [(each.send, each.recv) for each in told.participant_streams] == [([one], [two]), ([two], [one])]


def soak_recording(
    place: Path,
    number: int,
    packets: int,
    without: range = range(0),
    codes: tuple[str, ...] = (),
    foreign: int | None = None,
    takes: tuple[int, ...] = (),
) -> Path:
    """A recording of a call of the soak, some packets of which are silence, or those of another call; `takes`: whose
    messages are kept."""
    place.mkdir()
    sides = [expected_samples(number, side, packets / 50).copy() for side in SIDES]
    others = [expected_samples(foreign or 0, side, packets / 50) for side in SIDES]
    for samples, other in zip(sides, others, strict=True):
        hole = slice(without.start * FRAME, without.stop * FRAME)
        samples[hole] = 0 if foreign is None else other[hole]
    heard = np.stack([np.pad(samples, (300, 0)) for samples in sides], axis=1)
    soundfile.write(place / "audio.wav", heard, 8000, subtype="PCM_16")
    document = {"audio": {"file": "audio.wav"}, "warnings": [{"code": code, "text": ""} for code in codes]}
    (place / "call.json").write_text(json.dumps(document))
    kept = ReceivedFile(place, "b" * 32)
    for take in takes or (number,):
        kept.add(Received(1, f"{take}-0@bench", "127.0.0.1:5060", "INVITE", "text/plain", b""))
    return place


def soak_call(number: int, packets: int) -> SoakCall:
    """A call that was sent whole."""
    call = SoakCall(number, Fault.NONE, packets)
    take = Take(number, call, State.OVER, True, "ended", packets=packets, begun=1000.0, sent=packets)
    call.takes.append(take)
    return call


def test_the_soak_tells_a_whole_call_from_one_that_lost_packets_and_from_one_that_says_so(tmp_path: Path) -> None:
    call = soak_call(3, 300)
    whole = soak_recording(tmp_path / "whole", 3, 300)
    holed = soak_recording(tmp_path / "holed", 3, 300, range(200, 250))
    named = soak_recording(tmp_path / "named", 3, 300, range(200, 250), ("interrupted",))
    kill = Kill(1004.9, 1005.5)
    assert judge(call, [whole], []).result is Result.WHOLE
    assert judge(call, [], []).result is Result.WRONG
    assert judge(call, [whole, whole], []).result is Result.WRONG
    assert "50 packets of the caller from 4.00 to 4.98 s" in judge(call, [holed], []).text
    assert judge(call, [named], []).result is Result.WRONG
    assert judge(call, [holed], [kill]).result is Result.WRONG
    assert judge(call, [named], [kill]).result is Result.DECLARED


def test_the_soak_finds_audio_of_another_call_in_a_recording(tmp_path: Path) -> None:
    call = soak_call(3, 300)
    mixed = judge(call, [soak_recording(tmp_path / "mixed", 3, 300, range(200, 250), ("interrupted",), foreign=9)], [])
    assert mixed.result is Result.WRONG
    assert "audio of another call or side stands in the caller's channel from 4.04 to 4.73 s" in mixed.text
    assert "audio of another call or side stands in the callee's channel" in mixed.text
    # Also where nothing of the call itself is missing: what came after its end.
    call.takes[0].sent = call.takes[0].packets = 200
    after = judge(call, [soak_recording(tmp_path / "after", 3, 300, range(200, 300), foreign=9)], [])
    assert "audio of another call" in after.text
    assert "missing" not in after.text


def test_the_soak_finds_the_callee_on_the_callers_channel(tmp_path: Path) -> None:
    call, place = soak_call(3, 300), soak_recording(tmp_path / "a", 3, 300)
    heard, rate = soundfile.read(place / "audio.wav", dtype="int16")
    soundfile.write(place / "audio.wav", heard[:, ::-1], rate, subtype="PCM_16")
    assert "audio of another call or side stands in the caller's channel" in judge(call, [place], []).text


def test_the_soak_takes_a_packet_that_was_cut_for_what_it_is(tmp_path: Path) -> None:
    call, place = soak_call(3, 300), soak_recording(tmp_path / "a", 3, 300)
    heard, rate = soundfile.read(place / "audio.wav", dtype="int16")
    at = 300 + 100 * FRAME
    moved = np.concatenate([heard[: at - 55], heard[at:]])
    soundfile.write(place / "audio.wav", moved, rate, subtype="PCM_16")
    assert judge(call, [place], []).result is Result.WHOLE


def test_the_soak_wants_every_session_told_of_and_none_of_other_calls(tmp_path: Path) -> None:
    call = soak_call(3, 300)
    call.takes.append(Take(5, call, State.OVER, True, "ended", begun=2000.0))
    alone = soak_recording(tmp_path / "alone", 3, 300, codes=("interrupted",))
    assert "take 5 is not told of" in judge(call, [alone], []).text
    assert "not told of" not in judge(call, [alone], [Kill(2000.5, 2002.0)]).text, "killed before it was noted"
    other = soak_recording(tmp_path / "other", 3, 300, codes=("interrupted",), takes=(3, 5, 8))
    assert "sessions of other calls are told of: 8" in judge(call, [other], []).text


def test_what_a_session_sent_that_a_killed_server_forgot_may_be_missing_until_its_client_has_noticed(
    tmp_path: Path,
) -> None:
    call = soak_call(3, 300)
    (take,) = call.takes
    take.ended = take.begun + 6.0
    named = soak_recording(tmp_path / "named", 3, 300, range(150, 300), ("interrupted",))
    kill = Kill(1003.0, 1004.0)
    assert "50 of them without a kill" in judge(call, [named], [kill]).text
    take.outcome = RESTARTED
    assert judge(call, [named], [kill]).result is Result.DECLARED


def test_the_soak_tells_memory_that_grows_from_memory_that_is_taken_once() -> None:
    def life(number: int, figures: list[float]) -> list[Held]:
        return [Held(300.0 * number + 20 * place, number, 0, 0, mb) for place, mb in enumerate(figures)]

    assert grown([*life(0, [100, 150, 200, 210, 205]), *life(1, [90, 220, 220])]) == []
    assert grown([*life(0, [100, 150, 200, 205]), *life(1, [90, 95, 100, 110, 125, 160])]) == [
        "memory grew from 110 to 160 MB"
    ]


def test_the_soak_asks_that_a_client_that_started_again_has_its_gap_named(tmp_path: Path) -> None:
    call = soak_call(3, 300)
    call.fault = Fault.RESTART
    call.takes.append(Take(4, call, State.OVER, True, "ended", packets=0))
    assert "does not say interrupted" in judge(call, [soak_recording(tmp_path / "a", 3, 300, takes=(3, 4))], []).text
    said = soak_recording(tmp_path / "b", 3, 300, codes=("interrupted",), takes=(3, 4))
    assert judge(call, [said], []).result is Result.DECLARED


def test_a_call_that_was_refused_leaves_no_recording(tmp_path: Path) -> None:
    call = SoakCall(3, Fault.NONE, 300)
    call.takes.append(Take(3, call, State.OVER, False, "503"))
    assert judge(call, [], []).result is Result.REFUSED
    assert judge(call, [tmp_path], []).result is Result.WRONG


def a_loud_packet(sent: np.ndarray, after: int) -> int:
    loud = np.abs(sent.reshape(-1, FRAME).astype(int)).max(axis=1) > 2000
    return after + int(np.argmax(loud[after:]))


def test_a_packet_that_was_cut_is_not_taken_for_one_like_it_far_behind() -> None:
    packets = 1900
    sent = expected_samples(7, "caller", packets / 50)
    cut = a_loud_packet(sent, 100)
    there = slice(cut * FRAME, (cut + 1) * FRAME)
    heard = sent.copy()
    heard[there.start : there.start + FRAME // 2] = 0
    again = np.concatenate([heard, np.zeros(8000 * 6, np.int16), sent[there]])
    assert compare(again, [Sent(7, "caller", packets, packets)]).absent == [[cut]]
    late = np.concatenate([heard[: 500 * FRAME], np.zeros(12000, np.int16), heard[500 * FRAME :], sent[there]])
    assert compare(late, [Sent(7, "caller", packets, packets)]).absent == [[cut]]


def test_a_take_is_sought_behind_the_one_before_it_wherever_it_begins() -> None:
    takes = [Sent(7, "caller", 800, 800), Sent(8, "caller", 700, 900)]
    first, second = (expected_samples(each.number, "caller", each.packets / 50) for each in takes)
    gap = np.zeros(8000 * 9 + 77, np.int16)
    heard = np.concatenate([first, gap, second])
    assert compare(heard, takes).absent == [[], []]
    lost, stands = a_loud_packet(second, 0), a_loud_packet(first, 100)
    chance = first.copy()
    # What was lost of the second stands in the first by chance: it is lost nevertheless.
    chance[stands * FRAME : (stands + 1) * FRAME] = second[lost * FRAME : (lost + 1) * FRAME]
    second[lost * FRAME : (lost + 1) * FRAME] = 0
    assert compare(np.concatenate([chance, gap, second]), takes).absent == [[stands], [lost]]


def test_packets_that_others_were_moved_over_are_told_from_lost_ones() -> None:
    packets, half = 1000, 500 * FRAME
    sent = expected_samples(7, "caller", packets / 50)
    late = np.concatenate([sent[:half], np.zeros(480, np.int16), sent[half:]])
    under = np.concatenate([late[: 700 * FRAME], sent[700 * FRAME :]])
    found = compare(under, [Sent(7, "caller", packets, packets)])
    assert found.absent == [[]]
    assert 0 < found.cut <= 5
    under[800 * FRAME : 810 * FRAME] = 0
    assert len(compare(under, [Sent(7, "caller", packets, packets)]).absent[0]) > 5


def test_what_a_take_says_is_not_looked_for_in_the_next_one_that_says_the_same() -> None:
    """Takes 1027 and 1047 read the same speech, 0.6 s apart: all of the first stands in the second, too."""
    first, second = expected_samples(1027, "caller", 11.3), expected_samples(1047, "caller", 25.5)
    heard = np.concatenate([first[: 258 * FRAME], np.zeros(8000 * 6, np.int16), second])
    found = compare(heard, [Sent(1027, "caller", 565, 565), Sent(1047, "caller", 1275, 1275)])
    assert found.absent[1] == []
    assert 258 in found.absent[0]
    assert not set(found.absent[0]) & set(range(200))
