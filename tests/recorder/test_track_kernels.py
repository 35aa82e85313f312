"""Windows of G.711 into tracks' files, all at once, against the plain twin of the placing kernel."""

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import _stream_columns as cols
from decoders.rtp import Window
from decoders.timeline import TICKS, Entries, FormatTable, StreamTable
from recorder.shard import Layout, Shard
from recorder.tracks import FilePool, Track
from tests import naive_streams

RATE = 8000
STEP = TICKS // RATE
LAWS = {"PCMU": cols.KIND_ULAW, "PCMA": cols.KIND_ALAW}


def laid_out(packets):
    """Entries over packets of (stream, law, position, payload), ordered by stream, and the window they are in."""
    octets = b"".join(payload for *_, payload in packets)
    sizes = np.array([len(payload) for *_, payload in packets], np.int32)
    counts = [sum(stream == n for stream, *_ in packets) for n in range(1 + max(stream for stream, *_ in packets))]
    none = np.empty(0, np.int32)
    entries = Entries(
        streams=none, bounds=np.cumsum([0, *counts]).astype(np.int64), order=none, time=none, stamp=none, sequence=none,
        type=none, source=(np.cumsum(sizes) - sizes).astype(np.int64), size=sizes, missing=none,
        taken=np.array(counts, np.int64), uts=none, position=np.array([p[2] for p in packets], np.int64), delay=none,
        kind=np.array([LAWS[p[1]] for p in packets], np.uint8),
    )  # fmt: skip
    window = Window.empty(1, 1)
    window.arena = np.frombuffer(octets + bytes(1), np.uint8).copy()
    layout = Layout([], none, none, np.array([n % 2 for n in range(len(counts))], np.int32), [0, len(counts)])
    return layout, entries, window


def job(stream, low, frames):
    return [stream, stream + 1, low, frames, 0, 0, 0, STEP]


def jobs_of(*rows):
    jobs = np.zeros((len(rows), cols.JOB), np.int64)
    for row, (first, last, low, frames, *_) in zip(jobs, rows, strict=True):
        row[[cols.JOB_FIRST, cols.JOB_LAST, cols.JOB_LOW, cols.JOB_FRAMES]] = first, last, low, frames
        row[cols.JOB_STEP] = STEP
    return jobs


def shard_of(pool):
    return Shard(StreamTable(1), FormatTable(), lambda _: None, 0, pool)


def samples_in(track):
    return np.fromfile(track.path, np.int16, offset=44).reshape(-1, 2)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_windows_land_in_files_as_their_packets_say(tmp_path_factory, data):
    place, pool = tmp_path_factory.mktemp("tracks"), FilePool(2)
    tracks = [Track(place / f"{n}.wav", RATE, 0) for n in range(3)]
    model = [np.zeros((0, 2), np.int16) for _ in tracks]
    shard = shard_of(pool)
    for _ in range(data.draw(st.integers(1, 4))):
        packets, rows = [], []
        for n in range(3):
            low, frames = data.draw(st.integers(0, 200)), data.draw(st.integers(1, 120))
            for _ in range(data.draw(st.integers(0 if n < 2 else 1, 3))):
                at = low + data.draw(st.integers(-20, 120))
                packets.append(
                    (n, data.draw(st.sampled_from(list(LAWS))), at * STEP, data.draw(st.binary(max_size=40)))
                )
            mine = [(n % 2, *packet[1:]) for packet in packets if packet[0] == n]
            rows.append(job(n, low, frames))
            kept = model[n][low : low + frames]
            before = np.concatenate([kept, np.zeros((frames - len(kept), 2), np.int16)])
            if len(model[n]) < low + frames:
                room = np.zeros((low + frames - len(model[n]), 2), np.int16)
                model[n] = np.concatenate([model[n], room])
            model[n][low : low + frames] = naive_streams.place(before, mine, 0, STEP, low)
        shard._flush(jobs_of(*rows), tracks, *laid_out(packets))
        for track, wanted in zip(tracks, model, strict=True):
            assert track.frames == len(wanted)
            np.testing.assert_array_equal(samples_in(track), wanted)
    pool.close_all()


def test_a_file_that_cannot_be_written_costs_only_its_own_track(tmp_path):
    failed = []
    pool = FilePool(failed=lambda track, error: failed.append((track.path.name, str(error))))
    (tmp_path / "full.wav").symlink_to("/dev/full")
    tracks = [Track(tmp_path / name, RATE, 0) for name in ("one.wav", "full.wav", "two.wav")]
    packets = [(n, "PCMU", 0, bytes([0x10 + n]) * 160) for n in range(3)]
    laid = laid_out(packets)
    shard_of(pool)._flush(jobs_of(*(job(n, 0, 160) for n in range(3))), tracks, *laid)
    pool.close_all()
    assert [name for name, _ in failed] == ["full.wav"]
    assert os.strerror(28) in failed[0][1]
    assert [track.failed for track in tracks] == [False, True, False]
    assert len(samples_in(tracks[0])) == len(samples_in(tracks[2])) == 160
    assert samples_in(tracks[0])[:, 0].all()


def test_a_file_that_somebody_has_shortened_is_filled_up_with_silence(tmp_path):
    pool, track = FilePool(), Track(tmp_path / "audio.wav", RATE, 0)
    shard = shard_of(pool)
    shard._flush(jobs_of(job(0, 0, 160)), [track], *laid_out([(0, "PCMU", 0, b"\x10" * 160)]))
    os.truncate(track.path, 44 + 4 * 100)
    shard._flush(jobs_of(job(0, 50, 200)), [track], *laid_out([(0, "PCMU", 160 * STEP, b"\x10" * 90)]))
    pool.close_all()
    heard = samples_in(track)[:, 0] != 0
    assert heard.tolist() == [True] * 100 + [False] * 60 + [True] * 90
