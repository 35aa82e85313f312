"""Calls made packet by packet: what is heard, sample by sample, and where, on both channels."""

from dataclasses import replace

import numpy as np

from pcaps.make.sources import decode, speech_like
from tests.capture_builder import (
    ALICE_RTP,
    BOB_RTP,
    Capture,
    both,
    hears,
    later,
    record_one,
    talk,
)


def test_a_plain_call_is_heard_to_the_sample(tmp_path):
    alice, bob = both(5)
    capture = Capture().rtp(alice, bob)
    capture.call(end=6.5)
    call = record_one(capture, tmp_path)
    hears(call, [alice], [bob])
    assert call.started == 1.0
    assert len(call.audio) == 5 * 8000 + 100
    assert call.warnings == []


def test_lost_packets_leave_silence_exactly_there(tmp_path):
    alice, bob = both(5)
    alice = [p for k, p in enumerate(alice) if k % 9 != 4 and k not in range(120, 133)]
    capture = Capture().rtp(alice, bob)
    capture.call(end=6.5)
    call = record_one(capture, tmp_path)
    hears(call, [alice], [bob])
    stream = next(s for s in call.document["streams"] if s["participant"] == "caller")
    assert (stream["packets"], stream["lost"], stream["expected"]) == (len(alice), 250 - len(alice), 250)


def test_jitter_moves_no_sample(tmp_path):
    dice = np.random.default_rng(5)
    alice, bob = both(20)
    shaken = [alice[0], *(replace(p, at=p.at + round(dice.uniform(0, 0.06), 4)) for p in alice[1:])]
    capture = Capture().rtp(shaken, bob)
    capture.call(end=22)
    hears(record_one(capture, tmp_path), [alice], [bob])


def test_jitter_of_either_sign_moves_no_sample(tmp_path):
    dice = np.random.default_rng(6)
    alice, bob = both(20)
    shaken = [alice[0], *(replace(p, at=p.at + round(dice.uniform(-0.03, 0.03), 4)) for p in alice[1:])]
    capture = Capture().rtp(shaken, bob)
    capture.call(end=22)
    hears(record_one(capture, tmp_path), [alice], [bob])


def test_reordered_packets_land_where_they_belong_even_across_windows(tmp_path):
    alice, bob = both(9)
    order = list(alice)
    for k in range(7, len(order) - 8, 11):
        late = order[k]
        order[k] = replace(late, at=late.at + 0.02 * (k % 5 + 1) + 0.001)
    # Windows end at every second of an even number since the first packet: some of the above straddle them.
    assert any(int(a.at / 2) != int(b.at / 2) for a, b in zip(alice, order, strict=True))
    capture = Capture().rtp(order, bob)
    capture.call(end=11)
    call = record_one(capture, tmp_path)
    hears(call, [alice], [bob])
    stream = next(s for s in call.document["streams"] if s["participant"] == "caller")
    assert stream["lost"] == 0
    assert stream["reordered"] == len(range(7, len(order) - 8, 11))


def test_an_older_packet_that_comes_second_carries_the_beginning_back(tmp_path):
    alice, bob = both(5)
    order = [replace(alice[0], at=alice[1].at + 0.002), *alice[1:]]
    capture = Capture().rtp(order, bob)
    capture.call(end=6.5)
    call = record_one(capture, tmp_path)
    assert call.started == 1.0
    hears(call, [[alice[0], *alice[1:]]], [bob])


def test_duplicates_change_nothing(tmp_path):
    alice, bob = both(5)
    twice = [replace(p, at=p.at + 0.003) for p in alice[::3]]
    capture = Capture().rtp(alice, twice, bob)
    capture.call(end=6.5)
    call = record_one(capture, tmp_path)
    hears(call, [alice], [bob])
    stream = next(s for s in call.document["streams"] if s["participant"] == "caller")
    assert (stream["packets"], stream["duplicates"], stream["lost"]) == (250, len(twice), 0)


def test_a_port_mirrored_twice_is_one_call_heard_once(tmp_path):
    alice, bob = both(5)
    capture = Capture().rtp(alice, bob)
    capture.call(end=6.5)
    capture.frames = [each for time, frame in capture.frames for each in ((time, frame), (time + 20_000, frame))]
    call = record_one(capture, tmp_path)
    hears(call, [alice], [bob])
    assert [(s["packets"], s["duplicates"], s["copies"]) for s in call.document["streams"]] == [(250, 250, 0)] * 2


def test_sequence_numbers_and_timestamps_wrap_unheard(tmp_path):
    alice, bob = both(8, sequence=65_400, timestamp=2**32 - 3000)
    capture = Capture().rtp(alice, bob)
    capture.call(end=10)
    call = record_one(capture, tmp_path)
    hears(call, [alice], [bob])
    assert [s["lost"] for s in call.document["streams"]] == [0, 0]


def test_another_ssrc_goes_on_where_its_packets_arrive(tmp_path):
    alice, bob = both(8)
    before = alice[:200]
    after = [
        replace(p, ssrc=0xFEED, sequence=p.sequence + 777, timestamp=p.timestamp + 123_456_789) for p in alice[200:]
    ]
    after = later(after, 0.04)
    capture = Capture().rtp(before, after, bob)
    capture.call(end=10)
    call = record_one(capture, tmp_path)
    hears(call, [before, after], [bob])
    assert [s["packets"] for s in call.document["streams"]] == [200, 400, 200]
    assert call.warnings == []


def test_a_restart_within_the_ssrc_goes_on_where_its_packets_arrive(tmp_path):
    for name, (sequence, stamp) in enumerate([(5_000, 900_000_000), (-20_000, -150_000), (30_000, 2**31 + 5)]):
        alice, bob = both(8)
        before = alice[:200]
        after = [replace(p, sequence=p.sequence + sequence, timestamp=p.timestamp + stamp) for p in alice[200:]]
        after = later(after, 0.5)
        capture = Capture().rtp(before, after, bob)
        capture.call(end=10)
        (tmp_path / str(name)).mkdir()
        call = record_one(capture, tmp_path / str(name))
        hears(call, [before, after], [bob])
        stream = next(s for s in call.document["streams"] if s["participant"] == "caller")
        assert (stream["packets"], stream["lost"]) == (400, 0)


def test_a_timestamp_that_jumps_either_way_goes_on_where_its_packets_arrive(tmp_path):
    for name, jump in enumerate([8_000 * 3, 8_000 * 3600, -8_000 * 2, -100_000, -8_000 * 3600, 2**31 + 17]):
        alice, bob = both(8)
        before, after = alice[:200], [replace(p, timestamp=p.timestamp + jump) for p in alice[200:]]
        capture = Capture().rtp(before, after, bob)
        capture.call(end=10)
        (tmp_path / str(name)).mkdir()
        call = record_one(capture, tmp_path / str(name))
        hears(call, [before, after], [bob])
        assert [s["lost"] for s in call.document["streams"]] == [0, 0]


def test_a_pause_with_a_frozen_timestamp_is_heard_as_a_pause(tmp_path):
    alice, bob = both(8)
    before, after = alice[:200], later(alice[200:], 1.2)
    capture = Capture().rtp(before, after, bob)
    capture.call(end=11)
    hears(record_one(capture, tmp_path), [before, after], [bob])


def test_a_stall_of_the_network_with_a_burst_after_it_moves_no_sample(tmp_path):
    alice, bob = both(8)
    stalled = [replace(p, at=max(p.at, 5.2 + 0.0001 * k)) if 4.0 < p.at < 5.2 else p for k, p in enumerate(alice)]
    capture = Capture().rtp(stalled, bob)
    capture.call(end=10)
    call = record_one(capture, tmp_path)
    hears(call, [alice], [bob])
    assert call.document["streams"][0]["late"] > 40


def test_silence_between_talk_spurts_is_exact(tmp_path):
    alice, bob = both(8)
    spurts = [
        replace(p, marker=k in (0, 150), sequence=p.sequence - (100 if k >= 150 else 0)) for k, p in enumerate(alice)
    ]
    spurts = spurts[:50] + spurts[150:]
    capture = Capture().rtp(spurts, bob)
    capture.call(end=10)
    call = record_one(capture, tmp_path)
    hears(call, [spurts], [bob])
    assert not call.caller[50 * 160 : 150 * 160].any()
    assert [s["lost"] for s in call.document["streams"]] == [0, 0]


def test_key_presses_are_exact_silence(tmp_path):
    alice, bob = both(6)
    spoken = [p for k, p in enumerate(alice) if not 100 <= k < 110]
    pressed = [
        replace(
            p,
            timestamp=alice[100].timestamp,
            payload=bytes([5, 10 + 128 * (k >= 7), *(160 * (k + 1)).to_bytes(2, "big")]),
            payload_type=101,
            marker=k == 0,
        )
        for k, p in enumerate(alice[100:110])
    ]
    capture = Capture().rtp(spoken, pressed, bob)
    capture.call(end=8)
    call = record_one(capture, tmp_path)
    hears(call, [spoken], [bob])
    assert [(d["digit"], d["participant"], d["via"]) for d in call.document["dtmf"]] == [("5", "caller", "rfc4733")]
    assert [s["packets"] for s in call.document["streams"]] == [300, 300]


def test_comfort_noise_sounds_from_its_packet_to_the_next_speech_only(tmp_path):
    alice, bob = both(6)
    noise = replace(alice[100], payload=b"\x30", payload_type=13)
    spoken = alice[:100] + [replace(p, sequence=p.sequence - 49) for p in alice[150:]]
    capture = Capture().rtp(spoken, [noise], bob)
    capture.call(end=8)
    call = record_one(capture, tmp_path)
    left = call.expected(spoken)
    filled = slice(100 * 160, 150 * 160)
    level = 20 * np.log10(np.sqrt(np.mean(np.square(call.caller[filled].astype(float)))) / 32768)
    assert abs(level - -48) < 3
    left[filled] = call.caller[filled]
    np.testing.assert_array_equal(call.caller, left)
    np.testing.assert_array_equal(call.callee, call.expected(bob))


def test_a_stray_packet_with_a_wild_timestamp_moves_and_lengthens_nothing(tmp_path):
    for name, wild in enumerate([8_000 * 3600 * 10, -8_000 * 3600 * 10, 2**31 - 5, 2**31 + 5]):
        alice, bob = both(8)
        stray = replace(alice[100], timestamp=alice[100].timestamp + wild)
        sent = [*alice[:100], stray, *alice[101:]]
        capture = Capture().rtp(sent, bob)
        capture.call(end=10)
        (tmp_path / str(name)).mkdir()
        call = record_one(capture, tmp_path / str(name))
        heard = [p for p in sent if p is not stray]
        left = call.expected(heard)
        odd = slice(100 * 160, 101 * 160)
        left[odd] = call.caller[odd]
        np.testing.assert_array_equal(call.caller, left)
        np.testing.assert_array_equal(call.callee, call.expected(bob))
        assert len(call.audio) == 8 * 8000 + 100


def test_a_stray_packet_with_a_wild_sequence_number_moves_nothing(tmp_path):
    alice, bob = both(8)
    stray = replace(alice[100], sequence=alice[100].sequence + 20_000, timestamp=5, at=alice[100].at + 0.005)
    capture = Capture().rtp(alice, [stray], bob)
    capture.call(end=10)
    call = record_one(capture, tmp_path)
    hears(call, [alice], [bob])
    assert call.warnings == ["stray-packets"]


def test_hold_with_media_stop_keeps_both_channels_in_step(tmp_path):
    alice, bob = both(12)
    alice = alice[:200] + later(alice[200:], 0)
    quiet = range(200, 400)
    alice = [p if k < 400 else replace(p, sequence=p.sequence - 200, marker=k == 400) for k, p in enumerate(alice)]
    alice = [p for k, p in enumerate(alice) if k not in quiet]
    # Bob's timestamps stand still while he is held.
    late = [replace(p, sequence=p.sequence - 200, timestamp=p.timestamp - 200 * 160) for p in bob[400:]]
    capture = Capture().rtp(alice, bob[:200], late)
    capture.call(end=14)
    call = record_one(capture, tmp_path)
    hears(call, [alice], [bob[:200], late])


def test_media_before_the_answer_is_part_of_the_recording(tmp_path):
    alice, bob = both(5)
    early = talk(speech_like(9, 2), BOB_RTP, ALICE_RTP, at=0.5, ssrc=0xEA)
    later_alice, later_bob = later(alice, 2.5), later(bob, 2.5)
    capture = Capture().rtp(early, later_alice, later_bob)
    capture.call(end=10, answer=3.0)
    call = record_one(capture, tmp_path)
    assert call.started == 0.5
    hears(call, [later_alice], [early, later_bob])


def find(channel, samples, at, moves):
    """The first move (in a tuple) by which the samples stand whole beside sample `at` of the channel."""
    for move in moves:
        if np.array_equal(channel[at + move : at + move + len(samples)], samples):
            return (move,)
    return None


def test_clocks_that_run_off_are_corrected_by_whole_packets(tmp_path):
    minutes, ms = 31, 60
    fast = talk(np.tile(speech_like(1, 60), minutes), ms=ms, skew=200e-6)
    slow = talk(
        np.tile(speech_like(2, 60), minutes), BOB_RTP, ALICE_RTP, ms=ms, at=1.0125, ssrc=0xB0B, skew=-200e-6
    )  # fmt: skip
    capture = Capture().rtp(fast, slow)
    capture.call(end=minutes * 60 + 3)
    call = record_one(capture, tmp_path)
    for packets, heard in ((fast, call.caller), (slow, call.callee)):
        cut, move = 0, 0
        for packet in packets:
            samples = decode("PCMU", np.frombuffer(packet.payload, np.uint8))
            at = round((packet.at - call.started) * 8000)
            near = [m for m in (move - 1, move, move + 1) if abs(m) <= 160 and at + m >= 0]
            found = find(heard, samples, at, near) or find(heard, samples, at, range(-min(at, 160), 161))
            cut += found is None
            move = found[0] if found else 0
        # Whole and within 20 ms of its capture time, but for at most one in 200.
        assert cut <= 0.005 * len(packets)
    assert abs(len(call.audio) - (slow[-1].at - call.started) * 8000 - ms * 8) <= 160
