"""Whose media it is: calls with media at odd places and odd times, heard sample by sample."""

import numpy as np

from pcaps.make.sources import speech_like
from tests.capture_builder import (
    ALICE,
    ALICE_RTP,
    BOB,
    BOB_RTP,
    RELAY,
    Capture,
    SipCall,
    both,
    hears,
    later,
    record,
    record_one,
    sdp,
    talk,
    through,
)


def streams_of(recording, participant):
    """The documents of one participant's streams."""
    return [s for s in recording.document["streams"] if s["participant"] == participant]


def test_media_at_two_hops_is_heard_once(tmp_path):
    alice, bob = both(5)
    capture = Capture()
    capture.call(end=6.5)
    # Alice and Bob reach each other through a relay that announces itself to each.
    capture = Capture()
    near = capture.call(end=6.5, callee="192.0.2.30", callee_media=("192.0.2.30", 7000))
    far = capture.call(end=6.5, caller="192.0.2.30", caller_media=("192.0.2.30", 7002))
    assert near.call_id == far.call_id
    alice_near = through(alice, ALICE_RTP, ("192.0.2.30", 7000))
    alice_far = later(through(alice, ("192.0.2.30", 7002), BOB_RTP), 0.002)
    bob_near = later(through(bob, ("192.0.2.30", 7000), ALICE_RTP), 0.002)
    bob_far = through(bob, BOB_RTP, ("192.0.2.30", 7002))
    # The near sighting of Alice misses packets that the far one has, and the other way round.
    seen = [p for k, p in enumerate(alice_near) if k % 20 != 7]
    capture.rtp(seen, [p for k, p in enumerate(alice_far) if k % 20 != 13], bob_near, bob_far)
    call = record_one(capture, tmp_path)
    hears(call, [alice], [bob])
    assert [s["copies"] for s in call.document["streams"]] == [1, 1]


def test_a_relay_that_rewrites_ssrcs_is_heard_nearest_to_each_speaker(tmp_path):
    alice, bob = both(5)
    capture = Capture()
    capture.call(end=6.5, callee=RELAY, callee_media=(RELAY, 7000))
    capture.call(end=6.5, caller=RELAY, caller_media=(RELAY, 7002))
    changes = {"ssrc": 0xDEAD}
    alice_near = through(alice, ALICE_RTP, (RELAY, 7000))
    alice_far = later(
        through(talk(speech_like(1, 5), codec="PCMA", sequence=7, timestamp=99), (RELAY, 7002), BOB_RTP, **changes),
        0.002,
    )
    bob_far = through(bob, BOB_RTP, (RELAY, 7002))
    bob_near = later(
        through(talk(speech_like(2, 5), codec="PCMA", at=1.0125, sequence=8), (RELAY, 7000), ALICE_RTP, ssrc=0xBEEF),
        0.002,
    )
    capture.rtp(alice_near, alice_far, bob_near, bob_far)
    call = record_one(capture, tmp_path)
    hears(call, [alice_near], [bob_far])
    assert [(s["participant"], s["copies"], s["source"]) for s in call.document["streams"]] == [
        ("caller", 1, "192.0.2.10:4000"),
        ("callee", 1, "192.0.2.20:6000"),
    ]


def test_media_waits_for_its_session_description(tmp_path):
    alice, bob = both(6)
    capture = Capture().rtp(alice, bob)
    call = SipCall(capture)
    # All signalling was delayed on its way to the tap by three seconds.
    call.request(4.0, "INVITE", sdp(ALICE_RTP))
    call.response(4.1, 200, "OK", sdp(BOB_RTP))
    call.request(4.2, "ACK")
    call.hang_up(9)
    recorded = record_one(capture, tmp_path)
    hears(recorded, [alice], [bob])


def test_one_direction_that_waits_for_the_answer_is_put_in_front_of_what_is_recorded(tmp_path):
    alice = talk(speech_like(1, 6), at=1.0)
    bob = talk(speech_like(2, 4), BOB_RTP, ALICE_RTP, at=3.0, ssrc=0xB0B)
    capture = Capture().rtp(alice, bob)
    call = SipCall(capture)
    # Alice sends to an address that only the 200 tells; from another than the one she announced.
    call.caller_media = (ALICE, 4444)
    call.request(0.1, "INVITE", sdp(ALICE_RTP))
    capture.frames.clear()
    capture.rtp(through(alice, ("198.51.100.7", 999), BOB_RTP), bob)
    call.request(0.1, "INVITE", sdp(ALICE_RTP))
    call.response(5.4, 200, "OK", sdp(BOB_RTP))
    call.request(5.5, "ACK")
    call.hang_up(9)
    recorded = record_one(capture, tmp_path)
    assert recorded.started == 1.0
    hears(recorded, [alice], [bob])


def test_signalling_later_than_the_wait_adopts_what_was_recorded_without_it(tmp_path):
    alice, bob = both(16)
    capture = Capture().rtp(alice, bob)
    call = SipCall(capture)
    call.request(9.0, "INVITE", sdp(ALICE_RTP))
    call.response(9.1, 200, "OK", sdp(BOB_RTP))
    call.request(9.2, "ACK")
    call.hang_up(18)
    recorded = record_one(capture, tmp_path)
    assert recorded.document["call_id"] == "call-1"
    hears(recorded, [alice], [bob])
    assert [(s["participant"], s["packets"]) for s in recorded.document["streams"]] == [
        ("caller", 800),
        ("callee", 800),
    ]


def test_signalling_later_than_the_wait_puts_speakers_on_their_own_sides(tmp_path):
    bob, alice = both(16)
    bob, alice = through(bob, BOB_RTP, ALICE_RTP), through(alice, ALICE_RTP, BOB_RTP)
    capture = Capture().rtp(alice, bob)
    call = SipCall(capture)
    call.request(9.0, "INVITE", sdp(ALICE_RTP))
    call.response(9.1, 200, "OK", sdp(BOB_RTP))
    call.request(9.2, "ACK")
    call.hang_up(18)
    recorded = record_one(capture, tmp_path)
    hears(recorded, [alice], [bob])
    assert {s["channel"] for s in streams_of(recorded, "caller")} == {0}


def test_media_without_signalling_is_a_call_with_both_directions(tmp_path):
    alice, bob = both(6)
    recorded = record_one(Capture().rtp(alice, bob), tmp_path)
    assert (recorded.document["state"], recorded.document["call_id"]) == ("media-only", None)
    hears(recorded, [alice], [bob])


def test_what_looks_like_rtp_and_is_none_is_no_call(tmp_path):
    dice = np.random.default_rng(3)
    capture = Capture()
    for k in range(400):
        odd = bytes([0x80, 0, *dice.integers(0, 256, 6).tolist(), 0, 0, 0, 7]) + bytes(160)
        capture.datagram(1 + k * 0.02, ALICE_RTP, BOB_RTP, odd)
    assert record([capture.write(tmp_path / "odd.pcap")], tmp_path / "out") == []


def test_a_port_used_again_at_once_by_the_next_call_goes_to_it(tmp_path):
    alice, bob = both(4)
    again, answer = talk(speech_like(5, 4), at=6.0), talk(speech_like(6, 4), BOB_RTP, ALICE_RTP, at=6.0125, ssrc=0xB0B)
    capture = Capture().rtp(alice, bob, again, answer)
    capture.call(end=5.2)
    second = SipCall(capture, call_id="call-2")
    second.request(5.3, "INVITE", sdp(ALICE_RTP))
    second.response(5.9, 200, "OK", sdp(BOB_RTP))
    second.request(5.91, "ACK")
    second.hang_up(10.5)
    one, two = record([capture.write(tmp_path / "made.pcap")], tmp_path / "out")
    hears(one, [alice], [bob])
    hears(two, [again], [answer])


def test_a_port_used_again_with_the_same_ssrc_within_the_window_is_split_at_the_new_description(tmp_path):
    alice, bob = both(4)
    again = talk(speech_like(5, 4), at=5.4, sequence=1200, timestamp=192_000)
    answer = talk(speech_like(6, 4), BOB_RTP, ALICE_RTP, at=5.4125, ssrc=0xB0B, sequence=30_200, timestamp=192_000)
    capture = Capture().rtp(alice, bob, again, answer)
    capture.call(end=5.05)
    second = SipCall(capture, call_id="call-2")
    second.request(5.1, "INVITE", sdp(ALICE_RTP))
    second.response(5.2, 200, "OK", sdp(BOB_RTP))
    second.request(5.21, "ACK")
    second.hang_up(10.5)
    one, two = record([capture.write(tmp_path / "made.pcap")], tmp_path / "out")
    hears(one, [alice], [bob])
    hears(two, [again], [answer])
    assert [[s["packets"] for s in each.document["streams"]] for each in (one, two)] == [[200, 200], [200, 200]]


def test_two_calls_that_share_their_media_endpoints_are_both_whole_and_grouped(tmp_path):
    alice, bob = both(5)
    capture = Capture().rtp(alice, bob)
    # A B2BUA leaves the media alone: both of its legs announce Alice's and Bob's own addresses.
    capture.call(end=6.5, callee=RELAY)
    capture.call(end=6.5, call_id="call-2", caller=RELAY)
    one, two = record([capture.write(tmp_path / "made.pcap")], tmp_path / "out")
    for each in (one, two):
        hears(each, [alice], [bob])
    assert one.document["group_id"] == two.document["group_id"]
    assert one.document["id"] != two.document["id"]


def test_two_sources_at_once_on_one_side_are_both_heard(tmp_path):
    alice, bob = both(6)
    music = talk(speech_like(7, 3), BOB_RTP, ALICE_RTP, at=3.0, ssrc=0x3051C)
    capture = Capture().rtp(alice, bob, music)
    capture.call(end=8)
    call = record_one(capture, tmp_path)
    np.testing.assert_array_equal(call.caller, call.expected(alice))
    total = call.expected(bob).astype(int) + call.expected(music)
    np.testing.assert_array_equal(call.callee, np.clip(total, -32768, 32767))
    assert "overlap" in call.warnings


def test_addresses_hidden_by_nat_are_found_by_where_media_goes(tmp_path):
    alice, bob = both(5)
    # Alice announces a private address, her packets come from, and Bob's go to, her router.
    outside = ("198.51.100.7", 40_001)
    alice, bob = through(alice, outside, BOB_RTP), through(bob, BOB_RTP, outside)
    capture = Capture().rtp(alice, bob)
    capture.call(end=6.5, caller="198.51.100.7", caller_media=("192.168.1.5", 4000))
    call = record_one(capture, tmp_path)
    hears(call, [alice], [bob])
    assert call.warnings == []


def test_media_that_moves_to_other_ports_goes_on_to_the_sample_and_is_counted_whole(tmp_path):
    alice, bob = both(8)
    moved = through(alice[200:], ALICE_RTP, (BOB, 6600))
    answer = through(bob[200:], (BOB, 6600), ALICE_RTP)
    capture = Capture().rtp(alice[:200], moved, bob[:200], answer)
    call = capture.call(end=None)
    call.request(4.9, "INVITE", sdp((BOB, 6600)), by_callee=True)
    call.response(4.95, 200, "OK", sdp(ALICE_RTP), by_caller=True)
    call.request(4.96, "ACK", by_callee=True)
    call.hang_up(10)
    recorded = record_one(capture, tmp_path)
    hears(recorded, [alice], [bob])
    assert sum(s["packets"] for s in streams_of(recorded, "caller")) == 400
    assert sum(s["packets"] for s in streams_of(recorded, "callee")) == 400
