"""The check of recordings of a load: it forgives packets that were moved, and nothing else."""

import numpy as np
import pytest

from bench.calls import FRAME, expected_samples
from bench.live_check import Samples, held

SECONDS = 12.0


@pytest.fixture
def sent() -> Samples:
    return np.asarray(expected_samples(19, "caller", SECONDS), np.int16)


def placed(sent: Samples, moves: dict[int, int], lead: int = 4000) -> Samples:
    """The channel that a recorder writes where packets from one on are moved by so many samples."""
    heard = np.zeros(lead + len(sent) + 8000, np.int16)
    shift = lead
    for place, packet in enumerate(sent.reshape(-1, FRAME)):
        shift += moves.get(place, 0)
        heard[place * FRAME + shift :][:FRAME] = packet
    return heard


def pause(sent: Samples) -> int:
    """A packet in the middle of a pause, where each is like the one before it."""
    packets = sent.reshape(-1, FRAME)
    alike = (packets[1:] == packets[:-1]).all(axis=1)
    runs = np.flatnonzero(alike[:-4] & alike[1:-3] & alike[2:-2] & alike[3:-1])
    return int(runs[0]) + 3


def test_what_stands_in_its_place_is_whole(sent):
    found = held(placed(sent, {}), sent)
    assert (found.cut, found.moves, found.strange, found.enough) == ((), (), 0, True)


@pytest.mark.parametrize("moved", [360, 163, 1590])
def test_a_move_in_a_pause_is_followed_wherever_speech_goes_on(sent, moved):
    found = held(placed(sent, {pause(sent): moved}), sent)
    assert (found.cut, found.strange) == ((), 0)
    assert sum(move.samples for move in found.moves) == moved


def test_packets_that_a_move_cuts_are_counted_and_their_rests_are_known(sent):
    found = held(placed(sent, {100: 400, 300: -360}), sent)
    assert len(found.cut) == 3
    assert found.strange == 0
    assert sum(move.samples for move in found.moves) == 40


def test_more_cut_than_half_a_per_cent_is_not_enough(sent):
    assert not held(placed(sent, {100: 800, 300: -800}), sent).enough


def test_one_wrong_sample_is_found(sent):
    heard = placed(sent, {100: 400})
    heard[4000 + 50 * FRAME + 7] ^= 256
    found = held(heard, sent)
    assert found.strange >= 1
    assert not found.enough


def test_sound_where_none_was_sent_is_found(sent):
    heard = placed(sent, {})
    heard[-100] = 5
    assert held(heard, sent).strange == 1


def test_a_packet_in_the_place_of_another_is_found(sent):
    heard = placed(sent, {})
    first, second = (slice(4000 + at * FRAME, 4000 + (at + 1) * FRAME) for at in (100, 101))
    heard[first], heard[second] = heard[second].copy(), heard[first].copy()
    assert not held(heard, sent).enough


def test_silence_is_not_enough(sent):
    assert not held(np.zeros(len(sent), np.int16), sent).enough


def test_packets_that_are_missing_are_not_excused_by_a_move_later(sent):
    heard = placed(sent, {100: 400})
    heard[4000 + 50 * FRAME :][: 5 * FRAME] = 0
    assert not held(heard, sent, 4000).overlapped
    assert held(placed(sent, {100: 400, 300: -800}), sent, 4000).overlapped
