"""L16, L8 and DVI4 (RFC 3551), DVI4 against SoX."""

import shutil
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.codecs import make_decoder
from decoders.sdp_values import STATIC_FORMATS, PayloadFormat


def test_l16_is_big_endian_and_two_channels_are_averaged():
    mono, stereo = make_decoder(STATIC_FORMATS[11]), make_decoder(STATIC_FORMATS[10])
    payload = struct.pack(">6h", 100, 200, -32768, -32768, 1, 2)
    assert mono.decode([payload])[0].tolist() == [100, 200, -32768, -32768, 1, 2]
    assert stereo.decode([payload])[0].tolist() == [150, -32768, 2]
    assert mono.sample_rate == stereo.sample_rate == 44100


def test_l8_is_offset_binary():
    decoder = make_decoder(PayloadFormat(96, "L8", 8000))
    assert decoder.decode([bytes([0, 128, 255])])[0].tolist() == [-32768, 0, 32512]


def sox_dvi4(payload: bytes) -> np.ndarray:
    """Decode by way of an IMA ADPCM file: its header gives the first sample, its halves are the other way round."""
    if shutil.which("sox") is None:
        pytest.skip("sox is not installed")
    predictor, index = struct.unpack(">hB", payload[:3])
    body = bytes((octet << 4 | octet >> 4) & 0xFF for octet in payload[4:])
    block = struct.pack("<hBx", predictor, index) + body
    samples = 1 + 2 * len(body)
    form = struct.pack("<HHIIHHHH", 0x11, 1, 8000, 4000, len(block), 4, 2, samples)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    chunks += b"fact" + struct.pack("<II", 4, samples) + b"data" + struct.pack("<I", len(block)) + block
    command = ["sox", "-D", "-t", "wav", "-", "-t", "raw", "-e", "signed", "-b", "16", "-"]
    wave = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    out = subprocess.run(command, input=wave, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    return np.frombuffer(out, np.int16)[1:]


@pytest.mark.parametrize("payload_type", [5, 6, 16, 17])
def test_dvi4_equals_sox(payload_type):
    random = np.random.default_rng(payload_type)
    payloads = [
        struct.pack(">hBx", random.integers(-32768, 32768), random.integers(0, 89)) + random.bytes(80) for _ in range(5)
    ]
    decoder = make_decoder(STATIC_FORMATS[payload_type])
    assert decoder.sample_rate == STATIC_FORMATS[payload_type].clock_rate
    for payload, samples in zip(payloads, decoder.decode(payloads), strict=True):
        assert np.array_equal(samples, sox_dvi4(payload))


@pytest.mark.parametrize("fmt", [STATIC_FORMATS[5], STATIC_FORMATS[10], PayloadFormat(96, "L8", 8000, 2)])
@given(payloads=st.lists(st.binary(max_size=90), max_size=6))
def test_batches_decode_as_single_payloads_do(fmt, payloads):
    decoder = make_decoder(fmt)
    together = decoder.decode(payloads)
    assert all(np.array_equal(a, decoder.decode([p])[0]) for a, p in zip(together, payloads, strict=True))
