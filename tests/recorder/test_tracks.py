"""Tracks: interleaved frames in files that grow, against an array in memory."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.timeline import TICKS
from recorder.tracks import FilePool, StoreError, Track
from recorder.wav import FRAME, HEADER


def frames_of(track, pool):
    """All frames of a track, (n, 2)."""
    flat = np.empty(2 * track.frames, np.int16)
    track.read(pool, 0, track.frames, flat)
    return flat.reshape(-1, 2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_track_holds_what_was_written_and_silence_elsewhere(tmp_path_factory, data):
    pool = FilePool(2)
    track = Track(tmp_path_factory.mktemp("track") / "audio.wav", 8000, 0)
    model = np.zeros((0, 2), np.int16)

    def reach(count):
        nonlocal model
        if len(model) < count:
            model = np.concatenate([model, np.zeros((count - len(model), 2), np.int16)])

    for number in range(data.draw(st.integers(1, 12))):
        what = data.draw(st.sampled_from(["write", "left", "right", "prepend", "swap"]))
        first, count = data.draw(st.integers(0, 300)), data.draw(st.integers(1, 200))
        samples = np.arange(count, dtype=np.int16) + 1000 * number + 1
        if what == "write":
            track.write(pool, first, np.repeat(samples, 2))
            reach(first + count)
            model[first : first + count] = samples[:, None]
        elif what in ("left", "right"):
            # A position before sample 0 loses what lies in front of it.
            at, channel = first - 50, what == "right"
            track.write_channel(pool, int(channel), at, samples)
            heard = samples[max(-at, 0) :]
            if len(heard):
                reach(max(at, 0) + len(heard))
                model[max(at, 0) : max(at, 0) + len(heard), int(channel)] = heard
        elif what == "prepend":
            track.prepend(pool, count)
            if len(model):
                model = np.concatenate([np.zeros((count, 2), np.int16), model])
        else:
            track.swap_channels(pool)
            model = model[:, ::-1].copy()
        np.testing.assert_array_equal(frames_of(track, pool), model)
    pool.close_all()


def test_a_long_track_moves_later_block_by_block(tmp_path):
    pool, track = FilePool(), Track(tmp_path / "audio.wav", 8000, 0)
    samples = np.random.default_rng(1).integers(-32768, 32768, 2 * 200_001).astype(np.int16)
    track.write(pool, 0, samples)
    track.prepend(pool, 70_003)
    whole = frames_of(track, pool)
    np.testing.assert_array_equal(whole[70_003:], samples.reshape(-1, 2))
    assert not whole[:70_003].any()
    pool.close_all()
    assert track.path.stat().st_size == HEADER + FRAME * len(whole)


def test_ticks_fall_on_the_nearest_sample():
    track = Track(None, 8000, 1000)
    step = TICKS // 8000
    assert [track.sample_at(1000 + t) for t in (0, step // 2 - 1, step // 2, step, -step, -step // 2)] == [
        0,
        0,
        1,
        1,
        -1,
        0,
    ]


def test_no_more_files_are_open_than_allowed(tmp_path):
    pool, before = FilePool(3), len(os.listdir("/proc/self/fd"))
    tracks = {name: Track(tmp_path / name, 8000, 0) for name in "abcde"}
    for name in "abcdea":
        pool.descriptor(tracks[name])
    assert len(os.listdir("/proc/self/fd")) <= before + 3
    pool.close_all()
    assert sorted(p.name for p in tmp_path.iterdir()) == list("abcde")


def test_a_directory_that_is_gone_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(StoreError, match="gone"):
        FilePool().descriptor(Track(tmp_path / "gone" / "audio.wav", 8000, 0))


def test_what_a_clock_puts_beyond_a_week_is_left_out(tmp_path):
    track, pool = Track(tmp_path / "audio.wav", 8000, 0), FilePool()
    frames = np.ones(320, np.int16)
    track.write(pool, 0, frames)
    track.write(pool, 8 * 86_400 * 8000, frames)
    track.write(pool, 6 * 86_400 * 8000, frames)
    pool.close_all()
    assert (track.frames, track.beyond) == (6 * 86_400 * 8000 + 160, 160)
