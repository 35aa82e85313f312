"""The engine's own promises: what it makes of calls apart from their signalling and media."""

from dataclasses import replace

from pcaps.make.sources import speech_like
from tests.capture_builder import ALICE, BOB, START, Capture, SipCall, both, record, talk
from tests.fuzz.frames import Frame, write_pcap
from tests.packets import tcp


def invite(call_id: str) -> bytes:
    """An INVITE as it stands in a datagram."""
    made = Capture()
    SipCall(made, call_id).request(0.1, "INVITE")
    return made.frames[0][1][42:]


def test_media_that_ends_the_wait_for_a_tcp_segment_is_no_part_of_the_call_that_begins_with_it(tmp_path):
    ends = {"source": ALICE, "destination": BOB}
    made = Capture()
    made.frames.append((START, bytes(tcp(invite("first"), **ends))))
    made.frames.append((START + 10**8, bytes(tcp(invite("second"), sequence=9000, **ends))))
    made.rtp(talk(speech_like(1, 1.0), ("192.0.2.77", 4000), ("192.0.2.88", 6000), at=5.0))

    found = [each.document for each in record([made.write(tmp_path / "made.pcap")], tmp_path / "out")]

    assert [each["call_id"] for each in found] == ["first", "second", None]
    assert [each["captures"][0]["first_packet"] for each in found] == [1, 3, 3]
    assert len({each["id"] for each in found}) == 3
    assert [each["audio"] is None for each in found] == [True, True, False]


def test_a_clock_that_steps_back_ends_calls_at_the_same_time_whatever_the_batches(tmp_path):
    made = Capture().rtp(talk(speech_like(1, 1.0), at=1.0))
    frames = [Frame(1, 0, 20_000_000, frame) for _, frame in made.frames]
    frames[30] = replace(frames[30], step=-(10**18))
    write_pcap(frames, tmp_path / "made.pcap")

    one, other = (
        record([tmp_path / "made.pcap"], tmp_path / str(size), batch_size=size)[0].directory for size in (8192, 7)
    )

    for name in ("call.json", "metadata.xml", "audio.wav"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_a_clock_that_is_set_while_a_call_talks_fills_no_disk(tmp_path):
    made = Capture().rtp(*both(2.0))
    made.call(end=None)
    ordered = [frame for _, frame in sorted(made.frames, key=lambda each: each[0])]
    frames = [Frame(1, 0, 10_000_000, frame) for frame in ordered]
    frames[8] = replace(frames[8], step=-(10**18))
    write_pcap(frames, tmp_path / "made.pcap")
    found = record([tmp_path / "made.pcap"], tmp_path / "out")
    assert all(each.document["audio"]["samples"] < 8000 * 60 for each in found if each.document["audio"])
