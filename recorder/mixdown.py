"""From a call's tracks to its audio file.

In: tracks, closed. Out: one file in the call's directory and its `AudioReport`. One track of plain stereo becomes the
WAV file as it stands: only its header is written. Several are joined: each is resampled as a whole to the highest rate
(soxr), added and cut to 16 bits. Other formats are encoded from the WAV.
"""

import hashlib
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from recorder.model import AudioReport
from recorder.ogg import renumber
from recorder.streams import CallMedia
from recorder.tracks import StoreError, Track
from recorder.wav import FRAME, HEADER, RIFF_LIMIT, wav_header

BLOCK = 1 << 17
"""Frames handled at one time."""
_SUBTYPES = {"flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III")}


def finish_audio(media: CallMedia, form: str = "wav", mono: bool = False) -> AudioReport | None:
    """Make the call's audio file from its tracks; None where there is no sample. The tracks are gone afterwards."""
    tracks = [t for t in media.tracks if t.frames]
    if not tracks or media.directory is None:
        return None
    wav = media.directory / "audio.wav"
    first = tracks[0]
    try:
        if len(tracks) > 1 or mono or first.path != wav:
            _join(tracks, media.directory / "audio.joined", mono)
            for track in media.tracks:
                track.path.unlink(missing_ok=True)
            (media.directory / "audio.joined").rename(wav)
        rate = max(t.rate for t in tracks)
        channels = 1 if mono else 2
        octets = _seal(wav, rate, channels)
        path = wav if form == "wav" else _encode(wav, form)
        return AudioReport(
            file=path.name,
            format=form,
            sample_rate=rate if form == "wav" else _rate_of(path),
            channels=channels,
            samples=octets // (2 * channels),
            started=media.started or 0,
            sha256=digest_of(path),
        )
    except OSError as error:
        raise StoreError(f"{media.directory}: the audio cannot be written: {error.strerror or error}") from error


def _seal(wav: Path, rate: int, channels: int) -> int:
    """Put a header in front of the samples; gives how many octets of samples there are.

    With few system calls, as in `digest_of`: at each of them a thread lets go of the interpreter and may have to wait.
    """
    descriptor = os.open(wav, os.O_RDWR | os.O_CLOEXEC)
    try:
        octets = os.fstat(descriptor).st_size - HEADER
        if half := octets % (2 * channels):
            # A kill may have left half a frame at the end.
            octets -= half
            os.ftruncate(descriptor, HEADER + octets)
        if octets <= RIFF_LIMIT:
            os.pwrite(descriptor, wav_header(rate, channels, octets), 0)
            return octets
    finally:
        os.close(descriptor)
    _rewrite_as_rf64(wav, rate, channels, octets)
    return octets


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_blocks * 512 < status.st_size or not status.st_size:
            # Long silence takes no room on the disk: to look at it through a mapping would give it some.
            with open(descriptor, "rb", closefd=False) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as view:
            return hashlib.sha256(view).hexdigest()
    finally:
        os.close(descriptor)


def _join(tracks: list[Track], path: Path, mono: bool) -> None:
    """Add the tracks at the highest of their rates into raw frames behind an empty header."""
    rate = max(t.rate for t in tracks)
    sources = [_resampled(track, rate) for track in tracks]
    ended = [False] * len(sources)
    with path.open("wb") as file:
        file.write(bytes(HEADER))
        left: list[NDArray[np.float32]] = [np.zeros((0, 2), np.float32) for _ in sources]
        while True:
            for i, source in enumerate(sources):
                while not ended[i] and len(left[i]) < BLOCK:
                    piece = next(source, None)
                    if piece is None:
                        ended[i] = True
                    else:
                        left[i] = np.concatenate([left[i], piece])
            count = min(max(len(piece) for piece in left), BLOCK)
            if count == 0:
                file.truncate()
                return
            total = np.zeros((count, 2), np.float32)
            for i, piece in enumerate(left):
                total[: min(count, len(piece))] += piece[:count]
                left[i] = piece[count:]
            _write_or_jump(file, _to_16_bit(total.mean(axis=1) if mono else total))


def _to_16_bit(samples: NDArray[np.float32]) -> bytes:
    return np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes()


def _frames(track: Track) -> Iterator[NDArray[np.float32]]:
    """A track's frames in blocks, shape (n, 2), in units of a 16-bit step."""
    with track.path.open("rb") as file:
        file.seek(HEADER)
        while data := file.read(BLOCK * FRAME):
            yield np.frombuffer(data, "<i2").reshape(-1, 2).astype(np.float32)


def _resampled(track: Track, rate: int) -> Iterator[NDArray[np.float32]]:
    """A track as one run at another rate."""
    if track.rate == rate:
        yield from _frames(track)
        return
    import soxr

    stream = soxr.ResampleStream(track.rate, rate, 2, dtype="float32", quality="VHQ")
    for block in _frames(track):
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros((0, 2), np.float32), last=True)


def _encode(wav: Path, form: str) -> Path:
    """Encode the WAV in another format, block by block, and drop it."""
    import soundfile

    container, subtype = _SUBTYPES[form]
    path = wav.with_suffix(f".{form}")
    with soundfile.SoundFile(wav) as source:
        rate = source.samplerate
        with soundfile.SoundFile(path, "w", rate, source.channels, subtype, format=container) as target:
            # libsndfile 1.2 garbles 16-bit stereo on its way into MP3; what is lossless must stay in 16 bits.
            for block in source.blocks(BLOCK, dtype="int16" if form == "flac" else "float32"):
                target.write(block)
    if form == "ogg":
        renumber(path, 1)
    wav.unlink()
    return path


def _rate_of(path: Path) -> int:
    import soundfile

    return int(soundfile.info(path).samplerate)


def _rewrite_as_rf64(wav: Path, rate: int, channels: int, octets: int) -> None:
    """Rewrite raw frames behind an empty header as RF64 (EBU Tech 3306): its header needs more room."""
    target = wav.with_suffix(".rf64")
    with wav.open("rb") as file, target.open("wb") as out:
        out.write(rf64_header(rate, channels, octets))
        file.seek(HEADER)
        while data := file.read(BLOCK * FRAME):
            _write_or_jump(out, data)
        out.truncate()
    target.rename(wav)


def rf64_header(rate: int, channels: int, octets: int) -> bytes:
    """The 80 octets in front of 16-bit PCM samples of any number."""
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, 72 + octets, octets, octets // (2 * channels), 0)
    form = wav_header(rate, channels, 0)[12:36]
    return b"RF64" + b"\xff" * 4 + b"WAVE" + sizes + form + b"data" + b"\xff" * 4


def _write_or_jump(file: IO[bytes], data: bytes) -> None:
    """Write samples; silence is jumped over and takes no room on the disk."""
    if data.count(0) == len(data):
        file.seek(len(data), os.SEEK_CUR)
    else:
        file.write(data)
