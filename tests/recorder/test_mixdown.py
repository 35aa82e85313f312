"""From tracks to an audio file: formats, rates, layers and headers."""

import hashlib
import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from pcaps.make.sources import speech_like
from recorder import mixdown
from recorder.mixdown import finish_audio, wav_header
from recorder.model import Call
from recorder.streams import CallMedia
from recorder.tracks import FilePool, Track


def media_with(directory, *tracks):
    """A call with tracks of (rate, layer, frames (n, 2))."""
    media = CallMedia(Call(0, "call", 0, 1, 0), directory=directory, zero=0, started=123)
    pool = FilePool()
    for number, (rate, layer, frames) in enumerate(tracks):
        name = "audio.wav" if number == 0 else f"track-{number}.pcm"
        track = Track(directory / name, rate, 0, layer)
        track.write(pool, 0, np.ascontiguousarray(frames).reshape(-1))
        media.tracks.append(track)
    pool.close_all()
    return media


def stereo(seconds=2.0, rate=8000, seed=1):
    """Two voices, (n, 2)."""
    return np.stack([speech_like(seed, seconds, rate), speech_like(seed + 1, seconds, rate)], axis=1)


def test_one_track_becomes_the_file_as_it_stands(tmp_path):
    frames = stereo()
    report = finish_audio(media_with(tmp_path, (8000, 0, frames)))
    path = tmp_path / "audio.wav"
    heard, rate = soundfile.read(path, dtype="int16")
    np.testing.assert_array_equal(heard, frames)
    assert (rate, report.sample_rate, report.channels, report.samples, report.started) == (8000, 8000, 2, 16000, 123)
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("mono", [False, True])
def test_an_hour_of_silence_takes_no_room(tmp_path, mono):
    media = media_with(tmp_path, (8000, 0, stereo(0.1)))
    pool = FilePool()
    media.tracks[0].write(pool, 3600 * 8000, np.ascontiguousarray(stereo(0.1)).reshape(-1))
    pool.close_all()
    report = finish_audio(media, mono=mono)
    assert report.samples == 3600 * 8000 + 800
    assert (tmp_path / "audio.wav").stat().st_blocks * 512 < 1 << 20


def test_silence_takes_no_room_in_rf64_either(tmp_path, monkeypatch):
    monkeypatch.setattr(mixdown, "RIFF_LIMIT", 1000)
    media = media_with(tmp_path, (8000, 0, stereo(0.1)))
    pool, hours = FilePool(), 1
    media.tracks[0].write(pool, hours * 3600 * 8000, np.ascontiguousarray(stereo(0.1)).reshape(-1))
    pool.close_all()
    report = finish_audio(media)
    path = tmp_path / "audio.wav"
    assert path.stat().st_blocks * 512 < 1 << 20
    assert soundfile.info(path).frames == report.samples == hours * 3600 * 8000 + 800


def test_layers_are_added_and_cut_to_16_bits(tmp_path):
    loud = np.full((100, 2), 30_000, np.int16)
    report = finish_audio(media_with(tmp_path, (8000, 0, loud), (8000, 1, loud[:40])))
    heard, _ = soundfile.read(tmp_path / "audio.wav", dtype="int16")
    assert (heard[:40] == 32767).all()
    assert (heard[40:] == 30_000).all()
    assert report.samples == 100
    assert [p.name for p in tmp_path.iterdir()] == ["audio.wav"]


def test_rates_are_joined_at_the_highest_without_moving_anything(tmp_path):
    time = np.arange(16000)
    tone = (8000 * np.sin(2 * np.pi * 440 * time / 8000)).astype(np.int16)
    slow = np.stack([tone, np.zeros_like(tone)], axis=1)
    fast = np.stack([np.zeros(20000), 8000 * np.sin(2 * np.pi * 440 * np.arange(20000) / 16000)], axis=1)
    report = finish_audio(media_with(tmp_path, (8000, 0, slow), (16000, 0, fast.astype(np.int16))))
    heard, rate = soundfile.read(tmp_path / "audio.wav", dtype="int16")
    assert (rate, report.samples) == (16000, 32000)
    wanted = 8000 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
    middle = slice(500, 19500)
    assert np.abs(heard[middle, 0] - wanted[middle]).max() < 40
    np.testing.assert_array_equal(heard[:20000, 1], fast[:, 1].astype(np.int16))


def test_mono_is_the_mean_of_both(tmp_path):
    frames = stereo()
    report = finish_audio(media_with(tmp_path, (8000, 0, frames)), mono=True)
    heard, _ = soundfile.read(tmp_path / "audio.wav", dtype="int16")
    assert report.channels == 1
    assert np.abs(heard - frames.astype(float).mean(axis=1)).max() <= 0.5


@pytest.mark.parametrize(("form", "exact"), [("flac", True), ("ogg", False), ("mp3", False)])
def test_other_formats_hold_the_same_sound(tmp_path, form, exact):
    time = np.arange(24000) / 8000
    tones = [9000 * np.sin(2 * np.pi * hertz * time) for hertz in (300, 700)]
    frames = np.stack(tones, axis=1).astype(np.int16)
    report = finish_audio(media_with(tmp_path, (8000, 0, frames)), form=form)
    assert (report.file, report.format, report.samples) == (f"audio.{form}", form, 24000)
    assert [p.name for p in tmp_path.iterdir()] == [f"audio.{form}"]
    heard, rate = soundfile.read(tmp_path / f"audio.{form}", dtype="int16")
    assert rate == report.sample_rate
    if exact:
        np.testing.assert_array_equal(heard, frames)
    else:
        for channel, hertz in enumerate((300, 700)):
            spectrum = np.abs(np.fft.rfft(heard[rate // 2 : 5 * rate // 2, channel])) / rate
            peak = spectrum[2 * hertz - 2 : 2 * hertz + 3]
            assert 8000 < np.sqrt(np.sum(peak**2)) < 10_000
            assert np.sum(spectrum**2) < 1.05 * np.sum(peak**2)


def test_the_same_sound_gives_the_same_bytes(tmp_path):
    for form in ("wav", "flac", "ogg", "mp3"):
        digests = set()
        for run in ("one", "two"):
            (tmp_path / form / run).mkdir(parents=True)
            digests.add(finish_audio(media_with(tmp_path / form / run, (8000, 0, stereo())), form=form).sha256)
        assert len(digests) == 1, form


def test_audio_too_long_for_riff_becomes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(mixdown, "RIFF_LIMIT", 1000)
    frames = stereo()
    report = finish_audio(media_with(tmp_path, (8000, 0, frames)))
    path = tmp_path / "audio.wav"
    assert path.read_bytes()[:4] == b"RF64"
    said = subprocess.run(["ffprobe", "-v", "error", "-show_streams", path], capture_output=True, text=True, check=True)
    assert "duration_ts=16000" in said.stdout
    np.testing.assert_array_equal(soundfile.read(path, dtype="int16")[0], frames)
    assert report.samples == 16000


def test_ogg_pages_are_renumbered_with_sound_checksums(tmp_path):
    finish_audio(media_with(tmp_path, (8000, 0, stereo(20))), form="ogg")
    octets = (tmp_path / "audio.ogg").read_bytes()
    pages = [k for k in range(len(octets)) if octets[k : k + 4] == b"OggS"]
    assert len(pages) > 10
    assert {octets[k + 14 : k + 18] for k in pages} == {b"\1\0\0\0"}
    # ffmpeg drops pages whose checksum is wrong.
    command = ["ffmpeg", "-v", "error", "-err_detect", "explode", "-i", tmp_path / "audio.ogg", "-f", "s16le", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert (done.stderr, len(done.stdout) >= 20 * 48000 * 4) == (b"", True)


def test_the_header_is_one_that_other_programs_read(tmp_path):
    assert len(wav_header(8000, 2, 4)) == 44
    finish_audio(media_with(tmp_path, (8000, 0, stereo())))
    if shutil.which("soxi"):
        said = subprocess.run(["soxi", tmp_path / "audio.wav"], capture_output=True, text=True, check=True).stdout
        assert "16000 samples" in said
    command = ["ffmpeg", "-loglevel", "error", "-i", tmp_path / "audio.wav", "-f", "s16le", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    assert raw == stereo().tobytes()


def test_a_call_without_media_has_no_audio(tmp_path):
    assert finish_audio(CallMedia(Call(0, "call", 0, 1, 0), directory=tmp_path)) is None
