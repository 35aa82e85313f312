"""G.711 against FFmpeg and SoX, over every octet and every sample."""

import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.codecs import make_decoder
from decoders.codecs.g711 import ALAW, ULAW, encode_alaw, encode_ulaw
from decoders.sdp_values import PayloadFormat

LAWS = [("mulaw", "u-law", ULAW, encode_ulaw), ("alaw", "a-law", ALAW, encode_alaw)]
EVERY_OCTET = np.arange(256, dtype=np.uint8)
EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)


def sox(data: bytes, source: list[str], target: list[str]) -> bytes:
    if shutil.which("sox") is None:
        pytest.skip("sox is not installed")
    command = ["sox", "-D", "-t", "raw", "-r", "8000", "-c", "1", *source, "-", "-t", "raw", *target, "-"]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout


def test_known_values():
    assert (ULAW[0x00], ULAW[0x80], ULAW[0x7F], ULAW[0xFF]) == (-32124, 32124, 0, 0)
    assert (ALAW[0x2A], ALAW[0xAA], ALAW[0x55], ALAW[0xD5]) == (-32256, 32256, -8, 8)


@pytest.mark.parametrize(("name", "_encoding", "table", "_encode"), LAWS)
def test_decoding_equals_ffmpeg(ffmpeg, name, _encoding, table, _encode):
    judged = ffmpeg(EVERY_OCTET.tobytes(), "-f", name, "-ar", "8000", "-i", "-", "-f", "s16le", "-")
    assert np.array_equal(np.frombuffer(judged, np.int16), table)


@pytest.mark.parametrize(("_name", "encoding", "table", "_encode"), LAWS)
def test_decoding_equals_sox(_name, encoding, table, _encode):
    judged = sox(EVERY_OCTET.tobytes(), ["-e", encoding, "-b", "8"], ["-e", "signed", "-b", "16"])
    assert np.array_equal(np.frombuffer(judged, np.int16), table)


@pytest.mark.parametrize(("_name", "_encoding", "table", "encode"), LAWS)
def test_encoding_what_was_decoded_gives_it_back(_name, _encoding, table, encode):
    assert np.array_equal(table[encode(table)], table)


@pytest.mark.parametrize(("_name", "_encoding", "table", "encode"), LAWS)
def test_a_louder_sample_never_gets_a_lower_level(_name, _encoding, table, encode):
    assert (np.diff(table[encode(EVERY_SAMPLE)].astype(int)) >= 0).all()


@pytest.mark.parametrize(("name", "_encoding", "table", "encode"), LAWS)
def test_encoding_differs_from_ffmpeg_by_one_level_at_the_edges_of_levels_only(ffmpeg, name, _encoding, table, encode):
    # FFmpeg cuts samples to 14 (13) bits before it compares them with the decision values.
    judged = np.frombuffer(
        ffmpeg(EVERY_SAMPLE.tobytes(), "-f", "s16le", "-ar", "8000", "-i", "-", "-f", name, "-"), np.uint8
    )
    levels = np.unique(table)
    distance = np.abs(np.searchsorted(levels, table[judged]) - np.searchsorted(levels, table[encode(EVERY_SAMPLE)]))
    assert distance.max() <= 1
    assert distance.mean() < 0.016


def test_payloads_keep_their_lengths():
    decoder = make_decoder(PayloadFormat(0, "PCMU", 8000))
    assert [len(samples) for samples in decoder.decode([bytes(160), b"", bytes(80), bytes(1)])] == [160, 0, 80, 1]


def test_other_rates_and_channels():
    decoder = make_decoder(PayloadFormat(96, "PCMA", 16000, channels=2))
    (samples,) = decoder.decode([bytes([0xD5, 0x55, 0x2A, 0x2A, 0x2A])])
    assert decoder.sample_rate == 16000
    assert samples.tolist() == [0, -32256]


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_batches_decode_as_single_payloads_do(payloads):
    decoder = make_decoder(PayloadFormat(8, "PCMA", 8000))
    together = decoder.decode(payloads)
    assert all(np.array_equal(a, decoder.decode([p])[0]) for a, p in zip(together, payloads, strict=True))
